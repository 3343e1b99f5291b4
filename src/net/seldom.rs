//! How often a line may go into the log: what a peer can cause again and again must not fill a disk.

use std::sync::{Mutex, PoisonError};

const MINUTE: u64 = 60_000;

/// Admits so many lines a minute, and counts those it keeps out.
#[derive(Debug)]
pub struct Seldom {
    a_minute: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When this minute has begun, in milliseconds of uptime.
    since: Option<u64>,
    admitted: u64,
    kept_out: u64,
}

impl Seldom {
    /// Admits this many lines a minute.
    pub fn new(a_minute: u64) -> Seldom {
        let state = Mutex::default();
        Seldom { a_minute, state }
    }

    /// Returns how many lines were kept out since the last one, if this one is admitted; `None`
    /// keeps it out. `uptime` is in milliseconds.
    pub fn admit(&self, uptime: u64) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since: u64| uptime.saturating_sub(since) >= MINUTE;
        if state.since.is_none_or(is_over) {
            state.since = Some(uptime);
            state.admitted = 0;
        }
        if state.admitted >= self.a_minute {
            state.kept_out += 1;
            return None;
        }
        state.admitted += 1;
        Some(std::mem::take(&mut state.kept_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_minute_are_admitted_and_the_others_counted() {
        let seldom = Seldom::new(2);
        assert_eq!(seldom.admit(5), Some(0));
        assert_eq!(seldom.admit(6), Some(0));
        for n in 0..7 {
            assert_eq!(seldom.admit(7 + n), None);
        }
        assert_eq!(seldom.admit(60_004), None);
        assert_eq!(seldom.admit(60_005), Some(8));
        assert_eq!(seldom.admit(60_006), Some(0));
        assert_eq!(seldom.admit(60_007), None);
    }
}
