//! Exponential backoff with decorrelated jitter.

use std::time::Duration;

/// Random waits. Each is at most three times the one before. So many gateways do not reconnect at
/// the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    last: Duration,
}

impl Backoff {
    /// Waits between `base` and `cap`.
    pub fn new(base: Duration, cap: Duration) -> Backoff {
        Backoff {
            base,
            cap: cap.max(base),
            last: base,
        }
    }

    /// Returns the next wait. `random` is any number.
    pub fn next(&mut self, random: u64) -> Duration {
        let most = (self.last * 3).clamp(self.base, self.cap);
        let span = (most - self.base).as_millis() as u64;
        let wait = self.base + Duration::from_millis(random % (span + 1));
        self.last = wait;
        wait
    }

    /// Starts again with `base` if the connection was useful or lasted longer than `cap`.
    pub fn connected_for(&mut self, lasted: Duration, worked: bool) {
        if worked || lasted > self.cap {
            self.last = self.base;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_grow_at_random_within_their_bounds() {
        let mut backoff = Backoff::new(100 * MS, 10_000 * MS);
        let mut last = 100 * MS;
        let mut longest = Duration::ZERO;
        for round in 0..1000_u64 {
            let wait = backoff.next(round.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            assert!((100 * MS..=10_000 * MS).contains(&wait), "{wait:?}");
            assert!(wait <= last * 3, "{wait:?} after {last:?}");
            last = wait;
            longest = longest.max(wait);
        }
        assert!(longest > 5_000 * MS, "{longest:?}");
    }

    #[test]
    fn the_largest_random_number_reaches_the_cap_and_a_long_connection_begins_anew() {
        let mut backoff = Backoff::new(100 * MS, 1_000 * MS);
        let next = |backoff: &mut Backoff| {
            let span = ((backoff.last * 3).min(backoff.cap) - backoff.base).as_millis() as u64;
            backoff.next(span)
        };
        assert_eq!(next(&mut backoff), 300 * MS);
        assert_eq!(next(&mut backoff), 900 * MS);
        assert_eq!(next(&mut backoff), 1_000 * MS);
        backoff.connected_for(500 * MS, false);
        assert_eq!(next(&mut backoff), 1_000 * MS);
        backoff.connected_for(1_001 * MS, false);
        assert_eq!(next(&mut backoff), 300 * MS);
        assert_eq!(next(&mut backoff), 900 * MS);
        backoff.connected_for(MS, true);
        assert_eq!(next(&mut backoff), 300 * MS);
    }

    #[test]
    fn a_base_above_the_cap_is_a_constant_wait() {
        let mut backoff = Backoff::new(500 * MS, 100 * MS);
        assert_eq!(backoff.next(u64::MAX), 500 * MS);
        assert_eq!(backoff.next(7), 500 * MS);
    }
}
