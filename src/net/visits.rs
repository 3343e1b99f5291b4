//! How long the broker's lock is held and waited for: the only thing that all clients share. Counted under that lock itself, so it takes no more
//! than a few additions a visit.

use std::fmt::Write;
use std::time::Duration;

/// What somebody enters the broker for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A new connection, or the first packets of one.
    Connect,
    /// Packets of a connection.
    Packets,
    /// What the broker has for a connection.
    Output,
    /// The end of a connection.
    Lost,
    /// The next batch for the committer.
    Batch,
    /// How far the committer has come.
    Durable,
    /// What is due by time.
    Tick,
    /// Bodies that were read from the store.
    Bodies,
    /// Figures, reloads, what bridges do beside handling packets, the end.
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

    /// As it is called in figures and in the log.
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

/// Upper bounds of the buckets: what Prometheus calls them, in seconds, and nanoseconds.
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

/// Times of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    /// How many were no longer than each bound and longer than the one before; the last, longer than all.
    counts: [u64; BOUNDS.len() + 1],
    /// Nanoseconds in all.
    sum: u64,
    /// Nanoseconds of the longest.
    longest: u64,
}

/// All visits since the process started.
#[derive(Clone, Debug, Default)]
pub struct Visits {
    held: [Times; Purpose::ALL.len()],
    waited: Times,
}

impl Visits {
    /// Counts a visit that has waited for the lock and held it so long.
    pub fn count(&mut self, purpose: Purpose, waited: Duration, held: Duration) {
        self.waited.add(waited);
        self.held[purpose as usize].add(held);
    }

    /// Appends the figures in Prometheus' text format, times in seconds.
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
        render_times(
            out,
            "tidegate_core_held",
            "a visit held the broker's lock, by what it was for; all others wait meanwhile.",
            held(),
        );
        render_times(
            out,
            "tidegate_core_waited",
            "a visit waited for the broker's lock.",
            waited(),
        );
    }
}

impl Times {
    fn add(&mut self, time: Duration) {
        let nanoseconds = time.as_nanos() as u64;
        let within = |(_, bound): &(&str, u64)| nanoseconds <= *bound;
        let bucket = BOUNDS.iter().position(within).unwrap_or(BOUNDS.len());
        self.counts[bucket] += 1;
        self.sum += nanoseconds;
        self.longest = self.longest.max(nanoseconds);
    }
}

/// Appends a histogram and the longest, each with a line for every label.
fn render_times(
    out: &mut String,
    name: &str,
    what: &str,
    times: impl Iterator<Item = (String, Times)> + Clone,
) {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    // Nothing that is written to a string fails.
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
    fn a_time_counts_in_every_bucket_it_fits_in() {
        let mut visits = Visits::default();
        let us = Duration::from_micros;
        visits.count(Purpose::Tick, us(0), us(10));
        visits.count(Purpose::Tick, us(3), us(9_000));
        visits.count(Purpose::Lost, us(9_000), Duration::from_secs(2));
        let mut text = String::new();
        visits.render(&mut text);
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
    fn every_purpose_has_its_place_and_the_bounds_grow() {
        for (place, purpose) in Purpose::ALL.iter().enumerate() {
            assert_eq!(*purpose as usize, place);
        }
        for (seconds, nanoseconds) in BOUNDS {
            let seconds: f64 = seconds.parse().expect("a number");
            assert_eq!((seconds * 1e9).round() as u64, nanoseconds);
        }
        assert!(BOUNDS.is_sorted_by_key(|(_, bound)| bound));
    }
}
