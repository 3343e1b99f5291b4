//! Access rules: what is refused, and what is not delivered.

use std::sync::Arc;

use super::super::{Acl, Acls, Permission, Rules, Subscribing};
use super::*;

/// A list from lines as `alice read a/#`; `-` is the clients without a user name, `*` stands before
/// a pattern.
pub(super) fn acl(lines: &[&str]) -> Option<Arc<Acl>> {
    let mut acl = Acl::default();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let permission = words[1].parse().expect("an access");
        let added = match words[0] {
            "*" => acl.patterns().add_pattern(permission, words[2]),
            "-" => acl.user(None).add_topic(permission, words[2]),
            name => acl.user(Some(name)).add_topic(permission, words[2]),
        };
        added.expect("a filter");
    }
    Some(Arc::new(acl))
}

pub(super) fn world(lines: &[&str]) -> World {
    World::with(Settings {
        acl: acl(lines).into(),
        ..Settings::default()
    })
}

/// Connects a client as a user.
pub(super) fn connect_as(world: &mut World, name: &str, client: &Client) -> Peer {
    world.arrival = user(name);
    world.connect(client)
}

/// Whether a client may publish to a topic: what PUBACK says.
pub(super) fn may_write(world: &mut World, peer: Peer, topic: &str) -> bool {
    world.publish(peer, message(1, 1, topic, "x"));
    let got = world.all(peer);
    let acks: Vec<&String> = got
        .iter()
        .filter(|line| line.starts_with("PUBACK"))
        .collect();
    assert_eq!(acks.len(), 1, "{got:?}");
    !acks[0].contains("NotAuthorized")
}

/// Whether a client may subscribe to a filter: what SUBACK says.
pub(super) fn may_subscribe(world: &mut World, peer: Peer, filter: &str) -> bool {
    let got = world.subscribe(peer, filter, 1);
    !got[0].contains("NotAuthorized")
}

#[test]
fn what_no_rule_allows_is_refused() {
    let mut world = world(&["alice read r/#", "alice write w/+", "alice readwrite b"]);
    let alice = connect_as(&mut world, "alice", &client("a"));
    for (topic, allowed) in [
        ("w/1", true),
        ("b", true),
        ("r/1", false),
        ("w/1/2", false),
        ("w", false),
        ("other", false),
    ] {
        assert_eq!(may_write(&mut world, alice, topic), allowed, "{topic}");
    }
    assert_eq!(world.broker.counters().publishes_not_authorized, 4);
    for (filter, allowed) in [("r/1", true), ("b", true), ("w/1", false), ("x", false)] {
        assert_eq!(
            may_subscribe(&mut world, alice, filter),
            allowed,
            "{filter}"
        );
    }
    assert_eq!(world.broker.counters().subscriptions_not_authorized, 2);
    // Nobody else is alice.
    for (id, arrival) in [("o", user("bob")), ("p", anonymous())] {
        world.arrival = arrival;
        let other = world.connect(&client(id));
        assert!(!may_write(&mut world, other, "b"));
        assert!(!may_subscribe(&mut world, other, "b"));
    }
}

#[test]
fn an_empty_list_allows_nothing_and_no_list_everything() {
    for (list, allowed) in [(acl(&[]), false), (None, true)] {
        let mut world = World::with(Settings {
            acl: list.into(),
            ..Settings::default()
        });
        let peer = world.connect(&client("a"));
        assert_eq!(may_write(&mut world, peer, "t"), allowed);
        assert_eq!(may_subscribe(&mut world, peer, "t"), allowed);
        assert_eq!(
            world.broker.sessions.restricted, !allowed,
            "deliveries are checked"
        );
    }
}

