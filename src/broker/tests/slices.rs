//! What is long is done in slices: others have their turn in between, and whatever happens then is
//! as if it had been done at once.

use super::super::{Acl, Permission, model::work::OPERATION};
use super::*;
use crate::broker::upkeep::end::AT_ONCE;
use crate::broker::upkeep::tick::TICK_WORK;
use crate::broker::upkeep::walk;
use std::sync::Arc;

/// How many go on at a time when a batch is durable.
const RELEASE: usize = 8;
/// Places that a walk passes at once.
const WALK: usize = (walk::AT_ONCE / OPERATION) as usize;
/// More of anything than is removed at once.
const MANY: usize = 10 * AT_ONCE;

fn name(id: &str, n: usize) -> &'static str {
    format!("{id}{n:04}").leak()
}

fn subscribe_to_many(world: &mut World, peer: Peer) {
    for n in 0..MANY {
        world.subscribe(peer, &format!("f/{n}"), 1);
    }
    world.subscribe(peer, "$share/g/s", 1);
}

/// A session with many subscriptions has just ended, because its client wanted a new one.
fn ended() -> (World, Peer) {
    let mut world = World::new();
    let old = world.connect(&durable("a"));
    subscribe_to_many(&mut world, old);
    world.lose(old);
    world.flush();
    let new = world.open(&durable("a").clean());
    world.settle();
    assert_eq!(world.got(new), ["CONNACK Success"]);
    assert!(
        world.disk.subscriptions.len() > MANY / 2,
        "not all are gone"
    );
    (world, new)
}

#[test]
fn a_client_that_comes_back_is_not_in_the_way_of_the_end_of_its_old_session() {
    let (mut world, new) = ended();
    assert_eq!(world.broker.gauges().sessions, 1);
    assert_eq!(world.subscribe(new, "f/7", 1), ["SUBACK [GrantedQos1]"]);
    let other = world.connect(&durable("b"));
    world.subscribe(other, "$share/g/s", 1);
    let peer = world.connect(&publisher());
    for ms in 0..200 {
        for topic in ["f/7", "f/8", &format!("f/{}", MANY - 1), "s"] {
            world.publish(peer, message(1, 1, topic, "m"));
        }
        assert_eq!(world.drain(new), ["PUBLISH q1 f/7=m"], "after {ms} ms");
        assert_eq!(world.drain(other), ["PUBLISH q1 s=m"], "after {ms} ms");
        world.broker.audit().expect("the accounts agree");
        world.wait(1);
    }
    assert_eq!(world.broker.upkeep.removals.placeholders(), 0);
    assert_eq!(world.broker.gauges().subscriptions, 2);
    world.flush();
    assert_eq!(world.disk.subscriptions.len(), 2);
    world.lose(new);
    world.assert_nothing_left();
}

#[test]
fn a_crash_before_all_subscriptions_are_removed_leaves_none() {
    for steps in 0..4 {
        let (mut world, _) = ended();
        for _ in 0..steps {
            world.wait(4);
        }
        world.flush();
        world.crash();
        let gauges = world.broker.gauges();
        assert_eq!((gauges.sessions, gauges.subscriptions), (1, 0));
        assert!(world.broker.groups.len() == 0);
        let peer = world.connect(&publisher().version(ProtocolVersion::V5));
        for topic in ["f/0", &format!("f/{}", MANY - 1), "s"] {
            world.publish(peer, message(1, 1, topic, "m"));
        }
        assert_eq!(world.all(peer), ["PUBACK #1 NoMatchingSubscribers"; 3]);
        world.assert_nothing_left();
        assert!(world.disk.subscriptions.is_empty() && world.disk.groups.is_empty());
    }
}

#[test]
fn sessions_that_are_ending_leave_room_for_others() {
    let mut world = World::with(limited(Limits {
        max_sessions: 1,
        ..Limits::default()
    }));
    for _ in 0..20 {
        let old = world.connect(&durable("a").clean());
        subscribe_to_many(&mut world, old);
    }
    world.connect(&durable("a").clean());
    world.wait(1000);
    world.flush();
    assert!(world.disk.subscriptions.is_empty());
}

