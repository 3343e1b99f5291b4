//! Rows that belong to nothing: bodies that nobody waits for, deliveries and spreads without a body
//! or a queue, and what is left of sessions that are gone.
//!
//! A session that ends loses its own row at once and the others bit by bit; a process that dies in
//! between leaves them. There may be a million, so the search walks through each table once: it
//! hands out some, and goes on behind them when those have been removed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::error::{Doing, StoreError};
use super::rows::{
    Delivery, KINDS, Kind, Message, Owner, Spread, Table, key_pair, key_short_pair, key_u64,
    key_u64_and,
};
use super::tables::{READ, bad, every, whole};
use crate::broker::record::{BodyId, QueueKey, Seq, Write};

/// Orphans are removed by about this many in a transaction.
const SOME: usize = 50_000;

/// The kinds whose rows belong to a queue.
fn of_queues() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| kind.owner == Owner::Queue)
}

/// What helps to find rows that belong to nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Signs {
    /// There may be some.
    pub(super) orphans: bool,
    /// The bodies that deliveries and spreads name which are not at the body's own place.
    pub(super) moved_bodies: BTreeSet<u64>,
}

/// A search for orphans, and how far it has come.
pub(super) struct Search {
    queues: HashSet<u64>,
    /// Spreads by `Seq`, of places that are still to be looked at.
    spreads: BTreeMap<u64, Parts>,
    /// Bodies that are named at another place than their own. Each stays until the end, and goes then
    /// unless it is `wanted`.
    moved_bodies: BTreeSet<u64>,
    wanted: BTreeSet<u64>,
    place: Place,
}

/// The numbers of a spread's parts, and its body.
#[derive(Default)]
struct Parts {
    numbers: Vec<u16>,
    body: u64,
}

/// Where a search goes on.
enum Place {
    /// In a table of [`of_queues`], behind this key.
    Table(usize, Vec<u8>),
    /// At the bodies, deliveries and spreads from this `Seq` on.
    Messages(u64),
    /// Nowhere.
    End,
}

impl Search {
    /// A search from the beginning.
    ///
    /// # Errors
    /// If the database fails, or a record is not what this program writes.
    pub(super) fn new(
        database: &Database,
        moved_bodies: BTreeSet<u64>,
    ) -> Result<Search, StoreError> {
        let transaction = database.begin_read().doing(READ)?;
        let mut queues = HashSet::new();
        for kind in KINDS.iter().filter(|kind| kind.owner == Owner::IsQueue) {
            every(&transaction, kind.table, |key, _| {
                queues.insert(key_u64(key).map_err(|what| bad(kind.table, key)(what))?);
                Ok(())
            })?;
        }
        let mut spreads: BTreeMap<u64, Parts> = BTreeMap::new();
        every(&transaction, Spread::TABLE, |key, record| {
            let bad = || bad(Spread::TABLE, key);
            let (seq, part) = key_short_pair(key).map_err(|what| bad()(what))?;
            let summary = Spread::summary(record).map_err(|what| bad()(what))?;
            let parts = spreads.entry(seq).or_default();
            parts.numbers.push(part);
            parts.body = summary.body_at(Seq(seq)).0;
            Ok(())
        })?;
        Ok(Search {
            queues,
            spreads,
            moved_bodies,
            wanted: BTreeSet::new(),
            place: Place::Table(0, Vec::new()),
        })
    }

    /// The removals of some more orphans, the last ones returned having been removed; none when
    /// there are no more.
    ///
    /// # Errors
    /// As [`Search::new`].
    pub(super) fn some(&mut self, database: &Database) -> Result<Vec<Write>, StoreError> {
        let transaction = database.begin_read().doing(READ)?;
        let mut found = Vec::new();
        while found.len() < SOME {
            self.place = match std::mem::replace(&mut self.place, Place::End) {
                Place::Table(number, behind) => match of_queues().nth(number) {
                    Some(kind) => match self.look_at(&transaction, kind, &behind, &mut found)? {
                        Some(behind) => Place::Table(number, behind),
                        None => Place::Table(number + 1, Vec::new()),
                    },
                    None => Place::Messages(0),
                },
                Place::Messages(from) => match self.walk(&transaction, from, &mut found)? {
                    Some(from) => Place::Messages(from),
                    None => Place::End,
                },
                Place::End => break,
            };
        }
        Ok(found)
    }

    /// Looks for rows of queues that are gone, behind a key. Returns the key behind which to go
    /// on, unless that was the whole table.
    fn look_at(
        &self,
        transaction: &ReadTransaction,
        kind: &Kind,
        behind: &[u8],
        found: &mut Vec<Write>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let table = kind.table;
        let rows = transaction.open_table(table).doing(READ)?;
        let rows = match behind {
            [] => rows.iter(),
            _ => rows.range::<&[u8]>((Bound::Excluded(behind), Bound::Unbounded)),
        };
        let mut bytes = Vec::new();
        for row in rows.doing(READ)? {
            let (key, first) = row.doing(READ)?;
            let key = key.value();
            let (queue, _) = key_u64_and(key).map_err(|what| bad(table, key)(what))?;
            if self.queues.contains(&queue) {
                continue;
            }
            let record = whole(transaction, table, key, first.value(), &mut bytes)?;
            let row = (kind.read)(key, record).map_err(|what| bad(table, key)(what))?;
            found.extend(removal(row));
            if found.len() >= SOME {
                return Ok(Some(key.to_vec()));
            }
        }
        Ok(None)
    }

