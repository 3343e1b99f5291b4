//! The workloads next to the steady stream.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cli::bench::generator::{Client, Generator, Shape};
use crate::cli::bench::model::{IDLE_TIMEOUT, Load, Target};
use crate::cli::bench::outcome::Faults;
use crate::cli::exit::Failure;
use crate::wire::QoS;

/// Clients on each side of a workload.
const CLIENTS: usize = 10;
/// How long a client stays disconnected, and the time until the next one disconnects.
const AWAY: Duration = Duration::from_millis(100);
/// Number of retained topics.
const STATES: usize = 200;
/// Length of the payload in bytes by default.
const SIZE: usize = 128;

/// A workload.
#[derive(Clone, Copy, Debug)]
pub enum Workload {
    /// Durable sessions and their publishers, which lose their connections in turn.
    Durable(QoS),
    /// A shared group.
    Shared,
    /// Clients that vanish, and a subscriber of their wills.
    Wills,
    /// Retained messages, and a client that subscribes to them and unsubscribes again.
    Retained,
}

impl Workload {
    /// All workloads.
    pub const ALL: [Workload; 5] = [
        Workload::Durable(QoS::AtLeastOnce),
        Workload::Durable(QoS::ExactlyOnce),
        Workload::Shared,
        Workload::Wills,
        Workload::Retained,
    ];

    /// Returns the name for error texts.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Durable(_) => "durable sessions",
            Workload::Shared => "shared group",
            Workload::Wills => "wills",
            Workload::Retained => "retained messages",
        }
    }

    /// Runs it until it is told to stop. Returns the errors of its messages.
    ///
    /// # Errors
    /// As [`super::run`].
    pub fn run(
        self,
        target: &Target,
        load: &Load,
        rate: f64,
        stop: &AtomicBool,
    ) -> Result<Faults, Failure> {
        let generator = Generator::new(target, load)?;
        match self {
            Workload::Durable(qos) => durable(generator, load, qos, rate, stop),
            Workload::Shared => shared(generator, load, rate, stop),
            Workload::Wills => wills(generator, stop),
            Workload::Retained => retained(generator, load, rate, stop),
        }
    }
}

fn durable(
    mut generator: Generator,
    load: &Load,
    qos: QoS,
    rate: f64,
    stop: &AtomicBool,
) -> Result<Faults, Failure> {
    let run = generator.name();
    let topic = |n: usize| format!("tgb/{run}/{n}");
    let subscriber = |n: usize| {
        let flow = n as u32..n as u32 + 1;
        let client = Client::new(format!("tgs-{run}-{n}"));
        client.subscribed(topic(n), qos, flow).durable()
    };
    generator.connect((0..CLIENTS).map(subscriber))?;
    let publisher = |n| Client::new(format!("tgp-{run}-{n}")).durable();
    let first = generator.connect((0..CLIENTS).map(publisher))?;
    for n in 0..CLIENTS {
        generator.publish_from(first + n, &[topic(n)], &shape(load, qos));
    }
    generator.publish_at(rate);
    let mut turn = 0;
    while !stop.load(Ordering::SeqCst) {
        let peer = turn % generator.peer_count();
        // Alternates between DISCONNECT and a lost connection. The number of clients is even, so
        // each client gets both.
        match (turn / generator.peer_count()) % 2 {
            0 => generator.disconnect(peer..peer + 1),
            _ => generator.drop_connection(peer),
        }
        generator.run_for(AWAY)?;
        generator.connect_again(peer..peer + 1)?;
        generator.run_for(AWAY)?;
        turn += 1;
    }
    generator.drain(IDLE_TIMEOUT)?;
    let mut faults = generator.faults();
    if qos == QoS::AtLeastOnce {
        // A message whose acknowledgement was lost with the connection may be repeated.
        faults.duplicates = 0;
    }
    leave(generator, 0..2 * CLIENTS)?;
    Ok(faults)
}

