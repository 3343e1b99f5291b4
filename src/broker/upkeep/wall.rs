//! The wall clock beside broker time.
//!
//! Deadlines are kept in broker time, which no wall clock moves. A
//! [`Reading`](crate::clock::Reading) of both is stored with them. It tells the next start how long
//! the broker was stopped.

use crate::broker::Broker;
use crate::broker::model::ids::SessionIndex;
use crate::broker::model::record::Write;
use crate::clock::Now;

impl Broker {
    /// Says what the wall clock shows, in milliseconds since 1970. If it was set since the last
    /// call, or while the broker was stopped, that is stored at once. Nothing expires by it.
    pub fn set_wall(&mut self, wall: u64, now: Now) {
        self.now = now;
        let Some(jump) = self.wall.set(wall, now) else {
            return;
        };
        self.write_reading();
        if jump.is_told {
            let seconds = jump.seconds;
            tracing::warn!(
                seconds,
                "the system's clock was set while the broker runs; sessions, messages and wills expire as if it had not been"
            );
        }
    }

    /// Adds a reading to the batch that is about to be taken, if it is time for one.
    pub(in crate::broker) fn write_reading_if_due(&mut self) {
        if self.wall.is_due(self.now.uptime) {
            self.write_reading();
        }
    }

    /// Writes what the clocks show, if that is known.
    pub(in crate::broker) fn write_reading(&mut self) {
        if let Some(reading) = self.wall.reading(self.now) {
            self.write(Write::PutClock(reading));
        }
    }

    /// Brings what a session and its will wait for into what they asked for: a store that was
    /// written without readings may have moments of a wall clock that was ahead.
    pub(in crate::broker) fn limit_waits(&mut self, index: SessionIndex) {
        let unix = self.now.unix;
        let session = &mut self.sessions[index];
        let key = session.key();
        if session.disconnected_at.is_some_and(|at| at > unix) {
            session.disconnected_at = Some(unix);
            let record = session.record();
            self.write(Write::PutSession(key, record));
        }
        let session = &mut self.sessions[index];
        let Some(will) = session.will.as_mut() else {
            return;
        };
        let latest = unix.saturating_add(u64::from(will.delay) * 1000);
        if will.due.is_some_and(|due| due > latest) {
            will.due = Some(latest);
            let record = will.as_ref().clone();
            self.write(Write::PutWill(key, record));
        }
    }
}
