//! Reads from the metrics of a Tidegate how long its broker lock was held.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::cli::exit::{self, Failure};

/// Time limit for the response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of a response in bytes.
const MAX_ANSWER: u64 = 4 << 20;

/// Counts since the start of the broker. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LockFigures {
    /// Lock statistics by purpose.
    purposes: BTreeMap<String, Purpose>,
    /// Total time that the lock was held.
    held: f64,
    /// PUBLISH packets received.
    publishes: u64,
}

/// Lock statistics of one purpose.
#[derive(Clone, Debug, Default, PartialEq)]
struct Purpose {
    /// Upper bounds of the buckets, and how many times the lock was held no longer than that.
    buckets: Vec<(f64, u64)>,
    /// The longest time.
    longest: f64,
}

impl LockFigures {
    /// Reads the statistics of the broker whose `/metrics` is at this address.
    ///
    /// # Errors
    /// Fails if nothing answers there, or something that is not a Tidegate.
    pub fn of(metrics: SocketAddr) -> Result<LockFigures, Failure> {
        let failed =
            |what: String| Failure::new(exit::FAILED, format!("{metrics}/metrics: {what}"));
        let text = get(metrics).map_err(|error| failed(error.to_string()))?;
        LockFigures::parse(&text)
            .ok_or_else(|| failed("these are not the figures of a tidegate".to_owned()))
    }

    fn parse(text: &str) -> Option<LockFigures> {
        let mut lock = LockFigures::default();
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            if name == "tidegate_publishes_received" {
                lock.publishes = value.parse().ok()?;
            }
            let Some(rest) = name.strip_prefix("tidegate_core_held_") else {
                continue;
            };
            let Some((figure, labels)) = rest.split_once("{visit=\"") else {
                continue;
            };
            let (purpose, labels) = labels.split_once('"')?;
            let purpose = lock.purposes.entry(purpose.to_owned()).or_default();
            match figure {
                "seconds_bucket" => {
                    let bound = labels.strip_prefix(",le=\"")?.strip_suffix("\"}")?;
                    purpose
                        .buckets
                        .push((bound.parse().ok()?, value.parse().ok()?));
                }
                "seconds_sum" => lock.held += value.parse::<f64>().ok()?,
                "longest_seconds" => purpose.longest = value.parse().ok()?,
                _ => {}
            }
        }
        let counted = lock
            .purposes
            .values()
            .any(|purpose| !purpose.buckets.is_empty());
        counted.then_some(lock)
    }

    /// Returns an upper bound, in seconds, of each time that the lock was held since then. 0 if it
    /// was not held.
    pub fn longest_since(&self, before: &LockFigures) -> f64 {
        let none = Purpose::default();
        self.purposes
            .iter()
            .map(|(name, purpose)| {
                purpose.longest_since(before.purposes.get(name).unwrap_or(&none))
            })
            .fold(0.0, f64::max)
    }

    /// Returns how long the lock was held since then for each received PUBLISH, in microseconds.
    /// `None` if none was received.
    pub fn held_per_publish_since(&self, before: &LockFigures) -> Option<f64> {
        let publishes = self.publishes.checked_sub(before.publishes)?;
        (publishes > 0).then(|| (self.held - before.held) * 1e6 / publishes as f64)
    }
}

impl Purpose {
    /// Returns the longest time since then if it is a new maximum, otherwise the bound of its
    /// bucket, but at most the maximum.
    fn longest_since(&self, before: &Purpose) -> f64 {
        if self.longest > before.longest {
            return self.longest;
        }
        let since = self.buckets.iter().enumerate().map(|(place, now)| {
            let before = before.buckets.get(place).map_or(0, |it| it.1);
            (now.0, now.1.saturating_sub(before))
        });
        let all = since.clone().next_back().map_or(0, |(_, count)| count);
        let mut reached = since.filter(|(_, count)| all > 0 && *count == all);
        reached
            .next()
            .map_or(0.0, |(bound, _)| bound.min(self.longest))
    }
}

fn get(metrics: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&metrics, RESPONSE_TIMEOUT)?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::lock_stats::{LockStats, Purpose};

    fn lock(publishes: u64, visits: &[(Purpose, u64)]) -> LockFigures {
        let mut all = LockStats::default();
        for (purpose, us) in visits {
            all.add(*purpose, Duration::ZERO, Duration::from_micros(*us));
        }
        let mut text = format!("HTTP/1.0 200 OK\n\ntidegate_publishes_received {publishes}\n");
        all.render(&mut text);
        LockFigures::parse(&text).expect("figures")
    }

    #[test]
    fn the_longest_visit_is_told_or_what_it_was_within() {
        let before = lock(0, &[(Purpose::Tick, 30_000), (Purpose::Batch, 10)]);
        let after = |purpose, us| {
            lock(
                2,
                &[(Purpose::Tick, 30_000), (Purpose::Batch, 10), (purpose, us)],
            )
        };
        let longest = |purpose, us| after(purpose, us).longest_since(&before);
        assert_eq!(longest(Purpose::Tick, 40_000), 0.04);
        assert_eq!(longest(Purpose::Tick, 3_000), 0.005);
        assert_eq!(longest(Purpose::Batch, 3_000), 0.003);
        assert_eq!(before.longest_since(&before), 0.0);
        // Two purposes: only the shorter time is a new maximum.
        let both = lock(
            2,
            &[
                (Purpose::Tick, 30_000),
                (Purpose::Tick, 9_000),
                (Purpose::Batch, 10),
                (Purpose::Batch, 700),
            ],
        );
        assert_eq!(both.longest_since(&before), 0.01);
        // The longer time is in the same bucket as the maximum of the other purpose.
        let alike = lock(
            2,
            &[
                (Purpose::Tick, 30_000),
                (Purpose::Tick, 900),
                (Purpose::Batch, 10),
                (Purpose::Batch, 700),
            ],
        );
        assert_eq!(alike.longest_since(&before), 0.001);
        let each = after(Purpose::Batch, 3_000).held_per_publish_since(&before);
        assert!((each.expect("there were some") - 1_500.0).abs() < 0.001);
        assert_eq!(before.held_per_publish_since(&before), None);
    }

    #[test]
    fn what_is_no_tidegate_is_told() {
        assert_eq!(LockFigures::parse("HTTP/1.0 404 Not Found\n\nno\n"), None);
        assert_eq!(
            LockFigures::parse("tidegate_core_held_seconds_bucket{le=\"x\"} 1\n"),
            None
        );
    }
}
