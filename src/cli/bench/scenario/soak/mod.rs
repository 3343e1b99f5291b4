//! A bit of everything for hours. Parts of the load run side by side, each on a thread with a rig of its own ([`parts`]); this one sends a steady
//! stream whose latency is measured, samples what the broker has, and judges at the end whether that stayed flat ([`flat`]).

mod flat;
mod parts;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::cli::bench::meter::Moment;
use crate::cli::bench::model::{Load, PATIENCE, Target};
use crate::cli::bench::outcome::{Better, Faults, Outcome, Sample};
use crate::cli::bench::process::Open;
use crate::cli::bench::rig::{Client, Rig};
use crate::cli::exit::{self, Failure};
use crate::cli::tell;
use crate::wire::QoS;
use flat::Reading;
use parts::{Part, shape};

/// Messages a second in all, unless told otherwise.
const RATE: f64 = 1000.0;
/// Pairs of the steady stream; each other part takes as many clients, or a few.
const PAIRS: usize = 30;

/// Runs it.
///
/// # Errors
/// The broker cannot be reached, breaks the protocol or closes a connection; or its process is not known.
pub fn run(target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let pid = target.pid.ok_or_else(|| {
        Failure::usage("soak judges the broker's memory, file and descriptors: give --pid")
    })?;
    let mut outcome = Outcome {
        name: "soak".to_owned(),
        ..Outcome::default()
    };
    let stop = AtomicBool::new(false);
    let rate = load.rate.unwrap_or(RATE);
    let (readings, found): (Result<Vec<Reading>, Failure>, Vec<_>) = thread::scope(|scope| {
        let others: Vec<_> = Part::ALL
            .into_iter()
            .map(|part| {
                let stop = &stop;
                let share = rate / 2.0 / Part::ALL.len() as f64;
                scope.spawn(move || {
                    let found = part.run(target, load, share, stop);
                    // One part that cannot go on ends all.
                    stop.store(true, Ordering::SeqCst);
                    found.map_err(|failure| Failure {
                        message: format!("{}: {}", part.name(), failure.message),
                        ..failure
                    })
                })
            })
            .collect();
        let steady = steady(target, load, pid, rate / 2.0, &stop, &mut outcome);
        stop.store(true, Ordering::SeqCst);
        let others = others.into_iter().map(|part| {
            part.join()
                .unwrap_or_else(|_| Err(Failure::new(exit::FAILED, "a part of the load panicked")))
        });
        let others: Vec<Result<Faults, Failure>> = others.collect();
        (steady, others)
    });
    for faults in found {
        outcome.faults.add(faults?);
    }
    let readings: Vec<Reading> = readings?;
    outcome.what = format!(
        "{} s of {rate} messages a second in all: QoS 0, 1 and 2, durable sessions that come and go, a shared group, wills, retained messages, \
         subscriptions made and taken back",
        load.duration.as_secs()
    );
    outcome.grown = flat::judge(&readings);
    for (name, value, unit) in flat::tell(&readings) {
        outcome.add(name, value, unit, Better::Lower);
    }
    Ok(outcome)
}

/// The steady stream and the samples.
fn steady(
    target: &Target,
    load: &Load,
    pid: u32,
    rate: f64,
    stop: &AtomicBool,
    outcome: &mut Outcome,
) -> Result<Vec<Reading>, Failure> {
    let mut rig = Rig::new(target, load)?;
    let run = rig.name();
    let pairs = load.clients.unwrap_or(PAIRS);
    let qos = |n: usize| [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][n % 3];
    let topic = |n: usize| format!("tgb/{run}/{n}");
    let receiver = |n: usize| {
        let flow = n as u32..n as u32 + 1;
        Client::new(format!("tgs-{run}-{n}")).subscribed(topic(n), qos(n), flow)
    };
    rig.connect((0..pairs).map(receiver))?;
    let first = rig.connect((0..pairs).map(|n| Client::new(format!("tgp-{run}-{n}"))))?;
    for n in 0..pairs {
        rig.publish_from(first + n, &[topic(n)], &shape(load, qos(n)));
    }
    rig.publish_at(rate);
    let interval = load
        .interval
        .unwrap_or((load.duration / 60).max(Duration::from_secs(1)));
    let mut readings: Vec<Reading> = Vec::new();
    let start = rig.now();
    let mut last = Moment::now(&rig, Some(pid));
    tell::err(Reading::HEADER);
    while rig.now() - start < load.duration.as_nanos() as u64 && !stop.load(Ordering::SeqCst) {
        rig.latency.clear();
        rig.run_for(interval)?;
        let moment = Moment::now(&rig, Some(pid));
        let (Some(usage), Some(open)) = (moment.broker, Open::of(pid)) else {
            return Err(Failure::new(exit::LOST, "the broker's process is gone"));
        };
        let summary = rig.latency.summary();
        let reading = Reading {
            at: (moment.at - start) as f64 / 1e9,
            resident: usage.resident as f64 / 1e6,
            database: open.database as f64 / 1e6,
            descriptors: open.descriptors as f64,
            p50: summary.p50 as f64 / 1e6,
            p99: summary.p99 as f64 / 1e6,
            max: summary.max as f64 / 1e6,
        };
        tell::err(reading);
        readings.push(reading);
        let seconds = (moment.at - last.at).max(1) as f64 / 1e9;
        outcome.samples.push(Sample {
            at: reading.at,
            rate: (moment.counts.delivered - last.counts.delivered) as f64 / seconds,
            cores: None,
            resident: Some(usage.resident),
        });
        last = moment;
    }
    let seconds = (rig.now() - start).max(1) as f64 / 1e9;
    outcome.doubt_rate(rate, rig.counts().published as f64 / seconds);
    rig.drain(PATIENCE)?;
    outcome.faults.add(rig.faults());
    outcome.add(
        "steady stream",
        rig.counts().arrived as f64,
        "messages",
        Better::Neither,
    );
    rig.disconnect(0..rig.peer_count());
    Ok(readings)
}
