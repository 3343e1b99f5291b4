//! Rights hold back delivery and nothing else, and a session is its user's.

use super::acl::{acl, connect_as, may_subscribe, may_write, world};
use super::*;

const ALICE: &str = "alice read #";

/// Connects a client as a user; what CONNACK says.
fn try_as(world: &mut World, arrival: Arrival, client: &Client) -> (Peer, String) {
    world.arrival = arrival;
    let peer = world.open(client);
    let got = world.all(peer);
    (peer, got.concat())
}

fn publish_all(world: &mut World, peer: Peer, qos: u8, topics: &[&str]) {
    for (at, topic) in topics.iter().enumerate() {
        let id = at as u16 + 1;
        world.publish(peer, message(qos, id, topic, "x"));
        world.pubrel(peer, id);
    }
    world.flush();
}

fn set(world: &mut World, lines: &[&str]) {
    world.broker.set_acl(acl(lines), world.now);
    world.settle();
}

#[test]
fn a_list_that_was_wrong_for_a_second_costs_nothing() {
    let lines = ["- write #", ALICE];
    let mut world = world(&lines);
    let there = connect_as(&mut world, "alice", &durable("there"));
    let away = connect_as(&mut world, "alice", &durable("away"));
    for peer in [there, away] {
        world.subscribe(peer, "t/#", 1);
        world.subscribe(peer, "$share/g/s/#", 1);
    }
    world.lose(away);
    world.arrival = anonymous();
    let peer = world.connect(&publisher());
    publish_all(&mut world, peer, 1, &["t/before"]);
    assert_eq!(world.drain(there), ["PUBLISH q1 t/before=x"]);
    world.writes();
    set(&mut world, &["- write #"]);
    world.wait(20);
    publish_all(&mut world, peer, 1, &["t/meanwhile", "s/meanwhile"]);
    assert_eq!(world.drain(there), [""; 0]);
    assert!(!world.closes(there));
    set(&mut world, &lines);
    world.wait(20);
    publish_all(&mut world, peer, 1, &["t/after", "s/after"]);
    let gone = |write: &String| write.contains("Subscription") || write.contains("Group");
    let writes = world.writes();
    assert!(!writes.iter().any(gone), "{writes:?}");
    let expected = ["PUBLISH q1 t/after=x", "PUBLISH q1 s/after=x"];
    assert_eq!(world.drain(there), expected);
    let away = connect_as(&mut world, "alice", &durable("away"));
    let expected = ["PUBLISH q1 t/before=x", "PUBLISH q1 t/after=x"];
    assert_eq!(world.drain(away), expected);
    assert_eq!(world.broker.counters().dropped_not_authorized, 3);
    world.assert_nothing_left();
}

#[test]
fn what_waited_is_held_and_comes_with_the_right() {
    for qos in 1..=2 {
        let mut world = world(&["- write #", ALICE]);
        let alice = connect_as(&mut world, "alice", &durable("a"));
        world.subscribe(alice, "#", 2);
        world.lose(alice);
        world.arrival = anonymous();
        let peer = world.connect(&publisher());
        let topics = ["secret", "open/1", "secret", "open/2"];
        publish_all(&mut world, peer, qos, &topics);
        set(&mut world, &["- write #", ALICE, "alice deny secret"]);
        let alice = connect_as(&mut world, "alice", &durable("a"));
        let line = |topic: &str| format!("PUBLISH q{qos} {topic}=x");
        assert_eq!(world.drain(alice), [line("open/1"), line("open/2")]);
        assert_eq!(world.broker.counters().held_not_authorized, 2);
        // What stands held does not make others wait.
        publish_all(&mut world, peer, qos, &["open/3"]);
        assert_eq!(world.drain(alice), [line("open/3")]);
        world.broker.audit().expect("the accounts agree");
        set(&mut world, &["- write #", ALICE]);
        world.wait(20);
        publish_all(&mut world, peer, qos, &["secret"]);
        assert_eq!(
            world.drain(alice),
            [line("secret"), line("secret"), line("secret")]
        );
        world.assert_nothing_left();
    }
}

#[test]
fn what_is_held_survives_a_restart_and_expires_as_others_do() {
    let mut world = world(&["- write #", ALICE]);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    world.subscribe(alice, "#", 1);
    world.lose(alice);
    world.arrival = anonymous();
    let peer = world.connect(&publisher().version(ProtocolVersion::V5));
    let expiry = [Property::MessageExpiryInterval(5)];
    world.publish_with(peer, message(1, 1, "secret", "short"), &expiry);
    world.publish(peer, message(1, 2, "secret", "long"));
    world.flush();
    let wrong = ["- write #", ALICE, "alice deny secret"];
    set(&mut world, &wrong);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    assert_eq!(world.drain(alice), [""; 0]);
    world.wait(7000);
    assert_eq!(world.broker.counters().dropped_expired, 1);
    assert_eq!(world.broker.accounts.queued().messages, 1);
    world.broker.audit().expect("the accounts agree");
    world.crash();
    set(&mut world, &wrong);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    assert_eq!(world.drain(alice), [""; 0]);
    world.lose(alice);
    set(&mut world, &["- write #", ALICE]);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    assert_eq!(world.drain(alice), ["PUBLISH q1 dup secret=long"]);
    world.assert_nothing_left();
}

