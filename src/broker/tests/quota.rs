//! Quotas: who sends too fast is read more slowly, who is sent too much waits, and nobody has too
//! many connections.

use super::*;

fn world(change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = Limits::default();
    change(&mut limits);
    World::with(limited(limits))
}

fn is_paused(world: &mut World, peer: Peer) -> bool {
    world.broker.should_pause(peer.id)
}

/// Whether the broker has something for the driver to do with a connection.
fn is_touched(world: &mut World, peer: Peer) -> bool {
    let mut touched = Vec::new();
    world.broker.take_touched(&mut touched);
    touched.contains(&peer.id)
}

#[test]
fn a_client_that_publishes_too_fast_is_not_read_from_until_it_is_level() {
    let mut world = world(|limits| limits.max_message_rate_in = 10);
    world.jump(100_000);
    let peer = world.connect(&publisher());
    let heir = world.connect(&client("heir"));
    world.subscribe(heir, "t", 1);
    // A second's worth at once.
    for n in 0..10 {
        assert!(!is_paused(&mut world, peer), "{n}");
        world.publish(peer, message(1, 1, "t", "x"));
    }
    assert!(is_paused(&mut world, peer));
    // What has been read already is taken: nothing is lost.
    for _ in 0..5 {
        world.publish(peer, message(1, 1, "t", "x"));
    }
    assert!(is_paused(&mut world, peer));
    assert!(!is_paused(&mut world, heir));
    assert_eq!(world.all(peer).len(), 15);
    assert_eq!(world.drain(heir).len(), 15);
    is_touched(&mut world, peer);
    world.wait(599);
    assert!(is_paused(&mut world, peer));
    assert!(!is_touched(&mut world, peer));
    world.wait(1);
    assert!(is_touched(&mut world, peer));
    assert!(!is_paused(&mut world, peer));
    assert!(world.broker.counters().slowed_down > 0);
}

#[test]
fn over_time_a_client_gets_its_rate_and_no_more() {
    let mut world = world(|limits| limits.max_message_rate_in = 20);
    world.jump(100_000);
    let peer = world.connect(&publisher());
    let mut taken = 0;
    for _ in 0..1000 {
        while taken < 1000 && !is_paused(&mut world, peer) {
            world.publish(peer, message(0, 0, "t", "x"));
            taken += 1;
        }
        world.wait(10);
    }
    assert!((200..=222).contains(&taken), "{taken} in ten seconds");
}

#[test]
fn bytes_count_as_messages_do() {
    let mut world = world(|limits| limits.max_byte_rate_in = 1000);
    world.jump(100_000);
    let peer = world.connect(&publisher());
    world.publish(peer, message(0, 0, "t", &"x".repeat(999)));
    assert!(!is_paused(&mut world, peer));
    world.publish(peer, message(0, 0, "t", &"x".repeat(1999)));
    assert!(is_paused(&mut world, peer));
    world.wait(1999);
    assert!(is_paused(&mut world, peer));
    world.wait(1);
    assert!(!is_paused(&mut world, peer));
}

#[test]
fn a_client_that_is_not_read_from_is_not_taken_for_lost() {
    let mut world = world(|limits| limits.max_message_rate_in = 1);
    let peer = world.connect(&publisher().keep_alive(2));
    for _ in 0..10 {
        world.publish(peer, message(0, 0, "t", "x"));
    }
    world.wait(8000);
    assert!(!world.closes(peer));
    world.wait(6000);
    assert!(world.closes(peer));
}

#[test]
fn what_a_client_may_not_have_yet_waits_and_only_qos_0_is_dropped() {
    let mut world = world(|limits| limits.max_message_rate_out = 2);
    world.jump(100_000);
    let slow = world.connect(&client("slow"));
    world.subscribe(slow, "t", 1);
    let peer = world.connect(&publisher());
    for n in 0..6 {
        world.publish(peer, message(1, 1, "t", &n.to_string()));
    }
    world.publish(peer, message(0, 0, "t", "lost"));
    assert_eq!(world.drain(slow), ["PUBLISH q1 t=0", "PUBLISH q1 t=1"]);
    assert_eq!(world.broker.counters().dropped_quota, 1);
    let mut got = Vec::new();
    for _ in 0..4 {
        world.wait(500);
        got.push(world.drain(slow).len());
    }
    assert_eq!(got, [1, 1, 1, 1]);
    world.assert_nothing_left();
}

