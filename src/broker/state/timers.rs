//! What is due when.

use std::collections::BTreeSet;

use hashbrown::hash_map::Entry;
use rustc_hash::FxBuildHasher;

use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::state::table::Table;

/// The longest a timer is set for, in milliseconds; what is further off is set again when that has passed. So what became of a connection or a
/// session long ago does not stay in the heap, however far off its moment was.
pub const LONGEST_MS: u64 = 60_000;

/// How often expired messages are looked for, in milliseconds.
pub const SWEEP_MS: u64 = 1000;

/// Something that is due at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// A connection must have sent its CONNECT.
    Connect(ConnectionId),
    /// A connection must have been heard of.
    KeepAlive(ConnectionId),
    /// A CONNECT has waited long enough for older connections of its client.
    TakeOver(ConnectionId),
    /// A client should have taken something of what it was sent.
    WriteProgress(ConnectionId),
    /// What a client has proved itself with is good no more.
    Credential(ConnectionId),
    /// A client that was slowed down may go on.
    Quota(ConnectionId),
    /// A session may have expired, or its will may be due.
    Session(SessionIndex),
    /// Retained messages go to the queue of a session whose client is gone.
    Replay(SessionIndex),
    /// The topics of messages that wait for a bridge are read.
    Topics(SessionIndex),
    /// More is removed of what has ended.
    Removals,
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
    /// All timers of a connection.
    pub fn of_connection(id: ConnectionId) -> [Timer; 6] {
        [
            Timer::Connect(id),
            Timer::KeepAlive(id),
            Timer::TakeOver(id),
            Timer::WriteProgress(id),
            Timer::Credential(id),
            Timer::Quota(id),
        ]
    }

    /// All timers of a session.
    pub fn of_session(index: SessionIndex) -> [Timer; 3] {
        [
            Timer::Session(index),
            Timer::Replay(index),
            Timer::Topics(index),
        ]
    }

    /// Whether a connection may be given up then that was not heard of. (Of sessions, [`Broker::check_session`](crate::broker::Broker::check_session) sees to that.)
    pub fn gives_up(self) -> bool {
        matches!(self, Timer::Connect(..) | Timer::KeepAlive(..))
    }
}

/// What is due when. Each timer is a slot: set or not, and due at one moment.
#[derive(Debug, Default)]
pub struct Timers {
    /// In the order in which they are due.
    due: BTreeSet<(u64, Timer)>,
    /// When the first of them is due: asked after each call of the broker.
    first: Option<u64>,
    /// When each is due.
    set: Table<Timer, u64, FxBuildHasher>,
    /// A tick came late: nobody is given up before this moment, in milliseconds of uptime.
    pub grace_until: u64,
    /// From when on nobody was served, in broker time: what had expired before is over all the same.
    pub grace_from: u64,
    /// More was due at the last tick than it could do: others have their turn until then, in milliseconds of uptime.
    pub rest_until: u64,
}

impl Timers {
    /// Sets a timer, in milliseconds of uptime. One that is due earlier stays as it is.
    pub fn set(&mut self, at: u64, timer: Timer) {
        let slot = self.set.part(&timer).entry(timer);
        match slot {
            Entry::Occupied(set) if *set.get() <= at => return,
            Entry::Occupied(mut set) => {
                let later = set.insert(at);
                self.due.remove(&(later, timer));
            }
            Entry::Vacant(slot) => {
                slot.insert(at);
            }
        }
        self.due.insert((at, timer));
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
    }

    /// Stops a timer, if it is set.
    pub fn stop(&mut self, timer: Timer) {
        if let Some(at) = self.set.remove(&timer) {
            self.due.remove(&(at, timer));
            self.note_first();
        }
    }

    fn note_first(&mut self) {
        self.first = self.due.first().map(|(at, _)| *at);
    }

    /// Whether a timer is set.
    pub fn is_set(&self, timer: Timer) -> bool {
        self.set.get(&timer).is_some()
    }

    /// How many are set.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        assert_eq!(self.due.len(), self.set.len());
        assert_eq!(self.first, self.due.first().map(|(at, _)| *at));
        self.due.len()
    }

    /// How many are set of a kind.
    #[cfg(test)]
    pub fn count(&self, is_it: impl Fn(&Timer) -> bool) -> usize {
        self.due.iter().filter(|(_, timer)| is_it(timer)).count()
    }

    /// Checks that what is kept of the first one is true.
    pub fn check(&self) {
        let first = self.due.first().map(|(at, _)| *at);
        assert_eq!(self.first, first, "when the next timer is due");
    }

    /// When the next one is due, in milliseconds of uptime.
    pub fn next(&self) -> Option<u64> {
        Some(self.rest_until.max(self.first?))
    }

    /// Takes one that is due.
    pub fn take_due(&mut self, uptime: u64) -> Option<Timer> {
        self.first.filter(|at| *at <= uptime)?;
        let (_, timer) = self.due.pop_first()?;
        self.set.remove(&timer);
        self.note_first();
        Some(timer)
    }
}
