//! Bridges whose upstream closes the connection on one message or one filter.

use std::sync::Arc;

use super::bridge::{Bridged, bridge, rule, upstream};
use super::bridge_random::Random;
use super::*;
use crate::broker::bridge::{Bridge, Direction, End, Relay, Rule, Upstream};
use crate::wire::packet::SubAck;

/// An upstream that answers everything but what it closes the connection on.
struct Picky<'a> {
    b: Bridged,
    closes_on: &'a dyn Fn(&Packet<'_>) -> Option<End>,
    /// What it took: topics and payloads, and filters.
    took: Vec<String>,
    connections: usize,
    version: ProtocolVersion,
}

impl Picky<'_> {
    fn new(
        rules: Vec<Rule>,
        version: ProtocolVersion,
        closes_on: &dyn Fn(&Packet<'_>) -> Option<End>,
    ) -> Picky<'_> {
        Picky {
            b: Bridged::of(bridge(rules)),
            closes_on,
            took: Vec::new(),
            connections: 0,
            version,
        }
    }

    /// Serves one connection until it has nothing to do, `fails` says so, or a packet ends it.
    /// Whether it stays.
    fn serve(&mut self, mut fails: impl FnMut() -> bool) -> bool {
        if self.b.relay.is_none() {
            self.connections += 1;
            let to = Upstream {
                session_present: self.connections > 1,
                ..upstream(self.version)
            };
            self.b.connect_anew(to);
        }
        let mut quiet = 0;
        while quiet < 400 {
            self.b.world.jump(1);
            if fails() {
                return self.end(&End::Closed);
            }
            let bytes = self.b.bytes_now();
            quiet = if bytes.is_empty() { quiet + 1 } else { 0 };
            let mut used = 0;
            while let Some(length) = codec::frame_len(&bytes[used..], u32::MAX).expect("good") {
                let frame = &bytes[used..used + length];
                used += length;
                let packet = codec::decode(frame, self.version).expect("good");
                if let Some(end) = (self.closes_on)(&packet) {
                    return self.end(&end);
                }
                let answer = match &packet {
                    Packet::Publish(publish) => {
                        let payload = String::from_utf8_lossy(publish.payload);
                        self.took.push(format!("{}={payload}", publish.topic));
                        match (publish.qos, publish.packet_id) {
                            (QoS::AtLeastOnce, Some(id)) => Packet::PubAck(success(id.get())),
                            (QoS::ExactlyOnce, Some(id)) => Packet::PubRec(success(id.get())),
                            _ => continue,
                        }
                    }
                    Packet::PubRel(ack) => Packet::PubComp(success(ack.packet_id.get())),
                    Packet::PingReq => Packet::PingResp,
                    Packet::Subscribe(subscribe) => {
                        let filters = subscribe.filters.iter();
                        self.took
                            .extend(filters.map(|(filter, _)| (*filter).to_owned()));
                        Packet::SubAck(SubAck {
                            packet_id: subscribe.packet_id,
                            properties: Properties::EMPTY,
                            codes: vec![ReasonCode::GrantedQos2; subscribe.filters.len()],
                        })
                    }
                    _ => continue,
                };
                self.b.hears(answer).expect("taken");
            }
        }
        true
    }

    fn end(&mut self, end: &End) -> bool {
        let (relay, broker, now) = self.b.relay();
        relay.ended(end, broker, now);
        self.b.lose();
        self.b.world.jump(1000);
        false
    }

    /// Connects until a connection stays; how many ended.
    fn serve_until_it_stays(&mut self) -> usize {
        let before = self.connections;
        while !self.serve(|| false) {
            assert!(self.connections < before + 50, "it goes on for ever");
        }
        self.connections - before - 1
    }

    fn set_aside(&self) -> u64 {
        self.b.world.broker.counters().bridge_messages_set_aside
    }
}

impl Bridged {
    /// As a process connects that has not subscribed before.
    pub(super) fn connect_anew(&mut self, upstream: Upstream) {
        self.version = upstream.version;
        let bridge = Arc::clone(&self.bridge);
        let now = self.world.now;
        let broker = &mut self.world.broker;
        self.relay = Relay::open(bridge, upstream, "a:1883", false, broker, now);
        assert!(self.relay.is_some());
    }

    /// What the upstream gets, as bytes, after all that must be committed for it.
    pub fn bytes_now(&mut self) -> Vec<u8> {
        self.world.settle();
        let mut out = Vec::new();
        let (relay, broker, now) = self.relay();
        relay.tick(&mut out, now).expect("an upstream that answers");
        relay
            .take_output(broker, &mut out, now)
            .expect("no reason to leave");
        self.world.take_fetches();
        self.world.answer_fetches();
        out
    }
}

fn is_publish_to(packet: &Packet<'_>, bad: &str) -> bool {
    matches!(packet, Packet::Publish(publish) if publish.topic == bad)
}

fn out() -> Vec<Rule> {
    vec![rule("#", Direction::Out, 2)]
}

