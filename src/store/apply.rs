//! A batch becomes one write transaction: sorted by kind of row and key, the last write of a row winning.
//!
//! Sorting makes neighbours in the database neighbours in time: each page is found once. What is put and removed within one batch never
//! reaches the database.

use std::ops::Bound;

use redb::{ReadableTable, TableHandle, WriteTransaction};

use super::error::{Doing, StoreError};
use super::follow::Follower;
use super::rows::meta::{self, Fact, Meta};
use super::rows::{
    Bridge, Definition, Delivery, Group, Inflight, Message, MessageId, Put, Received, Retained,
    Row, RowKey, Session, Spread, Subscription, Table, Unused, Will, kinds,
};
use super::tables::{PART, PARTS, part_key};
use crate::broker::record::{Batch, Write};

/// Numbers are set aside on disk by this many, so that most batches do not write how far they have come.
const SEQ_BLOCK: u64 = 1 << 16;
const QUEUE_BLOCK: u64 = 1 << 10;
const BATCH_BLOCK: u64 = 1 << 16;

/// Rough bytes that a row takes beside its key and its record.
pub(super) const ROW: i64 = 12;

const APPLY: &str = "apply a batch";

/// Puts and removals of rows of one table.
struct Rows<'a, T: Table>(Vec<Put<'a, T>>);

impl<T: Table> Default for Rows<'_, T> {
    fn default() -> Self {
        Rows(Vec::new())
    }
}

impl<'a, T: Table> Rows<'a, T> {
    /// Sorts by key and lets the last write of each row win. A removal after a put takes both away where the row was not there before the batch.
    fn settle(&mut self, fresh: &[u64]) {
        if self.0.len() < 2 {
            return;
        }
        self.0.sort_by(|a, b| a.0.cmp(&b.0));
        let mut kept: Vec<Put<'a, T>> = Vec::with_capacity(self.0.len());
        for (key, put) in self.0.drain(..) {
            match kept.last_mut() {
                Some(last) if last.0 == key => {
                    if last.1.is_some() && put.is_none() && T::is_new(&key, fresh) {
                        kept.pop();
                    } else {
                        last.1 = put;
                    }
                }
                _ => kept.push((key, put)),
            }
        }
        self.0 = kept;
    }
}

macro_rules! by_kind {
    ($($at:tt $kind:ident $number:literal since $since:literal;)*) => {
        /// The writes of a batch by kind of row.
        #[derive(Default)]
        struct ByKind<'a>($(Rows<'a, $kind>),*);

        impl<'a> ByKind<'a> {
            /// Adds a write to those of its kind. Returns the numbers that it uses up.
            fn add(&mut self, write: &'a Write) -> Unused {
                $(
                    if let Some(put) = <$kind as Row>::of(write) {
                        let used = $kind::used(&put.0);
                        self.$at.0.push(put);
                        return used;
                    }
                )*
                Unused::default()
            }

            /// Writes them.
            fn write(self, rows: &mut RowWriter<'_, '_>) -> Result<(), StoreError> {
                $(rows.write(self.$at)?;)*
                Ok(())
            }
        }
    };
}
kinds!(by_kind);

/// A batch, sorted.
#[derive(Default)]
pub(super) struct Sorted<'a> {
    by_kind: ByKind<'a>,
    facts: Rows<'a, Meta>,
    /// The bodies that it puts.
    fresh: Vec<u64>,
    used: Unused,
}

