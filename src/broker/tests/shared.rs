//! Shared subscriptions whose members are on no disk (MQTT 5 section 4.8.2).

use super::*;

const SHARED: &str = "$share/g/t";

fn member(world: &mut World, client: &Client, qos: u8) -> Peer {
    let peer = world.connect(client);
    world.subscribe(peer, SHARED, qos);
    peer
}

/// Publishes the numbers in a range at QoS 1, as `t`.
fn publish_numbers(world: &mut World, peer: Peer, range: std::ops::Range<usize>) {
    for number in range {
        world.publish(peer, message(1, 1, "t", &number.to_string()));
    }
    world.settle();
    world.got(peer);
}

#[test]
fn members_take_turns() {
    let mut world = World::new();
    let members = ["a", "b", "c"].map(|id| member(&mut world, &client(id), 1));
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 0..6);
    for (at, peer) in members.iter().enumerate() {
        let (first, second) = (
            format!("PUBLISH #1 q1 t={at}"),
            format!("PUBLISH #2 q1 t={}", at + 3),
        );
        assert_eq!(world.got(*peer), [first, second]);
    }
    // QoS 0 likewise.
    for payload in ["x", "y", "z"] {
        world.publish(peer, message(0, 0, "t", payload));
    }
    let got = members.map(|peer| world.got(peer).concat());
    assert_eq!(got, ["PUBLISH t=x", "PUBLISH t=y", "PUBLISH t=z"]);
}

#[test]
fn a_member_with_a_full_window_is_passed_over() {
    let mut world = World::new();
    let slow = member(
        &mut world,
        &client("a").with(Property::ReceiveMaximum(1)),
        1,
    );
    let fast = member(&mut world, &client("b"), 1);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 0..5);
    assert_eq!(world.got(slow), ["PUBLISH #1 q1 t=0"]);
    assert_eq!(world.got(fast).len(), 4);
    assert_eq!(world.broker.gauges().queued, 0);
}

#[test]
fn what_no_member_can_take_waits_in_the_group_for_the_first_that_can() {
    let mut world = World::new();
    let one = client("a").with(Property::ReceiveMaximum(1));
    let a = member(&mut world, &one, 1);
    let b = member(
        &mut world,
        &client("b").with(Property::ReceiveMaximum(1)),
        1,
    );
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 0..5);
    assert_eq!(world.got(a), ["PUBLISH #1 q1 t=0"]);
    assert_eq!(world.got(b), ["PUBLISH #1 q1 t=1"]);
    assert_eq!(world.broker.gauges().queued, 3);
    world.puback(b, 1);
    assert_eq!(world.got(b), ["PUBLISH #2 q1 t=2"]);
    assert_eq!(world.got(a), [""; 0]);
    world.puback(a, 1);
    assert_eq!(world.drain(a), ["PUBLISH q1 t=3", "PUBLISH q1 t=4"]);
    world.puback(b, 2);
    world.assert_nothing_left();
}

#[test]
fn qos_0_goes_to_a_member_that_is_there_even_while_others_wait() {
    let mut world = World::new();
    let a = member(
        &mut world,
        &client("a").with(Property::ReceiveMaximum(1)),
        1,
    );
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 0..2);
    world.publish(peer, message(0, 0, "t", "now"));
    assert_eq!(world.got(a), ["PUBLISH #1 q1 t=0", "PUBLISH t=now"]);
}

#[test]
fn what_a_member_that_ends_has_not_acknowledged_goes_to_the_others_in_order() {
    let mut world = World::new();
    let a = member(&mut world, &client("a"), 1);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 0..3);
    assert_eq!(world.got(a).len(), 3);
    world.puback(a, 2);
    let b = member(&mut world, &client("b"), 1);
    world.lose(a);
    assert_eq!(world.drain(b), ["PUBLISH q1 t=0", "PUBLISH q1 t=2"]);
    publish_numbers(&mut world, peer, 3..4);
    assert_eq!(world.drain(b), ["PUBLISH q1 t=3"]);
    world.assert_nothing_left();
}

#[test]
fn a_qos_2_message_of_a_member_that_ends_goes_to_nobody_else() {
    let mut world = World::new();
    let a = member(&mut world, &client("a"), 2);
    let b = member(&mut world, &client("b"), 2);
    let peer = world.connect(&publisher());
    for id in 1..=4 {
        world.publish(peer, message(2, id, "t", "m"));
        world.pubrel(peer, id);
    }
    assert_eq!(world.got(a).len(), 2);
    world.pubrec(a, 1);
    world.lose(a);
    // [MQTT-4.8.2-5]
    assert_eq!(world.drain(b).len(), 2);
    assert_eq!(world.broker.counters().dropped_shared_incomplete, 1);
    world.assert_nothing_left();
}

