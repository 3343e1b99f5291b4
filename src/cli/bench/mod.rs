//! `tidegate bench`: loads a broker and measures it.
//!
//! The load [`generator`] is one thread with non-blocking sockets. In the closed loop a publisher
//! sends its next message when an earlier one has reached all its receivers, so a broker need not
//! drop any. With a fixed rate each message has a scheduled time, and its latency is measured from
//! that time. Every message has a number: loss, repetition and order are always checked, and the
//! command fails if they are wrong.

mod compare;
mod flags;
mod generator;
mod histogram;
mod json;
mod lock;
mod meter;
mod model;
mod outcome;
mod process;
mod report;
mod scenario;
mod table;

use std::fs;
use std::path::Path;

pub use flags::BenchFlags;

use super::exit::{self, Failure};
use super::print;
use flags::{Compare, CompareFlags, OutputFlags, Task, resolve};
use lock::LockFigures;
use model::{Load, Scenario, Target};
use outcome::{About, Better, Outcome, Record};

/// Runs the scenarios.
///
/// # Errors
/// Fails if a broker cannot be reached or violates the protocol, or if messages were lost, repeated
/// or out of order.
pub fn run(flags: BenchFlags) -> Result<(), Failure> {
    if let Some(Compare::Compare(flags)) = flags.compare {
        return compare(&flags);
    }
    let port = flags.port.unwrap_or_else(|| flags.load.default_port());
    let target = Target {
        host: flags.host.clone(),
        addr: resolve(&flags.host, port)?,
        pid: flags.pid,
        metrics: match flags.metrics_port {
            Some(port) => Some(resolve(&flags.host, port)?),
            None => None,
        },
    };
    let mut results = Results::new(&flags.output)?;
    for task in &flags.tasks {
        let found = measure(task.scenario, &target, &flags.load.load(*task));
        let found = found.map(|outcome| {
            results.print(&table::outcome(&outcome));
            vec![Record {
                broker: target.addr.to_string(),
                round: 1,
                outcome,
            }]
        });
        if !results.take(found)? {
            break;
        }
    }
    results.finish()
}

fn compare(flags: &CompareFlags) -> Result<(), Failure> {
    if flags
        .scenarios
        .iter()
        .any(|task| task.scenario == Scenario::Outage)
    {
        return Err(Failure::usage(
            "outage starts its brokers itself: there is nothing to compare",
        ));
    }
    let mut results = Results::new(&flags.output)?;
    let names: Vec<&str> = flags
        .brokers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    for task in &flags.scenarios {
        let (found, failure) = rounds(flags, *task);
        results.print(&compare::table(&names, &found));
        results.take(Ok(found))?;
        if let Some(failure) = failure {
            results.take(Err(failure))?;
            break;
        }
    }
    results.finish()
}

/// Measures a scenario with all brokers in turn. Returns the results before a failure, too.
fn rounds(flags: &CompareFlags, task: Task) -> (Vec<Record>, Option<Failure>) {
    let load = flags.load.load(task);
    let mut found = Vec::new();
    for round in 1..=flags.rounds {
        for (broker, target) in &flags.brokers {
            match measure(task.scenario, target, &load) {
                Ok(outcome) => found.push(Record {
                    broker: broker.clone(),
                    round,
                    outcome,
                }),
                Err(failure) => {
                    let message = format!("{broker}: {}", failure.message);
                    return (found, Some(Failure { message, ..failure }));
                }
            }
        }
    }
    (found, None)
}

/// Runs a scenario. Also reads how long the broker held its lock, if its metrics are known.
fn measure(scenario: Scenario, target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let before = target.metrics.map(LockFigures::of).transpose()?;
    let elsewhere = target
        .pid
        .filter(|pid| process::listens(*pid, target.addr.port()) == Some(false));
    if let Some(pid) = elsewhere.filter(|pid| process::Usage::of(*pid).is_none()) {
        return Err(Failure::usage(format!(
            "--pid {pid}: there is no such process"
        )));
    }
    let mut outcome = scenario.run(target, load)?;
    if let Some(pid) = elsewhere {
        let port = target.addr.port();
        let what = format!("process {pid} does not listen at port {port}: it is another one");
        outcome.doubt(About::Process, what);
    }
    if let (Some(metrics), Some(before)) = (target.metrics, before) {
        let after = LockFigures::of(metrics)?;
        if let Some(us) = after.held_per_publish_since(&before) {
            outcome.add("lock held", us, "us/publish", Better::Lower);
        }
        let longest = after.longest_since(&before) * 1e6;
        outcome.add("lock held longest", longest, "us at most", Better::Lower);
    }
    Ok(outcome)
}

/// The results and their output. Files are written after each scenario, so that results survive a
/// later failure.
struct Results<'f> {
    records: Vec<Record>,
    /// The failure that ended the measurements early.
    failure: Option<Failure>,
    output: &'f OutputFlags,
}

impl Results<'_> {
    /// Creates empty results.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    fn new(output: &OutputFlags) -> Result<Results<'_>, Failure> {
        let results = Results {
            records: Vec::new(),
            failure: None,
            output,
        };
        results.write_files()?;
        Ok(results)
    }

    /// Prints a text for the user.
    fn print(&self, text: &str) {
        match self.output.is_json_on_stdout() {
            true => print::err(text.trim_end()),
            false => print::out(text),
        }
    }

    /// Adds the results of a scenario. Returns false if it failed and nothing more should be
    /// measured.
    fn take(&mut self, found: Result<Vec<Record>, Failure>) -> Result<bool, Failure> {
        match found {
            Ok(mut found) => {
                self.records.append(&mut found);
                self.write_files()?;
                Ok(true)
            }
            Err(failure) => {
                self.failure = Some(failure);
                Ok(false)
            }
        }
    }

    fn write_files(&self) -> Result<(), Failure> {
        let write = |path: &Path, text: String| {
            fs::write(path, text)
                .map_err(|error| Failure::new(exit::FAILED, format!("{}: {error}", path.display())))
        };
        if let Some(path) = &self.output.json
            && !self.output.is_json_on_stdout()
        {
            write(path, json::document(&self.records))?;
        }
        if let Some(path) = &self.output.report {
            write(path, report::page(&self.records))?;
        }
        Ok(())
    }

    /// Fails if a scenario failed, or if messages were wrong.
    fn finish(self) -> Result<(), Failure> {
        if self.output.is_json_on_stdout() {
            print::out(json::document(&self.records));
        }
        let wrong = self
            .records
            .iter()
            .filter(|record| !record.outcome.is_clean());
        let wrong = wrong.filter_map(|record| {
            let (name, broker) = (&record.outcome.name, &record.broker);
            Some(format!("{name} at {broker}: {}", record.outcome.wrong()?))
        });
        let mut wrong: Vec<String> = wrong.collect();
        let code = self
            .failure
            .as_ref()
            .map_or(exit::FAILED, |failure| failure.code);
        wrong.extend(self.failure.map(|failure| failure.message));
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Failure::new(code, wrong.join("; "))),
        }
    }
}
