//! Wills.

use std::time::{Duration, Instant};

use support::{Broker, Client, Connect, Message, Properties, Version, Will, property};

use crate::each_version;

fn watcher(broker: &Broker, v: Version) -> Client {
    let mut watcher = Connect::new(v, "watcher").open(broker.addr());
    watcher.subscribe("will/#", 2);
    watcher
}

fn will(payload: &str, qos: u8) -> Will {
    Will::new(Message::new("will/x", payload, qos))
}

#[test]
fn a_will_is_published_when_a_connection_is_cut() {
    // [MQTT-3.1.2-7], [MQTT-3.1.2-8]
    each_version(|broker, v| {
        let mut watcher = watcher(broker, v);
        for qos in 0..=2 {
            let connect = Connect::new(v, "mortal").will(will("died", qos));
            connect.open(broker.addr()).drop_connection();
            let publish = watcher.expect("will/x", "died", qos);
            assert!(!publish.retain);
        }
        watcher.expect_nothing();
    });
}

#[test]
fn a_will_is_not_published_after_a_clean_disconnect() {
    // [MQTT-3.1.2-10], [MQTT-3.14.4-3]; 3.1.1: [MQTT-3.14.4-3]
    each_version(|broker, v| {
        let mut watcher = watcher(broker, v);
        let connect = Connect::new(v, "polite").will(will("died", 1));
        connect.open(broker.addr()).disconnect();
        watcher.expect_nothing();
        // Nor later, when the session has gone on without a will.
        Connect::new(v, "polite")
            .open(broker.addr())
            .drop_connection();
        Connect::new(v, "another").open(broker.addr()).ping();
        watcher.expect_nothing();
    });
}

#[test]
fn a_will_is_published_when_the_keep_alive_runs_out() {
    each_version(|broker, v| {
        let mut watcher = watcher(broker, v);
        let connect = Connect::new(v, "silent")
            .keep_alive(1)
            .will(will("silence", 1));
        let mut client = connect.open(broker.addr());
        watcher.expect("will/x", "silence", 1);
        client.expect_disconnect(&[0x8d]);
    });
}

#[test]
fn a_will_is_published_when_the_client_breaks_the_protocol() {
    each_version(|broker, v| {
        let mut watcher = watcher(broker, v);
        let connect = Connect::new(v, "rude").will(will("thrown out", 1));
        let mut client = connect.open(broker.addr());
        client.send(&connect.bytes());
        client.expect_disconnect(&[0x82]);
        watcher.expect("will/x", "thrown out", 1);
    });
}

#[test]
fn a_will_is_published_at_a_take_over() {
    // MQTT 5 section 3.1.4: the will of the old connection, if it has no delay.
    each_version(|broker, v| {
        let mut watcher = watcher(broker, v);
        let connect = Connect::durable(v, "twice");
        let mut old = connect.clone().will(will("old", 1)).open(broker.addr());
        let new = connect.clone().will(will("new", 1)).open(broker.addr());
        old.expect_disconnect(&[0x8e]);
        watcher.expect("will/x", "old", 1);
        watcher.expect_nothing();
        new.drop_connection();
        watcher.expect("will/x", "new", 1);
    });
}

#[test]
fn a_disconnect_with_will_publishes_it() {
    // Reason 0x04
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let connect = Connect::new(Version::V5, "wilful").will(will("as asked", 1));
    let client = connect.open(broker.addr());
    client.disconnect_with(0x04, &Properties::new());
    watcher.expect("will/x", "as asked", 1);
}

#[test]
fn a_disconnect_that_says_an_error_publishes_the_will() {
    // [MQTT-3.14.4-3]: only reason 0x00 discards it.
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    for reason in [0x80, 0x81, 0x97] {
        let connect = Connect::new(Version::V5, "failing").will(will("error", 1));
        let client = connect.open(broker.addr());
        client.disconnect_with(reason, &Properties::new());
        watcher.expect("will/x", "error", 1);
    }
}

#[test]
fn a_retained_will_is_retained() {
    // [MQTT-3.1.2-14], [MQTT-3.1.2-15]; 3.1.1: [MQTT-3.1.2-16], [MQTT-3.1.2-17]
    each_version(|broker, v| {
        let mut watcher = watcher(broker, v);
        let will = Will::new(Message::new("will/state", "offline", 1).retained());
        Connect::new(v, "device")
            .will(will)
            .open(broker.addr())
            .drop_connection();
        watcher.expect("will/state", "offline", 1);
        let mut late = Connect::new(v, "late").open(broker.addr());
        late.subscribe("will/state", 1);
        assert!(late.expect("will/state", "offline", 1).retain);
    });
}

#[test]
fn an_empty_will_is_a_will() {
    each_version(|broker, v| {
        let mut watcher = watcher(broker, v);
        let connect = Connect::new(v, "speechless").will(will("", 1));
        connect.open(broker.addr()).drop_connection();
        watcher.expect("will/x", "", 1);
    });
}

