//! The wall clock beside broker time.

use crate::clock::Reading;

/// The wall clock, as the driver tells it.
#[derive(Debug, Default)]
pub struct Wall {
    /// How many milliseconds it is ahead of broker time; `None` before anybody told. What the store
    /// has, until the driver tells.
    pub ahead: Option<i64>,
    /// The driver has told.
    pub told: bool,
    /// When a reading was written last, in milliseconds of uptime.
    pub written: Option<u64>,
    /// When a jump was logged last, in milliseconds of uptime.
    pub logged: Option<u64>,
}

impl Wall {
    /// The store has this reading.
    pub fn restored(&mut self, reading: Reading) {
        self.ahead = Some(ahead(reading.wall, reading.unix));
    }
}

pub fn ahead(wall: u64, unix: u64) -> i64 {
    (i128::from(wall) - i128::from(unix)).clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
