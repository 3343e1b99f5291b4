//! Handing everything back at the start. Message bodies stay on disk.

use std::collections::{BTreeMap, HashSet};

use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableHandle};

use super::Store;
use super::apply::ROW;
use super::error::{Doing, StoreError};
use super::orphans::Search;
use super::rows::{
    Delivery, KINDS, MESSAGE_HEAD, Message, Owner, Row, Spread, key_pair, key_short_pair, key_u64,
    key_u64_and,
};
use super::tables::{READ, bad, every};
use crate::broker::record::{Batch, BatchId, QueueKey, Seq, Write};

/// What recovery found, beside the rows it handed back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recovery {
    /// Larger than any `Seq` ever used. Numbers are set aside in blocks, so some may be skipped.
    pub next_seq: Seq,
    /// Larger than any queue key ever used; as `next_seq`.
    pub next_queue: QueueKey,
    /// Rows handed back.
    pub rows: u64,
    /// Rows that belonged to nothing and have been removed. A store written by this program has none.
    pub orphans: u64,
}

impl Store {
    /// Hands every row back as the write that would put it there: the last reading of the clocks from before the store was opened, sessions, groups, subscriptions, wills, received identifiers, bridges, retained
    /// messages, identities of messages, what is known of messages on their way, whom messages are still to be given to, and deliveries, both in the order of their `Seq`. Message bodies are not read.
    ///
    /// # Errors
    /// If the database fails, or a record is not what this program writes.
    pub fn recover(&self, each: &mut dyn FnMut(Write)) -> Result<Recovery, StoreError> {
        let orphans = self.remove_orphans()?;
        let database = self.database();
        let database = database.as_ref().ok_or(StoreError::Stopped)?;
        let transaction = database.begin_read().doing(READ)?;
        let mut rows = 0;
        if let Some(reading) = self.clock {
            each(Write::PutClock(reading));
        }
        let bodies = Message::TABLE.name();
        for kind in KINDS.iter().filter(|kind| kind.table.name() != bodies) {
            every(&transaction, kind.table, |key, record| {
                each((kind.read)(key, record).map_err(|what| bad(kind.table, key)(what))?);
                rows += 1;
                Ok(())
            })?;
        }
        let unused = self.unused();
        Ok(Recovery {
            next_seq: Seq(unused.seq),
            next_queue: QueueKey(unused.queue),
            rows,
            orphans,
        })
    }

    /// Removes rows that belong to nothing, if opening has seen signs of any. Returns how many there were.
    fn remove_orphans(&self) -> Result<u64, StoreError> {
        if !self.suspects_orphans() {
            return Ok(0);
        }
        let mut search = {
            let database = self.database();
            Search::new(database.as_ref().ok_or(StoreError::Stopped)?)?
        };
        let mut removed = 0;
        loop {
            let writes = {
                let database = self.database();
                search.some(database.as_ref().ok_or(StoreError::Stopped)?)?
            };
            if writes.is_empty() {
                return Ok(removed);
            }
            removed += writes.len() as u64;
            let id = BatchId::default();
            self.apply(&Batch { id, writes }, &|| ())?;
        }
    }
}

/// Reads one row of the table with this name: the write that would put it there.
/// For what looks at rows outside of a store.
///
/// # Errors
/// What is wrong with the row, or that there is no such table.
pub fn read_row(table: &str, key: &[u8], record: &[u8]) -> Result<Write, &'static str> {
    let kind = KINDS.iter().find(|kind| kind.table.name() == table);
    (kind.ok_or("no such table")?.read)(key, record)
}

/// What a look through all tables but the bodies tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// Bytes of keys and records. Bodies are reckoned from their deliveries.
    pub(super) live: u64,
    /// Rows may be there that belong to nothing.
    pub(super) orphans: bool,
}

impl Totals {
    /// Looks through a database.
    pub(super) fn of(database: &Database) -> Result<Totals, StoreError> {
        let transaction = database.begin_read().doing(READ)?;
        let mut totals = Totals::default();
        let mut queues = HashSet::new();
        let owned_by = |owner| KINDS.iter().filter(move |kind| kind.owner == owner);
        for kind in owned_by(Owner::IsQueue) {
            every(&transaction, kind.table, |key, record| {
                totals.add(key.len() + record.len());
                queues.insert(key_u64(key).map_err(|what| bad(kind.table, key)(what))?);
                Ok(())
            })?;
        }
        for kind in owned_by(Owner::Queue) {
            every(&transaction, kind.table, |key, record| {
                totals.add(key.len() + record.len());
                let (queue, _) = key_u64_and(key).map_err(|what| bad(kind.table, key)(what))?;
                totals.orphans |= !queues.contains(&queue);
                Ok(())
            })?;
        }
        for kind in owned_by(Owner::Nobody) {
            every(&transaction, kind.table, |key, record| {
                totals.add(key.len() + record.len());
                Ok(())
            })?;
        }
        let mut spread = BTreeMap::new();
        every(&transaction, Spread::TABLE, |key, record| {
            totals.add(key.len() + record.len());
            let bad = || bad(Spread::TABLE, key);
            let (seq, _) = key_short_pair(key).map_err(|what| bad()(what))?;
            let size = Spread::size(record).map_err(|what| bad()(what))?;
            spread.insert(seq, size);
            Ok(())
        })?;
        let mut bodies = 0;
        let mut last = None;
        every(&transaction, Delivery::TABLE, |key, record| {
            totals.add(key.len() + record.len());
            let bad = || bad(Delivery::TABLE, key);
            let (seq, queue) = key_pair(key).map_err(|what| bad()(what))?;
            let size = Delivery::size(record).map_err(|what| bad()(what))?;
            totals.orphans |= !queues.contains(&queue);
            if last != Some(seq) {
                last = Some(seq);
                spread.remove(&seq);
                bodies += 1;
                totals.add(size_of::<u64>() + MESSAGE_HEAD + size as usize);
            }
            Ok(())
        })?;
        for size in spread.values() {
            bodies += 1;
            totals.add(size_of::<u64>() + MESSAGE_HEAD + *size as usize);
        }
        let stored = transaction.open_table(Message::TABLE).doing(READ)?.len();
        totals.orphans |= stored.doing(READ)? != bodies;
        Ok(totals)
    }

    fn add(&mut self, bytes: usize) {
        self.live += bytes as u64 + ROW as u64;
    }
}
