//! Levels that mix, and "os" with power cuts: what was promised below fsync may be lost, but no
//! later message is taken for an earlier one.

use super::super::record::DurabilityRules;
use super::*;

/// `default`, and another level for topics that match `filter`.
fn mixed(default: Durability, filter: &str, level: Durability) -> Settings {
    let topics = match default == level {
        true => Vec::new(),
        false => vec![(filter.into(), level)],
    };
    Settings {
        durability: DurabilityRules { default, topics },
        ..Settings::default()
    }
}

fn again<'a>(publish: Publish<'a>) -> Publish<'a> {
    Publish {
        dup: true,
        ..publish
    }
}

/// A publisher has released a message of level "os", and uses its identifier again as soon as it
/// may; then the power is cut.
fn released_and_used_again(settings: Settings) {
    let mut world = World::with(settings);
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "#", 1);
    let publisher = world.connect(&durable("pub"));
    world.publish(publisher, message(2, 1, "os/t", "first"));
    world.settle();
    assert_eq!(world.got(publisher), ["PUBREC #1"]);
    assert_eq!(world.drain(subscriber), ["PUBLISH q1 os/t=first"]);
    world.flush();
    world.pubrel(publisher, 1);
    assert!(world.take());
    world.written();
    let is_over = !world.got(publisher).is_empty();
    let later = message(2, 1, "t", "later");
    if is_over {
        world.publish(publisher, later);
    }
    world.crash(); // And what was written is lost.
    let subscriber = world.connect(&durable("sub"));
    let publisher = world.connect(&durable("pub"));
    if !is_over {
        world.pubrel(publisher, 1);
        world.settle();
        assert_eq!(world.got(publisher), ["PUBCOMP #1"]);
    }
    world.publish(publisher, again(later));
    world.settle();
    assert_eq!(world.got(publisher), ["PUBREC #1"]);
    let got = world.drain(subscriber);
    assert_eq!(got, ["PUBLISH q1 t=later"], "it was swallowed");
}

#[test]
fn an_identifier_released_at_os_does_not_swallow_a_later_message_at_fsync() {
    released_and_used_again(mixed(Durability::Fsync, "os/#", Durability::Os));
}

#[test]
fn an_identifier_released_at_os_does_not_swallow_a_later_message_at_os() {
    released_and_used_again(mixed(Durability::Os, "", Durability::Os));
}

/// A subscriber holds a message of QoS 2 as received that the broker has lost; the next one must
/// come under another identifier.
fn held_by_the_client(settings: Settings, topic: &str, written: bool) {
    let mut world = World::with(settings);
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "#", 2);
    let publisher = world.connect(&client("pub"));
    world.publish(publisher, message(2, 1, topic, "first"));
    if written {
        assert!(world.take());
        world.written();
    } else {
        world.settle();
    }
    let first = world.got(subscriber);
    world.crash(); // What was only written is lost: the power was cut.
    let subscriber = world.connect(&durable("sub"));
    let publisher = world.connect(&client("pub"));
    world.publish(publisher, message(2, 1, "t", "later"));
    world.settle();
    let id = |lines: &[String]| {
        let line = lines.first()?;
        let id = line.split('#').nth(1)?.split(' ').next()?;
        id.parse::<u16>().ok()
    };
    let later = world.got(subscriber);
    assert!(later[0].ends_with(" t=later"), "{later:?}");
    assert_ne!(id(&first), id(&later), "{first:?} {later:?}");
}

#[test]
fn a_message_at_fsync_does_not_get_an_identifier_that_a_message_in_memory_had() {
    let settings = mixed(Durability::Fsync, "mem/#", Durability::Memory);
    held_by_the_client(settings, "mem/t", false);
}

#[test]
fn a_message_at_fsync_does_not_get_an_identifier_that_a_message_at_os_had() {
    let settings = mixed(Durability::Fsync, "os/#", Durability::Os);
    held_by_the_client(settings, "os/t", true);
}