    /// Walks along bodies, deliveries and spreads side by side: all are in the order of places. Bodies
    /// that are named at other places than their own are looked up. Returns the place to go on with,
    /// unless that was all.
    fn walk(
        &mut self,
        transaction: &ReadTransaction,
        from: u64,
        found: &mut Vec<Write>,
    ) -> Result<Option<u64>, StoreError> {
        let first = from.to_be_bytes();
        let all_bodies = transaction.open_table(Message::TABLE).doing(READ)?;
        let is_stored = |body: u64| -> Result<bool, StoreError> {
            let row = all_bodies.get(&body.to_be_bytes()[..]).doing(READ)?;
            Ok(row.is_some())
        };
        let mut bodies = all_bodies.range(&first[..]..).doing(READ)?;
        let mut next_body = || -> Result<Option<u64>, StoreError> {
            let Some(row) = bodies.next() else {
                return Ok(None);
            };
            let (key, _) = row.doing(READ)?;
            let body =
                key_u64(key.value()).map_err(|what| bad(Message::TABLE, key.value())(what))?;
            Ok(Some(body))
        };
        let deliveries = transaction.open_table(Delivery::TABLE).doing(READ)?;
        let mut deliveries = deliveries.range(&first[..]..).doing(READ)?;
        // Its place, its queue, and its body.
        let mut next_delivery = || -> Result<Option<(u64, u64, u64)>, StoreError> {
            let Some(row) = deliveries.next() else {
                return Ok(None);
            };
            let (key, record) = row.doing(READ)?;
            let bad = || bad(Delivery::TABLE, key.value());
            let (seq, queue) = key_pair(key.value()).map_err(|what| bad()(what))?;
            let summary = Delivery::summary(record.value()).map_err(|what| bad()(what))?;
            Ok(Some((seq, queue, summary.body_at(Seq(seq)).0)))
        };
        let (mut body, mut delivery) = (next_body()?, next_delivery()?);
        loop {
            let spread = self.spreads.keys().next().copied();
            let at = [body, delivery.map(|(seq, ..)| seq), spread];
            let Some(at) = at.into_iter().flatten().min() else {
                for body in std::mem::take(&mut self.moved_bodies) {
                    if !self.wanted.contains(&body) && is_stored(body)? {
                        found.push(Write::RemoveMessage(BodyId(body)));
                    }
                }
                return Ok(None);
            };
            if found.len() >= SOME {
                return Ok(Some(at));
            }
            let is_there = body == Some(at);
            let mut is_wanted = false;
            while let Some((seq, queue, of)) = delivery.filter(|(seq, ..)| *seq == at) {
                let has_body = if of == at { is_there } else { is_stored(of)? };
                if has_body && self.queues.contains(&queue) {
                    is_wanted |= of == at;
                    self.want(of, at);
                } else {
                    found.push(Write::RemoveDelivery(Seq(seq), QueueKey(queue)));
                }
                delivery = next_delivery()?;
            }
            if spread == Some(at) {
                let parts = self.spreads.remove(&at).unwrap_or_default();
                let of = parts.body;
                let has_body = if of == at { is_there } else { is_stored(of)? };
                if has_body {
                    is_wanted |= of == at;
                    self.want(of, at);
                } else {
                    let remove = |part| Write::RemoveSpread(Seq(at), part);
                    found.extend(parts.numbers.into_iter().map(remove));
                }
            }
            if is_there {
                match self.moved_bodies.contains(&at) {
                    true => self.wanted.extend(is_wanted.then_some(at)),
                    false if !is_wanted => found.push(Write::RemoveMessage(BodyId(at))),
                    false => {}
                }
                body = next_body()?;
            }
        }
    }

    /// Notes that somebody waits for a body at a place.
    fn want(&mut self, body: u64, at: u64) {
        if body != at {
            self.wanted.insert(body);
        }
    }
}

/// The write that takes away what this one puts.
fn removal(put: Write) -> Option<Write> {
    Some(match put {
        Write::PutSubscription(key, filter, _) => Write::RemoveSubscription(key, filter),
        Write::PutWill(key, _) => Write::RemoveWill(key),
        Write::PutReceived(key, id) => Write::RemoveReceived(key, id),
        Write::PutBridge(key, _) => Write::RemoveBridge(key),
        Write::PutInflight(key, block, _) => Write::RemoveInflight(key, block),
        _ => return None,
    })
}
