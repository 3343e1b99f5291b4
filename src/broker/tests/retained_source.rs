//! `check_retain_source`: what is retained is shown while its publisher might still publish it.

use std::sync::Arc;

use super::super::Acls;
use super::acl::{acl, connect_as, world};
use super::*;

const READ: &str = "- read #";

/// What is retained for a filter, as a client without a user name is shown it.
fn shown(world: &mut World, filter: &str) -> Vec<String> {
    world.arrival = anonymous();
    let peer = world.connect(&client("sub").clean());
    let mut got = world.subscribe(peer, filter, 0);
    got.extend(world.drain(peer));
    got.retain(|line| line.starts_with("PUBLISH"));
    world.leave(peer);
    got
}

/// As alice retains something of her own there, and leaves.
fn retain(world: &mut World, topic: &str) {
    let alice = connect_as(world, "alice", &client("a"));
    world.publish(alice, retained(1, 1, topic, "x"));
    world.settle();
    assert_eq!(
        world
            .got(alice)
            .last()
            .map(|it| it.contains("NotAuthorized")),
        Some(false)
    );
    world.leave(alice);
}

fn set(world: &mut World, acls: impl Into<Acls>) {
    world.broker.set_acl(acls, world.now);
    world.settle();
}

const SHOWN: [&str; 1] = ["PUBLISH retain t=x"];

#[test]
fn what_its_publisher_may_not_publish_any_more_is_not_shown_and_is_again_with_the_right() {
    let allowed = [READ, "alice write t"];
    let mut world = world(&allowed);
    retain(&mut world, "t");
    assert_eq!(shown(&mut world, "#"), SHOWN);
    for (lines, expected) in [
        (&[READ][..], &[][..]),
        (&allowed, &SHOWN),
        (&[READ, "alice write t", "alice deny t"], &[]),
        (&[READ, "alice write +"], &SHOWN),
        (&[READ, "alice read t"], &[]),
        (&[READ, "bob write t"], &[]),
        (&[READ, "* write t"], &SHOWN),
    ] {
        set(&mut world, acl(lines));
        // The second time it is known.
        for _ in 0..2 {
            assert_eq!(shown(&mut world, "#"), expected, "{lines:?}");
        }
    }
    assert_eq!(world.broker.counters().retained_source_not_authorized, 8);
    set(&mut world, None);
    assert_eq!(shown(&mut world, "#"), SHOWN);
    // It is still there, and goes on to whoever publishes there next.
    set(&mut world, acl(&[READ, "bob write t"]));
    let bob = connect_as(&mut world, "bob", &client("b"));
    world.publish(bob, retained(1, 1, "t", "bob"));
    world.settle();
    assert_eq!(shown(&mut world, "t"), ["PUBLISH retain t=bob"]);
}

#[test]
fn the_publisher_is_known_after_a_restart() {
    let lines = [READ, "* write devices/%u/%c"];
    let mut world = world(&lines);
    retain(&mut world, "devices/alice/a");
    world.flush();
    world.crash();
    let line = ["PUBLISH retain devices/alice/a=x"];
    assert_eq!(shown(&mut world, "#"), line);
    for other in ["* write devices/%u/b", "* write devices/bob/%c"] {
        set(&mut world, acl(&[READ, other]));
        world.crash_with(Settings {
            acl: acl(&[READ, other]).into(),
            ..Settings::default()
        });
        assert_eq!(shown(&mut world, "#"), [""; 0], "{other}");
    }
    world.crash_with(Settings {
        acl: acl(&lines).into(),
        ..Settings::default()
    });
    assert_eq!(shown(&mut world, "#"), line);
}

