//! The only place that reads a clock or a source of chance. Everything else is handed [`Now`] and a seed, or asks here.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment, as the broker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the process started, monotonic: keep alive, delays and time-outs are measured with it.
    pub uptime: u64,
    /// Milliseconds since 1970: what goes on counting across a restart is written with it. Within a process it advances with `uptime`, so
    /// a wall clock that jumps (a gateway without a battery clock, once its NTP answers) expires nothing.
    pub unix: u64,
}

/// The clock of a running process.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Stopwatch,
    started_unix: u64,
}

impl Clock {
    /// Starts the clock at the wall clock's time.
    pub fn start() -> Clock {
        let started_unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        Clock {
            started: Stopwatch::start(),
            started_unix,
        }
    }

    /// The moment it is now.
    pub fn now(&self) -> Now {
        self.at(Stopwatch::start())
    }

    /// The moment a stopwatch was started.
    pub fn at(&self, watch: Stopwatch) -> Now {
        let uptime = watch.since(self.started).as_millis() as u64;
        Now {
            uptime,
            unix: self.started_unix + uptime,
        }
    }
}

/// Seconds since 1970 on the wall clock, which may jump: for certificates, which are compared with the world's time.
pub fn wall_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}

/// A seed that differs from process to process, drawn from the operating system's randomness through the standard library's hasher keys.
pub fn seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Fills bytes with what nobody can guess, for salts and keys.
///
/// # Errors
/// The operating system gives no randomness.
pub fn fill_unguessable(bytes: &mut [u8]) -> Result<(), &'static str> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| "the system gives no randomness")
}

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts it.
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// How much later it was started than another one; nothing, if it was not.
    pub fn since(&self, earlier: Stopwatch) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}
