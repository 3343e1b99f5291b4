//! Messages over all queues: their places in the order, who needs a body that is stored, bodies to be read, and
//! what rows say of messages.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::broker::model::fetch::Fetch;
use crate::broker::model::ids::Owner;
use crate::broker::model::message::Message;
use crate::broker::model::record::{
    BodyId, DeliveryRecord, QueueKey, Resume, Seq, Summary, TopicHash, TopicKey,
};
use crate::broker::state::queued::Queued;
use crate::broker::state::table::Table;
use crate::wire::PacketId;

/// What is known of all messages.
#[derive(Debug)]
pub struct Messages {
    next_seq: u64,
    next_key: u64,
    topic_key: TopicKey,
    /// How many deliveries need a stored body, where it is more than one.
    shares: Table<BodyId, u32, FxBuildHasher>,
    /// Places whose message has the body of another place, and how many deliveries there are.
    moved: HashMap<Seq, (BodyId, u32), FxBuildHasher>,
    /// Bodies to be read from the store.
    fetches: Vec<Fetch>,
}

impl Default for Messages {
    fn default() -> Messages {
        Messages {
            next_seq: 1,
            next_key: 1,
            topic_key: TopicKey(0),
            shares: Table::default(),
            moved: HashMap::default(),
            fetches: Vec::new(),
        }
    }
}

impl Messages {
    /// Goes on with these numbers, which were never used.
    pub fn resume_at(&mut self, resume: &Resume) {
        self.next_seq = resume.seq.0.max(1);
        self.next_key = resume.queue.0.max(1);
        self.topic_key = resume.topic_key;
    }

    /// The place that the next message will have.
    pub fn next_seq(&self) -> Seq {
        Seq(self.next_seq)
    }

    /// Gives a message its place.
    pub fn take_seq(&mut self) -> Seq {
        let seq = self.next_seq();
        self.next_seq += 1;
        seq
    }

    /// Gives a queue its key.
    pub fn take_key(&mut self) -> QueueKey {
        let key = QueueKey(self.next_key);
        self.next_key += 1;
        key
    }

    /// Returns the hash of a topic, as rows have it.
    pub fn hash_topic(&self, topic: &str) -> TopicHash {
        self.topic_key.hash(topic.as_bytes())
    }

    /// Returns the body of the message at a place.
    pub fn body_of(&self, seq: Seq) -> BodyId {
        let moved = self.moved.get(&seq);
        moved.map_or(seq.into(), |(body, _)| *body)
    }

    /// So many deliveries need the body of a message, which is about to be stored.
    pub fn store(&mut self, seq: Seq, deliveries: u32) {
        if deliveries > 1 {
            self.shares.insert(seq.into(), deliveries);
        }
    }

    /// So many deliveries more need a body that one needs already.
    pub fn share(&mut self, seq: Seq, more: u32) {
        if more > 0 {
            let body = self.body_of(seq);
            *self.shares.part(&body).entry(body).or_insert(1) += more;
        }
    }

    /// One delivery less needs a body. Returns the body if it was the last.
    pub fn release(&mut self, seq: Seq) -> Option<BodyId> {
        let body = self.body_of(seq);
        if let Some((_, deliveries)) = self.moved.get_mut(&seq) {
            *deliveries -= 1;
            if *deliveries == 0 {
                self.moved.remove(&seq);
            }
        }
        let shares = self.shares.part(&body);
        match shares.get_mut(&body) {
            Some(shares) if *shares > 2 => *shares -= 1,
            Some(_) => {
                shares.remove(&body);
            }
            None => return Some(body),
        }
        None
    }

    /// Takes a recovered delivery at a place whose body is that of another place.
    pub fn recover_moved(&mut self, seq: Seq, body: BodyId) {
        self.moved.entry(seq).or_insert((body, 0)).1 += 1;
    }

    /// Whether any message has the body of another place.
    pub fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// All rows are recovered. `own` are the places of all stored deliveries: counts who needs the bodies that
    /// are needed at other places than their own, too.
    pub fn settle_moved(&mut self, own: impl Iterator<Item = Seq>) {
        let mut needed: HashMap<BodyId, u32, FxBuildHasher> = HashMap::default();
        for (body, deliveries) in self.moved.values() {
            *needed.entry(*body).or_default() += deliveries;
        }
        for seq in own.filter(|seq| !self.moved.contains_key(seq)) {
            if let Some(deliveries) = needed.get_mut(&BodyId::from(seq)) {
                *deliveries += 1;
            }
        }
        for (body, deliveries) in needed {
            let shares = self.shares.part(&body);
            match deliveries {
                0 | 1 => shares.remove(&body),
                _ => shares.insert(body, deliveries),
            };
        }
    }

    /// Asks for the bodies of the messages at these places, which are in ascending order.
    pub fn ask(&mut self, owner: Owner, key: QueueKey, serial: u64, seqs: Vec<Seq>) {
        let bodies = seqs.iter().map(|seq| self.body_of(*seq)).collect();
        self.fetches.push(Fetch {
            bodies,
            owner,
            key,
            serial,
            seqs,
        });
    }

    /// Returns the bodies that are asked for, once.
    pub fn take_fetches(&mut self) -> Vec<Fetch> {
        std::mem::take(&mut self.fetches)
    }

    /// Returns the row of a delivery. If the body is not in memory, the topic is not known, and the QoS and
    /// retain flag of the publish are taken for those of the delivery.
    pub fn record(
        &self,
        item: &Queued,
        packet_id: Option<PacketId>,
        released: bool,
    ) -> DeliveryRecord {
        let mut message = match &item.body {
            Some(body) => self.summary(body),
            None => Summary {
                size: item.size,
                expires: (item.expires != 0).then_some(item.expires),
                qos: item.qos,
                retain: item.retain,
                topic: None,
                body: None,
            },
        };
        message.body = self.moved.get(&item.seq).map(|(body, _)| *body);
        DeliveryRecord {
            qos: item.qos,
            retain: item.retain,
            released,
            packet_id,
            message,
            subscription_ids: item.ids.clone(),
        }
    }

    /// Returns the row of a delivery in the queue of a group. It has the QoS and retain flag of the publish,
    /// because another member, with other options, may get the message.
    pub fn group_record(&self, item: &Queued) -> DeliveryRecord {
        let mut record = self.record(item, None, false);
        (record.qos, record.retain) = (record.message.qos, record.message.retain);
        record
    }

    /// Returns what rows say of a message at its first place.
    pub fn summary(&self, message: &Message) -> Summary {
        Summary {
            size: message.size(),
            expires: message.expires(),
            qos: message.qos(),
            retain: message.retain(),
            topic: Some(self.topic_key.hash(message.topic_bytes())),
            body: None,
        }
    }

    /// The bodies that several deliveries need, and how many.
    #[cfg(test)]
    pub fn shares(&self) -> impl Iterator<Item = (BodyId, u32)> {
        self.shares.iter().map(|(body, count)| (*body, *count))
    }
}
