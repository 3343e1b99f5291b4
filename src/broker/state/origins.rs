//! The brokers that bridges come from.
//!
//! Two brokers with one identity are a fault: the data directory of one is a copy of the other's. Messages of
//! one are then taken for repetitions of the other's, and are lost.
//!
//! The CONNECT of a bridge names its broker and the run of it, a number of that process. A broker that was
//! started again has a new run, and the old run is never seen again. So if an earlier run connects again,
//! or sends something long after a later run has come, two brokers are alive.

use std::fmt;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::broker::model::ids::ConnectionId;
use crate::broker::state::connections::Connections;

/// Brokers that are remembered; who was seen longest ago makes room.
const MOST: usize = 1024;

/// Earlier runs of a broker that are remembered, and connections of each broker that are watched.
const MOST_OF_ONE: usize = 8;

/// What an earlier run says this long after a later one has come was not under way already, in milliseconds. Also how often that is looked at.
pub const GRACE_MS: u64 = if cfg!(test) { 1_000 } else { 60_000 };

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
pub struct Origins {
    known: HashMap<u64, Known, FixedState>,
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
    /// Connections of all runs.
    connections: Vec<OfRun>,
    /// When it was seen last, and when it was warned about, in milliseconds of uptime.
    seen: u64,
    warned: Option<u64>,
}

/// A connection of a run.
#[derive(Debug)]
struct OfRun {
    id: ConnectionId,
    serial: u64,
    run: u64,
}

/// What a bridge's CONNECT tells about its broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing is wrong.
    Fine,
    /// Another run of it is connected, too. [`Origins::find_copies`] is to look after [`GRACE_MS`].
    Twice,
    /// There are two of it.
    Copied(Copied),
}

/// Two brokers with one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    broker: u64,
    id: ConnectionId,
    other: Option<ConnectionId>,
}

impl Copied {
    /// A connection of one of them.
    pub fn connection(&self) -> ConnectionId {
        self.id
    }

    /// A connection of the other one, if that is connected.
    pub fn other_connection(&self) -> Option<ConnectionId> {
        self.other
    }
}

impl Origins {
    /// Notes that a bridge has connected.
    pub fn see(
        &mut self,
        id: ConnectionId,
        origin: Origin,
        connections: &Connections,
        uptime: u64,
    ) -> Seen {
        if self.known.len() >= MOST && !self.known.contains_key(&origin.broker) {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.seen);
            if let Some(oldest) = oldest.map(|(broker, _)| *broker) {
                self.known.remove(&oldest);
            }
        }
        let run = origin.run;
        let known = self.known.entry(origin.broker).or_insert_with(|| Known {
            run,
            since: uptime,
            earlier: Vec::new(),
            connections: Vec::new(),
            seen: uptime,
            warned: None,
        });
        let is_back = known.see(run, uptime);
        known.forget_closed(connections);
        let other = known.connections.iter().find(|it| it.run != run);
        let other = other.map(|it| it.id);
        if known.connections.len() < MOST_OF_ONE {
            let serial = connections[id].serial();
            known.connections.push(OfRun { id, serial, run });
        }
        let broker = origin.broker;
        match other {
            _ if is_back => Seen::Copied(Copied { broker, id, other }),
            Some(_) => Seen::Twice,
            None => Seen::Fine,
        }
    }

    /// Returns the brokers of which an earlier run has sent something although a later one has come.
    /// The second value says that there are earlier runs which have not: look again after [`GRACE_MS`].
    pub fn find_copies(&mut self, connections: &Connections) -> (Vec<Copied>, bool) {
        let mut copies = Vec::new();
        let mut go_on = false;
        for (broker, known) in &mut self.known {
            known.forget_closed(connections);
            let later = known.connections.iter().find(|it| it.run == known.run);
            for earlier in known.connections.iter().filter(|it| it.run != known.run) {
                if connections[earlier.id].last_received() >= known.since + GRACE_MS {
                    copies.push(Copied {
                        broker: *broker,
                        id: earlier.id,
                        other: later.map(|it| it.id),
                    });
                    break;
                }
                go_on = true;
            }
        }
        (copies, go_on)
    }

    /// Returns whether a warning about a broker is due, and notes that it is given.
    pub fn warn(&mut self, copied: &Copied, uptime: u64) -> bool {
        let Some(known) = self.known.get_mut(&copied.broker) else {
            return false;
        };
        let is_recent = |warned: Option<u64>, ms| warned.is_some_and(|at| uptime < at + ms);
        if is_recent(known.warned, HOUR_MS) || is_recent(self.warned, MINUTE_MS) {
            return false;
        }
        known.warned = Some(uptime);
        self.warned = Some(uptime);
        true
    }
}

impl Known {
    /// Notes a run. Returns whether it has been seen before another one that came since.
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

    /// Drops connections that are gone.
    fn forget_closed(&mut self, connections: &Connections) {
        self.connections.retain(|it| {
            let connection = connections.get(it.id);
            connection.is_some_and(|connection| connection.serial() == it.serial)
        });
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