#[test]
fn what_was_under_way_is_forgotten_bit_by_bit() {
    for crashes in [false, true] {
        let mut world = World::new();
        let a = world.connect(&durable("a"));
        world.subscribe(a, "t", 2);
        let peer = world.connect(&publisher());
        for n in 0..MANY as u16 {
            world.publish(peer, message(2, n + 1, "t", "m"));
            world.pubrel(peer, n + 1);
            world.publish(a, message(2, n + 1, "u", "m"));
        }
        world.settle();
        world.got(a);
        world.flush();
        assert_eq!(world.disk.received.len(), MANY);
        world.leave_with(
            a,
            ReasonCode::Success,
            &[Property::SessionExpiryInterval(0)],
        );
        world.flush();
        let left = (world.disk.received.len(), world.disk.deliveries.len());
        assert!(left.0 > 0 && left.1 > 0, "{left:?}");
        world.broker.audit().expect("the accounts agree");
        if crashes {
            world.crash();
        }
        world.connect(&durable("a"));
        world.assert_nothing_left();
        assert!(world.disk.inflight.is_empty());
    }
}

#[test]
fn what_a_member_was_sent_goes_to_the_others_in_order() {
    let mut world = World::new();
    let [a, b] = ["a", "b"].map(|id| world.connect(&durable(id)));
    world.subscribe(a, "$share/g/t", 1);
    let peer = world.connect(&publisher());
    let mut sent = Vec::new();
    for n in 0..MANY {
        world.publish(peer, message(1, 1, "t", &n.to_string()));
        sent.push(format!("PUBLISH q1 t={n}"));
    }
    world.settle();
    assert_eq!(world.got(a).len(), MANY);
    world.subscribe(b, "$share/g/t", 1);
    world.leave_with(
        a,
        ReasonCode::Success,
        &[Property::SessionExpiryInterval(0)],
    );
    assert_eq!(world.drain(b), sent);
    world.assert_nothing_left();
}

#[test]
fn many_sessions_that_expire_at_once_do_so_a_slice_at_a_time_and_each_will_is_published_once() {
    let mut world = World::new();
    let watcher = world.connect(&client("watcher"));
    world.subscribe(watcher, "will", 0);
    let count = (3 * TICK_WORK / OPERATION) as usize;
    let peers: Vec<Peer> = (0..count)
        .map(|n| {
            let client = client(name("c", n)).will(0, "will", name("", n));
            let client = client.will_with(Property::WillDelayInterval(100));
            world.connect(&client.with(Property::SessionExpiryInterval(20)))
        })
        .collect();
    peers.into_iter().for_each(|peer| world.lose(peer));
    world.wait(19_999);
    world.jump(1);
    world.broker.tick(world.now);
    let left = world.broker.gauges().sessions as usize;
    assert!((count / 2..count).contains(&left), "{left}");
    assert_eq!(world.broker.next_timeout(), world.now.uptime + 1);
    world.wait(100);
    assert_eq!(world.broker.gauges().sessions, 1);
    let mut wills = world.got(watcher);
    wills.sort();
    let each = (0..count).map(|n| format!("PUBLISH will={n:04}"));
    assert_eq!(wills, Vec::from_iter(each));
}

#[test]
fn a_commit_lets_many_go_a_slice_at_a_time() {
    let mut world = World::new();
    world.broker.set_release(RELEASE as u64);
    let peers: Vec<Peer> = (0..2 * RELEASE + 1)
        .map(|n| world.connect(&durable(name("c", n))))
        .collect();
    world.broker.take_touched(&mut Vec::new());
    for peer in &peers {
        world.ask(*peer, 1, &[("t", options(1))]);
        world.ping(*peer);
    }
    world.broker.take_touched(&mut Vec::new());
    world.take();
    let id = world.committing.take().expect("a batch").id;
    let mut answered = Vec::new();
    world.broker.durable(id, world.now);
    for _ in 0..3 {
        let mut touched = Vec::new();
        world.broker.take_touched(&mut touched);
        answered.push(touched.len());
        for peer in peers.iter().filter(|peer| touched.contains(&peer.id)) {
            assert_eq!(world.got(*peer), ["SUBACK [GrantedQos1]", "PINGRESP"]);
        }
        world.jump(1);
        world.broker.tick(world.now);
    }
    assert_eq!(answered, [RELEASE, RELEASE, 1]);
    assert_eq!(world.broker.upkeep.waiting.counts(), (0, 0));
}

