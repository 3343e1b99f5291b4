//! Retained messages.

use support::{Broker, Connect, Message, Subscription, Version, property};

use crate::each_version;

#[test]
fn a_retained_message_greets_new_subscribers_with_the_retain_flag() {
    // [MQTT-3.3.1-5], [MQTT-3.3.1-8]; 3.1.1: [MQTT-3.3.1-5], [MQTT-3.3.1-6]
    each_version(|broker, v| {
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for qos in 0..=2 {
            let topic = format!("state/{qos}");
            publisher.publish(&Message::new(&topic, "on", qos).retained());
            for granted in 0..=2 {
                let id = format!("subscriber-{qos}-{granted}");
                let mut subscriber = Connect::new(v, &id).open(broker.addr());
                subscriber.subscribe(&topic, granted);
                let publish = subscriber.expect(&topic, "on", qos.min(granted));
                assert!(publish.retain && !publish.dup);
                subscriber.expect_nothing();
            }
        }
    });
}

#[test]
fn those_who_had_subscribed_before_get_it_without_the_flag() {
    // [MQTT-3.3.1-9] in 3.1.1, [MQTT-3.3.1-12] in 5.0
    each_version(|broker, v| {
        let mut client = Connect::new(v, "client").open(broker.addr());
        client.subscribe("state", 1);
        client.publish(&Message::new("state", "on", 1).retained());
        let publish = client.expect("state", "on", 1);
        assert!(!publish.retain);
    });
}

#[test]
fn a_new_retained_message_replaces_the_old_one() {
    // [MQTT-3.3.1-5]
    each_version(|broker, v| {
        let mut client = Connect::new(v, "client").open(broker.addr());
        for payload in ["1", "2", "3"] {
            client.publish(&Message::new("state", payload, 1).retained());
        }
        client.publish(&Message::new("state", "not retained", 1));
        client.subscribe("state", 1);
        let publish = client.expect("state", "3", 1);
        assert!(publish.retain);
        client.expect_nothing();
    });
}

#[test]
fn an_empty_retained_message_clears_it_and_is_itself_delivered() {
    // [MQTT-3.3.1-6], [MQTT-3.3.1-7]; 3.1.1: [MQTT-3.3.1-10], [MQTT-3.3.1-11]
    each_version(|broker, v| {
        let mut watcher = Connect::new(v, "watcher").open(broker.addr());
        watcher.subscribe("state", 1);
        let mut client = Connect::new(v, "client").open(broker.addr());
        for qos in 0..=2 {
            client.publish(&Message::new("state", "on", qos).retained());
            client.publish(&Message::new("state", "", qos).retained());
            watcher.expect("state", "on", qos.min(1));
            let publish = watcher.expect("state", "", qos.min(1));
            assert!(!publish.retain);
            let mut late = Connect::new(v, "late").open(broker.addr());
            late.subscribe("state", 2);
            late.expect_nothing();
        }
    });
}

#[test]
fn every_subscribe_brings_the_retained_messages_again() {
    // [MQTT-3.3.1-9]: retain handling 0; 3.1.1: [MQTT-3.8.4-3]
    each_version(|broker, v| {
        let mut client = Connect::new(v, "client").open(broker.addr());
        client.publish(&Message::new("a/b", "on", 1).retained());
        for _ in 0..3 {
            client.subscribe("a/+", 1);
            assert!(client.expect("a/b", "on", 1).retain);
            client.expect_nothing();
        }
    });
}

#[test]
fn a_wildcard_brings_all_retained_messages_that_match() {
    each_version(|broker, v| {
        let mut client = Connect::new(v, "client").open(broker.addr());
        let topics = ["a", "a/b", "a/b/c", "a/x/c", "/a", "b", "$dollar/a"];
        for topic in topics {
            client.publish(&Message::new(topic, topic, 1).retained());
        }
        for (filter, expected) in [
            ("a/#", &["a", "a/b", "a/b/c", "a/x/c"][..]),
            ("a/+/c", &["a/b/c", "a/x/c"]),
            ("+", &["a", "b"]),
            ("/+", &["/a"]),
            ("#", &["/a", "a", "a/b", "a/b/c", "a/x/c", "b"]),
            ("$dollar/#", &["$dollar/a"]),
            ("+/a", &["/a"]),
            ("none", &[]),
        ] {
            client.subscribe(filter, 1);
            let mut got: Vec<String> = expected.iter().map(|_| client.take().topic).collect();
            got.sort();
            assert_eq!(got, expected, "for {filter}");
            client.expect_nothing();
            client.unsubscribe(&[filter]);
        }
    });
}

