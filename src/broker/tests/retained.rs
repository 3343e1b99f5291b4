//! Retained messages: which is kept, and how they come to new subscriptions.

use super::*;

const NOT_RETAINED: &str =
    "PUBACK #1 (the message was delivered, but not retained: there is no room)";

fn with_retained(count: usize, qos: u8) -> (World, Peer) {
    let mut world = World::new();
    let peer = world.connect(&publisher());
    for number in 0..count {
        let topic = format!("r/{number:05}");
        world.publish(peer, retained(qos, 1, &topic, "m"));
        if qos == 2 {
            world.pubrel(peer, 1);
        }
    }
    world.flush();
    world.got(peer);
    (world, peer)
}

#[test]
fn the_last_message_of_a_topic_is_the_retained_one() {
    let (mut world, peer) = with_retained(0, 0);
    world.publish(peer, retained(1, 1, "t", "old"));
    world.publish(peer, retained(0, 0, "t", "new"));
    world.publish(peer, message(1, 1, "t", "not retained"));
    world.settle();
    let subscriber = world.connect(&client("sub"));
    assert_eq!(
        world.subscribe(subscriber, "t", 2),
        ["SUBACK [GrantedQos2]", "PUBLISH retain t=new"]
    );
    world.publish(peer, retained(0, 0, "t", "")); // [MQTT-3.3.1-6]
    world.settle();
    assert_eq!(world.got(subscriber), ["PUBLISH t="]);
    assert_eq!(world.subscribe(subscriber, "t", 2).len(), 1);
    assert_eq!(world.broker.gauges().retained, 0);
    assert_eq!(world.broker.gauges().retained_bytes, 0);
}

#[test]
fn retained_messages_survive_a_crash() {
    let (mut world, peer) = with_retained(0, 0);
    world.publish(peer, retained(1, 1, "t", "kept"));
    world.publish(peer, retained(1, 1, "u", "taken back"));
    world.publish(peer, retained(1, 1, "u", ""));
    world.settle();
    world.crash();
    let subscriber = world.connect(&client("sub"));
    assert_eq!(
        world.subscribe(subscriber, "#", 1),
        ["SUBACK [GrantedQos1]", "PUBLISH #1 q1 retain t=kept"]
    );
}

#[test]
fn every_filter_finds_the_retained_messages_it_matches() {
    let topics = [
        "a", "a/b", "a/b/c", "a/c", "ab", "a0", "/a", "b/b", "$x/b", "a//b",
    ];
    let filters = [
        "#", "+", "a", "a/#", "a/+", "+/b", "+/#", "a/b/#", "/#", "/+", "$x/#", "a/+/b", "a//b",
        "ab", "x", "a/b/c", "+/+/#", "$x/+", "+/b/#",
    ];
    let mut world = World::new();
    let peer = world.connect(&publisher());
    for topic in topics {
        world.publish(peer, retained(0, 0, topic, "m"));
    }
    world.settle();
    let subscriber = world.connect(&client("sub"));
    for filter in filters {
        let mut got = world.subscribe(subscriber, filter, 0)[1..].to_vec();
        let matching = topics
            .iter()
            .filter(|topic| crate::wire::topic::matches(filter, topic));
        let mut expected: Vec<String> = matching
            .map(|topic| format!("PUBLISH retain {topic}=m"))
            .collect();
        got.sort();
        expected.sort();
        assert_eq!(got, expected, "{filter}");
        world.unsubscribe(subscriber, filter);
        world.got(subscriber);
    }
}

#[test]
fn retain_handling_says_when_they_are_sent() {
    let (mut world, _) = with_retained(1, 0);
    let subscriber = world.connect(&client("sub"));
    let mut got = Vec::new();
    for handling in [
        RetainHandling::Never,
        RetainHandling::IfNew,
        RetainHandling::OnSubscribe,
    ] {
        let options = SubscribeOptions {
            retain_handling: handling,
            ..options(0)
        };
        world.ask(subscriber, 1, &[("r/#", options)]);
        got.push(world.got(subscriber).len() - 1);
        if handling == RetainHandling::Never {
            world.unsubscribe(subscriber, "r/#");
            world.got(subscriber);
        }
    }
    assert_eq!(got, [0, 1, 1]);
    let if_new = SubscribeOptions {
        retain_handling: RetainHandling::IfNew,
        ..options(0)
    };
    world.ask(subscriber, 1, &[("r/#", if_new)]);
    assert_eq!(world.got(subscriber).len(), 1); // [MQTT-3.3.1-10]
}

