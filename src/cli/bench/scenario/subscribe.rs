//! Many wildcard filters: the cost of each in time and memory, and the cost of matching a message
//! against them.

use crate::cli::bench::generator::{Client, Generator, Shape};
use crate::cli::bench::meter::{Counting, Measurement, Snapshot};
use crate::cli::bench::model::{IDLE_TIMEOUT, Load, Target};
use crate::cli::bench::outcome::{Better, Outcome};
use crate::cli::exit::Failure;
use crate::wire::QoS;

/// Topics of each client that messages are published to.
const TOPICS: usize = 10;

/// Runs it with `--messages` filters, divided among the clients.
///
/// # Errors
/// Fails if the broker cannot be reached, violates the protocol, or closes a connection.
pub fn run(target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let clients = load.clients.unwrap_or(100);
    let each = (load.messages.unwrap_or(200_000) as usize / clients).max(TOPICS);
    let count = (each * clients) as f64;
    let mut outcome = Outcome {
        name: "subscribe".to_owned(),
        what: format!(
            "{clients} clients subscribe to {each} wildcard filters each; then a message matches one of them all"
        ),
        ..Outcome::default()
    };
    let plain = through(target, load, clients, TOPICS, &mut Outcome::default())?;
    let full = through(target, load, clients, each, &mut outcome)?;
    let rate = |measurement: &Measurement| {
        measurement.messages(Counting::Delivered) as f64 / measurement.seconds()
    };
    outcome.add("filters", count, "", Better::Neither);
    outcome.add("delivered", rate(&full), "/s", Better::Higher);
    outcome.add("with few filters", rate(&plain), "/s", Better::Neither);
    if let (Some(plain), Some(full)) = (cpu(&plain), cpu(&full)) {
        outcome.add("broker cpu", full, "us/delivered", Better::Lower);
        let more = full - plain;
        outcome.add("of it for filters", more, "us/delivered", Better::Lower);
    }
    Ok(outcome)
}

fn cpu(measurement: &Measurement) -> Option<f64> {
    let used = measurement.to.broker?.cpu_us - measurement.from.broker?.cpu_us;
    Some(used / measurement.messages(Counting::Delivered).max(1) as f64)
}

/// Subscribes each client to `each` filters, and measures messages to some of them.
fn through(
    target: &Target,
    load: &Load,
    clients: usize,
    each: usize,
    outcome: &mut Outcome,
) -> Result<Measurement, Failure> {
    let mut generator = Generator::new(target, load)?;
    let run = generator.name();
    let bare = |n: usize| {
        let mut client = Client::new(format!("tgs-{run}-{n}"));
        client.receives = (n * TOPICS) as u32..((n + 1) * TOPICS) as u32;
        client
    };
    generator.connect((0..clients).map(bare))?;
    // Wildcards at the end, in the middle, and both.
    let filter = |client: usize, n: usize| match n % 3 {
        0 => format!("tgb/{run}/{client}/{n}/#"),
        1 => format!("tgb/{run}/{client}/{n}/+/state"),
        _ => format!("tgb/{run}/{client}/{n}/+/+"),
    };
    let from = Snapshot::now(&generator, target.pid);
    for client in 0..clients {
        let filters = (0..each).map(|n| filter(client, n)).collect();
        generator.subscribe(client, filters, QoS::AtMostOnce);
    }
    generator.finish_connecting()?;
    let to = Snapshot::now(&generator, target.pid);
    let count = (clients * each) as f64;
    let time = (to.at - from.at) as f64 / 1000.0 / count;
    outcome.add("time", time, "us/filter", Better::Lower);
    if let (Some(from), Some(to)) = (from.broker, to.broker) {
        let cpu = (to.cpu_us - from.cpu_us) / count;
        outcome.add("cpu", cpu, "us/filter", Better::Lower);
        let memory = to.resident.saturating_sub(from.resident) as f64 / count;
        outcome.add("memory", memory, "B/filter", Better::Lower);
    }
    let publisher = generator.connect([Client::new(format!("tgp-{run}"))])?;
    let topic = |n: usize| {
        let (client, at) = (n / TOPICS, n % TOPICS * (each / TOPICS));
        format!("tgb/{run}/{client}/{at}/x/state")
    };
    let topics: Vec<String> = (0..clients * TOPICS).map(topic).collect();
    let shape = Shape {
        qos: load.qos(),
        size: load.size.unwrap_or(64),
        retain: false,
        window: load.window * 10,
        receivers: 1,
    };
    generator.publish_from(publisher, &topics, &shape);
    generator.publish_freely();
    generator.run_for(load.warm_up)?;
    let measurement = Measurement::measure(
        &mut generator,
        target.pid,
        load.duration,
        Counting::Delivered,
    )?;
    generator.drain(IDLE_TIMEOUT)?;
    outcome.faults = generator.faults();
    outcome.samples.clone_from(&measurement.samples);
    generator.disconnect(0..generator.peer_count());
    Ok(measurement)
}
