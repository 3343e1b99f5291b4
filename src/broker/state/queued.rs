//! A message in a queue, and how much there is in queues.

use std::ops::{Add, Sub};

use crate::broker::model::message::Message;
use crate::broker::model::record::{Durability, Seq, SubscriptionIds};
use crate::broker::state::gate::Stamp;
use crate::wire::QoS;

/// A message in a queue, or sent and not acknowledged.
#[derive(Clone, Debug)]
pub struct Queued {
    /// Its place in the order.
    pub seq: Seq,
    /// Its body, if that is in memory. A message that is not stored always has it.
    pub body: Option<Message>,
    /// Identifiers of the subscriptions that matched.
    pub ids: SubscriptionIds,
    /// When it expires, in broker time. 0 for never.
    pub expires: u64,
    /// Bytes of topic, properties and payload.
    pub size: u32,
    /// QoS of the delivery.
    pub qos: QoS,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// Durability of its row. `Memory` if it has none.
    pub level: Durability,
    /// What the delivery waits for if it has no row but the message is stored for others. A receiver that
    /// is shown it must not see an older one after a crash.
    pub reveals: Stamp,
    /// It may have been sent before a crash.
    pub dup: bool,
}

impl Queued {
    /// Whether it has a row in the store.
    pub fn is_stored(&self) -> bool {
        self.level != Durability::Memory
    }

    /// Whether the message was taken out of the middle of its queue.
    pub fn is_hole(&self) -> bool {
        !self.is_stored() && self.body.is_none()
    }

    /// Whether it has expired.
    pub fn is_expired(&self, unix: u64) -> bool {
        self.expires != 0 && self.expires <= unix
    }
}

/// What is in queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSize {
    /// Messages.
    pub messages: u64,
    /// Their bytes, in memory or not.
    pub bytes: u64,
    /// Bytes of those whose bodies are in memory.
    pub hot_bytes: u64,
}

impl Add for QueueSize {
    type Output = QueueSize;

    fn add(self, other: QueueSize) -> QueueSize {
        QueueSize {
            messages: self.messages + other.messages,
            bytes: self.bytes + other.bytes,
            hot_bytes: self.hot_bytes + other.hot_bytes,
        }
    }
}

impl Sub for QueueSize {
    type Output = QueueSize;

    fn sub(self, other: QueueSize) -> QueueSize {
        QueueSize {
            messages: self.messages - other.messages,
            bytes: self.bytes - other.bytes,
            hot_bytes: self.hot_bytes - other.hot_bytes,
        }
    }
}
