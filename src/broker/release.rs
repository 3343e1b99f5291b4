//! Who has waited for the disk goes on: when a batch is durable, acknowledgements leave, messages can be read back, and publishers that were held up
//! are read from again. If these are very many, it is some at a time, and others get their turn in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::gate::Stamp;
use super::record::BatchId;
use super::timer::Timer;
use super::{Broker, ConnectionId, Owner, SessionIndex};
use crate::clock::Now;

/// How many go on at a time: about a millisecond's work.
pub(super) const SLICE: usize = 4096;
/// When the next ones follow, in milliseconds.
const SLICE_MS: u64 = 1;

/// Who waits for the disk.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Connections that hold packets back, by what the first of these waits for.
    holding: BTreeMap<Stamp, VecDeque<ConnectionId>>,
    /// Sessions and members of groups whose next message is neither in memory nor durable: they go on after the next commit.
    pub starved: BTreeSet<SessionIndex>,
    /// Those for which there has been a commit.
    fed: BTreeSet<SessionIndex>,
    /// Connections from which nothing is read because the disk is behind.
    pub paused: VecDeque<ConnectionId>,
    /// A timer will look at them.
    is_watched: bool,
    /// [`SLICE`], or less in tests.
    slice: usize,
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting {
            holding: BTreeMap::new(),
            starved: BTreeSet::new(),
            fed: BTreeSet::new(),
            paused: VecDeque::new(),
            is_watched: false,
            slice: SLICE,
        }
    }
}

impl Waiting {
    /// A connection holds packets back.
    pub fn hold(&mut self, id: ConnectionId, stamp: Stamp) {
        self.holding.entry(stamp).or_default().push_back(id);
    }

    /// How many hold packets back, and how many are starved.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        let holding = self.holding.values().map(VecDeque::len).sum();
        (holding, self.starved.len() + self.fed.len())
    }
}

impl Broker {
    /// All of a batch has been handed to the operating system.
    pub fn written(&mut self, batch: BatchId, now: Now) {
        self.now = now;
        self.gate.written(batch);
        self.release();
    }

    /// All of a batch is on disk.
    pub fn durable(&mut self, batch: BatchId, now: Now) {
        self.now = now;
        self.counters.commits += 1;
        self.gate.durable(batch);
        self.ends.durable();
        let Waiting { starved, fed, .. } = &mut self.waiting;
        if fed.is_empty() {
            std::mem::swap(starved, fed);
        } else {
            fed.append(starved);
        }
        self.release();
    }

    /// Lets some of those go on whose time has come. If there may be more, a timer goes on with them.
    fn release(&mut self) {
        let slice = self.waiting.slice;
        let mut left = slice;
        while left > 0
            && let Some(id) = self.next_released()
        {
            left -= 1;
            self.release_outbox(id);
        }
        while left > 0
            && let Some(session) = self.waiting.fed.pop_first()
        {
            left -= 1;
            self.touch_session(session);
        }
        let more = left == 0 || self.resume_reading();
        self.work += (slice - left) as u64;
        if more && !std::mem::replace(&mut self.waiting.is_watched, true) {
            self.timers.set(self.now.uptime + SLICE_MS, Timer::Release);
        }
    }

    /// Goes on with those who have waited for the disk.
    pub(super) fn release_more(&mut self) {
        self.waiting.is_watched = false;
        self.release();
    }

    /// The next message is not on disk yet: its owner goes on after the next commit.
    pub(super) fn starve(&mut self, owner: Owner) {
        match owner {
            Owner::Session(index) | Owner::Resend(index) | Owner::Topics(index) => {
                self.waiting.starved.insert(index);
            }
            Owner::Group(group) => self.starve_members(group),
        }
    }

    /// Makes slices smaller, for tests.
    #[cfg(test)]
    pub(crate) fn set_release(&mut self, slice: usize) {
        self.waiting.slice = slice;
    }

    fn next_released(&mut self) -> Option<ConnectionId> {
        loop {
            let mut first = self.waiting.holding.first_entry()?;
            if !self.gate.is_open(*first.key()) {
                return None;
            }
            match first.get_mut().pop_front() {
                Some(id) => return Some(id),
                None => first.remove(),
            };
        }
    }

    fn release_outbox(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.0 as usize) else {
            return;
        };
        let released = connection.outbox.release(&self.gate);
        let holds_for = connection.outbox.holds_for();
        if released {
            self.touch(id);
        }
        let connection = &mut self.connections[id.0 as usize];
        match holds_for {
            None => connection.holding = false,
            Some(stamp) if released => self.waiting.hold(id, stamp),
            // Another connection has the place now, and waits for something else.
            Some(_) => {}
        }
    }
}
