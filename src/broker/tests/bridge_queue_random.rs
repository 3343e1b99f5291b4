//! Random publishes, links that break and processes that die, for each way messages may wait for a
//! bridge: what is neither dropped nor superseded arrives, QoS 2 exactly once, in the order that is
//! promised, and nothing is left.

use std::collections::{BTreeMap, BTreeSet};

use super::bridge::{Bridged, bridge, rule, upstream};
use super::bridge_random::Random;
use super::*;
use crate::broker::bridge::{Bridge, Direction, QueueFull, QueuePolicy};

const MESSAGES: usize = 60;
const TOPICS: u64 = 4;

/// How messages wait.
#[derive(Clone, Copy, Debug)]
struct Way {
    keep_latest: bool,
    live_first: bool,
    queue_full: QueueFull,
    cap: Option<u64>,
}

/// What was published, and what the upstream has.
struct Run {
    b: Bridged,
    random: Random,
    way: Way,
    /// Of each message, its topic and QoS; what was refused is not here.
    published: BTreeMap<usize, (u64, u8)>,
    /// What arrived, repetitions at QoS 1 included.
    arrived: Vec<usize>,
    /// QoS 2: received, and not released.
    received: BTreeSet<u16>,
    /// Packets on their way to the upstream.
    wire: Vec<String>,
    connected: bool,
    crashed: bool,
    gone: u64,
}

impl Run {
    fn new(seed: u64, way: Way) -> Run {
        let bridge = Bridge {
            queue: QueuePolicy {
                max_queued_messages: way.cap,
                max_queued_bytes: None,
                queue_full: way.queue_full,
                live_first: way.live_first,
            },
            max_inflight_messages: Some(3),
            ..bridge(vec![
                rule("#", Direction::Out, 2).keeping_latest(way.keep_latest),
            ])
        };
        Run {
            b: Bridged::of(bridge),
            random: Random(seed),
            way,
            published: BTreeMap::new(),
            arrived: Vec::new(),
            received: BTreeSet::new(),
            wire: Vec::new(),
            connected: false,
            crashed: false,
            gone: 0,
        }
    }

    /// Messages the broker says it has not delivered and will not.
    fn count_gone(&self) -> u64 {
        let figures = &self.b.world.broker.bridge_figures()[0];
        figures.dropped + figures.superseded
    }

    fn publish(&mut self, n: usize, qos: u8) {
        let topic = self.random.below(TOPICS);
        let name = format!("t/{topic}");
        let device = self.b.world.connect(&client("device"));
        let world = &mut self.b.world;
        world.publish(device, message(qos, 1, &name, &n.to_string()));
        // Its acknowledgement is what a crash must not undo.
        world.settle_disk();
        let told = world.got(device).iter().any(|line| line.contains("Quota"));
        // What is dropped counts as that, and its publisher is told as well.
        let refused = told && self.way.queue_full == QueueFull::Refuse;
        if !refused {
            self.published.insert(n, (topic, qos));
        }
        self.b.world.leave(device);
    }

    fn crash(&mut self) {
        self.gone += self.count_gone();
        self.wire.clear();
        self.connected = false;
        self.crashed = true;
        self.b.crash();
    }

    fn lose(&mut self) {
        self.wire.clear();
        if std::mem::take(&mut self.connected) {
            self.b.lose();
        }
    }

    fn connect(&mut self) {
        if !std::mem::replace(&mut self.connected, true) {
            self.b.connect(upstream(ProtocolVersion::V5));
        }
    }

    /// The upstream reads a packet and answers.
    fn read(&mut self) {
        if self.wire.is_empty() {
            return;
        }
        let line = self.wire.remove(0);
        let words: Vec<&str> = line.split(' ').collect();
        let id: u16 = words[1].trim_start_matches('#').parse().expect("an id");
        let payload = line.rsplit('=').next().and_then(|n| n.parse().ok());
        let answer = match (words[0], words[2..].contains(&"q2")) {
            ("PUBREL", _) => {
                self.received.remove(&id);
                Packet::PubComp(success(id))
            }
            (_, true) => {
                if self.received.insert(id) {
                    self.arrived.push(payload.expect("a number"));
                }
                Packet::PubRec(success(id))
            }
            (_, false) => {
                self.arrived.push(payload.expect("a number"));
                Packet::PubAck(success(id))
            }
        };
        self.b.hears(answer).expect("taken");
    }

