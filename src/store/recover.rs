//! Handing everything back at the start. Message bodies stay on disk.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableHandle};

use super::apply::ROW;
use super::error::{Doing, StoreError};
use super::orphans::Search;
use super::record::{self, What};
use super::tables::{
    BRIDGES, DELIVERIES, Definition, GROUPS, INFLIGHT, MESSAGE_IDS, MESSAGES, READ, RECEIVED,
    RETAINED, SESSIONS, SPREADS, SUBSCRIPTIONS, WILLS, bad, every, key_pair, key_short_pair,
    key_text, key_u64, key_u64_and,
};
use super::{Store, record::MESSAGE_HEAD};
use crate::broker::record::{Batch, BatchId, Block, QueueKey, Seq, Write};
use crate::wire::PacketId;

/// The tables whose rows recovery hands back, in this order.
const TABLES: [(Definition, Read); 11] = [
    (SESSIONS, session),
    (GROUPS, group),
    (SUBSCRIPTIONS, subscription),
    (WILLS, will),
    (RECEIVED, received),
    (BRIDGES, bridge),
    (RETAINED, retained),
    (MESSAGE_IDS, message_id),
    (INFLIGHT, inflight),
    (SPREADS, spread),
    (DELIVERIES, delivery),
];

/// Makes the write that puts a row of its key and its record.
pub(super) type Read = fn(&[u8], &[u8]) -> Result<Write, What>;

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
        for (table, read) in TABLES {
            every(&transaction, table, |key, record| {
                each(read(key, record).map_err(|what| bad(table, key)(what))?);
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

/// Reads one row of the table with this name, as recovery (and, for `messages`, the reader of bodies) does: the write that would put it there.
/// For what looks at rows outside of a store.
///
/// # Errors
/// What is wrong with the row, or that there is no such table.
pub fn read_row(table: &str, key: &[u8], record: &[u8]) -> Result<Write, &'static str> {
    if table == MESSAGES.name() {
        let message = record::message(record)?;
        return Ok(Write::PutMessage(Seq(key_u64(key)?), message));
    }
    let known = TABLES.iter().find(|(known, _)| known.name() == table);
    let (_, read) = known.ok_or("no such table")?;
    read(key, record)
}

fn session(key: &[u8], record: &[u8]) -> Result<Write, What> {
    let key = QueueKey(key_u64(key)?);
    Ok(Write::PutSession(key, record::session(record)?))
}

fn group(key: &[u8], record: &[u8]) -> Result<Write, What> {
    let key = QueueKey(key_u64(key)?);
    Ok(Write::PutGroup(key, record::group(record)?))
}

pub(super) fn subscription(key: &[u8], record: &[u8]) -> Result<Write, What> {
    let (key, filter) = key_u64_and(key)?;
    let filter = key_text(filter)?.into();
    Ok(Write::PutSubscription(
        QueueKey(key),
        filter,
        record::subscription(record)?,
    ))
}

pub(super) fn will(key: &[u8], record: &[u8]) -> Result<Write, What> {
    let key = QueueKey(key_u64(key)?);
    Ok(Write::PutWill(key, record::will(record)?))
}

pub(super) fn received(key: &[u8], record: &[u8]) -> Result<Write, What> {
    record::received(record)?;
    let (key, id) = key_short_pair(key)?;
    let id = PacketId::new(id).ok_or("no packet identifier")?;
    Ok(Write::PutReceived(QueueKey(key), id))
}

pub(super) fn inflight(key: &[u8], record: &[u8]) -> Result<Write, What> {
    let (key, block) = key_short_pair(key)?;
    Ok(Write::PutInflight(
        QueueKey(key),
        Block(block),
        record::inflight(record)?,
    ))
}

fn spread(key: &[u8], record: &[u8]) -> Result<Write, What> {
    let (seq, part) = key_short_pair(key)?;
    Ok(Write::PutSpread(Seq(seq), part, record::spread(record)?))
}

pub(super) fn bridge(key: &[u8], record: &[u8]) -> Result<Write, What> {
    let key = QueueKey(key_u64(key)?);
    Ok(Write::PutBridge(key, record::bridge(record)?))
}

fn message_id(key: &[u8], record: &[u8]) -> Result<Write, What> {
    let seq = Seq(key_u64(key)?);
    Ok(Write::PutMessageId(seq, record::message_id(record)?))
}

fn retained(key: &[u8], record: &[u8]) -> Result<Write, What> {
    let (message, source) = record::retained(record, key_text(key)?)?;
    Ok(Write::PutRetained(message, source.map(Arc::new)))
}

fn delivery(key: &[u8], record: &[u8]) -> Result<Write, What> {
    let (seq, key) = key_pair(key)?;
    Ok(Write::PutDelivery(
        Seq(seq),
        QueueKey(key),
        record::delivery(record)?,
    ))
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
        for table in [SESSIONS, GROUPS] {
            every(&transaction, table, |key, record| {
                totals.add(key.len() + record.len());
                queues.insert(key_u64(key).map_err(|what| bad(table, key)(what))?);
                Ok(())
            })?;
        }
        for table in [SUBSCRIPTIONS, WILLS, RECEIVED, BRIDGES, INFLIGHT] {
            every(&transaction, table, |key, record| {
                totals.add(key.len() + record.len());
                let (queue, _) = key_u64_and(key).map_err(|what| bad(table, key)(what))?;
                totals.orphans |= !queues.contains(&queue);
                Ok(())
            })?;
        }
        for table in [RETAINED, MESSAGE_IDS] {
            every(&transaction, table, |key, record| {
                totals.add(key.len() + record.len());
                Ok(())
            })?;
        }
        let mut spread = BTreeMap::new();
        every(&transaction, SPREADS, |key, record| {
            totals.add(key.len() + record.len());
            let bad = || bad(SPREADS, key);
            let (seq, _) = key_short_pair(key).map_err(|what| bad()(what))?;
            let size = record::spread_size(record).map_err(|what| bad()(what))?;
            spread.insert(seq, size);
            Ok(())
        })?;
        let mut bodies = 0;
        let mut last = None;
        every(&transaction, DELIVERIES, |key, record| {
            totals.add(key.len() + record.len());
            let bad = || bad(DELIVERIES, key);
            let (seq, queue) = key_pair(key).map_err(|what| bad()(what))?;
            let size = record::delivery_size(record).map_err(|what| bad()(what))?;
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
        let stored = transaction.open_table(MESSAGES).doing(READ)?.len();
        totals.orphans |= stored.doing(READ)? != bodies;
        Ok(totals)
    }

    fn add(&mut self, bytes: usize) {
        self.live += bytes as u64 + ROW as u64;
    }
}
