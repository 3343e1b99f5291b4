//! PUBLISH in all its flows.

use support::{Broker, Client, Connect, Message, Packet, Properties, Subscription, Version};
use support::{property, raw};

use crate::each_version;

fn pair(broker: &Broker, v: Version, filter: &str) -> (Client, Client) {
    let mut subscriber = Connect::new(v, "subscriber").open(broker.addr());
    subscriber.subscribe(filter, 2);
    let publisher = Connect::new(v, "publisher").open(broker.addr());
    (publisher, subscriber)
}

#[test]
fn each_qos_is_delivered_with_its_own_flow() {
    // [MQTT-4.3.1-1], [MQTT-4.3.2-2], [MQTT-4.3.3-8]
    each_version(|broker, v| {
        let (mut publisher, mut subscriber) = pair(broker, v, "a/b");
        for qos in 0..=2 {
            let reason = publisher.publish(&Message::new("a/b", "hello", qos));
            assert_eq!(reason, 0);
            let publish = subscriber.expect("a/b", "hello", qos);
            assert!(!publish.dup && !publish.retain);
        }
        subscriber.expect_nothing();
    });
}

#[test]
fn the_lower_of_both_qos_is_used() {
    // [MQTT-3.8.4-8]: at most what was granted.
    each_version(|broker, v| {
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for granted in 0..=2 {
            let topic = format!("granted/{granted}");
            let mut subscriber =
                Connect::new(v, &format!("subscriber-{granted}")).open(broker.addr());
            subscriber.subscribe(&topic, granted);
            for published in 0..=2 {
                publisher.publish(&Message::new(&topic, "x", published));
                subscriber.expect(&topic, "x", published.min(granted));
            }
        }
    });
}

#[test]
fn payloads_of_any_bytes_and_sizes_arrive_whole() {
    each_version(|broker, v| {
        let (mut publisher, mut subscriber) = pair(broker, v, "bytes");
        let all: Vec<u8> = (0..=255).collect();
        let sizes = [0, 1, 126, 127, 128, 16_383, 16_384, 200_000, 1_000_000];
        for size in sizes {
            let payload: Vec<u8> = all.iter().copied().cycle().take(size).collect();
            for qos in 0..=2 {
                publisher.publish(&Message::new("bytes", &payload, qos));
                let publish = subscriber.take();
                assert!(publish.payload == payload, "{size} bytes at QoS {qos}");
            }
        }
    });
}

#[test]
fn topics_of_any_text_arrive_as_they_are() {
    // [MQTT-4.7.3-4]: no normalization; a leading slash and empty levels are levels.
    each_version(|broker, v| {
        let (mut publisher, mut subscriber) = pair(broker, v, "#");
        let long = "l".repeat(5000);
        for topic in [
            "/",
            "//",
            " ",
            "a b",
            "é/ключ/鍵/🔑",
            "Å",
            "A\u{30a}",
            "\u{feff}x",
            &long,
        ] {
            publisher.publish(&Message::new(topic, "x", 1));
            subscriber.expect(topic, "x", 1);
        }
    });
}

#[test]
fn a_qos_2_message_sent_twice_is_delivered_once() {
    // [MQTT-4.3.3-10]: until PUBREL the same identifier is the same message; it is answered with
    // PUBREC, never with an error.
    each_version(|broker, v| {
        let (mut publisher, mut subscriber) = pair(broker, v, "once");
        let message = Message::new("once", "x", 2);
        let id = publisher.send_publish(&message);
        assert_eq!(publisher.pubrec_for(id).reason, 0);
        for _ in 0..3 {
            publisher.send_publish_as(&message, id, true);
            assert_eq!(publisher.pubrec_for(id).reason, 0);
        }
        assert_eq!(publisher.release(id), 0);
        subscriber.expect("once", "x", 2);
        subscriber.expect_nothing();
        // After PUBCOMP the identifier is free for another message [MQTT-4.3.3-12].
        publisher.send_publish_as(&Message::new("once", "y", 2), id, false);
        assert_eq!(publisher.pubrec_for(id).reason, 0);
        publisher.release(id);
        subscriber.expect("once", "y", 2);
        subscriber.expect_nothing();
    });
}

#[test]
fn a_qos_2_identifier_is_remembered_through_a_reconnection() {
    // [MQTT-4.3.3-10], [MQTT-4.4.0-1]: the publisher's session holds what it has received.
    each_version(|broker, v| {
        let mut subscriber = Connect::new(v, "subscriber").open(broker.addr());
        subscriber.subscribe("once", 2);
        let durable = Connect::durable(v, "publisher");
        let mut publisher = durable.open(broker.addr());
        let message = Message::new("once", "x", 2);
        publisher.send_publish_as(&message, 77, false);
        publisher.pubrec_for(77);
        publisher.drop_connection();
        let mut publisher = durable.open(broker.addr());
        publisher.send_publish_as(&message, 77, true);
        assert_eq!(publisher.pubrec_for(77).reason, 0);
        assert_eq!(publisher.release(77), 0);
        subscriber.expect("once", "x", 2);
        subscriber.expect_nothing();
    });
}