#[test]
fn a_replay_comes_in_slices_and_in_order() {
    let (mut world, _) = with_retained(1_500, 0);
    let subscriber = world.connect(&client("sub"));
    world.ask(subscriber, 1, &[("r/+", options(0))]);
    let mut out = Vec::new();
    world.broker.take_output(subscriber.id, &mut out, world.now);
    let first = show(&out, subscriber.version);
    assert_eq!(first.len(), 1 + 512);
    let mut touched = Vec::new();
    world.broker.take_touched(&mut touched);
    assert!(touched.contains(&subscriber.id), "there is more to come");
    let rest = world.got(subscriber);
    assert_eq!(rest.len(), 1_500 - 512);
    assert!(first[1..].is_sorted() && rest.is_sorted());
}

#[test]
fn a_search_that_finds_nothing_for_long_is_sliced_too() {
    let (mut world, peer) = with_retained(1_500, 0);
    world.publish(peer, retained(0, 0, "r/99999/x", "found"));
    world.settle();
    let subscriber = world.connect(&client("sub"));
    world.ask(subscriber, 1, &[("r/+/x", options(0))]);
    let mut out = Vec::new();
    for _ in 0..3 {
        world.broker.take_output(subscriber.id, &mut out, world.now);
    }
    assert_eq!(
        show(&out, subscriber.version),
        ["SUBACK [Success]", "PUBLISH retain r/99999/x=found"]
    );
    assert_eq!(world.got(subscriber), [""; 0]);
}

#[test]
fn a_filter_without_wildcards_looks_at_one_topic() {
    let (mut world, peer) = with_retained(1_500, 0);
    world.publish(peer, retained(0, 0, "r", "m"));
    world.settle();
    let subscriber = world.connect(&client("sub"));
    world.ask(subscriber, 1, &[("r", options(0))]);
    world.got(subscriber);
    let mut touched = Vec::new();
    world.broker.take_touched(&mut touched);
    world.ask(subscriber, 1, &[("r", options(0))]);
    let mut out = Vec::new();
    world.broker.take_touched(&mut touched);
    touched.clear();
    world.broker.take_output(subscriber.id, &mut out, world.now);
    world.broker.take_touched(&mut touched);
    assert_eq!(show(&out, subscriber.version).len(), 2);
    assert!(world.session(subscriber).replays.is_empty());
}

#[test]
fn a_replay_keeps_to_the_window() {
    for qos in 1..=2 {
        let (mut world, _) = with_retained(30, qos);
        let subscriber = world.connect(&client("sub").with(Property::ReceiveMaximum(7)));
        assert_eq!(world.subscribe(subscriber, "#", qos).len(), 1 + 7);
        for id in 1..=3 {
            if qos == 1 {
                world.puback(subscriber, id);
            } else {
                world.pubrec(subscriber, id);
                world.pubcomp(subscriber, id);
            }
        }
        let got = world.got(subscriber);
        let publishes = got.iter().filter(|line| line.starts_with("PUBLISH"));
        assert_eq!(publishes.count(), 3);
    }
}

#[test]
fn a_durable_sessions_replay_is_stored_and_taken_up_again() {
    let (mut world, _) = with_retained(10, 2);
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(4)));
    world.writes();
    assert_eq!(world.subscribe(subscriber, "#", 2).len(), 1);
    assert_eq!(world.all(subscriber).len(), 4);
    assert_eq!(
        world.disk.deliveries.len(),
        4,
        "the others are not its own yet"
    );
    world.lose(subscriber);
    world.flush();
    assert_eq!(world.disk.deliveries.len(), 10, "now they wait for it");
    world.crash();
    let subscriber = world.connect(&durable("sub"));
    let got = world.drain(subscriber);
    assert_eq!(got.len(), 10);
    assert!(got[..4].iter().all(|line| line.contains("dup retain")));
    assert!(
        got[4..]
            .iter()
            .all(|line| line.starts_with("PUBLISH q2 retain"))
    );
    world.assert_nothing_left();
}

