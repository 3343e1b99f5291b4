//! Topic aliases, both ways.

use support::raw::publish5;
use support::{Broker, Connect, Message, Version, property};

fn aliased(alias: u16) -> Vec<u8> {
    let alias = alias.to_be_bytes();
    vec![0x23, alias[0], alias[1]]
}

#[test]
fn an_alias_stands_for_the_topic_it_was_given() {
    // [MQTT-3.3.2-12], section 3.3.4
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    client.subscribe("#", 1);
    let send = |client: &mut support::Client, topic: &str, alias, payload: &str| {
        let bytes = publish5(
            0x30,
            topic.as_bytes(),
            None,
            &aliased(alias),
            payload.as_bytes(),
        );
        client.send(&bytes);
    };
    send(&mut client, "a", 1, "1");
    client.expect("a", "1", 0);
    send(&mut client, "", 1, "2");
    client.expect("a", "2", 0);
    send(&mut client, "b", 2, "3");
    client.expect("b", "3", 0);
    send(&mut client, "", 1, "4");
    client.expect("a", "4", 0);
    // A topic name gives the alias a new meaning.
    send(&mut client, "c", 1, "5");
    client.expect("c", "5", 0);
    send(&mut client, "", 1, "6");
    let publish = client.expect("c", "6", 0);
    assert_eq!(
        publish.properties.get(property::TOPIC_ALIAS),
        None,
        "an alias is between two, and this client allows none"
    );
}

#[test]
fn aliases_work_at_every_qos() {
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    client.subscribe("a", 0);
    client.send(&publish5(0x32, b"a", Some(1), &aliased(5), b"1"));
    client.puback_for(1);
    client.send(&publish5(0x34, b"", Some(2), &aliased(5), b"2"));
    client.pubrec_for(2);
    client.release(2);
    client.send(&publish5(0x30, b"", None, &aliased(5), b"3"));
    for payload in ["1", "2", "3"] {
        client.expect("a", payload, 0);
    }
}

#[test]
fn an_alias_that_is_zero_or_too_large_is_invalid() {
    // Section 3.3.4: 0x94. [MQTT-3.3.2-8], [MQTT-3.3.2-9]
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "client");
    let (client, connack) = connect.open_with_answer(broker.addr());
    let maximum = connack.properties.number(property::TOPIC_ALIAS_MAXIMUM);
    let maximum = maximum.unwrap_or(0) as u16;
    drop(client);
    for alias in [0, maximum + 1, u16::MAX] {
        let mut client = connect.open(broker.addr());
        client.send(&publish5(0x30, b"a", None, &aliased(alias), b""));
        client.expect_disconnect(&[0x94]);
    }
    let mut client = connect.open(broker.addr());
    client.send(&publish5(0x30, b"a", None, &aliased(maximum), b""));
    client.ping();
}

#[test]
fn an_alias_that_stands_for_nothing_is_a_protocol_error() {
    // Section 3.3.4: 0x82
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    client.send(&publish5(0x30, b"", None, &aliased(1), b""));
    client.expect_disconnect(&[0x82]);
}

#[test]
fn aliases_end_with_the_connection() {
    // [MQTT-3.3.2-7]
    let broker = Broker::start();
    let durable = Connect::durable(Version::V5, "client");
    let mut client = durable.open(broker.addr());
    client.send(&publish5(0x30, b"a", None, &aliased(1), b""));
    client.ping();
    client.drop_connection();
    let mut client = durable.open(broker.addr());
    client.send(&publish5(0x30, b"", None, &aliased(1), b""));
    client.expect_disconnect(&[0x82]);
}

#[test]
fn without_aliases_a_server_that_offers_none_refuses_them() {
    let Some(broker) = Broker::with("[limits]\nmax_topic_alias = 0\n") else {
        return;
    };
    let connect = Connect::new(Version::V5, "client");
    let (mut client, connack) = connect.open_with_answer(broker.addr());
    let maximum = connack.properties.number(property::TOPIC_ALIAS_MAXIMUM);
    assert!(matches!(maximum, None | Some(0)), "{maximum:?}");
    client.send(&publish5(0x30, b"a", None, &aliased(1), b""));
    client.expect_disconnect(&[0x94]);
}

#[test]
fn the_server_uses_aliases_where_the_client_allows_them() {
    // [MQTT-3.1.2-26]; the client checks each alias against its maximum.
    let Some(broker) = Broker::with("") else {
        return;
    };
    let connect =
        Connect::new(Version::V5, "client").with(|p| p.two(property::TOPIC_ALIAS_MAXIMUM, 2));
    let mut client = connect.open(broker.addr());
    client.subscribe("#", 0);
    let topics = ["a/long/topic/name", "another/long/topic", "a/third/one"];
    let mut saved = 0;
    for round in 0..10 {
        for topic in topics {
            client.publish(&Message::new(topic, round.to_string(), 0));
            let publish = client.expect(topic, round.to_string(), 0);
            saved += u32::from(!publish.named);
        }
    }
    assert!(saved > 0, "no topic name was ever left out");
}

#[test]
fn the_server_sends_no_alias_to_a_client_that_allows_none() {
    // [MQTT-3.1.2-27]: absent means none; the client checks.
    let broker = Broker::start();
    for maximum in [None, Some(0)] {
        let connect = Connect::new(Version::V5, "client").with(|p| match maximum {
            Some(maximum) => p.two(property::TOPIC_ALIAS_MAXIMUM, maximum),
            None => p,
        });
        let mut client = connect.open(broker.addr());
        client.subscribe("a", 0);
        for _ in 0..5 {
            client.publish(&Message::new("a", "x", 0));
            assert!(client.expect("a", "x", 0).named);
        }
    }
}

#[test]
fn what_is_sent_again_names_its_topic_again() {
    // Aliases of the old connection mean nothing on the new one.
    let Some(broker) = Broker::with("") else {
        return;
    };
    let durable =
        Connect::durable(Version::V5, "client").with(|p| p.two(property::TOPIC_ALIAS_MAXIMUM, 5));
    let mut client = durable.open(broker.addr());
    client.subscribe("a", 1);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for i in 0..3 {
        publisher.publish(&Message::new("a", i.to_string(), 1));
        client.receive_publish();
    }
    client.drop_connection();
    let mut client = durable.open(broker.addr());
    for i in 0..3 {
        let publish = client.expect("a", i.to_string(), 1);
        assert!(publish.dup);
        assert!(i > 0 || publish.named);
    }
}
