//! What the broker remembers on disk, as plain data. How it is laid out in bytes is the store's affair.

use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::broker::model::message::Message;
use crate::clock::Reading;
use crate::wire::packet::SubscribeOptions;
use crate::wire::{PacketId, ProtocolVersion, QoS};

/// A message's place in the order in which the broker accepted messages. Grows for ever; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

/// Names the body of a message in the store: the first [`Seq`] of its message. A message that gets
/// another place in the order keeps its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyId(pub u64);

/// The body of a message at its first place.
impl From<Seq> for BodyId {
    fn from(seq: Seq) -> BodyId {
        BodyId(seq.0)
    }
}

/// Stands for a topic: its keyed hash. Two topics have the same one with a probability of 2^-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicHash(pub u64);

/// The key of topic hashes. Each store has its own, and keeps it secret: nobody can look for topics
/// with the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicKey(pub u64);

impl TopicKey {
    /// Returns the hash of a topic (SipHash-1-3).
    pub fn hash(self, topic: &[u8]) -> TopicHash {
        let mut hasher = SipHasher13::new_with_keys(self.0, 0);
        hasher.write(topic);
        TopicHash(hasher.finish())
    }
}

/// Names a queue of messages, which is a session's or a shared group's, on disk and in memory. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey(pub u64);

/// Names a batch of writes. Batches commit in this order. It goes on after a restart, and skips some
/// numbers then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BatchId(pub u64);

/// How far an acknowledgement waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Durability {
    /// Nothing is written; lost when the process ends.
    Memory,
    /// The acknowledgement waits until the operating system has the data: the message survives the process, not a power cut.
    Os,
    /// The acknowledgement waits for the fsync.
    #[default]
    Fsync,
}

/// Session expiry interval that never ends.
pub const NEVER_EXPIRES: u32 = u32::MAX;

/// A session whose state is kept on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRecord {
    /// Client identifier.
    pub client_id: Box<str>,
    /// Version of its last connection.
    pub version: ProtocolVersion,
    /// Session expiry interval in seconds; [`NEVER_EXPIRES`] for no end. 0 for a session that is only here because it has a will.
    pub expiry: u32,
    /// When its last connection ended, in broker time ([`crate::clock::Now::unix`]); `None` while it is connected.
    pub disconnected_at: Option<u64>,
    /// Whose it is: the user name its client has proved; `None` for a client without one.
    pub user: Option<Box<str>>,
}

/// A subscription of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionRecord {
    /// Options as granted.
    pub options: SubscribeOptions,
    /// Subscription identifier, where there is one.
    pub id: Option<u32>,
    /// Retained messages are still to be sent for it: those of topics that sort after this one. Empty for all of them.
    pub replaying: Option<Box<str>>,
}

/// A will, kept until the session's connection ends well or the will has been published.
#[derive(Clone, Debug, PartialEq)]
pub struct WillRecord {
    /// What to publish. Its expiry, if any, is in `expiry`: it starts when the will is published.
    pub message: Message,
    /// Message expiry interval in seconds.
    pub expiry: Option<u32>,
    /// Will delay interval in seconds.
    pub delay: u32,
    /// When to publish it, in broker time; `None` while the client is connected.
    pub due: Option<u64>,
}

/// What the row of a delivery says of its message, so that nobody has to read the body for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Bytes of topic, properties and payload.
    pub size: u32,
    /// When the message expires, in broker time.
    pub expires: Option<u64>,
    /// QoS of the publish.
    pub qos: QoS,
    /// Retain flag of the publish.
    pub retain: bool,
    /// Its topic. `None` in rows of layouts before 4.
    pub topic: Option<TopicHash>,
    /// Its body, if that is not the one of its place in the order.
    pub body: Option<BodyId>,
}

