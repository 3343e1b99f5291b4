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

/// Brokers that are remembered; who was seen longest ago makes room.
pub const MOST: usize = 1024;

/// Earlier runs of a broker that are remembered, and connections of each broker that are watched.
pub const MOST_OF_ONE: usize = 8;

/// What an earlier run says this long after a later one has come was not under way already, in milliseconds. Also how often that is looked at.
pub const GRACE_MS: u64 = if cfg!(test) { 1_000 } else { 60_000 };

/// The least time between two warnings about a broker, and between any two, in milliseconds.
pub const HOUR_MS: u64 = 3_600_000;

pub const MINUTE_MS: u64 = 60_000;

/// Where a bridge comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Stands for the identity of its broker's store.
    pub(in crate::broker) broker: u64,
    /// Stands for the life of its broker's process.
    pub(in crate::broker) run: u64,
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
    pub known: HashMap<u64, Known, FixedState>,
    /// When any was warned about last, in milliseconds of uptime.
    pub warned: Option<u64>,
}

/// What is known of a broker.
#[derive(Debug)]
pub struct Known {
    /// The run that came last, and when, in milliseconds of uptime.
    pub run: u64,
    pub since: u64,
    /// Runs that came before it, the newest last.
    pub earlier: Vec<u64>,
    /// Connections of all runs, with their serial numbers.
    pub connections: Vec<(ConnectionId, u64, u64)>,
    /// When it was seen last, and when it was warned about, in milliseconds of uptime.
    pub seen: u64,
    pub warned: Option<u64>,
}

impl Known {
    /// Takes note of a run. Returns whether it has been seen before another one that came since.
    pub fn see(&mut self, run: u64, uptime: u64) -> bool {
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
