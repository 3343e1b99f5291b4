//! A batch becomes one write transaction: sorted by table and key, the last write of a row winning.
//!
//! Sorting makes neighbours in the database neighbours in time: each page is found once. What is put and removed within one batch never
//! reaches the database.

use std::ops::Bound;

use redb::{ReadableTable, Table, WriteTransaction};

use super::error::{Doing, StoreError};
use super::record::{self, PART};
use super::tables::{
    BRIDGES, DELIVERIES, Definition, GROUPS, INFLIGHT, MESSAGE_IDS, MESSAGES, META, META_CLOCK,
    META_QUEUE, META_SEQ, PARTS, RECEIVED, RETAINED, RowKey, SESSIONS, SPREADS, SUBSCRIPTIONS,
    WILLS, part_key,
};
use crate::broker::Message;
use crate::broker::record::{
    Batch, BridgeRecord, DeliveryRecord, InflightRecord, MessageId, QueueKey, Seq, SessionRecord,
    Source, SpreadRecord, SubscriptionRecord, WillRecord, Write,
};
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

/// Puts (`Some`) and removals (`None`) of a table's rows.
type Rows<K, V> = Vec<(K, Option<V>)>;

/// The writes of a batch by table, in key order, one a row.
#[derive(Default)]
pub(super) struct Sorted<'a> {
    sessions: Rows<u64, &'a SessionRecord>,
    groups: Rows<u64, &'a str>,
    subscriptions: Rows<(u64, &'a str), &'a SubscriptionRecord>,
    wills: Rows<u64, &'a WillRecord>,
    received: Rows<(u64, u16), ()>,
    inflight: Rows<(u64, u16), &'a [InflightRecord]>,
    bridges: Rows<u64, &'a BridgeRecord>,
    message_ids: Rows<u64, &'a MessageId>,
    spreads: Rows<(u64, u16), &'a SpreadRecord>,
    retained: Rows<&'a str, (&'a Message, Option<&'a Source>)>,
    messages: Rows<u64, &'a Message>,
    deliveries: Rows<(u64, u64), &'a DeliveryRecord>,
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
        let mut fresh: Vec<u64> = sorted
            .messages
            .iter()
            .filter_map(|(seq, put)| put.map(|_| *seq))
            .collect();
        fresh.sort_unstable();
        // A Seq is put once in its life: whatever this batch puts and removes under it was not there before.
        settle(&mut sorted.messages, |_| true);
        settle(&mut sorted.deliveries, |(seq, _)| {
            fresh.binary_search(seq).is_ok()
        });
        settle(&mut sorted.sessions, |_| false);
        settle(&mut sorted.groups, |_| false);
        settle(&mut sorted.subscriptions, |_| false);
        settle(&mut sorted.wills, |_| false);
        settle(&mut sorted.received, |_| false);
        settle(&mut sorted.inflight, |_| false);
        settle(&mut sorted.bridges, |_| false);
        settle(&mut sorted.message_ids, |_| true);
        settle(&mut sorted.spreads, |_| false);
        settle(&mut sorted.retained, |_| false);
        sorted
    }

    fn take(&mut self, write: &'a Write) {
        match write {
            Write::PutSession(key, session) => {
                self.use_queue(*key);
                self.sessions.push((key.0, Some(session)));
            }
            Write::RemoveSession(key) => self.sessions.push((key.0, None)),
            Write::PutSubscription(key, filter, subscription) => self
                .subscriptions
                .push(((key.0, &**filter), Some(subscription))),
            Write::RemoveSubscription(key, filter) => {
                self.subscriptions.push(((key.0, &**filter), None));
            }
            Write::PutGroup(key, name) => {
                self.use_queue(*key);
                self.groups.push((key.0, Some(&**name)));
            }
            Write::RemoveGroup(key) => self.groups.push((key.0, None)),
            Write::PutWill(key, will) => self.wills.push((key.0, Some(will))),
            Write::RemoveWill(key) => self.wills.push((key.0, None)),
            Write::PutMessage(seq, message) => {
                self.use_seq(*seq);
                self.messages.push((seq.0, Some(message)));
            }
            Write::RemoveMessage(seq) => self.messages.push((seq.0, None)),
            Write::PutDelivery(seq, key, delivery) => {
                self.use_seq(*seq);
                self.deliveries.push(((seq.0, key.0), Some(delivery)));
            }
            Write::RemoveDelivery(seq, key) => self.deliveries.push(((seq.0, key.0), None)),
            Write::PutReceived(key, id) => self.received.push(((key.0, id.get()), Some(()))),
            Write::RemoveReceived(key, id) => self.received.push(((key.0, id.get()), None)),
            Write::PutInflight(key, block, records) => {
                self.inflight.push(((key.0, block.0), Some(records)));
            }
            Write::RemoveInflight(key, block) => self.inflight.push(((key.0, block.0), None)),
            Write::PutBridge(key, bridge) => self.bridges.push((key.0, Some(bridge))),
            Write::RemoveBridge(key) => self.bridges.push((key.0, None)),
            Write::PutMessageId(seq, id) => {
                self.use_seq(*seq);
                self.message_ids.push((seq.0, Some(id)));
            }
            Write::RemoveMessageId(seq) => self.message_ids.push((seq.0, None)),
            Write::PutSpread(seq, part, spread) => {
                self.use_seq(*seq);
                self.spreads.push(((seq.0, *part), Some(spread)));
            }
            Write::RemoveSpread(seq, part) => self.spreads.push(((seq.0, *part), None)),
            Write::PutRetained(message, source) => {
                let row = (message, source.as_deref());
                self.retained.push((message.topic(), Some(row)));
            }
            Write::RemoveRetained(topic) => self.retained.push((&**topic, None)),
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
        &self,
        transaction: &WriteTransaction,
        unused: Unused,
    ) -> Result<(i64, Unused), StoreError> {
        let mut rows = RowWriter {
            transaction,
            key: Vec::new(),
            record: Vec::with_capacity(PART),
            parts: None,
            live: 0,
        };
        rows.write(SESSIONS, &self.sessions, |session, out| {
            record::put_session(out, session);
        })?;
        rows.write(GROUPS, &self.groups, |name, out| {
            record::put_group(out, name);
        })?;
        rows.write(SUBSCRIPTIONS, &self.subscriptions, |subscription, out| {
            record::put_subscription(out, subscription);
        })?;
        rows.write(RECEIVED, &self.received, |(), out| {
            out.push(record::VERSION)
        })?;
        rows.write(INFLIGHT, &self.inflight, |records, out| {
            record::put_inflight(out, records);
        })?;
        rows.write(WILLS, &self.wills, |will, out| record::put_will(out, will))?;
        rows.write(BRIDGES, &self.bridges, |bridge, out| {
            record::put_bridge(out, bridge);
        })?;
        rows.write(MESSAGE_IDS, &self.message_ids, |id, out| {
            record::put_message_id(out, id);
        })?;
        rows.write(SPREADS, &self.spreads, |spread, out| {
            record::put_spread(out, spread);
        })?;
        rows.write(RETAINED, &self.retained, |(message, source), out| {
            record::put_retained(out, message, source);
        })?;
        rows.write(MESSAGES, &self.messages, |message, out| {
            record::put_message(out, message);
        })?;
        rows.write(DELIVERIES, &self.deliveries, |delivery, out| {
            record::put_delivery(out, delivery);
        })?;
        let live = rows.live;
        drop(rows);
        if let Some(reading) = self.clock {
            let mut record = Vec::new();
            record::put_reading(&mut record, reading);
            let mut meta = transaction.open_table(META).doing(APPLY)?;
            meta.insert(META_CLOCK, record.as_slice()).doing(APPLY)?;
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
        let mut record = Vec::new();
        record::put_number(&mut record, *unused);
        let mut meta = transaction.open_table(META).doing(APPLY)?;
        meta.insert(key, record.as_slice()).doing(APPLY)?;
        Ok(())
    };
    set(META_SEQ, used.seq, &mut unused.seq, SEQ_BLOCK)?;
    set(META_QUEUE, used.queue, &mut unused.queue, QUEUE_BLOCK)?;
    Ok(unused)
}

/// Sorts writes by key and lets the last of each row win. A removal after a put takes both away where `cancels` says that the row was not
/// there before the batch.
fn settle<K: Ord, V>(rows: &mut Rows<K, V>, cancels: impl Fn(&K) -> bool) {
    if rows.len() < 2 {
        return;
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let mut kept: Rows<K, V> = Vec::with_capacity(rows.len());
    for (key, put) in rows.drain(..) {
        match kept.last_mut() {
            Some(last) if last.0 == key => {
                if last.1.is_some() && put.is_none() && cancels(&key) {
                    kept.pop();
                } else {
                    last.1 = put;
                }
            }
            _ => kept.push((key, put)),
        }
    }
    *rows = kept;
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
    key: Vec<u8>,
    record: Vec<u8>,
    /// The table of parts, once it is needed.
    parts: Option<Rest<'t>>,
    live: i64,
}

impl<'t> RowWriter<'t> {
    /// Removes and then puts the rows of one table.
    fn write<K: RowKey, V: Copy>(
        &mut self,
        definition: Definition,
        rows: &Rows<K, V>,
        encode: impl Fn(V, &mut Vec<u8>),
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut table = self.transaction.open_table(definition).doing(APPLY)?;
        let removals = rows.iter().filter(|(_, put)| put.is_none());
        self.remove(definition, &mut table, removals.map(|(key, _)| key))?;
        let mut puts = rows.iter().filter_map(|(key, put)| Some((key, (*put)?)));
        let many = rows.len() >= APPEND;
        let last = table.last().doing(APPLY)?;
        let last: Option<Vec<u8>> = last.map(|(key, _)| key.value().to_vec());
        for (key, value) in &mut puts {
            self.encode(key, value, &encode);
            if many && last.as_ref().is_none_or(|last| self.key > *last) {
                return self.append(definition, &mut table, puts, encode);
            }
            let first = &self.record[..self.record.len().min(PART)];
            let old = table.insert(self.key.as_slice(), first).doing(APPLY)?;
            let old = old.map(|old| old.value().len());
            self.forget(definition, old)?;
            self.put_rest(definition)?;
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

    /// Appends the row just encoded, and those of `puts`, all of which sort after the table's last: redb then fills pages to the brim, where
    /// single inserts leave them half empty.
    fn append<'k, K: RowKey + 'k, V: Copy>(
        &mut self,
        definition: Definition,
        table: &mut Rest<'t>,
        mut puts: impl Iterator<Item = (&'k K, V)>,
        encode: impl Fn(V, &mut Vec<u8>),
    ) -> Result<(), StoreError> {
        let end = Bound::<&[u8]>::Unbounded;
        let mut cursor = table.upper_bound_mut(end).doing(APPLY)?;
        loop {
            let first = &self.record[..self.record.len().min(PART)];
            cursor
                .insert_before(self.key.as_slice(), first)
                .doing(APPLY)?;
            self.put_rest(definition)?;
            let Some((key, value)) = puts.next() else {
                break;
            };
            self.encode(key, value, &encode);
        }
        cursor.close().doing(APPLY)
    }

    fn encode<K: RowKey, V>(&mut self, key: &K, value: V, encode: &impl Fn(V, &mut Vec<u8>)) {
        self.key.clear();
        key.put(&mut self.key);
        self.record.clear();
        encode(value, &mut self.record);
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
