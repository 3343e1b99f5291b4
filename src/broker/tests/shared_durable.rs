//! Shared subscriptions whose members, or some of them, are on disk.

use super::*;

const SHARED: &str = "$share/g/t";

fn member(world: &mut World, client: &Client, qos: u8) -> Peer {
    let peer = world.connect(client);
    world.subscribe(peer, SHARED, qos);
    peer
}

fn publish_numbers(world: &mut World, peer: Peer, qos: u8, range: std::ops::Range<usize>) {
    for number in range {
        let id = number as u16 + 1;
        world.publish(peer, message(qos, id, "t", &number.to_string()));
        if qos == 2 {
            world.pubrel(peer, id);
        }
    }
    world.settle();
    world.got(peer);
}

/// What both clients got, in order of their numbers.
fn all_of(world: &mut World, peers: &[Peer]) -> Vec<String> {
    let mut got: Vec<String> = Vec::new();
    for peer in peers.iter().chain(peers) {
        got.extend(world.drain(*peer));
    }
    got.sort();
    got
}

#[test]
fn the_group_keeps_messages_while_its_members_are_away() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 1);
    let b = member(&mut world, &durable("b"), 1);
    world.lose(a);
    world.lose(b);
    let peer = world.connect(&publisher());
    world.flush();
    world.writes();
    publish_numbers(&mut world, peer, 1, 0..2);
    assert_eq!(
        world.writes(),
        [
            "PutDelivery s1 k2 q1",
            "PutMessage s1",
            "PutDelivery s2 k2 q1",
            "PutMessage s2",
        ]
    );
    let b = world.connect(&durable("b"));
    assert_eq!(world.drain(b), ["PUBLISH q1 t=0", "PUBLISH q1 t=1"]);
    let a = world.connect(&durable("a"));
    assert_eq!(world.drain(a), [""; 0]);
    world.assert_nothing_left();
}

#[test]
fn what_a_durable_member_has_not_acknowledged_goes_to_one_that_is_there() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 1);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 1, 0..3);
    assert_eq!(world.got(a).len(), 3);
    world.lose(a);
    assert_eq!(world.broker.gauges().queued, 0, "it waits for its client");
    let b = member(&mut world, &client("b"), 1);
    assert_eq!(
        world.drain(b),
        ["PUBLISH q1 t=0", "PUBLISH q1 t=1", "PUBLISH q1 t=2"]
    );
    let a = world.connect(&durable("a"));
    assert_eq!(world.drain(a), [""; 0]);
    world.assert_nothing_left();
}

#[test]
fn a_member_that_comes_back_alone_gets_its_own_again() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 1);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 1, 0..2);
    world.got(a);
    world.lose(a);
    publish_numbers(&mut world, peer, 1, 2..3);
    let a = world.connect(&durable("a"));
    assert_eq!(
        world.drain(a),
        ["PUBLISH q1 dup t=0", "PUBLISH q1 dup t=1", "PUBLISH q1 t=2"]
    );
    world.assert_nothing_left();
}

#[test]
fn a_transient_member_of_a_durable_group_loses_nothing_when_it_ends() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 1);
    let b = member(&mut world, &client("b"), 1);
    world.lose(a);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 1, 0..3);
    assert_eq!(world.got(b).len(), 3);
    world.puback(b, 2);
    world.lose(b);
    let a = world.connect(&durable("a"));
    assert_eq!(world.drain(a), ["PUBLISH q1 t=0", "PUBLISH q1 t=2"]);
    world.assert_nothing_left();
}

#[test]
fn a_crash_gives_the_group_back_what_was_not_acknowledged() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 1);
    let b = member(&mut world, &client("b"), 1);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 1, 0..4);
    assert_eq!(world.got(a).len() + world.got(b).len(), 4);
    world.puback(a, 1);
    world.puback(b, 1);
    world.flush();
    world.crash();
    let a = world.connect(&durable("a"));
    assert_eq!(world.drain(a), ["PUBLISH q1 t=2", "PUBLISH q1 t=3"]);
    world.assert_nothing_left();
}

#[test]
fn a_qos_2_message_becomes_the_members_own() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 2);
    let b = member(&mut world, &durable("b"), 2);
    world.lose(a);
    world.lose(b);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 2, 0..1);
    world.flush();
    world.writes();
    let a = world.connect(&durable("a"));
    assert_eq!(world.all(a), ["PUBLISH #1 q2 t=0"]);
    let writes = world.writes();
    assert_eq!(
        writes[writes.len() - 2..],
        ["PutDelivery s1 k1 q2 #1", "RemoveDelivery s1 k2"]
    );
    // [MQTT-4.8.2-4]: it waits for its client, through a crash as well.
    world.lose(a);
    let b = world.connect(&durable("b"));
    assert_eq!(world.drain(b), [""; 0]);
    world.flush();
    world.crash();
    let b = world.connect(&durable("b"));
    assert_eq!(world.drain(b), [""; 0]);
    let a = world.connect(&durable("a"));
    assert_eq!(world.drain(a), ["PUBLISH q2 dup t=0"]);
    world.assert_nothing_left();
}

#[test]
fn a_member_that_unsubscribes_completes_what_it_was_sent_through_a_reconnection_and_a_crash() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 2);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 1, 0..2);
    publish_numbers(&mut world, peer, 2, 2..3);
    assert_eq!(world.all(a).len(), 3);
    world.unsubscribe(a, SHARED);
    assert_eq!(world.all(a), ["UNSUBACK [Success]"]);
    assert!(world.disk.groups.is_empty());
    world.puback(a, 1);
    world.lose(a);
    world.flush();
    world.crash();
    let a = world.connect(&durable("a"));
    // [MQTT-3.10.4-3]
    assert_eq!(world.drain(a), ["PUBLISH q1 dup t=1", "PUBLISH q2 dup t=2"]);
    world.assert_nothing_left();
}