#[test]
fn what_is_held_counts_in_the_limits_and_gives_way() {
    let limits = Limits {
        max_queued_messages: 3,
        ..Limits::default()
    };
    let mut world = World::with(Settings {
        acl: acl(&["- write #", ALICE]).into(),
        ..limited(limits)
    });
    let alice = connect_as(&mut world, "alice", &durable("a"));
    world.subscribe(alice, "#", 1);
    world.lose(alice);
    world.arrival = anonymous();
    let peer = world.connect(&publisher());
    publish_all(&mut world, peer, 1, &["secret/1", "secret/2", "secret/3"]);
    set(&mut world, &["- write #", ALICE, "alice deny secret/#"]);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    assert_eq!(world.drain(alice), [""; 0]);
    world.lose(alice);
    publish_all(&mut world, peer, 1, &["open/1", "open/2"]);
    assert_eq!(world.broker.accounts.queued().messages, 3);
    assert_eq!(world.broker.counters().dropped_queue_full, 2);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    let expected = ["PUBLISH q1 open/1=x", "PUBLISH q1 open/2=x"];
    assert_eq!(world.drain(alice), expected);
    set(&mut world, &["- write #", ALICE]);
    world.wait(20);
    assert_eq!(world.drain(alice), ["PUBLISH q1 secret/3=x"]);
    world.assert_nothing_left();
}

#[test]
fn what_was_under_way_keeps_its_identifier_until_the_right_is_back() {
    for qos in 1..=2 {
        let mut world = World::with(Settings {
            acl: acl(&["- write #", ALICE]).into(),
            ..limited(Limits {
                max_inflight_messages: 2,
                ..Limits::default()
            })
        });
        let alice = connect_as(&mut world, "alice", &durable("a"));
        world.subscribe(alice, "#", 2);
        world.arrival = anonymous();
        let peer = world.connect(&publisher());
        publish_all(
            &mut world,
            peer,
            qos,
            &["secret/1", "secret/2", "open/1", "open/2"],
        );
        let sent = world.got(alice);
        assert_eq!(sent.len(), 2, "{sent:?}");
        world.lose(alice);
        set(&mut world, &["- write #", ALICE, "alice deny secret/#"]);
        let alice = connect_as(&mut world, "alice", &durable("a"));
        // Neither the window nor the identifiers of those that are held are used for others.
        let expected = [
            format!("PUBLISH #3 q{qos} open/1=x"),
            format!("PUBLISH #4 q{qos} open/2=x"),
        ];
        assert_eq!(world.all(alice), expected);
        world.broker.audit().expect("the accounts agree");
        set(&mut world, &["- write #", ALICE]);
        world.wait(20);
        let expected = [
            format!("PUBLISH #1 q{qos} dup secret/1=x"),
            format!("PUBLISH #2 q{qos} dup secret/2=x"),
        ];
        assert_eq!(world.all(alice), expected);
        for id in 1..=4 {
            match qos {
                1 => world.puback(alice, id),
                _ => {
                    world.pubrec(alice, id);
                    world.pubcomp(alice, id);
                }
            }
        }
        world.assert_nothing_left();
    }
}

#[test]
fn no_more_are_held_under_way_than_may_be_under_way() {
    let mut world = World::with(Settings {
        acl: acl(&["- write #", ALICE]).into(),
        ..limited(Limits {
            max_inflight_messages: 2,
            ..Limits::default()
        })
    });
    let topics = ["a", "b", "c"];
    for (at, topic) in topics.iter().enumerate() {
        let allowed = topics.map(|topic| format!("alice deny {topic}"));
        let denied: Vec<&str> = allowed[..at].iter().map(String::as_str).collect();
        let lines = [&["- write #", ALICE][..], &denied].concat();
        set(&mut world, &lines);
        let alice = connect_as(&mut world, "alice", &durable("a"));
        world.subscribe(alice, "#", 2);
        world.all(alice);
        world.arrival = anonymous();
        let peer = world.connect(&publisher());
        publish_all(&mut world, peer, 2, &[topic]);
        assert_eq!(world.all(alice).len(), 1, "{topic}");
        world.lose(alice);
    }
    set(&mut world, &["- write #"]);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    assert_eq!(world.all(alice), [""; 0]);
    assert_eq!(world.session(alice).inflight.withheld(), 2);
    assert_eq!(world.broker.counters().dropped_not_authorized, 1);
    world.broker.audit().expect("the accounts agree");
}

