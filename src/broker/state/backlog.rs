//! How a bridge's messages wait.

use std::ops::Range;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::broker::model::record::{Seq, TopicHash};
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

/// What rows say of the topics of a bridge's messages, in the order of their places. `None` for a row that does
/// not say it.
pub type RecoveredTopics = Vec<(Seq, Option<TopicHash>)>;

/// The newest waiting message of each topic of which only that is kept.
#[derive(Debug)]
pub struct Latest {
    /// The rules by which messages go out: local filter, and whether only the newest message of each topic is kept. The first that fits decides;
    /// none at all if no rule says so.
    pub rules: Vec<(Box<str>, bool)>,
    /// Also of topics of which all messages are kept.
    pub newest: HashMap<TopicHash, Seq, FixedState>,
    /// Messages whose topics are to be read.
    pub unread: Vec<Seq>,
    /// The places in the order in which messages may wait whose topics are to be read.
    pub unread_places: Range<Seq>,
    pub is_reading: bool,
    /// Counts how often reading began anew: an answer of before is not one.
    pub round: u64,
}

impl Latest {
    /// Nothing waits.
    pub fn new(seed: u64) -> Latest {
        Latest {
            rules: Vec::new(),
            newest: HashMap::with_hasher(FixedState::with_seed(seed)),
            unread: Vec::new(),
            unread_places: Seq(0)..Seq(0),
            is_reading: false,
            round: 0,
        }
    }

    /// Whether only the newest message of a topic is kept.
    pub fn keeps(&self, topic: &str) -> bool {
        let mut rules = self.rules.iter();
        let rule = rules.find(|(filter, _)| topic::matches(filter, topic));
        rule.is_some_and(|(_, keep_latest)| *keep_latest)
    }

    /// Whether topics are still to be read.
    pub fn is_learning(&self) -> bool {
        self.is_reading || !self.unread_places.is_empty() || !self.unread.is_empty()
    }

    /// Goes by other rules, of which nothing is known yet.
    pub fn restart(&mut self, rules: Vec<(Box<str>, bool)>) {
        self.rules = rules;
        self.newest.clear();
        self.unread.clear();
        self.unread_places = Seq(0)..Seq(0);
        self.is_reading = false;
        self.round += 1;
    }

    /// Takes the topics that rows know. Where several messages have the same one, it must be read to know
    /// whether all of them are kept.
    pub fn recover(&mut self, topics: RecoveredTopics) {
        for (seq, topic) in topics {
            match topic {
                Some(topic) => self.unread.extend(self.newest.insert(topic, seq)),
                None => self.unread.push(seq),
            }
        }
        self.unread.sort_unstable();
    }
}

impl Backlog {
    /// Nothing may be sent yet: a live message is the newest of its topic only if no newer one is on its way, and an old one goes after it.
    pub fn is_held(&self) -> bool {
        self.policy.live_first && self.latest.is_learning()
    }
}
