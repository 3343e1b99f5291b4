//! Windows, the order of sending and sending again, and packet identifiers.

use super::*;

fn payloads(got: &[String]) -> Vec<String> {
    let publishes = got.iter().filter(|line| line.starts_with("PUBLISH"));
    publishes
        .map(|line| line.rsplit('=').next().unwrap_or_default().to_owned())
        .collect()
}

/// Publishes payloads `from` to `to` at a QoS, and takes the acknowledgements.
fn publish_many(world: &mut World, peer: Peer, qos: u8, from: usize, to: usize) {
    for number in from..to {
        let id = (number % 60_000 + 1) as u16;
        world.publish(peer, message(qos, id, "t", &number.to_string()));
        if qos == 2 {
            world.pubrel(peer, id);
        }
    }
    world.settle();
    world.got(peer);
}

#[test]
fn the_clients_receive_maximum_bounds_what_it_is_sent() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(3)));
    world.subscribe(subscriber, "t", 2);
    let peer = world.connect(&publisher());
    publish_many(&mut world, peer, 1, 0, 2);
    publish_many(&mut world, peer, 2, 2, 6);
    assert_eq!(
        world.got(subscriber),
        [
            "PUBLISH #1 q1 t=0",
            "PUBLISH #2 q1 t=1",
            "PUBLISH #3 q2 t=2"
        ]
    );
    // A PUBREC frees nothing; PUBACK and PUBCOMP do [MQTT-4.9.0-2].
    world.pubrec(subscriber, 3);
    world.settle();
    assert_eq!(world.got(subscriber), ["PUBREL #3"]);
    world.puback(subscriber, 2);
    world.settle();
    world.got(subscriber);
    world.settle();
    assert_eq!(world.got(subscriber), ["PUBLISH #4 q2 t=3"]);
    world.pubcomp(subscriber, 3);
    assert_eq!(world.got(subscriber), [""; 0]);
    world.settle();
    assert_eq!(world.got(subscriber), ["PUBLISH #5 q2 t=4"]);
    assert_eq!(world.all(subscriber), [""; 0]);
    world.puback(subscriber, 1);
    assert_eq!(payloads(&world.drain(subscriber)), ["5"]);
    for id in [4, 5] {
        world.pubrec(subscriber, id);
        world.pubcomp(subscriber, id);
    }
    world.assert_nothing_left();
}

#[test]
fn a_pubrec_with_an_error_frees_the_window() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(1)));
    world.subscribe(subscriber, "t", 2);
    let peer = world.connect(&publisher());
    publish_many(&mut world, peer, 2, 0, 2);
    assert_eq!(world.got(subscriber), ["PUBLISH #1 q2 t=0"]);
    let refused = Ack {
        reason: ReasonCode::QuotaExceeded,
        ..success(1)
    };
    world.send(subscriber, Packet::PubRec(refused));
    assert_eq!(payloads(&world.drain(subscriber)), ["1"]);
    world.assert_nothing_left();
}

#[test]
fn max_inflight_messages_bounds_what_a_client_is_sent() {
    let mut world = World::with(limited(Limits {
        max_inflight_messages: 2,
        ..Limits::default()
    }));
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&publisher());
    publish_many(&mut world, peer, 1, 0, 5);
    assert_eq!(payloads(&world.got(subscriber)), ["0", "1"]);
    world.puback(subscriber, 2);
    assert_eq!(payloads(&world.got(subscriber)), ["2"]);
    world.puback(subscriber, 1);
    assert_eq!(payloads(&world.drain(subscriber)), ["3", "4"]);
}

#[test]
fn qos_0_does_not_wait_for_the_window() {
    let mut world = World::new();
    let subscriber = world.connect(&client("sub").with(Property::ReceiveMaximum(1)));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&publisher());
    publish_many(&mut world, peer, 1, 0, 2);
    world.publish(peer, message(0, 0, "t", "now"));
    assert_eq!(
        world.got(subscriber),
        ["PUBLISH #1 q1 t=0", "PUBLISH t=now"]
    );
}

