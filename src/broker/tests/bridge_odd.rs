//! A bridge and an upstream that misbehaves at random, over a link that may be slow, with an edge
//! that crashes: it closes the connection on some messages and filters, says why or not, answers
//! late, twice, never, or what nobody has asked, sends again what was taken, and loses its session
//! and does not say so.
//!
//! Nothing acknowledged is lost that was not set aside, nothing of QoS 2 arrives twice while the
//! sessions are kept, the order is kept, and the bridge comes to its end. `TIDEGATE_SIM_SEEDS` and
//! `TIDEGATE_SIM_FROM` are as for the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bridge::{Bridged, bridge, rule, upstream};
use super::bridge_random::Random;
use super::*;
use crate::broker::bridge::{Direction, End, Relay, Upstream};
use crate::wire::packet::SubAck;

/// Messages each way.
const MESSAGES: usize = 14;
/// Steps in which an upstream misbehaves, and connections after which a bridge must have come to
/// its end since.
const ODD_STEPS: usize = 400;
const MOST_CONNECTIONS: usize = 300;

/// What the upstream of a run does.
#[derive(Clone, Copy, Debug)]
struct Odds {
    version: ProtocolVersion,
    qos: u8,
    /// Of a hundred messages, how many it closes the connection on.
    poison: u64,
    /// What it says then: a reason of MQTT 5, or nothing.
    reason: Option<ReasonCode>,
    /// It closes the connection on one filter.
    shy: bool,
    /// It answers late, twice, never, and what nobody has asked, in so many of a hundred cases
    /// each.
    late: u64,
    twice: u64,
    never: u64,
    unasked: u64,
    /// It loses its session with so many of a hundred connections, and may not say so.
    forgets: u64,
    /// The link carries a few bytes at a time, seconds apart.
    slow: bool,
    /// The edge crashes in one of so many steps.
    crashes: u64,
}

/// The reasons that can mean a packet, and some that cannot.
const REASONS: [ReasonCode; 9] = [
    ReasonCode::MalformedPacket,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::PayloadFormatInvalid,
    ReasonCode::RetainNotSupported,
    ReasonCode::QosNotSupported,
    ReasonCode::UnspecifiedError,
    ReasonCode::ProtocolError,
];

impl Odds {
    fn draw(random: &mut Random) -> Odds {
        let mut pick = |from: &[u64]| from[random.below(from.len() as u64) as usize];
        let version = match pick(&[0, 1]) {
            0 => ProtocolVersion::V5,
            _ => ProtocolVersion::V311,
        };
        let reason = REASONS[pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8]) as usize];
        Odds {
            version,
            qos: pick(&[1, 2, 2]) as u8,
            poison: pick(&[0, 10, 30]),
            reason: (version == ProtocolVersion::V5 && pick(&[0, 1]) == 1).then_some(reason),
            shy: pick(&[0, 0, 1]) == 1,
            late: pick(&[0, 20]),
            twice: pick(&[0, 20]),
            never: pick(&[0, 0, 5]),
            unasked: pick(&[0, 0, 3]),
            forgets: pick(&[0, 0, 20]),
            slow: pick(&[0, 0, 1]) == 1,
            crashes: pick(&[0, 60, 200]),
        }
    }
}

/// What is wrong with the upstream's books on purpose, to show that each check can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// It acknowledges a message that it has not taken.
    Forgets,
    /// It takes a message of QoS 2 each time it comes.
    TakesAll,
    /// It takes two messages in the wrong order.
    Swaps,
    /// It closes the connection on all messages.
    ClosesOnAll,
}

/// How far what is sent down has come.
#[derive(Clone, Copy, Debug)]
struct Down {
    next: usize,
    id: u16,
    sent: bool,
    received: bool,
}

