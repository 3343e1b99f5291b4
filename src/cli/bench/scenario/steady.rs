//! Scenarios with a constant load: clients connect, load the broker, and are measured.

use crate::cli::bench::generator::{Client, Generator, Shape};
use crate::cli::bench::meter::{Counting, Measurement};
use crate::cli::bench::model::{IDLE_TIMEOUT, Load, Scenario, Target};
use crate::cli::bench::outcome::Outcome;
use crate::cli::exit::Failure;
use crate::wire::QoS;

/// The clients and the messages between them.
struct Plan {
    what: String,
    receivers: Vec<Client>,
    /// Topics of each publisher.
    publishers: Vec<Vec<String>>,
    /// Number of receivers of each message.
    receivers_per_message: u32,
    rate: Option<f64>,
    counting: Counting,
}

/// Runs a scenario of this kind.
///
/// # Errors
/// Fails if the broker cannot be reached, violates the protocol, or closes a connection.
pub fn run(scenario: Scenario, target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let mut generator = Generator::new(target, load)?;
    let plan = plan(scenario, load, &generator.name());
    if scenario == Scenario::Shared {
        generator.check_as_group();
    }
    let prefix = generator.name();
    generator.connect(plan.receivers)?;
    let publishers = (0..plan.publishers.len()).map(|n| Client::new(format!("tgp-{prefix}-{n}")));
    let first = generator.connect(publishers)?;
    let shape = Shape {
        qos: load.qos(),
        size: load.size.unwrap_or(64),
        retain: false,
        window: load.window,
        receivers: plan.receivers_per_message,
    };
    for (n, topics) in plan.publishers.iter().enumerate() {
        generator.publish_from(first + n, topics, &shape);
    }
    match plan.rate {
        Some(rate) => generator.publish_at(rate),
        None => generator.publish_freely(),
    }
    generator.run_for(load.warm_up)?;
    let measurement =
        Measurement::measure(&mut generator, target.pid, load.duration, plan.counting)?;
    let latency = generator.latency.clone();
    generator.drain(IDLE_TIMEOUT)?;
    let mut outcome = Outcome {
        name: format!("{} qos{}", scenario.name(), load.qos() as u8),
        what: plan.what,
        faults: generator.faults(),
        ..Outcome::default()
    };
    measurement.add_figures(&mut outcome, plan.counting);
    if let Some(rate) = plan.rate {
        let published = measurement.messages(Counting::Published) as f64 / measurement.seconds();
        outcome.doubt_rate(rate, published);
    }
    outcome.set_latency(&latency);
    generator.disconnect(0..generator.peer_count());
    Ok(outcome)
}

fn plan(scenario: Scenario, load: &Load, run: &str) -> Plan {
    let qos = load.qos();
    let topics = load.topics;
    let clients = |default: usize| load.clients.unwrap_or(default);
    let publisher = |n: usize| -> Vec<String> {
        (0..topics)
            .map(|topic| format!("tgb/{run}/{n}/{topic}"))
            .collect()
    };
    let receiver = |n: usize| Client::new(format!("tgs-{run}-{n}"));
    let flows = |n: usize| (n * topics) as u32..((n + 1) * topics) as u32;
    let all = |publishers: usize| 0..(publishers * topics) as u32;
    let filter_of = |n: usize| match topics {
        1 => format!("tgb/{run}/{n}/0"),
        _ => format!("tgb/{run}/{n}/+"),
    };
    let (count, receivers, receivers_per_message): (usize, Vec<Client>, u32) = match scenario {
        Scenario::Pub => (clients(50), Vec::new(), 0),
        Scenario::FanIn => {
            let all = all(clients(50));
            let filter = format!("tgb/{run}/#");
            (
                clients(50),
                vec![receiver(0).subscribed(filter, qos, all)],
                1,
            )
        }
        Scenario::FanOut => {
            let one = |n| receiver(n).subscribed(filter_of(0), qos, flows(0));
            (1, (0..clients(200)).map(one).collect(), clients(200) as u32)
        }
        Scenario::Shared => {
            let filter = format!("$share/tgb/tgb/{run}/#");
            let member = |n| receiver(n).subscribed(filter.clone(), qos, all(clients(10)));
            (clients(10), (0..clients(10)).map(member).collect(), 1)
        }
        _ => {
            let default = if scenario == Scenario::Sparse {
                200
            } else {
                50
            };
            let pair = |n| receiver(n).subscribed(filter_of(n), qos, flows(n));
            (
                clients(default),
                (0..clients(default)).map(pair).collect(),
                1,
            )
        }
    };
    let rate = match scenario {
        Scenario::Sparse => Some(load.rate.unwrap_or(10_000.0)),
        _ => load.rate,
    };
    let loop_words = match rate {
        Some(rate) => format!("{rate} messages a second in all"),
        None if scenario == Scenario::Pub && qos == QoS::AtMostOnce => {
            "as fast as possible".to_owned()
        }
        None => format!("closed loop, window {}", load.window),
    };
    Plan {
        what: format!(
            "{count} publishers, {} subscribers, QoS {}, {} bytes, {loop_words}",
            receivers.len(),
            qos as u8,
            load.size.unwrap_or(64),
        ),
        receivers,
        publishers: (0..count).map(publisher).collect(),
        receivers_per_message,
        rate,
        counting: match (scenario, qos) {
            (Scenario::Pub, QoS::AtMostOnce) => Counting::Published,
            (Scenario::Pub, _) => Counting::Acknowledged,
            _ => Counting::Delivered,
        },
    }
}
