//! Bridges: one side is the broker, the other one is what the test says the upstream sends.

use std::sync::Arc;

use super::*;
use crate::broker::Origin;
use crate::broker::bridge::{
    Bridge, Direction, Leave, Login, QueuePolicy, Rates, Relay, Rule, Upstream, UpstreamProtocol,
};
use crate::wire::packet::{ConnAck, SubAck};

/// A rule without prefixes.
pub(super) fn rule(pattern: &str, direction: Direction, qos: u8) -> Rule {
    Rule::new(pattern, direction, level(qos), "", "").expect("a good rule")
}

pub(super) fn bridge(rules: Vec<Rule>) -> Bridge {
    Bridge {
        name: "cloud".into(),
        rules,
        remote_clientid: "edge1".into(),
        max_inflight_messages: Some(100),
        keepalive_interval: 60,
        response_timeout_ms: 30_000,
        session_expiry: u32::MAX,
        max_topic_alias_out: 20,
        user_properties: Vec::new(),
        rates_in: Rates::default(),
        rates_out: Rates::default(),
        dead_letter_topic: Some("dead".into()),
        marks: true,
        queue: QueuePolicy::default(),
        notifications: None,
        clean_session: false,
    }
}

/// An upstream that takes everything, and has the session of before.
pub(super) fn upstream(version: ProtocolVersion) -> Upstream {
    Upstream {
        version,
        session_present: true,
        receive_maximum: u16::MAX,
        maximum_qos: QoS::ExactlyOnce,
        retain_available: true,
        maximum_packet_size: u32::MAX,
        keep_alive: 60,
        topic_alias_maximum: 0,
        wildcards: true,
    }
}

/// A world with a bridge that is connected.
pub(super) struct Bridged {
    pub world: World,
    pub bridge: Arc<Bridge>,
    pub relay: Option<Relay>,
    pub version: ProtocolVersion,
}

impl Bridged {
    pub fn new(rules: Vec<Rule>) -> Bridged {
        Bridged::to(rules, upstream(ProtocolVersion::V5))
    }

    pub fn to(rules: Vec<Rule>, upstream: Upstream) -> Bridged {
        let mut bridged = Bridged::of(bridge(rules));
        bridged.connect(upstream);
        bridged
    }

    /// A world with a bridge that is not connected.
    pub fn of(bridge: Bridge) -> Bridged {
        let mut bridged = Bridged {
            world: World::new(),
            bridge: Arc::new(bridge),
            relay: None,
            version: ProtocolVersion::V5,
        };
        let now = bridged.world.now;
        bridged.world.broker.open_bridge(&bridged.bridge, now);
        bridged.world.settle();
        bridged
    }

    pub fn connect(&mut self, upstream: Upstream) {
        self.connect_to("a:1883", upstream);
    }

    pub fn connect_to(&mut self, address: &str, upstream: Upstream) {
        self.version = upstream.version;
        let bridge = Arc::clone(&self.bridge);
        let now = self.world.now;
        let broker = &mut self.world.broker;
        self.relay = Relay::open(bridge, upstream, address, true, broker, now);
        assert!(self.relay.is_some());
    }

    pub fn relay(&mut self) -> (&mut Relay, &mut Broker, Now) {
        let relay = self.relay.as_mut().expect("connected");
        (relay, &mut self.world.broker, self.world.now)
    }

    pub fn lose(&mut self) {
        let relay = self.relay.take().expect("connected");
        relay.close(&mut self.world.broker, self.world.now);
    }

    /// The process dies.
    pub fn crash(&mut self) {
        self.relay = None;
        self.world.crash();
        let now = self.world.now;
        self.world.broker.open_bridge(&self.bridge, now);
    }

    /// What the upstream gets, one line a packet; what must be committed for it is.
    pub fn got(&mut self) -> Vec<String> {
        self.world.settle();
        self.got_now()
    }

