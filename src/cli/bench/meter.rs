//! Measures an interval of a run: the work done and the resources used.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::generator::{Counts, Generator};
use super::outcome::{About, Better, Outcome, Sample};
use super::process::Usage;
use crate::cli::exit::Failure;

/// From this many cores on, the load generator, which is one thread, is at its limit.
const SATURATED: f64 = 0.95;
/// Approximate number of samples of one measurement.
const SAMPLES: u32 = 40;

/// Work done and resources used up to one time.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Nanoseconds since the start of the run.
    pub at: u64,
    /// Work done.
    pub counts: Counts,
    /// Resources used by the broker, if known.
    pub broker: Option<Usage>,
    /// Resources used by this process, if known.
    pub own: Option<Usage>,
}

impl Snapshot {
    /// Takes a snapshot.
    pub fn now(generator: &Generator, pid: Option<u32>) -> Snapshot {
        Snapshot {
            at: generator.now(),
            counts: generator.counts(),
            broker: pid.and_then(Usage::of),
            own: Usage::own(),
        }
    }
}

/// What counts as a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// Messages that arrived.
    Delivered,
    /// Messages that were acknowledged.
    Acknowledged,
    /// Messages that were sent.
    Published,
}

impl Counting {
    fn of(self, counts: &Counts) -> u64 {
        match self {
            Counting::Delivered => counts.delivered,
            Counting::Acknowledged => counts.acknowledged,
            Counting::Published => counts.published,
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Counting::Delivered => ("delivered", "us/delivered"),
            Counting::Acknowledged => ("acknowledged", "us/acknowledged"),
            Counting::Published => ("published", "us/published"),
        }
    }
}

/// A measured interval.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// Its beginning.
    pub from: Snapshot,
    /// Its end.
    pub to: Snapshot,
    /// Samples over its course.
    pub samples: Vec<Sample>,
}

impl Measurement {
    /// Measures for some time, beginning now.
    ///
    /// # Errors
    /// As [`Generator::run_for`].
    pub fn measure(
        generator: &mut Generator,
        pid: Option<u32>,
        time: Duration,
        counting: Counting,
    ) -> Result<Measurement, Failure> {
        generator.latency.clear();
        let from = Snapshot::now(generator, pid);
        let mut last = from;
        let mut samples = Vec::new();
        for step in 1..=SAMPLES {
            let end = from.at + (time.as_nanos() as u64) / u64::from(SAMPLES) * u64::from(step);
            generator.run_for(Duration::from_nanos(end.saturating_sub(generator.now())))?;
            let moment = Snapshot::now(generator, pid);
            samples.push(sample(&from, &last, &moment, counting));
            last = moment;
            progress(step, samples.last());
        }
        end_progress();
        Ok(Measurement {
            from,
            to: last,
            samples,
        })
    }

    /// Creates a measurement from two snapshots, without samples.
    pub fn between(from: Snapshot, to: Snapshot) -> Measurement {
        Measurement {
            from,
            to,
            samples: Vec::new(),
        }
    }

    /// Returns its length in seconds.
    pub fn seconds(&self) -> f64 {
        (self.to.at - self.from.at).max(1) as f64 / 1e9
    }

    /// Returns the number of its messages.
    pub fn messages(&self, counting: Counting) -> u64 {
        counting.of(&self.to.counts) - counting.of(&self.from.counts)
    }

    /// Adds the figures for each message: rate, processor time, memory and disk.
    pub fn add_figures(&self, outcome: &mut Outcome, counting: Counting) {
        let messages = self.messages(counting);
        let each = messages.max(1) as f64;
        let (rate, cpu) = counting.words();
        outcome.add(rate, messages as f64 / self.seconds(), "/s", Better::Higher);
        if let (Some(from), Some(to)) = (self.from.broker, self.to.broker) {
            let used = to.cpu_us - from.cpu_us;
            outcome.add("broker cpu", used / each, cpu, Better::Lower);
            outcome.add(
                "broker cores",
                used / 1e6 / self.seconds(),
                "",
                Better::Neither,
            );
            let disk = (to.written - from.written) as f64 / each;
            outcome.add("disk", disk, "B/message", Better::Lower);
            let memory = to.resident as f64 / 1e6;
            outcome.add("broker memory", memory, "MB", Better::Lower);
        }
        if let (Some(from), Some(to)) = (self.from.own, self.to.own) {
            let used = to.cpu_us - from.cpu_us;
            outcome.add("client cpu", used / each, cpu, Better::Neither);
            let cores = used / 1e6 / self.seconds();
            if cores >= SATURATED {
                let what = format!("the load used {cores:.2} of its one core, and so is the limit");
                outcome.doubt(About::Speed, what);
            }
        }
        outcome.samples.clone_from(&self.samples);
    }
}

fn sample(from: &Snapshot, last: &Snapshot, now: &Snapshot, counting: Counting) -> Sample {
    let seconds = (now.at - last.at).max(1) as f64 / 1e9;
    let messages = counting.of(&now.counts) - counting.of(&last.counts);
    Sample {
        at: (now.at - from.at) as f64 / 1e9,
        rate: messages as f64 / seconds,
        cores: last
            .broker
            .zip(now.broker)
            .map(|(last, now)| (now.cpu_us - last.cpu_us) / 1e6 / seconds),
        resident: now.broker.map(|broker| broker.resident),
    }
}

/// Shows a progress line on a terminal.
fn progress(step: u32, sample: Option<&Sample>) {
    let mut error = std::io::stderr();
    if let Some(sample) = sample
        && error.is_terminal()
    {
        let done = (step * 30 / SAMPLES) as usize;
        let bar = format!("{}{}", "#".repeat(done), ".".repeat(30 - done));
        // Progress is not needed, so errors are ignored.
        let _ = write!(error, "\r[{bar}] {:>12.0}/s ", sample.rate);
    }
}

fn end_progress() {
    let mut error = std::io::stderr();
    if error.is_terminal() {
        let _ = write!(error, "\r{}\r", " ".repeat(60));
    }
}