impl<'a> Sorted<'a> {
    /// Sorts a batch.
    pub(super) fn new(batch: &'a Batch) -> Sorted<'a> {
        let mut sorted = Sorted::default();
        sorted.used.batch = batch.id.0.saturating_add(1);
        for write in &batch.writes {
            match write {
                Write::PutClock(reading) => sorted.put_fact(meta::CLOCK, Fact::Reading(*reading)),
                Write::PutMessage(id, _) => sorted.fresh.push(id.0),
                _ => {}
            }
            sorted.used = sorted.used.max(sorted.by_kind.add(write));
        }
        sorted.fresh.sort_unstable();
        sorted
    }

    /// Adds what the store says of itself.
    pub(super) fn put_fact(&mut self, key: &'static [u8], fact: Fact) {
        self.facts.0.push((key, Some(fact)));
    }

    /// Writes everything into a transaction, and tells `followers`. Returns by how many bytes the live rows have grown, and how far numbers are
    /// set aside now.
    ///
    /// # Errors
    /// If the database fails; the transaction must be given up.
    pub(super) fn write(
        mut self,
        transaction: &WriteTransaction,
        unused: Unused,
        followers: &mut [Box<dyn Follower>],
    ) -> Result<(i64, Unused), StoreError> {
        let unused = self.set_aside(unused);
        let mut rows = RowWriter {
            transaction,
            fresh: self.fresh,
            key: Vec::new(),
            record: Vec::with_capacity(PART),
            parts: None,
            live: 0,
            followers,
        };
        self.by_kind.write(&mut rows)?;
        let grown = rows.live;
        rows.write(self.facts)?;
        Ok((grown, unused))
    }

    /// Sets numbers aside if the batch has used one that is not set aside yet. Returns how far that is now.
    fn set_aside(&mut self, mut unused: Unused) -> Unused {
        let used = self.used;
        for (key, used, unused, block) in [
            (meta::SEQ, used.seq, &mut unused.seq, SEQ_BLOCK),
            (meta::QUEUE, used.queue, &mut unused.queue, QUEUE_BLOCK),
            (meta::BATCH, used.batch, &mut unused.batch, BATCH_BLOCK),
        ] {
            if used > *unused {
                *unused = used.saturating_add(block);
                self.put_fact(key, Fact::Number(*unused));
            }
        }
        unused
    }
}

/// From this many rows on they are appended in one go; measured: fewer write more bytes so.
const APPEND: usize = 40;

/// From this many removals on it is worth a look whether they are neighbours.
const SWEEP: usize = 8;

/// Whether most rows from the first to the last of these keys are among them.
fn is_dense(table: &Rest<'_>, keys: &[Vec<u8>]) -> Result<bool, StoreError> {
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
        return Ok(false);
    };
    let rows = table.range(first.as_slice()..=last.as_slice());
    Ok(rows.doing(APPLY)?.take(2 * keys.len() + 1).count() <= 2 * keys.len())
}

type Rest<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// Writes rows into the tables of a transaction.
struct RowWriter<'t, 'f> {
    transaction: &'t WriteTransaction,
    /// The bodies that the batch puts, in order.
    fresh: Vec<u64>,
    key: Vec<u8>,
    record: Vec<u8>,
    /// The table of parts, once it is needed.
    parts: Option<Rest<'t>>,
    live: i64,
    followers: &'f mut [Box<dyn Follower>],
}

