//! Who waits for a batch to become durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::state::gate::{Gate, Stamp};

/// How many go on at a time: about a millisecond's work.
pub const RESUMED_AT_ONCE: u64 = 4096;

/// Who waits for the disk.
#[derive(Debug)]
pub struct Waiting {
    /// Connections that hold packets back, by what the first of these waits for.
    holding: BTreeMap<Stamp, VecDeque<ConnectionId>>,
    /// Sessions and members of groups whose next message is neither in memory nor durable: they go on after the next commit.
    awaiting_commit: BTreeSet<SessionIndex>,
    /// Those for which there has been a commit.
    committed: BTreeSet<SessionIndex>,
    /// Connections from which nothing is read because the disk is behind.
    paused: VecDeque<ConnectionId>,
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

    /// The next connection that holds packets back which the gate lets pass now.
    pub fn next_released(&mut self, gate: &Gate) -> Option<ConnectionId> {
        loop {
            let mut first = self.holding.first_entry()?;
            if !gate.is_open(*first.key()) {
                return None;
            }
            match first.get_mut().pop_front() {
                Some(id) => return Some(id),
                None => first.remove(),
            };
        }
    }

    /// A session goes on after the next commit.
    pub fn await_commit(&mut self, session: SessionIndex) {
        self.awaiting_commit.insert(session);
    }

    /// There has been a commit: those that have awaited it go on.
    pub fn commit(&mut self) {
        if self.committed.is_empty() {
            std::mem::swap(&mut self.awaiting_commit, &mut self.committed);
        } else {
            self.committed.append(&mut self.awaiting_commit);
        }
    }

    /// The next session that goes on after a commit.
    pub fn next_committed(&mut self) -> Option<SessionIndex> {
        self.committed.pop_first()
    }

    /// Nothing is read from a connection until [`Waiting::next_paused`] returns it.
    pub fn pause(&mut self, id: ConnectionId) {
        self.paused.push_back(id);
    }

    /// How many connections are not read from.
    pub fn paused(&self) -> usize {
        self.paused.len()
    }

    /// Takes the connection that has been paused longest.
    pub fn next_paused(&mut self) -> Option<ConnectionId> {
        self.paused.pop_front()
    }

    /// How many hold packets back, and how many await a commit.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        let holding = self.holding.values().map(VecDeque::len).sum();
        (holding, self.awaiting_commit.len() + self.committed.len())
    }
}