struct Odd {
    b: Bridged,
    random: Random,
    odds: Odds,
    lie: Lie,
    healed: bool,
    /// Its session: identifiers of QoS 2 that it holds, and what it sends.
    held: BTreeSet<u16>,
    down: Down,
    has_session: bool,
    /// What it has taken, in order.
    took: Vec<usize>,
    /// Answers that come later on this connection.
    late: Vec<Vec<u8>>,
    /// On its way to the upstream.
    up: Vec<u8>,
    /// A session was lost, so messages may come twice.
    lost: bool,
    connections: usize,
    subscribed: bool,
}

impl Odd {
    fn new(seed: u64, lie: Lie) -> Odd {
        let mut random = Random(seed);
        let odds = Odds::draw(&mut random);
        let rules = vec![
            rule("up/#", Direction::Out, 2),
            rule("down/#", Direction::In, 2),
            rule("shy/#", Direction::In, 2),
        ];
        let mut odd = Odd {
            b: Bridged::of(bridge(rules)),
            random,
            odds,
            lie,
            healed: false,
            held: BTreeSet::new(),
            down: Down {
                next: 0,
                id: 1,
                sent: false,
                received: false,
            },
            has_session: false,
            took: Vec::new(),
            late: Vec::new(),
            up: Vec::new(),
            lost: false,
            connections: 0,
            subscribed: false,
        };
        for (id, filter) in [("consumer", "down/#"), ("operator", "dead")] {
            let peer = odd.b.world.connect(&durable(id));
            odd.b.world.subscribe(peer, filter, 2);
            odd.b.world.flush();
            odd.b.world.leave(peer);
        }
        odd
    }

    fn chance(&mut self, percent: u64) -> bool {
        !self.healed && self.random.below(100) < percent
    }

    /// Whether the upstream closes the connection on a message.
    fn is_poison(&self, n: usize) -> bool {
        (n as u64 * 37 + 11) % 100 < self.odds.poison
    }

    fn connect(&mut self) {
        self.connections += 1;
        (self.late, self.up) = (Vec::new(), Vec::new());
        let broker = &mut self.b.world.broker;
        let anew = broker.begins_anew(&self.b.bridge, "a:1883");
        let mut present = self.has_session && !anew;
        if anew || self.chance(self.odds.forgets) {
            self.lost |= self.has_session;
            self.held.clear();
            (self.down.sent, self.down.received) = (false, false);
            self.subscribed = false;
            // It may not know that it has lost anything.
            present &= self.random.below(2) == 0;
        }
        self.has_session = true;
        let to = Upstream {
            session_present: present,
            ..upstream(self.odds.version)
        };
        self.b.version = to.version;
        let (bridge, now) = (Arc::clone(&self.b.bridge), self.b.world.now);
        let relay = Relay::open(bridge, to, "a:1883", false, &mut self.b.world.broker, now);
        self.b.relay = relay;
        assert!(self.b.relay.is_some());
        self.down.sent = false;
    }

    /// The connection ends; the next one comes after a while.
    fn end(&mut self, end: &End) {
        let (relay, broker, now) = self.b.relay();
        relay.ended(end, broker, now);
        self.b.lose();
        self.b.world.jump(2_000);
    }

    fn step(&mut self) {
        if self.odds.crashes > 0 && !self.healed && self.random.below(self.odds.crashes) == 0 {
            self.b.crash();
        }
        if self.b.relay.is_none() {
            return self.connect();
        }
        let ms = self.random.below(if self.healed { 4_000 } else { 100 });
        self.b.world.jump(ms);
        if self.random.below(3) > 0 {
            self.b.world.settle();
        }
        let mut out = Vec::new();
        let is_written = self.up.is_empty();
        let (relay, broker, now) = self.b.relay();
        let mut gone = relay.tick(&mut out, now).err();
        if gone.is_none() && is_written {
            gone = relay.take_output(broker, &mut out, now).err();
        }
        if let Some(leave) = gone {
            return self.end(&End::from(&leave));
        }
        self.up.extend(out);
        self.b.world.take_fetches();
        self.b.world.answer_fetches();
        if self.odds.slow && !self.healed {
            // Less than an answer's time passes between two of them, and far more for a packet.
            self.b.world.jump(2_000);
        }
        self.carry();
    }