#[test]
fn retain_handling_1_sends_them_only_for_a_new_subscription() {
    // [MQTT-3.3.1-10]
    let broker = Broker::start();
    let durable = Connect::durable(Version::V5, "handling-1");
    let mut client = durable.open(broker.addr());
    client.publish(&Message::new("a", "on", 1).retained());
    let subscription = Subscription::new("a", 1).retain_handling(1);
    client.subscribe_with(&subscription);
    client.expect("a", "on", 1);
    client.subscribe_with(&subscription);
    client.expect_nothing();
    client.disconnect();
    // The subscription of a session that goes on exists already.
    let mut client = durable.open(broker.addr());
    client.subscribe_with(&subscription);
    client.expect_nothing();
    client.unsubscribe(&["a"]);
    client.subscribe_with(&subscription);
    client.expect("a", "on", 1);
}

#[test]
fn retain_handling_2_never_sends_them() {
    // [MQTT-3.3.1-11]
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "handling-2").open(broker.addr());
    client.publish(&Message::new("a", "on", 1).retained());
    let subscription = Subscription::new("a", 1).retain_handling(2);
    client.subscribe_with(&subscription);
    client.expect_nothing();
    client.publish(&Message::new("a", "off", 1).retained());
    client.expect("a", "off", 1);
}

#[test]
fn retain_as_published_keeps_the_flag() {
    // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
    let broker = Broker::start();
    let mut keeper = Connect::new(Version::V5, "keeper").open(broker.addr());
    keeper.subscribe_with(&Subscription::new("a", 1).retain_as_published());
    let mut other = Connect::new(Version::V5, "other").open(broker.addr());
    other.subscribe("a", 1);
    for retain in [true, false] {
        let message = Message::new("a", "x", 1);
        other.publish(&if retain { message.retained() } else { message });
        assert_eq!(keeper.expect("a", "x", 1).retain, retain);
        assert!(!other.expect("a", "x", 1).retain);
    }
}

#[test]
fn a_retained_message_keeps_its_properties() {
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    let message = Message::new("a", "on", 1).retained().with(|p| {
        p.text(property::CONTENT_TYPE, "json")
            .text(property::RESPONSE_TOPIC, "r")
            .user("k", "v")
    });
    client.publish(&message);
    client.subscribe("a", 1);
    let p = client.expect("a", "on", 1).properties;
    assert_eq!(p.string(property::CONTENT_TYPE), Some("json"));
    assert_eq!(p.string(property::RESPONSE_TOPIC), Some("r"));
    assert_eq!(p.users(), [("k", "v")]);
}

#[test]
fn retained_messages_outlive_the_session_that_published_them() {
    each_version(|broker, v| {
        let mut client = Connect::new(v, "brief").open(broker.addr());
        client.publish(&Message::new("a", "on", 0).retained());
        client.disconnect();
        let mut client = Connect::new(v, "later").open(broker.addr());
        client.subscribe("a", 0);
        assert!(client.expect("a", "on", 0).retain);
    });
}

#[test]
fn many_retained_messages_arrive_through_a_small_window() {
    let broker = Broker::start();
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    let topics: Vec<String> = (0..500).map(|i| format!("many/{i:03}")).collect();
    for topic in &topics {
        publisher.send_publish(&Message::new(topic, "x", 1).retained());
    }
    publisher.ping();
    let connect = Connect::new(Version::V5, "narrow").receive_maximum(3);
    let mut client = connect.open(broker.addr());
    client.subscribe("many/#", 1);
    let mut got: Vec<String> = topics.iter().map(|_| client.take().topic).collect();
    got.sort();
    assert!(got == topics);
    client.expect_nothing();
}

#[test]
fn retained_messages_respect_what_was_granted_to_an_overlapping_subscription() {
    // Section 3.3.1.3: each subscription brings its own.
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    client.publish(&Message::new("a/b", "on", 2).retained());
    client.subscribe("a/b", 2);
    client.expect("a/b", "on", 2);
    client.subscribe("a/#", 0);
    client.expect("a/b", "on", 0);
    client.expect_nothing();
}
