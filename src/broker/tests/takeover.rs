//! A CONNECT waits until what the older connection of its client had sent is handled, and no longer
//! than a deadline.

use super::super::WAIT_MS;
use super::*;

/// Connects a client without draining what it takes over.
fn knock(world: &mut World, client: &Client) -> Peer {
    let peer = world.accept(client.version);
    world.present(peer, client);
    peer
}

/// Hands over the CONNECT again, and it is accepted.
fn let_in(world: &mut World, peer: Peer, client: &Client) {
    world.present(peer, client);
    world.settle();
    let got = world.got(peer);
    assert!(
        got[0].starts_with("CONNACK") && got[0].ends_with("Success"),
        "{got:?}"
    );
}

fn output(world: &mut World, peer: Peer) -> super::super::Output {
    let mut out = Vec::new();
    let output = world.broker.take_output(peer.id, &mut out, world.now);
    assert!(out.is_empty(), "{:?}", show(&out, peer.version));
    output
}

/// Whether a connection's task is woken since this was last asked.
fn is_touched(world: &mut World, peer: Peer) -> bool {
    let mut touched = Vec::new();
    world.broker.take_touched(&mut touched);
    touched.contains(&peer.id)
}

fn watcher(world: &mut World) -> Peer {
    let watcher = world.connect(&client("watcher"));
    world.subscribe(watcher, "#", 0);
    watcher
}

fn device() -> Client {
    client("x").will(0, "will", "gone")
}

#[test]
fn what_the_older_connection_had_sent_is_handled_before_the_new_one_is_let_in() {
    let mut world = World::new();
    let watcher = watcher(&mut world);
    let old = world.connect(&device());
    let new = knock(&mut world, &device());
    assert!(is_touched(&mut world, old));
    assert!(output(&mut world, old).yields);
    let waiting = output(&mut world, new);
    assert!(waiting.waits && !waiting.close);
    // The old connection's socket still held these.
    world.publish(old, message(0, 0, "t", "last"));
    world.leave_with(old, ReasonCode::Success, &[]);
    assert!(is_touched(&mut world, new));
    assert!(!output(&mut world, new).waits);
    let_in(&mut world, new, &device());
    assert_eq!(world.got(watcher), ["PUBLISH t=last"], "and no will");
    assert!(world.closes(old));
    world.broker.drained(old.id, world.now);
    world.lose(old);
    assert_eq!(world.got(watcher), [""; 0]);
    assert_eq!(
        world.broker.counters().takeovers,
        0,
        "it had left by itself"
    );
    world.wait(10 * WAIT_MS);
    assert!(!world.closes(new));
}

#[test]
fn an_older_connection_with_nothing_to_say_is_taken_over_at_once() {
    let mut world = World::new();
    let watcher = watcher(&mut world);
    let old = world.connect(&device());
    let new = knock(&mut world, &device());
    world.broker.drained(old.id, world.now);
    assert_eq!(world.got(old), ["DISCONNECT SessionTakenOver"]);
    assert!(is_touched(&mut world, new));
    let_in(&mut world, new, &device());
    // It has not taken its leave.
    assert_eq!(world.got(watcher), ["PUBLISH will=gone"]);
    assert_eq!(world.broker.counters().takeovers, 1);
}

#[test]
fn no_older_connection_holds_a_new_one_up_beyond_the_deadline() {
    let mut world = World::new();
    let watcher = watcher(&mut world);
    let old = world.connect(&device());
    let new = knock(&mut world, &device());
    // It goes on sending, and its task never comes to an end with it.
    for ms in 0..WAIT_MS {
        assert!(output(&mut world, new).waits, "{ms}");
        world.publish(old, message(0, 0, "t", "flood"));
        world.wait(1);
    }
    assert_eq!(world.got(old), ["DISCONNECT SessionTakenOver"]);
    assert!(world.closes(old));
    world.publish(old, message(0, 0, "t", "late"));
    world.broker.drained(old.id, world.now);
    assert!(!output(&mut world, new).waits);
    let_in(&mut world, new, &device());
    let seen = world.got(watcher);
    assert_eq!(seen.len(), WAIT_MS as usize + 1);
    assert_eq!(seen.last().map(String::as_str), Some("PUBLISH will=gone"));
}

