//! Nothing that promises something leaves before it is on disk, and all of it leaves right after.

use super::super::record::DurabilityRules;
use super::*;

/// The batch that is open is taken, and durable only after `check` has seen that `peer` has got
/// nothing.
fn held_until_durable(world: &mut World, peer: Peer, expected: &[&str]) {
    assert_eq!(world.got(peer), [""; 0], "before the commit began");
    assert!(world.take(), "somebody waits, so the batch is committed");
    assert_eq!(world.got(peer), [""; 0], "while the commit is under way");
    world.written();
    assert_eq!(world.got(peer), [""; 0], "written is not durable");
    world.durable();
    assert_eq!(world.got(peer), expected);
}

fn subscribed_durably(world: &mut World, qos: u8) -> Peer {
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", qos);
    subscriber
}

#[test]
fn connack_of_a_durable_session_waits() {
    let mut world = World::new();
    let peer = world.open(&durable("a"));
    held_until_durable(&mut world, peer, &["CONNACK Success"]);
    world.lose(peer);
    world.flush();
    let peer = world.open(&durable("a"));
    held_until_durable(&mut world, peer, &["CONNACK present Success"]);
}

#[test]
fn connack_of_a_session_with_a_will_waits() {
    let mut world = World::new();
    let peer = world.open(&client("a").will(0, "w", "gone"));
    held_until_durable(&mut world, peer, &["CONNACK Success"]);
    assert_eq!(world.writes(), ["PutSession k1 a connected", "PutWill k1"]);
}

#[test]
fn connack_of_a_transient_session_leaves_at_once() {
    let mut world = World::new();
    let peer = world.open(&client("a"));
    assert_eq!(world.got(peer), ["CONNACK Success"]);
    assert!(!world.take());
}

#[test]
fn connack_after_a_clean_start_waits_until_the_old_session_is_gone() {
    let mut world = World::new();
    let peer = world.connect(&durable("a"));
    world.leave(peer);
    world.flush();
    let peer = world.open(&client("a").clean());
    held_until_durable(&mut world, peer, &["CONNACK Success"]);
    assert!(world.disk.sessions.is_empty());
}

#[test]
fn suback_and_unsuback_of_a_durable_session_wait() {
    let mut world = World::new();
    let peer = world.connect(&durable("a"));
    world.ask(peer, 1, &[("t", options(1))]);
    held_until_durable(&mut world, peer, &["SUBACK [GrantedQos1]"]);
    world.unsubscribe(peer, "t");
    held_until_durable(&mut world, peer, &["UNSUBACK [Success]"]);
    world.unsubscribe(peer, "t");
    assert_eq!(world.got(peer), ["UNSUBACK [NoSubscriptionExisted]"]);
}

#[test]
fn suback_of_a_transient_session_leaves_at_once() {
    let mut world = World::new();
    let peer = world.connect(&client("a"));
    world.ask(peer, 1, &[("t", options(2))]);
    assert_eq!(world.got(peer), ["SUBACK [GrantedQos2]"]);
    assert!(!world.take());
}

#[test]
fn puback_waits_where_a_durable_session_is_to_have_the_message() {
    let mut world = World::new();
    subscribed_durably(&mut world, 1);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 7, "t", "m"));
    held_until_durable(&mut world, peer, &["PUBACK #7"]);
}

#[test]
fn pubrec_and_pubcomp_of_a_durable_publisher_wait() {
    let mut world = World::new();
    let peer = world.connect(&durable("pub"));
    world.publish(peer, message(2, 7, "t", "m"));
    held_until_durable(&mut world, peer, &["PUBREC #7 NoMatchingSubscribers"]);
    world.pubrel(peer, 7);
    held_until_durable(&mut world, peer, &["PUBCOMP #7"]);
}

#[test]
fn pubrec_of_a_transient_publisher_waits_for_the_message() {
    let mut world = World::new();
    subscribed_durably(&mut world, 1);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(2, 7, "t", "m"));
    held_until_durable(&mut world, peer, &["PUBREC #7"]);
    world.pubrel(peer, 7);
    assert_eq!(world.got(peer), ["PUBCOMP #7"]);
}