#[test]
fn a_session_kept_in_memory_takes_up_its_replay_again() {
    let mut world = World::with(Settings {
        durability: super::super::record::DurabilityRules {
            default: Durability::Memory,
            topics: Vec::new(),
        },
        ..Settings::default()
    });
    let peer = world.connect(&publisher());
    for number in 0..10 {
        world.publish(peer, retained(1, 1, &number.to_string(), "m"));
    }
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(4)));
    assert_eq!(world.subscribe(subscriber, "#", 1).len(), 1 + 4);
    world.lose(subscriber);
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.drain(subscriber).len(), 10);
}

#[test]
fn a_client_that_never_catches_up_is_shown_what_is_retained() {
    let (mut world, peer) = with_retained(3, 1);
    let subscriber = world.connect(&client("sub").with(Property::ReceiveMaximum(1)));
    world.subscribe(subscriber, "busy", 1);
    for _ in 0..3 {
        world.publish(peer, message(1, 1, "busy", "m"));
    }
    world.subscribe(subscriber, "r/#", 1);
    let mut shown = 0;
    for id in 1..=12 {
        // There is always one more before the queue is empty [MQTT-3.3.1-9].
        world.publish(peer, message(1, 1, "busy", "m"));
        world.puback(subscriber, id);
        let got = world.got(subscriber);
        shown += got.iter().filter(|line| line.contains("retain r/")).count();
    }
    assert_eq!(shown, 3);
}

#[test]
fn a_subscription_that_is_gone_gets_no_more_retained_messages() {
    let (mut world, _) = with_retained(10, 1);
    let subscriber = world.connect(&client("sub").with(Property::ReceiveMaximum(4)));
    assert_eq!(world.subscribe(subscriber, "r/#", 1).len(), 1 + 4);
    world.unsubscribe(subscriber, "r/#");
    world.puback(subscriber, 1);
    assert_eq!(world.got(subscriber), ["UNSUBACK [Success]"]); // [MQTT-3.10.4-2]
}

#[test]
fn subscribing_over_and_over_while_a_replay_waits_takes_no_memory() {
    let (mut world, _) = with_retained(10, 1);
    let subscriber = world.connect(&client("sub").with(Property::ReceiveMaximum(4)));
    for _ in 0..10_000 {
        world.ask(subscriber, 1, &[("r/#", options(1)), ("+/+", options(1))]);
        world.got(subscriber);
    }
    let replays = world.session(subscriber).replays.len();
    assert!(replays < 20, "{replays}");
    for id in 1..=4 {
        world.puback(subscriber, id);
    }
    assert!(world.drain(subscriber).len() >= 10);
}

#[test]
fn what_is_published_meanwhile_is_newer_than_what_is_replayed() {
    let (mut world, peer) = with_retained(10, 1);
    let subscriber = world.connect(&client("sub").with(Property::ReceiveMaximum(1)));
    world.subscribe(subscriber, "r/#", 1);
    world.publish(peer, retained(1, 1, "r/00009", "newer"));
    world.settle();
    world.puback(subscriber, 1);
    let got = world.drain(subscriber);
    let last = got.iter().rfind(|line| line.contains("r/00009"));
    assert_eq!(
        last.map(String::as_str),
        Some("PUBLISH q1 retain r/00009=newer")
    );
    assert!(!got.iter().any(|line| line.contains("r/00009=m")));
}

#[test]
fn an_expired_retained_message_is_not_sent() {
    let (mut world, _) = with_retained(0, 0);
    let peer = world.connect(&client("pub5"));
    let expiry = [Property::MessageExpiryInterval(10)];
    world.publish_with(peer, retained(1, 1, "t", "m"), &expiry);
    world.settle();
    let subscriber = world.connect(&client("sub"));
    world.jump(4_500);
    assert_eq!(
        world.subscribe(subscriber, "t", 1)[1],
        "PUBLISH #1 q1 retain t=m expiry 6"
    );
    world.jump(5_500);
    assert_eq!(world.subscribe(subscriber, "t", 1).len(), 1);
    world.flush();
    world.crash();
    let subscriber = world.connect(&client("sub"));
    assert_eq!(world.subscribe(subscriber, "t", 1).len(), 1);
}