#[test]
fn a_refused_publish_is_answered_by_qos_and_version_and_reaches_nobody() {
    let mut world = world(&["- read #", "- write ok"]);
    let all = world.connect(&client("all"));
    world.subscribe(all, "#", 2);
    let five = world.connect(&client("5"));
    for qos in 0..3 {
        world.publish(five, message(qos, 7, "no", "x"));
    }
    assert_eq!(
        world.all(five),
        ["PUBACK #7 NotAuthorized", "PUBREC #7 NotAuthorized"]
    );
    // The identifier is free again.
    world.publish(five, message(2, 7, "ok", "1"));
    assert_eq!(world.all(five), ["PUBREC #7"]);
    let three = world.connect(&publisher());
    for qos in 0..3 {
        world.publish(three, message(qos, 7, "no", "x"));
    }
    world.pubrel(three, 7);
    assert_eq!(world.all(three), ["PUBACK #7", "PUBREC #7", "PUBCOMP #7"]);
    assert_eq!(world.drain(all), ["PUBLISH q2 ok=1"]);
    assert_eq!(world.broker.counters().publishes_not_authorized, 6);
}

#[test]
fn a_topic_alias_stands_for_its_topic() {
    let mut world = world(&["- write ok"]);
    let peer = world.connect(&client("a"));
    world.publish_with(peer, message(1, 1, "no", "x"), &[Property::TopicAlias(1)]);
    world.publish_with(peer, message(1, 2, "", "x"), &[Property::TopicAlias(1)]);
    assert_eq!(
        world.all(peer),
        ["PUBACK #1 NotAuthorized", "PUBACK #2 NotAuthorized"]
    );
}

#[test]
fn a_filter_is_granted_if_one_rule_covers_all_of_it() {
    let mut world = world(&[
        "- read a/+/c",
        "- read b/#",
        "- read +/x",
        "- read $SYS/broker/#",
        "- deny b/secret/#",
    ]);
    let peer = world.connect(&client("a"));
    for (filter, granted) in [
        ("a/b/c", true),
        ("a/+/c", true),
        ("a/#", false),
        ("a/+/+", false),
        ("a/+/c/#", false),
        ("b", true),
        ("b/#", true),
        ("b/+/c", true),
        ("b/secret", false),
        ("b/secret/#", false),
        ("+/#", false),
        ("#", false),
        ("+/x", true),
        ("q/x", true),
        ("$SYS/x", false),
        ("$SYS/broker/uptime", true),
        ("$SYS/#", false),
        ("$share/g/b/+", true),
        ("$share/g/#", false),
    ] {
        assert_eq!(may_subscribe(&mut world, peer, filter), granted, "{filter}");
    }
}

#[test]
fn with_filter_a_filter_is_granted_if_anything_it_matches_may_be_read() {
    let mut world = World::with(Settings {
        acl: Acls {
            subscribing: Subscribing::Filter,
            ..acl(&[
                "- write #",
                "- read a/+/c",
                "- read b/#",
                "- read /x",
                "- read $SYS/broker/#",
                "- deny b/secret/#",
                "- deny a/no/+",
            ])
            .into()
        },
        ..Settings::default()
    });
    let peer = world.connect(&client("a"));
    for (filter, granted) in [
        ("#", true),
        ("+/#", true),
        ("+", true),
        ("a", false),
        ("a/#", true),
        ("a/+/+", true),
        ("a/+/d", false),
        ("a/+/c/#", true),
        ("a/+/c/+", false),
        ("a/no/#", false),
        ("a/no/c", false),
        ("b/#", true),
        ("b/secret", false),
        ("b/secret/#", false),
        ("b/+", true),
        ("+/x", true),
        ("/#", true),
        ("/+", true),
        ("/y", false),
        ("x", false),
        ("$SYS/#", true),
        ("$SYS/+", true),
        ("$SYS/x", false),
        ("$share/g/#", true),
        ("$share/g/c/#", false),
    ] {
        assert_eq!(may_subscribe(&mut world, peer, filter), granted, "{filter}");
    }
    world.leave(peer);
    let explorer = world.connect(&client("b"));
    world.subscribe(explorer, "#", 1);
    let publisher = world.connect(&publisher());
    for topic in ["a/1/c", "a/no/c", "b", "b/secret/1", "c", "/x"] {
        world.publish(publisher, message(1, 1, topic, "x"));
    }
    let got = ["a/1/c", "b", "/x"].map(|topic| format!("PUBLISH q1 {topic}=x"));
    assert_eq!(world.drain(explorer), got);
}

