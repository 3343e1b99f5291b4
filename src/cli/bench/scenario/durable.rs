//! Durable offline sessions: the rate of acknowledgements, the bytes written to the disk, and the
//! rate of the drain.

use crate::cli::bench::generator::{Client, Generator, Shape};
use crate::cli::bench::meter::{Counting, Measurement, Snapshot};
use crate::cli::bench::model::{IDLE_TIMEOUT, Load, Target};
use crate::cli::bench::outcome::{Better, Outcome};
use crate::cli::exit::{self, Failure};
use crate::wire::QoS;

const PUBLISHERS: usize = 10;
const SUBSCRIBERS: usize = 50;
const SIZE: usize = 256;

/// Runs it. Each message goes to one of 50 sessions.
///
/// # Errors
/// Fails if the broker cannot be reached, violates the protocol, or closes a connection.
pub fn run(target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let qos = load.qos.unwrap_or(QoS::AtLeastOnce);
    if qos == QoS::AtMostOnce {
        return Err(Failure::usage(
            "durable is about QoS 1 and 2: give -q 1 or -q 2",
        ));
    }
    let subscribers = load.clients.unwrap_or(SUBSCRIBERS).max(PUBLISHERS);
    let mut generator = Generator::new(target, load)?;
    let run = generator.name();
    let topics: Vec<String> = (0..subscribers).map(|n| format!("tgb/{run}/{n}")).collect();
    let client = |n: usize| {
        let flow = n as u32..n as u32 + 1;
        let client = Client::new(format!("tgs-{run}-{n}"));
        client.subscribed(topics[n].clone(), qos, flow).durable()
    };
    generator.connect((0..subscribers).map(client))?;
    generator.disconnect(0..subscribers);

    let ids = (0..PUBLISHERS).map(|n| Client::new(format!("tgp-{run}-{n}")));
    let first = generator.connect(ids)?;
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
        generator.publish_from(first + n, &topics[from..to], &shape);
    }
    generator.publish_freely();
    generator.run_for(load.warm_up)?;
    let measurement = Measurement::measure(
        &mut generator,
        target.pid,
        load.duration,
        Counting::Acknowledged,
    )?;
    generator.stop_publishing();
    if !generator.run_until(IDLE_TIMEOUT, Generator::is_acknowledged)? {
        return Err(Failure::new(
            exit::TIMEOUT,
            "some messages were never acknowledged",
        ));
    }
    let (backlog, drained) = drain(&mut generator, target, subscribers)?;

    let mut outcome = Outcome {
        name: format!("durable qos{}", qos as u8),
        what: format!(
            "{PUBLISHERS} publishers, {subscribers} offline durable sessions, QoS {}, {} bytes, window {}; then drained",
            qos as u8, shape.size, load.window
        ),
        faults: generator.faults(),
        ..Outcome::default()
    };
    measurement.add_figures(&mut outcome, Counting::Acknowledged);
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
    generator.disconnect(0..generator.peer_count());
    Ok(outcome)
}

/// Connects the sessions again and receives their queued messages. Returns how many there were, and
/// the measurement.
fn drain(
    generator: &mut Generator,
    target: &Target,
    subscribers: usize,
) -> Result<(u64, Measurement), Failure> {
    let backlog = generator.expected();
    let from = Snapshot::now(generator, target.pid);
    generator.connect_again(0..subscribers)?;
    generator.run_until(IDLE_TIMEOUT, |generator| {
        generator.counts().arrived >= generator.expected()
    })?;
    let to = Snapshot::now(generator, target.pid);
    Ok((backlog, Measurement::between(from, to)))
}
