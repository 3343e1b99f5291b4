//! Handing everything back at the start. Message bodies stay on disk.

use std::collections::{BTreeMap, HashSet};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata, TableHandle};

use super::Store;
use super::apply::ROW;
use super::error::{Doing, StoreError};
use super::orphans::{Search, Signs};
use super::rows::{
    Delivery, KINDS, MESSAGE_HEAD, Message, Owner, RowKey, Spread, Table, key_pair, key_short_pair,
    key_u64, key_u64_and,
};
use super::tables::{READ, bad, every};
use crate::broker::record::{BatchId, QueueKey, Resume, Seq, Write};

/// What recovery found, beside the rows it handed back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recovery {
    /// What the broker goes on with. Numbers are set aside in blocks, so some may be skipped.
    pub resume: Resume,
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
            resume: Resume {
                seq: Seq(unused.seq),
                queue: QueueKey(unused.queue),
                batch: BatchId(unused.batch),
                topic_key: self.topic_key,
            },
            rows,
            orphans,
        })
    }

    /// Removes rows that belong to nothing, if opening has seen signs of any. Returns how many there were.
    fn remove_orphans(&self) -> Result<u64, StoreError> {
        let signs = self.ledger().signs.clone();
        if !signs.orphans {
            return Ok(0);
        }
        let mut search = {
            let database = self.database();
            Search::new(
                database.as_ref().ok_or(StoreError::Stopped)?,
                signs.moved_bodies,
            )?
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
            self.apply(&self.own_batch(writes), &|| ())?;
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
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Bytes of keys and records. Bodies are reckoned from their deliveries.
    pub(super) live: u64,
    pub(super) signs: Signs,
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
                totals.signs.orphans |= !queues.contains(&queue);
                Ok(())
            })?;
        }
        for kind in owned_by(Owner::Nobody) {
            every(&transaction, kind.table, |key, record| {
                totals.add(key.len() + record.len());
                Ok(())
            })?;
        }
        // The sizes of bodies: those that are needed at other places than their own, and those that no
        // delivery at their own place needs.
        let (mut moved, mut others) = (BTreeMap::new(), BTreeMap::new());
        every(&transaction, Spread::TABLE, |key, record| {
            totals.add(key.len() + record.len());
            let bad = || bad(Spread::TABLE, key);
            let (seq, _) = key_short_pair(key).map_err(|what| bad()(what))?;
            let summary = Spread::summary(record).map_err(|what| bad()(what))?;
            let body = summary.body_at(Seq(seq)).0;
            let needed = if body == seq { &mut others } else { &mut moved };
            needed.insert(body, summary.size);
            Ok(())
        })?;
        let mut bodies = 0;
        let mut last = None;
        every(&transaction, Delivery::TABLE, |key, record| {
            totals.add(key.len() + record.len());
            let bad = || bad(Delivery::TABLE, key);
            let (seq, queue) = key_pair(key).map_err(|what| bad()(what))?;
            let summary = Delivery::summary(record).map_err(|what| bad()(what))?;
            totals.signs.orphans |= !queues.contains(&queue);
            let body = summary.body_at(Seq(seq)).0;
            if body != seq {
                moved.insert(body, summary.size);
            } else if last != Some(seq) {
                last = Some(seq);
                others.remove(&seq);
                bodies += 1;
                totals.add_body(summary.size);
            }
            Ok(())
        })?;
        for (body, size) in moved {
            totals.signs.moved_bodies.insert(body);
            if !is_needed_at_its_place(&transaction, body)? {
                others.insert(body, size);
            }
        }
        for size in others.values() {
            bodies += 1;
            totals.add_body(*size);
        }
        let stored = transaction.open_table(Message::TABLE).doing(READ)?.len();
        totals.signs.orphans |= stored.doing(READ)? != bodies;
        Ok(totals)
    }

    fn add_body(&mut self, size: u32) {
        self.add(size_of::<u64>() + MESSAGE_HEAD + size as usize);
    }

    fn add(&mut self, bytes: usize) {
        self.live += bytes as u64 + ROW as u64;
    }
}

/// Whether a delivery at the own place of a body needs it.
fn is_needed_at_its_place(transaction: &ReadTransaction, body: u64) -> Result<bool, StoreError> {
    let (mut from, mut to) = (Vec::new(), Vec::new());
    (body, 0u64).put(&mut from);
    (body, u64::MAX).put(&mut to);
    let deliveries = transaction.open_table(Delivery::TABLE).doing(READ)?;
    for row in deliveries.range(&from[..]..=&to[..]).doing(READ)? {
        let (key, record) = row.doing(READ)?;
        let summary = Delivery::summary(record.value());
        let summary = summary.map_err(|what| bad(Delivery::TABLE, key.value())(what))?;
        if summary.body_at(Seq(body)).0 == body {
            return Ok(true);
        }
    }
    Ok(false)
}
