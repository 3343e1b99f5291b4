//! The parts of the load beside the steady stream.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cli::bench::model::{Load, PATIENCE, Target};
use crate::cli::bench::outcome::Faults;
use crate::cli::bench::rig::{Client, Rig, Shape};
use crate::cli::exit::Failure;
use crate::wire::QoS;

/// Clients on each side of a part.
const CLIENTS: usize = 10;
/// How long a client is away, and how long until the next goes.
const AWAY: Duration = Duration::from_millis(100);
/// Topics that are retained.
const STATES: usize = 200;
/// Bytes of payload, unless told otherwise.
const SIZE: usize = 128;

/// A part.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Durable sessions and their publishers, which lose their connections in turn.
    Durable(QoS),
    /// A shared group.
    Shared,
    /// Clients that vanish, whose wills somebody waits for.
    Wills,
    /// Retained messages, and a client that subscribes to them and takes its subscriptions back.
    Retained,
}

impl Part {
    /// All parts.
    pub const ALL: [Part; 5] = [
        Part::Durable(QoS::AtLeastOnce),
        Part::Durable(QoS::ExactlyOnce),
        Part::Shared,
        Part::Wills,
        Part::Retained,
    ];

    /// What a failure of it is called.
    pub fn name(self) -> &'static str {
        match self {
            Part::Durable(_) => "durable sessions",
            Part::Shared => "shared group",
            Part::Wills => "wills",
            Part::Retained => "retained messages",
        }
    }

    /// Runs it until it is told to stop; what was wrong.
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
        let rig = Rig::new(target, load)?;
        match self {
            Part::Durable(qos) => durable(rig, load, qos, rate, stop),
            Part::Shared => shared(rig, load, rate, stop),
            Part::Wills => wills(rig, stop),
            Part::Retained => retained(rig, load, rate, stop),
        }
    }
}

fn durable(
    mut rig: Rig,
    load: &Load,
    qos: QoS,
    rate: f64,
    stop: &AtomicBool,
) -> Result<Faults, Failure> {
    let run = rig.name();
    let topic = |n: usize| format!("tgb/{run}/{n}");
    let subscriber = |n: usize| {
        let flow = n as u32..n as u32 + 1;
        let client = Client::new(format!("tgs-{run}-{n}"));
        client.subscribed(topic(n), qos, flow).durable()
    };
    rig.connect((0..CLIENTS).map(subscriber))?;
    let publisher = |n| Client::new(format!("tgp-{run}-{n}")).durable();
    let first = rig.connect((0..CLIENTS).map(publisher))?;
    for n in 0..CLIENTS {
        rig.publish_from(first + n, &[topic(n)], &shape(load, qos));
    }
    rig.publish_at(rate);
    let mut turn = 0;
    while !stop.load(Ordering::SeqCst) {
        let peer = turn % rig.peer_count();
        // By turns in good order and not; the number of clients is even, so each gets both.
        match (turn / rig.peer_count()) % 2 {
            0 => rig.disconnect(peer..peer + 1),
            _ => rig.cut(peer),
        }
        rig.run_for(AWAY)?;
        rig.connect_again(peer..peer + 1)?;
        rig.run_for(AWAY)?;
        turn += 1;
    }
    rig.drain(PATIENCE)?;
    let mut faults = rig.faults();
    if qos == QoS::AtLeastOnce {
        // A message whose acknowledgement was lost with the connection may come again.
        faults.duplicates = 0;
    }
    leave(rig, 0..2 * CLIENTS)?;
    Ok(faults)
}

