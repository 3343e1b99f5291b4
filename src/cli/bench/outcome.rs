//! The results of a scenario: figures with names and units, used by tables, JSON, reports and
//! comparisons.

use std::fmt;

use super::histogram::{Histogram, Summary};

/// The share of a requested rate that counts as reached.
const REACHED: f64 = 0.98;

/// Which of two values is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The lower.
    Lower,
    /// The higher.
    Higher,
    /// Neither: the figure only describes the run.
    Neither,
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Name.
    pub name: &'static str,
    /// Value.
    pub value: f64,
    /// Unit.
    pub unit: &'static str,
    /// Which of two values is better.
    pub better: Better,
}

/// A reason why figures are not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The reason, in words.
    pub what: String,
    /// The figures concerned.
    pub about: About,
}

/// A set of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// All figures.
    All,
    /// Resources used by the process of the broker.
    Process,
    /// Rates and latencies.
    Speed,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            About::All => "",
            About::Process => " (the broker's processor time, memory and disk)",
            About::Speed => " (rates, latencies)",
        })
    }
}

/// Figures of one time during a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Seconds since the start of the measurement.
    pub at: f64,
    /// Messages per second since the previous sample: delivered, or else acknowledged or published.
    pub rate: f64,
    /// Cores that the broker used since the previous sample, if known.
    pub cores: Option<f64>,
    /// Resident memory of the broker in bytes, if known.
    pub resident: Option<u64>,
}

/// Errors found at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Messages that did not arrive, counted for each receiver.
    pub lost: u64,
    /// Messages that arrived more than once.
    pub duplicates: u64,
    /// Messages that arrived after later ones.
    pub disordered: u64,
    /// Messages that the broker refused.
    pub refused: u64,
    /// Packets that the broker must not send.
    pub unexpected: u64,
}

impl Faults {
    /// Adds the errors of another part of the run.
    pub fn add(&mut self, more: Faults) {
        self.lost += more.lost;
        self.duplicates += more.duplicates;
        self.disordered += more.disordered;
        self.refused += more.refused;
        self.unexpected += more.unexpected;
    }

    /// Returns whether nothing is counted that a broker must never do. Repetitions count as errors;
    /// QoS 1 allows them, which the caller must know.
    pub fn is_clean(&self) -> bool {
        *self == Faults::default()
    }
}

/// The results of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Name of the scenario, with the parameters that distinguish it from others of the same name.
    pub name: String,
    /// Description.
    pub what: String,
    /// Figures, the most important first.
    pub metrics: Vec<Metric>,
    /// Latencies in nanoseconds, if there are any.
    pub latency: Option<Summary>,
    /// Points of the latency curve: share and nanoseconds.
    pub curve: Vec<(f64, u64)>,
    /// Samples over the course of the measurement.
    pub samples: Vec<Sample>,
    /// Errors.
    pub faults: Faults,
    /// Descriptions of figures that did not stay flat.
    pub grown: Vec<String>,
    /// Reasons why figures are void.
    pub doubts: Vec<Doubt>,
    /// Whether repetitions are allowed, because connections were lost at QoS 1.
    pub may_repeat: bool,
}

/// The results of one broker in one round.
#[derive(Clone, Debug)]
pub struct Record {
    /// Name of the broker.
    pub broker: String,
    /// Number of the round, from 1.
    pub round: usize,
    /// Results.
    pub outcome: Outcome,
}

impl Outcome {
    /// Adds a figure.
    pub fn add(&mut self, name: &'static str, value: f64, unit: &'static str, better: Better) {
        self.metrics.push(Metric {
            name,
            value,
            unit,
            better,
        });
    }

    /// Marks figures as void, with the reason.
    pub fn doubt(&mut self, about: About, what: String) {
        self.doubts.push(Doubt { what, about });
    }

    /// Marks figures as void if messages were not sent at the requested rate.
    pub fn doubt_rate(&mut self, asked: f64, published: f64) {
        if published < asked * REACHED {
            let what = format!("{asked:.0} messages a second were asked for, {published:.0} sent");
            self.doubt(About::All, what);
        }
    }

