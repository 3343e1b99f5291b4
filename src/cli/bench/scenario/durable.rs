//! Durable sessions that are offline: how fast messages for them are acknowledged, what that writes to the disk, and how fast they are drained.

use crate::cli::bench::meter::{Counting, Moment, Stretch};
use crate::cli::bench::model::{Load, PATIENCE, Target};
use crate::cli::bench::outcome::{Better, Outcome};
use crate::cli::bench::rig::{Client, Rig, Shape};
use crate::cli::exit::{self, Failure};
use crate::wire::QoS;

const PUBLISHERS: usize = 10;
const SUBSCRIBERS: usize = 50;
const SIZE: usize = 256;

/// Runs it: each message goes to one of 50 sessions.
///
/// # Errors
/// The broker cannot be reached, breaks the protocol, or closes a connection.
pub fn run(target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let qos = load.qos.unwrap_or(QoS::AtLeastOnce);
    if qos == QoS::AtMostOnce {
        return Err(Failure::usage(
            "durable is about QoS 1 and 2: give -q 1 or -q 2",
        ));
    }
    let subscribers = load.clients.unwrap_or(SUBSCRIBERS).max(PUBLISHERS);
    let mut rig = Rig::new(target, load)?;
    let run = rig.name();
    let topics: Vec<String> = (0..subscribers).map(|n| format!("tgb/{run}/{n}")).collect();
    let client = |n: usize| {
        let flow = n as u32..n as u32 + 1;
        let client = Client::new(format!("tgs-{run}-{n}"));
        client.subscribed(topics[n].clone(), qos, flow).durable()
    };
    rig.connect((0..subscribers).map(client))?;
    rig.disconnect(0..subscribers);

    let ids = (0..PUBLISHERS).map(|n| Client::new(format!("tgp-{run}-{n}")));
    let first = rig.connect(ids)?;
    let shape = Shape {
        qos,
        size: load.size.unwrap_or(SIZE),
        retain: false,
        window: load.window,
        receivers: 0,
    };
    for n in 0..PUBLISHERS {
        let (from, to) = (
            n * subscribers / PUBLISHERS,
            (n + 1) * subscribers / PUBLISHERS,
        );
        rig.publish_from(first + n, &topics[from..to], &shape);
    }
    rig.publish_freely();
    rig.run_for(load.warm_up)?;
    let stretch = Stretch::measure(&mut rig, target.pid, load.duration, Counting::Acknowledged)?;
    rig.stop_publishing();
    if !rig.run_until(PATIENCE, Rig::is_acknowledged)? {
        return Err(Failure::new(
            exit::TIMEOUT,
            "some messages were never acknowledged",
        ));
    }
    let (backlog, drained) = drain(&mut rig, target, subscribers)?;

    let mut outcome = Outcome {
        name: format!("durable qos{}", qos as u8),
        what: format!(
            "{PUBLISHERS} publishers, {subscribers} offline durable sessions, QoS {}, {} bytes, window {}; then drained",
            qos as u8, shape.size, load.window
        ),
        faults: rig.faults(),
        ..Outcome::default()
    };
    stretch.tell(&mut outcome, Counting::Acknowledged);
    outcome.add("backlog", backlog as f64, "messages", Better::Neither);
    let rate = drained.messages(Counting::Delivered) as f64 / drained.seconds();
    outcome.add("drained", rate, "/s", Better::Higher);
    if let (Some(from), Some(to)) = (drained.from.broker, drained.to.broker) {
        let each = drained.messages(Counting::Delivered).max(1) as f64;
        let used = (to.cpu_us - from.cpu_us) / each;
        outcome.add("drain cpu", used, "us/delivered", Better::Lower);
        let disk = (to.written - from.written) as f64 / each;
        outcome.add("drain disk", disk, "B/message", Better::Lower);
    }
    rig.disconnect(0..rig.peer_count());
    Ok(outcome)
}

/// Connects the sessions again and takes all that waits for them. Returns how much that was, and the stretch.
fn drain(rig: &mut Rig, target: &Target, subscribers: usize) -> Result<(u64, Stretch), Failure> {
    let backlog = rig.expected();
    let from = Moment::now(rig, target.pid);
    rig.connect_again(0..subscribers)?;
    rig.run_until(PATIENCE, |rig| rig.counts().arrived >= rig.expected())?;
    let to = Moment::now(rig, target.pid);
    Ok((backlog, Stretch::between(from, to)))
}