#[test]
fn a_full_store_of_retained_messages_takes_no_new_ones_and_goes_on_replacing() {
    let mut world = World::with(limited(Limits {
        max_retained_messages: 2,
        // The publisher's name takes 68.
        max_retained_bytes: 8 + 68,
        ..Limits::default()
    }));
    let peer = world.connect(&client("pub5"));
    let old = world.connect(&publisher());
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "#", 0);
    for topic in ["a", "b", "c"] {
        world.publish(peer, retained(1, 1, topic, "m"));
    }
    world.publish(peer, retained(1, 1, "a", "nnn"));
    world.publish(peer, retained(1, 1, "b", "too large"));
    world.settle();
    assert_eq!(
        world.got(peer),
        [
            "PUBACK #1",
            "PUBACK #1",
            NOT_RETAINED,
            "PUBACK #1",
            NOT_RETAINED,
        ]
    );
    assert_eq!(
        world.got(subscriber).len(),
        5,
        "they are delivered all the same"
    );
    assert_eq!(world.broker.counters().refused_retained, 2);
    // What is older than a message that was published does not stand in its place.
    let late = world.connect(&client("late"));
    let expected = ["SUBACK [Success]", "PUBLISH retain a=nnn"];
    assert_eq!(world.subscribe(late, "#", 0), expected);
    world.leave(late);
    world.flush();
    assert_eq!(world.disk.retained.len(), 1);
    world.publish(peer, retained(1, 1, "b", "m"));
    world.all(peer);
    world.all(subscriber);
    // A client that cannot be told is not sent away: it would come back with the same message for
    // ever.
    world.publish(old, retained(1, 1, "c", "m"));
    world.publish(old, retained(2, 2, "c", "m"));
    world.publish(old, retained(0, 0, "c", "m"));
    world.pubrel(old, 2);
    world.settle();
    assert_eq!(world.got(old), ["PUBACK #1", "PUBREC #2", "PUBCOMP #2"]);
    assert_eq!(world.got(subscriber).len(), 3);
}

#[test]
fn what_nobody_gets_and_is_not_retained_is_refused_and_reasons_are_for_those_who_want_them() {
    let mut world = World::with(limited(Limits {
        max_retained_messages: 0,
        ..Limits::default()
    }));
    let peer = world.connect(&client("pub5"));
    let quiet = world.connect(&client("quiet").with(Property::RequestProblemInformation(0)));
    world.publish(peer, retained(1, 1, "t", "m"));
    assert_eq!(world.all(peer), ["PUBACK #1 QuotaExceeded"]);
    let subscriber = world.connect(&client("sub"));
    world.subscribe(subscriber, "#", 0);
    for peer in [peer, quiet] {
        world.publish(peer, retained(2, 1, "t", "m"));
    }
    assert_eq!(world.all(peer), [NOT_RETAINED.replace("PUBACK", "PUBREC")]);
    assert_eq!(world.all(quiet), ["PUBREC #1"]);
    assert_eq!(world.all(subscriber).len(), 2);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_large_replay_holds_nobody_up() {
    let (mut world, _) = with_retained(3_000, 1);
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(1)));
    world.ask(subscriber, 1, &[("r/#", options(1)), ("gone", options(1))]);
    assert_eq!(world.all(subscriber).len(), 2);
    world.lose(subscriber);
    assert_eq!(world.broker.gauges().queued, 512);
    // The timers do the rest; a client that comes back meanwhile takes what is left.
    world.wait(10);
    assert_eq!(world.broker.gauges().queued, 1_024);
    let subscriber = world.connect(&durable("sub"));
    world.wait(10);
    assert_eq!(world.broker.gauges().queued, 1_024);
    world.lose(subscriber);
    world.wait(1_000);
    assert_eq!(world.broker.gauges().queued, 2_999);
    world.flush();
    world.crash();
    let subscriber = world.connect(&durable("sub"));
    let got = world.drain(subscriber);
    assert_eq!(got.len(), 3_000);
    assert!(got[1..].is_sorted());
    world.assert_nothing_left();
}

