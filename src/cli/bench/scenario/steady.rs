//! Scenarios in which the same goes on all the time: clients connect, load the broker, and are measured.

use crate::cli::bench::meter::{Counting, Stretch};
use crate::cli::bench::model::{Load, PATIENCE, Scenario, Target};
use crate::cli::bench::outcome::Outcome;
use crate::cli::bench::rig::{Client, Rig, Shape};
use crate::cli::exit::Failure;
use crate::wire::QoS;

/// Who connects, and who sends what to whom.
struct Plan {
    what: String,
    receivers: Vec<Client>,
    /// Topics of each publisher.
    publishers: Vec<Vec<String>>,
    /// How many receivers each message has.
    reach: u32,
    rate: Option<f64>,
    counting: Counting,
}

/// Runs a scenario of this kind.
///
/// # Errors
/// The broker cannot be reached, breaks the protocol, or closes a connection.
pub fn run(scenario: Scenario, target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let mut rig = Rig::new(target, load)?;
    let plan = plan(scenario, load, &rig.name());
    if scenario == Scenario::Shared {
        rig.share();
    }
    let prefix = rig.name();
    rig.connect(plan.receivers)?;
    let publishers = (0..plan.publishers.len()).map(|n| Client::new(format!("tgp-{prefix}-{n}")));
    let first = rig.connect(publishers)?;
    let shape = Shape {
        qos: load.qos(),
        size: load.size.unwrap_or(64),
        retain: false,
        window: load.window,
        receivers: plan.reach,
    };
    for (n, topics) in plan.publishers.iter().enumerate() {
        rig.publish_from(first + n, topics, &shape);
    }
    match plan.rate {
        Some(rate) => rig.publish_at(rate),
        None => rig.publish_freely(),
    }
    rig.run_for(load.warm_up)?;
    let stretch = Stretch::measure(&mut rig, target.pid, load.duration, plan.counting)?;
    let latency = rig.latency.clone();
    rig.drain(PATIENCE)?;
    let mut outcome = Outcome {
        name: format!("{} qos{}", scenario.name(), load.qos() as u8),
        what: plan.what,
        faults: rig.faults(),
        ..Outcome::default()
    };
    stretch.tell(&mut outcome, plan.counting);
    if let Some(rate) = plan.rate {
        let published = stretch.messages(Counting::Published) as f64 / stretch.seconds();
        outcome.doubt_rate(rate, published);
    }
    outcome.set_latency(&latency);
    rig.disconnect(0..rig.peer_count());
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
    let (count, receivers, reach): (usize, Vec<Client>, u32) = match scenario {
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
        reach,
        rate,
        counting: match (scenario, qos) {
            (Scenario::Pub, QoS::AtMostOnce) => Counting::Published,
            (Scenario::Pub, _) => Counting::Acknowledged,
            _ => Counting::Delivered,
        },
    }
}
