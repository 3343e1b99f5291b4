//! Finds out brokers that share one identity.

use crate::broker::Broker;
use crate::broker::model::ids::ConnectionId;
use crate::broker::state::origins::{Copied, GRACE_MS, Origin, Seen};
use crate::broker::state::timers::Timer;

impl Broker {
    /// Where the bridges of this broker come from.
    pub fn origin(&self) -> Origin {
        self.bridges.origin
    }

    /// A bridge of another broker has connected.
    pub(in crate::broker) fn see_origin(&mut self, id: ConnectionId, origin: Origin) {
        let uptime = self.now.uptime;
        let origins = &mut self.observed.origins;
        match origins.see(id, origin, &self.connections, uptime) {
            Seen::Fine => {}
            Seen::Twice => self.timers.set(uptime + GRACE_MS, Timer::Origins),
            Seen::Copied(copied) => self.warn_of_copy(copied),
        }
    }

    /// Looks whether anything was heard of a bridge of an earlier run since its broker's later run has come.
    pub(in crate::broker) fn check_origins(&mut self) {
        let (copies, go_on) = self.observed.origins.find_copies(&self.connections);
        for copied in copies {
            self.warn_of_copy(copied);
        }
        if go_on {
            let at = self.now.uptime + GRACE_MS;
            self.timers.set(at, Timer::Origins);
        }
    }

    /// Two brokers with one identity are connected: says so, once an hour.
    fn warn_of_copy(&mut self, copied: Copied) {
        self.counters.copied_identities += 1;
        if !self.observed.origins.warn(&copied, self.now.uptime) {
            return;
        }
        let (id, other) = (copied.connection(), copied.other_connection());
        let peer = |id: ConnectionId| &self.connections[id].arrival().peer;
        let other_client = other.map_or("", |id| self.client_name(id));
        let other_peer = other.map(peer).map(tracing::field::display);
        tracing::warn!(
            client = self.client_name(id),
            peer = %peer(id),
            other_client,
            other_peer,
            "the bridges of two brokers come with one identity: the data directory of one is a copy of the other's. Messages of one pass for \
             repetitions of the other's, and are dropped. Stop one of the brokers, and give its store a new identity: tidegate new-identity"
        );
    }
}
