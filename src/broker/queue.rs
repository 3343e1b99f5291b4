//! A queue of messages: a session's or a shared group's. The memory it takes is an index; bodies are kept for connected clients only, within
//! the broker's budget, and read from the store when they are needed.

use std::collections::VecDeque;

use super::gate::Stamp;
use super::message::Message;
use super::record::{DeliveryRecord, Durability, QueueKey, Seq, SubscriptionIds};
use crate::wire::QoS;

/// A message waiting in a queue, or on its way to a client.
#[derive(Clone, Debug)]
pub(super) struct Queued {
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

    /// Whether it has expired.
    pub fn is_expired(&self, unix: u64) -> bool {
        self.expires != 0 && self.expires <= unix
    }

    /// The row of this delivery.
    pub fn record(
        &self,
        packet_id: Option<crate::wire::PacketId>,
        released: bool,
    ) -> DeliveryRecord {
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
}

/// Waiting messages, in the order in which they were accepted.
#[derive(Debug)]
pub(super) struct Queue {
    pub key: QueueKey,
    items: VecDeque<Queued>,
    bytes: u64,
    hot_bytes: u64,
    /// A read from the store is under way.
    pub fetching: bool,
}

impl Queue {
    pub fn new(key: QueueKey) -> Queue {
        Queue {
            key,
            items: VecDeque::new(),
            bytes: 0,
            hot_bytes: 0,
            fetching: false,
        }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of all waiting messages, in memory or not.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of messages whose bodies are in memory, whether the store has them as well or not.
    pub fn hot_bytes(&self) -> u64 {
        self.hot_bytes
    }

    pub fn front(&self) -> Option<&Queued> {
        self.items.front()
    }

    pub fn get(&self, at: usize) -> Option<&Queued> {
        self.items.get(at)
    }

    /// Adds a message at its place in the order, which mostly is the end.
    pub fn insert(&mut self, item: Queued) {
        self.bytes += u64::from(item.size);
        self.hot_bytes += hot(&item);
        match self.items.back() {
            Some(last) if last.seq > item.seq => {
                let at = self.items.partition_point(|other| other.seq < item.seq);
                self.items.insert(at, item);
            }
            _ => self.items.push_back(item),
        }
    }

    /// Takes out a message; 0 is the first.
    pub fn take(&mut self, at: usize) -> Option<Queued> {
        let item = self.items.remove(at)?;
        self.bytes -= u64::from(item.size);
        self.hot_bytes -= hot(&item);
        if self.items.is_empty() && self.items.capacity() > 64 {
            self.items = VecDeque::new();
        }
        Some(item)
    }

    /// Takes out all messages.
    pub fn drain(&mut self) -> VecDeque<Queued> {
        self.bytes = 0;
        self.hot_bytes = 0;
        std::mem::take(&mut self.items)
    }

    /// Takes out the expired messages among `count` messages from `start` on.
    pub fn sweep(&mut self, start: usize, count: usize, unix: u64) -> Vec<Queued> {
        let end = self.items.len().min(start.saturating_add(count));
        if !self
            .items
            .range(start.min(end)..end)
            .any(|item| item.is_expired(unix))
        {
            return Vec::new();
        }
        let mut expired = Vec::new();
        let items = std::mem::take(&mut self.items);
        for (at, item) in items.into_iter().enumerate() {
            if (start..end).contains(&at) && item.is_expired(unix) {
                self.bytes -= u64::from(item.size);
                self.hot_bytes -= hot(&item);
                expired.push(item);
            } else {
                self.items.push_back(item);
            }
        }
        expired
    }

    /// The stored messages without a body among the first ones, up to a number and a sum of bytes (always one).
    pub fn cold(&self, most: usize, most_bytes: u64, readable: impl Fn(Seq) -> bool) -> Vec<Seq> {
        let mut bytes = 0;
        let mut seqs = Vec::new();
        for item in self
            .items
            .iter()
            .take(most)
            .filter(|item| item.body.is_none() && readable(item.seq))
        {
            bytes += u64::from(item.size);
            if bytes > most_bytes && !seqs.is_empty() {
                break;
            }
            seqs.push(item.seq);
        }
        seqs
    }

    /// Puts bodies that were read from the store into their messages. `bodies` are in the order of the queue. Returns the messages whose body is
    /// not in the store; they are taken out.
    pub fn warm(&mut self, bodies: &[(Seq, Option<Message>)]) -> Vec<Queued> {
        let mut missing = Vec::new();
        let mut at = 0;
        for (seq, body) in bodies {
            while self.items.get(at).is_some_and(|item| item.seq < *seq) {
                at += 1;
            }
            let Some(item) = self
                .items
                .get_mut(at)
                .filter(|item| item.seq == *seq && item.body.is_none())
            else {
                continue;
            };
            if body.is_some() {
                item.body.clone_from(body);
                self.hot_bytes += hot(item);
            } else if let Some(item) = self.items.remove(at) {
                self.bytes -= u64::from(item.size);
                missing.push(item);
            }
        }
        missing
    }

    /// Drops the bodies that the store has as well; returns how many bytes that were.
    pub fn cool(&mut self) -> u64 {
        let before = self.hot_bytes;
        for item in &mut self.items {
            if self.hot_bytes == 0 {
                break;
            }
            if item.is_stored() {
                self.hot_bytes -= hot(item);
                item.body = None;
            }
        }
        before - self.hot_bytes
    }
}

/// What a message takes of the memory for bodies.
fn hot(item: &Queued) -> u64 {
    if item.body.is_some() {
        u64::from(item.size)
    } else {
        0
    }
}