#[test]
fn a_will_carries_its_properties() {
    // MQTT 5 section 3.1.3.2
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let message = Message::new("will/x", "died", 1).with(|p| {
        p.byte(property::PAYLOAD_FORMAT, 1)
            .four(property::MESSAGE_EXPIRY, 100)
            .text(property::CONTENT_TYPE, "text")
            .text(property::RESPONSE_TOPIC, "r")
            .binary(property::CORRELATION_DATA, &[1, 0, 2])
            .user("a", "1")
            .user("a", "2")
    });
    let connect = Connect::new(Version::V5, "mortal").will(Will::new(message));
    connect.open(broker.addr()).drop_connection();
    let p = watcher.expect("will/x", "died", 1).properties;
    assert_eq!(p.number(property::PAYLOAD_FORMAT), Some(1));
    let expiry = p.number(property::MESSAGE_EXPIRY);
    assert!(matches!(expiry, Some(99 | 100)), "{expiry:?}");
    assert_eq!(p.string(property::CONTENT_TYPE), Some("text"));
    assert_eq!(p.string(property::RESPONSE_TOPIC), Some("r"));
    assert_eq!(p.bytes(property::CORRELATION_DATA), Some(&[1, 0, 2][..]));
    // [MQTT-3.1.3-10]
    assert_eq!(p.users(), [("a", "1"), ("a", "2")]);
    assert_eq!(p.number(property::WILL_DELAY), None);
}

#[test]
fn a_will_waits_for_its_delay() {
    // [MQTT-3.1.3-9], section 3.1.3.2.2
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let connect = Connect::durable(Version::V5, "delayed").will(will("late", 1).delay(2));
    let client = connect.open(broker.addr());
    let cut = Instant::now();
    client.drop_connection();
    watcher.expect_nothing();
    watcher.expect("will/x", "late", 1);
    let waited = cut.elapsed();
    assert!(waited >= Duration::from_millis(1900), "after {waited:?}");
    assert!(waited < Duration::from_secs(6), "after {waited:?}");
}

#[test]
fn a_client_that_comes_back_in_time_cancels_its_delayed_will() {
    // [MQTT-3.1.3-9]
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let durable = Connect::durable(Version::V5, "back");
    let connect = durable.clone().will(will("late", 1).delay(1));
    connect.open(broker.addr()).drop_connection();
    let mut client = durable.open(broker.addr());
    std::thread::sleep(Duration::from_millis(2200));
    client.ping();
    watcher.expect_nothing();
}

#[test]
fn a_take_over_cancels_a_delayed_will_unless_it_starts_clean() {
    // Section 3.1.4, non-normative comment: a clean start ends the session, and with it the delay.
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let connect = Connect::durable(Version::V5, "twice").will(will("late", 1).delay(1000));
    let mut first = connect.open(broker.addr());
    let mut second = connect.open(broker.addr());
    first.expect_disconnect(&[0x8e]);
    watcher.expect_nothing();
    let third = connect.clone().clean(true).open(broker.addr());
    second.expect_disconnect(&[0x8e]);
    watcher.expect("will/x", "late", 1);
    third.disconnect();
    watcher.expect_nothing();
}

#[test]
fn a_delayed_will_is_published_when_the_session_ends_first() {
    // Section 3.1.3.2.2: whichever comes first.
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let without_session = Connect::new(Version::V5, "ends-at-once").will(will("a", 1).delay(1000));
    without_session.open(broker.addr()).drop_connection();
    watcher.expect("will/x", "a", 1);
    let short = Connect::new(Version::V5, "ends-soon")
        .clean(false)
        .expiry(1);
    let cut = Instant::now();
    short
        .will(will("b", 1).delay(1000))
        .open(broker.addr())
        .drop_connection();
    watcher.expect("will/x", "b", 1);
    let waited = cut.elapsed();
    assert!(waited >= Duration::from_millis(900), "after {waited:?}");
    assert!(waited < Duration::from_secs(6), "after {waited:?}");
}

#[test]
fn the_expiry_interval_of_a_will_begins_when_it_is_published() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let message = Message::new("will/x", "x", 1).with(|p| p.four(property::MESSAGE_EXPIRY, 1));
    let connect = Connect::durable(Version::V5, "d").will(Will::new(message).delay(2));
    connect.open(broker.addr()).drop_connection();
    watcher.expect("will/x", "x", 1);
}

#[test]
fn a_will_waits_for_subscribers_that_are_away() {
    each_version(|broker, v| {
        let durable = Connect::durable(v, "away");
        let mut client = durable.open(broker.addr());
        client.subscribe("will/#", 2);
        client.disconnect();
        let connect = Connect::new(v, "mortal").will(will("died", 2));
        connect.open(broker.addr()).drop_connection();
        // The end of a connection has no answer; another connection of the same client comes after
        // it.
        Connect::new(v, "mortal").open(broker.addr()).disconnect();
        let mut client = durable.open(broker.addr());
        client.expect("will/x", "died", 2);
    });
}

#[test]
fn a_will_can_clear_a_retained_message() {
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    client.publish(&Message::new("will/state", "online", 1).retained());
    let mut watcher = watcher(&broker, Version::V5);
    watcher.expect("will/state", "online", 1);
    let will = Will::new(Message::new("will/state", "", 1).retained());
    Connect::new(Version::V5, "device")
        .will(will)
        .open(broker.addr())
        .drop_connection();
    watcher.expect("will/state", "", 1);
    client.subscribe("will/state", 1);
    client.expect_nothing();
}

#[test]
fn a_new_connection_replaces_the_will() {
    each_version(|broker, v| {
        let mut watcher = watcher(broker, v);
        let durable = Connect::durable(v, "renewed");
        durable
            .clone()
            .will(will("first", 1))
            .open(broker.addr())
            .disconnect();
        durable
            .clone()
            .will(will("second", 1))
            .open(broker.addr())
            .drop_connection();
        watcher.expect("will/x", "second", 1);
        durable.open(broker.addr()).drop_connection();
        Connect::new(v, "fence").open(broker.addr()).disconnect();
        watcher.expect_nothing();
    });
}
