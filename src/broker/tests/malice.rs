//! Clients that break the rules, or use them to do harm.

use super::*;

#[test]
fn acknowledgements_of_what_was_never_sent_are_harmless() {
    let mut world = World::new();
    let peer = world.connect(&durable("a"));
    for id in [1, 77, 65_535] {
        world.puback(peer, id);
        world.pubcomp(peer, id);
        world.pubrec(peer, id);
        world.pubrel(peer, id);
        let refused = Ack {
            reason: ReasonCode::UnspecifiedError,
            ..success(id)
        };
        world.send(peer, Packet::PubRec(refused));
    }
    let expected = [1, 77, 65_535].map(|id| {
        [
            format!("PUBREL #{id} PacketIdentifierNotFound"),
            format!("PUBCOMP #{id} PacketIdentifierNotFound"),
        ]
    });
    assert_eq!(world.got(peer), expected.concat());
    assert!(!world.take());
    world.assert_nothing_left();
}

#[test]
fn the_wrong_acknowledgement_is_a_protocol_error() {
    type Wrong = fn(&mut World, Peer, u16);
    let cases: [(u8, Wrong); 3] = [(2, World::puback), (1, World::pubrec), (2, World::pubcomp)];
    for (qos, wrong) in cases {
        let mut world = World::new();
        let subscriber = world.connect(&durable("sub"));
        world.subscribe(subscriber, "t", 2);
        let peer = world.connect(&publisher());
        world.publish(peer, message(qos, 1, "t", "m"));
        world.settle();
        assert_eq!(world.got(subscriber).len(), 1);
        wrong(&mut world, subscriber, 1);
        assert_eq!(world.got(subscriber), ["DISCONNECT ProtocolError"]);
        // The message is not lost by it.
        world.lose(subscriber);
        let subscriber = world.connect(&durable("sub"));
        assert_eq!(world.drain(subscriber), [format!("PUBLISH q{qos} dup t=m")]);
        world.pubrel(peer, 1);
        world.assert_nothing_left();
    }
}

#[test]
fn a_pubrec_that_comes_again_is_answered_again() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 2);
    let peer = world.connect(&publisher());
    world.publish(peer, message(2, 1, "t", "m"));
    world.pubrel(peer, 1);
    world.settle();
    world.got(subscriber);
    world.writes();
    world.pubrec(subscriber, 1);
    world.pubrec(subscriber, 1);
    // The second promises no more than the first, and no less.
    assert_eq!(world.got(subscriber), [""; 0]);
    world.settle();
    assert_eq!(world.got(subscriber), ["PUBREL #1", "PUBREL #1"]);
    assert_eq!(world.writes(), ["PutInflight k1 #1 s1 released"]);
    world.pubrec(subscriber, 1);
    assert_eq!(world.got(subscriber), ["PUBREL #1"]);
    world.pubcomp(subscriber, 1);
    world.pubcomp(subscriber, 1);
    world.assert_nothing_left();
}

#[test]
fn a_client_that_takes_over_its_own_identifier_all_the_time_leaves_nothing_behind() {
    let mut world = World::new();
    let keeper = world.connect(&durable("keeper"));
    world.subscribe(keeper, "#", 1);
    let mut peers = Vec::new();
    for round in 0..1_000 {
        let client = match round % 4 {
            0 => durable("a"),
            1 => client("a").will(1, "w", "gone"),
            2 => durable("a").clean().will(0, "w", "gone"),
            _ => client("a").clean(),
        };
        let peer = world.open(&client);
        world.ask(peer, 1, &[("x/#", options(2)), ("$share/g/x", options(1))]);
        world.publish(peer, message(2, 1, "x", "m"));
        peers.push(peer);
        if round % 10 == 9 {
            world.settle();
            for peer in peers.drain(..) {
                world.lose(peer);
            }
        }
    }
    world.connect(&client("a").clean());
    world.drain(keeper);
    world.assert_nothing_left();
    let gauges = world.broker.gauges();
    assert_eq!((gauges.connected, gauges.sessions), (2, 2));
    assert_eq!(gauges.subscriptions, 1);
    assert_eq!(world.broker.connection_count(), 2);
    let (holding, _) = world.broker.upkeep.waiting.counts();
    assert!(holding <= 2, "{:?}", world.broker.upkeep.waiting);
    assert_eq!(world.disk.sessions.len(), 1);
    assert_eq!(world.disk.subscriptions.len(), 1);
    assert!(world.disk.groups.is_empty() && world.disk.wills.is_empty());
}

