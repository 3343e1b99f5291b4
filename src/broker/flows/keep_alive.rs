//! How long clients are waited for: for their CONNECT, for a sign of life, and for them to take what they are sent.
//!
//! A tick that comes late shows that nobody was served: the process was stopped, or the machine slept. What clients have sent meanwhile waits in their
//! sockets. So nobody is given up before these have been read.

use crate::broker::Broker;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::state::connection::State;
use crate::broker::state::timers::{LONGEST_MS, Timer};
use crate::clock::Now;
use crate::wire::ReasonCode;

/// A tick that comes this much too late, in milliseconds, ...
const LATE_MS: u64 = 100;

/// ... lets clients have as much time as it was late, within these bounds, to be heard of.
const LEAST_GRACE_MS: u64 = 1000;

const MOST_GRACE_MS: u64 = 10_000;

/// Looks whether a client takes what it is sent, within the time it has for that.
const LOOKS: u64 = 4;

/// Why a client is disconnected that takes nothing of what it is sent.
pub(crate) const NOTHING_TAKEN: &str = "nothing that was sent was taken in time";

impl Broker {
    /// Hears that a part of a packet has come: its client is there. Needed a few times within a keep alive, not for all bytes.
    pub fn heard(&mut self, id: ConnectionId, now: Now) {
        self.now = now;
        self.connections[id].heard(now.uptime);
    }

    /// Hears what [`crate::broker::Output::ask_progress`] asked for: whether something waits to be taken by the client or its operating system (`waits`), and whether any
    /// of it has been taken since the last look (`moved`). A client that has taken nothing for too long is closed.
    pub fn progress(&mut self, id: ConnectionId, waits: bool, moved: bool, now: Now) {
        self.now = now;
        let timeout = self.write_timeout(id);
        let connection = &mut self.connections[id];
        let progress = connection.progress_mut();
        progress.report(waits, moved, now.uptime);
        let end = self.timers.grace_until.max(progress.last() + timeout);
        if connection.state() != State::Open || !waits || timeout == 0 || now.uptime < end {
            return;
        }
        self.counters.write_timeouts += 1;
        let (client, ms) = (self.client_name(id), timeout);
        tracing::info!(client, ms, "it takes nothing of what it is sent");
        let reason = ReasonCode::ImplementationSpecificError;
        self.disconnect(id, reason, Some(NOTHING_TAKEN));
    }

    /// Hears that a client will send nothing more, though it may still read. It gets what it is owed, and no new messages
    /// of QoS 1 and 2. [`Broker::is_owed`] says when that is all.
    pub fn half_closed(&mut self, id: ConnectionId, now: Now) {
        self.now = now;
        self.connections[id].set_finishing(true);
    }

    /// Whether there is something for a connection that [`Broker::take_output`] has not given out: because it waits for the disk, if that was just called.
    pub fn is_owed(&self, id: ConnectionId) -> bool {
        self.connections[id].outbox().len() > 0
    }

