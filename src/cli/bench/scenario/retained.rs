//! Retained messages: what setting one costs, and how fast a new subscriber gets them all, while another pair of clients looks at how long it
//! has to wait meanwhile.

use std::thread;
use std::time::Duration;

use super::probe::Probes;
use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::meter::{Counting, Moment, Stretch};
use crate::cli::bench::model::{Load, PATIENCE, Target};
use crate::cli::bench::outcome::{Better, Outcome};
use crate::cli::bench::rig::{Client, Rig, Shape};
use crate::cli::exit::{self, Failure};
use crate::wire::QoS;

const PUBLISHERS: usize = 10;
/// The pair that looks on.
const PROBES: Probes = Probes {
    pairs: 1,
    rate: 500.0,
};

/// Runs it: `--messages` retained messages, each on its own topic.
///
/// # Errors
/// The broker cannot be reached, breaks the protocol, or closes a connection.
pub fn run(target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let qos = load.qos.unwrap_or(QoS::AtLeastOnce);
    let each = (load.messages.unwrap_or(100_000) as usize).div_ceil(PUBLISHERS);
    let count = (each * PUBLISHERS) as u64;
    let mut rig = Rig::new(target, load)?;
    let run = rig.name();
    let shape = Shape {
        qos,
        size: load.size.unwrap_or(100),
        retain: true,
        window: load.window,
        receivers: 0,
    };
    let clients = (0..PUBLISHERS).map(|n| Client::new(format!("tgp-{run}-{n}")));
    let first = rig.connect(clients)?;
    let topics = |n: usize| (0..each).map(move |topic| format!("{n}/{topic}"));
    let topics: Vec<Vec<String>> = (0..PUBLISHERS)
        .map(|n| topics(n).map(|end| format!("tgb/{run}/{end}")).collect())
        .collect();
    for (n, topics) in topics.iter().enumerate() {
        rig.publish_from(first + n, topics, &shape);
    }
    let from = Moment::now(&rig, target.pid);
    rig.publish_each(each as u64);
    let done = rig.run_until(PATIENCE, |rig| rig.has_sent_all() && rig.is_acknowledged())?;
    if !done {
        return Err(Failure::new(
            exit::TIMEOUT,
            "some messages were never acknowledged",
        ));
    }
    let set = Stretch::between(from, Moment::now(&rig, target.pid));

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
    let replay = replay(&mut rig, target, load, qos, count, &mut outcome)?;
    let rate = replay.messages(Counting::Delivered) as f64 / replay.seconds();
    outcome.add("replayed", rate, "/s", Better::Higher);
    outcome.faults = rig.faults();
    for (n, topics) in topics.iter().enumerate() {
        rig.clear_retained(first + n, topics)?;
    }
    rig.run_for(Duration::from_millis(200))?;
    rig.disconnect(0..rig.peer_count());
    Ok(outcome)
}

fn replay(
    rig: &mut Rig,
    target: &Target,
    load: &Load,
    qos: QoS,
    count: u64,
    outcome: &mut Outcome,
) -> Result<Stretch, Failure> {
    let (calm, _) = PROBES.watch(target, load, || {
        thread::sleep(Duration::from_millis(500));
        Ok(())
    })?;
    let run = rig.name();
    let mut moments = None;
    let (busy, _) = PROBES.watch(target, load, || {
        let mut client = Client::new(format!("tgs-{run}"));
        client = client.subscribed(format!("tgb/{run}/#"), qos, 0..count as u32);
        client.from_the_first = true;
        let from = Moment::now(rig, target.pid);
        rig.connect([client])?;
        rig.run_until(PATIENCE, |rig| rig.counts().arrived >= count)?;
        moments = Some((from, Moment::now(rig, target.pid)));
        Ok(())
    })?;
    let us = |histogram: &Histogram| histogram.summary().max as f64 / 1000.0;
    outcome.add("others wait, max", us(&busy), "us", Better::Lower);
    outcome.add("without replay", us(&calm), "us", Better::Neither);
    let (from, to) = moments.ok_or_else(|| Failure::new(exit::FAILED, "nothing was replayed"))?;
    Ok(Stretch::between(from, to))
}
