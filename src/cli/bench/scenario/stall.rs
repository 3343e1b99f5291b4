//! How long a broker keeps others waiting: pairs of clients exchange messages at a low rate while it has something large to do.
//!
//! Everything is prepared before, and what disturbs gives way to the broker and to the pairs where there are too few processors, so what the
//! pairs wait for is the broker. Nevertheless their latency has in it what the operating system takes to run three processes' threads; the
//! time the broker's lock is held (`--metrics-port`) has only what a thread that holds it may lose to others.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;

use super::probe::Probes;
use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::lock::Lock;
use crate::cli::bench::model::{Disturbance, Load, PATIENCE, Target};
use crate::cli::bench::outcome::{Better, Faults, Outcome};
use crate::cli::bench::process::{self, Usage};
use crate::cli::bench::rig::{Client, Rig, Shape};
use crate::cli::exit::{self, Failure};
use crate::wire::QoS;

const PAIRS: usize = 20;
/// Messages a second of all pairs.
const RATE: f64 = 1_000.0;
const PUBLISHERS: usize = 10;
const SIZE: usize = 256;
/// How often something is done that is over soon.
const ROUNDS: usize = 3;
/// How long until it is done again.
const PAUSE: Duration = Duration::from_millis(200);
/// Offline sessions that commits are for.
const SESSIONS: usize = 50;
/// How long until there are messages to commit again, and how many from each publisher.
const BURST_EVERY: Duration = Duration::from_millis(100);
const BURST: u64 = 100;
/// Clients of the storm that are connecting at any time, which is what some brokers let wait, and the messages that wait for each.
const AT_ONCE: usize = 100;
const BACKLOG: u64 = 10;
/// Sessions that are ended, each with all the messages of the backlog.
const ENDED: usize = 3;

/// What figures of one disturbance are called.
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

/// Runs it: all disturbances, or those of `--disturb`, one after the other.
///
/// # Errors
/// The broker cannot be reached, breaks the protocol, or closes a connection.
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
        stall.tell(&disturbance.names(), &mut outcome);
    }
    Ok(outcome)
}

/// One disturbance, and what was found.
struct Stall<'a> {
    target: &'a Target,
    load: &'a Load,
    probes: Probes,
    qos: QoS,
    /// Of the probes, in nanoseconds.
    latency: Histogram,
    faults: Faults,
    /// Processor time the broker used meanwhile, in microseconds.
    cpu_us: f64,
    /// How long its lock was held at most in one go, in seconds.
    lock: Option<f64>,
}

