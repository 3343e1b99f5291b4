//! SUBSCRIBE: what matches, with which options, and what is answered.

use support::{Broker, Client, Connect, Message, Properties, Subscription, Version, raw};

use crate::{each_version, in_versions};

/// Filters, topic names, and whether one matches the other: section 4.7.
const MATCHES: &[(&str, &str, bool)] = &[
    ("a", "a", true),
    ("a", "A", false),
    ("a", "a/", false),
    ("a", "/a", false),
    ("a/b", "a/b", true),
    ("a/b", "a/b/c", false),
    ("a/b/c", "a/b", false),
    ("#", "a", true),
    ("#", "a/b/c", true),
    ("#", "/", true),
    ("a/#", "a", true),
    ("a/#", "a/b", true),
    ("a/#", "a/b/c", true),
    ("a/#", "a/", true),
    ("a/#", "ab", false),
    ("a/#", "b/a", false),
    ("a/b/#", "a", false),
    ("+", "a", true),
    ("+", "a/b", false),
    ("+", "/a", false),
    ("+/+", "/a", true),
    ("/+", "/a", true),
    ("+/", "a/", true),
    ("+/", "a", false),
    ("a/+", "a", false),
    ("a/+", "a/", true),
    ("a/+", "a/b", true),
    ("a/+", "a/b/c", false),
    ("a/+/c", "a/b/c", true),
    ("a/+/c", "a//c", true),
    ("a/+/c", "a/c", false),
    ("+/b/#", "a/b", true),
    ("+/b/#", "a/b/c/d", true),
    ("+/b/#", "b/b", true),
    ("+/b/#", "b", false),
    ("+/+/#", "a", false),
    ("+/+/#", "a/b", true),
    ("+/#", "a", true),
    ("/#", "/", true),
    ("/#", "/a/b", true),
    ("/#", "a", false),
    ("//", "//", true),
    ("//", "/", false),
    ("+/é/+", "a/é/鍵", true),
    ("é/x", "é/x", true),
    ("#", "é/x", true),
    ("a b", "a b", true),
    // [MQTT-4.7.2-1]
    ("#", "$SYS/x", false),
    ("+/x", "$SYS/x", false),
    ("+/+", "$any/x", false),
    ("$any/#", "$any/x", true),
    ("$any/+", "$any/x", true),
    ("$any/x", "$any/x", true),
    ("a/#", "a/$x", true),
    ("a/+", "a/$x", true),
];

#[test]
fn a_filter_matches_what_the_standard_says_it_matches() {
    // [MQTT-4.7.1-1] to [MQTT-4.7.3-4]
    each_version(|broker, v| {
        let mut subscriber = Connect::new(v, "subscriber").open(broker.addr());
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for (i, &(filter, topic, matches)) in MATCHES.iter().enumerate() {
            subscriber.subscribe(filter, 0);
            publisher.publish(&Message::new(topic, i.to_string(), 0));
            println!("{filter} and {topic}");
            if matches {
                subscriber.expect(topic, i.to_string(), 0);
            }
            subscriber.expect_nothing();
            subscriber.unsubscribe(&[filter]);
        }
    });
}

#[test]
fn all_filters_at_once_still_give_one_delivery() {
    // [MQTT-3.3.4-2]: this server merges overlapping subscriptions into one delivery of the highest
    // QoS.
    let Some(broker) = Broker::with("") else {
        return;
    };
    for v in Version::ALL {
        let mut client = Connect::new(v, "overlapping").open(broker.addr());
        client.subscribe("a/#", 0);
        client.subscribe("a/+", 2);
        client.subscribe("a/b", 1);
        client.subscribe("#", 0);
        for qos in 0..=2 {
            client.publish(&Message::new("a/b", "x", qos));
            client.expect("a/b", "x", qos);
            client.expect_nothing();
        }
        client.unsubscribe(&["a/+"]);
        client.publish(&Message::new("a/b", "x", 2));
        client.expect("a/b", "x", 1);
    }
}

#[test]
fn each_filter_is_answered_in_order() {
    // [MQTT-3.8.4-5], [MQTT-3.8.4-6], [MQTT-3.8.4-7]
    each_version(|broker, v| {
        let mut client = Connect::new(v, "answers").open(broker.addr());
        let filters: Vec<Subscription> = [2, 0, 1, 1, 2]
            .into_iter()
            .enumerate()
            .map(|(i, qos)| Subscription::new(&format!("f/{i}"), qos))
            .collect();
        let codes = client.subscribe_to(&filters, &Properties::new());
        assert_eq!(codes, [2, 0, 1, 1, 2]);
    });
}

#[test]
fn a_second_subscribe_to_the_same_filter_replaces_the_first() {
    // [MQTT-3.8.4-3]
    each_version(|broker, v| {
        let mut client = Connect::new(v, "replacing").open(broker.addr());
        for qos in [2, 0, 1] {
            client.subscribe("a", qos);
            client.publish(&Message::new("a", "x", 2));
            client.expect("a", "x", qos);
            client.expect_nothing();
        }
    });
}

#[test]
fn the_same_filter_twice_in_one_subscribe_is_handled_in_order() {
    // [MQTT-3.8.4-5]: as if they were a sequence of SUBSCRIBEs.
    each_version(|broker, v| {
        let mut client = Connect::new(v, "double").open(broker.addr());
        let filters = [Subscription::new("a", 2), Subscription::new("a", 1)];
        assert_eq!(client.subscribe_to(&filters, &Properties::new()), [2, 1]);
        client.publish(&Message::new("a", "x", 2));
        client.expect("a", "x", 1);
        client.expect_nothing();
    });
}

