//! A batch becomes one write transaction: sorted by kind of row and key, the last write of a row winning.
//!
//! Sorting makes neighbours in the database neighbours in time: each page is found once. What is put and removed within one batch never
//! reaches the database.

use std::ops::Bound;

use redb::{ReadableTable, Table, WriteTransaction};

use super::error::{Doing, StoreError};
use super::rows::meta::{self, META};
use super::rows::{
    Bridge, Definition, Delivery, Group, Inflight, Message, MessageId, Received, Retained, Row,
    RowKey, Session, Spread, Subscription, Will,
};
use super::tables::{PART, PARTS, part_key};
use crate::broker::record::{Batch, QueueKey, Seq, Write};
use crate::clock::Reading;

/// Numbers are set aside on disk by this many, so that most batches do not write how far they have come.
const SEQ_BLOCK: u64 = 1 << 16;
const QUEUE_BLOCK: u64 = 1 << 10;

/// Rough bytes that a row takes beside its key and its record.
pub(super) const ROW: i64 = 12;

const APPLY: &str = "apply a batch";

/// From where on `Seq`s and queue keys have never been used, as it stands on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Unused {
    pub(super) seq: u64,
    pub(super) queue: u64,
}

/// A row's key, and what is put there, or `None` for a removal.
type Put<'a, R> = (<R as Row>::Key<'a>, Option<<R as Row>::Value<'a>>);

/// Puts and removals of rows of one kind.
struct Rows<'a, R: Row>(Vec<Put<'a, R>>);

impl<R: Row> Default for Rows<'_, R> {
    fn default() -> Self {
        Rows(Vec::new())
    }
}

impl<'a, R: Row> Rows<'a, R> {
    fn put(&mut self, key: R::Key<'a>, value: R::Value<'a>) {
        self.0.push((key, Some(value)));
    }

    fn remove(&mut self, key: R::Key<'a>) {
        self.0.push((key, None));
    }