#[test]
fn a_reconnected_client_gets_what_it_has_not_acknowledged_first_and_as_it_was() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(4)));
    world.subscribe(subscriber, "t", 2);
    let peer = world.connect(&publisher());
    publish_many(&mut world, peer, 1, 0, 1);
    publish_many(&mut world, peer, 2, 1, 4);
    publish_many(&mut world, peer, 1, 4, 6);
    assert_eq!(payloads(&world.got(subscriber)), ["0", "1", "2", "3"]);
    world.pubrec(subscriber, 3);
    world.settle();
    world.lose(subscriber);
    world.flush();
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(4)));
    // [MQTT-4.4.0-1], [MQTT-3.3.1-1]; the PUBREL in its place among them.
    assert_eq!(
        world.all(subscriber),
        [
            "PUBLISH #1 q1 dup t=0",
            "PUBLISH #2 q2 dup t=1",
            "PUBREL #3",
            "PUBLISH #4 q2 dup t=3",
            "PUBLISH #5 q1 t=4",
        ]
    );
    world.pubcomp(subscriber, 3);
    assert_eq!(
        world.got(subscriber),
        [""; 0],
        "three and one are on their way"
    );
    world.puback(subscriber, 5);
    assert_eq!(payloads(&world.drain(subscriber)), ["5"]);
}

#[test]
fn what_is_sent_again_keeps_to_a_smaller_receive_maximum() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&publisher());
    publish_many(&mut world, peer, 1, 0, 5);
    assert_eq!(world.got(subscriber).len(), 5);
    world.lose(subscriber);
    publish_many(&mut world, peer, 1, 5, 7);
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(2)));
    world.got(subscriber);
    world.settle();
    assert_eq!(
        world.got(subscriber),
        ["PUBLISH #1 q1 dup t=0", "PUBLISH #2 q1 dup t=1"]
    );
    world.puback(subscriber, 2);
    assert_eq!(world.got(subscriber), ["PUBLISH #3 q1 dup t=2"]);
    world.puback(subscriber, 1);
    assert_eq!(payloads(&world.drain(subscriber)), ["3", "4", "5", "6"]);
    world.puback(subscriber, 3);
    world.assert_nothing_left();
}

#[test]
fn a_client_may_acknowledge_what_is_not_sent_again_yet() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&publisher());
    publish_many(&mut world, peer, 1, 0, 3);
    world.got(subscriber);
    world.lose(subscriber);
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(1)));
    world.puback(subscriber, 2);
    assert_eq!(payloads(&world.drain(subscriber)), ["0", "2"]);
    world.assert_nothing_left();
}

#[test]
fn packet_identifiers_begin_again_after_65535_and_step_over_those_in_use() {
    let mut world = World::new();
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&publisher());
    publish_many(&mut world, peer, 1, 0, 3);
    world.got(subscriber);
    world.puback(subscriber, 1);
    world.puback(subscriber, 3);
    for number in 4..=65_535_u32 {
        world.publish(peer, message(1, 1, "t", "m"));
        world.got(peer);
        let got = world.got(subscriber);
        assert_eq!(got, [format!("PUBLISH #{number} q1 t=m")]);
        world.puback(subscriber, number as u16);
    }
    publish_many(&mut world, peer, 1, 0, 2);
    let got = world.got(subscriber);
    // 2 is still on its way [MQTT-2.2.1-4].
    assert_eq!(got, ["PUBLISH #1 q1 t=0", "PUBLISH #3 q1 t=1"]);
}

#[test]
fn all_packet_identifiers_can_be_on_their_way() {
    let mut world = World::with(limited(Limits {
        max_inflight_messages: 65_535,
        ..Limits::default()
    }));
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&publisher());
    for number in 0..65_540_u32 {
        world.publish(peer, message(1, 1, "t", &number.to_string()));
        if number % 5_000 == 0 {
            world.got(subscriber);
        }
    }
    world.got(subscriber);
    assert_eq!(world.broker.gauges().queued, 5);
    world.puback(subscriber, 77);
    assert_eq!(world.got(subscriber), ["PUBLISH #77 q1 t=65535"]);
}

#[test]
fn the_lower_qos_of_message_and_subscription_holds() {
    let mut world = World::new();
    for (at, id) in ["a", "b", "c"].iter().enumerate() {
        let peer = world.connect(&durable(id));
        world.subscribe(peer, "t", at as u8);
        for qos in 0..3 {
            world.publish(peer, message(qos, 1, "t", "m"));
        }
        world.settle();
        let got = world.got(peer);
        let publishes: Vec<&String> = got
            .iter()
            .filter(|line| line.starts_with("PUBLISH"))
            .collect();
        let expected = [
            vec!["PUBLISH t=m", "PUBLISH t=m", "PUBLISH t=m"],
            vec!["PUBLISH t=m", "PUBLISH #1 q1 t=m", "PUBLISH #2 q1 t=m"],
            vec!["PUBLISH t=m", "PUBLISH #1 q1 t=m", "PUBLISH #2 q2 t=m"],
        ];
        assert_eq!(publishes, expected[at]); // [MQTT-3.8.4-8]
        world.unsubscribe(peer, "t");
        world.settle();
    }
}