#[test]
fn a_message_at_os_does_not_get_an_identifier_that_a_lost_one_had() {
    held_by_the_client(mixed(Durability::Os, "", Durability::Os), "t", true);
}

/// Released before the disk has it, PUBREL would let the client take the message once more.
#[test]
fn a_message_at_os_is_not_delivered_twice_by_a_power_cut() {
    let mut world = World::with(mixed(Durability::Os, "", Durability::Os));
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "#", 2);
    let publisher = world.connect(&client("pub"));
    world.publish(publisher, message(2, 1, "t", "m"));
    world.settle();
    assert_eq!(world.got(subscriber), ["PUBLISH #1 q2 t=m"]);
    world.pubrec(subscriber, 1);
    assert!(world.take());
    world.written();
    let is_released = !world.got(subscriber).is_empty();
    world.crash();
    let subscriber = world.connect(&durable("sub"));
    world.settle();
    let got = world.all(subscriber);
    assert!(!is_released, "released, and then {got:?}");
    assert_eq!(got, ["PUBLISH #1 q2 dup t=m"]);
}

/// The session the client begins is not the one it had: were that back, its identifiers would be
/// taken for those of the new one.
#[test]
fn a_session_ended_at_os_does_not_come_back_for_a_client_that_began_another() {
    let mut world = World::with(mixed(Durability::Os, "", Durability::Os));
    let old = world.connect(&durable("a"));
    world.subscribe(old, "old", 1);
    world.leave(old);
    world.flush();
    let new = world.open(&durable("a").clean());
    assert!(world.take());
    world.written();
    assert_eq!(
        world.got(new),
        [""; 0],
        "the end of the old one is not on disk"
    );
    world.durable();
    assert_eq!(world.got(new), ["CONNACK Success"]);
}

/// 2,000 messages in memory, many of them not finished: all their identifiers are known after each
/// of two crashes, and few more.
#[test]
fn identifiers_of_messages_in_memory_are_known_after_any_number_of_crashes() {
    let mut world = World::with(mixed(Durability::Fsync, "mem/#", Durability::Memory));
    let mut held = std::collections::BTreeSet::new();
    for round in 0..3 {
        let subscriber = world.connect(&durable("sub"));
        if round == 0 {
            world.subscribe(subscriber, "#", 2);
        }
        let publisher = world.connect(&publisher());
        world.flush();
        world.writes();
        for number in 0..700 {
            let topic = if number % 50 == 7 { "t" } else { "mem/t" };
            world.publish(publisher, message(2, 1, topic, "m"));
            world.pubrel(publisher, 1);
            world.settle();
            for line in world.got(subscriber) {
                let id = line.split('#').nth(1).and_then(|it| it.split(' ').next());
                let id: u16 = id.expect("an identifier").parse().expect("a number");
                if line.starts_with("PUBREL") {
                    world.pubcomp(subscriber, id);
                    continue;
                }
                let dup = line.contains(" dup ");
                assert!(dup || held.insert(id), "round {round}: {line}: it is held");
                if number % 50 != 3 {
                    world.pubrec(subscriber, id);
                    world.settle();
                    let released = world.got(subscriber);
                    assert!(
                        released.iter().any(|it| it.starts_with("PUBREL")),
                        "{released:?}"
                    );
                    world.pubcomp(subscriber, id);
                    held.remove(&id);
                }
            }
        }
        let blocks = world.writes();
        let blocks = blocks.iter().filter(|it| it.starts_with("PutInflight"));
        assert!(blocks.count() < 200, "a write for most messages");
        world.crash();
    }
    assert!(held.len() > 30, "{}", held.len());
}