    /// What the upstream gets before anything more is committed.
    pub fn got_now(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        loop {
            let before = out.len();
            let (relay, broker, now) = self.relay();
            relay
                .take_output(broker, &mut out, now)
                .expect("no reason to leave");
            self.world.take_fetches();
            let read = !self.world.fetches.is_empty();
            self.world.answer_fetches();
            if out.len() == before && !read {
                return show(&out, self.version);
            }
        }
    }

    /// The upstream sends a packet; what it gets at once.
    pub fn hears(&mut self, packet: Packet<'_>) -> Result<Vec<String>, Leave> {
        let mut out = Vec::new();
        let (relay, broker, now) = self.relay();
        relay.receive(packet, broker, &mut out, now)?;
        Ok(show(&out, self.version))
    }

    pub fn publish(&mut self, publish: Publish<'_>) {
        let device = self.world.connect(&publisher());
        self.world.publish(device, publish);
        self.world.settle();
        self.world.leave(device);
    }
}

fn answer(id: u16, reason: ReasonCode) -> Ack<'static> {
    Ack {
        reason,
        ..success(id)
    }
}

#[test]
fn messages_wait_for_the_acknowledgement_of_the_upstream() {
    let mut b = Bridged::new(vec![rule("up/#", Direction::Out, 2)]);
    b.publish(message(1, 1, "up/a", "one"));
    b.publish(message(2, 2, "up/a", "two"));
    b.publish(message(1, 3, "elsewhere", "three"));
    let got = b.got();
    assert_eq!(got, ["PUBLISH #1 q1 up/a=one", "PUBLISH #2 q2 up/a=two"]);
    // Sent is not delivered: a new connection sends both again, a crash as well.
    b.lose();
    b.connect(upstream(ProtocolVersion::V5));
    let again = b.got();
    assert_eq!(
        again,
        ["PUBLISH #1 q1 dup up/a=one", "PUBLISH #2 q2 dup up/a=two"]
    );
    assert_eq!(b.hears(Packet::PubAck(success(1))), Ok(vec![]));
    assert_eq!(b.hears(Packet::PubRec(success(2))), Ok(vec![]));
    // PUBREL waits for the disk.
    assert_eq!(b.got_now(), [""; 0]);
    assert_eq!(b.got(), ["PUBREL #2"]);
    b.world.flush();
    b.crash();
    b.connect(upstream(ProtocolVersion::V5));
    assert_eq!(b.got(), ["PUBREL #2"]);
    b.hears(Packet::PubComp(success(2))).expect("taken");
    b.world.assert_nothing_left();
}

#[test]
fn messages_of_the_upstream_are_acknowledged_when_they_are_on_disk() {
    let rules = vec![
        Rule::new(
            "cmd/#",
            Direction::In,
            QoS::ExactlyOnce,
            "local/",
            "remote/",
        )
        .expect("good"),
    ];
    let mut b = Bridged::new(rules);
    let device = b.world.connect(&durable("device"));
    b.world.subscribe(device, "local/#", 2);
    let qos1 = message(1, 7, "remote/cmd/x", "one");
    let qos2 = message(2, 8, "remote/cmd/x", "two");
    assert_eq!(b.hears(Packet::Publish(qos1)), Ok(vec![]));
    assert_eq!(b.hears(Packet::Publish(qos2)), Ok(vec![]));
    assert_eq!(b.got_now(), [""; 0]);
    assert_eq!(b.got(), ["PUBACK #7", "PUBREC #8"]);
    // The same again, after a crash, is no new message.
    b.crash();
    b.connect(upstream(ProtocolVersion::V5));
    b.hears(Packet::Publish(Publish { dup: true, ..qos2 }))
        .expect("taken");
    assert_eq!(b.got(), ["PUBREC #8"]);
    b.hears(Packet::PubRel(success(8))).expect("taken");
    assert_eq!(b.got_now(), [""; 0]);
    assert_eq!(b.got(), ["PUBCOMP #8"]);
    let device = b.world.connect(&durable("device"));
    assert_eq!(
        b.world.drain(device),
        [
            "PUBLISH q1 dup local/cmd/x=one",
            "PUBLISH q2 dup local/cmd/x=two"
        ]
    );
}

