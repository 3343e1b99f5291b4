//! What goes on when a batch is durable.
//!
//! Acknowledgements leave, messages can be read back, and paused publishers are read from again. If these
//! are very many, it is done in slices.

use crate::broker::Broker;
use crate::broker::model::ids::{ConnectionId, Owner};
use crate::broker::model::record::BatchId;
use crate::broker::state::timers::Timer;
use crate::clock::Now;

/// When the next ones follow, in milliseconds.
const PAUSE_MS: u64 = 1;

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
        self.upkeep.pending_ends.durable();
        self.upkeep.waiting.commit();
        self.release();
        self.check();
    }

    /// Lets some of those go on who have waited for the disk. If there may be more, a timer goes on with them.
    pub(in crate::broker) fn release(&mut self) {
        let slice = self.pace.slice(self.upkeep.waiting.slice);
        while !self.pace.is_over(slice)
            && let Some(id) = self.upkeep.waiting.next_released(&self.gate)
        {
            self.pace.spend(1);
            self.release_outbox(id);
        }
        while !self.pace.is_over(slice)
            && let Some(session) = self.upkeep.waiting.next_committed()
        {
            self.pace.spend(1);
            self.touch_session(session);
        }
        let more = self.pace.is_over(slice) || self.resume_reading();
        if more {
            self.timers.set(self.now.uptime + PAUSE_MS, Timer::Release);
        }
    }

    /// The next message is not on disk yet: its owner goes on after the next commit.
    pub(in crate::broker) fn await_commit(&mut self, owner: Owner) {
        match owner {
            Owner::Session(index) | Owner::Resend(index) | Owner::Topics(index) => {
                self.upkeep.waiting.await_commit(index);
            }
            Owner::Group(group) => self.await_commit_of_members(group),
        }
    }

    /// Makes slices smaller, for tests.
    #[cfg(test)]
    pub(crate) fn set_release(&mut self, slice: u64) {
        self.upkeep.waiting.slice = slice;
    }

    fn release_outbox(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let outbox = connection.outbox_mut();
        // If nothing is released, another connection has the place now, and waits for something
        // else.
        if outbox.release(&self.gate) {
            if let Some(stamp) = outbox.holds_for() {
                self.upkeep.waiting.hold(id, stamp);
            }
            self.touch(id);
        }
    }
}
