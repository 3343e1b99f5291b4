//! Handing everything back at the start. Message bodies stay on disk.

use std::collections::{BTreeMap, HashSet};

use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableHandle};

use super::Store;
use super::apply::ROW;
use super::error::{Doing, StoreError};
use super::orphans::{Search, Signs};
use super::rows::{
    Delivery, KINDS, MESSAGE_HEAD, Message, Owner, Spread, Table, key_pair, key_short_pair,
    key_u64, key_u64_and,
};
use super::tables::{READ, bad, every};
use crate::broker::record::{BatchId, QueueKey, Resume, Seq, Summary, Write};

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
        let mut bodies = Bodies::default();
        let mut spreads = BTreeMap::new();
        every(&transaction, Spread::TABLE, |key, record| {
            totals.add(key.len() + record.len());
            let bad = || bad(Spread::TABLE, key);
            let (seq, _) = key_short_pair(key).map_err(|what| bad()(what))?;
            let summary = Spread::summary(record).map_err(|what| bad()(what))?;
            spreads.insert(seq, summary);
            Ok(())
        })?;
        every(&transaction, Delivery::TABLE, |key, record| {
            totals.add(key.len() + record.len());
            let bad = || bad(Delivery::TABLE, key);
            let (seq, queue) = key_pair(key).map_err(|what| bad()(what))?;
            let summary = Delivery::summary(record).map_err(|what| bad()(what))?;
            totals.signs.orphans |= !queues.contains(&queue);
            while let Some(spread) = spreads.first_entry().filter(|it| *it.key() <= seq) {
                let (at, summary) = spread.remove_entry();
                bodies.named(at, &summary);
            }
            bodies.named(seq, &summary);
            Ok(())
        })?;
        for (seq, summary) in &spreads {
            bodies.named(*seq, summary);
        }
        let deliveries = transaction.open_table(Delivery::TABLE).doing(READ)?;
        for (body, size) in std::mem::take(&mut bodies.moved) {
            totals.signs.moved_bodies.insert(body);
            let own_place = (body.to_be_bytes(), body.saturating_add(1).to_be_bytes());
            let own_place = deliveries.range(&own_place.0[..]..&own_place.1[..]);
            if own_place.doing(READ)?.next().is_none() {
                bodies.named_once(size);
            }
        }
        let head = (size_of::<u64>() + MESSAGE_HEAD) as u64 + ROW as u64;
        totals.live += bodies.bytes + bodies.count * head;
        let stored = transaction.open_table(Message::TABLE).doing(READ)?.len();
        totals.signs.orphans |= stored.doing(READ)? != bodies.count;
        Ok(totals)
    }

    fn add(&mut self, bytes: usize) {
        self.live += bytes as u64 + ROW as u64;
    }
}

/// The bodies that deliveries and spreads name.
#[derive(Default)]
struct Bodies {
    count: u64,
    bytes: u64,
    /// The place whose body was named last.
    last: Option<u64>,
    /// Those that are not at the body's own place, and their sizes.
    moved: BTreeMap<u64, u32>,
}

impl Bodies {
    /// Counts the body of a message at this place. They come in order.
    fn named(&mut self, seq: u64, summary: &Summary) {
        match summary.body {
            Some(body) if body.0 != seq => _ = self.moved.insert(body.0, summary.size),
            _ if self.last != Some(seq) => {
                self.last = Some(seq);
                self.named_once(summary.size);
            }
            _ => {}
        }
    }

    fn named_once(&mut self, size: u32) {
        self.count += 1;
        self.bytes += u64::from(size);
    }
}
