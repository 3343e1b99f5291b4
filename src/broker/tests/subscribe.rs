//! SUBSCRIBE and UNSUBSCRIBE: options, overlaps, identifiers.

use super::*;

#[test]
fn overlapping_subscriptions_make_one_delivery_with_the_highest_qos_and_all_identifiers() {
    let mut world = World::new();
    let subscriber = world.connect(&client("sub"));
    world.subscribe_as(subscriber, "a/+", options(0), 1);
    world.subscribe_as(subscriber, "a/b", options(2), 2);
    world.subscribe_as(subscriber, "#", options(1), 3);
    world.subscribe(subscriber, "+/b", 1);
    let peer = world.connect(&publisher());
    world.publish(peer, message(2, 1, "a/b", "m"));
    let got = world.got(subscriber);
    assert_eq!(got.len(), 1, "{got:?}"); // [MQTT-3.3.4-2]
    assert!(got[0].starts_with("PUBLISH #1 q2 a/b=m"));
    let mut ids: Vec<&str> = got[0].split(" id ").skip(1).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["1", "2", "3"]); // [MQTT-3.3.4-4]
}

#[test]
fn identifiers_travel_with_a_message_through_queue_and_restart() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe_as(subscriber, "t", options(1), 268_435_455);
    world.subscribe_as(subscriber, "+", options(1), 1);
    world.lose(subscriber);
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", "m"));
    world.flush();
    world.crash();
    let subscriber = world.connect(&durable("sub"));
    let got = world.drain(subscriber);
    assert_eq!(got.len(), 1);
    assert!(got[0].contains(" id 268435455") && got[0].contains(" id 1"));
    // And the subscriptions themselves do.
    let peer = world.connect(&publisher());
    world.publish(peer, message(0, 0, "t", "m"));
    assert!(world.got(subscriber)[0].contains(" id 268435455"));
}

#[test]
fn a_second_subscription_with_the_same_filter_replaces_the_first() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub"));
    world.subscribe_as(subscriber, "t", options(2), 1);
    world.subscribe_as(subscriber, "t", options(1), 2);
    let peer = world.connect(&publisher());
    world.publish(peer, message(2, 1, "t", "m"));
    world.settle();
    assert_eq!(world.got(subscriber), ["PUBLISH #1 q1 t=m id 2"]); // [MQTT-3.8.4-3]
    world.subscribe(subscriber, "t", 0);
    world.publish(peer, message(2, 2, "t", "m"));
    assert_eq!(world.got(subscriber), ["PUBLISH t=m"]);
    assert_eq!(world.disk.subscriptions.len(), 1);
}

#[test]
fn no_local_keeps_a_clients_own_messages_from_it() {
    let mut world = World::new();
    let own = world.connect(&client("a"));
    let no_local = SubscribeOptions {
        no_local: true,
        ..options(1)
    };
    world.subscribe_as(own, "t", no_local, 1);
    world.subscribe_as(own, "#", options(0), 2);
    world.publish(own, message(1, 1, "t", "mine"));
    assert_eq!(world.got(own), ["PUBLISH t=mine id 2", "PUBACK #1"]); // [MQTT-3.8.3-3]
    let other = world.connect(&publisher());
    world.publish(other, message(1, 1, "t", "yours"));
    assert!(world.got(own)[0].starts_with("PUBLISH #1 q1 t=yours"));
    world.unsubscribe(own, "#");
    world.publish(own, message(1, 2, "t", "mine"));
    assert_eq!(
        world.got(own),
        ["UNSUBACK [Success]", "PUBACK #2 NoMatchingSubscribers"]
    );
}

#[test]
fn options_of_mqtt_5_wait_while_a_client_of_mqtt_3_has_the_session() {
    let mut world = World::new();
    let peer = world.connect(&durable("a"));
    let all = SubscribeOptions {
        retain_as_published: true,
        no_local: true,
        ..options(1)
    };
    world.ask(peer, 1, &[("t", all), ("$share/g/s", all)]);
    world.all(peer);
    world.lose(peer);
    let other = world.connect(&publisher());
    let old = client("a").version(ProtocolVersion::V311);
    let peer = world.connect(&old);
    for topic in ["t", "s"] {
        world.publish(other, retained(1, 1, topic, "m"));
    }
    world.publish(peer, retained(0, 0, "t", "own"));
    // [MQTT-3.3.1-9] of MQTT 3.1.1, which has no No Local either.
    let expected = ["PUBLISH q1 t=m", "PUBLISH q1 s=m", "PUBLISH t=own"];
    assert_eq!(world.drain(peer), expected);
    world.lose(peer);
    let peer = world.connect(&durable("a"));
    for topic in ["t", "s"] {
        world.publish(other, retained(1, 1, topic, "m"));
    }
    world.publish(peer, retained(0, 0, "t", "own"));
    let expected = ["PUBLISH q1 retain t=m", "PUBLISH q1 retain s=m"];
    assert_eq!(world.drain(peer), expected);
}

