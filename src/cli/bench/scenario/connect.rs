//! Connections: how fast they are made, and what one costs that does nothing.

use crate::cli::bench::meter::Moment;
use crate::cli::bench::model::{Load, Scenario, Target};
use crate::cli::bench::outcome::{Better, Outcome};
use crate::cli::bench::rig::{Client, Rig};
use crate::cli::exit::Failure;
use std::time::Duration;

/// How long a broker has to come to rest before its memory is read.
const REST: Duration = Duration::from_millis(500);

/// Runs `conn`: clients that only connect; or `idle`: clients with a subscription each, which then do nothing.
///
/// # Errors
/// The broker cannot be reached, breaks the protocol, or closes a connection.
pub fn run(scenario: Scenario, target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let count = load.clients.unwrap_or(5_000);
    let mut rig = Rig::new(target, load)?;
    let run = rig.name();
    // What a broker makes once, at its first client, is not a connection's cost.
    rig.connect([Client::new(format!("tgf-{run}"))])?;
    rig.run_for(REST)?;
    let client = |n: usize| {
        let client = Client::new(format!("tgc-{run}-{n}"));
        match scenario {
            Scenario::Idle => client.subscribed(format!("tgb/{run}/{n}/+"), load.qos(), 0..0),
            _ => client,
        }
    };
    let from = Moment::now(&rig, target.pid);
    rig.connect((0..count).map(client))?;
    let to = Moment::now(&rig, target.pid);
    rig.run_for(REST)?;
    let rested = Moment::now(&rig, target.pid);
    rig.run_for(load.duration.min(Duration::from_secs(2)))?;
    let later = Moment::now(&rig, target.pid);

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
    outcome.set_latency(&rig.connect_latency);
    rig.disconnect(0..rig.peer_count());
    Ok(outcome)
}
