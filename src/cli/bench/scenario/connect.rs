//! Connections: how fast they are opened, and the cost of an idle one.

use crate::cli::bench::generator::{Client, Generator};
use crate::cli::bench::meter::Snapshot;
use crate::cli::bench::model::{Load, Scenario, Target};
use crate::cli::bench::outcome::{Better, Outcome};
use crate::cli::exit::Failure;
use std::time::Duration;

/// Time for the broker to settle before its memory is read.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Runs `conn`, where clients only connect, or `idle`, where each client has a subscription and
/// then does nothing.
///
/// # Errors
/// Fails if the broker cannot be reached, violates the protocol, or closes a connection.
pub fn run(scenario: Scenario, target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let count = load.clients.unwrap_or(5_000);
    let mut generator = Generator::new(target, load)?;
    let run = generator.name();
    // What a broker allocates once, at its first client, is not a cost of a connection.
    generator.connect([Client::new(format!("tgf-{run}"))])?;
    generator.run_for(SETTLE_TIME)?;
    let client = |n: usize| {
        let client = Client::new(format!("tgc-{run}-{n}"));
        match scenario {
            Scenario::Idle => client.subscribed(format!("tgb/{run}/{n}/+"), load.qos(), 0..0),
            _ => client,
        }
    };
    let from = Snapshot::now(&generator, target.pid);
    generator.connect((0..count).map(client))?;
    let to = Snapshot::now(&generator, target.pid);
    generator.run_for(SETTLE_TIME)?;
    let rested = Snapshot::now(&generator, target.pid);
    generator.run_for(load.duration.min(Duration::from_secs(2)))?;
    let later = Snapshot::now(&generator, target.pid);

    let mut outcome = Outcome {
        name: scenario.name(),
        what: format!(
            "{count} clients connect{}",
            match scenario {
                Scenario::Idle => ", subscribe to a filter each, and do nothing",
                _ => "",
            }
        ),
        ..Outcome::default()
    };
    let seconds = (to.at - from.at).max(1) as f64 / 1e9;
    outcome.add("connected", count as f64 / seconds, "/s", Better::Higher);
    if let (Some(before), Some(after), Some(at_rest), Some(at_end)) =
        (from.broker, to.broker, rested.broker, later.broker)
    {
        let each = count as f64;
        let cpu = (after.cpu_us - before.cpu_us) / each;
        outcome.add("broker cpu", cpu, "us/connection", Better::Lower);
        let memory = at_rest.resident.saturating_sub(before.resident) as f64 / each;
        outcome.add("memory", memory, "B/connection", Better::Lower);
        let resting = (later.at - rested.at).max(1) as f64 / 1e9;
        let cores = (at_end.cpu_us - at_rest.cpu_us) / 1e6 / resting;
        outcome.add("cores at rest", cores, "", Better::Lower);
    }
    outcome.set_latency(&generator.connect_latency);
    generator.disconnect(0..generator.peer_count());
    Ok(outcome)
}
