//! Connections that are gone, and what is logged of them.

use std::fmt;

use crate::broker::Broker;
use crate::broker::model::ids::ConnectionId;
use crate::broker::model::traffic::Traffic;
use crate::broker::state::connection::Connection;
use crate::broker::state::timers::Timer;
use crate::clock::Now;

impl Broker {
    /// Forgets a connection that is gone. If its client did not take its leave, its will is on its
    /// way.
    pub fn lost(&mut self, id: ConnectionId, now: Now) {
        self.lost_after(id, &Traffic::default(), now);
    }

    /// As [`Broker::lost`], for a driver that knows how much went through the connection and how it
    /// ended: that is logged.
    pub fn lost_after(&mut self, id: ConnectionId, traffic: &Traffic, now: Now) {
        self.now = now;
        self.detach(id);
        self.stop_waiting(id);
        for timer in Timer::of_connection(id) {
            self.timers.stop(timer);
        }
        let gone = self.connections.remove(id);
        log_end(&gone, traffic, now);
        self.drop_outgoing(id, &gone);
        self.check();
    }

    /// Why a connection ends, for the simulator to judge.
    #[cfg(test)]
    pub(crate) fn why_ended(&self, id: ConnectionId) -> Option<&str> {
        let connection = self.connections.get(id)?;
        connection.end().map(|(_, why)| why)
    }

    /// Notes why a client's connection ends. Of several reasons the first one counts.
    pub(in crate::broker) fn say_end(&mut self, id: ConnectionId, why: impl fmt::Display) {
        self.connections[id].say_end(|| why.to_string().into());
    }
}

/// Logs the end of a connection whose CONNECT was accepted: a line each. Bridges log their own.
fn log_end(gone: &Connection, traffic: &Traffic, now: Now) {
    let Some((client, why)) = gone.end() else {
        return;
    };
    if gone.is_own_bridge() {
        return;
    }
    let error = traffic.error.as_deref();
    let why = match (why, error) {
        ("", Some(error)) => error,
        ("", None) => "the connection was lost",
        (why, _) => why,
    };
    let ms = now.uptime.saturating_sub(gone.since());
    let peer = &gone.arrival().peer;
    let Traffic { received, sent, .. } = *traffic;
    let seconds = format_args!("{}.{:03}", ms / 1000, ms % 1000);
    tracing::info!(client, %peer, why, %seconds, received, sent, "connection ended");
}
