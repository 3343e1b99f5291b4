//! How much one client may send and receive in a second, when nothing more is read from it, and how many connections one user or one address may have.
//!
//! Each of a client's four rates is a bucket that holds one second's worth. Who has taken more than that waits: nothing is read from the client, or
//! messages for it wait in its queue, until the bucket is level again. Only deliveries at QoS 0, which wait for nobody, are dropped.

use std::hash::Hash;

use foldhash::fast::FixedState;
use hashbrown::{Equivalent, HashMap};

use super::access::Identity;
use super::connection::Connection;
use super::release::SLICE;
use super::timer::Timer;
use super::{Broker, ConnectionId};
use crate::clock::Now;
use crate::limits::Limits;
use crate::wire::{Fault, ReasonCode};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;
/// Nanoseconds of a millisecond, in which the broker's time is.
const MILLISECOND: u64 = 1_000_000;

/// How far a client is ahead of its rates.
#[derive(Debug, Default)]
pub(super) struct Quota {
    received: Bucket,
    sent: Bucket,
    /// A timer will look at the connection when a bucket is level again.
    timer: bool,
    /// A bridge's rates, in and out: it has its own in place of those of all clients.
    own: Option<(Rates, Rates)>,
}

/// When what was taken would have been taken at the allowed rates, in nanoseconds of uptime: by number, and by bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    messages: u64,
    bytes: u64,
}

/// What a client or a bridge may do in a second; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Messages.
    pub messages: u64,
    /// Bytes of topic, properties and payload.
    pub bytes: u64,
}

impl Bucket {
    /// Takes a message out. With the message that empties the bucket it is not level any more; bytes may go beyond it once.
    fn take(&mut self, rates: Rates, bytes: usize, uptime: u64) {
        let now = uptime * MILLISECOND;
        if let Some(cost) = SECOND.checked_div(rates.messages) {
            self.messages = self.messages.max((now + cost).saturating_sub(SECOND)) + cost;
        }
        if let Some(cost) = (bytes as u64 * SECOND).checked_div(rates.bytes) {
            self.bytes = self.bytes.max(now.saturating_sub(SECOND)) + cost;
        }
    }

    /// When it is level again, in milliseconds of uptime; 0 if nothing was ever taken.
    fn level_at(&self) -> u64 {
        self.messages.max(self.bytes).div_ceil(MILLISECOND)
    }

    /// Whether something was taken, and it is level again.
    fn has_recovered(&self, uptime: u64) -> bool {
        (1..=uptime).contains(&self.level_at())
    }
}

impl Connection {
    /// Whether its client has sent more than it may, for now.
    pub fn has_sent_too_much(&self, uptime: u64) -> bool {
        let quota = self.quota.as_ref();
        quota.is_some_and(|quota| quota.received.level_at() > uptime)
    }

    /// Whether its client has been sent as much as it may be, for now.
    pub fn has_had_enough(&self, uptime: u64) -> bool {
        let quota = self.quota.as_ref();
        quota.is_some_and(|quota| quota.sent.level_at() > uptime)
    }
}

impl Limits {
    fn rates_in(&self) -> Rates {
        Rates {
            messages: self.max_message_rate_in,
            bytes: self.max_byte_rate_in,
        }
    }

    fn rates_out(&self) -> Rates {
        Rates {
            messages: self.max_message_rate_out,
            bytes: self.max_byte_rate_out,
        }
    }
}

impl Broker {
    /// Whether nothing more should be read from a connection for now: the disk is behind, its client does not take what waits for it, has
    /// sent more than it may, or what it has published is still being handed out. The connection is touched when that changes.
    pub fn should_pause(&mut self, id: ConnectionId) -> bool {
        let paused = self.is_congested() || self.is_spreading_much(id);
        let connection = &mut self.connections[id.0 as usize];
        if paused && !std::mem::replace(&mut connection.paused, true) {
            self.counters.reading_paused += 1;
            self.waiting.paused.push_back(id);
        }
        paused
            || connection.outbox.len() > self.settings.limits.max_outgoing_bytes
            || connection.has_sent_too_much(self.now.uptime)
    }

    /// Whether so many writes wait for the disk that nothing more should be read.
    pub(super) fn is_congested(&self) -> bool {
        self.gate.pending_bytes() > self.settings.limits.max_pending_write_bytes
    }

    /// Reads again from those it has paused for which there is no reason any more; it looks at some of them. Whether there may be more.
    pub(super) fn resume_reading(&mut self) -> bool {
        if self.waiting.paused.is_empty() || self.is_congested() {
            return false;
        }
        let count = self.waiting.paused.len();
        for _ in 0..count.min(SLICE) {
            let Some(id) = self.waiting.paused.pop_front() else {
                break;
            };
            if self.is_spreading_much(id) {
                self.waiting.paused.push_back(id);
            } else if let Some(connection) = self.connections.get_mut(id.0 as usize) {
                connection.paused = false;
                connection.last_received = self.now.uptime;
                self.touch(id);
            }
        }
        count > SLICE
    }