#[test]
fn the_last_member_that_leaves_ends_the_group_and_its_queue() {
    let mut world = World::new();
    let a = member(
        &mut world,
        &client("a").with(Property::ReceiveMaximum(1)),
        1,
    );
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 0..3);
    world.lose(a);
    assert_eq!(world.broker.groups.len(), 0);
    world.publish(peer, message(1, 1, "t", "m"));
    world.assert_nothing_left();
    let b = member(&mut world, &client("b"), 1);
    assert_eq!(world.all(b), [""; 0]);
}

#[test]
fn a_member_that_unsubscribes_is_sent_nothing_more_and_completes_what_it_was_sent() {
    let mut world = World::new();
    let a = member(&mut world, &client("a"), 1);
    let b = member(&mut world, &client("b"), 1);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 0..2);
    assert_eq!(world.got(a), ["PUBLISH #1 q1 t=0"]);
    assert_eq!(world.got(b), ["PUBLISH #1 q1 t=1"]);
    world.unsubscribe(a, SHARED);
    assert_eq!(world.got(a), ["UNSUBACK [Success]"]);
    // [MQTT-3.10.4-3]: its delivery has started, and it will be acknowledged.
    assert_eq!(world.all(b), [""; 0]);
    world.puback(a, 1);
    publish_numbers(&mut world, peer, 2..4);
    assert_eq!(world.all(a), [""; 0]);
    assert_eq!(world.all(b).len(), 2);
}

#[test]
fn a_taken_over_member_keeps_its_place() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 1);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 0..1);
    world.got(a);
    let again = world.connect(&durable("a"));
    assert_eq!(world.all(again), ["PUBLISH #1 q1 dup t=0"]);
    assert_eq!(world.got(a), ["DISCONNECT SessionTakenOver"]);
    world.puback(again, 1);
    publish_numbers(&mut world, peer, 1..2);
    assert_eq!(world.drain(again), ["PUBLISH q1 t=1"]);
    world.assert_nothing_left();
}

#[test]
fn members_get_the_qos_retain_flag_and_identifier_they_asked_for() {
    let mut world = World::new();
    let low = world.connect(&client("a"));
    world.subscribe_as(low, SHARED, options(0), 5);
    let high = world.connect(&client("b"));
    let published = SubscribeOptions {
        retain_as_published: true,
        ..options(2)
    };
    world.subscribe_as(high, SHARED, published, 6);
    let peer = world.connect(&publisher());
    world.publish(peer, retained(2, 1, "t", "m"));
    world.publish(peer, retained(2, 2, "t", "n"));
    world.settle();
    assert_eq!(world.got(low), ["PUBLISH t=m id 5"]);
    assert_eq!(world.got(high), ["PUBLISH #1 q2 retain t=n id 6"]);
}

#[test]
fn a_message_taken_back_goes_out_as_it_was_published() {
    let mut world = World::new();
    let low = world.connect(&client("a"));
    world.subscribe_as(low, SHARED, options(1), 5);
    let peer = world.connect(&publisher());
    world.publish(peer, message(2, 1, "t", "m"));
    assert_eq!(world.got(low), ["PUBLISH #1 q1 t=m id 5"]);
    let high = world.connect(&client("b"));
    world.subscribe_as(high, SHARED, options(2), 6);
    world.lose(low);
    assert_eq!(world.got(high), ["PUBLISH #1 q2 t=m id 6"]);
}

#[test]
fn joining_twice_changes_the_options_only() {
    let mut world = World::new();
    let a = member(&mut world, &client("a"), 1);
    assert_eq!(world.subscribe(a, SHARED, 2), ["SUBACK [GrantedQos2]"]);
    let peer = world.connect(&publisher());
    world.publish(peer, message(2, 1, "t", "m"));
    assert_eq!(world.got(a), ["PUBLISH #1 q2 t=m"]);
    assert_eq!(world.broker.gauges().subscriptions, 1);
}

#[test]
fn two_groups_and_a_plain_subscription_each_get_a_copy() {
    let mut world = World::new();
    let a = world.connect(&client("a"));
    world.subscribe(a, "$share/one/t", 1);
    world.subscribe(a, "$share/two/+", 1);
    world.subscribe(a, "t", 1);
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", "m"));
    assert_eq!(world.got(a).len(), 3);
}

#[test]
fn the_groups_queue_has_the_limits_of_a_sessions() {
    let mut world = World::with(limited(Limits {
        max_queued_messages: 2,
        ..Limits::default()
    }));
    let a = member(
        &mut world,
        &client("a").with(Property::ReceiveMaximum(1)),
        1,
    );
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 0..5);
    assert_eq!(world.broker.counters().dropped_queue_full, 2);
    assert_eq!(
        world.drain(a),
        ["PUBLISH q1 t=0", "PUBLISH q1 t=1", "PUBLISH q1 t=2"]
    );
    world.assert_nothing_left();
}
