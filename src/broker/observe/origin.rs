//! Finds out brokers that share one identity.

use crate::broker::Broker;
use crate::broker::model::ids::ConnectionId;
use crate::broker::state::origins::{
    GRACE_MS, HOUR_MS, Known, MINUTE_MS, MOST, MOST_OF_ONE, Origin,
};
use crate::broker::state::timers::Timer;

impl Broker {
    /// Where the bridges of this broker come from.
    pub fn origin(&self) -> Origin {
        self.bridges.origin
    }

    /// A bridge of another broker has connected.
    pub(in crate::broker) fn see_origin(&mut self, id: ConnectionId, origin: Origin) {
        let uptime = self.now.uptime;
        let serial = self.connections[id].serial;
        let known = &mut self.observed.origins.known;
        if known.len() >= MOST && !known.contains_key(&origin.broker) {
            let oldest = known.iter().min_by_key(|(_, known)| known.seen);
            if let Some(oldest) = oldest.map(|(broker, _)| *broker) {
                known.remove(&oldest);
            }
        }
        let known = known.entry(origin.broker).or_insert_with(|| Known {
            run: origin.run,
            since: uptime,
            earlier: Vec::new(),
            connections: Vec::new(),
            seen: uptime,
            warned: None,
        });
        let is_back = known.see(origin.run, uptime);
        let connections = &self.connections;
        known.connections.retain(|(id, serial, _)| {
            let connection = connections.get(*id);
            connection.is_some_and(|connection| connection.serial == *serial)
        });
        let other = known.connections.iter().find(|it| it.2 != origin.run);
        let other = other.map(|(id, ..)| *id);
        if known.connections.len() < MOST_OF_ONE {
            known.connections.push((id, serial, origin.run));
        }
        if is_back {
            self.warn_of_copy(origin.broker, id, other);
        } else if other.is_some() {
            self.timers.set(uptime + GRACE_MS, Timer::Origins);
        }
    }

    /// Looks whether anything was heard of a bridge of an earlier run since its broker's later run has come.
    pub(in crate::broker) fn check_origins(&mut self) {
        let mut copies = Vec::new();
        let mut go_on = false;
        for (broker, known) in &mut self.observed.origins.known {
            let connections = &self.connections;
            known.connections.retain(|(id, serial, _)| {
                let connection = connections.get(*id);
                connection.is_some_and(|connection| connection.serial == *serial)
            });
            let later = known.connections.iter().find(|it| it.2 == known.run);
            for (id, _, run) in &known.connections {
                let heard = connections[*id].last_received;
                if *run == known.run {
                    continue;
                }
                if heard >= known.since + GRACE_MS {
                    copies.push((*broker, *id, later.map(|(id, ..)| *id)));
                    break;
                }
                go_on = true;
            }
        }
        for (broker, id, other) in copies {
            self.warn_of_copy(broker, id, other);
        }
        if go_on {
            let at = self.now.uptime + GRACE_MS;
            self.timers.set(at, Timer::Origins);
        }
    }

    /// Two brokers with one identity are connected: says so, once an hour.
    fn warn_of_copy(&mut self, broker: u64, id: ConnectionId, other: Option<ConnectionId>) {
        let uptime = self.now.uptime;
        self.counters.copied_identities += 1;
        let Some(known) = self.observed.origins.known.get_mut(&broker) else {
            return;
        };
        let is_recent = |warned: Option<u64>, ms| warned.is_some_and(|at| uptime < at + ms);
        if is_recent(known.warned, HOUR_MS) || is_recent(self.observed.origins.warned, MINUTE_MS) {
            return;
        }
        known.warned = Some(uptime);
        self.observed.origins.warned = Some(uptime);
        let peer = |id: ConnectionId| &self.connections[id].arrival.peer;
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
