//! What is counted goes back to nothing, whichever way a message ends.

use super::*;
use crate::broker::state::timers::Timer;
use crate::broker::upkeep::end::{STEP, STEP_MS};

#[test]
fn a_session_that_ends_takes_its_queue_and_what_is_on_its_way_with_it() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(4)));
    world.subscribe(subscriber, "t", 2);
    let other = world.connect(&durable("other"));
    world.subscribe(other, "t", 1);
    let peer = world.connect(&durable("pub"));
    for id in 1..=20 {
        world.publish(peer, message(1 + (id % 2) as u8, id, "t", "m"));
    }
    world.settle();
    world.got(subscriber);
    world.pubrec(subscriber, 1);
    world.settle();
    assert!(
        world.broker.accounts.queued().bytes > 0 && world.broker.accounts.queued().hot_bytes > 0
    );
    world.leave_with(
        subscriber,
        ReasonCode::Success,
        &[Property::SessionExpiryInterval(0)],
    );
    world.lose(subscriber);
    assert_eq!(world.drain(other).len(), 20);
    for id in (1..=20).step_by(2) {
        world.pubrel(peer, id);
    }
    world.assert_nothing_left();
    assert_eq!(world.broker.gauges().queued_bytes, 0);
}

#[test]
fn a_large_queue_is_buried_bit_by_bit() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    world.lose(subscriber);
    let peer = world.connect(&publisher());
    for _ in 0..3 * STEP {
        world.publish(peer, message(1, 1, "t", "m"));
    }
    world.flush();
    world.got(peer);
    let subscriber = world.open(&durable("sub").clean());
    world.settle_disk();
    assert_eq!(world.got(subscriber), ["CONNACK Success"]);
    assert_eq!(
        world.broker.accounts.queued().bytes,
        0,
        "the queue is gone at once"
    );
    assert_eq!(world.disk.deliveries.len(), 3 * STEP, "its rows are not");
    world.writes();
    world.broker.tick(world.now);
    world.flush();
    assert_eq!(world.disk.deliveries.len(), 2 * STEP);
    world.jump(STEP_MS);
    world.broker.tick(world.now);
    world.flush();
    assert_eq!(world.disk.deliveries.len(), STEP);
    world.assert_nothing_left();
}

#[test]
fn a_crash_before_a_queue_is_buried_leaves_rows_that_belong_to_nothing() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    let keeper = world.connect(&durable("keeper"));
    world.subscribe(keeper, "t", 1);
    world.lose(subscriber);
    world.lose(keeper);
    let peer = world.connect(&publisher());
    for _ in 0..10 {
        world.publish(peer, message(1, 1, "t", "m"));
    }
    world.flush();
    world.connect(&durable("sub").clean());
    world.crash();
    let keeper = world.connect(&durable("keeper"));
    assert_eq!(world.drain(keeper).len(), 10);
    world.assert_nothing_left();
}

#[test]
fn expired_messages_are_swept_from_queues_nobody_reads() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "#", 1);
    let member = world.connect(&durable("member"));
    world.subscribe(member, "$share/g/t", 1);
    world.lose(subscriber);
    world.lose(member);
    let peer5 = world.connect(&client("pub5"));
    for number in 0..100 {
        let expiry = [Property::MessageExpiryInterval(5)];
        let expiry = if number % 10 == 0 {
            &[][..]
        } else {
            &expiry[..]
        };
        world.publish_with(peer5, message(1, 1, "t", &number.to_string()), expiry);
    }
    world.publish_with(
        peer5,
        retained(1, 1, "r", "m"),
        &[Property::MessageExpiryInterval(5)],
    );
    world.flush();
    assert_eq!(world.disk.messages.len(), 101);
    world.wait(7_000);
    assert_eq!(world.broker.gauges().queued, 20);
    assert_eq!(world.disk.messages.len(), 10);
    assert!(world.disk.retained.is_empty());
    assert_eq!(world.broker.gauges().retained_bytes, 0);
    assert_eq!(world.broker.counters().dropped_expired, 182);
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.drain(subscriber).len(), 10);
    let member = world.connect(&durable("member"));
    assert_eq!(world.drain(member).len(), 10);
    world.assert_nothing_left();
}

#[test]
fn the_sweep_comes_to_the_end_of_a_long_queue() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "t", 1);
    world.lose(subscriber);
    let peer = world.connect(&publisher());
    for _ in 0..25_000 {
        world.publish(peer, message(1, 1, "t", "m"));
    }
    let peer5 = world.connect(&client("pub5"));
    let expiry = [Property::MessageExpiryInterval(1)];
    world.publish_with(peer5, message(1, 1, "t", "m"), &expiry);
    world.flush();
    world.wait(5_000);
    assert_eq!(world.broker.counters().dropped_expired, 1);
}

#[test]
fn a_reconnecting_client_leaves_no_growing_heap_of_timers() {
    let mut world = World::new();
    for _ in 0..10_000 {
        let peer = world.connect(&client("a").with(Property::SessionExpiryInterval(3_600)));
        world.lose(peer);
        world.flush();
        world.wait(1_000);
    }
    // A connection's timers end with it, and a session has one.
    let timers = world.broker.timers.len();
    assert!(timers < 10, "{timers}");
}

/// Each connection leaves a will that is due soon; the session itself lives on for long.
#[test]
fn a_thousand_flaps_leave_one_timer_of_the_session() {
    let mut world = World::new();
    let flapping = client("a")
        .with(Property::SessionExpiryInterval(3_600))
        .will(0, "w", "gone")
        .will_with(Property::WillDelayInterval(2));
    for flap in 0..1_000 {
        let peer = world.connect(&flapping);
        world.lose(peer);
        world.settle();
        world.wait(if flap % 3 == 0 { 2_500 } else { 100 });
        let is_session = |timer: &Timer| matches!(timer, Timer::Session(..));
        let timers = world.broker.timers.count(is_session);
        // One that goes on; those set before it are passed over when they come, within a minute.
        assert!(timers <= 1, "flap {flap}: {timers}");
    }
    world.wait(61_000);
    let is_session = |timer: &Timer| matches!(timer, Timer::Session(..));
    assert_eq!(world.broker.timers.count(is_session), 1);
}

/// Its client comes and goes while retained messages are on their way to its queue.
#[test]
fn flaps_leave_one_timer_of_retained_messages() {
    let mut world = World::new();
    let publisher = world.connect(&publisher());
    for number in 0..3_000 {
        world.publish(publisher, retained(0, 0, &format!("r/{number}"), "m"));
    }
    let peer = world.connect(&durable("a").with(Property::ReceiveMaximum(1)));
    world.ask(peer, 1, &[("#", options(1))]);
    world.settle_disk();
    world.lose(peer);
    for _ in 0..100 {
        let peer = world.connect(&durable("a").with(Property::ReceiveMaximum(1)));
        world.lose(peer);
        let is_replay = |timer: &Timer| matches!(timer, Timer::Replay(..));
        assert!(world.broker.timers.count(is_replay) <= 1);
    }
}

#[test]
fn settled_means_all_is_durable() {
    let mut world = World::new();
    assert!(world.broker.is_settled());
    let peer = world.open(&durable("a"));
    assert!(!world.broker.is_settled());
    assert!(world.take());
    assert!(!world.broker.is_settled());
    world.durable();
    assert!(world.broker.is_settled());
    world.lose(peer);
    assert!(!world.broker.is_settled());
    world.flush();
    assert!(world.broker.is_settled());
}