#[test]
fn what_came_over_the_bridge_does_not_go_back() {
    let mut b = Bridged::new(vec![rule("#", Direction::Both, 2)]);
    b.hears(Packet::Publish(message(1, 1, "a", "x")))
        .expect("taken");
    assert_eq!(b.got(), ["PUBACK #1 NoMatchingSubscribers"]);
}

#[test]
fn a_session_the_upstream_has_lost_begins_anew() {
    let both = vec![
        rule("up/#", Direction::Out, 2),
        rule("down", Direction::In, 2),
    ];
    let mut b = Bridged::new(both);
    // One QoS 2 exchange of each kind is under way when the upstream forgets them all.
    b.publish(message(2, 1, "up/a", "received"));
    b.publish(message(2, 2, "up/a", "sent"));
    b.got();
    b.hears(Packet::PubRec(success(1))).expect("taken");
    b.hears(Packet::Publish(message(2, 5, "down", "old")))
        .expect("taken");
    b.got();
    b.lose();
    b.connect(Upstream {
        session_present: false,
        ..upstream(ProtocolVersion::V5)
    });
    // The new session is subscribed first, when the old one has been removed from the disk.
    assert_eq!(b.got_now(), [""; 0]);
    assert_eq!(
        b.got(),
        ["SUBSCRIBE #65535 down q2 no_local=true retain_as_published=true IfNew"]
    );
    let suback = SubAck {
        packet_id: packet_id(65_535),
        properties: Properties::EMPTY,
        codes: vec![ReasonCode::GrantedQos2],
    };
    b.hears(Packet::SubAck(suback)).expect("taken");
    // What the upstream had received is done with; the rest goes as a new message.
    assert_eq!(b.got(), ["PUBLISH #2 q2 up/a=sent"]);
    // The same packet identifier is another message now.
    b.hears(Packet::Publish(message(2, 5, "down", "new")))
        .expect("taken");
    assert_eq!(b.world.broker.counters.duplicates_suppressed, 0);
    b.world.flush();
    b.crash();
    b.connect(upstream(ProtocolVersion::V5));
    assert_eq!(b.got(), ["PUBLISH #2 q2 dup up/a=sent"]);
}

#[test]
fn the_window_is_the_smaller_of_both() {
    let mut b = Bridged::to(
        vec![rule("#", Direction::Out, 1)],
        Upstream {
            receive_maximum: 2,
            ..upstream(ProtocolVersion::V5)
        },
    );
    for id in 1..=4 {
        b.publish(message(1, id, "a", "x"));
    }
    assert_eq!(b.got().len(), 2);
    b.hears(Packet::PubAck(success(1))).expect("taken");
    assert_eq!(b.got(), ["PUBLISH #3 q1 a=x"]);
    assert_eq!(b.bridge.window(ProtocolVersion::V311), 100);
    let default = Bridge {
        max_inflight_messages: None,
        ..bridge(Vec::new())
    };
    assert_eq!(default.window(ProtocolVersion::V5), 1000);
    assert_eq!(default.window(ProtocolVersion::V311), 20);
    // The limit on clients' windows is not one on bridges.
    let mut wide = Bridged::new(vec![rule("#", Direction::Out, 1)]);
    wide.world.broker.settings.limits.max_inflight_messages = 3;
    for id in 1..=4 {
        wide.publish(message(1, id, "a", "x"));
    }
    assert_eq!(wide.got().len(), 4);
}

