//! How long a Tidegate has held its broker's lock, as its figures over HTTP tell it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::cli::exit::{self, Failure};

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const MAX_ANSWER: u64 = 4 << 20;

/// What was counted since that broker's start, over all kinds of visits. Times in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lock {
    /// Upper bounds of buckets, and how many visits were no longer.
    buckets: Vec<(f64, u64)>,
    /// How long the longest of each kind was.
    longest: Vec<f64>,
    /// All together.
    held: f64,
    /// PUBLISH packets received.
    publishes: u64,
}

impl Lock {
    /// Asks the broker whose `/metrics` is at this address.
    ///
    /// # Errors
    /// Nothing answers there, or something that is not a Tidegate.
    pub fn of(metrics: SocketAddr) -> Result<Lock, Failure> {
        let failed =
            |what: String| Failure::new(exit::FAILED, format!("{metrics}/metrics: {what}"));
        let text = get(metrics).map_err(|error| failed(error.to_string()))?;
        Lock::parse(&text)
            .ok_or_else(|| failed("these are not the figures of a tidegate".to_owned()))
    }

    fn parse(text: &str) -> Option<Lock> {
        let mut lock = Lock::default();
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
            if rest.starts_with("seconds_bucket{") {
                let (_, bound) = rest.rsplit_once("le=\"")?;
                let bound: f64 = bound.strip_suffix("\"}")?.parse().ok()?;
                lock.add(bound, value.parse().ok()?);
            } else if rest.starts_with("seconds_sum{") {
                lock.held += value.parse::<f64>().ok()?;
            } else if rest.starts_with("longest_seconds{") {
                lock.longest.push(value.parse().ok()?);
            }
        }
        (!lock.buckets.is_empty()).then_some(lock)
    }

    fn add(&mut self, bound: f64, count: u64) {
        match self.buckets.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, known)) => *known += count,
            None => self.buckets.push((bound, count)),
        }
    }

    /// How long no visit since then was longer than, in seconds: the longest itself if there was none like it before, or else the bound of its bucket.
    pub fn longest_since(&self, before: &Lock) -> f64 {
        let records = self.longest.iter().zip(&before.longest);
        let record = records
            .filter(|(now, before)| now > before)
            .map(|(now, _)| *now)
            .fold(0.0, f64::max);
        let since =
            |(now, before): (&(f64, u64), &(f64, u64))| (now.0, now.1 - before.1.min(now.1));
        let counts: Vec<(f64, u64)> = self
            .buckets
            .iter()
            .zip(&before.buckets)
            .map(since)
            .collect();
        let all = counts.last().map_or(0, |(_, count)| *count);
        let bound = counts.iter().find(|(_, count)| *count == all);
        let bound = bound.map_or(0.0, |(bound, _)| *bound);
        // A record of one kind of visit may be beneath what another kind has reached before.
        let below = counts.iter().rev().find(|(_, count)| *count < all);
        match below {
            // Nor was any longer than the longest there ever was.
            Some((below, _)) if record <= *below => {
                self.longest.iter().copied().fold(0.0, f64::max).min(bound)
            }
            _ => record.min(bound),
        }
    }

    /// How long the lock was held since then for each PUBLISH received, in microseconds; `None` if there was none.
    pub fn held_per_publish_since(&self, before: &Lock) -> Option<f64> {
        let publishes = self.publishes.checked_sub(before.publishes)?;
        (publishes > 0).then(|| (self.held - before.held) * 1e6 / publishes as f64)
    }
}

fn get(metrics: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&metrics, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::visits::{Purpose, Visits};

    fn lock(publishes: u64, visits: &[(Purpose, u64)]) -> Lock {
        let mut all = Visits::default();
        for (purpose, us) in visits {
            all.count(*purpose, Duration::ZERO, Duration::from_micros(*us));
        }
        let mut text = format!("HTTP/1.0 200 OK\n\ntidegate_publishes_received {publishes}\n");
        all.render(&mut text);
        Lock::parse(&text).expect("figures")
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
        // Two kinds: the longer one is no record, the shorter one is.
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
        let each = after(Purpose::Batch, 3_000).held_per_publish_since(&before);
        assert!((each.expect("there were some") - 1_500.0).abs() < 0.001);
        assert_eq!(before.held_per_publish_since(&before), None);
    }

    #[test]
    fn what_is_no_tidegate_is_told() {
        assert_eq!(Lock::parse("HTTP/1.0 404 Not Found\n\nno\n"), None);
        assert_eq!(
            Lock::parse("tidegate_core_held_seconds_bucket{le=\"x\"} 1\n"),
            None
        );
    }
}