#[test]
fn the_session_of_a_member_that_ends_gives_its_qos_1_messages_back() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 1);
    let b = member(&mut world, &durable("b"), 1);
    world.lose(b);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 1, 0..2);
    world.got(a);
    let expiry = [Property::SessionExpiryInterval(0)];
    world.leave_with(a, ReasonCode::Success, &expiry);
    world.lose(a);
    let b = world.connect(&durable("b"));
    assert_eq!(world.drain(b), ["PUBLISH q1 t=0", "PUBLISH q1 t=1"]);
    world.assert_nothing_left();
}

#[test]
fn two_members_share_what_waited_on_disk() {
    let mut world = World::new();
    let a = member(
        &mut world,
        &durable("a").with(Property::ReceiveMaximum(10)),
        1,
    );
    let b = member(
        &mut world,
        &durable("b").with(Property::ReceiveMaximum(10)),
        1,
    );
    world.lose(a);
    world.lose(b);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 1, 0..100);
    let a = world.connect(&durable("a").with(Property::ReceiveMaximum(10)));
    let b = world.connect(&durable("b").with(Property::ReceiveMaximum(10)));
    assert_eq!(world.all(a).len(), 10);
    assert_eq!(world.all(b).len(), 10);
    for id in 1..=10 {
        world.puback(a, id);
        world.puback(b, id);
    }
    assert_eq!(all_of(&mut world, &[a, b]).len(), 80);
    assert_eq!(world.broker.counters().bodies_fetched, 100);
    world.assert_nothing_left();
}

#[test]
fn the_bodies_of_a_group_nobody_is_connected_to_are_on_disk_only() {
    let mut world = World::new();
    let a = member(
        &mut world,
        &durable("a").with(Property::ReceiveMaximum(1)),
        1,
    );
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 1, 0..5);
    assert_eq!(world.broker.accounts.queued().hot_bytes, 8);
    world.lose(a);
    assert_eq!(world.broker.accounts.queued().hot_bytes, 0);
    let a = world.connect(&durable("a"));
    assert_eq!(world.drain(a).len(), 5);
    world.assert_nothing_left();
}

#[test]
fn an_expired_message_in_a_group_is_not_sent() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 1);
    world.lose(a);
    let peer = world.connect(&client("pub"));
    let expiry = [Property::MessageExpiryInterval(1)];
    world.publish_with(peer, message(1, 1, "t", "old"), &expiry);
    world.publish(peer, message(1, 2, "t", "new"));
    world.flush();
    world.jump(1_000);
    let a = world.connect(&durable("a"));
    assert_eq!(world.drain(a), ["PUBLISH q1 t=new"]);
    world.assert_nothing_left();
}

#[test]
fn a_durable_member_that_leaves_makes_the_group_transient() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 1);
    let b = member(
        &mut world,
        &client("b").with(Property::ReceiveMaximum(1)),
        1,
    );
    world.unsubscribe(a, SHARED);
    world.settle();
    world.writes();
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 1, 0..3);
    assert_eq!(world.writes(), [""; 0]);
    assert_eq!(world.drain(b).len(), 3);
    // And one that joins makes it durable again; what waited before stays in memory.
    publish_numbers(&mut world, peer, 1, 0..3);
    let c = world.connect(&durable("c"));
    world.ask(c, 1, &[(SHARED, options(1))]);
    publish_numbers(&mut world, peer, 1, 3..4);
    assert_eq!(all_of(&mut world, &[b, c]).len(), 4);
    world.assert_nothing_left();
}

#[test]
fn a_member_that_comes_back_takes_what_another_that_is_away_has_not_acknowledged() {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 1);
    let b = member(&mut world, &durable("b"), 1);
    world.lose(b);
    let peer = world.connect(&publisher());
    publish_numbers(&mut world, peer, 1, 0..2);
    assert_eq!(world.got(a).len(), 2);
    world.lose(a);
    let b = world.connect(&durable("b"));
    assert_eq!(world.drain(b), ["PUBLISH q1 t=0", "PUBLISH q1 t=1"]);
    let a = world.connect(&durable("a"));
    assert_eq!(world.drain(a), [""; 0]);
    world.assert_nothing_left();
}

/// What a member was sent with its own QoS and without the retain flag, another one gets as it was
/// published.
fn given_back_as_published(crash: bool) {
    let mut world = World::new();
    let a = member(&mut world, &durable("a"), 1);
    let peer = world.connect(&publisher());
    world.publish(peer, retained(2, 1, "t", "m"));
    world.settle();
    assert_eq!(world.all(a), ["PUBLISH #1 q1 t=m"]);
    let b = world.connect(&durable("b"));
    world.lose(a);
    let as_published = SubscribeOptions {
        retain_as_published: true,
        ..options(2)
    };
    if crash {
        world.flush();
        world.crash();
    }
    let b = match crash {
        true => world.connect(&durable("b")),
        false => b,
    };
    world.ask(b, 1, &[(SHARED, as_published)]);
    let got = world.drain(b);
    assert_eq!(got, ["PUBLISH q2 retain t=m"]);
    world.flush();
    assert!(world.disk.deliveries.is_empty());
}

#[test]
fn the_group_gets_back_what_was_published() {
    given_back_as_published(false);
}

#[test]
fn the_group_gets_back_what_was_published_after_a_crash() {
    given_back_as_published(true);
}
