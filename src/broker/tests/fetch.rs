//! Bodies on disk: which are kept in memory, and what happens while one is being read.

use super::*;
use crate::broker::model::ids::SessionIndex;

/// A world with a durable subscriber that is away, for whom so many messages wait.
fn with_queue(count: usize, limits: Limits) -> (World, Peer) {
    let mut world = World::with(limited(limits));
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    world.lose(subscriber);
    let peer = world.connect(&publisher());
    for number in 0..count {
        world.publish(peer, message(1, 1, "t", &number.to_string()));
    }
    world.flush();
    world.got(peer);
    (world, peer)
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range
        .map(|number| format!("PUBLISH q1 t={number}"))
        .collect()
}

#[test]
fn a_queue_of_a_client_that_is_away_is_on_disk_only() {
    let (mut world, peer) = with_queue(100, Limits::default());
    assert_eq!(world.broker.accounts.queued().hot_bytes, 0);
    let queue = &world.broker.sessions[SessionIndex(0)].queue;
    assert!((0..100).all(|at| queue.get(at).is_some_and(|item| item.body.is_none())));
    assert_eq!(world.broker.gauges().queued, 100);
    let _ = peer;
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.drain(subscriber), numbers(0..100));
    assert_eq!(world.broker.counters().bodies_fetched, 100);
    world.assert_nothing_left();
}

#[test]
fn a_queue_of_a_connected_client_is_in_memory_within_the_budget() {
    let mut world = World::with(limited(Limits {
        max_hot_bytes: 100,
        ..Limits::default()
    }));
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(1)));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&publisher());
    let payload = "x".repeat(19); // 20 bytes with the topic
    for _ in 0..11 {
        world.publish(peer, message(1, 1, "t", &payload));
    }
    world.settle();
    assert_eq!(world.broker.accounts.queued().hot_bytes, 100);
    assert_eq!(world.broker.accounts.queued().bytes, 200);
    world.lose(subscriber);
    assert_eq!(world.broker.accounts.queued().hot_bytes, 0);
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.drain(subscriber).len(), 11);
    world.assert_nothing_left();
}

#[test]
fn a_message_that_is_not_on_disk_yet_is_waited_for() {
    let (mut world, peer) = with_queue(0, Limits::default());
    world.publish(peer, message(1, 1, "t", "m"));
    assert!(world.take());
    let subscriber = world.open(&durable("sub"));
    assert_eq!(world.got(subscriber), [""; 0]);
    assert!(
        world.broker.take_fetches().is_empty(),
        "there is nothing to read"
    );
    world.durable();
    assert_eq!(world.drain(subscriber), ["PUBLISH q1 t=m"]);
    world.assert_nothing_left();
}

#[test]
fn a_read_that_is_answered_after_the_client_is_gone_leaves_nothing_in_memory() {
    let (mut world, _) = with_queue(5, Limits::default());
    let subscriber = world.connect(&durable("sub"));
    world.got(subscriber);
    world.take_fetches();
    assert_eq!(world.fetches.len(), 1);
    world.lose(subscriber);
    world.answer_fetches();
    assert_eq!(world.broker.accounts.queued().hot_bytes, 0);
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.drain(subscriber), numbers(0..5));
    world.assert_nothing_left();
}

#[test]
fn a_read_that_is_answered_after_a_reconnection_serves_the_new_connection() {
    let (mut world, _) = with_queue(5, Limits::default());
    let subscriber = world.connect(&durable("sub"));
    world.got(subscriber);
    world.take_fetches();
    world.lose(subscriber);
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.got(subscriber), [""; 0]);
    world.answer_fetches();
    assert_eq!(world.got(subscriber).len(), 5);
    assert_eq!(world.broker.counters().bodies_fetched, 5, "read once");
}

#[test]
fn a_read_that_is_answered_after_the_session_is_gone_is_ignored() {
    let (mut world, _) = with_queue(5, Limits::default());
    let subscriber = world.connect(&durable("sub"));
    world.got(subscriber);
    world.take_fetches();
    world.lose(subscriber);
    let subscriber = world.connect(&durable("sub").clean());
    world.answer_fetches();
    assert_eq!(world.got(subscriber), [""; 0]);
    world.assert_nothing_left();
}

#[test]
fn a_message_that_expires_while_it_is_read_is_not_sent() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 2);
    world.lose(subscriber);
    let peer = world.connect(&client("pub"));
    let expiry = [Property::MessageExpiryInterval(10)];
    world.publish_with(peer, message(1, 1, "t", "old"), &expiry);
    world.publish(peer, message(2, 2, "t", "new"));
    world.pubrel(peer, 2);
    world.flush();
    let subscriber = world.connect(&durable("sub"));
    world.jump(9_999);
    world.got(subscriber);
    world.take_fetches();
    world.jump(1);
    world.answer_fetches();
    assert_eq!(world.drain(subscriber), ["PUBLISH q2 t=new"]);
    assert_eq!(world.broker.counters().dropped_expired, 1);
    world.assert_nothing_left();
}

