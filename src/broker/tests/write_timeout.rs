//! How long clients and upstreams are waited for.

use super::bridge::{Bridged, rule, upstream};
use super::*;
use crate::broker::bridge::{Direction, Leave, Upstream};

/// Waits so long, and answers each time when it is asked whether the peer has taken something:
/// `moved`.
fn wait_looking(world: &mut World, peer: Peer, ms: u64, moved: bool) {
    for _ in 0..ms / 250 {
        world.wait(250);
        let mut out = Vec::new();
        if world
            .broker
            .take_output(peer.id, &mut out, world.now)
            .ask_progress
        {
            world.broker.progress(peer.id, true, moved, world.now);
        }
    }
}

fn watcher(world: &mut World) -> Peer {
    let watcher = world.connect(&client("watcher"));
    world.subscribe(watcher, "w", 0);
    watcher
}

#[test]
fn parts_of_a_packet_are_a_sign_of_life() {
    let mut world = World::new();
    let peer = world.connect(&client("a").keep_alive(2));
    for _ in 0..10 {
        world.wait(2_999);
        world.broker.heard(peer.id, world.now);
    }
    world.wait(2_999);
    assert!(!world.closes(peer));
    world.wait(1);
    assert!(world.closes(peer));
    assert_eq!(world.broker.counters().keep_alive_timeouts, 1);
}

#[test]
fn a_client_that_takes_nothing_is_closed_after_one_and_a_half_times_its_keep_alive() {
    // Within a quarter of that it is looked for the first time.
    for (keep_alive, timeout) in [(10, 15_000), (0, 60_000)] {
        let mut world = World::new();
        let watcher = watcher(&mut world);
        let stuck = client("stuck").keep_alive(keep_alive).will(0, "w", "gone");
        let stuck = world.connect(&stuck);
        world.subscribe(stuck, "t", 0);
        let publisher = world.connect(&publisher());
        world.publish(publisher, message(0, 0, "t", "x"));
        assert_eq!(world.got(stuck), ["PUBLISH t=x"]);
        // It takes something now and then, and sends its PINGREQs.
        for _ in 0..10 {
            wait_looking(&mut world, stuck, timeout / 2, false);
            world.ping(stuck);
            wait_looking(&mut world, stuck, timeout / 4 + 500, true);
            world.ping(stuck);
        }
        wait_looking(&mut world, stuck, timeout / 2, false);
        world.ping(stuck);
        assert!(!world.closes(stuck));
        assert_eq!(world.got(watcher), [""; 0]);
        wait_looking(&mut world, stuck, timeout * 3 / 4, false);
        assert!(world.closes(stuck));
        assert_eq!(world.got(watcher), ["PUBLISH w=gone"]);
        let counters = world.broker.counters();
        assert_eq!(
            (counters.write_timeouts, counters.keep_alive_timeouts),
            (1, 0)
        );
    }
}

#[test]
fn a_client_is_looked_at_only_while_it_may_have_something_to_take() {
    let mut world = World::new();
    let peer = world.connect(&client("a").version(ProtocolVersion::V311));
    world.ping(peer);
    world.got(peer);
    let look = |world: &mut World| {
        let mut out = Vec::new();
        world
            .broker
            .take_output(peer.id, &mut out, world.now)
            .ask_progress
    };
    assert!(!look(&mut world));
    world.wait(15_000);
    assert!(look(&mut world));
    let mut touched = Vec::new();
    world.broker.take_touched(&mut touched);
    assert!(touched.contains(&peer.id), "its task is told");
    world.broker.progress(peer.id, false, true, world.now);
    world.wait(600_000);
    assert!(!look(&mut world), "it has taken all");
    world.ping(peer);
    world.got(peer);
    world.wait(15_000);
    assert!(look(&mut world), "it was sent something new");
    // Without the limit nobody without a keep alive is asked.
    let mut world = World::with(limited(Limits {
        write_timeout_ms: 0,
        ..Limits::default()
    }));
    let lazy = world.connect(&client("a"));
    world.ping(lazy);
    world.got(lazy);
    wait_looking(&mut world, lazy, 3_600_000, false);
    assert!(!world.closes(lazy));
}

#[test]
fn after_a_pause_of_the_process_what_came_meanwhile_is_read_before_anybody_is_given_up() {
    let mut world = World::new();
    let watcher = watcher(&mut world);
    let alive = world.connect(&client("alive").keep_alive(1).will(0, "w", "alive"));
    let dead = world.connect(&client("dead").keep_alive(1).will(0, "w", "dead"));
    let new = world.accept(ProtocolVersion::V5);
    let back = world.connect(
        &client("back")
            .with(Property::SessionExpiryInterval(5))
            .will(0, "w", "back")
            .will_with(Property::WillDelayInterval(3)),
    );
    world.lose(back);
    world.wait(500);
    world.jump(12_000);
    world.broker.tick(world.now);
    world.settle();
    // Now the sockets are read.
    world.ping(alive);
    let connect = client("back")
        .with(Property::SessionExpiryInterval(5))
        .version(ProtocolVersion::V5);
    let back = world.open(&connect);
    world.settle();
    assert!(
        world.got(back)[0].contains("present"),
        "its session is there"
    );
    assert!(!world.closes(new));
    world.ping(alive);
    world.wait(1_400);
    world.ping(alive);
    assert!(!world.closes(alive) && !world.closes(dead));
    assert_eq!(world.got(watcher), [""; 0]);
    for _ in 0..9 {
        world.wait(1_000);
        world.ping(alive);
    }
    assert!(world.closes(dead) && world.closes(new) && !world.closes(alive));
    assert_eq!(world.got(watcher), ["PUBLISH w=dead"]);
}