#[test]
fn an_illegal_filter_is_refused_and_the_others_are_granted() {
    // [MQTT-4.7.1-1], [MQTT-4.7.1-2]; SUBACK code 0x8F, or 0x80 in 3.1.1. In MQTT 3.1, which has no
    // code for it, the server closes or grants less; here it answers like 3.1.1.
    let Some(broker) = Broker::with("") else {
        return;
    };
    for v in [Version::V311, Version::V5] {
        let code = if v.is5() { 0x8f } else { 0x80 };
        for filter in [
            "a/#/b", "a#", "#a", "a/b+", "+a", "a/+b/c", "##", "++", "$share/g",
        ] {
            if filter.starts_with("$share") && !v.is5() {
                continue;
            }
            let mut client = Connect::new(v, "careless").open(broker.addr());
            let filters = [
                Subscription::new("good/1", 1),
                Subscription::new(filter, 1),
                Subscription::new("good/2", 2),
            ];
            println!("{filter}");
            let codes = client.subscribe_to(&filters, &Properties::new());
            assert_eq!(codes, [1, code, 2], "for {filter} in MQTT {v}");
            client.publish(&Message::new("good/1", "x", 0));
            client.expect("good/1", "x", 0);
        }
    }
}

#[test]
fn an_empty_filter_is_refused() {
    // [MQTT-4.7.3-1]: at least one character.
    in_versions(&[Version::V311, Version::V5], |broker, v| {
        let mut client = Connect::new(v, "empty").open(broker.addr());
        match v {
            Version::V5 => client.send(&raw::subscribe5(0x82, 1, &[], b"", 0)),
            _ => client.send(&raw::subscribe3(0x82, 1, b"", 0)),
        }
        match client.try_receive(support::TIMEOUT) {
            Ok(Some(support::Packet::SubAck(suback))) => {
                assert_eq!(suback.codes, [if v.is5() { 0x8f } else { 0x80 }]);
            }
            Ok(Some(support::Packet::Disconnect(said))) => {
                assert!([0x81, 0x82, 0x8f].contains(&said.reason), "{said:?}");
            }
            Ok(None) if !v.is5() => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn no_local_hides_what_the_client_itself_published() {
    // [MQTT-3.8.3-3]
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "deaf").open(broker.addr());
    let mut other = Connect::new(Version::V5, "other").open(broker.addr());
    client.subscribe_with(&Subscription::new("a", 1).no_local());
    client.publish(&Message::new("a", "mine", 1));
    client.expect_nothing();
    other.publish(&Message::new("a", "theirs", 1));
    client.expect("a", "theirs", 1);
    // Another subscription without the option still brings it.
    client.subscribe("+", 0);
    client.publish(&Message::new("a", "mine", 1));
    client.expect("a", "mine", 0);
    client.expect_nothing();
}

#[test]
fn no_local_holds_for_the_session_not_for_the_connection() {
    let broker = Broker::start();
    let durable = Connect::durable(Version::V5, "deaf");
    let mut client = durable.open(broker.addr());
    client.subscribe_with(&Subscription::new("a", 1).no_local());
    client.disconnect();
    let mut client = durable.open(broker.addr());
    client.publish(&Message::new("a", "mine", 1));
    client.expect_nothing();
}

#[test]
fn a_subscription_of_any_size_of_topic_tree_works() {
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "deep").open(broker.addr());
    let deep = vec!["l"; 100].join("/");
    client.subscribe(&format!("{deep}/#"), 0);
    client.publish(&Message::new(&format!("{deep}/x"), "1", 0));
    client.expect(&format!("{deep}/x"), "1", 0);
    client.unsubscribe(&[&format!("{deep}/#")]);
    client.subscribe(&deep.replace("l/l", "+/l"), 0);
    client.publish(&Message::new(&deep, "2", 0));
    client.expect(&deep, "2", 0);
    client.publish(&Message::new(&format!("{deep}/x"), "3", 0));
    client.expect_nothing();
}

#[test]
fn one_message_reaches_every_subscriber() {
    each_version(|broker, v| {
        let mut subscribers: Vec<Client> = (0..50)
            .map(|i| Connect::new(v, &format!("s{i}")).open(broker.addr()))
            .collect();
        for (i, subscriber) in subscribers.iter_mut().enumerate() {
            subscriber.subscribe(["fan/out", "fan/+", "#"][i % 3], (i % 3) as u8);
        }
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for qos in 0..=2 {
            publisher.publish(&Message::new("fan/out", "x", qos));
            for (i, subscriber) in subscribers.iter_mut().enumerate() {
                subscriber.expect("fan/out", "x", qos.min((i % 3) as u8));
            }
        }
    });
}

#[test]
fn a_suback_comes_before_anything_that_the_subscription_brings_later() {
    // [MQTT-3.8.4-1]; messages may come before it, but none may be missing after it.
    each_version(|broker, v| {
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        let mut client = Connect::new(v, "client").open(broker.addr());
        client.subscribe("a", 1);
        publisher.publish(&Message::new("a", "right after", 1));
        client.expect("a", "right after", 1);
    });
}