    /// The rates that hold for a connection, in and out.
    fn rates(&self, id: ConnectionId) -> (Rates, Rates) {
        let connection = &self.connections[id.0 as usize];
        if connection.arrival.bridge {
            let own = connection.quota.as_ref().and_then(|quota| quota.own);
            return own.unwrap_or_default();
        }
        let limits = &self.settings.limits;
        (limits.rates_in(), limits.rates_out())
    }

    /// Gives a bridge's connection its own rates.
    pub(super) fn limit_rates(&mut self, id: ConnectionId, rates_in: Rates, rates_out: Rates) {
        let own = (rates_in, rates_out);
        if own != Default::default() {
            let connection = &mut self.connections[id.0 as usize];
            connection.quota.get_or_insert_default().own = Some(own);
        }
    }

    /// Counts a message from a client against its rates. `bytes` are those of topic, properties and payload.
    pub(super) fn count_received(&mut self, id: ConnectionId, bytes: usize) {
        let rates = self.rates(id);
        if rates != Default::default() {
            let uptime = self.now.uptime;
            let connection = &mut self.connections[id.0 as usize];
            let quota = connection.quota.get_or_insert_default();
            quota.received.take(rates.0, bytes, uptime);
            self.watch_quota(id);
        }
    }

    /// Counts a message to a client against its rates.
    pub(super) fn count_sent(&mut self, id: ConnectionId, bytes: usize) {
        let rates = self.rates(id);
        if rates != Default::default() {
            let uptime = self.now.uptime;
            let connection = &mut self.connections[id.0 as usize];
            let quota = connection.quota.get_or_insert_default();
            quota.sent.take(rates.1, bytes, uptime);
            self.watch_quota(id);
        }
    }

    /// Sees to it that a connection is looked at when one of its buckets is level again.
    fn watch_quota(&mut self, id: ConnectionId) {
        let uptime = self.now.uptime;
        let connection = &mut self.connections[id.0 as usize];
        let Some(quota) = connection.quota.as_mut().filter(|quota| !quota.timer) else {
            return;
        };
        let moments = [quota.received.level_at(), quota.sent.level_at()];
        if let Some(at) = moments.into_iter().filter(|at| *at > uptime).min() {
            quota.timer = true;
            self.counters.slowed_down += 1;
            self.timers.set(at, Timer::Quota(id, connection.serial));
        }
    }

    /// A connection's bucket may be level again: reading or sending goes on.
    pub(super) fn check_quota(&mut self, id: ConnectionId, serial: u64) {
        let uptime = self.now.uptime;
        let connection = self.connections.get_mut(id.0 as usize);
        let connection = connection.filter(|connection| connection.serial == serial);
        let Some(quota) = connection.and_then(|connection| connection.quota.as_mut()) else {
            return;
        };
        quota.timer = false;
        if quota.received.has_recovered(uptime) || quota.sent.has_recovered(uptime) {
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
        let clients = clients.filter(|(_, connection)| !connection.arrival.bridge);
        let all: Vec<usize> = clients.map(|(id, _)| id).collect();
        for id in all {
            if self.connections[id].quota.take().is_some() {
                self.touch(ConnectionId(id as u32));
            }
        }
    }

    /// Whether a user may have another connection; the one that `client_id` has already will be taken over. Clients without a user name are no user.
    pub(super) fn check_user(&self, identity: &Identity, client_id: &str) -> Result<(), Fault> {
        let most = self.settings.limits.max_connections_per_user;
        let Some(user) = identity.user.as_deref().filter(|_| most > 0) else {
            return Ok(());
        };
        let taken_over = self.by_client.get(client_id).is_some_and(|index| {
            let session = &self.sessions[index.0 as usize];
            let identity = session.identity.as_ref();
            session.connection.is_some()
                && identity.is_some_and(|it| it.user.as_deref() == Some(user))
        });
        if self.by_user.count(user) - usize::from(taken_over) < most {
            return Ok(());
        }
        Err(Fault {
            reason: ReasonCode::QuotaExceeded,
            what: "max_connections_per_user is reached",
        })
    }
}

/// How many connections there are, by what tells them apart.
#[derive(Debug)]
pub(super) struct Tally<K>(HashMap<K, usize, FixedState>);

impl<K: Eq + Hash> Tally<K> {
    /// Nobody yet; `seed` keeps peers from choosing what collides.
    pub fn new(seed: u64) -> Tally<K> {
        Tally(HashMap::with_hasher(FixedState::with_seed(seed)))
    }

    pub fn count<Q: Hash + Equivalent<K> + ?Sized>(&self, of: &Q) -> usize {
        self.0.get(of).copied().unwrap_or(0)
    }

    pub fn add(&mut self, one: K) {
        *self.0.entry(one).or_insert(0) += 1;
    }

    pub fn remove<Q: Hash + Equivalent<K> + ?Sized>(&mut self, of: &Q) {
        if let Some(count) = self.0.get_mut(of) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(of);
            }
        }
    }
}
