//! The wall clock, which is wrong at some starts and is set now and then, and what broker time must
//! make of it. The rule itself is judged by what must hold of any: nothing that was stored is
//! younger than a start, a good clock counts a stop, a wrong one counts next to nothing.

use super::history::Violation;
use super::world::{EPOCH, World};
use crate::broker::record::{Batch, Write};
use crate::clock::{LONGEST_STOP_MS, READING_MS, Reading};

const PROMISE: &str = "broker time never goes back, and a wrong clock does not move it";
const HOUR: i64 = 3_600_000;
/// How wrong clocks are: in 1970, in 2047, three hours behind or ahead, or right.
const ERRORS: [i64; 6] = [
    -(EPOCH as i64),
    24 * 365 * 24 * HOUR,
    -3 * HOUR,
    3 * HOUR,
    0,
    0,
];

/// The wall clock, and what the store has of it.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    /// By how many milliseconds it is wrong.
    pub error: i64,
    /// The broker time of the process that runs or ran last, at its last event.
    unix: u64,
    /// Readings that may be the one in the store, and when in milliseconds they were true.
    readings: Vec<(Reading, u64)>,
    /// The broker time of the last reading that is surely on disk.
    stored: u64,
}

impl World {
    /// Broker time, or what it was when the broker died.
    pub fn unix(&mut self) -> u64 {
        if let Some(process) = &self.process {
            self.clocks.unix = process.unix + (self.time() - process.started) / 1000;
        }
        self.clocks.unix
    }

    /// What the wall clock shows.
    pub fn wall(&self) -> u64 {
        (EPOCH + self.ms()).saturating_add_signed(self.clocks.error)
    }

    /// Somebody sets the wall clock, mostly right.
    pub fn set_clock(&mut self) {
        let error = *self.rng.pick(&ERRORS);
        if error != self.clocks.error {
            self.stats.clocks_set += 1;
            self.clocks.error = error;
            self.say(format_args!("the clock is set; it is wrong by {error} ms"));
        }
    }

    /// A batch may be on disk.
    pub fn clock_written(&mut self, batch: &Batch) {
        let now = self.unix();
        for write in &batch.writes {
            if let Write::PutClock(reading) = write {
                let then = self.ms() - (now - reading.unix.min(now));
                self.clocks.readings.push((*reading, then));
            }
        }
    }

    /// All that was written is surely on disk.
    pub fn clock_durable(&mut self) {
        if let Some(last) = self.clocks.readings.pop() {
            self.clocks.stored = self.clocks.stored.max(last.0.unix);
            self.clocks.readings = vec![last];
        }
    }

    /// A broker starts with this broker time on a store that has this reading.
    pub fn check_clock(&mut self, unix: u64, stored: Option<Reading>) -> Result<(), Violation> {
        let wrong = |what: String| Err(Violation::new(PROMISE, what));
        let Some(stored) = stored else {
            return match self.clocks.stored {
                0 => Ok(()),
                _ => wrong("the reading is gone".to_owned()),
            };
        };
        let mut readings = self.clocks.readings.iter();
        let Some((_, then)) = readings.find(|(reading, _)| *reading == stored) else {
            return wrong(format!("{stored:?} was never written"));
        };
        let then = *then;
        self.clocks.readings = vec![(stored, then)];
        if unix < self.clocks.stored {
            return wrong(format!("{unix} after {}", self.clocks.stored));
        }
        let passed = self.ms() - then;
        let gained = unix.saturating_sub(stored.unix);
        let turned = self.wall() as i64 - stored.wall as i64 - passed as i64;
        let what = format!("{passed} ms passed and {gained} were counted; turned by {turned}");
        match turned {
            -5..=5 if passed.abs_diff(gained) > 5 => wrong(what),
            turned if turned > 5 && turned as u64 <= LONGEST_STOP_MS => Ok(()),
            _ if gained > passed + READING_MS => wrong(what),
            _ => Ok(()),
        }
    }
}