#[test]
fn a_duplicate_is_answered_no_sooner_than_the_original() {
    let mut world = World::new();
    let peer = world.connect(&durable("pub"));
    world.publish(peer, message(2, 7, "t", "m"));
    let again = Publish {
        dup: true,
        ..message(2, 7, "t", "m")
    };
    world.publish(peer, again);
    held_until_durable(
        &mut world,
        peer,
        &["PUBREC #7 NoMatchingSubscribers", "PUBREC #7"],
    );
    assert_eq!(world.broker.counters().duplicates_suppressed, 1);
}

#[test]
fn an_outgoing_qos_2_publish_waits_for_its_packet_identifier() {
    let mut world = World::new();
    let subscriber = subscribed_durably(&mut world, 2);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(2, 1, "t", "m"));
    held_until_durable(&mut world, subscriber, &["PUBLISH #1 q2 t=m"]);
}

#[test]
fn an_outgoing_qos_2_publish_from_the_queue_waits_for_its_packet_identifier() {
    let mut world = World::new();
    let subscriber = subscribed_durably(&mut world, 2);
    world.lose(subscriber);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(2, 1, "t", "m"));
    world.flush();
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.got(subscriber), [""; 0]);
    world.take_fetches();
    world.answer_fetches();
    world.writes();
    held_until_durable(&mut world, subscriber, &["PUBLISH #1 q2 t=m"]);
    assert_eq!(world.writes(), ["PutInflight k1 #1 s1"]);
}

#[test]
fn pubrel_waits_until_the_clients_pubrec_is_kept() {
    let mut world = World::new();
    let subscriber = subscribed_durably(&mut world, 2);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(2, 1, "t", "m"));
    world.settle();
    assert_eq!(world.got(subscriber), ["PUBLISH #1 q2 t=m"]);
    world.pubrec(subscriber, 1);
    held_until_durable(&mut world, subscriber, &["PUBREL #1"]);
}

#[test]
fn a_retained_message_is_acknowledged_when_it_is_kept() {
    let mut world = World::new();
    let peer = world.connect(&client("pub"));
    world.publish(peer, retained(1, 1, "t", "m"));
    held_until_durable(&mut world, peer, &["PUBACK #1 NoMatchingSubscribers"]);
    world.publish(peer, retained(1, 2, "t", ""));
    held_until_durable(&mut world, peer, &["PUBACK #2 NoMatchingSubscribers"]);
    assert!(world.disk.retained.is_empty());
}

#[test]
fn a_qos_0_delivery_waits_for_the_retained_message_it_reveals() {
    let mut world = World::new();
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "t", 0);
    let peer = world.connect(&client("pub"));
    world.publish(peer, retained(0, 0, "t", "m"));
    held_until_durable(&mut world, subscriber, &["PUBLISH t=m"]);
    world.publish(peer, message(0, 0, "t", "n"));
    assert_eq!(world.got(subscriber), ["PUBLISH t=n"]);
}

#[test]
fn a_delivery_to_a_transient_session_waits_for_the_message_a_durable_one_keeps() {
    let mut world = World::new();
    subscribed_durably(&mut world, 1);
    let other = world.connect(&client("other"));
    world.subscribe(other, "t", 1);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 1, "t", "m"));
    held_until_durable(&mut world, other, &["PUBLISH #1 q1 t=m"]);
}

#[test]
fn nothing_waits_and_nothing_is_written_where_nobody_durable_is_concerned() {
    let mut world = World::new();
    subscribed_durably(&mut world, 0);
    let other = world.connect(&client("other"));
    world.subscribe(other, "t", 2);
    let peer = world.connect(&client("pub"));
    world.flush();
    world.writes();
    world.publish(peer, message(1, 1, "t", "m"));
    world.publish(peer, message(2, 2, "t", "n"));
    world.publish(peer, message(0, 0, "t", "o"));
    assert_eq!(world.got(peer), ["PUBACK #1", "PUBREC #2"]);
    assert_eq!(
        world.got(other),
        ["PUBLISH #1 q1 t=m", "PUBLISH #2 q2 t=n", "PUBLISH t=o"]
    );
    world.flush();
    assert_eq!(world.writes(), [""; 0]);
}