/// A message waiting in a queue or on its way to the queue's client.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryRecord {
    /// QoS of the delivery: 1 or 2, and not above that of the publish.
    pub qos: QoS,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// QoS 2: the client has sent PUBREC; what is left is PUBREL. An [`InflightRecord`] may say so instead.
    pub released: bool,
    /// Packet identifier, if it was given one when this was written; an [`InflightRecord`] may say it instead.
    pub packet_id: Option<PacketId>,
    /// What there is to say of the message.
    pub message: Summary,
    /// Identifiers of the subscriptions that matched.
    pub subscription_ids: SubscriptionIds,
}

impl Summary {
    /// Returns the body of the message, which has this place in the order.
    pub fn body_at(&self, seq: Seq) -> BodyId {
        self.body.unwrap_or(seq.into())
    }
}

/// A QoS 2 message on its way to a session's client whose delivery does not say so: it was sent from the queue, or released since. Or one that has
/// no row, or may have been given this identifier after this was written: the client may hold it as received when the message itself is lost.
/// Or one of QoS 1 that was sent from the queue, and not acknowledged when the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflightRecord {
    /// The packet identifier it was sent with.
    pub packet_id: PacketId,
    /// Which message it is; [`InflightRecord::NO_ROW`] for one that the store does not have.
    pub seq: Seq,
    /// The client has sent PUBREC; what is left is PUBREL.
    pub released: bool,
}

impl InflightRecord {
    /// In the place of a message that the store does not have.
    pub const NO_ROW: Seq = Seq(0);
}

/// Packet identifiers whose states are kept together in a row, so that a run of messages costs a write and not one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(pub u16);

impl Block {
    /// How many identifiers share a block.
    pub const IDS: u16 = 128;

    /// The block of an identifier.
    pub fn of(id: PacketId) -> Block {
        Block(id.get() / Block::IDS)
    }

    /// The identifiers of the block.
    pub fn ids(self) -> impl Iterator<Item = PacketId> {
        let first = self.0 * Block::IDS;
        (first..=first + (Block::IDS - 1)).filter_map(PacketId::new)
    }
}

/// Sessions that a stored message is still to be given to, of the very many that get it.
#[derive(Clone, Debug, PartialEq)]
pub struct SpreadRecord {
    /// What there is to say of the message.
    pub message: Summary,
    /// The sessions.
    pub receivers: Vec<SpreadReceiver>,
}

/// A session that a message is still to be given to, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct SpreadReceiver {
    /// Whose queue it is for.
    pub queue: QueueKey,
    /// QoS of the delivery: 1 or 2.
    pub qos: QoS,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub subscription_ids: SubscriptionIds,
}

/// Identifiers of the subscriptions a delivery matched; mostly none, so it is one word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionIds(#[allow(clippy::box_collection)] Option<Box<Vec<u32>>>);

impl SubscriptionIds {
    /// No identifiers; allocates nothing.
    pub const NONE: SubscriptionIds = SubscriptionIds(None);

    /// Adds an identifier, unless it is there already; there are `most` at most. Whether there was still room for one: once
    /// there is none, it is not looked for, as tens of thousands may come.
    pub fn add(&mut self, id: u32, most: usize) -> bool {
        let ids = self.as_slice();
        let has_room = ids.len() < most;
        if has_room && !ids.contains(&id) {
            self.0.get_or_insert_default().push(id);
        }
        has_room
    }

    /// The identifiers, in the order they were added.
    pub fn as_slice(&self) -> &[u32] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

/// Takes the identifiers as they come: none is there twice.
impl FromIterator<u32> for SubscriptionIds {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> SubscriptionIds {
        let ids: Vec<u32> = ids.into_iter().collect();
        SubscriptionIds((!ids.is_empty()).then(|| Box::new(ids)))
    }
}

/// What is remembered of a bridge beside its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeRecord {
    /// The client identifier at the upstream.
    pub remote_clientid: Box<str>,
    /// The address it was connected to last.
    pub address: Box<str>,
    /// Its addresses were found to keep sessions of their own.
    pub separate_sessions: bool,
    /// What exchanges may be unfinished at addresses it has left.
    pub left: Vec<LeftAddress>,
}

