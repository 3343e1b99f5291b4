//! UNSUBSCRIBE.

use support::{Broker, Connect, Message, Version};

use crate::each_version;

#[test]
fn an_unsubscribed_filter_brings_nothing_more() {
    // [MQTT-3.10.4-1], [MQTT-3.10.4-2]
    each_version(|broker, v| {
        let mut client = Connect::new(v, "client").open(broker.addr());
        client.subscribe("a", 1);
        client.subscribe("b", 1);
        client.unsubscribe(&["a"]);
        client.publish(&Message::new("a", "x", 1));
        client.publish(&Message::new("b", "y", 1));
        client.expect("b", "y", 1);
        client.expect_nothing();
    });
}

#[test]
fn each_filter_is_answered() {
    // [MQTT-3.11.3-1], [MQTT-3.11.3-2]; 3.1.1: an UNSUBACK even if nothing was there
    // [MQTT-3.10.4-5]
    each_version(|broker, v| {
        let mut client = Connect::new(v, "client").open(broker.addr());
        client.subscribe("a", 1);
        client.subscribe("b/+", 1);
        let codes = client.unsubscribe(&["none", "a", "b/c", "b/+", "a"]);
        let expected: &[u8] = match v {
            Version::V5 => &[0x11, 0, 0x11, 0, 0x11],
            _ => &[],
        };
        assert_eq!(codes, expected);
    });
}

#[test]
fn filters_are_compared_character_by_character() {
    // [MQTT-3.10.4-1]
    each_version(|broker, v| {
        let mut client = Connect::new(v, "client").open(broker.addr());
        client.subscribe("a/b", 0);
        client.unsubscribe(&["a/+", "a/#", "#", "A/b", "a/b/"]);
        client.publish(&Message::new("a/b", "x", 0));
        client.expect("a/b", "x", 0);
    });
}

#[test]
fn messages_on_their_way_are_completed_after_an_unsubscribe() {
    // [MQTT-3.10.4-3]
    each_version(|broker, v| {
        let durable = Connect::durable(v, "client");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 2);
        client.send_publish(&Message::new("a", "x", 1));
        let publish = loop {
            match client.receive() {
                support::Packet::Publish(publish) => break publish,
                _ => continue,
            }
        };
        client.unsubscribe(&["a"]);
        client.drop_connection();
        let mut client = durable.open(broker.addr());
        let again = client.expect("a", "x", publish.qos);
        assert!(again.dup && again.id == publish.id);
        client.expect_nothing();
    });
}

#[test]
fn an_unsubscribe_survives_the_connection() {
    let broker = Broker::start();
    let durable = Connect::durable(Version::V311, "client");
    let mut client = durable.open(broker.addr());
    client.subscribe("a", 1);
    client.unsubscribe(&["a"]);
    client.drop_connection();
    let mut client = durable.open(broker.addr());
    client.publish(&Message::new("a", "x", 1));
    client.expect_nothing();
}

#[test]
fn an_illegal_filter_in_an_unsubscribe_does_no_harm() {
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    client.subscribe("a", 0);
    client.send(&[0xa2, 8, 0, 9, 0, 0, 3, b'a', b'/', b'+']);
    client.wait_for("UNSUBACK", |packet| match packet {
        support::Packet::UnsubAck(codes) if codes.id == 9 => Some(()),
        _ => None,
    });
    client.publish(&Message::new("a", "x", 0));
    client.expect("a", "x", 0);
}