#[test]
fn a_client_that_closes_its_side_gets_what_it_is_owed_and_nothing_new() {
    let mut world = World::new();
    let keeper = world.connect(&durable("keeper"));
    world.subscribe(keeper, "t", 1);
    let half = world.connect(&publisher());
    world.subscribe(half, "t", 1);
    world.broker.half_closed(half.id, world.now);
    assert!(!world.broker.is_owed(half.id), "nothing yet");
    let half = world.connect(&client("half"));
    world.subscribe(half, "t", 1);
    world.publish(half, message(1, 7, "t", "x"));
    let own = world.got(half);
    assert!(
        own.iter().all(|line| !line.starts_with("PUBACK")),
        "{own:?}"
    );
    world.broker.half_closed(half.id, world.now);
    assert!(world.broker.is_owed(half.id));
    let publisher = world.connect(&client("other"));
    world.publish(publisher, message(1, 1, "t", "later"));
    world.settle();
    let rest = world.got(half);
    assert!(rest.contains(&"PUBACK #7".to_owned()), "{rest:?}");
    assert!(rest.iter().all(|line| !line.contains("later")), "{rest:?}");
    assert!(!world.broker.is_owed(half.id));
}

/// A bridge that is connected to an upstream with this keep alive.
fn of(keep_alive: u16) -> Bridged {
    let to = Upstream {
        keep_alive,
        ..upstream(ProtocolVersion::V5)
    };
    let mut b = Bridged::to(vec![rule("#", Direction::Out, 1)], to);
    b.got();
    b
}

/// Moves the clock and does what is due; what is sent.
fn tick(b: &mut Bridged, ms: u64) -> Result<Vec<String>, Leave> {
    b.world.jump(ms);
    let mut out = Vec::new();
    let (relay, _, now) = b.relay();
    relay.tick(&mut out, now)?;
    Ok(show(&out, ProtocolVersion::V5))
}

#[test]
fn an_upstream_is_pinged_in_time_while_it_owes_an_answer() {
    let mut b = of(2);
    let mut pings = 0;
    for _ in 0..10 {
        let sent = tick(&mut b, 1_000).expect("it stays");
        pings += sent.len();
        assert!(sent.iter().all(|line| line == "PINGREQ"));
        // A large message comes in, bit by bit.
        let (relay, _, now) = b.relay();
        relay.heard(now);
    }
    assert_eq!(pings, 5);
    // What comes in has been the sign of life; without it, it is left.
    assert_eq!(tick(&mut b, 29_999).map(|sent| sent.len()), Ok(1));
    assert_eq!(tick(&mut b, 1), Err(Leave::Silent("no PINGRESP")));
}

#[test]
fn an_answer_may_take_as_long_as_what_it_waits_for_is_on_its_way() {
    // 40 s for a message, then the answer.
    let mut b = of(600);
    b.publish(message(1, 1, "a", "large"));
    b.got();
    for _ in 0..40 {
        tick(&mut b, 1_000).expect("it stays");
        let (relay, _, now) = b.relay();
        relay.moved(now);
    }
    assert_eq!(tick(&mut b, 29_999), Ok(vec![]));
    assert_eq!(tick(&mut b, 1), Err(Leave::Silent("no acknowledgement")));
    // The same for a PINGREQ behind it.
    let mut b = of(10);
    let mut pings = tick(&mut b, 10_000).expect("it stays").len();
    for _ in 0..40 {
        let (relay, _, now) = b.relay();
        relay.moved(now);
        pings += tick(&mut b, 1_000).expect("it stays").len();
    }
    assert_eq!(pings, 1, "what is on its way keeps the connection alive");
    assert_eq!(tick(&mut b, 28_999).map(|sent| sent.len()), Ok(1));
    assert_eq!(tick(&mut b, 1), Err(Leave::Silent("no PINGRESP")));
}

#[test]
fn an_upstream_that_takes_nothing_is_left_even_if_it_owes_nothing() {
    let mut b = of(0);
    tick(&mut b, 1_000_000).expect("it stays");
    let (relay, _, now) = b.relay();
    relay.set_writing(true, now);
    tick(&mut b, 29_999).expect("it stays");
    let (relay, _, now) = b.relay();
    relay.set_writing(true, now);
    let left = tick(&mut b, 1).expect_err("left");
    assert_eq!(left, Leave::Silent("nothing that is sent to it is taken"));
    // Not while it takes something, and not when this side was stopped.
    let (relay, _, now) = b.relay();
    relay.moved(now);
    tick(&mut b, 29_999).expect("it stays");
    let (relay, _, now) = b.relay();
    relay.excuse(now);
    tick(&mut b, 29_999).expect("it stays");
    let (relay, _, now) = b.relay();
    relay.set_writing(false, now);
    tick(&mut b, 1_000_000).expect("it stays");
}
