//! A mixed load for hours. [`workloads`] run side by side, each on a thread with its own generator.
//! The main thread sends a steady stream, measures its latency, samples the resources of the
//! broker, and decides at the end whether they stayed flat ([`flat`]).

mod flat;
mod workloads;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::cli::bench::generator::{Client, Generator};
use crate::cli::bench::meter::Snapshot;
use crate::cli::bench::model::{IDLE_TIMEOUT, Load, Target};
use crate::cli::bench::outcome::{Better, Faults, Outcome, Sample};
use crate::cli::bench::process::Open;
use crate::cli::exit::{self, Failure};
use crate::cli::print;
use crate::wire::QoS;
use flat::Reading;
use workloads::{Workload, shape};

/// Total messages per second by default.
const RATE: f64 = 1000.0;
/// Pairs of the steady stream. Each workload has as many clients, or a few.
const PAIRS: usize = 30;

/// Runs it.
///
/// # Errors
/// Fails if the broker cannot be reached, violates the protocol or closes a connection, or if its
/// process is not known.
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
        let others: Vec<_> = Workload::ALL
            .into_iter()
            .map(|workload| {
                let stop = &stop;
                let share = rate / 2.0 / Workload::ALL.len() as f64;
                scope.spawn(move || {
                    let found = workload.run(target, load, share, stop);
                    // If one workload fails, all stop.
                    stop.store(true, Ordering::SeqCst);
                    found.map_err(|failure| Failure {
                        message: format!("{}: {}", workload.name(), failure.message),
                        ..failure
                    })
                })
            })
            .collect();
        let steady = steady(target, load, pid, rate / 2.0, &stop, &mut outcome);
        stop.store(true, Ordering::SeqCst);
        let others = others.into_iter().map(|workload| {
            workload
                .join()
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
    for (name, value, unit) in flat::figures(&readings) {
        outcome.add(name, value, unit, Better::Lower);
    }
    Ok(outcome)
}

/// Runs the steady stream and takes the samples.
fn steady(
    target: &Target,
    load: &Load,
    pid: u32,
    rate: f64,
    stop: &AtomicBool,
    outcome: &mut Outcome,
) -> Result<Vec<Reading>, Failure> {
    let mut generator = Generator::new(target, load)?;
    let run = generator.name();
    let pairs = load.clients.unwrap_or(PAIRS);
    let qos = |n: usize| [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][n % 3];
    let topic = |n: usize| format!("tgb/{run}/{n}");
    let receiver = |n: usize| {
        let flow = n as u32..n as u32 + 1;
        Client::new(format!("tgs-{run}-{n}")).subscribed(topic(n), qos(n), flow)
    };
    generator.connect((0..pairs).map(receiver))?;
    let first = generator.connect((0..pairs).map(|n| Client::new(format!("tgp-{run}-{n}"))))?;
    for n in 0..pairs {
        generator.publish_from(first + n, &[topic(n)], &shape(load, qos(n)));
    }
    generator.publish_at(rate);
    let interval = load
        .interval
        .unwrap_or((load.duration / 60).max(Duration::from_secs(1)));
    let mut readings: Vec<Reading> = Vec::new();
    let start = generator.now();
    let mut last = Snapshot::now(&generator, Some(pid));
    print::err(Reading::HEADER);
    while generator.now() - start < load.duration.as_nanos() as u64 && !stop.load(Ordering::SeqCst)
    {
        generator.latency.clear();
        generator.run_for(interval)?;
        let moment = Snapshot::now(&generator, Some(pid));
        let (Some(usage), Some(open)) = (moment.broker, Open::of(pid)) else {
            return Err(Failure::new(exit::LOST, "the broker's process is gone"));
        };
        let summary = generator.latency.summary();
        let reading = Reading {
            at: (moment.at - start) as f64 / 1e9,
            resident: usage.resident as f64 / 1e6,
            database: open.database as f64 / 1e6,
            descriptors: open.descriptors as f64,
            p50: summary.p50 as f64 / 1e6,
            p99: summary.p99 as f64 / 1e6,
            max: summary.max as f64 / 1e6,
        };
        print::err(reading);
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
    let seconds = (generator.now() - start).max(1) as f64 / 1e9;
    outcome.doubt_rate(rate, generator.counts().published as f64 / seconds);
    generator.drain(IDLE_TIMEOUT)?;
    outcome.faults.add(generator.faults());
    outcome.add(
        "steady stream",
        generator.counts().arrived as f64,
        "messages",
        Better::Neither,
    );
    generator.disconnect(0..generator.peer_count());
    Ok(readings)
}
