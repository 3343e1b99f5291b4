//! A client as it is to be connected, and its connection.

use std::collections::VecDeque;
use std::ops::Range;

use super::link::Link;
use super::tally::Tally;
use crate::wire::QoS;

/// A client to be connected.
#[derive(Clone, Debug)]
pub struct Client {
    /// Client identifier.
    pub id: String,
    /// Its session is kept when it goes.
    pub durable: bool,
    /// It begins with a new session.
    pub clean_start: bool,
    /// What it subscribes to.
    pub filters: Vec<String>,
    /// QoS of its subscriptions.
    pub qos: QoS,
    /// The flows it should get.
    pub receives: Range<u32>,
    /// It should get what was published before it came, too: that is retained.
    pub from_the_first: bool,
    /// Topic of its will, of QoS 1.
    pub will: Option<String>,
}

impl Client {
    /// A client that only publishes.
    pub fn new(id: String) -> Client {
        Client {
            id,
            durable: false,
            clean_start: true,
            filters: Vec::new(),
            qos: QoS::AtMostOnce,
            receives: 0..0,
            from_the_first: false,
            will: None,
        }
    }

    /// The same, with a subscription.
    pub fn subscribed(mut self, filter: String, qos: QoS, receives: Range<u32>) -> Client {
        self.filters.push(filter);
        self.qos = qos;
        self.receives = receives;
        self
    }

    /// The same, with a session that is kept.
    pub fn durable(mut self) -> Client {
        self.durable = true;
        self
    }
}

/// Packet identifiers of QoS 2 messages that wait for their PUBREL.
#[derive(Clone, Debug, Default)]
pub struct Held(Vec<u64>);

impl Held {
    /// Adds one; whether it was not there.
    pub fn insert(&mut self, id: u16) -> bool {
        let (word, bit) = (usize::from(id / 64), 1 << (id % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let fresh = self.0[word] & bit == 0;
        self.0[word] |= bit;
        fresh
    }

    /// Removes one.
    pub fn remove(&mut self, id: u16) {
        if let Some(word) = self.0.get_mut(usize::from(id / 64)) {
            *word &= !(1 << (id % 64));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// CONNECT is on its way.
    Connecting,
    /// Subscriptions are on their way.
    Subscribing,
    Open,
    Gone,
}

/// A client that is connected, or was.
#[derive(Debug)]
pub struct Peer {
    pub link: Link,
    pub state: State,
    pub began: u64,
    pub client: Client,
    /// SUBSCRIBE packets to be sent, one after the other.
    pub subscribe: VecDeque<Vec<u8>>,
    pub tally: Option<Tally>,
    pub publisher: Option<u32>,
    /// What the broker allows a publisher to have on its way.
    pub receive_maximum: u16,
    pub held: Held,
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
