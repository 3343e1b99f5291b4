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
use flags::{Compare, CompareFlags, OutputFlags, resolve};
use lock::Lock;
use outcome::{Better, Outcome};
use scenario::{Load, Scenario, Target};

/// What was found at one broker in one round.
#[derive(Clone, Debug)]
struct Record {
    /// The broker's name.
    broker: String,
    /// The round, from 1.
    round: usize,
    outcome: Outcome,
}

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
    let mut records = Vec::new();
    for task in &flags.tasks {
        let outcome = measure(task.scenario, &target, &flags.load.load(*task))?;
        tell::out(table::outcome(&outcome));
        records.push(Record {
            broker: target.addr.to_string(),
            round: 1,
            outcome,
        });
    }
    finish(&records, &flags.output)
}

fn compare(flags: &CompareFlags) -> Result<(), Failure> {
    let mut records = Vec::new();
    for task in &flags.scenarios {
        if task.scenario == Scenario::Outage {
            return Err(Failure::usage(
                "outage starts its brokers itself: there is nothing to compare",
            ));
        }
        let load = flags.load.load(*task);
        let mut found = Vec::new();
        for round in 1..=flags.rounds {
            for (broker, target) in &flags.brokers {
                let outcome = measure(task.scenario, target, &load);
                let outcome = outcome.map_err(|failure| Failure {
                    message: format!("{broker}: {}", failure.message),
                    ..failure
                })?;
                found.push(Record {
                    broker: broker.clone(),
                    round,
                    outcome,
                });
            }
        }
        let names: Vec<&str> = flags
            .brokers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        tell::out(compare::table(&names, &found));
        records.append(&mut found);
    }
    finish(&records, &flags.output)
}

/// Runs a scenario, and asks the broker how long its lock was held meanwhile, if it tells that.
fn measure(scenario: Scenario, target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let before = target.metrics.map(Lock::of).transpose()?;
    let mut outcome = scenario.run(target, load)?;
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

/// Writes the files, and fails if messages went wrong.
fn finish(records: &[Record], output: &OutputFlags) -> Result<(), Failure> {
    let write = |path: &Path, text: String| {
        fs::write(path, text)
            .map_err(|error| Failure::new(exit::FAILED, format!("{}: {error}", path.display())))
    };
    if let Some(path) = &output.json {
        write(path, json::document(records))?;
    }
    if let Some(path) = &output.report {
        write(path, report::page(records))?;
    }
    let wrong: Vec<String> = records
        .iter()
        .filter(|record| !record.outcome.is_clean())
        .filter_map(|record| {
            let wrong = record.outcome.wrong()?;
            Some(format!(
                "{} at {}: {wrong}",
                record.outcome.name, record.broker
            ))
        })
        .collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(exit::FAILED, wrong.join("; "))),
    }
}