    /// Returns whether a figure cannot be compared, because it is void or messages were wrong.
    pub fn is_void(&self, metric: &str) -> bool {
        let of_process = ["broker cpu", "broker cores", "broker memory", "disk"].contains(&metric);
        let concerns = |doubt: &Doubt| match doubt.about {
            About::All => true,
            About::Process => of_process,
            About::Speed => !of_process && metric != "client cpu",
        };
        !self.is_clean() || self.doubts.iter().any(concerns)
    }

    /// Returns the value of a figure.
    pub fn value(&self, name: &str) -> Option<f64> {
        let metric = self.metrics.iter().find(|metric| metric.name == name)?;
        Some(metric.value)
    }

    /// Sets the latencies from a histogram in nanoseconds.
    pub fn set_latency(&mut self, histogram: &Histogram) {
        if histogram.summary().count == 0 {
            return;
        }
        let summary = histogram.summary();
        self.latency = Some(summary);
        self.curve = histogram.curve();
        let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        self.add("latency p50", us(summary.p50), "us", Better::Lower);
        self.add("latency p90", us(summary.p90), "us", Better::Lower);
        self.add("latency p99", us(summary.p99), "us", Better::Lower);
        self.add("latency p99.9", us(summary.p999), "us", Better::Lower);
        self.add("latency max", us(summary.max), "us", Better::Lower);
    }

    /// Returns whether nothing was lost, out of order, or repeated without permission.
    pub fn is_clean(&self) -> bool {
        let faults = Faults {
            duplicates: match self.may_repeat {
                true => 0,
                false => self.faults.duplicates,
            },
            ..self.faults
        };
        faults.is_clean() && self.grown.is_empty()
    }

    /// Describes the errors and repetitions. `None` if there were none.
    pub fn wrong(&self) -> Option<String> {
        let Faults {
            lost,
            duplicates,
            disordered,
            refused,
            unexpected,
        } = self.faults;
        let mut words: Vec<String> = [
            (lost, "lost"),
            (duplicates, "repeated"),
            (disordered, "out of order"),
            (refused, "refused"),
            (unexpected, "that nobody asked for"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        words.extend(self.grown.iter().cloned());
        (!words.is_empty()).then(|| words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_wrong_unless_they_are_allowed() {
        let mut outcome = Outcome {
            faults: Faults {
                duplicates: 2,
                ..Faults::default()
            },
            ..Outcome::default()
        };
        assert!(!outcome.is_clean());
        outcome.may_repeat = true;
        assert!(outcome.is_clean());
        assert_eq!(outcome.wrong().as_deref(), Some("2 repeated"));
        outcome.faults.lost = 1;
        assert!(!outcome.is_clean());
        assert_eq!(outcome.wrong().as_deref(), Some("1 lost, 2 repeated"));
        assert_eq!(Outcome::default().wrong(), None);
    }

    #[test]
    fn what_is_in_doubt_is_void_and_so_is_all_where_messages_went_wrong() {
        let mut outcome = Outcome::default();
        outcome.doubt_rate(1000.0, 981.0);
        assert_eq!(outcome.doubts, []);
        outcome.doubt(About::Speed, String::new());
        assert!(outcome.is_void("delivered") && outcome.is_void("latency p99"));
        assert!(!outcome.is_void("broker cpu") && !outcome.is_void("client cpu"));
        outcome.doubts.clear();
        outcome.doubt(About::Process, String::new());
        assert!(outcome.is_void("broker cpu") && outcome.is_void("disk"));
        assert!(!outcome.is_void("delivered"));
        outcome.doubts.clear();
        outcome.doubt_rate(1000.0, 970.0);
        assert!(outcome.is_void("delivered") && outcome.is_void("broker cpu"));
        outcome.doubts.clear();
        outcome.faults.lost = 1;
        assert!(outcome.is_void("delivered") && outcome.is_void("broker cpu"));
    }

    #[test]
    fn latencies_are_told_in_microseconds() {
        let mut histogram = Histogram::new();
        let mut outcome = Outcome::default();
        outcome.set_latency(&histogram);
        assert!(outcome.metrics.is_empty());
        histogram.record(2_000);
        outcome.set_latency(&histogram);
        assert_eq!(outcome.value("latency max"), Some(2.0));
    }
}