#[test]
fn a_lower_qos_of_the_upstream_or_the_rule_is_kept_to() {
    let lower = |maximum_qos| Upstream {
        maximum_qos,
        ..upstream(ProtocolVersion::V5)
    };
    let mut b = Bridged::to(vec![rule("#", Direction::Out, 2)], lower(QoS::AtLeastOnce));
    b.publish(message(2, 1, "a", "x"));
    assert_eq!(b.got(), ["PUBLISH #1 q1 a=x"]);
    b.hears(Packet::PubAck(success(1))).expect("taken");
    assert_eq!(b.got(), [""; 0]);
    b.world.assert_nothing_left();
    let mut b = Bridged::to(vec![rule("#", Direction::Out, 2)], lower(QoS::AtMostOnce));
    b.publish(message(2, 1, "a", "two"));
    b.publish(message(1, 2, "a", "one"));
    assert_eq!(b.got(), ["PUBLISH a=two", "PUBLISH a=one"]);
    b.got();
    b.world.assert_nothing_left();
    let rules = vec![rule("a", Direction::Out, 0), rule("#", Direction::Out, 2)];
    let mut b = Bridged::new(rules);
    b.publish(message(1, 1, "a", "x"));
    assert_eq!(b.got(), ["PUBLISH a=x"], "the first rule decides");
}

#[test]
fn what_the_upstream_never_takes_is_set_aside() {
    let mut b = Bridged::to(
        vec![rule("up/#", Direction::Out, 2)],
        Upstream {
            maximum_packet_size: 30,
            ..upstream(ProtocolVersion::V5)
        },
    );
    let watcher = b.world.connect(&durable("watcher"));
    b.world.subscribe(watcher, "dead", 2);
    b.publish(message(1, 1, "up/a", "much too long for the upstream"));
    b.publish(message(2, 2, "up/b", "forbidden"));
    b.publish(message(1, 3, "up/c", "good"));
    assert_eq!(
        b.got(),
        ["PUBLISH #2 q2 up/b=forbidden", "PUBLISH #3 q1 up/c=good"]
    );
    let refused = answer(2, ReasonCode::NotAuthorized);
    b.hears(Packet::PubRec(refused)).expect("taken");
    b.hears(Packet::PubAck(success(3))).expect("taken");
    b.world.settle();
    let told = |message: &Message| {
        let properties = message.properties();
        let told = properties
            .user_properties()
            .filter(|(name, _)| *name != "tidegate-dead-letter")
            .map(|(name, value)| format!("{name}: {value}"));
        told.collect::<Vec<_>>()
    };
    let dead: Vec<&Message> = b
        .world
        .disk
        .messages
        .values()
        .filter(|m| m.topic() == "dead")
        .collect();
    assert_eq!(
        told(dead[0]),
        [
            "bridge-topic: up/a",
            "bridge-reason: it is larger than the upstream takes"
        ]
    );
    assert_eq!(
        told(dead[1]),
        ["bridge-topic: up/b", "bridge-reason: NotAuthorized (0x87)"]
    );
    let dead = b.world.drain(watcher);
    assert_eq!(
        dead,
        [
            "PUBLISH q1 dead=much too long for the upstream",
            "PUBLISH q2 dead=forbidden"
        ]
    );
    assert_eq!(b.world.broker.counters.bridge_messages_set_aside, 2);
    b.world.assert_nothing_left();
}

#[test]
fn an_upstream_that_is_full_is_left_and_tried_again() {
    let mut b = Bridged::new(vec![rule("#", Direction::Out, 2)]);
    b.publish(message(1, 1, "a", "x"));
    b.got();
    let full = answer(1, ReasonCode::QuotaExceeded);
    let left = b.hears(Packet::PubAck(full)).expect_err("left");
    assert_eq!(left, Leave::Refused("QuotaExceeded (0x97)".to_owned()));
    b.lose();
    b.connect(upstream(ProtocolVersion::V5));
    assert_eq!(b.got(), ["PUBLISH #1 q1 dup a=x"]);
}