#[test]
fn what_nobody_is_known_to_have_published_is_shown() {
    let mut world = world(&[READ, "alice write t"]);
    retain(&mut world, "t");
    world.flush();
    // As an older program has written it.
    for (_, source) in world.disk.retained.values_mut() {
        assert!(source.is_some());
        *source = None;
    }
    world.crash_with(Settings {
        acl: acl(&[READ]).into(),
        ..Settings::default()
    });
    assert_eq!(shown(&mut world, "#"), SHOWN);
}

#[test]
fn it_can_be_switched_off() {
    let mut world = world(&[READ, "alice write t"]);
    retain(&mut world, "t");
    let unchecked = |lines: &[&str]| Acls {
        check_retain_source: false,
        ..acl(lines).into()
    };
    set(&mut world, unchecked(&[READ]));
    assert_eq!(shown(&mut world, "#"), SHOWN);
    set(&mut world, acl(&[READ]));
    assert_eq!(shown(&mut world, "#"), [""; 0]);
}

#[test]
fn a_will_is_its_clients() {
    let mut world = world(&[READ, "alice write t"]);
    let alice = connect_as(
        &mut world,
        "alice",
        &client("a").will(1, "t", "x").retained_will(),
    );
    world.lose(alice);
    world.settle();
    assert_eq!(shown(&mut world, "#"), SHOWN);
    set(&mut world, acl(&[READ]));
    assert_eq!(shown(&mut world, "#"), [""; 0]);
}

#[test]
fn the_list_of_its_listener_is_asked_and_the_mount_point_is_part_of_the_topic() {
    let acls = |own: &[&str]| Acls {
        own: [("own".into(), acl(own).expect("a list"))].into(),
        ..acl(&[READ]).into()
    };
    let mut world = World::with(Settings {
        acl: acls(&["alice write floor/t"]),
        ..Settings::default()
    });
    let mut arrival = user("alice");
    let access = Arc::make_mut(&mut arrival.access);
    access.acl = Some("own".into());
    access.mount_point = "floor/".into();
    world.arrival = arrival;
    let alice = world.connect(&client("a"));
    world.publish(alice, retained(1, 1, "t", "x"));
    world.flush();
    let line = ["PUBLISH retain floor/t=x"];
    assert_eq!(shown(&mut world, "#"), line);
    for _ in 0..2 {
        set(&mut world, acls(&["alice write t"]));
        assert_eq!(shown(&mut world, "#"), [""; 0]);
        set(&mut world, acls(&["alice write floor/#"]));
        assert_eq!(shown(&mut world, "#"), line);
        world.crash();
        set(&mut world, acls(&["alice write floor/#"]));
    }
    // A list that is there no more allows nothing.
    set(&mut world, acl(&[READ, "alice write #"]));
    assert_eq!(shown(&mut world, "#"), [""; 0]);
}

#[test]
fn publishers_take_of_the_room_for_what_is_retained_each_once() {
    let mut world = World::with(limited(Limits {
        max_retained_bytes: 300,
        ..Limits::default()
    }));
    let mut retain = |id: &'static str, topic: &str| {
        let peer = world.connect(&client(id).clean());
        world.publish(peer, retained(1, 1, topic, "x"));
        world.settle();
        let got = world.got(peer).concat();
        world.leave(peer);
        !got.contains("QuotaExceeded")
    };
    let long = "0123456789".repeat(10).leak();
    assert!(retain(long, "a") && retain(long, "b") && retain(long, "c"));
    assert!(!retain(
        "other",
        "d/0123456789/0123456789/0123456789/0123456789/0123456789/01234567"
    ));
    assert!(retain("other", "d"));
    // Theirs are gone with what they had published last.
    assert!(retain("other", "a") && retain("other", "b") && retain("other", "c"));
    assert!(retain(long, "d"));
    for topic in ["a", "b", "c", "d"] {
        let peer = world.connect(&client("end").clean());
        world.publish(peer, retained(0, 0, topic, ""));
        world.leave(peer);
    }
    assert_eq!(world.broker.gauges().retained, 0);
    world.broker.audit().expect("the accounts agree");
}
