//! Measures a stretch of a run: what was done in it, and what it took.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::outcome::{About, Better, Outcome, Sample};
use super::process::Usage;
use super::rig::{Counts, Rig};
use crate::cli::exit::Failure;

/// Cores from which on the load, which is one thread, can do no more.
const SATURATED: f64 = 0.95;
/// Samples of one stretch, about.
const SAMPLES: u32 = 40;

/// A moment: what had been done and used.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Nanoseconds of the run.
    pub at: u64,
    /// What had been done.
    pub counts: Counts,
    /// What the broker had used, if it is known.
    pub broker: Option<Usage>,
    /// What this process had used.
    pub own: Option<Usage>,
}

impl Moment {
    /// This moment.
    pub fn now(rig: &Rig, pid: Option<u32>) -> Moment {
        Moment {
            at: rig.now(),
            counts: rig.counts(),
            broker: pid.and_then(Usage::of),
            own: Usage::own(),
        }
    }
}

/// What counts as a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// What arrived.
    Delivered,
    /// What was acknowledged.
    Acknowledged,
    /// What was sent.
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

/// A stretch that was measured.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Its beginning.
    pub from: Moment,
    /// Its end.
    pub to: Moment,
    /// Its course.
    pub samples: Vec<Sample>,
}

impl Stretch {
    /// Measures from now on for some time.
    ///
    /// # Errors
    /// As [`Rig::run_for`].
    pub fn measure(
        rig: &mut Rig,
        pid: Option<u32>,
        time: Duration,
        counting: Counting,
    ) -> Result<Stretch, Failure> {
        rig.latency.clear();
        let from = Moment::now(rig, pid);
        let mut last = from;
        let mut samples = Vec::new();
        for step in 1..=SAMPLES {
            let end = from.at + (time.as_nanos() as u64) / u64::from(SAMPLES) * u64::from(step);
            rig.run_for(Duration::from_nanos(end.saturating_sub(rig.now())))?;
            let moment = Moment::now(rig, pid);
            samples.push(sample(&from, &last, &moment, counting));
            last = moment;
            progress(step, samples.last());
        }
        end_progress();
        Ok(Stretch {
            from,
            to: last,
            samples,
        })
    }

    /// A stretch between two moments, without its course.
    pub fn between(from: Moment, to: Moment) -> Stretch {
        Stretch {
            from,
            to,
            samples: Vec::new(),
        }
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        (self.to.at - self.from.at).max(1) as f64 / 1e9
    }

    /// Messages in it.
    pub fn messages(&self, counting: Counting) -> u64 {
        counting.of(&self.to.counts) - counting.of(&self.from.counts)
    }

    /// Tells what a message took: rate, processor time, memory and disk.
    pub fn tell(&self, outcome: &mut Outcome, counting: Counting) {
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

fn sample(from: &Moment, last: &Moment, now: &Moment, counting: Counting) -> Sample {
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

/// A line on a terminal that shows how far the measurement is.
fn progress(step: u32, sample: Option<&Sample>) {
    let mut error = std::io::stderr();
    if let Some(sample) = sample
        && error.is_terminal()
    {
        let done = (step * 30 / SAMPLES) as usize;
        let bar = format!("{}{}", "#".repeat(done), ".".repeat(30 - done));
        // Nobody needs it.
        let _ = write!(error, "\r[{bar}] {:>12.0}/s ", sample.rate);
    }
}

fn end_progress() {
    let mut error = std::io::stderr();
    if error.is_terminal() {
        let _ = write!(error, "\r{}\r", " ".repeat(60));
    }
}
