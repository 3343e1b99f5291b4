//! File descriptors of the process: how many there may be, and what that means for
//! `max_connections`.

use std::io;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::Config;
use crate::limits::Limits;

/// Descriptors that the broker needs itself: database, listeners, files that are read again,
/// metrics.
const OWN_DESCRIPTORS: usize = 128;
/// Descriptors of one bridge.
const DESCRIPTORS_PER_BRIDGE: usize = 4;

/// How many file descriptors the process may have open.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors(usize);

impl Descriptors {
    /// Raises the soft limit to the hard limit, and makes the kernel's descriptor table large
    /// enough for `connections`.
    ///
    /// Call this while the process has one thread. Linux doubles the table as it fills. In a
    /// process with several threads, an accept waits then until all processors have passed by: 20
    /// ms, again and again while clients connect.
    pub fn raise(connections: usize) -> Descriptors {
        const MAX_TABLE: usize = 1 << 16;
        let mut limit = getrlimit(Resource::Nofile);
        let before = limit.current;
        limit.current = limit.maximum;
        let allowed = match setrlimit(Resource::Nofile, limit) {
            Ok(()) => limit.maximum,
            Err(_) => before,
        };
        let allowed = allowed.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
        let last = MAX_TABLE.min(allowed).min(connections.saturating_add(64)) as i32 - 1;
        // If this fails, the table grows later.
        let _ = fcntl_dupfd_cloexec(io::stderr(), last);
        Descriptors(allowed)
    }

    /// Returns how many connections there may be: `max_connections`, or fewer so that the broker
    /// keeps the descriptors it needs itself. A connection beyond that is closed at once. Without
    /// this limit it would wait until a descriptor is free.
    pub fn connections(self, config: &Config) -> usize {
        let own = OWN_DESCRIPTORS + DESCRIPTORS_PER_BRIDGE * config.bridges.len();
        let left = self.0.saturating_sub(own).max(self.0 / 2);
        config.limits.max_connections.min(left)
    }

    /// Logs the limit if it is less than `max_connections`.
    pub fn log(self, config: &Config) {
        let (wanted, possible) = (config.limits.max_connections, self.connections(config));
        if possible >= wanted {
            return;
        }
        let allowed = self.0;
        if wanted == Limits::default().max_connections {
            tracing::info!(
                descriptors = allowed,
                "at most {possible} connections: the hard limit of descriptors allows no more (LimitNOFILE, ulimit -Hn)"
            );
        } else {
            tracing::warn!(
                descriptors = allowed,
                "at most {possible} connections and not max_connections = {wanted}: the hard limit of descriptors allows no more (LimitNOFILE, ulimit -Hn)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_keeps_descriptors_for_itself() {
        let connections = |allowed, wanted| {
            let mut config = Config::default();
            config.limits.max_connections = wanted;
            Descriptors(allowed).connections(&config)
        };
        assert_eq!(connections(1024, 1_000_000), 896);
        assert_eq!(connections(1024, 500), 500);
        assert_eq!(connections(64, 1_000_000), 32);
        assert_eq!(connections(usize::MAX, 1_000_000), 1_000_000);
    }
}