#[test]
fn the_retain_flag_is_kept_only_where_that_was_asked_for() {
    let mut world = World::new();
    let plain = world.connect(&client("a"));
    world.subscribe(plain, "t", 0);
    let kept = world.connect(&client("b"));
    let as_published = SubscribeOptions {
        retain_as_published: true,
        ..options(0)
    };
    world.ask(kept, 1, &[("t", as_published)]);
    world.got(kept);
    let peer = world.connect(&publisher());
    world.publish(peer, retained(0, 0, "t", "m"));
    world.settle();
    assert_eq!(world.got(plain), ["PUBLISH t=m"]); // [MQTT-3.3.1-12]
    assert_eq!(world.got(kept), ["PUBLISH retain t=m"]); // [MQTT-3.3.1-13]
    world.publish(peer, message(0, 0, "t", "m"));
    assert_eq!(world.got(kept), ["PUBLISH t=m"]);
}

#[test]
fn each_filter_has_its_code_in_order() {
    let mut world = World::with(limited(Limits {
        maximum_qos: QoS::AtLeastOnce,
        max_subscriptions: 3,
        max_topic_levels: 3,
        max_topic_length: 20,
        ..Limits::default()
    }));
    let peer = world.connect(&client("a"));
    world.ask(
        peer,
        1,
        &[
            ("a", options(0)),
            ("a/#/b", options(0)),
            ("b", options(2)),
            ("a/b/c/d", options(0)),
            ("$share/g/c", options(1)),
            ("d", options(1)),
            ("a", options(1)),
            ("123456789012345678901", options(1)),
        ],
    );
    assert_eq!(
        world.got(peer),
        [
            "SUBACK [Success, TopicFilterInvalid, GrantedQos1, TopicFilterInvalid, GrantedQos1, QuotaExceeded, GrantedQos1, TopicFilterInvalid]"
        ]
    );
    assert_eq!(world.broker.counters().subscriptions_refused, 1);
    assert_eq!(world.broker.counters().topics_refused, 2);
    world.unsubscribe(peer, "a");
    world.ask(peer, 1, &[("d", options(1))]);
    assert_eq!(
        world.got(peer),
        ["UNSUBACK [Success]", "SUBACK [GrantedQos1]"]
    );
}

#[test]
fn unsubscribing_stops_new_messages_and_keeps_the_old() {
    let mut world = World::new();
    let subscriber = world.connect(&durable("sub").with(Property::ReceiveMaximum(1)));
    world.subscribe(subscriber, "t", 1);
    let peer = world.connect(&publisher());
    for payload in ["a", "b"] {
        world.publish(peer, message(1, 1, "t", payload));
    }
    world.settle();
    world.got(subscriber);
    world.unsubscribe(subscriber, "t");
    world.publish(peer, message(1, 1, "t", "c"));
    world.settle();
    world.puback(subscriber, 1);
    assert_eq!(world.drain(subscriber), ["PUBLISH q1 t=b"]);
    world.assert_nothing_left();
    assert!(world.disk.subscriptions.is_empty());
}

#[test]
fn unsubscribing_what_is_not_there_is_answered_and_writes_nothing() {
    let mut world = World::new();
    let peer = world.connect(&durable("a"));
    let other = world.connect(&durable("b"));
    world.subscribe(other, "t", 1);
    world.subscribe(other, "$share/g/t", 1);
    world.writes();
    for filter in ["t", "$share/g/t", "never/seen", "$share/x/t"] {
        world.unsubscribe(peer, filter);
    }
    world.unsubscribe(peer, "a/#/b");
    let mut expected = vec!["UNSUBACK [NoSubscriptionExisted]"; 4];
    expected.push("UNSUBACK [TopicFilterInvalid]");
    assert_eq!(world.got(peer), expected);
    assert!(!world.take());
}

#[test]
fn dollar_topics_are_hidden_from_leading_wildcards() {
    let mut world = World::new();
    let subscriber = world.connect(&client("sub"));
    for filter in ["#", "+/x", "$share/g/#"] {
        world.subscribe(subscriber, filter, 0);
    }
    let peer = world.connect(&publisher());
    world.publish(peer, message(0, 0, "$own/x", "m"));
    assert_eq!(world.got(subscriber), [""; 0]); // [MQTT-4.7.2-1]
    world.subscribe(subscriber, "$own/+", 0);
    world.publish(peer, message(0, 0, "$own/x", "m"));
    assert_eq!(world.got(subscriber), ["PUBLISH $own/x=m"]);
}

#[test]
fn an_unsubscribe_from_what_is_no_filter_ends_an_old_clients_connection() {
    // [MQTT-4.7.3-1]: MQTT 3 has no reason code for it.
    for filter in ["", "a/#/b", "a+"] {
        for version in [ProtocolVersion::V31, ProtocolVersion::V311] {
            let mut world = World::new();
            let peer = world.connect(&client("a").version(version).clean());
            world.unsubscribe(peer, filter);
            assert_eq!(world.got(peer), [""; 0], "{filter:?}");
            assert!(world.closes(peer), "{filter:?}");
        }
        let mut world = World::new();
        let peer = world.connect(&client("a"));
        world.unsubscribe(peer, filter);
        let got = world.got(peer);
        assert!(got[0].contains("TopicFilterInvalid"), "{filter:?}: {got:?}");
        assert!(!world.closes(peer));
    }
}
