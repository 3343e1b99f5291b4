//! What is sent again after a reconnection, and what is not.

use support::{Broker, Client, Connect, Message, Packet, Version};

use crate::each_version;

fn publisher(broker: &Broker, v: Version) -> Client {
    Connect::new(v, "publisher").open(broker.addr())
}

#[test]
fn unacknowledged_messages_come_again_with_dup_and_their_identifiers_in_order() {
    // [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-3.3.1-1]
    each_version(|broker, v| {
        let durable = Connect::durable(v, "client");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 2);
        let mut publisher = publisher(broker, v);
        for i in 0..6 {
            publisher.publish(&Message::new("a", i.to_string(), 1 + i % 2));
        }
        let first: Vec<_> = (0..6).map(|_| client.receive_publish()).collect();
        assert!(first.iter().all(|publish| !publish.dup));
        client.drop_connection();
        for _ in 0..2 {
            let mut client = durable.open(broker.addr());
            for before in &first {
                let again = client.receive_publish();
                assert!(again.dup, "{again:?}");
                assert_eq!(
                    (again.id, again.qos, &again.payload),
                    (before.id, before.qos, &before.payload)
                );
            }
            client.expect_nothing();
            client.drop_connection();
        }
        let mut client = durable.open(broker.addr());
        for _ in 0..6 {
            client.take();
        }
        client.ping();
        client.drop_connection();
        durable.open(broker.addr()).expect_nothing();
    });
}

#[test]
fn a_message_that_was_received_comes_again_as_pubrel_only() {
    // [MQTT-4.3.3-5], [MQTT-4.3.3-6], [MQTT-4.4.0-1]: PUBLISH must not be sent again after PUBREC.
    each_version(|broker, v| {
        let durable = Connect::durable(v, "client");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 2);
        let mut publisher = publisher(broker, v);
        publisher.publish(&Message::new("a", "1", 2));
        publisher.publish(&Message::new("a", "2", 2));
        let first = client.receive_publish();
        let second = client.receive_publish();
        client.send_ack(0x50, first.id);
        client.pubrel_for(first.id);
        client.drop_connection();
        let mut client = durable.open(broker.addr());
        let mut released = None;
        let mut repeated = None;
        for _ in 0..2 {
            match client.receive() {
                Packet::PubRel(ack) => released = Some(ack.id),
                Packet::Publish(publish) => repeated = Some(publish),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(released, Some(first.id));
        let repeated = repeated.expect("the second message");
        assert!(repeated.dup && repeated.id == second.id);
        client.send_ack(0x70, first.id);
        client.acknowledge(&repeated);
        client.expect_nothing();
        client.drop_connection();
        durable.open(broker.addr()).expect_nothing();
    });
}

#[test]
fn a_pubrec_that_comes_twice_is_released_twice() {
    each_version(|broker, v| {
        let mut client = Connect::new(v, "client").open(broker.addr());
        client.subscribe("a", 2);
        publisher(broker, v).publish(&Message::new("a", "1", 2));
        let publish = client.receive_publish();
        for _ in 0..2 {
            client.send_ack(0x50, publish.id);
            client.pubrel_for(publish.id);
        }
        client.send_ack(0x70, publish.id);
        client.expect_nothing();
    });
}

#[test]
fn nothing_is_sent_again_on_the_same_connection() {
    // [MQTT-4.4.0-1]: only after a reconnection.
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "slow").open(broker.addr());
    client.subscribe("a", 1);
    let mut publisher = publisher(&broker, Version::V5);
    publisher.publish(&Message::new("a", "1", 1));
    let held = client.receive_publish();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    client.expect_nothing();
    client.acknowledge(&held);
    client.expect_nothing();
}

#[test]
fn acknowledged_messages_do_not_come_again() {
    each_version(|broker, v| {
        let durable = Connect::durable(v, "client");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 2);
        let mut publisher = publisher(broker, v);
        for i in 0..10 {
            publisher.publish(&Message::new("a", i.to_string(), 1 + i % 2));
        }
        for i in 0..10 {
            client.expect("a", i.to_string(), 1 + i % 2);
        }
        client.ping();
        client.drop_connection();
        durable.open(broker.addr()).expect_nothing();
    });
}

#[test]
fn acknowledgements_may_come_in_any_order() {
    each_version(|broker, v| {
        let durable = Connect::durable(v, "client");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 1);
        let mut publisher = publisher(broker, v);
        for i in 0..10 {
            publisher.publish(&Message::new("a", i.to_string(), 1));
        }
        let mut held: Vec<_> = (0..10).map(|_| client.receive_publish()).collect();
        // The odd ones, backwards.
        for i in [9, 7, 5, 3, 1] {
            let publish = held.remove(i);
            client.acknowledge(&publish);
        }
        client.ping();
        client.drop_connection();
        let mut client = durable.open(broker.addr());
        for before in held {
            let again = client.expect("a", &before.payload, 1);
            assert!(again.dup && again.id == before.id);
        }
        client.expect_nothing();
    });
}

#[test]
fn new_messages_wait_behind_those_that_come_again() {
    // [MQTT-4.6.0-1], [MQTT-4.6.0-5]
    each_version(|broker, v| {
        let durable = Connect::durable(v, "client");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 2);
        let mut publisher = publisher(broker, v);
        for i in 0..3 {
            publisher.publish(&Message::new("a", i.to_string(), 2));
            client.receive_publish();
        }
        // Not cut: the broker must know that the client is gone before the others are published.
        client.disconnect();
        for i in 3..6 {
            publisher.publish(&Message::new("a", i.to_string(), 2));
        }
        let mut client = durable.open(broker.addr());
        for i in 0..6 {
            let publish = client.expect("a", i.to_string(), 2);
            // The later ones may have been sent to the connection that was being cut.
            assert!(publish.dup || i >= 3, "message {i}");
        }
    });
}

#[test]
fn the_wrong_acknowledgement_does_not_end_a_message() {
    // A PUBACK for a QoS 2 message and a PUBREC for a QoS 1 message: the server may disconnect or
    // ignore it, but keeps the message.
    each_version(|broker, v| {
        for (qos, wrong) in [(2, 0x40), (2, 0x70), (1, 0x50)] {
            let durable = Connect::durable(v, &format!("confused-{qos}-{wrong}"));
            let mut client = durable.open(broker.addr());
            let topic = format!("a/{qos}/{wrong}");
            client.subscribe(&topic, 2);
            publisher(broker, v).publish(&Message::new(&topic, "kept", qos));
            let publish = client.receive_publish();
            client.send_ack(wrong, publish.id);
            client.send(&[0xc0, 0]);
            while !matches!(
                client.try_receive(support::TIMEOUT),
                Ok(None | Some(Packet::PingResp | Packet::Disconnect(_)))
            ) {}
            client.drop_connection();
            durable.open(broker.addr()).expect(&topic, "kept", qos);
        }
    });
}