#[test]
fn what_waits_in_a_group_for_others_holds_no_member_back() {
    let lines = [
        "- write #",
        "alice read t/#",
        "bob read t/#",
        "bob deny t/secret",
    ];
    let mut world = world(&lines);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    world.subscribe(alice, "$share/g/t/#", 1);
    let bob = connect_as(&mut world, "bob", &durable("b"));
    world.subscribe(bob, "$share/g/t/#", 1);
    world.lose(alice);
    world.lose(bob);
    world.arrival = anonymous();
    let peer = world.connect(&publisher());
    // More than a member looks at in one go.
    let mut topics = vec!["t/secret"; 600];
    topics.extend(["t/1", "t/2"]);
    publish_all(&mut world, peer, 1, &topics);
    let bob = connect_as(&mut world, "bob", &durable("b"));
    assert_eq!(world.drain(bob), ["PUBLISH q1 t/1=x", "PUBLISH q1 t/2=x"]);
    world.broker.audit().expect("the accounts agree");
    // Nobody may have the others for a while.
    set(&mut world, &["bob read t/#", "* deny t/secret"]);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    assert_eq!(world.drain(alice), [""; 0]);
    set(&mut world, &lines);
    world.wait(20);
    assert_eq!(world.drain(alice).len(), 600);
    assert_eq!(world.drain(bob), [""; 0]);
    world.assert_nothing_left();
}

#[test]
fn what_a_member_was_sent_and_may_not_have_again_goes_to_another() {
    let mut world = world(&["- write #", "alice read #", "bob read #"]);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    world.subscribe(alice, "$share/g/t", 1);
    world.arrival = anonymous();
    let peer = world.connect(&publisher());
    publish_all(&mut world, peer, 1, &["t"]);
    assert_eq!(world.all(alice), ["PUBLISH #1 q1 t=x"]);
    world.lose(alice);
    set(&mut world, &["- write #", "alice read other", "bob read #"]);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    assert_eq!(world.all(alice), [""; 0]);
    let bob = connect_as(&mut world, "bob", &durable("b"));
    world.subscribe(bob, "$share/g/t", 1);
    assert_eq!(world.drain(bob), ["PUBLISH q1 t=x"]);
    world.assert_nothing_left();
}

#[test]
fn a_session_is_its_users_and_no_other_user_has_it() {
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        let mut world = world(&["- write #", "alice read #", "bob read #"]);
        let own = || {
            let own = durable("pump").version(version);
            match version {
                ProtocolVersion::V5 => own,
                _ => client("pump").version(version),
            }
        };
        let alice = connect_as(&mut world, "alice", &own());
        world.subscribe(alice, "t", 1);
        let refused = |world: &mut World| {
            for arrival in [user("bob"), anonymous()] {
                for other in [own(), own().clean()] {
                    let (peer, answer) = try_as(world, arrival.clone(), &other);
                    assert_eq!(answer, "CONNACK NotAuthorized", "{version:?}");
                    assert!(world.closes(peer));
                    world.lose(peer);
                }
            }
        };
        refused(&mut world);
        assert!(!world.closes(alice), "the owner notices nothing");
        world.lose(alice);
        refused(&mut world);
        // The next process knows it as well.
        world.flush();
        world.crash();
        refused(&mut world);
        assert_eq!(world.broker.counters().connects_not_owner, 4);
        world.arrival = anonymous();
        let peer = world.connect(&publisher());
        publish_all(&mut world, peer, 1, &["t"]);
        let (alice, answer) = try_as(&mut world, user("alice"), &own());
        assert_eq!(answer, "CONNACK present SuccessPUBLISH #1 q1 t=x");
        world.puback(alice, 1);
        world.assert_nothing_left();
    }
}

#[test]
fn a_session_of_nobody_is_anybodys_and_then_its_users() {
    let mut world = World::new();
    world.arrival = anonymous();
    let peer = world.connect(&durable("pump"));
    world.lose(peer);
    let (peer, answer) = try_as(&mut world, anonymous(), &durable("pump"));
    assert_eq!(answer, "CONNACK present Success");
    world.lose(peer);
    let alice = connect_as(&mut world, "alice", &durable("pump"));
    world.lose(alice);
    let (peer, answer) = try_as(&mut world, anonymous(), &durable("pump"));
    assert_eq!(answer, "CONNACK NotAuthorized");
    world.lose(peer);
}

#[test]
fn with_allow_other_users_a_session_goes_to_whoever_has_its_identifier() {
    let mut world = world(&["- write #", "alice read a/#", "bob read b/#"]);
    let alice = connect_as(&mut world, "alice", &durable("pump"));
    world.subscribe(alice, "a/#", 1);
    world.lose(alice);
    world.arrival = anonymous();
    let peer = world.connect(&publisher());
    publish_all(&mut world, peer, 1, &["a/1"]);
    world.broker.allow_other_users(true);
    let bob = connect_as(&mut world, "bob", &durable("pump"));
    assert!(may_subscribe(&mut world, bob, "b/#"));
    assert!(!may_write(&mut world, bob, "b/1"));
    publish_all(&mut world, peer, 1, &["a/2", "b/2"]);
    assert_eq!(world.drain(bob), ["PUBLISH q1 b/2=x"]);
    world.lose(bob);
    world.broker.allow_other_users(false);
    let (peer, answer) = try_as(&mut world, user("alice"), &durable("pump"));
    assert_eq!(answer, "CONNACK NotAuthorized", "it is bob's");
    world.lose(peer);
}
