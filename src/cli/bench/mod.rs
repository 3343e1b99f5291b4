//! `tidegate bench`: loads this broker or any other and tells what that took.
//!
//! The load ([`rig`]) is one thread with non-blocking sockets. In the closed loop a publisher sends the next message when an earlier one has
//! reached everybody it should, so no broker is made to drop; at a rate each message has its time, and its latency counts from then on.
//! Every message has a number: loss, repetition and order are always checked, and make the command fail.

mod compare;
mod flags;
mod histogram;
mod json;
mod lock;
mod meter;
mod model;
mod outcome;
mod process;
mod report;
mod rig;
mod scenario;
mod table;

use std::fs;
use std::path::Path;

pub use flags::BenchFlags;

use super::exit::{self, Failure};
use super::tell;
use flags::{Compare, CompareFlags, OutputFlags, Task, resolve};
use lock::Lock;
use model::{Load, Scenario, Target};
use outcome::{About, Better, Outcome, Record};

/// Runs the scenarios.
///
/// # Errors
/// A broker cannot be reached or breaks the protocol, or messages were lost, repeated or out of order.
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
            results.tell(&table::outcome(&outcome));
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
        results.tell(&compare::table(&names, &found));
        results.take(Ok(found))?;
        if let Some(failure) = failure {
            results.take(Err(failure))?;
            break;
        }
    }
    results.finish()
}

/// Measures a scenario at all brokers, alternately; what was found before a failure is found.
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

/// Runs a scenario, and asks the broker how long its lock was held meanwhile, if it tells that.
fn measure(scenario: Scenario, target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let before = target.metrics.map(Lock::of).transpose()?;
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
        let after = Lock::of(metrics)?;
        if let Some(us) = after.held_per_publish_since(&before) {
            outcome.add("lock held", us, "us/publish", Better::Lower);
        }
        let longest = after.longest_since(&before) * 1e6;
        outcome.add("lock held longest", longest, "us at most", Better::Lower);
    }
    Ok(outcome)
}

/// What has been found, and where it goes. Files are written after each scenario: what is found is kept, whatever happens later.
struct Results<'f> {
    records: Vec<Record>,
    /// What ended the measurements early.
    failure: Option<Failure>,
    output: &'f OutputFlags,
}

impl Results<'_> {
    /// # Errors
    /// A file cannot be written.
    fn new(output: &OutputFlags) -> Result<Results<'_>, Failure> {
        let results = Results {
            records: Vec::new(),
            failure: None,
            output,
        };
        results.write_files()?;
        Ok(results)
    }

    /// Shows a text to whoever looks on.
    fn tell(&self, text: &str) {
        match self.output.is_json_on_stdout() {
            true => tell::err(text.trim_end()),
            false => tell::out(text),
        }
    }

    /// Takes what a scenario has found. False if it has failed, and so nothing more should be measured.
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

    /// Fails if a scenario has, or if messages went wrong.
    fn finish(self) -> Result<(), Failure> {
        if self.output.is_json_on_stdout() {
            tell::out(json::document(&self.records));
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
