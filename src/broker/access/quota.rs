//! Rates of a client, pauses in reading, and connections of a user or an address.
//!
//! Each of a client's four rates is a bucket that holds one second's worth. When it is overdrawn, nothing is
//! read from the client, or its messages wait in its queue, until it is level again. Only deliveries at
//! QoS 0 are dropped, because they wait for nobody.

use crate::broker::Broker;
use crate::broker::model::access::Identity;
use crate::broker::model::ids::ConnectionId;
use crate::broker::state::quota::Rates;
use crate::broker::state::timers::Timer;
use crate::broker::state::waiting::RESUMED_AT_ONCE;
use crate::clock::Now;
use crate::limits::Limits;
use crate::wire::{Fault, ReasonCode};

impl Broker {
    /// Whether nothing more should be read from a connection for now: the disk is behind, its client does not take what waits for it, has
    /// sent more than it may, or what it has published is still being handed out. The connection is touched when that changes.
    pub fn should_pause(&mut self, id: ConnectionId) -> bool {
        let paused = self.is_congested() || self.is_spreading_much(id);
        let connection = &mut self.connections[id];
        if paused && connection.pause() {
            // What is pending may be what nobody waits for.
            self.gate.flush();
            self.counters.reading_paused += 1;
            self.upkeep.waiting.pause(id);
        }
        paused
            || connection.outbox().len() > self.settings.limits.max_outgoing_bytes
            || connection.has_sent_too_much(self.now.uptime)
    }

    /// Whether so many writes wait for the disk that nothing more should be read.
    pub(in crate::broker) fn is_congested(&self) -> bool {
        let pending = self.gate.pending_bytes();
        pending > self.settings.limits.max_pending_write_bytes
            || self.accounts.is_tight(pending as u64)
    }

    /// Reads again from those it has paused for which there is no reason any more; it looks at some of them. Whether there may be more.
    pub(in crate::broker) fn resume_reading(&mut self) -> bool {
        if self.upkeep.waiting.paused() == 0 || self.is_congested() {
            return false;
        }
        let slice = self.pace.slice(RESUMED_AT_ONCE);
        for _ in 0..self.upkeep.waiting.paused() {
            if self.pace.is_over(slice) {
                return true;
            }
            self.pace.spend(1);
            let Some(id) = self.upkeep.waiting.next_paused() else {
                break;
            };
            if self.is_spreading_much(id) {
                self.upkeep.waiting.pause(id);
            } else if let Some(connection) = self.connections.get_mut(id) {
                connection.resume(self.now.uptime);
                self.touch(id);
            }
        }
        false
    }

    /// The rates that hold for a connection, in and out.
    fn rates(&self, id: ConnectionId) -> (Rates, Rates) {
        let connection = &self.connections[id];
        if connection.is_own_bridge() {
            return connection.own_rates().unwrap_or_default();
        }
        let limits = &self.settings.limits;
        (limits.rates_in(), limits.rates_out())
    }

    /// Gives a bridge's connection its own rates.
    pub(in crate::broker) fn limit_rates(
        &mut self,
        id: ConnectionId,
        rates_in: Rates,
        rates_out: Rates,
    ) {
        let own = (rates_in, rates_out);
        if own != Default::default() {
            self.connections[id].limit_rates(own);
        }
    }

    /// Counts a message from a client against its rates. `bytes` are those of topic, properties and payload.
    pub(in crate::broker) fn count_received(&mut self, id: ConnectionId, bytes: usize) {
        let rates = self.rates(id);
        if rates != Default::default() {
            let uptime = self.now.uptime;
            self.connections[id].count_received(rates.0, bytes, uptime);
            self.watch_quota(id);
        }
    }

    /// Counts a message to a client against its rates.
    pub(in crate::broker) fn count_sent(&mut self, id: ConnectionId, bytes: usize) {
        let rates = self.rates(id);
        if rates != Default::default() {
            let uptime = self.now.uptime;
            self.connections[id].count_sent(rates.1, bytes, uptime);
            self.watch_quota(id);
        }
    }

    /// Sees to it that a connection is looked at when one of its buckets is level again.
    fn watch_quota(&mut self, id: ConnectionId) {
        if let Some(at) = self.connections[id].rates_kept_at(self.now.uptime) {
            self.counters.slowed_down += u64::from(!self.timers.is_set(Timer::Quota(id)));
            self.timers.set(at, Timer::Quota(id));
        }
    }

    /// A connection's bucket may be level again: reading or sending goes on.
    pub(in crate::broker) fn check_quota(&mut self, id: ConnectionId) {
        if self.connections[id].has_recovered(self.now.uptime) {
            self.touch(id);
        }
        self.watch_quota(id);
    }

    /// Replaces all limits. Those that connections have been told of hold for them as they were told, and must stay as they are.
    pub fn set_limits(&mut self, limits: Limits, now: Now) {
        self.now = now;
        let old = std::mem::replace(&mut self.settings.limits, limits);
        let limits = &self.settings.limits;
        self.gate.set_most_bytes(limits.max_pending_write_bytes);
        if (old.rates_in(), old.rates_out()) == (limits.rates_in(), limits.rates_out()) {
            return;
        }
        // What was taken at the old rates says nothing at the new ones.
        let clients = self.connections.iter();
        let clients = clients.filter(|(_, connection)| !connection.is_own_bridge());
        let all: Vec<ConnectionId> = clients.map(|(id, _)| id).collect();
        for id in all {
            if self.connections[id].forget_rates() {
                self.touch(id);
            }
        }
    }

    /// Whether a user may have another connection; the one that `client_id` has already will be taken over. Clients without a user name are no user.
    pub(in crate::broker) fn check_user(
        &self,
        identity: &Identity,
        client_id: &str,
    ) -> Result<(), Fault> {
        let most = self.settings.limits.max_connections_per_user;
        let Some(user) = identity.user.as_deref().filter(|_| most > 0) else {
            return Ok(());
        };
        let taken_over = self.sessions.find(client_id).is_some_and(|index| {
            let session = &self.sessions[index];
            let identity = session.identity.as_ref();
            session.connection.is_some()
                && identity.is_some_and(|it| it.user.as_deref() == Some(user))
        });
        if self.sessions.connections_of(user) - usize::from(taken_over) < most {
            return Ok(());
        }
        Err(Fault {
            reason: ReasonCode::QuotaExceeded,
            what: "max_connections_per_user is reached",
        })
    }
}
