//! The wall clock beside broker time.

use crate::clock::{Now, READING_MS, Reading};

/// A wall clock that moves by less than this against broker time between two looks was not set, in
/// milliseconds.
const JUMP_MS: u64 = 2000;

/// How often jumps are logged at most, in milliseconds.
const LOG_MS: u64 = 60_000;

/// The wall clock, as the driver tells it.
#[derive(Debug, Default)]
pub struct Wall {
    /// How many milliseconds it is ahead of broker time; `None` before anybody told. What the store
    /// has, until the driver tells.
    ahead: Option<i64>,
    /// The driver has told.
    told: bool,
    /// When a reading was written last, in milliseconds of uptime.
    written: Option<u64>,
    /// When a jump was logged last, in milliseconds of uptime.
    logged: Option<u64>,
}

/// The wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// By how much, in seconds.
    pub seconds: i64,
    /// The log is to tell it: the broker was running, and it is a while since the last one.
    pub is_told: bool,
}

impl Wall {
    /// The driver tells what the clock shows, in milliseconds since 1970. Returns whether it was
    /// set since the last time, or while the broker was stopped.
    pub fn set(&mut self, wall: u64, now: Now) -> Option<Jump> {
        let ahead = ahead(wall, now.unix);
        let before = self.ahead.replace(ahead);
        let told = std::mem::replace(&mut self.told, true);
        let before = before.filter(|before| before.abs_diff(ahead) >= JUMP_MS)?;
        let quiet = self.logged.is_some_and(|at| now.uptime < at + LOG_MS);
        let is_told = told && !quiet;
        if is_told {
            self.logged = Some(now.uptime);
        }
        let seconds = ahead.saturating_sub(before) / 1000;
        Some(Jump { seconds, is_told })
    }

    /// Whether it is time to write a reading.
    pub fn is_due(&self, uptime: u64) -> bool {
        let written = self.written;
        written.is_none_or(|written| uptime >= written + READING_MS)
    }

    /// What is to be written now, if anybody told what the clock shows.
    pub fn reading(&mut self, now: Now) -> Option<Reading> {
        let ahead = self.ahead.filter(|_| self.told)?;
        self.written = Some(now.uptime);
        Some(Reading {
            unix: now.unix,
            wall: now.unix.saturating_add_signed(ahead),
        })
    }

    /// The store has this reading.
    pub fn restored(&mut self, reading: Reading) {
        self.ahead = Some(ahead(reading.wall, reading.unix));
    }
}

fn ahead(wall: u64, unix: u64) -> i64 {
    (i128::from(wall) - i128::from(unix)).clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