#[test]
fn a_huge_subscribe_is_answered_and_undone() {
    let mut world = World::with(limited(Limits {
        max_subscriptions: 10_000,
        max_filters_per_packet: 20_000,
        ..Limits::default()
    }));
    let peer = world.connect(&durable("a"));
    let filters: Vec<String> = (0..20_000).map(|number| format!("f/{number}/+")).collect();
    let asked: Vec<(&str, SubscribeOptions)> = filters
        .iter()
        .map(|filter| (filter.as_str(), options(1)))
        .collect();
    world.ask(peer, 1, &asked);
    world.settle();
    let got = world.got(peer);
    assert_eq!(got[0].matches("GrantedQos1").count(), 10_000);
    assert_eq!(got[0].matches("QuotaExceeded").count(), 10_000);
    assert_eq!(world.broker.counters().subscriptions_refused, 10_000);
    world.connect(&client("a").clean());
    world.wait(10_000);
    world.flush();
    assert!(world.disk.subscriptions.is_empty());
    assert_eq!(world.broker.gauges().subscriptions, 0);
}

#[test]
fn a_client_that_never_releases_is_bounded_by_the_packet_identifiers() {
    let mut world = World::new();
    let peer = world.connect(&publisher());
    for number in 0..70_000_u32 {
        let id = (number % 65_535 + 1) as u16;
        world.publish(peer, message(2, id, "t", "m"));
        if number % 1_000 == 0 {
            world.got(peer);
        }
    }
    assert_eq!(world.session(peer).received.len(), 65_535);
    assert_eq!(
        world.broker.counters().duplicates_suppressed,
        70_000 - 65_535
    );
}

#[test]
fn a_queue_that_cannot_be_read_yet_makes_no_list_that_grows() {
    let mut world = World::new();
    let a = world.connect(&durable("a"));
    world.subscribe(a, "t", 1);
    world.subscribe(a, "$share/g/t", 1);
    world.lose(a);
    world.flush();
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", "m"));
    assert!(world.take());
    let a = world.open(&durable("a"));
    for _ in 0..10_000 {
        world.ping(a);
        assert_eq!(world.got(a), [""; 0]);
    }
    let (_, awaiting_commit) = world.broker.upkeep.waiting.counts();
    assert!(awaiting_commit < 10, "{awaiting_commit}");
    world.durable();
    assert_eq!(world.drain(a).len(), 2);
}

/// One of each kind that no text should have \[MQTT-1.5.4\].
const NOT_PLAIN: [&str; 6] = [
    "a\u{1}",
    "a\n/b",
    "\u{7f}",
    "a/\u{9f}",
    "a/\u{fdd0}",
    "\u{ffff}b",
];

#[test]
fn control_characters_and_non_characters_are_refused_wherever_texts_come_in() {
    let closes = |packet: &dyn Fn(&mut World, Peer)| {
        for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
            let mut world = World::new();
            let peer = world.connect(&client("a").version(version).clean());
            packet(&mut world, peer);
            let expected: &[&str] = match version {
                ProtocolVersion::V5 => &["DISCONNECT MalformedPacket"],
                _ => &[],
            };
            assert_eq!(world.got(peer), expected);
            assert!(world.broker.is_closing(peer.id));
        }
    };
    for bad in NOT_PLAIN {
        for qos in 0..3 {
            closes(&|world, peer| world.publish(peer, message(qos, 1, bad, "x")));
        }
        closes(&|world, peer| world.ask(peer, 1, &[("good", options(0)), (bad, options(0))]));
        closes(&|world, peer| world.unsubscribe(peer, bad));
        let mut world = World::new();
        for text in [
            Property::ResponseTopic(bad),
            Property::ContentType(bad),
            Property::UserProperty(bad, "value"),
            Property::UserProperty("name", bad),
        ] {
            let peer = world.connect(&client("a"));
            world.publish_with(peer, message(1, 1, "good", "x"), &[text]);
            assert_eq!(world.got(peer), ["DISCONNECT MalformedPacket"], "{text:?}");
            let peer = world.open(&client("b").will(0, "good", "x").will_with(text));
            assert!(world.got(peer)[0].starts_with("CONNACK MalformedPacket"));
        }
        for connect in [
            client(bad),
            client("b").will(0, bad, "x"),
            client("b").with(Property::UserProperty(bad, "value")),
        ] {
            let peer = world.open(&connect);
            assert!(world.got(peer)[0].starts_with("CONNACK MalformedPacket"));
        }
    }
    // A payload is anything, and so is what is beside these.
    let mut world = World::new();
    let peer = world.connect(&client("ä\u{feff}"));
    world.publish(peer, message(1, 1, "é/日本/\u{1f600}", "\u{1}\u{ffff}"));
    assert_eq!(world.got(peer), ["PUBACK #1 NoMatchingSubscribers"]);
}

#[test]
fn what_was_stored_with_such_a_topic_is_loaded_and_let_out() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "#", 1);
    world.leave(subscriber);
    let topic = "old/\u{7f}";
    let parts = super::super::message::Parts {
        topic,
        properties: Properties::EMPTY,
        payload: b"x",
        qos: QoS::AtLeastOnce,
        retain: true,
        expires: None,
        id: None,
    };
    assert!(!world.broker.publish(&parts, None).refused);
    world.flush();
    world.crash();
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.drain(subscriber), [format!("PUBLISH q1 {topic}=x")]);
}