    fn step(&mut self) {
        match self.random.below(6) {
            0 | 1 if self.connected => {
                let mut out = Vec::new();
                let (relay, broker, now) = self.b.relay();
                relay.take_output(broker, &mut out, now).expect("stays");
                self.wire.extend(show(&out, ProtocolVersion::V5));
            }
            2 | 3 if self.connected => self.read(),
            4 => {
                self.b.world.take_fetches();
                self.b.world.answer_fetches();
            }
            _ => {
                let world = &mut self.b.world;
                if world.committing.is_some() {
                    world.durable();
                } else {
                    world.take();
                }
            }
        }
        self.b.world.broker.audit().expect("the accounts agree");
    }

    fn run(&mut self, crashes: bool, qos: impl Fn(&mut Random) -> u8) {
        let mut n = 0;
        while n < MESSAGES {
            match self.random.below(40) {
                0 if crashes => self.crash(),
                1 | 2 => self.lose(),
                3..=6 => self.connect(),
                7..=16 => {
                    let qos = qos(&mut self.random);
                    self.publish(n, qos);
                    n += 1;
                }
                _ => self.step(),
            }
        }
        self.connect();
        for _ in 0..4000 {
            self.step();
        }
        self.gone += self.count_gone();
        self.b.world.assert_nothing_left();
    }

    fn check(&self, seed: u64, exactly_once: bool) {
        let say = |what: &str| format!("{what}: seed {seed}, {:?}: {:?}", self.way, self.arrived);
        let mut first = Vec::new();
        let mut seen = BTreeSet::new();
        for n in &self.arrived {
            if seen.insert(*n) {
                first.push(*n);
            } else {
                let (_, qos) = self.published[n];
                assert!(qos == 1 && !exactly_once, "{}", say("twice"));
            }
        }
        let lost = self.published.keys().filter(|n| !seen.contains(n)).count() as u64;
        // At QoS 1, what was superseded or dropped after a crash may have arrived before it; and
        // what makes room when topics are read is on disk a little later, so that a crash has it
        // happen, and counted, twice.
        let crossed = if exactly_once && !(self.way.keep_latest && self.crashed) {
            lost == self.gone
        } else {
            lost <= self.gone
        };
        assert!(crossed, "{} {lost} {}", say("lost"), self.gone);
        let topic_of = |n: &usize| self.published[n].0;
        for topic in 0..TOPICS {
            let of_topic: Vec<usize> = first
                .iter()
                .copied()
                .filter(|n| topic_of(n) == topic)
                .collect();
            let newest = self
                .published
                .iter()
                .rev()
                .find(|(_, (of, _))| *of == topic);
            if self.way.keep_latest && self.way.cap.is_none() {
                assert_eq!(of_topic.last(), newest.map(|(n, _)| n), "{}", say("newest"));
            }
            if !self.way.live_first || self.way.keep_latest {
                assert!(of_topic.is_sorted(), "{} {topic}", say("order"));
            }
        }
        if !self.way.live_first && !self.way.keep_latest {
            assert!(first.is_sorted(), "{}", say("order"));
        }
        if !self.way.keep_latest && self.way.cap.is_none() {
            assert_eq!(lost, 0, "{}", say("lost"));
        }
    }
}

fn try_way(way: Way) {
    for seed in 0..150 {
        let mut run = Run::new(seed, way);
        run.run(seed % 3 > 0, |_| 2);
        run.check(seed, true);
        let mut run = Run::new(seed, way);
        run.run(seed % 3 > 0, |random| 1 + random.below(2) as u8);
        run.check(seed, false);
    }
}

const PLAIN: Way = Way {
    keep_latest: false,
    live_first: false,
    queue_full: QueueFull::DropNewest,
    cap: None,
};

#[test]
fn the_oldest_are_dropped() {
    try_way(Way {
        queue_full: QueueFull::DropOldest,
        cap: Some(5),
        ..PLAIN
    });
}

#[test]
fn the_newest_are_dropped_or_refused() {
    for queue_full in [QueueFull::DropNewest, QueueFull::Refuse] {
        try_way(Way {
            queue_full,
            cap: Some(5),
            ..PLAIN
        });
    }
}

#[test]
fn the_newest_of_each_topic_arrives() {
    try_way(Way {
        keep_latest: true,
        ..PLAIN
    });
}

#[test]
fn live_messages_first_lose_nothing() {
    try_way(Way {
        live_first: true,
        ..PLAIN
    });
}

#[test]
fn live_first_with_the_newest_of_each_topic_keeps_its_order() {
    try_way(Way {
        live_first: true,
        keep_latest: true,
        ..PLAIN
    });
}

#[test]
fn all_together() {
    try_way(Way {
        live_first: true,
        keep_latest: true,
        queue_full: QueueFull::DropOldest,
        cap: Some(3),
    });
}
