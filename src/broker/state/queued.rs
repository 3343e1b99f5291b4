//! A message in a queue, and how much there is in queues.

use std::ops::{Add, Sub};

use crate::broker::model::message::Message;
use crate::broker::model::record::{DeliveryRecord, Durability, Seq, SubscriptionIds};
use crate::broker::state::gate::Stamp;
use crate::wire::{PacketId, QoS};

/// A message waiting in a queue, or on its way to a client.
#[derive(Clone, Debug)]
pub struct Queued {
    /// Its place in the order of accepted messages.
    pub seq: Seq,
    /// Its body, if it is in memory. A message that is not stored always has it.
    pub body: Option<Message>,
    pub ids: SubscriptionIds,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires: u64,
    pub size: u32,
    pub qos: QoS,
    /// The retain flag to deliver it with.
    pub retain: bool,
    /// How far acknowledgements wait for it; `Memory` says that it has no row in the store.
    pub level: Durability,
    /// What it waits for if it has no row itself, but is kept for others: whoever is shown it must not see an older one after a crash.
    pub reveals: Stamp,
    /// It may have been sent before, on a connection that a crash has ended.
    pub dup: bool,
}

impl Queued {
    /// Whether it has a row in the store.
    pub fn is_stored(&self) -> bool {
        self.level != Durability::Memory
    }

    /// Whether it is only the place of a message that was taken out of the middle of a queue.
    pub fn is_hole(&self) -> bool {
        !self.is_stored() && self.body.is_none()
    }

    /// Whether it has expired.
    pub fn is_expired(&self, unix: u64) -> bool {
        self.expires != 0 && self.expires <= unix
    }

    /// The row of this delivery.
    pub fn record(&self, packet_id: Option<PacketId>, released: bool) -> DeliveryRecord {
        DeliveryRecord {
            qos: self.qos,
            retain: self.retain,
            released,
            packet_id,
            size: self.size,
            expires: (self.expires != 0).then_some(self.expires),
            subscription_ids: self.ids.clone(),
        }
    }

    /// The row of this delivery in the queue of a group: what is sent to one member may be given to another, who has subscribed otherwise.
    pub fn record_as_published(&self) -> DeliveryRecord {
        let mut record = self.record(None, false);
        if let Some(body) = &self.body {
            (record.qos, record.retain) = (body.qos(), body.retain());
        }
        record
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