#[test]
fn a_message_that_cannot_be_stored_is_not_acknowledged_to_the_upstream() {
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        let mut b = Bridged::to(vec![rule("#", Direction::In, 2)], upstream(version));
        let device = b.world.connect(&durable("device"));
        b.world.subscribe(device, "#", 2);
        b.world.broker.set_room(0, false);
        b.hears(Packet::Publish(message(1, 1, "a", "x")))
            .expect("taken");
        let mut out = Vec::new();
        let (relay, broker, now) = b.relay();
        let left = relay.take_output(broker, &mut out, now);
        assert_eq!(left, Err(Leave::Ended(ReasonCode::QuotaExceeded)));
        assert!(out.is_empty(), "{:?}", show(&out, version));
    }
}

#[test]
fn a_message_of_the_upstream_that_is_not_taken_does_not_stop_the_bridge() {
    let mut b = Bridged::new(vec![rule("+/down", Direction::In, 2)]);
    b.world.broker.settings.limits.max_topic_length = 10;
    let long = "much-too-long/down";
    b.hears(Packet::Publish(message(1, 1, long, "x")))
        .expect("taken");
    b.hears(Packet::Publish(message(2, 2, long, "x")))
        .expect("taken");
    assert_eq!(
        b.got(),
        ["PUBACK #1 TopicNameInvalid", "PUBREC #2 TopicNameInvalid"]
    );
    // No rule fits: the rest of a subscription that was configured before.
    let direct = b.hears(Packet::Publish(message(1, 3, "other", "x")));
    assert_eq!(direct, Ok(vec!["PUBACK #3".to_owned()]));
    assert_eq!(b.world.broker.counters.bridge_messages_refused, 3);
}

#[test]
fn an_upstream_that_is_silent_is_left() {
    let mut b = Bridged::new(vec![rule("#", Direction::Out, 1)]);
    b.publish(message(1, 1, "a", "x"));
    b.got();
    let mut out = Vec::new();
    b.world.jump(29_999);
    let (relay, _, now) = b.relay();
    assert_eq!(relay.next_timeout(), now.uptime + 1);
    assert_eq!(relay.tick(&mut out, now), Ok(()));
    b.world.jump(1);
    let (relay, _, now) = b.relay();
    let left = relay.tick(&mut out, now).expect_err("left");
    assert_eq!(left, Leave::Silent("no acknowledgement"));
    // Without anything under way, it is asked for a sign of life.
    let mut b = Bridged::new(vec![rule("#", Direction::Out, 1)]);
    b.got();
    b.world.jump(60_000);
    let (relay, broker, now) = b.relay();
    relay.tick(&mut out, now).expect("it is asked first");
    assert_eq!(show(&out, ProtocolVersion::V5), ["PINGREQ"]);
    relay
        .receive(Packet::PingResp, broker, &mut out, now)
        .expect("alive");
    b.world.jump(60_000);
    let (relay, _, now) = b.relay();
    relay.tick(&mut out, now).expect("asked again");
    b.world.jump(30_000);
    let (relay, _, now) = b.relay();
    let left = relay.tick(&mut out, now).expect_err("left");
    assert_eq!(left, Leave::Silent("no PINGRESP"));
}

#[test]
fn a_changed_configuration_changes_what_waits() {
    let mut world = World::new();
    let now = world.now;
    let first = bridge(vec![
        rule("a", Direction::Out, 1),
        rule("b", Direction::Out, 1),
    ]);
    world.broker.open_bridge(&first, now);
    assert!(world.broker.begins_anew(&first, "a:1883"));
    let second = bridge(vec![
        rule("b", Direction::Out, 1),
        rule("c", Direction::Out, 1),
    ]);
    world.broker.open_bridge(&second, now);
    world.settle();
    let device = world.connect(&publisher());
    for (id, topic) in [(1, "a"), (2, "b"), (3, "c")] {
        world.publish(device, message(1, id, topic, "x"));
    }
    world.settle();
    assert_eq!(world.broker.bridge_figures()[0].queued, 2);
    assert_eq!(world.broker.close_bridges_except(&["cloud"], now), []);
    // Configured no more: what waits is kept, nothing new comes.
    let left = [("cloud".to_owned(), 2)];
    assert_eq!(world.broker.close_bridges_except(&[], now), left);
    world.publish(device, message(1, 4, "b", "x"));
    assert_eq!(world.broker.close_bridges_except(&[], now), left);
    assert_eq!(world.broker.bridge_figures(), []);
    let watcher = world.connect(&client("watcher"));
    let got = world.subscribe(watcher, "$SYS/bridge/#", 0);
    assert!(!got.iter().any(|line| line.contains("cloud")), "{got:?}");
}