impl<'t> RowWriter<'t, '_> {
    /// Removes and then puts the rows of one table.
    fn write<T: Table>(&mut self, mut rows: Rows<'_, T>) -> Result<(), StoreError> {
        if rows.0.is_empty() {
            return Ok(());
        }
        rows.settle(&self.fresh);
        let rows = rows.0;
        let mut table = self.transaction.open_table(T::TABLE).doing(APPLY)?;
        let removals = rows.iter().filter(|(_, put)| put.is_none());
        self.remove(T::TABLE, &mut table, removals.map(|(key, _)| key))?;
        let many = rows.len() >= APPEND;
        let last = table.last().doing(APPLY)?;
        let last: Option<Vec<u8>> = last.map(|(key, _)| key.value().to_vec());
        for (at, (key, put)) in rows.iter().enumerate() {
            let Some(value) = put else { continue };
            self.encode::<T>(key, *value);
            if many && last.as_ref().is_none_or(|last| self.key > *last) {
                return self.append::<T>(&mut table, &rows[at + 1..]);
            }
            let first = &self.record[..self.record.len().min(PART)];
            let old = table.insert(self.key.as_slice(), first).doing(APPLY)?;
            let old = old.map(|old| old.value().len());
            self.forget(T::TABLE, old)?;
            self.put_rest(T::TABLE)?;
        }
        Ok(())
    }

    /// Removes rows, whose keys come in order.
    fn remove<'k, K: RowKey + 'k>(
        &mut self,
        definition: Definition,
        table: &mut Rest<'t>,
        keys: impl Iterator<Item = &'k K>,
    ) -> Result<(), StoreError> {
        let keys: Vec<Vec<u8>> = keys
            .map(|key| {
                let mut bytes = Vec::with_capacity(16);
                key.put(&mut bytes);
                bytes
            })
            .collect();
        for key in &keys {
            for follower in &mut *self.followers {
                follower.remove(definition.name(), key);
            }
        }
        if keys.len() >= SWEEP && is_dense(table, &keys)? {
            return self.sweep(definition, table, &keys);
        }
        for key in keys {
            let old = table.remove(key.as_slice()).doing(APPLY)?;
            let old = old.map(|old| old.value().len());
            self.key = key;
            self.forget(definition, old)?;
        }
        Ok(())
    }

    /// Removes rows that are neighbours in one walk over them, which rewrites each page once instead of once a row.
    fn sweep(
        &mut self,
        definition: Definition,
        table: &mut Rest<'t>,
        keys: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
            return Ok(());
        };
        let mut wanted = keys.iter().peekable();
        let mut parted = Vec::new();
        let mut gone = 0;
        let walked = table.retain_in(first.as_slice()..=last.as_slice(), |key, record| {
            while wanted.next_if(|wanted| wanted.as_slice() < key).is_some() {}
            if wanted.peek().is_none_or(|wanted| wanted.as_slice() != key) {
                return true;
            }
            if record.len() < PART {
                gone += key.len() as i64 + record.len() as i64 + ROW;
            } else {
                parted.push((key.to_vec(), record.len()));
            }
            false
        });
        walked.doing(APPLY)?;
        self.live -= gone;
        for (key, len) in parted {
            self.key = key;
            self.forget(definition, Some(len))?;
        }
        Ok(())
    }

    /// Appends the row just encoded, and the puts of the `rest`, all of which sort after the table's last: redb then fills pages to the brim, where
    /// single inserts leave them half empty.
    fn append<T: Table>(
        &mut self,
        table: &mut Rest<'t>,
        rest: &[Put<'_, T>],
    ) -> Result<(), StoreError> {
        let mut puts = rest.iter().filter_map(|(key, put)| Some((key, (*put)?)));
        let end = Bound::<&[u8]>::Unbounded;
        let mut cursor = table.upper_bound_mut(end).doing(APPLY)?;
        loop {
            let first = &self.record[..self.record.len().min(PART)];
            cursor
                .insert_before(self.key.as_slice(), first)
                .doing(APPLY)?;
            self.put_rest(T::TABLE)?;
            let Some((key, value)) = puts.next() else {
                break;
            };
            self.encode::<T>(key, value);
        }
        cursor.close().doing(APPLY)
    }

    fn encode<T: Table>(&mut self, key: &T::Key<'_>, value: T::Value<'_>) {
        self.key.clear();
        key.put(&mut self.key);
        self.record.clear();
        T::put(value, &mut self.record);
        for follower in &mut *self.followers {
            follower.put(T::TABLE.name(), &self.key, &self.record);
        }
        self.live += self.key.len() as i64 + self.record.len() as i64 + ROW;
    }

    /// A row whose record was `old` bytes is gone; so must be its parts.
    fn forget(&mut self, definition: Definition, old: Option<usize>) -> Result<(), StoreError> {
        let Some(old) = old else { return Ok(()) };
        self.live -= self.key.len() as i64 + old as i64 + ROW;
        if old < PART {
            return Ok(());
        }
        let mut part_key_bytes = Vec::new();
        for part in 0.. {
            part_key(&mut part_key_bytes, definition, &self.key, part);
            let removed = self.parts()?.remove(part_key_bytes.as_slice());
            let Some(len) = removed.doing(APPLY)?.map(|part| part.value().len()) else {
                break;
            };
            self.live -= len as i64;
        }
        Ok(())
    }

    /// Puts what exceeds the first row.
    fn put_rest(&mut self, definition: Definition) -> Result<(), StoreError> {
        if self.record.len() <= PART {
            return Ok(());
        }
        let mut part_key_bytes = Vec::new();
        let record = std::mem::take(&mut self.record);
        for (number, part) in record[PART..].chunks(PART).enumerate() {
            part_key(&mut part_key_bytes, definition, &self.key, number as u32);
            self.parts()?
                .insert(part_key_bytes.as_slice(), part)
                .doing(APPLY)?;
        }
        self.record = record;
        Ok(())
    }

    fn parts(&mut self) -> Result<&mut Rest<'t>, StoreError> {
        if self.parts.is_none() {
            self.parts = Some(self.transaction.open_table(PARTS).doing(APPLY)?);
        }
        self.parts.as_mut().ok_or(StoreError::Stopped)
    }
}