fn shared(
    mut generator: Generator,
    load: &Load,
    rate: f64,
    stop: &AtomicBool,
) -> Result<Faults, Failure> {
    generator.check_as_group();
    let run = generator.name();
    let filter = format!("$share/tgb/tgb/{run}/#");
    let flows = 0..CLIENTS as u32;
    let member = |n: usize| {
        let client = Client::new(format!("tgs-{run}-{n}"));
        client.subscribed(filter.clone(), QoS::AtLeastOnce, flows.clone())
    };
    generator.connect((0..CLIENTS).map(member))?;
    let first = generator.connect((0..CLIENTS).map(|n| Client::new(format!("tgp-{run}-{n}"))))?;
    for n in 0..CLIENTS {
        let topics = [format!("tgb/{run}/{n}")];
        generator.publish_from(first + n, &topics, &shape(load, QoS::AtLeastOnce));
    }
    generator.publish_at(rate);
    while !stop.load(Ordering::SeqCst) {
        generator.run_for(AWAY)?;
    }
    generator.drain(IDLE_TIMEOUT)?;
    let faults = generator.faults();
    generator.disconnect(0..generator.peer_count());
    Ok(faults)
}

fn wills(mut generator: Generator, stop: &AtomicBool) -> Result<Faults, Failure> {
    generator.accept_all();
    let run = generator.name();
    let watcher = Client::new(format!("tgw-{run}"));
    generator.connect([watcher.subscribed(format!("tgb/{run}/will/+"), QoS::AtLeastOnce, 0..0)])?;
    let mortal = |n: usize| Client {
        will: Some(format!("tgb/{run}/will/{n}")),
        ..Client::new(format!("tgm-{run}-{n}"))
    };
    let first = generator.connect((0..CLIENTS).map(mortal))?;
    let mut died = 0;
    while !stop.load(Ordering::SeqCst) {
        let peer = first + died as usize % CLIENTS;
        generator.drop_connection(peer);
        died += 1;
        generator.run_for(AWAY)?;
        generator.connect_again(peer..peer + 1)?;
    }
    generator.run_until(IDLE_TIMEOUT, |generator| {
        generator.counts().delivered >= died
    })?;
    let delivered = generator.counts().delivered;
    generator.disconnect(0..generator.peer_count());
    Ok(Faults {
        lost: died.saturating_sub(delivered),
        duplicates: delivered.saturating_sub(died),
        ..Faults::default()
    })
}

fn retained(
    mut generator: Generator,
    load: &Load,
    rate: f64,
    stop: &AtomicBool,
) -> Result<Faults, Failure> {
    generator.accept_all();
    let run = generator.name();
    let states: Vec<String> = (0..STATES)
        .map(|n| format!("tgb/{run}/state/{n}"))
        .collect();
    let first = generator.connect([
        Client::new(format!("tgp-{run}")),
        Client::new(format!("tgs-{run}")),
    ])?;
    let mut shape = shape(load, QoS::AtLeastOnce);
    shape.retain = true;
    generator.publish_from(first, &states, &shape);
    generator.publish_at(rate);
    while !stop.load(Ordering::SeqCst) {
        let mut filters: Vec<String> = states.iter().take(20).cloned().collect();
        filters.push(format!("tgb/{run}/+/1"));
        filters.push(format!("tgb/{run}/state/#"));
        generator.subscribe(first + 1, filters.clone(), QoS::AtLeastOnce);
        generator.finish_connecting()?;
        generator.run_for(AWAY)?;
        generator.unsubscribe(first + 1, &filters);
        generator.run_for(AWAY)?;
    }
    generator.stop_publishing();
    generator.run_until(IDLE_TIMEOUT, Generator::is_acknowledged)?;
    generator.clear_retained(first, &states)?;
    generator.run_for(AWAY)?;
    let refused = generator.counts().refused;
    generator.disconnect(0..generator.peer_count());
    Ok(Faults {
        refused,
        ..Faults::default()
    })
}

/// Ends durable sessions, so that nothing of the run is left: each client connects once more with a
/// clean session.
fn leave(mut generator: Generator, peers: std::ops::Range<usize>) -> Result<(), Failure> {
    generator.disconnect(peers.clone());
    generator.end_sessions(peers.clone())?;
    generator.disconnect(peers);
    Ok(())
}

/// Returns the parameters of messages.
pub fn shape(load: &Load, qos: QoS) -> Shape {
    Shape {
        qos,
        size: load.size.unwrap_or(SIZE),
        retain: false,
        window: load.window,
        receivers: 0,
    }
}