    /// Sorts by key and lets the last write of each row win. A removal after a put takes both away where the row was not there before the batch.
    fn settle(&mut self, fresh: &[u64]) {
        if self.0.len() < 2 {
            return;
        }
        self.0.sort_by(|a, b| a.0.cmp(&b.0));
        let mut kept: Vec<Put<'a, R>> = Vec::with_capacity(self.0.len());
        for (key, put) in self.0.drain(..) {
            match kept.last_mut() {
                Some(last) if last.0 == key => {
                    if last.1.is_some() && put.is_none() && R::is_new(&key, fresh) {
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

/// The writes of a batch by kind of row.
#[derive(Default)]
pub(super) struct Sorted<'a> {
    sessions: Rows<'a, Session>,
    groups: Rows<'a, Group>,
    subscriptions: Rows<'a, Subscription>,
    wills: Rows<'a, Will>,
    received: Rows<'a, Received>,
    inflight: Rows<'a, Inflight>,
    bridges: Rows<'a, Bridge>,
    message_ids: Rows<'a, MessageId>,
    spreads: Rows<'a, Spread>,
    retained: Rows<'a, Retained>,
    messages: Rows<'a, Message>,
    deliveries: Rows<'a, Delivery>,
    clock: Option<Reading>,
    used: Unused,
}

impl<'a> Sorted<'a> {
    /// Sorts a batch.
    pub(super) fn new(batch: &'a Batch) -> Sorted<'a> {
        let mut sorted = Sorted::default();
        for write in &batch.writes {
            sorted.take(write);
        }
        sorted
    }

    fn take(&mut self, write: &'a Write) {
        match write {
            Write::PutSession(key, session) => {
                self.use_queue(*key);
                self.sessions.put(key.0, session);
            }
            Write::RemoveSession(key) => self.sessions.remove(key.0),
            Write::PutSubscription(key, filter, subscription) => {
                self.subscriptions.put((key.0, filter), subscription);
            }
            Write::RemoveSubscription(key, filter) => self.subscriptions.remove((key.0, filter)),
            Write::PutGroup(key, name) => {
                self.use_queue(*key);
                self.groups.put(key.0, name);
            }
            Write::RemoveGroup(key) => self.groups.remove(key.0),
            Write::PutWill(key, will) => self.wills.put(key.0, will),
            Write::RemoveWill(key) => self.wills.remove(key.0),
            Write::PutMessage(seq, message) => {
                self.use_seq(*seq);
                self.messages.put(seq.0, message);
            }
            Write::RemoveMessage(seq) => self.messages.remove(seq.0),
            Write::PutDelivery(seq, key, delivery) => {
                self.use_seq(*seq);
                self.deliveries.put((seq.0, key.0), delivery);
            }
            Write::RemoveDelivery(seq, key) => self.deliveries.remove((seq.0, key.0)),
            Write::PutReceived(key, id) => self.received.put((key.0, id.get()), ()),
            Write::RemoveReceived(key, id) => self.received.remove((key.0, id.get())),
            Write::PutInflight(key, block, records) => {
                self.inflight.put((key.0, block.0), records);
            }
            Write::RemoveInflight(key, block) => self.inflight.remove((key.0, block.0)),
            Write::PutBridge(key, bridge) => self.bridges.put(key.0, bridge),
            Write::RemoveBridge(key) => self.bridges.remove(key.0),
            Write::PutMessageId(seq, id) => {
                self.use_seq(*seq);
                self.message_ids.put(seq.0, id);
            }
            Write::RemoveMessageId(seq) => self.message_ids.remove(seq.0),
            Write::PutSpread(seq, part, spread) => {
                self.use_seq(*seq);
                self.spreads.put((seq.0, *part), spread);
            }
            Write::RemoveSpread(seq, part) => self.spreads.remove((seq.0, *part)),
            Write::PutRetained(message, source) => {
                let row = (message, source.as_deref());
                self.retained.put(message.topic(), row);
            }
            Write::RemoveRetained(topic) => self.retained.remove(topic),
            Write::PutClock(reading) => self.clock = Some(*reading),
        }
    }

    fn use_seq(&mut self, seq: Seq) {
        self.used.seq = self.used.seq.max(seq.0.saturating_add(1));
    }

    fn use_queue(&mut self, key: QueueKey) {
        self.used.queue = self.used.queue.max(key.0.saturating_add(1));
    }

    /// Writes everything into a transaction. Returns by how many bytes the live rows have grown, and how far numbers are set aside now.
    ///
    /// # Errors
    /// If the database fails; the transaction must be given up.
    pub(super) fn write(
        self,
        transaction: &WriteTransaction,
        unused: Unused,
    ) -> Result<(i64, Unused), StoreError> {
        let puts = self.messages.0.iter().filter(|(_, put)| put.is_some());
        let mut fresh: Vec<u64> = puts.map(|(seq, _)| *seq).collect();
        fresh.sort_unstable();
        let mut rows = RowWriter {
            transaction,
            fresh,
            key: Vec::new(),
            record: Vec::with_capacity(PART),
            parts: None,
            live: 0,
        };
        rows.write(self.sessions)?;
        rows.write(self.groups)?;
        rows.write(self.subscriptions)?;
        rows.write(self.received)?;
        rows.write(self.inflight)?;
        rows.write(self.wills)?;
        rows.write(self.bridges)?;
        rows.write(self.message_ids)?;
        rows.write(self.spreads)?;
        rows.write(self.retained)?;
        rows.write(self.messages)?;
        rows.write(self.deliveries)?;
        let live = rows.live;
        drop(rows);
        if let Some(reading) = self.clock {
            let mut meta = transaction.open_table(META).doing(APPLY)?;
            let record = meta::reading_record(reading);
            meta.insert(meta::CLOCK, record.as_slice()).doing(APPLY)?;
        }
        let unused = set_aside(transaction, self.used, unused)?;
        Ok((live, unused))
    }
}

/// Writes how far numbers have been used, if the batch has used one that is not set aside yet.
pub(super) fn set_aside(
    transaction: &WriteTransaction,
    used: Unused,
    mut unused: Unused,
) -> Result<Unused, StoreError> {
    let set = |key: &[u8], used: u64, unused: &mut u64, block| -> Result<(), StoreError> {
        if used <= *unused {
            return Ok(());
        }
        *unused = used.saturating_add(block);
        let mut meta = transaction.open_table(META).doing(APPLY)?;
        let record = meta::number_record(*unused);
        meta.insert(key, record.as_slice()).doing(APPLY)?;
        Ok(())
    };
    set(meta::SEQ, used.seq, &mut unused.seq, SEQ_BLOCK)?;
    set(meta::QUEUE, used.queue, &mut unused.queue, QUEUE_BLOCK)?;
    Ok(unused)
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

type Rest<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// Writes rows into the tables of a transaction.
struct RowWriter<'t> {
    transaction: &'t WriteTransaction,
    /// The `Seq`s of the messages the batch puts, in order.
    fresh: Vec<u64>,
    key: Vec<u8>,
    record: Vec<u8>,
    /// The table of parts, once it is needed.
    parts: Option<Rest<'t>>,
    live: i64,
}

impl<'t> RowWriter<'t> {
    /// Removes and then puts the rows of one kind.
    fn write<R: Row>(&mut self, mut rows: Rows<'_, R>) -> Result<(), StoreError> {
        if rows.0.is_empty() {
            return Ok(());
        }
        rows.settle(&self.fresh);
        let rows = rows.0;
        let mut table = self.transaction.open_table(R::TABLE).doing(APPLY)?;
        let removals = rows.iter().filter(|(_, put)| put.is_none());
        self.remove(R::TABLE, &mut table, removals.map(|(key, _)| key))?;
        let many = rows.len() >= APPEND;
        let last = table.last().doing(APPLY)?;
        let last: Option<Vec<u8>> = last.map(|(key, _)| key.value().to_vec());
        for (at, (key, put)) in rows.iter().enumerate() {
            let Some(value) = put else { continue };
            self.encode::<R>(key, *value);
            if many && last.as_ref().is_none_or(|last| self.key > *last) {
                return self.append::<R>(&mut table, &rows[at + 1..]);
            }
            let first = &self.record[..self.record.len().min(PART)];
            let old = table.insert(self.key.as_slice(), first).doing(APPLY)?;
            let old = old.map(|old| old.value().len());
            self.forget(R::TABLE, old)?;
            self.put_rest(R::TABLE)?;
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
    fn append<R: Row>(
        &mut self,
        table: &mut Rest<'t>,
        rest: &[Put<'_, R>],
    ) -> Result<(), StoreError> {
        let mut puts = rest.iter().filter_map(|(key, put)| Some((key, (*put)?)));
        let end = Bound::<&[u8]>::Unbounded;
        let mut cursor = table.upper_bound_mut(end).doing(APPLY)?;
        loop {
            let first = &self.record[..self.record.len().min(PART)];
            cursor
                .insert_before(self.key.as_slice(), first)
                .doing(APPLY)?;
            self.put_rest(R::TABLE)?;
            let Some((key, value)) = puts.next() else {
                break;
            };
            self.encode::<R>(key, value);
        }
        cursor.close().doing(APPLY)
    }

    fn encode<R: Row>(&mut self, key: &R::Key<'_>, value: R::Value<'_>) {
        self.key.clear();
        key.put(&mut self.key);
        self.record.clear();
        R::put(value, &mut self.record);
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