#[test]
fn a_connection_has_one_fifo() {
    let mut world = World::new();
    let subscriber = subscribed_durably(&mut world, 1);
    let peer = world.connect(&durable("pub"));
    world.subscribe(peer, "own", 0);
    world.publish(peer, message(1, 7, "t", "m"));
    world.ping(peer);
    world.publish(peer, message(0, 0, "own", "x"));
    held_until_durable(
        &mut world,
        peer,
        &["PUBACK #7", "PINGRESP", "PUBLISH own=x"],
    );
    world.ping(subscriber);
    assert_eq!(world.got(subscriber), ["PUBLISH #1 q1 t=m", "PINGRESP"]);
}

#[test]
fn what_stands_before_a_held_packet_leaves_and_what_the_next_batch_holds_stays() {
    let mut world = World::new();
    subscribed_durably(&mut world, 1);
    let peer = world.connect(&client("pub"));
    world.ping(peer);
    world.publish(peer, message(1, 1, "t", "m"));
    assert!(world.take());
    world.publish(peer, message(1, 2, "t", "n"));
    world.ping(peer);
    assert_eq!(world.got(peer), ["PINGRESP"]);
    world.durable();
    assert_eq!(world.got(peer), ["PUBACK #1"]);
    world.settle();
    assert_eq!(world.got(peer), ["PUBACK #2", "PINGRESP"]);
}

#[test]
fn a_connection_that_ends_takes_no_promise_with_it() {
    let mut world = World::new();
    subscribed_durably(&mut world, 1);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 1, "t", "m"));
    world.send(peer, Packet::PingResp);
    assert_eq!(world.got(peer), ["DISCONNECT ProtocolError"]);
    assert!(world.closes(peer));
    world.settle();
    assert_eq!(world.got(peer), [""; 0]);
}

/// Shown before it is on disk, it could be followed by an older one after a crash.
#[test]
fn a_message_that_is_kept_waits_for_the_disk_even_in_the_queue_of_a_session_that_is_not() {
    let mut world = World::new();
    let sub = world.connect(&client("sub").with(Property::ReceiveMaximum(1)));
    world.subscribe(sub, "t", 1);
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", "first"));
    world.publish(peer, retained(1, 2, "t", "kept"));
    assert_eq!(world.got(sub), ["PUBLISH #1 q1 t=first"]);
    world.puback(sub, 1);
    assert!(world.got(sub).is_empty());
    world.settle_disk();
    assert_eq!(world.got(sub), ["PUBLISH #2 q1 t=kept"]);
}

fn rules(default: Durability, topics: &[(&str, Durability)]) -> Settings {
    Settings {
        durability: DurabilityRules {
            default,
            topics: topics
                .iter()
                .map(|(filter, level)| ((*filter).into(), *level))
                .collect(),
        },
        ..Settings::default()
    }
}

#[test]
fn each_topic_waits_as_far_as_its_rule_says() {
    let topics = [
        ("os/#", Durability::Os),
        ("memory/#", Durability::Memory),
        ("os/never", Durability::Fsync),
    ];
    let mut world = World::with(rules(Durability::Fsync, &topics));
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "#", 1);
    let peer = world.connect(&client("pub"));
    world.writes();

    world.publish(peer, message(1, 1, "memory/x", "m"));
    assert_eq!(world.got(peer), ["PUBACK #1"]);
    assert_eq!(world.got(subscriber), ["PUBLISH #1 q1 memory/x=m"]);
    assert!(!world.take());

    world.publish(peer, message(1, 2, "os/never", "m")); // The first rule that matches holds.
    assert!(world.take());
    assert_eq!(world.got(peer), [""; 0]);
    world.written();
    assert_eq!(world.got(peer), ["PUBACK #2"]);
    world.durable();

    world.publish(peer, message(1, 3, "other", "m"));
    held_until_durable(&mut world, peer, &["PUBACK #3"]);
}

#[test]
fn what_is_of_a_session_waits_for_the_disk_whatever_the_topics() {
    let mut world = World::with(rules(Durability::Memory, &[("keep", Durability::Os)]));
    let peer = world.open(&durable("a"));
    held_until_durable(&mut world, peer, &["CONNACK Success"]);
    world.ask(peer, 1, &[("#", options(1))]);
    held_until_durable(&mut world, peer, &["SUBACK [GrantedQos1]"]);
}