#[test]
fn what_is_known_of_messages_on_their_way_is_in_the_batch_however_many_sessions_it_is_about() {
    let mut world = World::new();
    let peers: Vec<Peer> = (0..20)
        .map(|n| {
            let peer = world.connect(&durable(name("c", n)));
            world.subscribe(peer, "t", 2);
            peer
        })
        .collect();
    let peer = world.connect(&publisher());
    world.publish(peer, message(2, 1, "t", "m"));
    world.settle();
    for peer in &peers {
        world.got(*peer);
        world.pubrec(*peer, 1);
    }
    world.settle();
    world.crash();
    for n in 0..20 {
        let peer = world.connect(&durable(name("c", n)));
        assert_eq!(world.got(peer), ["PUBREL #1"]);
    }
}

#[test]
fn a_client_that_comes_back_for_expired_messages_gets_the_others_behind_them() {
    let mut world = World::new();
    let a = world.connect(&durable("a"));
    world.subscribe(a, "t", 1);
    world.lose(a);
    let peer = world.connect(&publisher().version(ProtocolVersion::V5));
    for n in 0..500 {
        let expiry = Property::MessageExpiryInterval(if n < 499 { 1 } else { 100 });
        world.publish_with(peer, message(1, 1, "t", &n.to_string()), &[expiry]);
        world.settle();
        world.got(peer);
    }
    world.jump(1500);
    let a = world.connect(&durable("a"));
    let mut out = Vec::new();
    world.broker.take_output(a.id, &mut out, world.now);
    assert!(out.is_empty() && world.broker.has_more(a.id));
    assert_eq!(world.drain(a), ["PUBLISH q1 t=499 expiry 99"]);
    world.assert_nothing_left();
}

#[test]
fn a_replay_that_finds_nothing_for_long_goes_on() {
    let mut world = World::new();
    let peer = world.connect(&publisher());
    for n in 0..2000 {
        world.publish(peer, retained(0, 1, &format!("r/{n:04}/x"), "m"));
    }
    world.publish(peer, retained(0, 1, "r/2000/y", "m"));
    let a = world.connect(&client("a"));
    world.ask(a, 1, &[("r/+/y", options(0))]);
    let mut rounds = 0;
    let mut out = Vec::new();
    world.broker.take_output(a.id, &mut out, world.now);
    while world.broker.has_more(a.id) {
        rounds += 1;
        world.broker.take_output(a.id, &mut out, world.now);
    }
    assert!(rounds > 1);
    let got = show::show(&out, a.version);
    assert_eq!(got, ["SUBACK [Success]", "PUBLISH retain r/2000/y=m"]);
}

#[test]
fn new_rights_reach_everybody_and_the_last_ones_count() {
    let mut world = World::new();
    world.arrival = user("u");
    let peers: Vec<Peer> = (0..3 * WALK)
        .map(|n| {
            let peer = world.connect(&durable(name("c", n)));
            world.subscribe(peer, "t", 1);
            peer
        })
        .collect();
    let mut acl = Acl::default();
    let all = acl.patterns().add_topic(Permission::ReadWrite, "#");
    all.expect("a filter");
    let nothing = Some(Arc::new(Acl::default()));
    world.arrival = anonymous();
    let reader = world.connect(&publisher());
    world.broker.set_acl(Some(Arc::new(acl)), world.now);
    world.broker.set_acl(nothing, world.now);
    let able = |world: &mut World| {
        let able = peers.iter().filter(|it| {
            let session = world.broker.connections[it.id].session();
            world
                .broker
                .is_readable(session.expect("it is connected"), "t")
        });
        able.count()
    };
    let left = able(&mut world);
    assert!(left > 0 && left < peers.len(), "{left}");
    world.wait(10);
    assert_eq!(able(&mut world), 0);
    let subscriptions = world.broker.gauges().subscriptions;
    assert_eq!(subscriptions, peers.len() as u64, "they stay");
    world.leave(reader);
}

#[test]
fn many_are_sent_away_a_slice_at_a_time() {
    let mut world = World::new();
    for n in 0..3 * WALK {
        world.connect(&durable(name("c", n)));
    }
    let access = world.arrival.access.clone();
    world.arrival = anonymous();
    world.connect(&durable("stays"));
    world.broker.send_away(&access, world.now);
    let left = world.broker.gauges().connected as usize;
    assert!(left > 1 && left <= 2 * WALK + 1, "{left}");
    world.wait(10);
    assert_eq!(world.broker.gauges().connected, 1);
    world.broker.shut_down(world.now);
    world.wait(10);
    assert_eq!(world.broker.gauges().connected, 0);
}