#[test]
fn a_listener_has_rules_of_its_own() {
    let mut world = World::new();
    let at = |list: Option<&str>| {
        Arrival::from(Access {
            allow_anonymous: true,
            acl: list.map(Into::into),
            ..Access::default()
        })
    };
    let acls = |own: &[&str]| Acls {
        own: [("own".into(), acl(own).expect("a list"))].into(),
        ..acl(&["- readwrite common"]).into()
    };
    world.broker.set_acl(acls(&["- readwrite own"]), world.now);
    let expected = [
        (None, [true, false]),
        (Some("own"), [false, true]),
        (Some("gone"), [false, false]),
    ];
    let peers = expected.map(|(list, rights)| {
        world.arrival = at(list);
        let peer = world.connect(&client(list.unwrap_or("common")));
        for (topic, may) in ["common", "own"].into_iter().zip(rights) {
            assert_eq!(may_write(&mut world, peer, topic), may, "{list:?} {topic}");
        }
        peer
    });
    world
        .broker
        .set_acl(acls(&["- readwrite other"]), world.now);
    assert!(may_write(&mut world, peers[0], "common"));
    assert!(may_write(&mut world, peers[1], "other"));
    assert!(!may_write(&mut world, peers[1], "own"));
}

#[test]
fn an_old_client_is_told_that_its_subscription_failed() {
    let mut world = world(&["- read a"]);
    let three = world.connect(&publisher());
    world.ask(three, 1, &[("a", options(1)), ("b", options(1))]);
    assert_eq!(world.all(three), ["SUBACK [GrantedQos1, UnspecifiedError]"]);
}

#[test]
fn a_rule_that_denies_wins_over_all_that_allow() {
    let mut world = world(&["alice readwrite #", "alice deny a", "* deny b/#"]);
    let alice = connect_as(&mut world, "alice", &client("a"));
    assert!(may_subscribe(&mut world, alice, "#"));
    for (topic, allowed) in [("a", false), ("b/1", false), ("c", true)] {
        assert_eq!(may_write(&mut world, alice, topic), allowed, "{topic}");
    }
    // What the filter covers and a rule denies is not delivered.
    world.arrival = anonymous();
    world.broker.set_acl(
        acl(&["- write #", "alice read #", "alice deny a", "* deny b"]),
        world.now,
    );
    world.all(alice);
    let other = world.connect(&publisher());
    for qos in 0..3 {
        for (id, topic) in [(1, "a"), (2, "c")] {
            world.publish(other, message(qos, id, topic, "x"));
            world.pubrel(other, id);
        }
    }
    world.all(other);
    assert_eq!(
        world.drain(alice),
        ["PUBLISH c=x", "PUBLISH q1 c=x", "PUBLISH q1 c=x"]
    );
    assert_eq!(world.broker.counters().dropped_not_authorized, 3);
}

#[test]
fn a_pattern_holds_for_everybody_with_their_own_names() {
    let mut world = world(&["* readwrite home/%u/%c/#", "* read news", "* write $x/%u"]);
    let alice = connect_as(&mut world, "alice", &client("c1"));
    assert!(may_write(&mut world, alice, "home/alice/c1/x"));
    assert!(may_write(&mut world, alice, "home/alice/c1"));
    assert!(!may_write(&mut world, alice, "home/alice/c2/x"));
    assert!(!may_write(&mut world, alice, "home/bob/c1/x"));
    assert!(!may_write(&mut world, alice, "home/%u/%c/x"));
    assert!(may_write(&mut world, alice, "$x/alice"));
    assert!(may_subscribe(&mut world, alice, "home/alice/c1/+"));
    assert!(may_subscribe(&mut world, alice, "news"));
    world.arrival = anonymous();
    let nobody = world.connect(&client("c2"));
    assert!(!may_write(&mut world, nobody, "home//c2"));
    assert!(may_subscribe(&mut world, nobody, "news"));
}

