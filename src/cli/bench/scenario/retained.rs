//! Retained messages: the cost of setting one, the rate at which a new subscriber receives them
//! all, and the latency of another pair of clients meanwhile.

use std::thread;
use std::time::Duration;

use super::probe::Probes;
use crate::cli::bench::generator::{Client, Generator, Shape};
use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::meter::{Counting, Measurement, Snapshot};
use crate::cli::bench::model::{IDLE_TIMEOUT, Load, Target};
use crate::cli::bench::outcome::{Better, Outcome};
use crate::cli::exit::{self, Failure};
use crate::wire::QoS;

const PUBLISHERS: usize = 10;
/// The pair of clients whose latency is measured.
const PROBES: Probes = Probes {
    pairs: 1,
    rate: 500.0,
};

/// Runs it with `--messages` retained messages, each on its own topic.
///
/// # Errors
/// Fails if the broker cannot be reached, violates the protocol, or closes a connection.
pub fn run(target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let qos = load.qos.unwrap_or(QoS::AtLeastOnce);
    let each = (load.messages.unwrap_or(100_000) as usize).div_ceil(PUBLISHERS);
    let count = (each * PUBLISHERS) as u64;
    let mut generator = Generator::new(target, load)?;
    let run = generator.name();
    let shape = Shape {
        qos,
        size: load.size.unwrap_or(100),
        retain: true,
        window: load.window,
        receivers: 0,
    };
    let clients = (0..PUBLISHERS).map(|n| Client::new(format!("tgp-{run}-{n}")));
    let first = generator.connect(clients)?;
    let topics = |n: usize| (0..each).map(move |topic| format!("{n}/{topic}"));
    let topics: Vec<Vec<String>> = (0..PUBLISHERS)
        .map(|n| topics(n).map(|end| format!("tgb/{run}/{end}")).collect())
        .collect();
    for (n, topics) in topics.iter().enumerate() {
        generator.publish_from(first + n, topics, &shape);
    }
    let from = Snapshot::now(&generator, target.pid);
    generator.publish_each(each as u64);
    let done = generator.run_until(IDLE_TIMEOUT, |generator| {
        generator.has_sent_all() && generator.is_acknowledged()
    })?;
    if !done {
        return Err(Failure::new(
            exit::TIMEOUT,
            "some messages were never acknowledged",
        ));
    }
    let set = Measurement::between(from, Snapshot::now(&generator, target.pid));

    let mut outcome = Outcome {
        name: format!("retained qos{}", qos as u8),
        what: format!(
            "{count} retained messages of {} bytes, QoS {}, from {PUBLISHERS} publishers; then replayed to a new subscriber",
            shape.size, qos as u8
        ),
        ..Outcome::default()
    };
    let time = set.seconds() * 1e6 / count as f64;
    outcome.add("time", time, "us/set", Better::Lower);
    if let (Some(from), Some(to)) = (set.from.broker, set.to.broker) {
        let each = count as f64;
        outcome.add(
            "cpu",
            (to.cpu_us - from.cpu_us) / each,
            "us/set",
            Better::Lower,
        );
        let memory = to.resident.saturating_sub(from.resident) as f64 / each;
        outcome.add("memory", memory, "B/set", Better::Lower);
        outcome.add(
            "disk",
            (to.written - from.written) as f64 / each,
            "B/set",
            Better::Lower,
        );
    }
    let replay = replay(&mut generator, target, load, qos, count, &mut outcome)?;
    let rate = replay.messages(Counting::Delivered) as f64 / replay.seconds();
    outcome.add("replayed", rate, "/s", Better::Higher);
    outcome.faults = generator.faults();
    for (n, topics) in topics.iter().enumerate() {
        generator.clear_retained(first + n, topics)?;
    }
    generator.run_for(Duration::from_millis(200))?;
    generator.disconnect(0..generator.peer_count());
    Ok(outcome)
}

fn replay(
    generator: &mut Generator,
    target: &Target,
    load: &Load,
    qos: QoS,
    count: u64,
    outcome: &mut Outcome,
) -> Result<Measurement, Failure> {
    let (calm, _) = PROBES.watch(target, load, || {
        thread::sleep(Duration::from_millis(500));
        Ok(())
    })?;
    let run = generator.name();
    let mut moments = None;
    let (busy, _) = PROBES.watch(target, load, || {
        let mut client = Client::new(format!("tgs-{run}"));
        client = client.subscribed(format!("tgb/{run}/#"), qos, 0..count as u32);
        client.from_first = true;
        let from = Snapshot::now(generator, target.pid);
        generator.connect([client])?;
        generator.run_until(IDLE_TIMEOUT, |generator| {
            generator.counts().arrived >= count
        })?;
        moments = Some((from, Snapshot::now(generator, target.pid)));
        Ok(())
    })?;
    let us = |histogram: &Histogram| histogram.summary().max as f64 / 1000.0;
    outcome.add("others wait, max", us(&busy), "us", Better::Lower);
    outcome.add("without replay", us(&calm), "us", Better::Neither);
    let (from, to) = moments.ok_or_else(|| Failure::new(exit::FAILED, "nothing was replayed"))?;
    Ok(Measurement::between(from, to))
}