/// An address a bridge has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAddress {
    /// The address, as the configuration writes it.
    pub address: Box<str>,
    /// Identifiers of outgoing QoS 2 messages that it may hold unreleased.
    pub unreleased: Vec<PacketId>,
    /// Identifiers of QoS 2 messages received from it and not released.
    pub received: Vec<PacketId>,
}

/// The identity of a message that came over a bridge: what tells that it has come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId {
    /// Stands for the client identifier of its publisher.
    pub publisher: u64,
    /// What the publisher calls the message.
    pub id: u64,
}

/// Who published what is retained: whoever it is shown to, its publisher must still be allowed to publish it
/// (`check_retain_source`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Client identifier.
    pub client_id: Box<str>,
    /// The user name it had proved; `None` for a client without one.
    pub user: Option<Box<str>>,
    /// The list of what clients may do of the listener it came by, if that has one of its own.
    pub acl: Option<Box<str>>,
}

/// One operation on one row of the store. The `Put` variants are also what recovery hands back to the broker.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A session, new or changed.
    PutSession(QueueKey, SessionRecord),
    /// A session's own row; its other rows are removed by their own writes.
    RemoveSession(QueueKey),
    /// A subscription, new or changed. The filter is as the client sent it, `$share/` included.
    PutSubscription(QueueKey, Box<str>, SubscriptionRecord),
    /// A subscription.
    RemoveSubscription(QueueKey, Box<str>),
    /// A shared group: its queue, and its name and filter as in a SUBSCRIBE.
    PutGroup(QueueKey, Box<str>),
    /// A shared group.
    RemoveGroup(QueueKey),
    /// The will of a session.
    PutWill(QueueKey, WillRecord),
    /// The will of a session.
    RemoveWill(QueueKey),
    /// The body of a message.
    PutMessage(BodyId, Message),
    /// The body of a message.
    RemoveMessage(BodyId),
    /// A message's place in a queue, new or changed.
    PutDelivery(Seq, QueueKey, DeliveryRecord),
    /// A message's place in a queue.
    RemoveDelivery(Seq, QueueKey),
    /// The packet identifier of a QoS 2 message that a session's client published and has not released.
    PutReceived(QueueKey, PacketId),
    /// The packet identifier of a released message.
    RemoveReceived(QueueKey, PacketId),
    /// The messages on their way to a session's client with packet identifiers of one block, all that [`InflightRecord`] is about.
    PutInflight(QueueKey, Block, Vec<InflightRecord>),
    /// There is none any more.
    RemoveInflight(QueueKey, Block),
    /// What is remembered of the bridge with this session, new or changed.
    PutBridge(QueueKey, BridgeRecord),
    /// What is remembered of a bridge.
    RemoveBridge(QueueKey),
    /// Whom a message is still to be given to: a part of them, by its number; new or changed.
    PutSpread(Seq, u16, SpreadRecord),
    /// All of them have it.
    RemoveSpread(Seq, u16),
    /// The identity of the message that was accepted as this one.
    PutMessageId(Seq, MessageId),
    /// The identity of a message.
    RemoveMessageId(Seq),
    /// The retained message of the topic it names, and who published it, where that is known.
    PutRetained(Message, Option<Arc<Source>>),
    /// The retained message of this topic.
    RemoveRetained(Box<str>),
    /// What the clocks show.
    PutClock(Reading),
}

/// What a broker goes on with after a restart: the first numbers that were never used, and the key of
/// topic hashes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resume {
    /// The next place in the order.
    pub seq: Seq,
    /// The next queue.
    pub queue: QueueKey,
    /// The next batch.
    pub batch: BatchId,
    /// The key of topic hashes.
    pub topic_key: TopicKey,
}

/// Writes that commit together.
#[derive(Debug)]
pub struct Batch {
    /// Its place in the order of batches.
    pub id: BatchId,
    /// The operations, in order.
    pub writes: Vec<Write>,
}

/// How far acknowledgements wait, by topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DurabilityRules {
    /// What holds where no rule matches.
    pub default: Durability,
    /// Topic filters and what holds for topics they match; the first match wins.
    pub topics: Vec<(Box<str>, Durability)>,
}
