//! Receive maximum and packet size, both ways.

use support::{Broker, Connect, Message, Packet, Version, property};

use crate::each_version;

#[test]
fn no_more_than_receive_maximum_messages_are_on_their_way_to_a_client() {
    // [MQTT-3.3.4-9]
    let broker = Broker::start();
    for qos in [1, 2] {
        let connect = Connect::new(Version::V5, "narrow").receive_maximum(3);
        let mut client = connect.open(broker.addr());
        client.subscribe("a", qos);
        let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
        for i in 0..10 {
            publisher.publish(&Message::new("a", i.to_string(), qos));
        }
        let mut held: Vec<_> = (0..3).map(|_| client.receive_publish()).collect();
        client.expect_nothing();
        // One that is done lets one more come.
        for next in 3..10 {
            let done = held.remove(0);
            client.acknowledge(&done);
            let publish = client.receive_publish();
            assert_eq!(publish.text(), next.to_string());
            held.push(publish);
            client.expect_nothing();
        }
    }
}

#[test]
fn the_window_opens_at_pubcomp_not_at_pubrec() {
    // [MQTT-3.3.4-9] and section 4.9: the quota grows with PUBACK, PUBCOMP, or a PUBREC that says
    // an error.
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "narrow").receive_maximum(1);
    let mut client = connect.open(broker.addr());
    client.subscribe("a", 2);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for payload in ["1", "2", "3"] {
        publisher.publish(&Message::new("a", payload, 2));
    }
    let first = client.receive_publish();
    client.send_ack(0x50, first.id);
    client.pubrel_for(first.id);
    client.expect_nothing();
    client.send_ack(0x70, first.id);
    let second = client.receive_publish();
    assert_eq!(second.text(), "2");
    // A PUBREC with an error ends the message [MQTT-4.3.3-4]; no PUBREL follows.
    client.send_ack_with(0x50, second.id, 0x80);
    client.expect("a", "3", 2);
    client.expect_nothing();
}

#[test]
fn a_puback_with_an_error_ends_the_message() {
    // Section 4.4: it is treated as acknowledged and not sent again.
    let broker = Broker::start();
    let durable = Connect::durable(Version::V5, "refusing").receive_maximum(1);
    let mut client = durable.open(broker.addr());
    client.subscribe("a", 1);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    publisher.publish(&Message::new("a", "1", 1));
    publisher.publish(&Message::new("a", "2", 1));
    let first = client.receive_publish();
    client.send_ack_with(0x40, first.id, 0x97);
    client.expect("a", "2", 1);
    client.disconnect();
    durable.open(broker.addr()).expect_nothing();
}

#[test]
fn qos_0_does_not_wait_for_the_window() {
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "narrow").receive_maximum(1);
    let mut client = connect.open(broker.addr());
    client.subscribe("a", 2);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    publisher.publish(&Message::new("a", "one", 1));
    let held = client.receive_publish();
    publisher.publish(&Message::new("a", "two", 1));
    publisher.publish(&Message::new("a", "zero", 0));
    client.expect("a", "zero", 0);
    client.acknowledge(&held);
    client.expect("a", "two", 1);
}

#[test]
fn the_window_is_as_large_as_the_configuration_says() {
    // max_inflight_messages holds for clients that do not say, and in MQTT 3.
    let Some(broker) = Broker::with("[limits]\nmax_inflight_messages = 4\n") else {
        return;
    };
    for v in Version::ALL {
        let mut client = Connect::new(v, "client").open(broker.addr());
        client.subscribe("a", 1);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for i in 0..6 {
            publisher.publish(&Message::new("a", i.to_string(), 1));
        }
        let held: Vec<_> = (0..4).map(|_| client.receive_publish()).collect();
        client.expect_nothing();
        client.acknowledge(&held[0]);
        client.expect("a", "4", 1);
    }
}

#[test]
fn a_client_that_sends_more_than_receive_maximum_is_disconnected() {
    // [MQTT-3.3.4-7]: 0x93
    let Some(broker) = Broker::with("[limits]\nreceive_maximum = 3\n") else {
        return;
    };
    let connect = Connect::new(Version::V5, "pushing");
    let (mut client, connack) = connect.open_with_answer(broker.addr());
    let maximum = connack.properties.number(property::RECEIVE_MAXIMUM);
    assert_eq!(maximum, Some(3));
    let message = Message::new("a", "x", 2);
    for _ in 0..3 {
        let id = client.send_publish(&message);
        client.pubrec_for(id);
    }
    // The same message again takes no new place.
    client.send_publish_as(&message, 1, true);
    client.pubrec_for(1);
    assert_eq!(client.release(1), 0);
    let id = client.send_publish(&message);
    client.pubrec_for(id);
    client.send_publish(&message);
    client.expect_disconnect(&[0x93]);
}

