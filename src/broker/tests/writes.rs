//! What is written, exactly.

use super::*;

#[test]
fn a_qos_1_message_for_three_durable_sessions_is_stored_once() {
    let mut world = World::new();
    let subscribers = ["a", "b", "c"].map(|id| {
        let peer = world.connect(&durable(id));
        world.subscribe(peer, "t", 1);
        peer
    });
    world.lose(subscribers[2]);
    let peer = world.connect(&client("pub"));
    world.flush();
    world.writes();
    world.publish(peer, message(1, 1, "t", "m"));
    world.settle();
    assert_eq!(
        world.writes(),
        [
            "PutDelivery s1 k1 q1 #1",
            "PutDelivery s1 k2 q1 #1",
            "PutDelivery s1 k3 q1",
            "PutMessage s1",
        ]
    );
    for (at, subscriber) in subscribers[..2].iter().enumerate() {
        assert_eq!(world.got(*subscriber), ["PUBLISH #1 q1 t=m"]);
        world.puback(*subscriber, 1);
        world.flush();
        assert_eq!(world.writes(), [format!("RemoveDelivery s1 k{}", at + 1)]);
    }
    let last = world.connect(&durable("c"));
    world.settle();
    assert_eq!(world.drain(last), ["PUBLISH q1 t=m"]);
    world.writes();
    world.flush();
    assert_eq!(world.writes(), ["RemoveDelivery s1 k3", "RemoveMessage s1"]);
    world.assert_nothing_left();
}

#[test]
fn the_rows_of_a_qos_2_message_from_publisher_to_subscriber() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 2);
    let peer = world.connect(&durable("pub"));
    world.writes();
    world.publish(peer, message(2, 7, "t", "m"));
    world.settle();
    assert_eq!(
        world.writes(),
        [
            "PutDelivery s1 k1 q2 #1",
            "PutMessage s1",
            "PutReceived k2 #7"
        ]
    );
    assert_eq!(world.got(peer), ["PUBREC #7"]);
    world.pubrel(peer, 7);
    world.settle();
    assert_eq!(world.writes(), ["RemoveReceived k2 #7"]);
    assert_eq!(world.got(subscriber), ["PUBLISH #1 q2 t=m"]);
    world.pubrec(subscriber, 1);
    world.settle();
    assert_eq!(world.writes(), ["PutInflight k1 #1 s1 released"]);
    assert_eq!(world.got(subscriber), ["PUBREL #1"]);
    world.pubcomp(subscriber, 1);
    world.flush();
    assert_eq!(
        world.writes(),
        [
            "RemoveDelivery s1 k1",
            "RemoveMessage s1",
            "RemoveInflight k1 0"
        ]
    );
    world.assert_nothing_left();
}

#[test]
fn qos_2_messages_from_the_queue_are_written_again_together() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 2);
    world.lose(subscriber);
    let peer = world.connect(&client("pub"));
    for id in 1..=3 {
        world.publish(peer, message(1, id, "t", "m"));
    }
    let publish = Publish {
        qos: QoS::ExactlyOnce,
        ..message(1, 4, "t", "m")
    };
    for id in 4..=6 {
        let publish = Publish {
            packet_id: Some(packet_id(id)),
            ..publish
        };
        world.publish(peer, publish);
    }
    world.flush();
    let subscriber = world.connect(&durable("sub"));
    world.writes();
    assert_eq!(world.all(subscriber).len(), 6);
    assert_eq!(world.writes(), ["PutInflight k1 #4 s4 #5 s5 #6 s6"]);
    world.pubrec(subscriber, 5);
    world.pubrec(subscriber, 4);
    world.flush();
    assert_eq!(
        world.writes(),
        ["PutInflight k1 #4 s4 released #5 s5 released #6 s6"]
    );
    world.pubcomp(subscriber, 4);
    world.flush();
    assert_eq!(
        world.writes(),
        [
            "RemoveDelivery s4 k1",
            "RemoveMessage s4",
            "PutInflight k1 #5 s5 released #6 s6"
        ]
    );
    world.crash();
    let subscriber = world.connect(&durable("sub"));
    let got = world.all(subscriber);
    assert_eq!(got[0], "PUBREL #5");
    assert_eq!(got[1..].last().expect("sent"), "PUBLISH #6 q2 dup t=m");
    assert_eq!(got.len(), 5, "{got:?}");
}

#[test]
fn a_session_that_ends_takes_what_is_known_of_its_messages_along() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 2);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(2, 1, "t", "m"));
    world.settle();
    world.got(subscriber);
    world.pubrec(subscriber, 1);
    world.flush();
    assert_eq!(world.disk.inflight.len(), 1);
    world.lose(subscriber);
    world.connect(&client("sub").clean());
    world.flush();
    assert!(world.disk.inflight.is_empty());
    assert!(world.disk.deliveries.is_empty());
}

#[test]
fn what_is_known_of_a_message_that_is_gone_is_removed_after_a_restart() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 2);
    let peer = world.connect(&client("pub"));
    for id in 1..=2 {
        world.publish(peer, message(2, id, "t", "m"));
        world.settle();
        world.got(subscriber);
        world.pubrec(subscriber, id);
    }
    world.flush();
    world.disk.deliveries.remove(&(1, 1));
    world.disk.messages.remove(&1);
    world.crash();
    world.writes();
    world.flush();
    let writes = world.writes();
    assert_eq!(
        writes.last().expect("written"),
        "PutInflight k1 #2 s2 released"
    );
}