#[test]
fn bytes_sent_count_as_well() {
    let mut world = world(|limits| limits.max_byte_rate_out = 100);
    world.jump(100_000);
    let slow = world.connect(&client("slow"));
    world.subscribe(slow, "t", 1);
    let peer = world.connect(&publisher());
    for _ in 0..3 {
        world.publish(peer, message(1, 1, "t", &"x".repeat(199)));
    }
    assert_eq!(world.drain(slow).len(), 1);
    world.wait(999);
    assert_eq!(world.drain(slow).len(), 0);
    world.wait(1);
    assert_eq!(world.drain(slow).len(), 1);
}

#[test]
fn a_member_of_a_group_that_has_had_enough_is_passed_over() {
    let mut world = world(|limits| limits.max_message_rate_out = 3);
    world.jump(100_000);
    let members = ["a", "b"].map(|id| {
        let peer = world.connect(&client(id));
        world.subscribe(peer, "$share/g/t", 0);
        peer
    });
    let peer = world.connect(&publisher());
    for _ in 0..6 {
        world.publish(peer, message(0, 0, "t", "x"));
    }
    assert_eq!(members.map(|peer| world.got(peer).len()), [3, 3]);
    assert_eq!(world.broker.counters().dropped_quota, 0);
}

#[test]
fn new_limits_hold_at_once() {
    let mut world = world(|limits| limits.max_message_rate_in = 1);
    let peer = world.connect(&publisher());
    for _ in 0..1000 {
        world.publish(peer, message(0, 0, "t", "x"));
    }
    assert!(is_paused(&mut world, peer));
    is_touched(&mut world, peer);
    world.broker.set_limits(Limits::default(), world.now);
    assert!(is_touched(&mut world, peer));
    assert!(!is_paused(&mut world, peer));
}

#[test]
fn a_user_has_no_more_connections_than_allowed() {
    let mut world = world(|limits| limits.max_connections_per_user = 2);
    world.arrival = user("alice");
    let first = world.connect(&client("1"));
    let second = world.connect(&durable("2"));
    let third = world.open(&client("3"));
    assert_eq!(world.got(third), ["CONNACK QuotaExceeded"]);
    world.lose(third);
    // The same client again takes the place it has.
    let again = world.connect(&durable("2"));
    world.lose(second);
    // Others have places of their own.
    world.arrival = user("bob");
    world.connect(&client("b"));
    world.arrival = anonymous();
    for id in ["x", "y", "z"] {
        world.connect(&client(id));
    }
    world.arrival = user("alice");
    world.leave(first);
    world.connect(&client("3"));
    world.lose(again);
    world.connect(&client("4"));
    let fifth = world.open(&client("5"));
    assert_eq!(world.got(fifth), ["CONNACK QuotaExceeded"]);
}

#[test]
fn an_address_has_no_more_connections_than_allowed() {
    let mut world = world(|limits| limits.max_connections_per_address = 2);
    let from = |text: &str| {
        let mut arrival = anonymous();
        arrival.peer.address = Some(text.parse().expect("an address"));
        arrival
    };
    let now = world.now;
    let mut accept = |text: &str| world.broker.accept(from(text), now);
    let first = accept("192.0.2.1:1").expect("room");
    assert!(accept("192.0.2.1:2").is_some());
    assert!(accept("192.0.2.1:3").is_none());
    assert!(accept("[::ffff:192.0.2.1]:3").is_none());
    assert!(accept("192.0.2.2:1").is_some());
    world.broker.lost(first, now);
    assert!(world.broker.accept(from("192.0.2.1:4"), now).is_some());
    for _ in 0..3 {
        assert!(world.broker.accept(anonymous(), now).is_some());
    }
    assert_eq!(world.broker.counters().connections_refused, 2);
}