#[test]
fn with_durability_memory_nothing_is_written() {
    let mut world = World::with(rules(Durability::Memory, &[]));
    let peer = world.open(&durable("a").will(1, "w", "gone"));
    world.ask(peer, 1, &[("#", options(2))]);
    world.publish(peer, message(2, 1, "t", "m"));
    world.publish(peer, retained(1, 2, "r", "m"));
    assert_eq!(
        world.got(peer),
        [
            "CONNACK Success",
            "SUBACK [GrantedQos2]",
            "PUBLISH #1 q2 t=m",
            "PUBREC #1",
            "PUBLISH #2 q1 r=m",
            "PUBACK #2",
        ]
    );
    world.lose(peer);
    world.wait(1000);
    world.flush();
    assert_eq!(world.writes(), [""; 0]);
    // The session is kept as long as the process.
    let peer = world.open(&durable("a"));
    assert_eq!(
        world.got(peer),
        [
            "CONNACK present Success",
            "PUBLISH #1 q2 dup t=m",
            "PUBLISH #2 q1 dup r=m",
            "PUBLISH #3 q1 w=gone",
        ]
    );
}

#[test]
fn pubrec_of_an_os_topic_leaves_when_written_and_pubcomp_when_durable() {
    let mut world = World::with(rules(Durability::Os, &[]));
    let peer = world.connect(&durable("pub"));
    world.publish(peer, message(2, 7, "t", "m"));
    assert!(world.take());
    world.written();
    assert_eq!(world.got(peer), ["PUBREC #7 NoMatchingSubscribers"]);
    world.durable();
    world.pubrel(peer, 7);
    held_until_durable(&mut world, peer, &["PUBCOMP #7"]);
}

#[test]
fn removals_after_an_acknowledgement_force_no_commit_and_follow_within_5_s() {
    let mut world = World::new();
    let subscriber = subscribed_durably(&mut world, 1);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 1, "t", "m"));
    world.settle();
    world.got(subscriber);
    world.writes();
    world.puback(subscriber, 1);
    assert!(!world.take(), "nobody waits for it");
    world.jump(4_999);
    assert!(!world.take());
    world.jump(1);
    assert!(world.take());
    assert_eq!(world.writes(), ["RemoveDelivery s1 k1", "RemoveMessage s1"]);
    world.durable();
    assert!(world.broker.is_settled());
}

#[test]
fn removals_join_the_next_batch() {
    let mut world = World::new();
    let subscriber = subscribed_durably(&mut world, 1);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 1, "t", "m"));
    world.settle();
    world.got(subscriber);
    world.puback(subscriber, 1);
    world.writes();
    world.publish(peer, message(1, 2, "t", "n"));
    world.settle();
    let removed = ["RemoveDelivery s1 k1", "RemoveMessage s1"];
    let put = ["PutDelivery s2 k1 q1 #2", "PutMessage s2"];
    assert_eq!(world.writes(), [removed, put].concat());
}

/// A message a second, at QoS 1 and 2: what says that it is done with joins the next one's batch.
#[test]
fn a_message_a_second_costs_one_commit_at_qos_1_and_three_at_qos_2() {
    for (qos, commits) in [(1, 1), (2, 3)] {
        let mut world = World::new();
        let subscriber = subscribed_durably(&mut world, qos);
        let peer = world.connect(&durable("pub"));
        world.flush();
        let before = world.broker.counters().commits;
        for second in 0..20 {
            world.publish(peer, message(qos, 1, "t", "m"));
            world.settle();
            if qos == 2 {
                world.pubrel(peer, 1);
                world.settle();
            }
            world.drain(subscriber);
            world.got(peer);
            world.wait(1_000);
            let made = world.broker.counters().commits - before;
            assert_eq!(made, (second + 1) * commits, "QoS {qos}, second {second}");
        }
        world.assert_nothing_left();
    }
}

#[test]
fn other_writes_that_nobody_waits_for_follow_within_100_ms_and_take_removals_along() {
    let mut world = World::new();
    let subscriber = subscribed_durably(&mut world, 1);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 1, "t", "m"));
    world.settle();
    world.got(subscriber);
    world.puback(subscriber, 1);
    world.writes();
    world.lose(subscriber); // Since when it waits for its client.
    assert!(!world.take());
    world.jump(100);
    assert!(world.take());
    assert_eq!(world.writes().len(), 3);
}