impl Stall<'_> {
    /// Does something and looks on.
    fn watch(&mut self, work: impl FnOnce() -> Result<(), Failure> + Send) -> Result<(), Failure> {
        let usage = || self.target.pid.and_then(Usage::of);
        let metrics = self.target.metrics;
        let before = metrics.map(Lock::of).transpose()?;
        let mut used = None;
        let watched = self.probes.watch(self.target, self.load, || {
            process::give_way();
            let from = usage();
            work()?;
            used = from.zip(usage());
            Ok(())
        });
        let (latency, faults) = watched?;
        if let (Some(metrics), Some(before)) = (metrics, before) {
            let longest = Lock::of(metrics)?.longest_since(&before);
            self.lock = Some(self.lock.unwrap_or(0.0).max(longest));
        }
        self.latency.add(&latency);
        self.faults.add(faults);
        self.cpu_us += used.map_or(0.0, |(from, to)| to.cpu_us - from.cpu_us);
        Ok(())
    }

    fn tell(&self, names: &Names, outcome: &mut Outcome) {
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
        rig: &mut Rig,
        topics: &[String],
        retain: bool,
    ) -> Result<usize, Failure> {
        let run = rig.name();
        let publishers = PUBLISHERS.min(topics.len());
        let shape = Shape {
            qos: self.qos,
            size: self.load.size.unwrap_or(SIZE),
            retain,
            window: self.load.window,
            receivers: 0,
        };
        let first = rig.connect((0..publishers).map(|n| Client::new(format!("tgp-{run}-{n}"))))?;
        for n in 0..publishers {
            let share = &topics[share(n, publishers, topics.len())];
            rig.publish_from(first + n, share, &shape);
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
        let mut rig = Rig::new(self.target, self.load)?;
        let run = rig.name();
        let topics = numbered(&run, SESSIONS);
        let client = |n: usize| {
            let client = Client::new(format!("tgs-{run}-{n}"));
            client
                .subscribed(topics[n].clone(), self.qos, 0..0)
                .durable()
        };
        rig.connect((0..SESSIONS).map(client))?;
        rig.disconnect(0..SESSIONS);
        self.add_publishers(&mut rig, &topics, false)?;
        let time = self.load.duration.as_nanos() as u64;
        self.watch(|| {
            let end = rig.now() + time;
            while rig.now() < end {
                rig.publish_each(BURST);
                rig.run_for(BURST_EVERY)?;
            }
            acknowledged(&mut rig)
        })?;
        self.faults.add(rig.faults());
        rig.end_sessions(0..SESSIONS)?;
        rig.disconnect(0..rig.peer_count());
        Ok(())
    }

    fn retained(&mut self) -> Result<(), Failure> {
        let mut rig = Rig::new(self.target, self.load)?;
        let run = rig.name();
        let each = self
            .load
            .messages
            .unwrap_or(100_000)
            .div_ceil(PUBLISHERS as u64);
        let topics = numbered(&run, each as usize * PUBLISHERS);
        let first = self.add_publishers(&mut rig, &topics, true)?;
        rig.publish_each(each);
        acknowledged(&mut rig)?;
        for round in 0..ROUNDS {
            let mut client = Client::new(format!("tgs-{run}-{round}"));
            client = client.subscribed(format!("tgb/{run}/#"), self.qos, 0..topics.len() as u32);
            client.from_the_first = true;
            self.watch(|| {
                let subscriber = rig.connect([client])?;
                arrived(&mut rig)?;
                rig.run_for(PAUSE)?;
                rig.disconnect(subscriber..subscriber + 1);
                Ok(())
            })?;
        }
        self.faults.add(rig.faults());
        for n in 0..PUBLISHERS {
            rig.clear_retained(first + n, &topics[share(n, PUBLISHERS, topics.len())])?;
        }
        rig.run_for(PAUSE)?;
        rig.disconnect(0..rig.peer_count());
        Ok(())
    }

    fn storm(&mut self) -> Result<(), Failure> {
        let mut rig = Rig::new(self.target, self.load)?;
        let run = rig.name();
        let count = self.load.clients.unwrap_or(5_000);
        let topics = numbered(&run, count);
        let client = |n: usize| {
            let client = Client::new(format!("tgs-{run}-{n}"));
            let flow = n as u32..n as u32 + 1;
            client
                .subscribed(topics[n].clone(), self.qos, flow)
                .durable()
        };
        rig.connect((0..count).map(client))?;
        rig.disconnect(0..count);
        self.add_publishers(&mut rig, &topics, false)?;
        let each = BACKLOG * (count as u64).div_ceil(PUBLISHERS as u64);
        for _ in 0..ROUNDS {
            rig.publish_each(each);
            acknowledged(&mut rig)?;
            self.watch(|| {
                for first in (0..count).step_by(AT_ONCE) {
                    rig.connect_again(first..(first + AT_ONCE).min(count))?;
                }
                arrived(&mut rig)?;
                rig.disconnect(0..count);
                rig.run_for(PAUSE)
            })?;
        }
        self.faults.add(rig.faults());
        rig.end_sessions(0..count)?;
        rig.disconnect(0..rig.peer_count());
        Ok(())
    }

    fn fan_out(&mut self) -> Result<(), Failure> {
        let mut rig = Rig::new(self.target, self.load)?;
        let run = rig.name();
        let topics = numbered(&run, 1);
        let client = |n: usize| {
            let client = Client::new(format!("tgs-{run}-{n}"));
            client.subscribed(topics[0].clone(), self.qos, 0..1)
        };
        rig.connect((0..self.load.clients.unwrap_or(10_000)).map(client))?;
        self.add_publishers(&mut rig, &topics, false)?;
        self.watch(|| {
            for _ in 0..ROUNDS {
                rig.publish_each(1);
                acknowledged(&mut rig)?;
                arrived(&mut rig)?;
                rig.run_for(PAUSE)?;
            }
            Ok(())
        })?;
        self.faults.add(rig.faults());
        rig.disconnect(0..rig.peer_count());
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        let mut rig = Rig::new(self.target, self.load)?;
        let run = rig.name();
        let topics = numbered(&run, PUBLISHERS);
        let client = |n: usize| {
            let client = Client::new(format!("tgs-{run}-{n}"));
            client.subscribed(format!("tgb/{run}/#"), self.qos, 0..0)
        };
        rig.connect((0..ENDED).map(|n| client(n).durable()))?;
        rig.disconnect(0..ENDED);
        self.add_publishers(&mut rig, &topics, false)?;
        let messages = self.load.messages.unwrap_or(100_000);
        rig.publish_each(messages.div_ceil(PUBLISHERS as u64));
        acknowledged(&mut rig)?;
        self.watch(|| {
            for n in 0..ENDED {
                let mut client = Client::new(format!("tgs-{run}-{n}"));
                client.clean_start = true;
                let peer = rig.connect([client])?;
                rig.run_for(PAUSE)?;
                rig.disconnect(peer..peer + 1);
            }
            Ok(())
        })?;
        self.faults.add(rig.faults());
        rig.disconnect(0..rig.peer_count());
        Ok(())
    }
}

/// Topics of a run.
fn numbered(run: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("tgb/{run}/{n}")).collect()
}

/// The share of one of several publishers in so many topics.
fn share(n: usize, publishers: usize, topics: usize) -> Range<usize> {
    n * topics / publishers..(n + 1) * topics / publishers
}

/// Goes on until all that may be published has been, and is acknowledged.
fn acknowledged(rig: &mut Rig) -> Result<(), Failure> {
    match rig.run_until(PATIENCE, |rig| rig.has_sent_all() && rig.is_acknowledged())? {
        true => Ok(()),
        false => Err(Failure::new(
            exit::TIMEOUT,
            "some messages were never acknowledged",
        )),
    }
}

/// Goes on until everything has arrived, or nothing more comes: then something is lost, which is counted.
fn arrived(rig: &mut Rig) -> Result<(), Failure> {
    rig.run_until(PATIENCE, |rig| rig.counts().arrived >= rig.expected())?;
    Ok(())
}
