//! The description of a client, and its connection.

use std::collections::VecDeque;
use std::ops::Range;

use super::link::Link;
use super::sequence::Sequence;
use crate::wire::QoS;

/// A client to connect.
#[derive(Clone, Debug)]
pub struct Client {
    /// Client identifier.
    pub id: String,
    /// Whether its session is kept after disconnection.
    pub durable: bool,
    /// Whether it begins with a new session.
    pub clean_start: bool,
    /// Its subscriptions.
    pub filters: Vec<String>,
    /// QoS of its subscriptions.
    pub qos: QoS,
    /// The flows that it should receive.
    pub receives: Range<u32>,
    /// Whether it should also receive what was published before it connected, because that is
    /// retained.
    pub from_first: bool,
    /// Topic of its will, with QoS 1.
    pub will: Option<String>,
}

impl Client {
    /// Creates a client that only publishes.
    pub fn new(id: String) -> Client {
        Client {
            id,
            durable: false,
            clean_start: true,
            filters: Vec::new(),
            qos: QoS::AtMostOnce,
            receives: 0..0,
            from_first: false,
            will: None,
        }
    }

    /// Adds a subscription.
    pub fn subscribed(mut self, filter: String, qos: QoS, receives: Range<u32>) -> Client {
        self.filters.push(filter);
        self.qos = qos;
        self.receives = receives;
        self
    }

    /// Makes the session durable.
    pub fn durable(mut self) -> Client {
        self.durable = true;
        self
    }
}

/// A set of packet identifiers: QoS 2 messages that wait for their PUBREL.
#[derive(Clone, Debug, Default)]
pub struct PacketIdSet(Vec<u64>);

impl PacketIdSet {
    /// Inserts an identifier. Returns whether it was new.
    pub fn insert(&mut self, id: u16) -> bool {
        let (word, bit) = (usize::from(id / 64), 1 << (id % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let fresh = self.0[word] & bit == 0;
        self.0[word] |= bit;
        fresh
    }

    /// Removes an identifier.
    pub fn remove(&mut self, id: u16) {
        if let Some(word) = self.0.get_mut(usize::from(id / 64)) {
            *word &= !(1 << (id % 64));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// CONNECT was sent.
    Connecting,
    /// SUBSCRIBE was sent.
    Subscribing,
    Open,
    Gone,
}

/// A client that is or was connected.
#[derive(Debug)]
pub struct Peer {
    pub link: Link,
    pub state: State,
    pub began: u64,
    pub client: Client,
    /// SUBSCRIBE packets to be sent one after the other.
    pub subscribe: VecDeque<Vec<u8>>,
    pub sequence: Option<Sequence>,
    pub publisher: Option<u32>,
    /// How many messages the broker allows the publisher to have in flight.
    pub receive_maximum: u16,
    pub unreleased: PacketIdSet,
    pub dirty: bool,
}

impl Peer {
    #[inline]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    #[inline]
    pub fn mark_dirty(&mut self, index: u32, dirty: &mut Vec<u32>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push(index);
        }
    }

    /// Appends an acknowledgement.
    #[inline]
    pub fn reply(&mut self, first: u8, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.link.out().extend_from_slice(&[first, 2, high, low]);
    }
}