    /// Brings what is on its way to the upstream, and lets it answer.
    fn carry(&mut self) {
        let mut received = Vec::new();
        if self.odds.slow && !self.healed {
            // The operating systems take bytes in small pieces. Whole packets are handled when they
            // are there.
            let length = codec::frame_len(&self.up, u32::MAX).expect("good");
            if let Some(length) = length {
                for _ in 0..length.div_ceil(10) {
                    self.b.world.jump(3_000);
                    let (relay, _, now) = self.b.relay();
                    relay.set_writing(true, now);
                    relay.excuse(now);
                    let mut pings = Vec::new();
                    let gone = relay.tick(&mut pings, now).err();
                    self.up.extend(pings);
                    assert_eq!(gone, None, "left although it takes what it is sent");
                }
                received.extend(self.up.drain(..length));
                let (relay, _, now) = self.b.relay();
                relay.set_writing(false, now);
            }
        } else {
            received = std::mem::take(&mut self.up);
        }
        let mut used = 0;
        while let Some(length) = codec::frame_len(&received[used..], u32::MAX).expect("good") {
            let frame = received[used..used + length].to_vec();
            used += length;
            let packet = codec::decode(&frame, self.odds.version).expect("good");
            if let Some(end) = self.handle(&packet) {
                return self.end(&end);
            }
            if self.b.relay.is_none() {
                return;
            }
        }
        if !self.late.is_empty() && self.random.below(4) == 0 {
            for answer in std::mem::take(&mut self.late) {
                if !self.say(&answer) {
                    return;
                }
            }
        }
        if self.chance(self.odds.unasked) {
            let packets = [
                Packet::PubAck(success(30_000)),
                Packet::PubRec(success(30_000)),
                Packet::PubComp(success(30_000)),
            ];
            let at = self.random.below(3) as usize;
            if !self.answer(&packets[at]) {
                return;
            }
        }
        self.send_down();
    }

    /// What the upstream makes of a packet; how it ends the connection, if it does.
    fn handle(&mut self, packet: &Packet<'_>) -> Option<End> {
        match packet {
            Packet::Publish(publish) => {
                let text = std::str::from_utf8(publish.payload).expect("a number");
                let n: usize = text.parse().expect("a number");
                if self.is_poison(n) || self.lie == Lie::ClosesOnAll {
                    return Some(match self.odds.reason {
                        Some(reason) => {
                            let why = reason.to_string();
                            End::from(&crate::broker::bridge::Leave::Disconnected(reason, why))
                        }
                        None => End::Closed,
                    });
                }
                let id = publish.packet_id.expect("QoS 1 or 2").get();
                let is_new = publish.qos != QoS::ExactlyOnce || self.held.insert(id);
                if (is_new || self.lie == Lie::TakesAll) && !(self.lie == Lie::Forgets && n == 5) {
                    match self.lie {
                        Lie::Swaps if n == 4 => self.took.insert(0, n),
                        _ => self.took.push(n),
                    }
                }
                let answer = match publish.qos {
                    QoS::ExactlyOnce => Packet::PubRec(success(id)),
                    _ => Packet::PubAck(success(id)),
                };
                self.answer_oddly(&answer);
            }
            Packet::PubRel(release) => {
                let id = release.packet_id.get();
                self.held.remove(&id);
                self.answer_oddly(&Packet::PubComp(success(id)));
            }
            Packet::PingReq => {
                self.answer(&Packet::PingResp);
            }
            Packet::Subscribe(subscribe) => {
                let is_shy = subscribe
                    .filters
                    .iter()
                    .any(|(it, _)| it.starts_with("shy"));
                if self.odds.shy && is_shy {
                    return Some(End::Closed);
                }
                let down = subscribe
                    .filters
                    .iter()
                    .any(|(it, _)| it.starts_with("down"));
                self.subscribed |= down;
                self.answer(&Packet::SubAck(SubAck {
                    packet_id: subscribe.packet_id,
                    properties: Properties::EMPTY,
                    codes: vec![ReasonCode::GrantedQos2; subscribe.filters.len()],
                }));
            }
            Packet::PubAck(_) => self.down_is_done(),
            Packet::PubRec(_) if self.down.sent => {
                self.down.received = true;
                let id = self.down.id;
                self.answer(&Packet::PubRel(success(id)));
            }
            Packet::PubComp(_) if self.down.received => self.down_is_done(),
            _ => {}
        }
        None
    }

