//! The only place that reads a clock or a source of randomness. All other code gets [`Now`] and a
//! seed, or calls this module.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time for the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the process started, monotonic. Keep alive, delays and time-outs use it.
    pub uptime: u64,
    /// Broker time, in milliseconds since 1970. Intervals that go on across a restart are stored
    /// with it. Within a process it advances with `uptime`, so a wall clock that jumps expires
    /// nothing. (A gateway without a battery clock jumps when NTP answers.) It starts with the wall
    /// clock's time when the store is created. At later starts, [`Reading::resume`] says how it
    /// goes on.
    pub unix: u64,
}

/// Broker time and the wall clock at the same moment. The store keeps the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Broker time, in milliseconds.
    pub unix: u64,
    /// The wall clock, in milliseconds since 1970.
    pub wall: u64,
}

/// The longest stop that is believed, in milliseconds: 400 days. If the wall clock is further ahead
/// of the last reading, it was wrong then (1970, 2000) or is wrong now.
pub const LONGEST_STOP_MS: u64 = 400 * 24 * 3_600_000;

/// A wall clock that is behind by less than this counts as equal, in milliseconds.
const SAME_MS: u64 = 2000;

/// How often a running broker stores a [`Reading`], in milliseconds, while it stores anything.
/// Stored times are at most this much later than the last reading.
pub const READING_MS: u64 = 10_000;

/// How broker time goes on at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// There was no reading. Broker time starts with the wall clock's time.
    Begun,
    /// The wall clock is believed. This many milliseconds have passed since the last reading.
    Passed(u64),
    /// The wall clock is not believed: it is this many milliseconds before the last reading.
    Behind(u64),
    /// The wall clock is not believed: this many milliseconds would have passed, more than
    /// [`LONGEST_STOP_MS`].
    FarAhead(u64),
}

impl Reading {
    /// Decides how broker time goes on at a start when the wall clock shows `wall`. Returns the
    /// broker time to start with, in milliseconds.
    ///
    /// If the wall clock is believed, the time of the stop counts. If not, it does not count, and
    /// broker time goes on after all stored times. So the rest of an interval is never longer than
    /// was asked for.
    pub fn resume(last: Option<Reading>, wall: u64) -> (u64, Resumed) {
        let Some(last) = last else {
            return (wall, Resumed::Begun);
        };
        let after_all = last.unix.saturating_add(READING_MS);
        match wall.checked_sub(last.wall) {
            None if last.wall - wall < SAME_MS => (last.unix, Resumed::Passed(0)),
            None => (after_all, Resumed::Behind(last.wall - wall)),
            Some(passed) if passed > LONGEST_STOP_MS => (after_all, Resumed::FarAhead(passed)),
            Some(passed) => (last.unix.saturating_add(passed), Resumed::Passed(passed)),
        }
    }
}

/// The clock of a running process.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Stopwatch,
    started_unix: u64,
}

impl Clock {
    /// Starts the clock with the wall clock's time.
    pub fn start() -> Clock {
        Clock::resume(None).0
    }

    /// Starts the clock of a broker whose store has this reading. Also returns how it was used.
    pub fn resume(last: Option<Reading>) -> (Clock, Resumed) {
        let (started_unix, resumed) = Reading::resume(last, wall_ms());
        let clock = Clock {
            started: Stopwatch::start(),
            started_unix,
        };
        (clock, resumed)
    }

    /// Returns the present time.
    pub fn now(&self) -> Now {
        self.at(Stopwatch::start())
    }

    /// Returns the time at which a stopwatch was started.
    pub fn at(&self, watch: Stopwatch) -> Now {
        let uptime = watch.since(self.started).as_millis() as u64;
        Now {
            uptime,
            unix: self.started_unix.saturating_add(uptime),
        }
    }
}

/// Returns the wall clock's milliseconds since 1970. The wall clock may jump.
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Returns the wall clock's seconds since 1970, for certificates. The wall clock may jump.
pub fn wall_seconds() -> i64 {
    (wall_ms() / 1000) as i64
}

/// Returns a random seed. It comes from the operating system through the standard library's hasher
/// keys.
pub fn seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Fills bytes with cryptographic randomness, for salts and keys.
///
/// # Errors
/// The operating system gives no randomness.
pub fn fill_random(bytes: &mut [u8]) -> Result<(), &'static str> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| "the system gives no randomness")
}