#[test]
fn what_a_bridge_has_left_is_kept_until_it_is_dropped_by_name() {
    let mut world = World::new();
    let left = bridge(vec![rule("#", Direction::Out, 1)]);
    world.broker.open_bridge(&left, world.now);
    let device = world.connect(&publisher());
    world.publish(device, message(1, 1, "a", "x"));
    world.settle();
    let refused = world.broker.drop_bridge("cloud", world.now);
    let refused = refused.expect_err("it is configured").to_string();
    assert!(refused.contains("is configured"), "{refused}");
    world.crash();
    let others = world.broker.close_bridges_except(&["other"], world.now);
    assert_eq!(others, [("cloud".to_owned(), 1)]);
    let refused = world.broker.drop_bridge("clod", world.now);
    let refused = refused.expect_err("there is none").to_string();
    let wanted = "no queue was left by a bridge \"clod\", expected one of \"cloud\" (1 messages)";
    assert_eq!(refused, wanted);
    let dropped = world.broker.drop_bridge("cloud", world.now);
    let dropped = dropped.expect("it is configured no more");
    assert_eq!(dropped.messages, 1);
    assert!(!world.broker.is_dropped(&dropped), "before it is on disk");
    world.settle();
    assert!(world.broker.is_dropped(&dropped));
    world.crash();
    assert_eq!(world.broker.close_bridges_except(&[], world.now), []);
    let refused = world.broker.drop_bridge("cloud", world.now);
    let refused = refused.expect_err("it is gone").to_string();
    assert!(refused.ends_with("nor by any other"), "{refused}");
}

#[test]
fn a_bridges_session_is_nobody_elses() {
    let mut b = Bridged::new(vec![rule("#", Direction::Out, 1)]);
    let peer = b.world.open(&client("$bridge/cloud"));
    assert_eq!(b.world.got(peer), ["CONNACK ClientIdentifierNotValid"]);
    assert_eq!(b.got(), [""; 0]);
}

