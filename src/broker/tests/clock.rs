//! What expires, whatever the wall clock shows.

use super::*;
use crate::clock::{READING_MS, Reading};

const DAY: u64 = 86_400_000;
const TODAY: u64 = 1_780_000_000_000;

/// A process ends and another one begins; the wall clock shows this then.
fn restart(world: &mut World, wall: u64) {
    let (unix, _) = Reading::resume(world.disk.clock, wall);
    world.now.unix = unix;
    world.crash();
    world.broker.set_wall(wall, world.now);
    // Nobody waits for it.
    world.wait(200);
}

/// A broker whose first start finds the wall clock like this.
fn started(wall: u64) -> World {
    let mut world = World::new();
    restart(&mut world, wall);
    assert_eq!(world.now.unix, wall + 200);
    world
}

/// Gives a session with a day to live a message with a day to live, and goes.
fn leave_a_message(world: &mut World) {
    let day = (DAY / 1000) as u32;
    let sub = client("sub").with(Property::SessionExpiryInterval(day));
    let sub = world.connect(&sub);
    world.subscribe(sub, "t", 1);
    world.lose(sub);
    let peer = world.connect(&publisher());
    let expiry = block(&[Property::MessageExpiryInterval(day)]);
    let publish = Publish {
        properties: expiry.as_properties(),
        ..message(1, 1, "t", "m")
    };
    world.publish(peer, publish);
    world.flush();
}

/// What the session has when its client comes back.
fn come_back(world: &mut World) -> usize {
    world.wait(1);
    let sub = world.connect(&durable("sub"));
    world.drain(sub).len()
}

#[test]
fn a_clock_that_was_in_1970_costs_nothing_when_it_is_right_at_the_next_start() {
    for first in [0, 20_000, TODAY - 3 * 365 * DAY, TODAY + 20 * 365 * DAY] {
        let mut world = started(first);
        leave_a_message(&mut world);
        restart(&mut world, TODAY);
        assert_eq!(come_back(&mut world), 1, "it was {first}");
        // And the clock is good from then on.
        let mut world = started(first);
        leave_a_message(&mut world);
        restart(&mut world, TODAY);
        restart(&mut world, TODAY + 2 * DAY);
        assert_eq!(come_back(&mut world), 0, "it was {first}");
    }
}

#[test]
fn a_clock_that_is_set_while_the_broker_runs_costs_nothing_at_the_next_start() {
    for first in [20_000, TODAY - DAY / 8, TODAY + DAY / 8, TODAY + 9000 * DAY] {
        let mut world = started(first);
        leave_a_message(&mut world);
        world.wait(5000);
        world.broker.set_wall(TODAY, world.now);
        // Nobody waits for that it is stored: it is all the same.
        world.wait(1000);
        restart(&mut world, TODAY + DAY / 2);
        assert_eq!(come_back(&mut world), 1, "it was {first}");
        world = started(first);
        leave_a_message(&mut world);
        world.broker.set_wall(TODAY, world.now);
        world.wait(1000);
        restart(&mut world, TODAY + 2 * DAY);
        assert_eq!(come_back(&mut world), 0, "it was {first}");
    }
}

#[test]
fn with_a_good_clock_a_stop_counts_and_with_a_wrong_one_it_does_not() {
    let mut world = started(TODAY);
    leave_a_message(&mut world);
    restart(&mut world, TODAY + DAY / 2);
    restart(&mut world, TODAY + 20 * 365 * DAY);
    restart(&mut world, TODAY);
    assert_eq!(come_back(&mut world), 1);
    let mut world = started(TODAY);
    leave_a_message(&mut world);
    restart(&mut world, TODAY + DAY + 1000);
    assert_eq!(come_back(&mut world), 0);
}

#[test]
fn never_more_remains_than_was_asked_for() {
    for (first, then) in [(TODAY + 9000 * DAY, TODAY), (TODAY, 0)] {
        let mut world = started(first);
        world.wait(60_000);
        let sub = client("sub").with(Property::SessionExpiryInterval(2));
        let sub = world.connect(
            &sub.will(1, "w", "gone")
                .will_with(Property::WillDelayInterval(1)),
        );
        world.subscribe(sub, "t", 1);
        let watch = world.connect(&durable("watch"));
        world.subscribe(watch, "w", 1);
        world.lose(sub);
        world.flush();
        restart(&mut world, then);
        world.wait(2500);
        assert_eq!(world.broker.sessions.len(), 1);
        let watch = world.connect(&durable("watch"));
        assert_eq!(world.drain(watch).len(), 1);
    }
}

#[test]
fn a_store_without_readings_has_its_waits_limited() {
    let mut world = World::new();
    world.now.unix = TODAY + 9000 * DAY;
    let sub = client("sub").with(Property::SessionExpiryInterval(2));
    let sub = world.connect(
        &sub.will(1, "w", "gone")
            .will_with(Property::WillDelayInterval(1)),
    );
    world.subscribe(sub, "t", 1);
    world.lose(sub);
    world.flush();
    assert_eq!(world.disk.clock, None);
    restart(&mut world, TODAY);
    world.wait(2500);
    assert_eq!(world.broker.sessions.len(), 0);
}

#[test]
fn readings_go_with_batches_that_are_written_anyway_and_not_with_each() {
    let mut world = started(TODAY);
    world.flush();
    world.writes();
    let peer = world.connect(&durable("pub"));
    world.subscribe(peer, "t", 1);
    let mut batches = 0;
    for id in 1..=100 {
        world.publish(peer, message(1, id, "t", "m"));
        world.wait(1000);
        world.broker.set_wall(TODAY + world.now.uptime, world.now);
        world.settle();
        batches += 1;
    }
    let writes = world.writes();
    let readings = writes.iter().filter(|it| it.starts_with("PutClock"));
    let most = batches * 1000 / READING_MS as usize + 1;
    let count = readings.count();
    assert!((most / 2..=most).contains(&count), "{count} of {batches}");
    // While nothing is written, the clock is not either.
    world.drain(peer);
    world.flush();
    world.writes();
    for _ in 0..100 {
        world.wait(1000);
        world.broker.set_wall(TODAY + world.now.uptime, world.now);
    }
    assert_eq!(world.writes(), [""; 0]);
}

/// A stop asks for it over and over until everything is durable: what nobody waits for goes with
/// it, and once all is durable it adds nothing.
#[test]
fn hurrying_comes_to_an_end_though_the_clocks_go_on() {
    let mut world = started(TODAY);
    leave_a_message(&mut world);
    let sub = world.connect(&durable("sub"));
    assert_eq!(world.drain(sub).len(), 1);
    world.settle();
    assert!(!world.broker.is_settled(), "a removal nobody waits for");
    assert!(!world.take(), "it waits for others");
    world.writes();
    world.broker.hurry();
    assert!(world.take(), "it waits no longer");
    assert!(!world.broker.is_settled(), "it is not durable");
    world.written();
    world.broker.hurry();
    world.durable();
    let writes = world.writes();
    assert!(
        writes.iter().any(|it| it.starts_with("Remove")),
        "{writes:?}"
    );
    for _ in 0..10 {
        world.jump(1_000);
        world.broker.hurry();
        assert!(!world.take(), "nothing was written");
        assert!(world.broker.is_settled());
    }
    // Whereas a flush has what the clocks show.
    world.broker.flush();
    assert!(world.take());
    assert!(world.writes()[0].starts_with("PutClock"));
}