#[test]
fn those_who_wait_go_in_the_order_in_which_they_came() {
    let mut world = World::new();
    let watcher = watcher(&mut world);
    let a = world.connect(&device());
    let b = knock(&mut world, &device());
    let c = knock(&mut world, &device());
    world.broker.drained(a.id, world.now);
    assert!(output(&mut world, c).waits, "b is before it");
    world.present(c, &device());
    assert!(output(&mut world, c).waits, "b is before it");
    let_in(&mut world, b, &device());
    // What came behind its CONNECT is handled too, and its DISCONNECT with it.
    assert!(world.broker.is_yielding(b.id));
    world.publish(b, message(0, 0, "t", "b"));
    world.leave_with(b, ReasonCode::Success, &[]);
    assert!(is_touched(&mut world, c));
    let_in(&mut world, c, &device());
    assert!(!world.broker.is_yielding(c.id));
    assert_eq!(world.got(watcher), ["PUBLISH will=gone", "PUBLISH t=b"]);
}

#[test]
fn a_chain_of_those_who_do_not_go_on_holds_the_last_one_up_no_longer_than_one_of_them() {
    let mut world = World::new();
    let a = world.connect(&device());
    let stuck: Vec<Peer> = (0..5)
        .map(|_| {
            let peer = knock(&mut world, &device());
            world.wait(10);
            peer
        })
        .collect();
    let last = knock(&mut world, &device());
    world.wait(WAIT_MS - 51);
    assert!(!world.closes(a));
    world.wait(51);
    assert!(world.closes(a));
    // Their tasks did nothing at all.
    for peer in stuck {
        assert!(world.closes(peer));
        assert_eq!(world.got(peer), [""; 0], "no CONNACK");
        world.lose(peer);
    }
    assert!(!output(&mut world, last).waits);
    let_in(&mut world, last, &device());
}

#[test]
fn who_is_gone_before_its_turn_leaves_the_older_connection_alone() {
    let mut world = World::new();
    let old = world.connect(&device());
    let new = knock(&mut world, &device());
    world.lose(new);
    assert!(!output(&mut world, old).yields);
    world.broker.drained(old.id, world.now);
    world.wait(10 * WAIT_MS);
    assert!(!world.closes(old));
    // In the middle of a line nothing changes for the others.
    let [b, c] = [(); 2].map(|()| knock(&mut world, &device()));
    world.lose(b);
    assert!(is_touched(&mut world, c));
    assert!(output(&mut world, c).waits && output(&mut world, old).yields);
    world.broker.drained(old.id, world.now);
    let_in(&mut world, c, &device());
}

#[test]
fn who_may_not_come_in_takes_nothing_over() {
    let mut world = World::new();
    let old = world.connect(&device());
    let refused = knock(
        &mut world,
        &device().with(Property::AuthenticationMethod("SCRAM")),
    );
    assert_eq!(world.got(refused), ["CONNACK BadAuthenticationMethod"]);
    assert!(!output(&mut world, old).yields);
}

#[test]
fn a_session_that_does_not_end_with_its_connection_goes_over() {
    let mut world = World::new();
    let old = world.connect(&durable("x"));
    let new = knock(&mut world, &durable("x"));
    world.ask(old, 900, &[("t", options(1))]);
    world.leave_with(old, ReasonCode::Success, &[]);
    world.present(new, &durable("x"));
    world.settle();
    assert_eq!(world.got(new), ["CONNACK present Success"]);
    let publisher = world.connect(&publisher());
    world.publish(publisher, message(0, 0, "t", "m"));
    assert_eq!(world.got(new), ["PUBLISH t=m"]);
}

#[test]
fn a_broker_that_shuts_down_lets_nobody_wait() {
    let mut world = World::new();
    let old = world.connect(&device());
    let new = knock(&mut world, &device());
    world.broker.shut_down(world.now);
    world.wait(1);
    assert!(world.closes(old) && world.closes(new));
    world.lose(new);
    world.lose(old);
    world.wait(10 * WAIT_MS);
    assert_eq!(world.broker.connection_count(), 0);
}
