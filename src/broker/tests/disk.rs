//! A disk that is a few maps: what is in them survives a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::record::{
    BatchId, Block, BodyId, BridgeRecord, DeliveryRecord, InflightRecord, MessageId, Resume,
    SessionRecord, Source, SpreadRecord, TopicKey, WillRecord,
};
use super::*;
use crate::clock::Reading;

pub(super) struct Disk {
    pub sessions: BTreeMap<u64, SessionRecord>,
    pub groups: BTreeMap<u64, Box<str>>,
    pub subscriptions: BTreeMap<(u64, Box<str>), SubscriptionRecord>,
    pub wills: BTreeMap<u64, WillRecord>,
    pub received: BTreeSet<(u64, u16)>,
    pub inflight: BTreeMap<(u64, Block), Vec<InflightRecord>>,
    pub bridges: BTreeMap<u64, BridgeRecord>,
    pub message_ids: BTreeMap<u64, MessageId>,
    pub retained: BTreeMap<Box<str>, (Message, Option<Arc<Source>>)>,
    pub deliveries: BTreeMap<(u64, u64), DeliveryRecord>,
    pub messages: BTreeMap<u64, Message>,
    pub spreads: BTreeMap<(u64, u16), SpreadRecord>,
    pub clock: Option<Reading>,
    /// Whether it takes more messages.
    pub room: u64,
    last_seq: u64,
    last_key: u64,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk {
            sessions: BTreeMap::new(),
            groups: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            wills: BTreeMap::new(),
            received: BTreeSet::new(),
            inflight: BTreeMap::new(),
            bridges: BTreeMap::new(),
            message_ids: BTreeMap::new(),
            retained: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            messages: BTreeMap::new(),
            spreads: BTreeMap::new(),
            clock: None,
            room: u64::MAX,
            last_seq: 0,
            last_key: 0,
        }
    }
}

impl Disk {
    pub fn apply(&mut self, write: Write) {
        match write {
            Write::PutSession(key, record) => {
                self.last_key = self.last_key.max(key.0);
                self.sessions.insert(key.0, record);
            }
            Write::RemoveSession(key) => _ = self.sessions.remove(&key.0),
            Write::PutSubscription(key, filter, record) => {
                self.subscriptions.insert((key.0, filter), record);
            }
            Write::RemoveSubscription(key, filter) => {
                self.subscriptions.remove(&(key.0, filter));
            }
            Write::PutGroup(key, name) => {
                self.last_key = self.last_key.max(key.0);
                self.groups.insert(key.0, name);
            }
            Write::RemoveGroup(key) => _ = self.groups.remove(&key.0),
            Write::PutWill(key, record) => _ = self.wills.insert(key.0, record),
            Write::RemoveWill(key) => _ = self.wills.remove(&key.0),
            Write::PutMessage(id, message) => {
                self.last_seq = self.last_seq.max(id.0);
                self.messages.insert(id.0, message);
            }
            Write::RemoveMessage(id) => _ = self.messages.remove(&id.0),
            Write::PutDelivery(seq, key, record) => {
                self.deliveries.insert((seq.0, key.0), record);
            }
            Write::RemoveDelivery(seq, key) => _ = self.deliveries.remove(&(seq.0, key.0)),
            Write::PutReceived(key, id) => _ = self.received.insert((key.0, id.get())),
            Write::RemoveReceived(key, id) => _ = self.received.remove(&(key.0, id.get())),
            Write::PutInflight(key, block, records) => {
                self.inflight.insert((key.0, block), records);
            }
            Write::RemoveInflight(key, block) => _ = self.inflight.remove(&(key.0, block)),
            Write::PutBridge(key, record) => _ = self.bridges.insert(key.0, record),
            Write::RemoveBridge(key) => _ = self.bridges.remove(&key.0),
            Write::PutMessageId(seq, id) => {
                self.last_seq = self.last_seq.max(seq.0);
                self.message_ids.insert(seq.0, id);
            }
            Write::RemoveMessageId(seq) => _ = self.message_ids.remove(&seq.0),
            Write::PutSpread(seq, part, record) => {
                self.spreads.insert((seq.0, part), record);
            }
            Write::RemoveSpread(seq, part) => _ = self.spreads.remove(&(seq.0, part)),
            Write::PutRetained(message, source) => {
                let topic = message.topic().into();
                self.retained.insert(topic, (message, source));
            }
            Write::RemoveRetained(topic) => _ = self.retained.remove(&topic),
            Write::PutClock(reading) => self.clock = Some(reading),
        }
    }