#[test]
fn a_name_that_is_no_single_level_matches_no_pattern_that_allows() {
    for (name, id) in [
        ("+", "c"),
        ("#", "c"),
        ("a/b", "c"),
        ("u", "+"),
        ("u", "c#"),
        ("u", "/"),
    ] {
        let mut world = world(&[
            "* readwrite home/%u/%c",
            "* readwrite open",
            "* deny open/%u/%c",
        ]);
        let odd = connect_as(&mut world, name, &client(id));
        assert!(!may_write(&mut world, odd, "home/x/c"), "{name} {id}");
        assert!(!may_write(&mut world, odd, "home/a/b/c"), "{name} {id}");
        assert!(!may_subscribe(&mut world, odd, "home/+/c"), "{name} {id}");
        // A wildcard in a name takes all of them away, a slash only those the name would stand in.
        let has_slash = name.contains('/') || id.contains('/');
        let open = may_write(&mut world, odd, "open");
        assert_eq!(open, has_slash, "{name} {id}");
    }
    // A rule that denies holds for such a name, whatever the name would be.
    let mut world = world(&["u/v readwrite #", "* deny home/%u"]);
    let odd = connect_as(&mut world, "u/v", &client("c"));
    assert!(!may_write(&mut world, odd, "home/x"));
    assert!(may_write(&mut world, odd, "home/x/y"));
}

#[test]
fn rules_that_came_with_the_credentials_stand_instead_of_the_list() {
    use crate::broker::Identity;
    use crate::broker::state::rights::Rights;
    let mut rules = Rules::default();
    rules
        .add_pattern(Permission::Write, "own/%u")
        .expect("a filter");
    let identity = Identity {
        user: Some("alice".into()),
        rules: Some(Arc::new(rules)),
        credential: None,
        expires_in: None,
    };
    let list = acl(&["alice readwrite #"]).into();
    let mut rights = Rights::new(&list, None, &identity, "c", "").expect("it may not do all");
    assert!(rights.may_write("own/alice"));
    assert!(!rights.may_write("other"));
    assert!(!rights.may_read("own/alice"));
    let none = Acls::default();
    assert!(Rights::new(&none, None, &identity, "c", "").is_some());
    assert!(Rights::new(&none, None, &Identity::default(), "c", "").is_none());
}

