//! How a bridge's messages wait.

use std::ops::Range;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::broker::model::record::Seq;
use crate::wire::topic;

/// Topics remembered beyond twice those that wait.
pub const SPARE_TOPICS: usize = 1024;

/// What happens to a message that a bridge's queue has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueFull {
    /// It is dropped.
    #[default]
    DropNewest,
    /// The oldest messages that wait are dropped until it fits.
    DropOldest,
    /// Its publisher is refused it, with 0x97, and nobody gets it.
    Refuse,
}

/// How messages wait for a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Most messages that wait; `None` for the limit of all sessions.
    pub max_queued_messages: Option<u64>,
    /// Most bytes of topics, properties and payloads that wait; `None` for the limit of all sessions.
    pub max_queued_bytes: Option<u64>,
    /// What happens beyond that.
    pub queue_full: QueueFull,
    /// Messages that arrive while the bridge is connected are sent before those that waited when it was connected.
    pub live_first: bool,
}

/// A message that waits and would make room for a newer one of its topic.
#[derive(Clone, Copy, Debug)]
pub struct Older {
    pub seq: Seq,
    pub size: u64,
}

/// What a bridge's session has beside any session.
#[derive(Debug)]
pub struct Backlog {
    pub policy: QueuePolicy,
    pub latest: Latest,
    /// Messages dropped because the queue was full.
    pub dropped: u64,
    /// Messages refused to their publishers because the queue was full.
    pub refused: u64,
    /// Messages replaced by a newer one of their topic.
    pub superseded: u64,
    /// Messages that have expired.
    pub expired: u64,
    /// Messages of the upstream that go in a circle.
    pub loops: u64,
    /// Messages set aside.
    pub set_aside: u64,
}

/// The newest waiting message of each topic of which only that is kept.
#[derive(Debug)]
pub struct Latest {
    /// The rules by which messages go out: local filter, and whether only the newest message of each topic is kept. The first that fits decides;
    /// none at all if no rule says so.
    pub rules: Vec<(Box<str>, bool)>,
    pub newest: HashMap<Box<str>, Seq, FixedState>,
    /// Messages on their way whose topics are not known yet.
    pub unread_inflight: Vec<Seq>,
    /// The places in the order in which messages may wait whose topics are not known yet.
    pub unread: Range<Seq>,
    pub is_reading: bool,
    /// Counts how often reading began anew: an answer of before is not one.
    pub round: u64,
}

impl Latest {
    pub fn keeps(&self, topic: &str) -> bool {
        let mut rules = self.rules.iter();
        let rule = rules.find(|(filter, _)| topic::matches(filter, topic));
        rule.is_some_and(|(_, keep_latest)| *keep_latest)
    }

    pub fn is_learning(&self) -> bool {
        self.is_reading || !self.unread.is_empty() || !self.unread_inflight.is_empty()
    }
}

impl Backlog {
    /// Nothing may be sent yet: a live message is the newest of its topic only if no newer one is on its way, and an old one goes after it.
    pub fn is_held(&self) -> bool {
        self.policy.live_first && self.latest.is_learning()
    }
}