/// The process dies before all of a large replay could be sent: what was promised with SUBACK comes
/// from the next one.
#[test]
fn a_replay_to_a_durable_session_goes_on_after_a_crash() {
    let (mut world, _) = with_retained(3_000, 1);
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(1)));
    world.ask(subscriber, 1, &[("r/#", options(1)), ("gone", options(1))]);
    assert_eq!(world.all(subscriber).len(), 2);
    world.crash();
    world.wait(1_000);
    let subscriber = world.connect(&durable("sub"));
    let got = world.drain(subscriber);
    let topics: std::collections::BTreeSet<&str> = got
        .iter()
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    assert_eq!(topics.len(), 3_000);
    // It is over, and nothing comes again.
    world.lose(subscriber);
    world.flush();
    world.crash();
    world.wait(1_000);
    let subscriber = world.connect(&durable("sub"));
    assert_eq!(world.drain(subscriber), [""; 0]);
    world.assert_nothing_left();
}

/// A subscription is made anew without a wish for retained messages, while those wished for before
/// are on their way.
#[test]
fn a_replay_that_goes_on_is_known_after_a_crash_whatever_the_subscription_says_now() {
    let (mut world, _) = with_retained(50, 1);
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(1)));
    world.ask(subscriber, 1, &[("r/#", options(1))]);
    world.settle();
    let never = SubscribeOptions {
        retain_handling: RetainHandling::Never,
        ..options(2)
    };
    world.ask(subscriber, 2, &[("r/#", never)]);
    world.settle();
    world.crash();
    world.wait(1_000);
    let subscriber = world.connect(&durable("sub"));
    let got = world.drain(subscriber);
    assert!(got.len() >= 50, "{}", got.len());
    world.flush();
    let (_, record) = world.disk.subscriptions.first_key_value().expect("one");
    assert_eq!(record.replaying, None);
    assert_eq!(record.options.retain_handling, RetainHandling::Never);
}

/// A crash in the middle of a replay: it goes on where it was, and nothing comes twice but what was
/// under way.
#[test]
fn a_replay_goes_on_after_a_crash_where_it_was() {
    const WINDOW: usize = 4;
    let (mut world, _) = with_retained(100, 1);
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(WINDOW as u16)));
    world.ask(subscriber, 1, &[("r/#", options(1))]);
    world.settle();
    let topic = |line: &String| line.rsplit(' ').next().map(str::to_owned);
    let mut seen = Vec::new();
    for _ in 0..8 {
        for line in world.got(subscriber) {
            if !line.starts_with("PUBLISH") {
                continue;
            }
            let id = line.split('#').nth(1).and_then(|it| it.split(' ').next());
            let id = id.and_then(|id| id.parse().ok()).expect("an identifier");
            seen.extend(topic(&line));
            world.puback(subscriber, id);
        }
        world.settle();
    }
    assert!((8..90).contains(&seen.len()), "{}", seen.len());
    world.crash();
    world.wait(1_000);
    let subscriber = world.connect(&durable("sub"));
    let after: Vec<String> = world.drain(subscriber).iter().filter_map(topic).collect();
    let repeated = after.iter().filter(|topic| seen.contains(topic)).count();
    assert!(repeated <= WINDOW, "{repeated} of {seen:?} came again");
    seen.extend(after);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 100);
}

/// The place of a replay is written with the batch in which its subscription is removed: the row
/// must stay away.
#[test]
fn a_subscription_that_is_removed_in_the_middle_of_its_replay_does_not_come_back_with_a_crash() {
    let (mut world, _) = with_retained(100, 1);
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(4)));
    world.ask(subscriber, 1, &[("r/#", options(1))]);
    world.settle();
    assert_eq!(world.all(subscriber).len(), 5, "SUBACK and four messages");
    world.settle();
    assert_eq!(world.disk.subscriptions.len(), 1);
    world.puback(subscriber, 1);
    world
        .broker
        .take_output(subscriber.id, &mut Vec::new(), world.now);
    world.unsubscribe(subscriber, "r/#");
    world.settle();
    assert_eq!(world.disk.subscriptions.len(), 0);
    world.flush();
    world.crash();
    let subscriber = world.connect(&durable("sub"));
    world.drain(subscriber);
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "r/new", "m"));
    assert_eq!(world.drain(subscriber), [""; 0]);
}
