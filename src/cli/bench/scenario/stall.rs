//! How long a broker blocks others: pairs of clients exchange messages at a low rate while the
//! broker does something large.
//!
//! Everything is prepared before. The threads that cause the disturbance have a lower priority than
//! the broker and the pairs, so that the pairs wait for the broker and not for a processor. Their
//! latency still includes the scheduling of three processes by the operating system. The time that
//! the broker's lock was held (`--metrics-port`) includes only the scheduling of the thread that
//! holds it.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;

use super::probe::Probes;
use crate::cli::bench::generator::{Client, Generator, Shape};
use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::lock::LockFigures;
use crate::cli::bench::model::{Disturbance, IDLE_TIMEOUT, Load, Target};
use crate::cli::bench::outcome::{Better, Faults, Outcome};
use crate::cli::bench::process::{self, Usage};
use crate::cli::exit::{self, Failure};
use crate::wire::QoS;

const PAIRS: usize = 20;
/// Total messages per second of all pairs.
const RATE: f64 = 1_000.0;
const PUBLISHERS: usize = 10;
const SIZE: usize = 256;
/// How often a short disturbance is repeated.
const ROUNDS: usize = 3;
/// Time between repetitions.
const PAUSE: Duration = Duration::from_millis(200);
/// Offline sessions that the commits are for.
const SESSIONS: usize = 50;
/// Time between commits, and the messages for each from each publisher.
const BURST_EVERY: Duration = Duration::from_millis(100);
const BURST: u64 = 100;
/// Clients of the storm that connect at the same time, which some brokers delay, and the messages
/// queued for each.
const AT_ONCE: usize = 100;
const BACKLOG: u64 = 10;
/// Sessions that are ended, each with all messages of the backlog.
const ENDED: usize = 3;

/// Names of the figures of one disturbance.
struct Names {
    p50: &'static str,
    p99: &'static str,
    p999: &'static str,
    longest: &'static str,
    cpu: &'static str,
    lock: &'static str,
}

macro_rules! names {
    ($name:literal) => {
        Names {
            p50: concat!($name, " p50"),
            p99: concat!($name, " p99"),
            p999: concat!($name, " p99.9"),
            longest: concat!($name, " longest"),
            cpu: concat!($name, " cpu"),
            lock: concat!($name, " lock held"),
        }
    };
}

impl Disturbance {
    fn names(self) -> Names {
        match self {
            Disturbance::Nothing => names!("nothing"),
            Disturbance::Commits => names!("commits"),
            Disturbance::Retained => names!("retained"),
            Disturbance::Storm => names!("storm"),
            Disturbance::FanOut => names!("fan-out"),
            Disturbance::End => names!("end"),
        }
    }
}

/// Runs all disturbances, or those of `--disturb`, one after the other.
///
/// # Errors
/// Fails if the broker cannot be reached, violates the protocol, or closes a connection.
pub fn run(target: &Target, load: &Load) -> Result<Outcome, Failure> {
    let qos = load.qos.unwrap_or(QoS::AtLeastOnce);
    if qos == QoS::AtMostOnce {
        return Err(Failure::usage(
            "stall is about QoS 1 and 2: give -q 1 or -q 2",
        ));
    }
    let probes = Probes {
        pairs: PAIRS,
        rate: load.rate.unwrap_or(RATE),
    };
    let mut outcome = Outcome {
        name: format!("stall qos{}", qos as u8),
        what: format!(
            "{PAIRS} pairs, QoS 0, 64 bytes, {} messages a second in all, while others are busy with QoS {}",
            probes.rate, qos as u8
        ),
        ..Outcome::default()
    };
    let all = match &load.disturb[..] {
        [] => Disturbance::value_variants(),
        some => some,
    };
    for disturbance in all {
        let mut stall = Stall {
            target,
            load,
            probes,
            qos,
            latency: Histogram::new(),
            faults: Faults::default(),
            cpu_us: 0.0,
            lock: None,
        };
        match disturbance {
            Disturbance::Nothing => stall.nothing()?,
            Disturbance::Commits => stall.commits()?,
            Disturbance::Retained => stall.retained()?,
            Disturbance::Storm => stall.storm()?,
            Disturbance::FanOut => stall.fan_out()?,
            Disturbance::End => stall.end()?,
        }
        stall.add_figures(&disturbance.names(), &mut outcome);
    }
    Ok(outcome)
}

/// One disturbance and its results.
struct Stall<'a> {
    target: &'a Target,
    load: &'a Load,
    probes: Probes,
    qos: QoS,
    /// Latency of the probes in nanoseconds.
    latency: Histogram,
    faults: Faults,
    /// Processor time that the broker used, in microseconds.
    cpu_us: f64,
    /// The longest time that its lock was held, in seconds.
    lock: Option<f64>,
}

