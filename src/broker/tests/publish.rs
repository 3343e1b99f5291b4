//! PUBLISH from a client: properties, aliases, and the QoS 2 exchange.

use super::*;

#[test]
fn the_properties_of_a_message_travel_in_order() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    world.lose(subscriber);
    let peer = world.connect(&client("pub"));
    let sent = [
        Property::UserProperty("k", "1"),
        Property::PayloadFormatIndicator(1),
        Property::UserProperty("a", ""),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("answer"),
        Property::TopicAlias(3),
        Property::CorrelationData(&[0, 255]),
        Property::UserProperty("k", "2"),
    ];
    world.publish_with(peer, message(1, 1, "t", "m"), &sent);
    world.flush();
    let subscriber = world.connect(&durable("sub"));
    world.got(subscriber);
    world.settle();
    let mut out = Vec::new();
    world.broker.take_output(subscriber.id, &mut out, world.now);
    let packet = codec::decode(&out, ProtocolVersion::V5).expect("one packet");
    let Packet::Publish(publish) = packet else {
        panic!("not a PUBLISH: {packet:?}");
    };
    let got: Vec<Property<'_>> = publish.properties.iter().collect();
    let expected: Vec<Property<'_>> = sent
        .into_iter()
        .filter(|property| !matches!(property, Property::TopicAlias(_)))
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn topic_aliases_of_a_client_stand_for_topics_on_its_connection() {
    let mut world = World::new();
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "#", 0);
    let peer = world.connect(&client("pub"));
    let alias = |alias| [Property::TopicAlias(alias)];
    world.publish_with(peer, message(0, 0, "a", "1"), &alias(1));
    world.publish_with(peer, message(0, 0, "b", "2"), &alias(100));
    world.publish_with(peer, message(0, 0, "", "3"), &alias(1));
    world.publish_with(peer, message(0, 0, "c", "4"), &alias(1));
    world.publish_with(peer, message(0, 0, "", "5"), &alias(1));
    world.publish_with(peer, message(0, 0, "", "6"), &alias(100));
    assert_eq!(
        world.got(subscriber),
        [
            "PUBLISH a=1",
            "PUBLISH b=2",
            "PUBLISH a=3",
            "PUBLISH c=4",
            "PUBLISH c=5",
            "PUBLISH b=6"
        ]
    );
    world.publish_with(peer, message(0, 0, "a", "m"), &alias(101));
    assert_eq!(world.got(peer), ["DISCONNECT TopicAliasInvalid"]); // [MQTT-3.3.2-9]
    let peer = world.connect(&client("pub"));
    world.publish_with(peer, message(0, 0, "", "m"), &alias(1));
    assert_eq!(world.got(peer), ["DISCONNECT ProtocolError"]);
}

#[test]
fn a_payload_that_says_it_is_utf_8_is_checked() {
    let mut world = World::new();
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "t", 2);
    let peer = world.connect(&client("pub"));
    let text = [Property::PayloadFormatIndicator(1)];
    for qos in [1, 2] {
        let bad = Publish {
            payload: &[0xFF],
            ..message(qos, 5, "t", "")
        };
        world.publish_with(peer, bad, &text);
        world.publish_with(peer, message(qos, 5, "t", "é"), &text);
        if qos == 2 {
            world.pubrel(peer, 5);
        }
    }
    assert_eq!(
        world.got(peer),
        [
            "PUBACK #5 PayloadFormatInvalid",
            "PUBACK #5",
            "PUBREC #5 PayloadFormatInvalid",
            "PUBREC #5",
            "PUBCOMP #5"
        ]
    );
    assert_eq!(world.got(subscriber).len(), 2);
    let bad = Publish {
        payload: &[0xFF],
        ..message(0, 0, "t", "")
    };
    world.publish_with(peer, bad, &text);
    assert_eq!(world.got(peer), ["DISCONNECT PayloadFormatInvalid"]);
}

#[test]
fn a_qos_2_message_is_published_once_however_often_it_comes() {
    let mut world = World::new();
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "t", 0);
    let peer = world.connect(&durable("pub"));
    world.publish(peer, message(2, 9, "t", "m"));
    world.publish(peer, message(2, 9, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBREC #9", "PUBREC #9"]);
    world.lose(peer);
    let peer = world.connect(&durable("pub"));
    world.publish(peer, message(2, 9, "t", "m"));
    world.flush();
    world.crash();
    let subscriber_again = world.connect(&client("sub"));
    world.subscribe(subscriber_again, "t", 0);
    let peer = world.connect(&durable("pub"));
    world.publish(peer, message(2, 9, "t", "m"));
    world.pubrel(peer, 9);
    world.pubrel(peer, 9);
    world.settle();
    assert_eq!(
        world.got(peer),
        [
            "PUBREC #9",
            "PUBCOMP #9",
            "PUBCOMP #9 PacketIdentifierNotFound"
        ]
    );
    assert_eq!(world.got(subscriber_again), [""; 0]);
    // The identifier is free again, and what comes with it is another message.
    world.publish(peer, message(2, 9, "t", "next"));
    world.settle();
    assert_eq!(world.got(subscriber_again), ["PUBLISH t=next"]);
    let _ = subscriber;
}

#[test]
fn publishing_with_the_same_identifier_at_qos_1_and_2_makes_two_messages() {
    let mut world = World::new();
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "t", 0);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 1, "t", "a"));
    world.publish(peer, message(1, 1, "t", "a"));
    world.publish(peer, message(2, 1, "t", "b"));
    assert_eq!(world.got(peer), ["PUBACK #1", "PUBACK #1", "PUBREC #1"]);
    assert_eq!(world.got(subscriber).len(), 3);
}