#[test]
fn a_client_that_says_it_is_a_bridge_gets_nothing_back_and_retain_flags_as_they_are() {
    let mut world = World::new();
    let peer = world.accept(ProtocolVersion::V311);
    let mut out = Vec::new();
    bridge(Vec::new()).encode_connect(
        Origin::default(),
        UpstreamProtocol::V311Bridge,
        Login::default(),
        false,
        0,
        &mut out,
    );
    let connect = codec::decode(&out, ProtocolVersion::V311).expect("a CONNECT");
    world.send(peer, connect);
    world.settle();
    world.subscribe(peer, "#", 1);
    world.publish(peer, message(0, 0, "a", "own"));
    let other = world.connect(&publisher());
    world.publish(other, retained(0, 0, "a", "other"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBLISH retain a=other"]);
}

#[test]
fn the_state_is_published_when_it_changes() {
    let mut b = Bridged::new(vec![rule("#", Direction::Out, 1)]);
    let now = b.world.now;
    b.world
        .broker
        .set_bridge_state(&b.bridge, Some("no route"), now);
    let watcher = b.world.connect(&client("watcher"));
    let got = b.world.subscribe(watcher, "$SYS/#", 0);
    for wanted in [
        "$SYS/bridge/cloud/state=disconnected",
        "$SYS/broker/connection/cloud/state=0",
        "$SYS/bridge/cloud/last_error=2023-11-14T22:13:20Z no route",
    ] {
        assert!(got.iter().any(|line| line.ends_with(wanted)), "{got:?}");
    }
    b.world.broker.set_bridge_state(&b.bridge, None, now);
    let got = b.world.got(watcher);
    assert!(
        got.iter()
            .any(|line| line.ends_with("$SYS/bridge/cloud/state=connected")),
        "{got:?}"
    );
}

#[test]
fn a_subscription_that_is_refused_shows_and_is_asked_for_again() {
    let rules = vec![
        rule("good", Direction::In, 1),
        rule("bad", Direction::In, 1),
    ];
    let mut b = Bridged::new(rules);
    b.got();
    b.lose();
    b.connect(Upstream {
        session_present: false,
        ..upstream(ProtocolVersion::V5)
    });
    b.got();
    let suback = |second| {
        Packet::SubAck(SubAck {
            packet_id: packet_id(65_535),
            properties: Properties::EMPTY,
            codes: vec![ReasonCode::GrantedQos1, second],
        })
    };
    b.hears(suback(ReasonCode::NotAuthorized)).expect("taken");
    let (relay, broker, now) = b.relay();
    assert!(relay.is_subscribed() && !relay.has_all_subscriptions());
    broker.set_bridge_state(&bridge(Vec::new()), None, now);
    relay.tell_what_is_missed(broker);
    let told = |key: &str| {
        let retained = &b.world.broker.retained;
        let message = retained.get(&format!("$SYS/bridge/cloud/{key}"));
        let payload = message.expect("published").payload();
        String::from_utf8_lossy(payload).into_owned()
    };
    assert_eq!(told("state"), "connected");
    let refused =
        "2023-11-14T22:13:20Z the upstream refuses to subscribe \"bad\" (NotAuthorized (0x87))";
    assert_eq!(told("last_error"), refused);
    // The driver makes the next connection ask again.
    b.lose();
    let (broker, now) = (&mut b.world.broker, b.world.now);
    let present = upstream(ProtocolVersion::V5);
    b.relay = Relay::open(Arc::clone(&b.bridge), present, "a:1883", false, broker, now);
    b.got();
    b.hears(suback(ReasonCode::GrantedQos1)).expect("taken");
    let (relay, ..) = b.relay();
    assert!(relay.has_all_subscriptions());
}

#[test]
fn the_terms_of_the_upstream_are_read() {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::ReceiveMaximum(7));
    properties.push(Property::MaximumQos(1));
    properties.push(Property::RetainAvailable(0));
    properties.push(Property::MaximumPacketSize(999));
    properties.push(Property::ServerKeepAlive(5));
    properties.push(Property::TopicAliasMaximum(12));
    properties.push(Property::WildcardSubscriptionAvailable(0));
    let connack = ConnAck {
        session_present: true,
        reason: ReasonCode::Success,
        properties: properties.as_properties(),
    };
    let read = Upstream::new(&connack, ProtocolVersion::V5, &bridge(Vec::new()));
    assert_eq!(
        read,
        Upstream {
            version: ProtocolVersion::V5,
            session_present: true,
            receive_maximum: 7,
            maximum_qos: QoS::AtLeastOnce,
            retain_available: false,
            maximum_packet_size: 999,
            keep_alive: 5,
            topic_alias_maximum: 12,
            wildcards: false,
        }
    );
}

#[test]
fn a_full_queue_here_is_no_error_for_the_upstream() {
    for qos in [1, 2] {
        let mut b = Bridged::new(vec![rule("#", Direction::In, 2)]);
        b.world.broker.settings.limits.max_queued_messages = 1;
        let away = b.world.connect(&durable("away"));
        b.world.subscribe(away, "#", 2);
        b.world.lose(away);
        b.got();
        let kind = if qos == 1 { "PUBACK" } else { "PUBREC" };
        for id in 1..=2 {
            b.hears(Packet::Publish(message(qos, id, "a", "x")))
                .expect("taken");
            assert_eq!(b.got(), [format!("{kind} #{id}")]);
        }
        assert_eq!(b.world.broker.counters().dropped_queue_full, 1);
    }
}
