//! Subscribers to what others publish, for example a `bench pub` elsewhere.

use crate::cli::bench::meter::{Counting, Stretch};
use crate::cli::bench::model::{Load, Target};
use crate::cli::bench::outcome::Outcome;
use crate::cli::bench::rig::{Client, Rig};
use crate::cli::exit::Failure;

/// Runs it.
///
/// # Errors
/// The broker cannot be reached, breaks the protocol, or closes a connection.
pub fn run(target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let clients = load.clients.unwrap_or(1);
    let mut rig = Rig::new(target, load)?;
    rig.take_anything();
    let run = rig.name();
    let client = |n: usize| {
        let client = Client::new(format!("tgs-{run}-{n}"));
        client.subscribed(load.topic.clone(), load.qos(), 0..0)
    };
    rig.connect((0..clients).map(client))?;
    rig.run_for(load.warm_up)?;
    let stretch = Stretch::measure(&mut rig, target.pid, load.duration, Counting::Delivered)?;
    let mut outcome = Outcome {
        name: format!("sub qos{}", load.qos() as u8),
        what: format!("{clients} subscribers to {}", load.topic),
        ..Outcome::default()
    };
    stretch.tell(&mut outcome, Counting::Delivered);
    rig.disconnect(0..rig.peer_count());
    Ok(outcome)
}
