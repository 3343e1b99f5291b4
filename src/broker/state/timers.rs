//! What is due when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::record::QueueKey;

/// The longest a timer is set for, in milliseconds; what is further off is set again when that has passed. So what became of a connection or a
/// session long ago does not stay in the heap, however far off its moment was.
pub const LONGEST_MS: u64 = 60_000;

/// How often expired messages are looked for, in milliseconds.
pub const SWEEP_MS: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A connection must have sent its CONNECT.
    Connect(ConnectionId, u64),
    /// A connection must have been heard of.
    KeepAlive(ConnectionId, u64),
    /// A CONNECT has waited long enough for older connections of its client.
    TakeOver(ConnectionId, u64),
    /// A client should have taken something of what it was sent.
    Taking(ConnectionId, u64),
    /// What a client has proved itself with is good no more.
    Credential(ConnectionId, u64),
    /// A client that was slowed down may go on.
    Quota(ConnectionId, u64),
    /// A session may have expired, or its will may be due.
    Session(SessionIndex, QueueKey),
    /// Retained messages go to the queue of a session whose client is gone.
    Replay(SessionIndex, QueueKey),
    /// The topics of messages that wait for a bridge are read.
    Topics(SessionIndex, QueueKey),
    /// More is removed of what has ended.
    Bury,
    /// More of those go on who have waited for the disk.
    Release,
    /// Somebody may have had its turn for too long, while others wait until less is to be written to all.
    Turn,
    /// A walk over all sessions or connections goes on.
    Walk,
    /// More receivers of a message that is for very many get it.
    Spread,
    /// What happened to clients is said in the log.
    Notices,
    /// Brokers with one identity are looked for.
    Origins,
    /// Expired messages are looked for.
    Sweep,
    /// `$SYS` topics are published.
    Sys,
}

impl Timer {
    /// Whether a connection may be given up then that was not heard of. (Of sessions, [`Broker::check_session`] sees to that.)
    pub fn gives_up(self) -> bool {
        matches!(self, Timer::Connect(..) | Timer::KeepAlive(..))
    }
}

#[derive(Debug, Default)]
pub struct Timers {
    /// A tick came late: nobody is given up before this moment, in milliseconds of uptime.
    pub grace_until: u64,
    /// From when on nobody was served, in broker time: what had expired before is over all the same.
    pub grace_from: u64,
    heap: BinaryHeap<Reverse<(u64, Timer)>>,
    /// More was due at the last tick than it could do: others have their turn until then, in milliseconds of uptime.
    pub rest_until: u64,
}

impl Timers {
    /// Sets a timer, in milliseconds of uptime.
    pub fn set(&mut self, at: u64, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// How many there are of a kind.
    #[cfg(test)]
    pub fn count(&self, is_it: impl Fn(&Timer) -> bool) -> usize {
        let all = self.heap.iter().map(|Reverse((_, timer))| timer);
        all.filter(|timer| is_it(timer)).count()
    }

    /// When the next one is due, in milliseconds of uptime.
    pub fn next(&self) -> Option<u64> {
        let Reverse((at, _)) = self.heap.peek()?;
        Some(self.rest_until.max(*at))
    }

    pub fn due(&mut self, uptime: u64) -> Option<(u64, Timer)> {
        self.heap.peek().filter(|Reverse((at, _))| *at <= uptime)?;
        self.heap.pop().map(|Reverse(due)| due)
    }
}