#[test]
fn a_message_the_upstream_closes_on_is_set_aside_and_the_others_go_on() {
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        for qos in [1, 2] {
            let poison = |packet: &Packet<'_>| is_publish_to(packet, "bad").then_some(End::Closed);
            let mut it = Picky::new(out(), version, &poison);
            for (id, topic) in (1..).zip(["a", "b", "bad", "c", "bad", "d"]) {
                it.b.publish(message(qos, id, topic, "x"));
            }
            it.serve_until_it_stays();
            assert_eq!(it.set_aside(), 2);
            let mut seen = std::collections::BTreeSet::new();
            it.took.retain(|line| seen.insert(line.clone()));
            assert_eq!(it.took, ["a=x", "b=x", "c=x", "d=x"]);
            // It sends as many as before again.
            it.b.publish(message(1, 1, "later", "1"));
            it.b.publish(message(1, 2, "later", "2"));
            let bytes = it.b.bytes_now();
            assert_eq!(show(&bytes, version).len(), 2);
        }
    }
}

#[test]
fn what_is_set_aside_says_why() {
    let told = "NotAuthorized: not there";
    let poison =
        |packet: &Packet<'_>| is_publish_to(packet, "bad").then_some(End::Told(told.to_owned()));
    let mut it = Picky::new(out(), ProtocolVersion::V5, &poison);
    let operator = it.b.world.connect(&client("operator"));
    it.b.world.subscribe(operator, "dead", 1);
    it.b.publish(message(1, 1, "bad", "x"));
    it.b.publish(message(1, 2, "good", "y"));
    assert_eq!(
        it.serve_until_it_stays(),
        2,
        "one to notice, one to be sure"
    );
    let user = it.b.world.marks(operator).remove(0);
    let value = |name: &str| {
        let found = user.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    assert_eq!(value("bridge-topic"), "bad");
    assert!(value("bridge-reason").ends_with(told), "{user:?}");
    assert!(!user.iter().any(|(name, _)| name.starts_with("tidegate-")));
    assert_eq!(it.took, ["good=y"]);
}

#[test]
fn a_filter_the_upstream_closes_on_does_not_stop_what_goes_out() {
    let rules = vec![
        rule("up/#", Direction::Out, 1),
        rule("in/a", Direction::In, 1),
        rule("in/bad", Direction::In, 1),
        rule("in/c", Direction::In, 1),
    ];
    let closes = std::cell::Cell::new(true);
    let poison = |packet: &Packet<'_>| match packet {
        Packet::Subscribe(subscribe) if closes.get() => {
            let mut filters = subscribe.filters.iter();
            filters
                .any(|(filter, _)| *filter == "in/bad")
                .then_some(End::Closed)
        }
        _ => None,
    };
    let mut it = Picky::new(rules, ProtocolVersion::V311, &poison);
    it.b.publish(message(1, 1, "up/x", "1"));
    it.serve_until_it_stays();
    for wanted in ["in/a", "in/c", "up/x=1"] {
        assert!(
            it.took.iter().any(|line| line == wanted),
            "{wanted} in {:?}",
            it.took
        );
    }
    // It is tried again, on the connection there is, after a minute, and after two.
    it.took.clear();
    it.b.world.jump(58_000);
    assert!(it.serve(|| false) && it.took.is_empty(), "{:?}", it.took);
    it.b.world.jump(2_000);
    assert!(!it.serve(|| false));
    it.b.publish(message(1, 1, "up/x", "2"));
    assert_eq!(it.serve_until_it_stays(), 0);
    assert!(it.took.iter().any(|line| line == "up/x=2"));
    it.took.clear();
    closes.set(false);
    it.b.world.jump(130_000);
    assert!(it.serve(|| false));
    assert_eq!(it.took, ["in/bad"]);
    assert!(it.b.relay().0.has_all_subscriptions());
    assert_eq!(it.set_aside(), 0);
}

#[test]
fn no_link_however_bad_makes_a_bridge_set_a_message_aside() {
    for seed in 0..300 {
        let qos = 1 + (seed % 2) as u8;
        let mut it = Picky::new(out(), ProtocolVersion::V5, &|_| None);
        for id in 1..=6 {
            it.b.publish(message(qos, id, "a", &id.to_string()));
        }
        let mut random = Random(seed);
        // At random, after so many milliseconds, or when something is sent.
        for _ in 0..40 {
            let after = match seed % 3 {
                0 => random.below(12),
                1 => 1 + seed % 7,
                _ => random.below(4),
            };
            let mut left = after;
            if it.serve(|| {
                left = left.saturating_sub(1);
                left == 0
            }) {
                break;
            }
        }
        it.serve_until_it_stays();
        assert_eq!(it.set_aside(), 0, "seed {seed}");
        let mut seen = std::collections::BTreeSet::new();
        it.took.retain(|line| seen.insert(line.clone()));
        let expected = [1, 2, 3, 4, 5, 6].map(|n| format!("a={n}"));
        assert_eq!(it.took, expected, "seed {seed}");
    }
}

