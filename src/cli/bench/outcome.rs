//! What a scenario has found: figures with names and units, the same for tables, JSON, reports and comparisons.

use std::fmt;

use super::histogram::{Histogram, Summary};

/// The share of a rate that counts as reached.
const REACHED: f64 = 0.98;

/// Which of two figures is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The lower.
    Lower,
    /// The higher.
    Higher,
    /// Neither: it only tells what was done.
    Neither,
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// What it is.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// How to judge it.
    pub better: Better,
}

/// Why figures do not tell what they seem to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The reason, in words.
    pub what: String,
    /// The figures that it is about.
    pub about: About,
}

/// Some of the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// All of them.
    All,
    /// What the broker's process used.
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

/// What was going on at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Seconds since the measurement began.
    pub at: f64,
    /// Messages a second since the sample before: delivered, or else acknowledged or published.
    pub rate: f64,
    /// Cores the broker used since the sample before, if known.
    pub cores: Option<f64>,
    /// Resident memory of the broker in bytes, if known.
    pub resident: Option<u64>,
}

/// What was wrong at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Messages that did not arrive, counted for each receiver.
    pub lost: u64,
    /// Messages that arrived more than once.
    pub duplicates: u64,
    /// Messages that arrived after later ones.
    pub disordered: u64,
    /// Messages the broker refused.
    pub refused: u64,
    /// Packets that nobody should have got.
    pub strange: u64,
}

impl Faults {
    /// Counts what was wrong elsewhere, too.
    pub fn add(&mut self, more: Faults) {
        self.lost += more.lost;
        self.duplicates += more.duplicates;
        self.disordered += more.disordered;
        self.refused += more.refused;
        self.strange += more.strange;
    }

    /// Whether a broker may do none of what was seen. Repetitions are allowed where QoS 1 says so, which is for the caller to know.
    pub fn is_clean(&self) -> bool {
        *self == Faults::default()
    }
}

/// What a scenario has found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The scenario, with what tells it from others of the same name.
    pub name: String,
    /// What was done, in words.
    pub what: String,
    /// The figures, the most telling first.
    pub metrics: Vec<Metric>,
    /// Latencies in nanoseconds, if there are any.
    pub latency: Option<Summary>,
    /// Points of the curve of latencies: share and nanoseconds.
    pub curve: Vec<(f64, u64)>,
    /// The course of the measurement.
    pub samples: Vec<Sample>,
    /// What was wrong.
    pub faults: Faults,
    /// What did not stay as it was, in words.
    pub grown: Vec<String>,
    /// What makes figures void.
    pub doubts: Vec<Doubt>,
    /// Repetitions are not wrong here, as connections were lost and QoS 1 allows them.
    pub may_repeat: bool,
}

/// What was found at one broker in one round.
#[derive(Clone, Debug)]
pub struct Record {
    /// The broker's name.
    pub broker: String,
    /// The round, from 1.
    pub round: usize,
    /// What was found.
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

    /// Says that figures are void, and why.
    pub fn doubt(&mut self, about: About, what: String) {
        self.doubts.push(Doubt { what, about });
    }

    /// Says that figures are void if messages were to be sent at a rate and were not.
    pub fn doubt_rate(&mut self, asked: f64, published: f64) {
        if published < asked * REACHED {
            let what = format!("{asked:.0} messages a second were asked for, {published:.0} sent");
            self.doubt(About::All, what);
        }
    }

    /// Whether a figure cannot be compared: something about it is in doubt, or messages went wrong.
    pub fn is_void(&self, metric: &str) -> bool {
        let of_process = ["broker cpu", "broker cores", "broker memory", "disk"].contains(&metric);
        let concerns = |doubt: &Doubt| match doubt.about {
            About::All => true,
            About::Process => of_process,
            About::Speed => !of_process && metric != "client cpu",
        };
        !self.is_clean() || self.doubts.iter().any(concerns)
    }

    /// The value of a figure.
    pub fn value(&self, name: &str) -> Option<f64> {
        let metric = self.metrics.iter().find(|metric| metric.name == name)?;
        Some(metric.value)
    }

    /// Takes over latencies that were recorded in nanoseconds.
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

    /// Whether nothing was lost, nothing out of order, and nothing repeated where it must not be.
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

    /// What was wrong, in words; `None` if nothing was, and nothing was repeated either.
    pub fn wrong(&self) -> Option<String> {
        let Faults {
            lost,
            duplicates,
            disordered,
            refused,
            strange,
        } = self.faults;
        let mut words: Vec<String> = [
            (lost, "lost"),
            (duplicates, "repeated"),
            (disordered, "out of order"),
            (refused, "refused"),
            (strange, "that nobody asked for"),
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