#[test]
fn dup_of_a_publisher_is_not_passed_on() {
    // [MQTT-3.3.1-3]
    each_version(|broker, v| {
        let (mut publisher, mut subscriber) = pair(broker, v, "dup");
        for (id, qos) in [(5, 1), (6, 2)] {
            publisher.send_publish_as(&Message::new("dup", "x", qos), id, true);
            if qos == 2 {
                publisher.pubrec_for(id);
                publisher.release(id);
            }
            let publish = subscriber.expect("dup", "x", qos);
            assert!(!publish.dup);
        }
    });
}

#[test]
fn a_qos_1_message_with_an_identifier_in_use_is_a_new_message() {
    // [MQTT-4.3.2-5]: once acknowledged, the same identifier is a new message whatever its DUP
    // flag.
    each_version(|broker, v| {
        let (mut publisher, mut subscriber) = pair(broker, v, "again");
        for payload in ["1", "2"] {
            publisher.send_publish_as(&Message::new("again", payload, 1), 9, payload == "2");
            publisher.puback_for(9);
            subscriber.expect("again", payload, 1);
        }
    });
}

#[test]
fn a_pubrel_of_an_unknown_identifier_is_answered() {
    // [MQTT-4.3.3-11] and PUBCOMP reason 0x92 in MQTT 5; MQTT 3 always completes.
    each_version(|broker, v| {
        let mut client = Connect::new(v, "releaser").open(broker.addr());
        let reason = client.release(4242);
        assert_eq!(reason, if v.is5() { 0x92 } else { 0 });
    });
}

#[test]
fn a_pubrel_sent_twice_is_completed_twice() {
    each_version(|broker, v| {
        let (mut publisher, mut subscriber) = pair(broker, v, "a");
        let id = publisher.send_publish(&Message::new("a", "x", 2));
        publisher.pubrec_for(id);
        assert_eq!(publisher.release(id), 0);
        assert_eq!(publisher.release(id), if v.is5() { 0x92 } else { 0 });
        subscriber.expect("a", "x", 2);
        subscriber.expect_nothing();
    });
}

#[test]
fn acknowledgements_of_messages_that_were_never_sent_are_survived() {
    each_version(|broker, v| {
        let mut client = Connect::new(v, "confused").open(broker.addr());
        client.send_ack(0x40, 100);
        client.send_ack(0x70, 101);
        client.ping();
    });
    // MQTT 5 section 3.5.2.1: the answer to an unknown PUBREC is a PUBREL with 0x92.
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "confused").open(broker.addr());
    client.send_ack(0x50, 102);
    assert_eq!(client.pubrel_for(102).reason, 0x92);
}

#[test]
fn a_publisher_is_told_when_nobody_subscribes() {
    // 0x10, MQTT 5 sections 3.4.2.1 and 3.5.2.1
    let Some(broker) = Broker::with("") else {
        return;
    };
    let mut client = Connect::new(Version::V5, "lonely").open(broker.addr());
    assert_eq!(client.publish(&Message::new("void", "x", 1)), 0x10);
    assert_eq!(client.publish(&Message::new("void", "x", 2)), 0x10);
    client.subscribe("void", 0);
    assert_eq!(client.publish(&Message::new("void", "x", 1)), 0);
    assert_eq!(client.publish(&Message::new("void", "x", 2)), 0);
}

#[test]
fn properties_travel_with_a_message_unaltered_and_in_order() {
    // [MQTT-3.3.2-4], -15, -16, -17, -18, -20
    let broker = Broker::start();
    let (mut publisher, mut subscriber) = pair(&broker, Version::V5, "p");
    for qos in 0..=2 {
        let message = Message::new("p", "text", qos).with(|p| {
            p.byte(property::PAYLOAD_FORMAT, 1)
                .text(property::CONTENT_TYPE, "text/plain; é")
                .text(property::RESPONSE_TOPIC, "answers/here")
                .binary(property::CORRELATION_DATA, &[0, 1, 0xff])
                .user("b", "2")
                .user("a", "1")
                .user("b", "2")
                .user("", "")
        });
        publisher.publish(&message);
        let p = subscriber.expect("p", "text", qos).properties;
        assert_eq!(p.number(property::PAYLOAD_FORMAT), Some(1));
        assert_eq!(p.string(property::CONTENT_TYPE), Some("text/plain; é"));
        assert_eq!(p.string(property::RESPONSE_TOPIC), Some("answers/here"));
        assert_eq!(p.bytes(property::CORRELATION_DATA), Some(&[0, 1, 0xff][..]));
        let users = [("b", "2"), ("a", "1"), ("b", "2"), ("", "")];
        assert_eq!(p.users(), users);
        assert_eq!(p.0.len(), 8, "nothing was added: {p:?}");
    }
}

