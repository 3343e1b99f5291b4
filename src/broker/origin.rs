//! Which brokers the bridges of others come from, and whether two of them have one identity: the data directory of one is a copy of the other's. Then
//! messages of one pass for repetitions of the other's, and are lost.
//!
//! The CONNECT of a bridge names its broker and that broker's run, a number of this one life of its process. A broker that was started again has a new
//! run, and the old one is never seen again. So two are alive if an earlier run connects again, or says something long after a later one has come.

use std::fmt;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::timer::Timer;
use super::{Broker, ConnectionId};

/// Brokers that are remembered; who was seen longest ago makes room.
const MOST: usize = 1024;
/// Earlier runs of a broker that are remembered, and connections of each broker that are watched.
const MOST_OF_ONE: usize = 8;
/// What an earlier run says this long after a later one has come was not under way already, in milliseconds. Also how often that is looked at.
const GRACE_MS: u64 = if cfg!(test) { 1_000 } else { 60_000 };
/// The least time between two warnings about a broker, and between any two, in milliseconds.
const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;

/// Where a bridge comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Stands for the identity of its broker's store.
    broker: u64,
    /// Stands for the life of its broker's process.
    run: u64,
}

impl Origin {
    /// That of a broker with this identity; `run` was drawn by lot when its process started.
    pub fn new(identity: u64, run: u64) -> Origin {
        // The identity itself stands for the broker in paths of messages; who reads a CONNECT need not know it.
        let broker = xxh3_64_with_seed(b"origin", identity);
        Origin { broker, run }
    }

    /// Reads what [`Display`](fmt::Display) writes; `None` for what earlier versions and others say.
    pub fn parse(text: &str) -> Option<Origin> {
        let (broker, run) = text.split_once('.')?;
        let number = |text: &str| {
            let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            u64::from_str_radix(text, 16).ok().filter(|_| digits)
        };
        Some(Origin {
            broker: number(broker)?,
            run: number(run)?,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{:016x}", self.broker, self.run)
    }
}

/// The brokers that bridges have come from.
#[derive(Debug, Default)]
pub(super) struct Origins {
    known: HashMap<u64, Known, FixedState>,
    /// A timer will look at them.
    is_watched: bool,
    /// When any was warned about last, in milliseconds of uptime.
    warned: Option<u64>,
}

/// What is known of a broker.
#[derive(Debug)]
struct Known {
    /// The run that came last, and when, in milliseconds of uptime.
    run: u64,
    since: u64,
    /// Runs that came before it, the newest last.
    earlier: Vec<u64>,
    /// Connections of all runs, with their serial numbers.
    connections: Vec<(ConnectionId, u64, u64)>,
    /// When it was seen last, and when it was warned about, in milliseconds of uptime.
    seen: u64,
    warned: Option<u64>,
}

impl Known {
    /// Takes note of a run. Returns whether it has been seen before another one that came since.
    fn see(&mut self, run: u64, uptime: u64) -> bool {
        self.seen = uptime;
        if self.run == run {
            return false;
        }
        let is_back = self.earlier.contains(&run);
        self.earlier.retain(|earlier| *earlier != run);
        if self.earlier.len() == MOST_OF_ONE {
            self.earlier.remove(0);
        }
        self.earlier.push(self.run);
        (self.run, self.since) = (run, uptime);
        is_back
    }
}

impl Broker {
    /// Where the bridges of this broker come from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// A bridge of another broker has connected.
    pub(super) fn see_origin(&mut self, id: ConnectionId, origin: Origin) {
        let uptime = self.now.uptime;
        let serial = self.connections[id.0 as usize].serial;
        let known = &mut self.origins.known;
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
            let connection = connections.get(id.0 as usize);
            connection.is_some_and(|connection| connection.serial == *serial)
        });
        let other = known.connections.iter().find(|it| it.2 != origin.run);
        let other = other.map(|(id, ..)| *id);
        if known.connections.len() < MOST_OF_ONE {
            known.connections.push((id, serial, origin.run));
        }
        if is_back {
            self.warn_of_copy(origin.broker, id, other);
        } else if other.is_some() && !std::mem::replace(&mut self.origins.is_watched, true) {
            self.timers.set(uptime + GRACE_MS, Timer::Origins);
        }
    }

    /// Looks whether anything was heard of a bridge of an earlier run since its broker's later run has come.
    pub(super) fn check_origins(&mut self) {
        self.origins.is_watched = false;
        let mut copies = Vec::new();
        let mut go_on = false;
        for (broker, known) in &mut self.origins.known {
            let connections = &self.connections;
            known.connections.retain(|(id, serial, _)| {
                let connection = connections.get(id.0 as usize);
                connection.is_some_and(|connection| connection.serial == *serial)
            });
            let later = known.connections.iter().find(|it| it.2 == known.run);
            for (id, _, run) in &known.connections {
                let heard = connections[id.0 as usize].last_received;
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
            self.origins.is_watched = true;
            let at = self.now.uptime + GRACE_MS;
            self.timers.set(at, Timer::Origins);
        }
    }

    /// Two brokers with one identity are connected: says so, once an hour.
    fn warn_of_copy(&mut self, broker: u64, id: ConnectionId, other: Option<ConnectionId>) {
        let uptime = self.now.uptime;
        self.counters.copied_identities += 1;
        let Some(known) = self.origins.known.get_mut(&broker) else {
            return;
        };
        let is_recent = |warned: Option<u64>, ms| warned.is_some_and(|at| uptime < at + ms);
        if is_recent(known.warned, HOUR_MS) || is_recent(self.origins.warned, MINUTE_MS) {
            return;
        }
        known.warned = Some(uptime);
        self.origins.warned = Some(uptime);
        let peer = |id: ConnectionId| &self.connections[id.0 as usize].arrival.peer;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_as_it_was_written_and_nothing_else_is_one() {
        let origin = Origin::new(7, 0x1234);
        assert_eq!(Origin::parse(&origin.to_string()), Some(origin));
        assert!(!origin.to_string().starts_with("0000000000000007"));
        for text in [
            "1",
            "",
            ".",
            "0123456789abcdef",
            "0123456789abcdef.",
            "+123456789abcdef.0123456789abcdef",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }
}