/// Measures elapsed time.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts a stopwatch.
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Returns how much later this stopwatch was started than `earlier`. Zero if it was not later.
    pub fn since(&self, earlier: Stopwatch) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const YEAR: u64 = 365 * 24 * HOUR;
    /// A day of 2026.
    const TODAY: u64 = 1_780_000_000_000;

    /// A running broker with its wall clock.
    struct SimulatedClock {
        unix: u64,
        stored: Option<Reading>,
    }

    impl SimulatedClock {
        /// Starts with this wall clock, runs for an hour, and stores a reading at the end.
        fn run(&mut self, wall: u64) -> Resumed {
            let (start, resumed) = Reading::resume(self.stored, wall);
            self.unix = start + HOUR;
            self.stored = Some(Reading {
                unix: self.unix,
                wall: wall + HOUR,
            });
            resumed
        }

        /// Sets the wall clock while the broker runs, and stores a reading.
        fn set(&mut self, wall: u64) {
            let unix = self.unix;
            self.stored = Some(Reading { unix, wall });
        }
    }

    fn begun(wall: u64) -> SimulatedClock {
        let mut clock = SimulatedClock {
            unix: 0,
            stored: None,
        };
        assert_eq!(clock.run(wall), Resumed::Begun);
        assert_eq!(clock.unix, wall + HOUR);
        clock
    }

    #[test]
    fn with_a_good_clock_the_time_of_a_stop_counts() {
        let mut clock = begun(TODAY);
        assert_eq!(clock.run(TODAY + 4 * HOUR), Resumed::Passed(3 * HOUR));
        assert_eq!(clock.unix, TODAY + 5 * HOUR);
        assert_eq!(clock.run(TODAY + YEAR), Resumed::Passed(YEAR - 5 * HOUR));
        assert_eq!(clock.unix, TODAY + YEAR + HOUR);
    }

    #[test]
    fn a_start_in_1970_and_the_right_time_at_the_next_lets_nothing_pass() {
        let mut clock = begun(20_000);
        let before = clock.unix;
        assert!(matches!(clock.run(TODAY), Resumed::FarAhead(_)));
        assert_eq!(clock.unix, before + READING_MS + HOUR);
        // From now on the wall clock is right and believed.
        assert_eq!(clock.run(TODAY + 2 * HOUR), Resumed::Passed(HOUR));
        assert_eq!(clock.unix, before + READING_MS + 3 * HOUR);
    }

    #[test]
    fn a_clock_that_is_set_while_it_runs_is_right_at_the_next_start() {
        for first in [0, TODAY - 3 * HOUR, TODAY + 24 * YEAR] {
            let mut clock = begun(first);
            let before = clock.unix;
            clock.set(TODAY);
            assert_eq!(clock.run(TODAY + HOUR), Resumed::Passed(HOUR));
            assert_eq!(clock.unix, before + 2 * HOUR, "booted at {first}");
        }
    }

    #[test]
    fn a_clock_before_the_last_reading_is_not_believed() {
        for wrong in [0, TODAY, TODAY - YEAR] {
            let mut clock = begun(TODAY);
            let before = clock.unix;
            assert!(matches!(clock.run(wrong), Resumed::Behind(_)));
            assert_eq!(clock.unix, before + READING_MS + HOUR);
        }
        // Clocks are not exact, and starts are fast.
        let mut clock = begun(TODAY);
        assert_eq!(clock.run(TODAY + HOUR - 100), Resumed::Passed(0));
    }

    #[test]
    fn a_start_in_2050_by_mistake_lets_nothing_pass_either() {
        let mut clock = begun(TODAY);
        let before = clock.unix;
        assert!(matches!(clock.run(TODAY + 24 * YEAR), Resumed::FarAhead(_)));
        assert!(matches!(clock.run(TODAY + 2 * HOUR), Resumed::Behind(_)));
        assert_eq!(clock.unix, before + 2 * (READING_MS + HOUR));
    }

    #[test]
    fn whatever_clocks_show_broker_time_never_goes_back_and_nothing_overflows() {
        let walls = [0, 1, TODAY - YEAR, TODAY, TODAY + 24 * YEAR, u64::MAX];
        for unix in [0, TODAY, u64::MAX] {
            for stored in walls {
                for wall in walls {
                    let last = Reading { unix, wall: stored };
                    let (start, _) = Reading::resume(Some(last), wall);
                    assert!(start >= unix);
                    assert!(start - unix <= LONGEST_STOP_MS);
                }
            }
        }
    }
}
