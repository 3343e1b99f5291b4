//! Subscribers to messages of other publishers, for example of another `bench pub`.

use crate::cli::bench::generator::{Client, Generator};
use crate::cli::bench::meter::{Counting, Measurement};
use crate::cli::bench::model::{Load, Target};
use crate::cli::bench::outcome::Outcome;
use crate::cli::exit::Failure;

/// Runs it.
///
/// # Errors
/// Fails if the broker cannot be reached, violates the protocol, or closes a connection.
pub fn run(target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let clients = load.clients.unwrap_or(1);
    let mut generator = Generator::new(target, load)?;
    generator.accept_all();
    let run = generator.name();
    let client = |n: usize| {
        let client = Client::new(format!("tgs-{run}-{n}"));
        client.subscribed(load.topic.clone(), load.qos(), 0..0)
    };
    generator.connect((0..clients).map(client))?;
    generator.run_for(load.warm_up)?;
    let measurement = Measurement::measure(
        &mut generator,
        target.pid,
        load.duration,
        Counting::Delivered,
    )?;
    let mut outcome = Outcome {
        name: format!("sub qos{}", load.qos() as u8),
        what: format!("{clients} subscribers to {}", load.topic),
        ..Outcome::default()
    };
    measurement.add_figures(&mut outcome, Counting::Delivered);
    generator.disconnect(0..generator.peer_count());
    Ok(outcome)
}