#[test]
fn removals_are_committed_before_they_count_as_too_much_that_waits() {
    let limits = Limits {
        max_pending_write_bytes: 2_000,
        ..Limits::default()
    };
    let mut world = World::with(limited(limits));
    let subscriber = subscribed_durably(&mut world, 1);
    let peer = world.connect(&publisher());
    world.flush();
    for id in 1..=8 {
        world.publish(peer, message(1, id, "t", "m"));
        world.settle();
        world.got(subscriber);
    }
    world.writes();
    for id in 1..=8 {
        let audit = world.broker.audit().expect("the accounts agree");
        assert!(audit.pending_bytes < 1_000);
        world.puback(subscriber, id);
        world.settle_disk();
    }
    assert!(world.writes().len() >= 10);
}

#[test]
fn removals_are_committed_when_there_is_no_room() {
    let mut world = World::new();
    let subscriber = subscribed_durably(&mut world, 1);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 1, "t", "m"));
    world.settle();
    world.got(subscriber);
    world.puback(subscriber, 1);
    world.broker.set_room(0, false);
    assert!(!world.take());
    world.publish(peer, message(1, 2, "t", "n"));
    assert!(world.take(), "what it was refused for may be gone then");
    world.durable();
    assert_eq!(world.disk.messages.len(), 0);
}

/// What was acknowledged in the last seconds is sent once more after a crash, in order, and as a
/// repetition.
#[test]
fn what_was_acknowledged_just_before_a_crash_comes_once_more_and_in_order() {
    let mut world = World::new();
    let subscriber = subscribed_durably(&mut world, 1);
    let peer = world.connect(&publisher());
    for id in 1..=4 {
        world.publish(peer, message(1, id, "t", &id.to_string()));
    }
    world.settle();
    assert_eq!(world.got(subscriber).len(), 4);
    for id in 1..=3 {
        world.puback(subscriber, id);
    }
    world.crash();
    let subscriber = world.connect(&durable("sub"));
    let again = [1, 2, 3, 4].map(|id| format!("PUBLISH q1 dup t={id}"));
    assert_eq!(world.drain(subscriber), again);
    world.assert_nothing_left();
}

/// What was sent from the queue, and not acknowledged when its connection ended, is a repetition
/// also after a restart \[MQTT-3.3.1-1\]. What has never been sent is none.
#[test]
fn what_a_connection_left_unacknowledged_is_a_repetition_after_a_restart() {
    let mut world = World::with(limited(Limits {
        max_inflight_messages: 2,
        ..Limits::default()
    }));
    let subscriber = subscribed_durably(&mut world, 1);
    world.lose(subscriber);
    let peer = world.connect(&publisher());
    for id in 1..=3 {
        world.publish(peer, message(1, id, "t", &id.to_string()));
    }
    world.settle();
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.got(subscriber), [""; 0], "bodies are read first");
    world.settle();
    let sent = [1, 2].map(|id| format!("PUBLISH #{id} q1 t={id}"));
    assert_eq!(world.got(subscriber), sent);
    world.lose(subscriber);
    // That it was not connected any more is on disk as well.
    world.flush();
    for _ in 0..2 {
        world.crash();
        world.flush();
    }
    let subscriber = world.connect(&durable("sub"));
    let again = ["q1 dup t=1", "q1 dup t=2", "q1 t=3"].map(|text| format!("PUBLISH {text}"));
    assert_eq!(world.drain(subscriber), again);
    world.settle();
    world.assert_nothing_left();
}

#[test]
fn a_slow_disk_is_not_asked_for_the_next_batch_over_and_over() {
    let mut world = World::new();
    let subscriber = subscribed_durably(&mut world, 1);
    let peer = world.connect(&client("pub"));
    world.publish(peer, message(1, 1, "t", "m"));
    world.publish(peer, message(1, 2, "t", "n"));
    world.settle();
    world.got(subscriber);
    world.publish(peer, message(1, 3, "t", "o"));
    assert!(world.take());
    world.puback(subscriber, 1);
    world.jump(6_000);
    world.broker.tick(world.now);
    // The removals are overdue, but nothing can be done for them before the disk is free.
    assert!(world.broker.next_timeout() > world.now.uptime);
    world.durable();
    assert!(world.take());
}
