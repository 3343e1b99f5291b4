//! All bridges: what is known of them, and of the messages and brokers that come over bridges.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::broker::model::record::{BridgeRecord, QueueKey};
use crate::broker::state::backlog::RecoveredTopics;
use crate::broker::state::bridge::{AcceptTimes, State};
use crate::broker::state::message_ids::MessageIds;
use crate::broker::state::origins::Origin;

/// All bridges.
#[derive(Debug)]
pub struct Bridges {
    /// Those that are configured, by name.
    pub states: BTreeMap<Box<str>, State>,
    /// What is remembered of them, by their sessions.
    pub records: BTreeMap<QueueKey, BridgeRecord>,
    /// The topics of what waited for them at the start, by their sessions, until their rules are known.
    pub recovered_topics: HashMap<QueueKey, RecoveredTopics, FxBuildHasher>,
    /// When messages were accepted, about.
    pub accept_times: AcceptTimes,
    /// Identities of messages that have come over bridges.
    pub message_ids: MessageIds,
    /// Where the bridges of this broker come from.
    pub origin: Origin,
    /// One of them refuses messages when its queue is full: otherwise no message asks.
    pub refusing: bool,
}

impl Bridges {
    /// None yet. `seed` keeps publishers from choosing identities that collide.
    pub fn new(origin: Origin, seed: u64) -> Bridges {
        Bridges {
            states: BTreeMap::new(),
            records: BTreeMap::new(),
            recovered_topics: HashMap::default(),
            accept_times: AcceptTimes::default(),
            message_ids: MessageIds::new(seed),
            origin,
            refusing: false,
        }
    }
}
