//! A broker that is killed under load with a backlog: how soon it accepts clients again, and what
//! it has lost or repeats.

use std::process::Command;
use std::time::Duration;

use super::spawned::Spawned;
use crate::cli::bench::generator::{Client, Generator, Shape};
use crate::cli::bench::meter::Snapshot;
use crate::cli::bench::model::{IDLE_TIMEOUT, Load, Target};
use crate::cli::bench::outcome::{Better, Outcome};
use crate::cli::bench::process::Usage;
use crate::cli::exit::{self, Failure};
use crate::wire::QoS;

const PUBLISHERS: usize = 10;
const SUBSCRIBERS: usize = 50;
/// Runs it: `--spawn` starts the broker, which gets `--messages` messages, is killed, and is
/// started again.
///
/// # Errors
/// Fails if the broker cannot be started or reached, or violates the protocol.
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
    let mut generator = Generator::new(target, load)?;
    load_backlog(&mut generator, load, qos, wanted)?;
    let acknowledged = generator.counts().acknowledged;
    let unacknowledged = generator.counts().published - acknowledged;
    drop(spawned);
    generator.stop_publishing();
    generator.tolerate_loss(true);
    generator.run_until(IDLE_TIMEOUT, |generator| generator.connected() == 0)?;

    let (spawned, second_start) = start(command, target, load)?;
    let memory = Usage::of(spawned.pid()).map(|usage| usage.resident);
    generator.tolerate_loss(false);
    generator.connect_again(SUBSCRIBERS..SUBSCRIBERS + PUBLISHERS)?;
    if !generator.run_until(IDLE_TIMEOUT, Generator::is_acknowledged)? {
        return Err(Failure::new(
            exit::TIMEOUT,
            "what was sent again was never acknowledged",
        ));
    }
    let from = Snapshot::now(&generator, None);
    generator.connect_again(0..SUBSCRIBERS)?;
    generator.run_until(IDLE_TIMEOUT, |generator| {
        generator.counts().arrived >= generator.expected()
    })?;
    let seconds = (generator.now() - from.at) as f64 / 1e9;
    // Repeated messages arrive late: wait a little for them.
    generator.run_for(Duration::from_millis(300))?;

    let faults = generator.faults();
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
        generator.expected() as f64 / seconds,
        "/s",
        Better::Higher,
    );
    generator.disconnect(0..generator.peer_count());
    Ok(outcome)
}

fn start(command: &str, target: &Target, load: &Load) -> Result<(Spawned, Duration), Failure> {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {command}")]);
    Spawned::start(shell, command, target, load)
}

/// Creates durable offline sessions, and publishes until `wanted` messages for them are
/// acknowledged. More are in flight then.
fn load_backlog(
    generator: &mut Generator,
    load: &Load,
    qos: QoS,
    wanted: u64,
) -> Result<(), Failure> {
    let run = generator.name();
    let topics: Vec<String> = (0..SUBSCRIBERS).map(|n| format!("tgb/{run}/{n}")).collect();
    let client = |n: usize| {
        let flow = n as u32..n as u32 + 1;
        let client = Client::new(format!("tgs-{run}-{n}"));
        client.subscribed(topics[n].clone(), qos, flow).durable()
    };
    generator.connect((0..SUBSCRIBERS).map(client))?;
    generator.disconnect(0..SUBSCRIBERS);
    let publishers = (0..PUBLISHERS).map(|n| Client::new(format!("tgp-{run}-{n}")).durable());
    let first = generator.connect(publishers)?;
    let shape = Shape {
        qos,
        size: load.size.unwrap_or(256),
        retain: false,
        window: load.window,
        receivers: 0,
    };
    let each = SUBSCRIBERS / PUBLISHERS;
    for n in 0..PUBLISHERS {
        generator.publish_from(first + n, &topics[n * each..(n + 1) * each], &shape);
    }
    generator.publish_freely();
    if generator.run_until(IDLE_TIMEOUT, |generator| {
        generator.counts().acknowledged >= wanted
    })? {
        return Ok(());
    }
    Err(Failure::new(
        exit::TIMEOUT,
        "some messages were never acknowledged",
    ))
}