#[test]
fn what_is_left_of_the_expiry_interval_is_sent() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&client("pub"));
    let expiry = [Property::MessageExpiryInterval(10)];
    world.publish_with(peer, message(0, 0, "t", "m"), &expiry);
    assert_eq!(world.got(subscriber), ["PUBLISH t=m expiry 10"]);
    world.lose(subscriber);
    world.publish_with(peer, message(1, 1, "t", "m"), &expiry);
    world.flush();
    world.jump(6_000);
    let subscriber = world.connect(&durable("sub"));
    // [MQTT-3.3.2-6]
    assert_eq!(world.drain(subscriber), ["PUBLISH q1 t=m expiry 4"]);
}

#[test]
fn a_message_whose_body_is_missing_is_given_up_and_the_others_go_on() {
    let (mut world, _) = with_queue(5, Limits::default());
    world.disk.messages.remove(&3);
    let subscriber = world.connect(&durable("sub"));
    let mut expected = numbers(0..5);
    expected.remove(2);
    assert_eq!(world.drain(subscriber), expected);
    world.disk.messages.remove(&3);
    world.assert_nothing_left();
}

#[test]
fn a_message_to_be_sent_again_whose_body_is_missing_is_given_up() {
    let (mut world, _) = with_queue(3, Limits::default());
    let subscriber = world.connect(&durable("sub"));
    world.got(subscriber);
    world.settle();
    assert_eq!(world.got(subscriber).len(), 3);
    world.lose(subscriber);
    world.disk.messages.remove(&2);
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(
        world.drain(subscriber),
        ["PUBLISH q1 dup t=0", "PUBLISH q1 dup t=2"]
    );
    world.assert_nothing_left();
}

#[test]
fn bodies_to_be_sent_again_are_read_from_the_store_and_only_by_the_present_connection() {
    let (mut world, _) = with_queue(3, Limits::default());
    let subscriber = world.connect(&durable("sub"));
    world.got(subscriber);
    world.settle();
    world.got(subscriber);
    world.lose(subscriber);
    let subscriber = world.connect(&durable("sub"));
    world.got(subscriber);
    world.take_fetches();
    world.lose(subscriber);
    let subscriber = world.connect(&durable("sub"));
    world.answer_fetches(); // For the connection that is gone.
    assert_eq!(world.got(subscriber), [""; 0]);
    assert_eq!(world.drain(subscriber).len(), 3);
    world.assert_nothing_left();
}

#[test]
fn a_long_queue_is_read_in_pieces_and_ahead() {
    let (mut world, peer) = with_queue(3_000, Limits::default());
    let subscriber = world.connect(&durable("sub"));
    world.got(subscriber);
    world.take_fetches();
    assert_eq!(world.fetches.len(), 1);
    assert_eq!(world.fetches[0].bodies.len(), 512);
    assert!(world.fetches[0].bodies.is_sorted());
    for number in 3_000..3_010 {
        world.publish(peer, message(1, 1, "t", &number.to_string()));
    }
    assert_eq!(world.drain(subscriber), numbers(0..3_010));
    assert_eq!(world.broker.counters().bodies_fetched, 3_010, "each once");
    world.assert_nothing_left();
}

#[test]
fn large_bodies_are_read_few_at_a_time() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    world.lose(subscriber);
    let peer = world.connect(&publisher());
    let payload = "x".repeat(200_000);
    for _ in 0..10 {
        world.publish(peer, message(1, 1, "t", &payload));
    }
    world.flush();
    let subscriber = world.connect(&durable("sub"));
    world.got(subscriber);
    world.take_fetches();
    assert_eq!(world.fetches[0].bodies.len(), 2);
    assert_eq!(world.drain(subscriber).len(), 10);
    world.assert_nothing_left();
}

#[test]
fn a_message_larger_than_the_budget_is_read_alone() {
    let (mut world, peer) = with_queue(
        0,
        Limits {
            max_hot_bytes: 10,
            ..Limits::default()
        },
    );
    let payload = "x".repeat(600_000);
    world.publish(peer, message(1, 1, "t", &payload));
    world.publish(peer, message(1, 1, "t", &payload));
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.drain(subscriber).len(), 2);
    world.assert_nothing_left();
}

#[test]
fn a_message_kept_in_memory_only_waits_with_its_body() {
    let mut world = World::new();
    let subscriber = world.connect(&client("sub").with(Property::ReceiveMaximum(1)));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&publisher());
    for payload in ["a", "b", "c"] {
        world.publish(peer, message(1, 1, "t", payload));
    }
    assert_eq!(world.broker.accounts.queued().hot_bytes, 4);
    assert_eq!(world.broker.accounts.queued().bytes, 4);
    assert_eq!(world.drain(subscriber).len(), 3);
    world.assert_nothing_left();
}

#[test]
fn what_is_in_memory_only_has_a_limit_and_what_is_on_disk_has_not() {
    let mut world = World::with(limited(Limits {
        max_queued_memory_bytes: 4,
        ..Limits::default()
    }));
    let slow = world.connect(&client("slow").with(Property::ReceiveMaximum(1)));
    world.subscribe(slow, "t", 1);
    let keeper = world.connect(&durable("keeper").with(Property::ReceiveMaximum(1)));
    world.subscribe(keeper, "t", 1);
    let peer = world.connect(&publisher());
    for payload in ["a", "b", "c", "d"] {
        world.publish(peer, message(1, 1, "t", payload));
    }
    assert!(world.broker.counters().dropped_queue_full > 0);
    assert!(world.drain(slow).len() < 4);
    assert_eq!(world.drain(keeper).len(), 4);
    world.assert_nothing_left();
}