#[test]
fn what_nobody_subscribes_to_is_answered_so() {
    let mut world = World::new();
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 1, "t", "m"));
    world.publish(peer, message(2, 2, "t", "m"));
    assert_eq!(
        world.got(peer),
        [
            "PUBACK #1 NoMatchingSubscribers",
            "PUBREC #2 NoMatchingSubscribers"
        ]
    );
    assert_eq!(world.broker.counters().publishes_unmatched, 2);
}

#[test]
fn only_the_broker_publishes_to_sys_topics() {
    let mut world = World::with(Settings {
        sys_interval_ms: 1_000,
        ..Settings::default()
    });
    let peer = world.connect(&client("pub"));
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "$SYS/#", 0);
    for qos in 0..3 {
        world.publish(peer, retained(qos, 1, "$SYS/broker/version", "mine"));
    }
    assert_eq!(
        world.got(peer),
        ["PUBACK #1 NotAuthorized", "PUBREC #1 NotAuthorized"]
    );
    assert_eq!(world.got(subscriber), [""; 0]);
    world.wait(1);
    let got = world.got(subscriber);
    assert!(
        got.iter()
            .any(|line| line.contains("$SYS/broker/version=tidegate"))
    );
    world.flush();
    assert!(world.disk.retained.is_empty());
    world.wait(1_000);
    assert!(
        world.got(subscriber).len() < got.len(),
        "only what has changed"
    );
}

#[test]
fn a_client_may_be_its_own_subscriber() {
    let mut world = World::new();
    let peer = world.connect(&durable("a"));
    world.subscribe(peer, "t", 2);
    world.publish(peer, message(2, 1, "t", "m"));
    world.settle();
    // The two directions have their own packet identifiers.
    assert_eq!(world.got(peer), ["PUBLISH #1 q2 t=m", "PUBREC #1"]);
    world.pubrel(peer, 1);
    world.pubrec(peer, 1);
    world.settle();
    assert_eq!(world.got(peer), ["PUBCOMP #1", "PUBREL #1"]);
    world.pubcomp(peer, 1);
    world.assert_nothing_left();
}

/// A world in which a session that is away has a full queue: one message waits in it.
fn full() -> World {
    let mut world = World::with(limited(Limits {
        max_queued_messages: 1,
        ..Limits::default()
    }));
    let away = world.connect(&durable("away"));
    world.subscribe(away, "#", 2);
    world.lose(away);
    let filler = world.connect(&publisher());
    world.publish(filler, message(1, 1, "t", "first"));
    world.settle();
    world.lose(filler);
    world
}

#[test]
fn what_nothing_takes_because_queues_are_full_is_not_acknowledged_as_taken() {
    let mut world = full();
    let peer = world.connect(&durable("pub"));
    world.publish(peer, message(1, 1, "t", "m"));
    world.publish(peer, message(2, 2, "t", "m"));
    world.settle();
    assert_eq!(
        world.got(peer),
        ["PUBACK #1 QuotaExceeded", "PUBREC #2 QuotaExceeded"]
    );
    assert!(
        world.session(peer).received.is_empty(),
        "the identifier is free [MQTT-4.3.3-9]"
    );
    assert_eq!(world.broker.counters().dropped_queue_full, 2);
    // Clients of MQTT 3 cannot be told.
    let old = world.connect(&client("old").version(ProtocolVersion::V311).clean());
    world.publish(old, message(1, 1, "t", "m"));
    world.publish(old, message(2, 2, "t", "m"));
    world.settle();
    assert_eq!(world.got(old), ["PUBACK #1", "PUBREC #2"]);
    let away = world.connect(&durable("away"));
    assert_eq!(world.drain(away), ["PUBLISH q1 t=first"]);
    // Now there is room.
    world.publish(peer, message(2, 2, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBREC #2"]);
    assert_eq!(world.drain(away), ["PUBLISH q2 t=m"]);
}

#[test]
fn what_anybody_takes_is_acknowledged_as_taken_and_drops_are_counted() {
    type Taker = fn(&mut World);
    let takers: [Taker; 5] = [
        |world| {
            let other = world.connect(&durable("other"));
            world.subscribe(other, "t", 1);
            world.lose(other);
        },
        |world| {
            let live = world.connect(&client("live"));
            world.subscribe(live, "t", 0);
        },
        |world| {
            let live = world.connect(&client("live"));
            world.subscribe(live, "t", 1);
        },
        |world| {
            let member = world.connect(&client("member"));
            world.subscribe(member, "$share/g/t", 0);
        },
        |world| {
            let member = world.connect(&durable("member"));
            world.subscribe(member, "$share/g/t", 1);
            world.lose(member);
        },
    ];
    for (n, taker) in takers.iter().enumerate() {
        let mut world = full();
        taker(&mut world);
        let peer = world.connect(&client("pub"));
        world.publish(peer, message(1, 1, "t", "m"));
        world.settle();
        assert_eq!(world.got(peer), ["PUBACK #1"], "taker {n}");
        assert_eq!(world.broker.counters().dropped_queue_full, 1);
    }
    // What is retained is kept, whoever did not get it.
    let mut world = full();
    let peer = world.connect(&client("pub"));
    world.publish(peer, retained(1, 1, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBACK #1"]);
}

#[test]
fn a_full_queue_of_a_shared_group_refuses_what_only_it_would_take() {
    let mut world = World::with(limited(Limits {
        max_queued_messages: 1,
        ..Limits::default()
    }));
    let member = world.connect(&durable("member"));
    world.subscribe(member, "$share/g/t", 1);
    world.lose(member);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 1, "t", "m"));
    world.publish(peer, message(1, 2, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBACK #1", "PUBACK #2 QuotaExceeded"]);
}