fn shared(mut rig: Rig, load: &Load, rate: f64, stop: &AtomicBool) -> Result<Faults, Failure> {
    rig.share();
    let run = rig.name();
    let filter = format!("$share/tgb/tgb/{run}/#");
    let flows = 0..CLIENTS as u32;
    let member = |n: usize| {
        let client = Client::new(format!("tgs-{run}-{n}"));
        client.subscribed(filter.clone(), QoS::AtLeastOnce, flows.clone())
    };
    rig.connect((0..CLIENTS).map(member))?;
    let first = rig.connect((0..CLIENTS).map(|n| Client::new(format!("tgp-{run}-{n}"))))?;
    for n in 0..CLIENTS {
        let topics = [format!("tgb/{run}/{n}")];
        rig.publish_from(first + n, &topics, &shape(load, QoS::AtLeastOnce));
    }
    rig.publish_at(rate);
    while !stop.load(Ordering::SeqCst) {
        rig.run_for(AWAY)?;
    }
    rig.drain(PATIENCE)?;
    let faults = rig.faults();
    rig.disconnect(0..rig.peer_count());
    Ok(faults)
}

fn wills(mut rig: Rig, stop: &AtomicBool) -> Result<Faults, Failure> {
    rig.take_anything();
    let run = rig.name();
    let watcher = Client::new(format!("tgw-{run}"));
    rig.connect([watcher.subscribed(format!("tgb/{run}/will/+"), QoS::AtLeastOnce, 0..0)])?;
    let mortal = |n: usize| Client {
        will: Some(format!("tgb/{run}/will/{n}")),
        ..Client::new(format!("tgm-{run}-{n}"))
    };
    let first = rig.connect((0..CLIENTS).map(mortal))?;
    let mut died = 0;
    while !stop.load(Ordering::SeqCst) {
        let peer = first + died as usize % CLIENTS;
        rig.cut(peer);
        died += 1;
        rig.run_for(AWAY)?;
        rig.connect_again(peer..peer + 1)?;
    }
    rig.run_until(PATIENCE, |rig| rig.counts().delivered >= died)?;
    let delivered = rig.counts().delivered;
    rig.disconnect(0..rig.peer_count());
    Ok(Faults {
        lost: died.saturating_sub(delivered),
        duplicates: delivered.saturating_sub(died),
        ..Faults::default()
    })
}

fn retained(mut rig: Rig, load: &Load, rate: f64, stop: &AtomicBool) -> Result<Faults, Failure> {
    rig.take_anything();
    let run = rig.name();
    let states: Vec<String> = (0..STATES)
        .map(|n| format!("tgb/{run}/state/{n}"))
        .collect();
    let first = rig.connect([
        Client::new(format!("tgp-{run}")),
        Client::new(format!("tgs-{run}")),
    ])?;
    let mut shape = shape(load, QoS::AtLeastOnce);
    shape.retain = true;
    rig.publish_from(first, &states, &shape);
    rig.publish_at(rate);
    while !stop.load(Ordering::SeqCst) {
        let mut filters: Vec<String> = states.iter().take(20).cloned().collect();
        filters.push(format!("tgb/{run}/+/1"));
        filters.push(format!("tgb/{run}/state/#"));
        rig.subscribe(first + 1, filters.clone(), QoS::AtLeastOnce);
        rig.finish_connecting()?;
        rig.run_for(AWAY)?;
        rig.unsubscribe(first + 1, &filters);
        rig.run_for(AWAY)?;
    }
    rig.stop_publishing();
    rig.run_until(PATIENCE, Rig::is_acknowledged)?;
    rig.clear_retained(first, &states)?;
    rig.run_for(AWAY)?;
    let refused = rig.counts().refused;
    rig.disconnect(0..rig.peer_count());
    Ok(Faults {
        refused,
        ..Faults::default()
    })
}

/// Ends durable sessions, so that nothing of the run stays behind: each connects once more with a clean session.
fn leave(mut rig: Rig, peers: std::ops::Range<usize>) -> Result<(), Failure> {
    rig.disconnect(peers.clone());
    rig.end_sessions(peers.clone())?;
    rig.disconnect(peers);
    Ok(())
}

/// Messages of the soak.
pub fn shape(load: &Load, qos: QoS) -> Shape {
    Shape {
        qos,
        size: load.size.unwrap_or(SIZE),
        retain: false,
        window: load.window,
        receivers: 0,
    }
}
