//! A broker that is killed under load with a backlog: how soon it is ready again, and what it has lost or repeats.

use std::process::Command;
use std::time::Duration;

use super::spawned::Spawned;
use crate::cli::bench::meter::Moment;
use crate::cli::bench::model::{Load, PATIENCE, Target};
use crate::cli::bench::outcome::{Better, Outcome};
use crate::cli::bench::process::Usage;
use crate::cli::bench::rig::{Client, Rig, Shape};
use crate::cli::exit::{self, Failure};
use crate::wire::QoS;

const PUBLISHERS: usize = 10;
const SUBSCRIBERS: usize = 50;
/// Runs it: `--spawn` starts the broker, which gets `--messages` messages, is killed, and is started again.
///
/// # Errors
/// The broker cannot be started or reached, or breaks the protocol.
pub fn run(target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let command = load.spawn.as_deref();
    let command = command.ok_or_else(|| {
        Failure::usage("restart starts the broker itself: give --spawn \"COMMAND\"")
    })?;
    let qos = load.qos.unwrap_or(QoS::AtLeastOnce);
    if qos == QoS::AtMostOnce {
        return Err(Failure::usage(
            "restart is about QoS 1 and 2: give -q 1 or -q 2",
        ));
    }
    let wanted = load.messages.unwrap_or(100_000);
    let (spawned, first_start) = start(command, target, load)?;
    let mut rig = Rig::new(target, load)?;
    load_backlog(&mut rig, load, qos, wanted)?;
    let acknowledged = rig.counts().acknowledged;
    let unacknowledged = rig.counts().published - acknowledged;
    drop(spawned);
    rig.stop_publishing();
    rig.tolerate_loss(true);
    rig.run_until(PATIENCE, |rig| rig.connected() == 0)?;

    let (spawned, second_start) = start(command, target, load)?;
    let memory = Usage::of(spawned.pid()).map(|usage| usage.resident);
    rig.tolerate_loss(false);
    rig.connect_again(SUBSCRIBERS..SUBSCRIBERS + PUBLISHERS)?;
    if !rig.run_until(PATIENCE, Rig::is_acknowledged)? {
        return Err(Failure::new(
            exit::TIMEOUT,
            "what was sent again was never acknowledged",
        ));
    }
    let from = Moment::now(&rig, None);
    rig.connect_again(0..SUBSCRIBERS)?;
    rig.run_until(PATIENCE, |rig| rig.counts().arrived >= rig.expected())?;
    let seconds = (rig.now() - from.at) as f64 / 1e9;
    // What comes twice comes late: wait a little for it.
    rig.run_for(Duration::from_millis(300))?;

    let faults = rig.faults();
    let mut outcome = Outcome {
        name: format!("restart qos{}", qos as u8),
        what: format!(
            "kill -9 under load with {acknowledged} messages for {SUBSCRIBERS} offline durable sessions, then a restart"
        ),
        faults,
        may_repeat: qos == QoS::AtLeastOnce,
        ..Outcome::default()
    };
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    outcome.add("ready after kill", ms(second_start), "ms", Better::Lower);
    outcome.add("ready when new", ms(first_start), "ms", Better::Lower);
    if let Some(memory) = memory {
        outcome.add(
            "memory when ready",
            memory as f64 / 1e6,
            "MB",
            Better::Lower,
        );
    }
    outcome.add("backlog", acknowledged as f64, "messages", Better::Neither);
    outcome.add(
        "on their way",
        unacknowledged as f64,
        "messages",
        Better::Neither,
    );
    outcome.add("lost", faults.lost as f64, "messages", Better::Lower);
    outcome.add(
        "repeated",
        faults.duplicates as f64,
        "messages",
        Better::Lower,
    );
    outcome.add(
        "drained",
        rig.expected() as f64 / seconds,
        "/s",
        Better::Higher,
    );
    rig.disconnect(0..rig.peer_count());
    Ok(outcome)
}

fn start(command: &str, target: &Target, load: &Load) -> Result<(Spawned, Duration), Failure> {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {command}")]);
    Spawned::start(shell, command, target, load)
}

/// Makes durable sessions that are offline, and publishes until so many messages for them are acknowledged. More are on their way then.
fn load_backlog(rig: &mut Rig, load: &Load, qos: QoS, wanted: u64) -> Result<(), Failure> {
    let run = rig.name();
    let topics: Vec<String> = (0..SUBSCRIBERS).map(|n| format!("tgb/{run}/{n}")).collect();
    let client = |n: usize| {
        let flow = n as u32..n as u32 + 1;
        let client = Client::new(format!("tgs-{run}-{n}"));
        client.subscribed(topics[n].clone(), qos, flow).durable()
    };
    rig.connect((0..SUBSCRIBERS).map(client))?;
    rig.disconnect(0..SUBSCRIBERS);
    let publishers = (0..PUBLISHERS).map(|n| Client::new(format!("tgp-{run}-{n}")).durable());
    let first = rig.connect(publishers)?;
    let shape = Shape {
        qos,
        size: load.size.unwrap_or(256),
        retain: false,
        window: load.window,
        receivers: 0,
    };
    let each = SUBSCRIBERS / PUBLISHERS;
    for n in 0..PUBLISHERS {
        rig.publish_from(first + n, &topics[n * each..(n + 1) * each], &shape);
    }
    rig.publish_freely();
    if rig.run_until(PATIENCE, |rig| rig.counts().acknowledged >= wanted)? {
        return Ok(());
    }
    Err(Failure::new(
        exit::TIMEOUT,
        "some messages were never acknowledged",
    ))
}