#[test]
fn a_client_within_receive_maximum_may_go_on_for_ever() {
    let Some(broker) = Broker::with("[limits]\nreceive_maximum = 2\n") else {
        return;
    };
    let mut client = Connect::new(Version::V5, "polite").open(broker.addr());
    for i in 0..100 {
        client.publish(&Message::new("a", "x", 1 + i % 2));
    }
}

#[test]
fn a_message_too_large_for_a_client_is_dropped_for_it_alone() {
    // [MQTT-3.1.2-24], [MQTT-3.1.2-25]; the client checks the size of what it gets.
    let broker = Broker::start();
    for qos in 0..=2 {
        let connect =
            Connect::new(Version::V5, "small").with(|p| p.four(property::MAXIMUM_PACKET_SIZE, 100));
        let mut small = connect.open(broker.addr());
        small.subscribe("a", qos);
        let mut large = Connect::new(Version::V5, "large").open(broker.addr());
        large.subscribe("a", qos);
        let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
        for payload in [vec![b'x'; 20], vec![b'x'; 200], vec![b'y'; 20]] {
            publisher.publish(&Message::new("a", &payload, qos));
            large.expect("a", &payload, qos);
            if payload.len() < 100 {
                small.expect("a", &payload, qos);
            }
        }
        small.expect_nothing();
    }
}

#[test]
fn a_message_of_exactly_the_largest_size_is_sent() {
    let broker = Broker::start();
    // A header of 2, a topic of 3, an identifier of 2, no properties: 1.
    let overhead = 2 + 3 + 2 + 1;
    let connect =
        Connect::new(Version::V5, "exact").with(|p| p.four(property::MAXIMUM_PACKET_SIZE, 100));
    let mut client = connect.open(broker.addr());
    client.subscribe("a", 1);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    publisher.publish(&Message::new("a", vec![b'x'; 101 - overhead], 1));
    publisher.publish(&Message::new("a", vec![b'y'; 100 - overhead], 1));
    client.expect("a", vec![b'y'; 100 - overhead], 1);
    client.expect_nothing();
}

#[test]
fn packet_identifiers_on_their_way_to_a_client_differ() {
    // [MQTT-2.2.1-3], [MQTT-2.2.1-4]
    each_version(|broker, v| {
        let mut client = Connect::new(v, "client").open(broker.addr());
        client.subscribe("a", 2);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for i in 0..20 {
            publisher.publish(&Message::new("a", i.to_string(), 1 + i % 2));
        }
        let mut ids: Vec<u16> = (0..20).map(|_| client.receive_publish().id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 20);
    });
}

#[test]
fn the_two_directions_have_identifiers_of_their_own() {
    // Section 2.2.1: a client's 5 and a server's 5 are two messages.
    each_version(|broker, v| {
        let mut client = Connect::new(v, "client").open(broker.addr());
        client.subscribe("in", 2);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        publisher.publish(&Message::new("in", "theirs", 2));
        let theirs = client.receive_publish();
        let mine = Message::new("out", "mine", 2);
        client.send_publish_as(&mine, theirs.id, false);
        client.pubrec_for(theirs.id);
        client.send_ack(0x50, theirs.id);
        client.pubrel_for(theirs.id);
        client.release(theirs.id);
        client.send_ack(0x70, theirs.id);
        client.ping();
    });
}

#[test]
fn packet_identifiers_go_on_beyond_65535() {
    let broker = Broker::start();
    let mut client = Connect::new(Version::V311, "client").open(broker.addr());
    client.subscribe("a", 1);
    let message = Message::new("a", "", 1);
    let mut got = 0;
    // The window of the publisher is kept small by hand.
    for _ in 0..140 {
        for _ in 0..500 {
            client.send_publish(&message);
        }
        let mut acknowledged = 0;
        let expected = got + 500;
        while acknowledged < 500 || got < expected {
            match client.receive() {
                Packet::PubAck(_) => acknowledged += 1,
                Packet::Publish(publish) => {
                    assert_ne!(publish.id, 0);
                    client.acknowledge(&publish);
                    got += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(got, 70_000);
}