    fn down_is_done(&mut self) {
        let down = &mut self.down;
        if down.sent {
            (down.next, down.id) = (down.next + 1, down.id % 60 + 1);
            (down.sent, down.received) = (false, false);
        }
    }

    /// Answers late, twice or never.
    fn answer_oddly(&mut self, answer: &Packet<'_>) {
        if self.chance(self.odds.never) {
            return;
        }
        let mut bytes = Vec::new();
        codec::encode(answer, self.odds.version, &mut bytes);
        // One that is repeated later may come when its identifier is that of the next message,
        // which nobody could tell apart.
        if self.chance(self.odds.twice) {
            let _ = self.say(&bytes) && self.say(&bytes);
        } else if self.chance(self.odds.late) {
            self.late.push(bytes);
        } else {
            self.say(&bytes);
        }
    }

    fn answer(&mut self, packet: &Packet<'_>) -> bool {
        let mut bytes = Vec::new();
        codec::encode(packet, self.odds.version, &mut bytes);
        self.say(&bytes)
    }

    /// A packet comes to the bridge. Whether it stays.
    fn say(&mut self, bytes: &[u8]) -> bool {
        if self.b.relay.is_none() {
            return false;
        }
        let packet = codec::decode(bytes, self.odds.version).expect("good");
        let mut out = Vec::new();
        let (relay, broker, now) = self.b.relay();
        let heard = relay.receive(packet, broker, &mut out, now);
        self.up.extend(out);
        if let Err(leave) = &heard {
            self.end(&End::from(leave));
        }
        heard.is_ok()
    }

    /// Sends what is to come down, and now and then once more.
    fn send_down(&mut self) {
        if self.down.next >= MESSAGES || !self.subscribed || self.b.relay.is_none() {
            return;
        }
        let again = self.down.sent && self.chance(self.odds.twice);
        if self.down.sent && !again {
            return;
        }
        let (id, n) = (self.down.id, self.down.next.to_string());
        let is_dup = self.down.sent;
        self.down.sent = true;
        if self.down.received {
            self.answer(&Packet::PubRel(success(id)));
            return;
        }
        // At QoS 1 what is sent again is another message, so that is not done.
        let qos = self.odds.qos;
        if !(is_dup && qos == 1) {
            let publish = Publish {
                dup: is_dup && self.random.below(2) == 0,
                ..message(qos, id, "down/x", &n)
            };
            self.answer(&Packet::Publish(publish));
        }
    }

    /// Runs to the end. What is wrong, if anything is.
    fn run(&mut self) -> Result<(), String> {
        let mut sent = 0;
        for step in 0..ODD_STEPS {
            if step % 20 == 3 && sent < MESSAGES {
                let n = sent.to_string();
                self.b.publish(message(self.odds.qos, 1, "up/x", &n));
                sent += 1;
            }
            self.step();
        }
        self.healed = true;
        let before = self.connections;
        let mut quiet = 0;
        while quiet < 400 {
            if self.connections > before + MOST_CONNECTIONS {
                return Err("the bridge does not come to its end".to_owned());
            }
            let seen = (self.took.len(), self.down.next, self.connections);
            self.step();
            self.b.world.settle();
            let idle = seen == (self.took.len(), self.down.next, self.connections);
            quiet = if idle { quiet + 1 } else { 0 };
        }
        if let Some(relay) = self.b.relay.take() {
            relay.close(&mut self.b.world.broker, self.b.world.now);
        }
        self.judge(sent)
    }