/// Identifiers have begun at 1 again since a client was given the first that it holds: a message at
/// fsync gets none of them, in this process or in the next two.
#[test]
fn identifiers_that_a_client_holds_are_known_after_all_were_given_once() {
    const ALL: u32 = 65_535;
    let mut settings = mixed(Durability::Fsync, "mem/#", Durability::Memory);
    settings.limits.max_inflight_messages = u16::MAX;
    let mut world = World::with(settings);
    let mut held = std::collections::BTreeSet::new();
    for (round, messages) in [ALL + 1_000, ALL + 1_000, 400].into_iter().enumerate() {
        let subscriber = world.connect(&durable("sub"));
        if round == 0 {
            world.subscribe(subscriber, "#", 2);
        }
        let publisher = world.connect(&publisher());
        world.flush();
        for number in 0..messages {
            // One stays in each block of identifiers, so that each has a row when it is opened
            // again; and some in the one that is open at the crash, which nothing else writes by
            // then.
            let left = messages - number;
            let last = left <= 20;
            let (topic, stays) = match number % 100 == 7 && left > 256 {
                true => ("t", false),
                false => ("mem/t", number % 128 == 3 || last),
            };
            world.publish(publisher, message(2, 1, topic, "m"));
            world.pubrel(publisher, 1);
            world.settle();
            let got = world.got(subscriber);
            assert!(!got.is_empty(), "round {round}, {number}: nothing came");
            for line in got {
                let id = line.split('#').nth(1).and_then(|it| it.split(' ').next());
                let id: u16 = id.expect("an identifier").parse().expect("a number");
                assert!(
                    held.insert(id),
                    "round {round}, {number}: {line}: it is held"
                );
                if !stays {
                    world.pubrec(subscriber, id);
                    world.settle();
                    let released = world.got(subscriber);
                    assert!(
                        released.iter().any(|it| it.starts_with("PUBREL")),
                        "{released:?}"
                    );
                    world.pubcomp(subscriber, id);
                    held.remove(&id);
                }
            }
        }
        world.got(publisher);
        world.crash();
    }
    assert!(held.len() > 1_000, "{}", held.len());
}

/// A client that tells of an identifier it holds is asked to release it, and then it can be used
/// again.
#[test]
fn an_identifier_that_a_client_releases_is_free_again() {
    let mut world = World::with(mixed(Durability::Fsync, "mem/#", Durability::Memory));
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "#", 2);
    let publisher = world.connect(&client("pub"));
    world.publish(publisher, message(2, 1, "mem/t", "m"));
    world.settle();
    assert_eq!(world.got(subscriber), ["PUBLISH #1 q2 mem/t=m"]);
    world.crash();
    let subscriber = world.connect(&durable("sub"));
    assert!(world.session(subscriber).inflight.is_held(packet_id(1)));
    world.pubrec(subscriber, 1);
    assert_eq!(
        world.got(subscriber),
        ["PUBREL #1 PacketIdentifierNotFound"]
    );
    world.pubcomp(subscriber, 1);
    world.flush();
    assert!(!world.session(subscriber).inflight.is_held(packet_id(1)));
    world.crash();
    let subscriber = world.connect(&durable("sub"));
    assert!(!world.session(subscriber).inflight.is_held(packet_id(1)));
    assert!(world.session(subscriber).inflight.is_held(packet_id(2)));
}

/// Where everything is in memory no session is on disk, and nothing waits.
#[test]
fn in_memory_alone_nothing_is_written_and_nothing_waits() {
    let mut world = World::with(mixed(Durability::Memory, "", Durability::Memory));
    let subscriber = world.connect(&durable("sub"));
    world.subscribe(subscriber, "#", 2);
    let publisher = world.connect(&durable("pub").will(1, "w", "gone"));
    world.publish(publisher, message(2, 1, "t", "m"));
    assert_eq!(world.got(subscriber), ["PUBLISH #1 q2 t=m"]);
    assert_eq!(world.got(publisher), ["PUBREC #1"]);
    world.pubrel(publisher, 1);
    assert_eq!(world.got(publisher), ["PUBCOMP #1"]);
    world.flush();
    assert_eq!(world.writes(), [""; 0]);
}