#[test]
fn a_qos_1_message_from_the_queue_is_not_written_again() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    world.lose(subscriber);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 1, "t", "m"));
    world.flush();
    let subscriber = world.connect(&durable("sub"));
    world.writes();
    world.got(subscriber);
    world.settle();
    assert_eq!(world.got(subscriber), ["PUBLISH #1 q1 t=m"]);
    assert_eq!(world.writes(), [""; 0]);
}

#[test]
fn the_rows_of_a_session_from_its_beginning_to_its_end() {
    let mut world = World::new();
    let peer = world.connect(&durable("a").will(1, "w", "gone"));
    assert_eq!(world.writes(), ["PutSession k1 a connected", "PutWill k1"]);
    world.subscribe(peer, "t/+", 1);
    world.subscribe(peer, "$share/g/u", 1);
    assert_eq!(
        world.writes(),
        [
            "PutSubscription k1 t/+",
            "PutGroup k2 $share/g/u",
            "PutSubscription k1 $share/g/u",
        ]
    );
    world.publish(peer, message(2, 5, "x", "m"));
    world.settle();
    assert_eq!(world.writes(), ["PutReceived k1 #5"]);
    world.leave(peer);
    world.flush();
    assert_eq!(world.writes(), ["RemoveWill k1", "PutSession k1 a away"]);
    world.connect(&client("a").clean());
    let mut writes = world.writes();
    writes.sort();
    assert_eq!(
        writes,
        [
            "RemoveGroup k2",
            "RemoveReceived k1 #5",
            "RemoveSession k1",
            "RemoveSubscription k1 $share/g/u",
            "RemoveSubscription k1 t/+",
        ]
    );
    assert!(world.disk.rows().is_empty());
}

#[test]
fn a_will_that_is_discarded_forces_a_commit() {
    let mut world = World::new();
    let peer = world.connect(&client("a").will(1, "w", "gone"));
    world.leave(peer);
    world.settle();
    assert!(
        world.disk.wills.is_empty(),
        "or a crash would publish what the client took back"
    );
}

#[test]
fn a_delayed_will_is_written_with_its_time() {
    let mut world = World::new();
    let client = durable("a")
        .will(1, "w", "gone")
        .will_with(Property::WillDelayInterval(10));
    let peer = world.connect(&client);
    world.writes();
    world.lose(peer);
    world.flush();
    assert_eq!(world.writes(), ["PutWill k1 due", "PutSession k1 a away"]);
    world.wait(10_000);
    world.flush();
    assert_eq!(world.writes(), ["RemoveWill k1"]);
}

#[test]
fn a_will_and_the_end_of_its_row_are_in_one_batch() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "w", 1);
    let peer = world.connect(&client("a").will(1, "w", "gone"));
    world.writes();
    world.lose(peer);
    assert!(world.take());
    assert_eq!(
        world.writes(),
        [
            "RemoveWill k2",
            "PutDelivery s1 k1 q1 #1",
            "PutMessage s1",
            "RemoveSession k2",
        ]
    );
}

#[test]
fn a_retained_message_is_stored_beside_its_deliveries() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&client("pub"));
    world.writes();
    world.publish(peer, retained(1, 1, "t", "m"));
    world.settle();
    assert_eq!(
        world.writes(),
        [
            "PutRetained t",
            "PutDelivery s1 k1 q1 #1 published retain",
            "PutMessage s1"
        ]
    );
    world.publish(peer, retained(0, 0, "t", ""));
    world.settle();
    assert_eq!(world.writes(), ["RemoveRetained t"]);
}

/// Connects a publisher, while a durable subscriber of "t" at QoS 1 is away. Nothing is to be written.
fn publisher_to_one_away(world: &mut World) -> Peer {
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    world.lose(subscriber);
    let peer = world.connect(&client("pub"));
    world.flush();
    world.writes();
    peer
}

/// Whoever gets the message next, from a row alone, must not get less than was published.
#[test]
fn a_row_says_how_its_message_was_published() {
    let mut world = World::new();
    let peer = publisher_to_one_away(&mut world);
    world.publish(peer, retained(2, 1, "t", "m"));
    world.settle();
    let rows = world.writes();
    let row = "PutDelivery s1 k1 q1 published q2 published retain";
    assert!(rows.contains(&row.to_owned()), "{rows:?}");
    world.crash();
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.drain(subscriber), ["PUBLISH q1 t=m"]);
}

#[test]
fn a_message_whose_body_every_queue_refuses_is_not_stored() {
    let mut world = World::with(limited(Limits {
        max_queued_messages: 0,
        ..Limits::default()
    }));
    let peer = publisher_to_one_away(&mut world);
    world.publish(peer, message(1, 1, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBACK #1 QuotaExceeded"]);
    assert_eq!(world.writes(), [""; 0]);
    assert_eq!(world.broker.counters().dropped_queue_full, 1);
}