impl Stall<'_> {
    /// Does something and runs the probes meanwhile.
    fn watch(&mut self, work: impl FnOnce() -> Result<(), Failure> + Send) -> Result<(), Failure> {
        let usage = || self.target.pid.and_then(Usage::of);
        let metrics = self.target.metrics;
        let before = metrics.map(LockFigures::of).transpose()?;
        let mut used = None;
        let watched = self.probes.watch(self.target, self.load, || {
            process::lower_priority();
            let from = usage();
            work()?;
            used = from.zip(usage());
            Ok(())
        });
        let (latency, faults) = watched?;
        if let (Some(metrics), Some(before)) = (metrics, before) {
            let longest = LockFigures::of(metrics)?.longest_since(&before);
            self.lock = Some(self.lock.unwrap_or(0.0).max(longest));
        }
        self.latency.add(&latency);
        self.faults.add(faults);
        self.cpu_us += used.map_or(0.0, |(from, to)| to.cpu_us - from.cpu_us);
        Ok(())
    }

    fn add_figures(&self, names: &Names, outcome: &mut Outcome) {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        let found = self.latency.summary();
        outcome.add(names.p50, us(found.p50), "us", Better::Lower);
        outcome.add(names.p99, us(found.p99), "us", Better::Lower);
        outcome.add(names.p999, us(found.p999), "us", Better::Lower);
        outcome.add(names.longest, us(found.max), "us", Better::Lower);
        if let Some(seconds) = self.lock {
            outcome.add(names.lock, seconds * 1e6, "us at most", Better::Lower);
        }
        if self.target.pid.is_some() {
            outcome.add(names.cpu, self.cpu_us / 1000.0, "ms", Better::Lower);
        }
        outcome.faults.add(self.faults);
    }

    /// Connects the publishers, each with its share of the topics. Returns the number of the first.
    fn add_publishers(
        &self,
        generator: &mut Generator,
        topics: &[String],
        retain: bool,
    ) -> Result<usize, Failure> {
        let run = generator.name();
        let publishers = PUBLISHERS.min(topics.len());
        let shape = Shape {
            qos: self.qos,
            size: self.load.size.unwrap_or(SIZE),
            retain,
            window: self.load.window,
            receivers: 0,
        };
        let first =
            generator.connect((0..publishers).map(|n| Client::new(format!("tgp-{run}-{n}"))))?;
        for n in 0..publishers {
            let share = &topics[share(n, publishers, topics.len())];
            generator.publish_from(first + n, share, &shape);
        }
        Ok(first)
    }

    fn nothing(&mut self) -> Result<(), Failure> {
        let time = self.load.duration;
        self.watch(|| {
            thread::sleep(time);
            Ok(())
        })
    }

    fn commits(&mut self) -> Result<(), Failure> {
        let mut generator = Generator::new(self.target, self.load)?;
        let run = generator.name();
        let topics = numbered(&run, SESSIONS);
        let client = |n: usize| {
            let client = Client::new(format!("tgs-{run}-{n}"));
            client
                .subscribed(topics[n].clone(), self.qos, 0..0)
                .durable()
        };
        generator.connect((0..SESSIONS).map(client))?;
        generator.disconnect(0..SESSIONS);
        self.add_publishers(&mut generator, &topics, false)?;
        let time = self.load.duration.as_nanos() as u64;
        self.watch(|| {
            let end = generator.now() + time;
            while generator.now() < end {
                generator.publish_each(BURST);
                generator.run_for(BURST_EVERY)?;
            }
            acknowledged(&mut generator)
        })?;
        self.faults.add(generator.faults());
        generator.end_sessions(0..SESSIONS)?;
        generator.disconnect(0..generator.peer_count());
        Ok(())
    }

    fn retained(&mut self) -> Result<(), Failure> {
        let mut generator = Generator::new(self.target, self.load)?;
        let run = generator.name();
        let each = self
            .load
            .messages
            .unwrap_or(100_000)
            .div_ceil(PUBLISHERS as u64);
        let topics = numbered(&run, each as usize * PUBLISHERS);
        let first = self.add_publishers(&mut generator, &topics, true)?;
        generator.publish_each(each);
        acknowledged(&mut generator)?;
        for round in 0..ROUNDS {
            let mut client = Client::new(format!("tgs-{run}-{round}"));
            client = client.subscribed(format!("tgb/{run}/#"), self.qos, 0..topics.len() as u32);
            client.from_first = true;
            self.watch(|| {
                let subscriber = generator.connect([client])?;
                arrived(&mut generator)?;
                generator.run_for(PAUSE)?;
                generator.disconnect(subscriber..subscriber + 1);
                Ok(())
            })?;
        }
        self.faults.add(generator.faults());
        for n in 0..PUBLISHERS {
            generator.clear_retained(first + n, &topics[share(n, PUBLISHERS, topics.len())])?;
        }
        generator.run_for(PAUSE)?;
        generator.disconnect(0..generator.peer_count());
        Ok(())
    }

    fn storm(&mut self) -> Result<(), Failure> {
        let mut generator = Generator::new(self.target, self.load)?;
        let run = generator.name();
        let count = self.load.clients.unwrap_or(5_000);
        let topics = numbered(&run, count);
        let client = |n: usize| {
            let client = Client::new(format!("tgs-{run}-{n}"));
            let flow = n as u32..n as u32 + 1;
            client
                .subscribed(topics[n].clone(), self.qos, flow)
                .durable()
        };
        generator.connect((0..count).map(client))?;
        generator.disconnect(0..count);
        self.add_publishers(&mut generator, &topics, false)?;
        let each = BACKLOG * (count as u64).div_ceil(PUBLISHERS as u64);
        for _ in 0..ROUNDS {
            generator.publish_each(each);
            acknowledged(&mut generator)?;
            self.watch(|| {
                for first in (0..count).step_by(AT_ONCE) {
                    generator.connect_again(first..(first + AT_ONCE).min(count))?;
                }
                arrived(&mut generator)?;
                generator.disconnect(0..count);
                generator.run_for(PAUSE)
            })?;
        }
        self.faults.add(generator.faults());
        generator.end_sessions(0..count)?;
        generator.disconnect(0..generator.peer_count());
        Ok(())
    }

    fn fan_out(&mut self) -> Result<(), Failure> {
        let mut generator = Generator::new(self.target, self.load)?;
        let run = generator.name();
        let topics = numbered(&run, 1);
        let client = |n: usize| {
            let client = Client::new(format!("tgs-{run}-{n}"));
            client.subscribed(topics[0].clone(), self.qos, 0..1)
        };
        generator.connect((0..self.load.clients.unwrap_or(10_000)).map(client))?;
        self.add_publishers(&mut generator, &topics, false)?;
        self.watch(|| {
            for _ in 0..ROUNDS {
                generator.publish_each(1);
                acknowledged(&mut generator)?;
                arrived(&mut generator)?;
                generator.run_for(PAUSE)?;
            }
            Ok(())
        })?;
        self.faults.add(generator.faults());
        generator.disconnect(0..generator.peer_count());
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        let mut generator = Generator::new(self.target, self.load)?;
        let run = generator.name();
        let topics = numbered(&run, PUBLISHERS);
        let client = |n: usize| {
            let client = Client::new(format!("tgs-{run}-{n}"));
            client.subscribed(format!("tgb/{run}/#"), self.qos, 0..0)
        };
        generator.connect((0..ENDED).map(|n| client(n).durable()))?;
        generator.disconnect(0..ENDED);
        self.add_publishers(&mut generator, &topics, false)?;
        let messages = self.load.messages.unwrap_or(100_000);
        generator.publish_each(messages.div_ceil(PUBLISHERS as u64));
        acknowledged(&mut generator)?;
        self.watch(|| {
            for n in 0..ENDED {
                let mut client = Client::new(format!("tgs-{run}-{n}"));
                client.clean_start = true;
                let peer = generator.connect([client])?;
                generator.run_for(PAUSE)?;
                generator.disconnect(peer..peer + 1);
            }
            Ok(())
        })?;
        self.faults.add(generator.faults());
        generator.disconnect(0..generator.peer_count());
        Ok(())
    }
}

/// Returns the topics of a run.
fn numbered(run: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("tgb/{run}/{n}")).collect()
}

/// Returns the share of one of several publishers in this many topics.
fn share(n: usize, publishers: usize, topics: usize) -> Range<usize> {
    n * topics / publishers..(n + 1) * topics / publishers
}

/// Runs until all messages that may be published are published and acknowledged.
fn acknowledged(generator: &mut Generator) -> Result<(), Failure> {
    match generator.run_until(IDLE_TIMEOUT, |generator| {
        generator.has_sent_all() && generator.is_acknowledged()
    })? {
        true => Ok(()),
        false => Err(Failure::new(
            exit::TIMEOUT,
            "some messages were never acknowledged",
        )),
    }
}

/// Runs until everything has arrived, or nothing arrives any more. What is missing counts as lost.
fn arrived(generator: &mut Generator) -> Result<(), Failure> {
    generator.run_until(IDLE_TIMEOUT, |generator| {
        generator.counts().arrived >= generator.expected()
    })?;
    Ok(())
}
