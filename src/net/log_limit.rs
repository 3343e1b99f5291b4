//! Limits log lines per minute, so that lines caused by peers cannot fill a disk.

use std::sync::{Mutex, PoisonError};

const MINUTE: u64 = 60_000;

/// Admits a number of lines per minute and counts the others.
#[derive(Debug)]
pub struct LogLimit {
    lines_per_minute: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Start of the current minute, in milliseconds of uptime.
    since: Option<u64>,
    admitted: u64,
    suppressed: u64,
}

impl LogLimit {
    /// Admits this many lines per minute.
    pub fn new(lines_per_minute: u64) -> LogLimit {
        let state = Mutex::default();
        LogLimit {
            lines_per_minute,
            state,
        }
    }

    /// Returns `None` if a line must not be logged. Otherwise returns how many lines were
    /// suppressed before it. `uptime` is in milliseconds.
    pub fn admit(&self, uptime: u64) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since: u64| uptime.saturating_sub(since) >= MINUTE;
        if state.since.is_none_or(is_over) {
            state.since = Some(uptime);
            state.admitted = 0;
        }
        if state.admitted >= self.lines_per_minute {
            state.suppressed += 1;
            return None;
        }
        state.admitted += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_lines_per_minute_are_admitted_and_the_others_counted() {
        let log_limit = LogLimit::new(2);
        assert_eq!(log_limit.admit(5), Some(0));
        assert_eq!(log_limit.admit(6), Some(0));
        for n in 0..7 {
            assert_eq!(log_limit.admit(7 + n), None);
        }
        assert_eq!(log_limit.admit(60_004), None);
        assert_eq!(log_limit.admit(60_005), Some(8));
        assert_eq!(log_limit.admit(60_006), Some(0));
        assert_eq!(log_limit.admit(60_007), None);
    }
}