#[test]
fn whatever_an_upstream_closes_on_everything_else_gets_through() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let (bad_topic, bad_filter) = (random.below(2) == 0, random.below(2) == 0);
        let end = match random.below(3) {
            0 => End::Told("why".to_owned()),
            _ => End::Closed,
        };
        let poison = |packet: &Packet<'_>| match packet {
            Packet::Publish(publish) if bad_topic && publish.topic == "up/bad" => Some(end.clone()),
            Packet::Subscribe(subscribe) if bad_filter => {
                let mut filters = subscribe.filters.iter();
                filters
                    .any(|(filter, _)| *filter == "in/bad")
                    .then_some(end.clone())
            }
            _ => None,
        };
        let version = [ProtocolVersion::V5, ProtocolVersion::V311][random.below(2) as usize];
        let mut rules = vec![rule("up/#", Direction::Out, 2)];
        for n in 0..random.below(12) {
            rules.push(rule(&format!("in/{n}"), Direction::In, 1));
        }
        rules.push(rule("in/bad", Direction::In, 1));
        let mut it = Picky::new(rules, version, &poison);
        let (mut expected, mut bad) = (Vec::new(), 0);
        for id in 1..=12 {
            let topic = match random.below(4) {
                0 => "up/bad",
                _ => "up/good",
            };
            let payload = id.to_string();
            it.b.publish(message(1 + random.below(2) as u8, id, topic, &payload));
            if topic == "up/bad" && bad_topic {
                bad += 1;
            } else {
                expected.push(format!("{topic}={payload}"));
            }
            // Some connections are cut as well.
            let mut left = 1 + random.below(30);
            it.serve(|| {
                left -= 1;
                left == 0
            });
        }
        while !it.serve(|| false) {
            assert!(it.connections < 200, "seed {seed}: it goes on for ever");
        }
        assert_eq!(it.set_aside(), bad, "seed {seed}");
        let mut seen = std::collections::BTreeSet::new();
        it.took
            .retain(|line| line.contains('=') && seen.insert(line.clone()));
        assert_eq!(it.took, expected, "seed {seed}");
    }
}

#[test]
fn dead_letters_do_not_go_round_between_two_bridges() {
    for marks in [true, false] {
        let all = || vec![rule("#", Direction::Out, 1)];
        let second = Bridge {
            name: "second".into(),
            dead_letter_topic: Some("dead/second".into()),
            marks,
            ..bridge(all())
        };
        let mut b = Bridged::of(Bridge {
            marks,
            ..bridge(all())
        });
        let now = b.world.now;
        b.world.broker.open_bridge(&second, now);
        let operator = b.world.connect(&client("operator"));
        b.world.subscribe(operator, "dead/#", 1);
        b.publish(message(1, 1, "a", "x"));
        let first = Arc::clone(&b.bridge);
        let both = [first, Arc::new(second)];
        for round in 0..20 {
            // Each in turn is connected to an upstream that refuses everything.
            b.bridge = Arc::clone(&both[round % 2]);
            b.connect_anew(upstream(ProtocolVersion::V5));
            for _ in 0..10 {
                let bytes = b.bytes_now();
                let mut used = 0;
                while let Some(length) = codec::frame_len(&bytes[used..], u32::MAX).expect("good") {
                    let packet = codec::decode(&bytes[used..used + length], ProtocolVersion::V5);
                    used += length;
                    if let Ok(Packet::Publish(publish)) = packet {
                        let refused = Ack {
                            reason: ReasonCode::NotAuthorized,
                            ..success(publish.packet_id.expect("QoS 1").get())
                        };
                        b.hears(Packet::PubAck(refused)).expect("taken");
                    }
                }
            }
            b.lose();
        }
        b.world.settle();
        let mut topics = b.world.got(operator);
        topics.sort();
        // The message by each of them, and no dead letter of a dead letter.
        assert_eq!(topics.len(), 2, "{topics:?}");
        let counted = b.world.broker.counters().bridge_messages_set_aside;
        assert_eq!(counted, 4, "the message and a dead letter, twice");
    }
}

#[test]
fn a_topic_with_a_control_character_is_refused_to_the_upstream_and_goes_out_if_it_is_stored() {
    let mut b = Bridged::new(vec![rule("#", Direction::Both, 2)]);
    let bad = "a\u{1}";
    b.hears(Packet::Publish(message(1, 1, bad, "x")))
        .expect("taken");
    assert_eq!(b.got(), ["PUBACK #1 TopicNameInvalid"]);
    let parts = crate::broker::message::Parts {
        topic: bad,
        properties: Properties::EMPTY,
        payload: b"old",
        qos: QoS::AtLeastOnce,
        retain: false,
        expires: None,
        id: None,
    };
    b.world.broker.publish(&parts, None);
    assert_eq!(b.got(), ["PUBLISH #1 q1 a\u{1}=old"]);
}