    /// Whether the driver should look whether the peer takes what was written.
    pub fn asks_progress(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id);
        connection.is_some_and(|connection| connection.progress().is_asked())
    }

    /// Notes that something is being sent to a client, who should take it.
    #[inline]
    pub(in crate::broker) fn sent(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        if connection.progress().is_pending() || connection.state() != State::Open {
            return;
        }
        connection.progress_mut().begin(self.now.uptime);
        self.set_progress_timer(id);
    }

    /// How long a client may take nothing, in milliseconds; 0 for as long as it likes. A bridge waits for its upstream itself.
    fn write_timeout(&self, id: ConnectionId) -> u64 {
        let connection = &self.connections[id];
        match connection.keep_alive() {
            _ if connection.is_own_bridge() => 0,
            0 => self.settings.limits.write_timeout_ms,
            keep_alive => keep_alive,
        }
    }

    fn set_progress_timer(&mut self, id: ConnectionId) {
        let timeout = self.write_timeout(id);
        if timeout > 0 {
            let at = self.now.uptime + timeout.div_ceil(LOOKS).min(LONGEST_MS);
            self.timers.set(at, Timer::WriteProgress(id));
        }
    }

    pub(in crate::broker) fn check_progress(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        if connection.state() == State::Open && connection.progress().is_pending() {
            connection.progress_mut().ask();
            self.touch(id);
            self.set_progress_timer(id);
        }
    }

    /// Lets clients be heard of first if this tick comes late.
    pub(in crate::broker) fn forgive_late_tick(&mut self) {
        let now = self.now.uptime;
        let due = self.timers.next().unwrap_or(u64::MAX);
        let late = now.saturating_sub(due);
        // Slightly late again and again is overload: that must not keep everybody for ever.
        let is_anew = now >= self.timers.grace_until + LEAST_GRACE_MS;
        if late >= LEAST_GRACE_MS || late >= LATE_MS && is_anew {
            self.timers.grace_until = now + late.clamp(LEAST_GRACE_MS, MOST_GRACE_MS);
            self.timers.grace_from = self.now.unix.saturating_sub(late);
        }
    }

    /// Whether a session that has no connection has expired. While clients are heard of first because a tick came late, only what had expired before that.
    pub(in crate::broker) fn has_expired(&self, index: SessionIndex) -> bool {
        let session = &self.sessions[index];
        let is_grace = self.now.uptime < self.timers.grace_until;
        let unix = if is_grace {
            self.timers.grace_from
        } else {
            self.now.unix
        };
        let expires_at = session.expires_at();
        session.connection.is_none() && expires_at.is_some_and(|at| at <= unix)
    }

    pub(in crate::broker) fn check_connect(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        if connection.state() == State::New {
            connection.close();
            self.counters.connect_timeouts += 1;
            self.touch(id);
        }
    }

    /// \[MQTT-3.1.2-22\]: a client that is silent for 1.5 times its keep alive is taken for lost.
    pub(in crate::broker) fn check_keep_alive(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        if connection.state() != State::Open {
            return;
        }
        if connection.is_paused()
            || connection.outbox().len() > self.settings.limits.max_outgoing_bytes
            || connection.has_sent_too_much(self.now.uptime)
        {
            // The broker itself does not read from it at present.
            connection.heard(self.now.uptime);
        }
        let deadline = connection.silent_at();
        if self.now.uptime < deadline {
            return self.timers.set(
                deadline.min(self.now.uptime + LONGEST_MS),
                Timer::KeepAlive(id),
            );
        }
        self.counters.keep_alive_timeouts += 1;
        self.disconnect(id, ReasonCode::KeepAliveTimeout, None);
    }

    /// Sends a client away whose credential has expired.
    pub(in crate::broker) fn end_credential(&mut self, id: ConnectionId) {
        let connection = &self.connections[id];
        if connection.state() != State::Open {
            return;
        }
        if self.now.uptime < connection.expires_at() {
            return self.set_credential_timer(id);
        }
        let what = "the token of this connection has expired";
        tracing::info!(client = self.client_name(id), what, "connection closed");
        self.disconnect(id, ReasonCode::MaximumConnectTime, Some(what));
    }

    /// Starts watching for the end of what a client has proved itself with.
    pub(in crate::broker) fn set_credential_timer(&mut self, id: ConnectionId) {
        let connection = &self.connections[id];
        if connection.expires_at() < u64::MAX {
            let at = connection.expires_at().min(self.now.uptime + LONGEST_MS);
            self.timers.set(at, Timer::Credential(id));
        }
    }

    /// Starts waiting for signs of life of a connection.
    pub(in crate::broker) fn set_keep_alive_timer(&mut self, id: ConnectionId) {
        let connection = &self.connections[id];
        if connection.keep_alive() > 0 {
            let at = self.now.uptime + connection.keep_alive().min(LONGEST_MS);
            self.timers.set(at, Timer::KeepAlive(id));
        }
    }
}