#[test]
fn many_rules_and_topics_are_answered_alike_the_second_time() {
    let lines: Vec<String> = (0..40).map(|n| format!("- readwrite t/{n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut world = world(&lines);
    let peer = world.connect(&client("a"));
    for _ in 0..2 {
        for n in 0..80 {
            assert_eq!(
                may_write(&mut world, peer, &format!("t/{n}")),
                n < 40,
                "{n}"
            );
        }
    }
}

#[test]
fn retained_messages_are_checked() {
    let mut world = world(&["- readwrite t/#", "alice read t/#", "alice deny t/secret"]);
    let peer = world.connect(&client("pub"));
    for topic in ["t/open", "t/secret"] {
        world.publish(peer, retained(1, 1, topic, "x"));
        world.all(peer);
    }
    let alice = connect_as(&mut world, "alice", &client("a"));
    assert_eq!(
        world.subscribe(alice, "t/#", 1),
        ["SUBACK [GrantedQos1]", "PUBLISH #1 q1 retain t/open=x"]
    );
}

#[test]
fn after_a_restart_a_session_has_its_rights_when_its_client_is_back() {
    let lines = ["- write #", "alice read #", "alice deny secret"];
    let mut world = world(&lines);
    let alice = connect_as(&mut world, "alice", &durable("a"));
    world.subscribe(alice, "#", 1);
    world.flush();
    world.crash();
    world.broker.set_acl(acl(&lines), world.now);
    world.arrival = anonymous();
    let peer = world.connect(&publisher());
    for topic in ["secret", "open"] {
        world.publish(peer, message(1, 1, topic, "x"));
    }
    world.flush();
    let alice = connect_as(&mut world, "alice", &durable("a"));
    assert_eq!(world.drain(alice), ["PUBLISH q1 open=x"]);
    assert_eq!(world.broker.accounts.queued().messages, 1, "held");
}

#[test]
fn a_shared_message_goes_only_to_a_member_that_may_read_it() {
    let mut world = world(&[
        "- write #",
        "alice read t/#",
        "bob read t/#",
        "bob deny t/secret",
    ]);
    let alice = connect_as(&mut world, "alice", &client("a"));
    let bob = connect_as(&mut world, "bob", &client("b"));
    for peer in [alice, bob] {
        world.subscribe(peer, "$share/g/t/#", 1);
    }
    world.arrival = anonymous();
    let peer = world.connect(&publisher());
    for n in 0..4 {
        world.publish(peer, message(1, 1, "t/secret", &n.to_string()));
        world.publish(peer, message(0, 0, "t/secret", "x"));
    }
    world.publish(peer, message(1, 1, "t/open", "y"));
    world.publish(peer, message(1, 1, "t/open", "z"));
    assert_eq!(world.drain(bob).len(), 1);
    assert_eq!(world.drain(alice).len(), 9);
}

#[test]
fn a_will_is_checked_when_it_is_given_and_when_it_is_published() {
    let mut world = world(&["- write w", "heir read #"]);
    let heir = connect_as(&mut world, "heir", &client("heir"));
    world.subscribe(heir, "#", 1);
    world.arrival = anonymous();
    let peer = world.connect(&client("a").will(0, "other", "x"));
    world.lose(peer);
    assert_eq!(world.drain(heir), [""; 0]);
    // Of an earlier connection, none is left.
    let late = durable("late")
        .will(0, "w", "before")
        .will_with(Property::WillDelayInterval(60));
    let peer = world.connect(&late);
    world.lose(peer);
    let peer = world.connect(&durable("late").will(0, "other", "x"));
    world.lose(peer);
    world.wait(100_000);
    assert_eq!(world.drain(heir), [""; 0]);
    assert_eq!(world.broker.counters().wills_not_authorized, 2);
    let peer = world.connect(&client("a").will(0, "w", "1"));
    world.lose(peer);
    assert_eq!(world.drain(heir), ["PUBLISH w=1"]);
    let peer = world.connect(&client("a").will(0, "w", "2"));
    world.broker.set_acl(acl(&["heir read #"]), world.now);
    world.lose(peer);
    assert_eq!(world.drain(heir), [""; 0]);
    assert_eq!(world.broker.counters().wills_published, 1);
    assert_eq!(world.broker.counters().wills_not_authorized, 3);
}

#[test]
fn a_message_that_was_taken_is_acknowledged_though_it_is_not_allowed_any_more() {
    let mut world = world(&["- write t", "heir read #"]);
    let heir = connect_as(&mut world, "heir", &client("heir"));
    world.subscribe(heir, "#", 2);
    world.arrival = anonymous();
    let peer = world.connect(&durable("a"));
    world.publish(peer, message(2, 5, "t", "x"));
    world.all(peer);
    world.broker.set_acl(acl(&["heir read #"]), world.now);
    world.publish(
        peer,
        Publish {
            dup: true,
            ..message(2, 5, "t", "x")
        },
    );
    assert_eq!(world.all(peer), ["PUBREC #5"]);
    world.pubrel(peer, 5);
    assert_eq!(world.all(peer), ["PUBCOMP #5"]);
    world.publish(peer, message(2, 5, "t", "x"));
    assert_eq!(world.all(peer), ["PUBREC #5 NotAuthorized"]);
    assert_eq!(world.drain(heir), ["PUBLISH q2 t=x"]);
}