#[test]
fn properties_are_dropped_for_clients_of_mqtt_3() {
    let broker = Broker::start();
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for v in Version::V3 {
        let mut subscriber = Connect::new(v, "old").open(broker.addr());
        subscriber.subscribe("p", 2);
        publisher.publish(&Message::new("p", "text", 2).with(|p| p.user("a", "b")));
        subscriber.expect("p", "text", 2);
    }
}

#[test]
fn a_payload_that_is_not_the_utf_8_it_says_it_is_is_refused() {
    // MQTT 5 section 3.3.2.3.2: 0x99
    let Some(broker) = Broker::with("") else {
        return;
    };
    let (_, mut subscriber) = pair(&broker, Version::V5, "utf8");
    let mut publisher = Connect::new(Version::V5, "fibber").open(broker.addr());
    let lie =
        |qos| Message::new("utf8", [0xc3, 0x28], qos).with(|p| p.byte(property::PAYLOAD_FORMAT, 1));
    assert_eq!(publisher.publish(&lie(1)), 0x99);
    assert_eq!(publisher.publish(&lie(2)), 0x99);
    publisher.send_publish(&lie(0));
    publisher.expect_disconnect(&[0x99]);
    subscriber.expect_nothing();
    // Any bytes are fine where the indicator is 0 or absent.
    let mut publisher = Connect::new(Version::V5, "honest").open(broker.addr());
    publisher.publish(&Message::new("utf8", [0xc3, 0x28], 1));
    subscriber.expect("utf8", [0xc3, 0x28], 1);
}

#[test]
fn a_message_carries_the_identifier_of_every_subscription_that_matched() {
    // [MQTT-3.3.4-3], [MQTT-3.3.4-4]
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "many").open(broker.addr());
    for (filter, id) in [("a/+", 1), ("a/#", 268_435_455), ("a/b", 300)] {
        let properties = Properties::new().subscription_id(id);
        client.subscribe_to(&[Subscription::new(filter, 1)], &properties);
    }
    client.subscribe("+/b", 2);
    client.publish(&Message::new("a/b", "x", 2));
    let publish = client.expect("a/b", "x", 2);
    assert_eq!(publish.properties.subscription_ids(), [1, 300, 268_435_455]);
    client.expect_nothing();
    client.publish(&Message::new("c/b", "x", 2));
    let publish = client.expect("c/b", "x", 2);
    assert!(publish.properties.subscription_ids().is_empty());
    // A new SUBSCRIBE replaces the identifier, one without takes it away.
    let properties = Properties::new().subscription_id(2);
    client.subscribe_to(&[Subscription::new("a/b", 1)], &properties);
    client.subscribe_to(&[Subscription::new("a/+", 1)], &Properties::new());
    client.publish(&Message::new("a/b", "x", 0));
    let publish = client.expect("a/b", "x", 0);
    assert_eq!(publish.properties.subscription_ids(), [2, 268_435_455]);
}

#[test]
fn all_filters_of_one_subscribe_share_its_identifier() {
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "shared-id").open(broker.addr());
    let filters = [Subscription::new("a", 0), Subscription::new("b", 0)];
    client.subscribe_to(&filters, &Properties::new().subscription_id(9));
    for topic in ["a", "b"] {
        client.publish(&Message::new(topic, "x", 0));
        let publish = client.expect(topic, "x", 0);
        assert_eq!(publish.properties.subscription_ids(), [9]);
    }
}

#[test]
fn a_large_window_of_publishes_is_answered_completely_and_in_order() {
    // [MQTT-4.6.0-2] to -4: acknowledgements in the order of the PUBLISHes.
    each_version(|broker, v| {
        let mut subscriber = Connect::new(v, "subscriber").open(broker.addr());
        subscriber.subscribe("window", 0);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for qos in [1, 2] {
            let ids: Vec<u16> = (0..500)
                .map(|i| publisher.send_publish(&Message::new("window", i.to_string(), qos)))
                .collect();
            for &id in &ids {
                match publisher.receive() {
                    Packet::PubAck(ack) | Packet::PubRec(ack) => assert_eq!(ack.id, id),
                    other => panic!("{other:?}"),
                }
            }
            if qos == 2 {
                ids.iter().for_each(|&id| publisher.send_ack(0x62, id));
                for id in ids {
                    match publisher.receive() {
                        Packet::PubComp(ack) => assert_eq!(ack.id, id),
                        other => panic!("{other:?}"),
                    }
                }
            }
            for i in 0..500 {
                subscriber.expect("window", i.to_string(), 0);
            }
        }
    });
}

#[test]
fn packets_in_one_segment_are_all_handled() {
    each_version(|broker, v| {
        let mut client = Connect::new(v, "batch").open(broker.addr());
        client.subscribe("a", 0);
        let mut body = raw::string("a");
        if v.is5() {
            body.push(0);
        }
        body.push(b'!');
        client.send(&raw::frame(0x30, &body).repeat(100));
        for _ in 0..100 {
            client.expect("a", "!", 0);
        }
        client.expect_nothing();
    });
}
