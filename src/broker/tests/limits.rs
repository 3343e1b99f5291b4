//! Each limit, its answer and its counter.

use super::*;

#[test]
fn connections_beyond_the_limit_are_not_taken() {
    let mut world = World::with(limited(Limits {
        max_connections: 2,
        ..Limits::default()
    }));
    let first = world.connect(&client("a"));
    world.accept(ProtocolVersion::V5);
    let access = Access {
        allow_anonymous: true,
        ..Access::default()
    };
    assert!(world.broker.accept(access.clone(), world.now).is_none());
    assert_eq!(world.broker.counters().connections_refused, 1);
    world.lose(first);
    assert!(world.broker.accept(access, world.now).is_some());
    assert_eq!(world.broker.connection_count(), 2);
}

#[test]
fn sessions_beyond_the_limit_are_refused_and_known_ones_are_not() {
    let mut world = World::with(limited(Limits {
        max_sessions: 2,
        ..Limits::default()
    }));
    let a = world.connect(&durable("a"));
    world.lose(a);
    world.connect(&client("b"));
    let c = world.open(&client("c"));
    assert_eq!(world.got(c), ["CONNACK QuotaExceeded"]);
    let d = world.open(&client("d").version(ProtocolVersion::V311).clean());
    assert_eq!(world.got(d), ["CONNACK ServerUnavailable"]);
    assert_eq!(world.broker.counters().sessions_refused, 2);
    let a = world.open(&durable("a"));
    world.settle();
    assert_eq!(world.got(a), ["CONNACK present Success"]);
    let a = world.open(&durable("a").clean());
    world.settle();
    assert_eq!(world.got(a), ["CONNACK Success"]);
}

