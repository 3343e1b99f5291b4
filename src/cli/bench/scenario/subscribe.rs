//! Many wildcard filters: what each costs in time and memory, and what they cost a message that must find its way through them.

use crate::cli::bench::meter::{Counting, Moment, Stretch};
use crate::cli::bench::model::{Load, PATIENCE, Target};
use crate::cli::bench::outcome::{Better, Outcome};
use crate::cli::bench::rig::{Client, Rig, Shape};
use crate::cli::exit::Failure;
use crate::wire::QoS;

/// Topics of each client that messages go to.
const TOPICS: usize = 10;

/// Runs it: as many filters as `--messages` says, shared out to the clients.
///
/// # Errors
/// The broker cannot be reached, breaks the protocol, or closes a connection.
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
    let rate = |stretch: &Stretch| stretch.messages(Counting::Delivered) as f64 / stretch.seconds();
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

fn cpu(stretch: &Stretch) -> Option<f64> {
    let used = stretch.to.broker?.cpu_us - stretch.from.broker?.cpu_us;
    Some(used / stretch.messages(Counting::Delivered).max(1) as f64)
}

/// Subscribes to `each` filters from each client, and measures messages to some of them.
fn through(
    target: &Target,
    load: &Load,
    clients: usize,
    each: usize,
    outcome: &mut Outcome,
) -> Result<Stretch, Failure> {
    let mut rig = Rig::new(target, load)?;
    let run = rig.name();
    let bare = |n: usize| {
        let mut client = Client::new(format!("tgs-{run}-{n}"));
        client.receives = (n * TOPICS) as u32..((n + 1) * TOPICS) as u32;
        client
    };
    rig.connect((0..clients).map(bare))?;
    // Wildcards at the end, in the middle, and both.
    let filter = |client: usize, n: usize| match n % 3 {
        0 => format!("tgb/{run}/{client}/{n}/#"),
        1 => format!("tgb/{run}/{client}/{n}/+/state"),
        _ => format!("tgb/{run}/{client}/{n}/+/+"),
    };
    let from = Moment::now(&rig, target.pid);
    for client in 0..clients {
        let filters = (0..each).map(|n| filter(client, n)).collect();
        rig.subscribe(client, filters, QoS::AtMostOnce);
    }
    rig.finish_connecting()?;
    let to = Moment::now(&rig, target.pid);
    let count = (clients * each) as f64;
    let time = (to.at - from.at) as f64 / 1000.0 / count;
    outcome.add("time", time, "us/filter", Better::Lower);
    if let (Some(from), Some(to)) = (from.broker, to.broker) {
        let cpu = (to.cpu_us - from.cpu_us) / count;
        outcome.add("cpu", cpu, "us/filter", Better::Lower);
        let memory = to.resident.saturating_sub(from.resident) as f64 / count;
        outcome.add("memory", memory, "B/filter", Better::Lower);
    }
    let publisher = rig.connect([Client::new(format!("tgp-{run}"))])?;
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
    rig.publish_from(publisher, &topics, &shape);
    rig.publish_freely();
    rig.run_for(load.warm_up)?;
    let stretch = Stretch::measure(&mut rig, target.pid, load.duration, Counting::Delivered)?;
    rig.drain(PATIENCE)?;
    outcome.faults = rig.faults();
    outcome.samples.clone_from(&stretch.samples);
    rig.disconnect(0..rig.peer_count());
    Ok(stretch)
}
