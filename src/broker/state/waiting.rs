//! Who waits for a batch to become durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::state::gate::Stamp;

/// How many go on at a time: about a millisecond's work.
pub const RESUMED_AT_ONCE: u64 = 4096;

/// Who waits for the disk.
#[derive(Debug)]
pub struct Waiting {
    /// Connections that hold packets back, by what the first of these waits for.
    pub holding: BTreeMap<Stamp, VecDeque<ConnectionId>>,
    /// Sessions and members of groups whose next message is neither in memory nor durable: they go on after the next commit.
    pub awaiting_commit: BTreeSet<SessionIndex>,
    /// Those for which there has been a commit.
    pub committed: BTreeSet<SessionIndex>,
    /// Connections from which nothing is read because the disk is behind.
    pub paused: VecDeque<ConnectionId>,
    /// [`RESUMED_AT_ONCE`], or less in tests.
    pub slice: u64,
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting {
            holding: BTreeMap::new(),
            awaiting_commit: BTreeSet::new(),
            committed: BTreeSet::new(),
            paused: VecDeque::new(),
            slice: RESUMED_AT_ONCE,
        }
    }
}

impl Waiting {
    /// A connection holds packets back.
    pub fn hold(&mut self, id: ConnectionId, stamp: Stamp) {
        self.holding.entry(stamp).or_default().push_back(id);
    }

    /// How many hold packets back, and how many await a commit.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        let holding = self.holding.values().map(VecDeque::len).sum();
        (holding, self.awaiting_commit.len() + self.committed.len())
    }
}