#[test]
fn a_client_that_exceeds_the_receive_maximum_is_disconnected() {
    let settings = limited(Limits {
        receive_maximum: 3,
        ..Limits::default()
    });
    let mut world = World::with(settings.clone());
    let keeper = world.connect(&durable("keeper"));
    world.subscribe(keeper, "#", 1);
    let peer = world.connect(&durable("pub"));
    world.publish(peer, message(2, 1, "t", "m"));
    world.publish(peer, message(1, 2, "t", "m"));
    world.publish(peer, message(2, 3, "t", "m"));
    world.settle();
    world.got(peer);
    // The PUBACK has left, and gives one back; a repetition takes none.
    world.publish(peer, message(2, 1, "t", "m"));
    world.publish(peer, message(1, 4, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBREC #1", "PUBACK #4"]);
    world.pubrel(peer, 1);
    world.publish(peer, message(2, 5, "t", "m"));
    assert_eq!(world.got(peer), [""; 0]);
    world.publish(peer, message(1, 6, "t", "m"));
    // The PUBCOMP is not on its way yet [MQTT-3.3.4-7].
    assert_eq!(world.got(peer), ["DISCONNECT ReceiveMaximumExceeded"]);
    // A new connection begins with what it sends itself.
    let peer = world.connect(&durable("pub"));
    world.publish(peer, message(2, 3, "t", "m"));
    world.publish(peer, message(2, 6, "t", "m"));
    world.publish(peer, message(2, 7, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer).len(), 3);
    world.publish(peer, message(0, 0, "t", "m"));
    world.publish(peer, message(2, 8, "t", "m"));
    assert_eq!(world.got(peer), ["DISCONNECT ReceiveMaximumExceeded"]);
}

#[test]
fn a_full_queue_drops_the_newest_message_and_counts_it() {
    let by_number = Limits {
        max_queued_messages: 3,
        ..Limits::default()
    };
    let by_bytes = Limits {
        max_queued_bytes: 7,
        ..Limits::default()
    };
    let by_all_bytes = Limits {
        max_queued_bytes_total: 7,
        ..Limits::default()
    };
    for limits in [by_number, by_bytes, by_all_bytes] {
        let mut world = World::with(limited(limits));
        let subscriber = world.connect(&durable("sub"));
        world.subscribe(subscriber, "t", 1);
        world.lose(subscriber);
        let peer = world.connect(&publisher());
        for number in 0..5 {
            world.publish(peer, message(1, 1, "t", &number.to_string()));
        }
        world.settle();
        assert_eq!(
            world.got(peer),
            ["PUBACK #1"; 5],
            "the publisher is not held up"
        );
        assert_eq!(world.broker.counters().dropped_queue_full, 2);
        let subscriber = world.connect(&durable("sub"));
        assert_eq!(
            world.drain(subscriber),
            ["PUBLISH q1 t=0", "PUBLISH q1 t=1", "PUBLISH q1 t=2"]
        );
        world.assert_nothing_left();
    }
}

#[test]
fn qos_0_is_dropped_for_a_client_that_does_not_read_and_nothing_is_read_from_it() {
    let mut world = World::with(limited(Limits {
        max_outgoing_bytes: 100,
        ..Limits::default()
    }));
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "t", 0);
    let peer = world.connect(&publisher());
    let payload = "x".repeat(35);
    for _ in 0..5 {
        world.publish(peer, message(0, 0, "t", &payload));
    }
    assert_eq!(world.broker.counters().dropped_outgoing_full, 2);
    assert!(world.broker.should_pause(subscriber.id));
    assert_eq!(world.got(subscriber).len(), 3);
    assert!(!world.broker.should_pause(subscriber.id));
}

#[test]
fn when_too_much_waits_for_all_only_those_that_read_get_more() {
    for qos in [0, 1] {
        let mut world = World::with(limited(Limits {
            max_outgoing_bytes_total: 50_000,
            ..Limits::default()
        }));
        let stuck: Vec<_> = ["a", "b", "c"]
            .map(|name| world.connect(&client(name)))
            .into_iter()
            .collect();
        let reader = world.connect(&client("reader"));
        for peer in stuck.iter().chain([&reader]) {
            world.subscribe(*peer, "t", qos);
        }
        let peer = world.connect(&publisher());
        let payload = "x".repeat(1000);
        for id in 1..=200 {
            world.publish(peer, message(qos, id, "t", &payload));
            assert_eq!(world.drain(reader).len(), 1, "it reads, so it gets all");
        }
        let waiting = world.broker.audit().expect("accounts agree");
        assert!(world.broker.outgoing.total() < 70_000, "{waiting:?}");
        assert_eq!(world.broker.counters().dropped_outgoing_full > 0, qos == 0);
        // Once they read, the account is empty again, and QoS 1 has lost nothing.
        let got: usize = stuck.iter().map(|peer| world.drain(*peer).len()).sum();
        assert_eq!(got == 600, qos == 1, "{got}");
        for peer in stuck {
            world.lose(peer);
        }
        world.broker.audit().expect("accounts agree");
    }
}

#[test]
fn qos_1_waits_in_the_queue_for_a_client_that_does_not_read() {
    let mut world = World::new();
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&publisher());
    let payload = "x".repeat(100_000);
    for _ in 0..10 {
        world.publish(peer, message(1, 1, "t", &payload));
    }
    let waiting = world.broker.connections[subscriber.id].outbox().len();
    assert!(waiting < 400_000, "{waiting}");
    assert_eq!(world.broker.gauges().queued, 7);
    assert_eq!(world.got(subscriber).len(), 10);
}

#[test]
fn reading_stops_while_the_disk_is_far_behind() {
    let mut world = World::with(limited(Limits {
        max_pending_write_bytes: 1_000,
        ..Limits::default()
    }));
    let keeper = world.connect(&durable("keeper"));
    world.subscribe(keeper, "#", 1);
    let peer = world.connect(&publisher().keep_alive(10));
    let payload = "x".repeat(600);
    world.publish(peer, message(1, 1, "t", &payload));
    assert!(!world.broker.should_pause(peer.id));
    assert!(world.take());
    world.publish(peer, message(1, 2, "t", &payload));
    assert!(world.broker.should_pause(peer.id));
    assert_eq!(world.broker.counters().reading_paused, 1);
    // What the broker does not read it does not hold against the client.
    world.jump(60_000);
    world.broker.tick(world.now);
    assert!(!world.closes(peer));
    let mut touched = Vec::new();
    world.broker.take_touched(&mut touched);
    touched.clear();
    world.durable();
    world.broker.take_touched(&mut touched);
    assert!(touched.contains(&peer.id), "it is told to go on");
    assert!(!world.broker.should_pause(peer.id));
    world.settle();
    assert_eq!(world.got(peer).len(), 2);
    world.wait(20_000);
    assert!(world.closes(peer), "and now it is silent");
}