#[test]
fn the_order_is_kept_from_queue_to_live() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(5)));
    world.subscribe(subscriber, "t", 2);
    let peer = world.connect(&publisher());
    publish_many(&mut world, peer, 1, 0, 7);
    world.lose(subscriber);
    publish_many(&mut world, peer, 2, 7, 20);
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(5)));
    let mut got = Vec::new();
    publish_many(&mut world, peer, 1, 20, 25);
    got.extend(payloads(&world.drain(subscriber)));
    publish_many(&mut world, peer, 1, 25, 30);
    got.extend(payloads(&world.drain(subscriber)));
    let expected: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    assert_eq!(got, expected);
    world.assert_nothing_left();
}

#[test]
fn a_delivery_too_large_for_its_client_is_as_good_as_done() {
    let mut world = World::new();
    let small = durable("sub").with(Property::MaximumPacketSize(30));
    let subscriber = world.connect(&small);
    world.subscribe(subscriber, "t", 2);
    let peer = world.connect(&publisher());
    let long = "x".repeat(100);
    for qos in 0..3 {
        world.publish(peer, message(qos, 1, "t", &long));
    }
    world.pubrel(peer, 1);
    publish_many(&mut world, peer, 1, 0, 1);
    assert_eq!(payloads(&world.drain(subscriber)), ["0"]);
    assert_eq!(world.broker.counters().dropped_too_large, 3);
    // From the queue, and when sent again to a client that takes less than before.
    world.lose(subscriber);
    world.publish(peer, message(1, 1, "t", &long));
    world.settle();
    let subscriber = world.connect(&durable("sub").with(Property::MaximumPacketSize(1000)));
    world.got(subscriber);
    world.settle();
    assert_eq!(world.got(subscriber).len(), 1);
    world.publish(peer, message(1, 1, "t", &long));
    world.lose(subscriber);
    world.settle();
    let subscriber = world.connect(&small);
    assert_eq!(world.drain(subscriber), [""; 0]);
    assert_eq!(world.broker.counters().dropped_too_large, 5);
    world.assert_nothing_left();
}

#[test]
fn topic_aliases_are_set_once_and_used_on_each_connection_anew() {
    let mut world = World::new();
    let client_with_aliases = || durable("sub").with(Property::TopicAliasMaximum(1));
    let subscriber = world.connect(&client_with_aliases());
    world.subscribe(subscriber, "#", 1);
    let peer = world.connect(&publisher());
    for topic in ["a", "b", "a"] {
        world.publish(peer, message(0, 0, topic, "m"));
    }
    world.publish(peer, message(1, 1, "a", "n"));
    world.settle();
    assert_eq!(
        world.got(subscriber),
        [
            "PUBLISH a=m alias 1",
            "PUBLISH b=m",
            "PUBLISH =m alias 1",
            "PUBLISH #1 q1 =n alias 1"
        ]
    );
    world.lose(subscriber);
    let subscriber = world.connect(&client_with_aliases());
    world.got(subscriber);
    world.settle();
    assert_eq!(world.got(subscriber), ["PUBLISH #1 q1 dup a=n alias 1"]);
}

#[test]
fn bytes_on_their_way_are_limited_and_a_message_that_is_larger_goes_alone() {
    let mut world = World::with(limited(Limits {
        max_inflight_bytes: 100,
        ..Limits::default()
    }));
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 2);
    let peer = world.connect(&publisher());
    let payload = "x".repeat(60);
    for id in 1..=4 {
        world.publish(peer, message(1, id, "t", &payload));
    }
    world.publish(peer, message(2, 5, "t", &"y".repeat(1000)));
    world.publish(peer, message(1, 6, "t", "z"));
    world.settle();
    assert_eq!(world.all(subscriber).len(), 2, "the second one reaches it");
    world.puback(subscriber, 1);
    assert_eq!(world.all(subscriber).len(), 1);
    world.puback(subscriber, 2);
    assert_eq!(world.all(subscriber).len(), 1);
    world.puback(subscriber, 3);
    // 61 bytes are on their way: the large one may follow, and nothing after it.
    assert_eq!(world.all(subscriber).len(), 1);
    world.puback(subscriber, 4);
    assert_eq!(world.all(subscriber), [""; 0]);
    world.pubrec(subscriber, 5);
    assert_eq!(world.all(subscriber).len(), 1, "PUBREL");
    world.pubcomp(subscriber, 5);
    assert_eq!(world.all(subscriber), ["PUBLISH #6 q1 t=z"]);
    assert_eq!(world.session(subscriber).inflight.bytes(), 2);
}
