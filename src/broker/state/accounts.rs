//! What messages, sessions and subscriptions take, over all of them: the numbers that limits are
//! compared with.

use crate::broker::state::queue::Queue;
use crate::broker::state::queued::QueueSize;

/// What all sessions and queues take.
#[derive(Debug)]
pub struct Accounts {
    queued: QueueSize,
    /// Bytes that sessions take, messages aside.
    session_bytes: u64,
    /// Subscriptions of all sessions, shared ones included.
    subscriptions: u64,
    /// Bytes that the store can still take, those included that wait to be committed.
    room: u64,
    /// The store may find more when that is used up.
    may_have_more: bool,
}

impl Default for Accounts {
    fn default() -> Accounts {
        Accounts {
            queued: QueueSize::default(),
            session_bytes: 0,
            subscriptions: 0,
            room: u64::MAX,
            may_have_more: false,
        }
    }
}

impl Accounts {
    /// Changes a queue. Every change of what is in a queue goes through here.
    #[inline]
    pub fn change<R>(&mut self, queue: &mut Queue, change: impl FnOnce(&mut Queue) -> R) -> R {
        let before = queue.size();
        let result = change(queue);
        self.queued = self.queued + queue.size() - before;
        result
    }

    /// What is in all queues.
    pub fn queued(&self) -> QueueSize {
        self.queued
    }

    /// Something of a session takes so many bytes now, and took so many before.
    pub fn change_session(&mut self, before: u64, now: u64) {
        self.session_bytes = self.session_bytes + now - before;
    }

    /// Bytes that sessions take, messages aside.
    pub fn session_bytes(&self) -> u64 {
        self.session_bytes
    }

    /// There is a subscription more.
    pub fn subscribe(&mut self) {
        self.subscriptions += 1;
    }

    /// There is a subscription less.
    pub fn unsubscribe(&mut self) {
        self.subscriptions -= 1;
    }

    /// Subscriptions of all sessions, shared ones included.
    pub fn subscriptions(&self) -> u64 {
        self.subscriptions
    }

    /// The store can take so many bytes, those included that wait to be committed.
    pub fn set_room(&mut self, bytes: u64, may_have_more: bool) {
        self.room = bytes;
        self.may_have_more = may_have_more;
    }

    /// Whether so many bytes that are not committed take half of the room while the store may find
    /// more.
    pub fn is_tight(&self, pending: u64) -> bool {
        self.may_have_more && pending > self.room / 2
    }

    /// Bytes that the store can still take, those included that wait to be committed.
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Counts a byte that is not there: the audit must find it.
    #[cfg(test)]
    pub fn break_queued(&mut self) {
        self.queued.bytes += 1;
    }
}