    pub fn body(&self, id: BodyId) -> Option<Message> {
        self.messages.get(&id.0).cloned()
    }

    /// What a broker goes on with.
    pub fn resume(&self) -> Resume {
        let last = self.deliveries.last_key_value();
        let last = last.map_or(0, |((seq, _), _)| *seq).max(self.last_seq);
        Resume {
            seq: Seq(last + 1),
            queue: QueueKey(self.last_key + 1),
            batch: BatchId(1),
            topic_key: TopicKey(0),
        }
    }

    /// Removes what belongs to nothing, as the store does when it is opened.
    pub fn remove_orphans(&mut self) {
        let owners: BTreeSet<u64> = self
            .sessions
            .keys()
            .chain(self.groups.keys())
            .copied()
            .collect();
        self.subscriptions
            .retain(|(key, _), _| owners.contains(key));
        self.wills.retain(|key, _| owners.contains(key));
        self.received.retain(|(key, _)| owners.contains(key));
        self.inflight.retain(|(key, _), _| owners.contains(key));
        self.bridges.retain(|key, _| owners.contains(key));
        self.deliveries.retain(|(_, key), _| owners.contains(key));
        let wanted: BTreeSet<u64> = self.needed().collect();
        self.messages.retain(|seq, _| wanted.contains(seq));
    }

    /// The bodies that deliveries and spreads need.
    fn needed(&self) -> impl Iterator<Item = u64> {
        let deliveries = self.deliveries.iter();
        let deliveries = deliveries.map(|((seq, _), record)| record.message.body_at(Seq(*seq)).0);
        let spreads = self.spreads.iter();
        let spreads = spreads.map(|((seq, _), record)| record.message.body_at(Seq(*seq)).0);
        deliveries.chain(spreads)
    }

    /// All rows as the store hands them back at the start.
    pub fn rows(&self) -> Vec<Write> {
        for body in self.needed() {
            let is_there = self.messages.contains_key(&body);
            assert!(is_there, "a delivery or spread has no body {body}");
        }
        let mut rows = Vec::new();
        rows.extend(self.clock.map(Write::PutClock));
        let sessions = self.sessions.iter();
        rows.extend(
            sessions.map(|(key, record)| Write::PutSession(QueueKey(*key), record.clone())),
        );
        let groups = self.groups.iter();
        rows.extend(groups.map(|(key, name)| Write::PutGroup(QueueKey(*key), name.clone())));
        rows.extend(self.subscriptions.iter().map(|((key, filter), record)| {
            Write::PutSubscription(QueueKey(*key), filter.clone(), record.clone())
        }));
        let wills = self.wills.iter();
        rows.extend(wills.map(|(key, record)| Write::PutWill(QueueKey(*key), record.clone())));
        let received = self.received.iter();
        rows.extend(
            received.map(|(key, id)| Write::PutReceived(QueueKey(*key), super::packet_id(*id))),
        );
        let bridges = self.bridges.iter();
        rows.extend(bridges.map(|(key, record)| Write::PutBridge(QueueKey(*key), record.clone())));
        rows.extend(
            self.retained
                .values()
                .cloned()
                .map(|(message, source)| Write::PutRetained(message, source)),
        );
        let ids = self.message_ids.iter();
        rows.extend(ids.map(|(seq, id)| Write::PutMessageId(Seq(*seq), *id)));
        rows.extend(self.inflight.iter().map(|((key, block), records)| {
            Write::PutInflight(QueueKey(*key), *block, records.clone())
        }));
        rows.extend(
            self.spreads
                .iter()
                .map(|((seq, part), record)| Write::PutSpread(Seq(*seq), *part, record.clone())),
        );
        rows.extend(self.deliveries.iter().map(|((seq, key), record)| {
            Write::PutDelivery(Seq(*seq), QueueKey(*key), record.clone())
        }));
        rows
    }
}
