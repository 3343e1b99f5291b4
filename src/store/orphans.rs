//! Rows that belong to nothing: bodies that nobody waits for, deliveries and spreads without a body
//! or a queue, and what is left of sessions that are gone.
//!
//! A session that ends loses its own row at once and the others bit by bit; a process that dies in
//! between leaves them. There may be a million, so the search walks through each table once: it
//! hands out some, and goes on behind them when those have been removed.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::error::{Doing, StoreError};
use super::rows::{
    Delivery, KINDS, Kind, Message, Owner, Row, Spread, key_pair, key_short_pair, key_u64,
    key_u64_and,
};
use super::tables::{READ, bad, every, whole};
use crate::broker::record::{QueueKey, Seq, Write};

/// Orphans are removed by about this many in a transaction.
const SOME: usize = 50_000;

/// The kinds whose rows belong to a queue.
fn of_queues() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| kind.owner == Owner::Queue)
}

/// A search for orphans, and how far it has come.
pub(super) struct Search {
    queues: HashSet<u64>,
    /// Parts of spreads by `Seq`, of messages behind `message`.
    spreads: BTreeMap<u64, Vec<u16>>,
    place: Place,
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
    pub(super) fn new(database: &Database) -> Result<Search, StoreError> {
        let transaction = database.begin_read().doing(READ)?;
        let mut queues = HashSet::new();
        for kind in KINDS.iter().filter(|kind| kind.owner == Owner::IsQueue) {
            every(&transaction, kind.table, |key, _| {
                queues.insert(key_u64(key).map_err(|what| bad(kind.table, key)(what))?);
                Ok(())
            })?;
        }
        let mut spreads: BTreeMap<u64, Vec<u16>> = BTreeMap::new();
        every(&transaction, Spread::TABLE, |key, _| {
            let (seq, part) = key_short_pair(key).map_err(|what| bad(Spread::TABLE, key)(what))?;
            spreads.entry(seq).or_default().push(part);
            Ok(())
        })?;
        Ok(Search {
            queues,
            spreads,
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

    /// Walks along bodies and deliveries side by side: both are in the order of their `Seq`. Returns
    /// the `Seq` to go on with, unless that was all.
    fn walk(
        &mut self,
        transaction: &ReadTransaction,
        from: u64,
        found: &mut Vec<Write>,
    ) -> Result<Option<u64>, StoreError> {
        let first = from.to_be_bytes();
        let bodies = transaction.open_table(Message::TABLE).doing(READ)?;
        let mut bodies = bodies.range(&first[..]..).doing(READ)?;
        let mut next_body = || -> Result<Option<u64>, StoreError> {
            let Some(row) = bodies.next() else {
                return Ok(None);
            };
            let (key, _) = row.doing(READ)?;
            let seq =
                key_u64(key.value()).map_err(|what| bad(Message::TABLE, key.value())(what))?;
            Ok(Some(seq))
        };
        let deliveries = transaction.open_table(Delivery::TABLE).doing(READ)?;
        let mut deliveries = deliveries.range(&first[..]..).doing(READ)?;
        let mut next_delivery = || -> Result<Option<(u64, u64)>, StoreError> {
            let Some(row) = deliveries.next() else {
                return Ok(None);
            };
            let (key, _) = row.doing(READ)?;
            let pair =
                key_pair(key.value()).map_err(|what| bad(Delivery::TABLE, key.value())(what))?;
            Ok(Some(pair))
        };
        let (mut body, mut delivery) = (next_body()?, next_delivery()?);
        loop {
            let spread = self.spreads.keys().next().copied();
            let at = [body, delivery.map(|(seq, _)| seq), spread];
            let Some(at) = at.into_iter().flatten().min() else {
                return Ok(None);
            };
            if found.len() >= SOME {
                return Ok(Some(at));
            }
            let is_there = body == Some(at);
            let mut is_wanted = false;
            while let Some((seq, queue)) = delivery.filter(|(seq, _)| *seq == at) {
                if is_there && self.queues.contains(&queue) {
                    is_wanted = true;
                } else {
                    found.push(Write::RemoveDelivery(Seq(seq), QueueKey(queue)));
                }
                delivery = next_delivery()?;
            }
            if spread == Some(at) {
                let parts = self.spreads.remove(&at).unwrap_or_default();
                is_wanted |= is_there;
                let remove = |part| Write::RemoveSpread(Seq(at), part);
                found.extend(parts.into_iter().filter(|_| !is_there).map(remove));
            }
            if is_there {
                if !is_wanted {
                    found.push(Write::RemoveMessage(Seq(at)));
                }
                body = next_body()?;
            }
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