#[test]
fn qos_and_retain_above_what_is_offered_end_the_connection() {
    let mut world = World::with(limited(Limits {
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        max_topic_length: 10,
        max_topic_levels: 2,
        ..Limits::default()
    }));
    let cases = [
        (message(2, 1, "t", "m"), "QosNotSupported"),
        (retained(0, 0, "t", "m"), "RetainNotSupported"),
        (message(1, 1, "a/b/c", "m"), "TopicNameInvalid"),
        (message(1, 1, "0123456789x", "m"), "TopicNameInvalid"),
    ];
    for (publish, reason) in cases {
        let peer = world.connect(&client("a"));
        world.publish(peer, publish);
        assert_eq!(world.got(peer), [format!("DISCONNECT {reason}")]);
        assert!(world.closes(peer));
        let old = world.connect(&publisher());
        world.publish(old, publish);
        assert_eq!(world.got(old), [""; 0]);
        assert!(world.closes(old));
    }
    assert_eq!(world.broker.counters().topics_refused, 4);
    let peer = world.connect(&client("a"));
    assert_eq!(world.subscribe(peer, "t", 2), ["SUBACK [GrantedQos1]"]);
}

#[test]
fn a_keep_alive_is_lowered_for_those_who_can_be_told() {
    let mut world = World::with(limited(Limits {
        max_keepalive: 100,
        ..Limits::default()
    }));
    for keep_alive in [0, 101] {
        let old = client("a").version(ProtocolVersion::V311).clean();
        let peer = world.open(&old.keep_alive(keep_alive));
        assert_eq!(world.got(peer), ["CONNACK ClientIdentifierNotValid"]);
        let peer = world.connect(&client("b").keep_alive(keep_alive));
        let connection = &world.broker.connections[peer.id];
        assert_eq!(connection.keep_alive(), 150_000);
    }
}

#[test]
fn a_store_without_room_takes_no_new_messages() {
    let mut world = World::new();
    let keeper = world.connect(&durable("keeper"));
    world.subscribe(keeper, "#", 1);
    let live = world.connect(&client("live"));
    world.subscribe(live, "#", 0);
    world.disk.room = 0;
    world.flush();
    let peer = world.connect(&client("new"));
    world.publish(peer, message(0, 0, "t", "passes"));
    // A commit tells the broker that there is no room.
    world.lose(keeper);
    world.connect(&durable("keeper"));
    world.settle();
    world.publish(peer, message(1, 1, "t", "m"));
    world.publish(peer, message(2, 2, "t", "m"));
    world.publish(peer, retained(0, 0, "t", "m"));
    world.publish(peer, message(0, 0, "t", "passes"));
    world.settle();
    assert_eq!(
        world.got(peer),
        ["PUBACK #1 QuotaExceeded", "PUBREC #2 QuotaExceeded"]
    );
    assert_eq!(
        world.got(live),
        ["PUBLISH t=passes", "PUBLISH t=m", "PUBLISH t=passes"]
    );
    assert_eq!(world.broker.counters().refused_store_full, 3);
    assert_eq!(world.broker.gauges().retained, 0);
    // MQTT 3 cannot be told: not acknowledged, and closed.
    let old = world.connect(&publisher());
    world.publish(old, message(1, 1, "t", "m"));
    assert_eq!(world.got(old), [""; 0]);
    assert!(world.closes(old));
    world.disk.room = u64::MAX;
    world.connect(&durable("keeper"));
    world.settle();
    world.publish(peer, message(2, 2, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBREC #2"]);
}
