//! How long the broker's lock is held and waited for. All clients share this lock.
//!
//! The times are counted under the lock itself, with a few additions each time.

use std::fmt::Write;
use std::time::Duration;

/// What the broker is locked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A new connection, or the first packets of one.
    Connect,
    /// Packets of a connection.
    Packets,
    /// Output for a connection.
    Output,
    /// The end of a connection.
    Lost,
    /// The next batch for the committer.
    Batch,
    /// How far the committer has come.
    Durable,
    /// Time-outs that are due.
    Tick,
    /// Message bodies that were read from the store.
    Bodies,
    /// Metrics, reloads, the stop, and what bridges do beside handling packets.
    Other,
}

impl Purpose {
    const ALL: [Purpose; 9] = [
        Purpose::Connect,
        Purpose::Packets,
        Purpose::Output,
        Purpose::Lost,
        Purpose::Batch,
        Purpose::Durable,
        Purpose::Tick,
        Purpose::Bodies,
        Purpose::Other,
    ];

    /// The name in metrics and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Connect => "connect",
            Purpose::Packets => "packets",
            Purpose::Output => "output",
            Purpose::Lost => "lost",
            Purpose::Batch => "batch",
            Purpose::Durable => "durable",
            Purpose::Tick => "tick",
            Purpose::Bodies => "bodies",
            Purpose::Other => "other",
        }
    }
}

/// Upper bounds of the buckets: as Prometheus writes them, in seconds; and in nanoseconds.
const BOUNDS: [(&str, u64); 13] = [
    ("0.000001", 1_000),
    ("0.00001", 10_000),
    ("0.0001", 100_000),
    ("0.0002", 200_000),
    ("0.0005", 500_000),
    ("0.001", 1_000_000),
    ("0.002", 2_000_000),
    ("0.005", 5_000_000),
    ("0.01", 10_000_000),
    ("0.02", 20_000_000),
    ("0.05", 50_000_000),
    ("0.1", 100_000_000),
    ("1", 1_000_000_000),
];

/// A histogram of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Histogram {
    /// How many times are in each bucket. The last bucket is for times above all bounds.
    counts: [u64; BOUNDS.len() + 1],
    /// Nanoseconds, summed.
    sum: u64,
    /// The longest time, in nanoseconds.
    longest: u64,
}

/// All times since the process started.
#[derive(Clone, Debug, Default)]
pub struct LockStats {
    held: [Histogram; Purpose::ALL.len()],
    waited: Histogram,
}

impl LockStats {
    /// Counts one lock: how long it was waited for and held.
    pub fn add(&mut self, purpose: Purpose, waited: Duration, held: Duration) {
        self.waited.add(waited);
        self.held[purpose as usize].add(held);
    }

    /// Appends the metrics in Prometheus' text format. Times are in seconds.
    pub fn render(&self, out: &mut String) {
        let held = || {
            Purpose::ALL.iter().map(|purpose| {
                (
                    format!("visit=\"{}\"", purpose.name()),
                    self.held[*purpose as usize],
                )
            })
        };
        let waited = || std::iter::once((String::new(), self.waited));
        render_histograms(
            out,
            "tidegate_core_held",
            "the broker's lock was held, by purpose; all others wait meanwhile.",
            held(),
        );
        render_histograms(
            out,
            "tidegate_core_waited",
            "the broker's lock was waited for.",
            waited(),
        );
    }
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let nanoseconds = time.as_nanos() as u64;
        let within = |(_, bound): &(&str, u64)| nanoseconds <= *bound;
        let bucket = BOUNDS.iter().position(within).unwrap_or(BOUNDS.len());
        self.counts[bucket] += 1;
        self.sum += nanoseconds;
        self.longest = self.longest.max(nanoseconds);
    }
}

/// Appends the histogram and the longest time of each label.
fn render_histograms(
    out: &mut String,
    name: &str,
    what: &str,
    times: impl Iterator<Item = (String, Histogram)> + Clone,
) {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name}_seconds How long {what}");
    let _ = writeln!(out, "# TYPE {name}_seconds histogram");
    for (label, times) in times.clone() {
        let comma = if label.is_empty() { "" } else { "," };
        let braced = braced(&label);
        let mut count = 0;
        let bounds = BOUNDS.iter().map(|(bound, _)| *bound).chain(["+Inf"]);
        for (bound, more) in bounds.zip(times.counts) {
            count += more;
            let _ = writeln!(
                out,
                "{name}_seconds_bucket{{{label}{comma}le=\"{bound}\"}} {count}"
            );
        }
        let _ = writeln!(out, "{name}_seconds_sum{braced} {}", seconds(times.sum));
        let _ = writeln!(out, "{name}_seconds_count{braced} {count}");
    }
    let _ = writeln!(
        out,
        "\n# HELP {name}_longest_seconds The longest since the start: how long {what}"
    );
    let _ = writeln!(out, "# TYPE {name}_longest_seconds gauge");
    for (label, times) in times {
        let _ = writeln!(
            out,
            "{name}_longest_seconds{} {}",
            braced(&label),
            seconds(times.longest)
        );
    }
    out.push('\n');
}

fn braced(label: &str) -> String {
    match label {
        "" => String::new(),
        label => format!("{{{label}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_every_bucket_with_a_higher_bound() {
        let mut stats = LockStats::default();
        let us = Duration::from_micros;
        stats.add(Purpose::Tick, us(0), us(10));
        stats.add(Purpose::Tick, us(3), us(9_000));
        stats.add(Purpose::Lost, us(9_000), Duration::from_secs(2));
        let mut text = String::new();
        stats.render(&mut text);
        for line in [
            "# TYPE tidegate_core_held_seconds histogram",
            "tidegate_core_held_seconds_bucket{visit=\"tick\",le=\"0.000001\"} 0",
            "tidegate_core_held_seconds_bucket{visit=\"tick\",le=\"0.00001\"} 1",
            "tidegate_core_held_seconds_bucket{visit=\"tick\",le=\"0.005\"} 1",
            "tidegate_core_held_seconds_bucket{visit=\"tick\",le=\"0.01\"} 2",
            "tidegate_core_held_seconds_bucket{visit=\"tick\",le=\"+Inf\"} 2",
            "tidegate_core_held_seconds_sum{visit=\"tick\"} 0.00901",
            "tidegate_core_held_seconds_count{visit=\"tick\"} 2",
            "tidegate_core_held_seconds_bucket{visit=\"lost\",le=\"1\"} 0",
            "tidegate_core_held_seconds_bucket{visit=\"lost\",le=\"+Inf\"} 1",
            "tidegate_core_held_longest_seconds{visit=\"lost\"} 2",
            "tidegate_core_held_longest_seconds{visit=\"batch\"} 0",
            "tidegate_core_waited_seconds_bucket{le=\"0.00001\"} 2",
            "tidegate_core_waited_seconds_count 3",
            "tidegate_core_waited_longest_seconds 0.009",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn purposes_index_their_array_and_bounds_are_sorted() {
        for (index, purpose) in Purpose::ALL.iter().enumerate() {
            assert_eq!(*purpose as usize, index);
        }
        for (seconds, nanoseconds) in BOUNDS {
            let seconds: f64 = seconds.parse().expect("a number");
            assert_eq!((seconds * 1e9).round() as u64, nanoseconds);
        }
        assert!(BOUNDS.is_sorted_by_key(|(_, bound)| bound));
    }
}