    fn judge(&mut self, sent: usize) -> Result<(), String> {
        let numbers = |lines: Vec<String>| -> Vec<usize> {
            let last = |line: &String| line.rsplit('=').next().and_then(|n| n.parse().ok());
            lines.iter().filter_map(last).collect()
        };
        let operator = self.b.world.connect(&durable("operator"));
        let dead = numbers(self.b.world.drain(operator));
        let consumer = self.b.world.connect(&durable("consumer"));
        let down = numbers(self.b.world.drain(consumer));
        let what = format!(
            "took {:?}, dead letters {dead:?}, came down {down:?}",
            self.took
        );
        let wrong = |why: &str| Err(format!("{why}: {what}"));
        for n in 0..sent {
            let is_taken = self.took.contains(&n);
            if !is_taken && !dead.contains(&n) {
                return wrong(&format!("{n} is lost"));
            }
            if is_taken && self.is_poison(n) {
                return wrong(&format!("{n} is poison"));
            }
        }
        let innocent = self.odds.unasked == 0 && self.odds.never == 0;
        if innocent && dead.iter().any(|n| !self.is_poison(*n)) {
            return wrong("a message is set aside that the upstream takes");
        }
        let mut seen = BTreeSet::new();
        let first: Vec<usize> = self
            .took
            .iter()
            .copied()
            .filter(|n| seen.insert(*n))
            .collect();
        if !first.is_sorted() {
            return wrong("the order is lost");
        }
        let mut counts = BTreeMap::new();
        self.took
            .iter()
            .for_each(|n| *counts.entry(*n).or_insert(0) += 1);
        if self.odds.qos == 2 && !self.lost && counts.values().any(|count| *count > 1) {
            return wrong("a message of QoS 2 arrived twice");
        }
        let mut once = down.clone();
        once.dedup();
        if once != (0..MESSAGES).collect::<Vec<_>>() {
            return wrong("what comes down is not all, or not in order");
        }
        if self.odds.qos == 2 && !self.lost && down.len() != MESSAGES {
            return wrong("a message of QoS 2 came down twice");
        }
        let audit = self.b.world.broker.audit();
        audit.map(drop).map_err(|why| format!("{why}: {what}"))
    }
}

fn attempt(seed: u64, lie: Lie) -> Result<(), String> {
    let mut odd = Odd::new(seed, lie);
    odd.run()
        .map_err(|why| format!("seed {seed}: {why}; {:?}, lost {}", odd.odds, odd.lost))
}

#[test]
fn whatever_an_upstream_does_nothing_is_lost_that_was_not_set_aside() {
    let setting = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let from = setting("TIDEGATE_SIM_FROM").unwrap_or(1);
    let seeds = setting("TIDEGATE_SIM_SEEDS").unwrap_or(150);
    let failures = (from..from + seeds).filter_map(|seed| attempt(seed, Lie::None).err());
    let failures: Vec<String> = failures.collect();
    assert!(
        failures.is_empty(),
        "{} of {seeds}: {}",
        failures.len(),
        failures[0]
    );
}

#[test]
fn each_lie_about_an_upstream_is_found_out() {
    for (lie, found) in [
        (Lie::Forgets, "5 is lost"),
        (Lie::TakesAll, "arrived twice"),
        (Lie::Swaps, "the order is lost"),
        (Lie::ClosesOnAll, "is set aside that the upstream takes"),
    ] {
        let mut tried = (1..200).filter_map(|seed| attempt(seed, lie).err());
        assert!(tried.any(|why| why.contains(found)), "{lie:?}");
    }
}
