//! Limits by configuration: each has one documented answer.

use std::time::{Duration, Instant};

use support::raw::{publish5, subscribe3, subscribe5};
use support::{Broker, Client, Connect, Message, Packet, Properties, Subscription, Version, Will};

fn limited(limits: &str) -> Option<Broker> {
    Broker::with(&format!("[limits]\n{limits}\n"))
}

#[test]
fn a_connection_without_connect_is_closed_in_time() {
    // [MQTT-3.1.4-1], section 3.1.4
    let Some(broker) = limited("connect_timeout = \"300ms\"") else {
        return;
    };
    let mut half = Client::dial(broker.addr(), Version::V5);
    half.send(&[0x10, 100, 0, 4, b'M']);
    let start = Instant::now();
    for mut client in [Client::dial(broker.addr(), Version::V5), half] {
        client.expect_closed();
    }
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(250) && took < Duration::from_secs(5),
        "{took:?}"
    );
    let mut client = Connect::new(Version::V5, "in-time").open(broker.addr());
    std::thread::sleep(Duration::from_millis(600));
    client.ping();
}

#[test]
fn a_connection_more_than_allowed_is_closed_at_once() {
    let Some(broker) = limited("max_connections = 3") else {
        return;
    };
    let mut clients: Vec<Client> = (0..3)
        .map(|i| Connect::new(Version::V5, &format!("c{i}")).open(broker.addr()))
        .collect();
    let mut fourth = Client::dial(broker.addr(), Version::V5);
    fourth.expect_closed();
    for client in &mut clients {
        client.ping();
    }
    clients.remove(0).disconnect();
    let deadline = Instant::now() + support::TIMEOUT;
    loop {
        // The place is free when the broker has seen the end of the connection.
        let mut again = Client::dial(broker.addr(), Version::V311);
        again.send(&Connect::new(Version::V311, "again").bytes());
        if let Ok(Some(Packet::ConnAck(_))) = again.try_receive(support::TIMEOUT) {
            break;
        }
        assert!(Instant::now() < deadline, "the place is never free again");
    }
}

#[test]
fn a_full_queue_drops_the_newest() {
    let Some(broker) = limited("max_queued_messages = 5") else {
        return;
    };
    for v in Version::ALL {
        let durable = Connect::durable(v, &format!("sleeper-{v}"));
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 1);
        client.disconnect();
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for i in 0..8 {
            publisher.publish(&Message::new("a", i.to_string(), 1));
        }
        let mut client = durable.open(broker.addr());
        for i in 0..5 {
            client.expect("a", i.to_string(), 1);
        }
        client.expect_nothing();
        publisher.publish(&Message::new("a", "room again", 1));
        client.expect("a", "room again", 1);
        client.unsubscribe(&["a"]);
    }
}

#[test]
fn a_queue_full_of_bytes_drops_the_newest() {
    let Some(broker) = limited("max_queued_bytes = \"10KB\"") else {
        return;
    };
    let durable = Connect::durable(Version::V311, "sleeper");
    let mut client = durable.open(broker.addr());
    client.subscribe("a", 1);
    client.disconnect();
    let mut publisher = Connect::new(Version::V311, "publisher").open(broker.addr());
    for i in 0..20u8 {
        publisher.publish(&Message::new("a", vec![i; 999], 1));
    }
    let mut client = durable.open(broker.addr());
    for i in 0..10u8 {
        client.expect("a", vec![i; 999], 1);
    }
    client.expect_nothing();
}

#[test]
fn qos_above_the_maximum_is_refused_and_subscriptions_are_lowered() {
    // [MQTT-3.2.2-9], [MQTT-3.2.2-10], [MQTT-3.2.2-11], [MQTT-3.2.2-12]
    for maximum in [0, 1] {
        let Some(broker) = limited(&format!("maximum_qos = {maximum}")) else {
            return;
        };
        let mut client = Connect::new(Version::V5, "client").open(broker.addr());
        let codes = client.subscribe_to(&[Subscription::new("a", 2)], &Properties::new());
        assert_eq!(codes, [maximum]);
        client.publish(&Message::new("a", "x", maximum));
        client.expect("a", "x", maximum);
        client.send_publish(&Message::new("a", "x", maximum + 1));
        client.expect_disconnect(&[0x9b]);
        let will = Will::new(Message::new("w", "x", maximum + 1));
        let connect = Connect::new(Version::V5, "client").will(will);
        let (mut client, connack) = connect.try_open(broker.addr());
        assert_eq!(connack.code, 0x9b);
        client.expect_closed();
        let mut old = Connect::new(Version::V311, "old").open(broker.addr());
        old.send_publish(&Message::new("a", "x", maximum + 1));
        old.expect_closed();
    }
}

#[test]
fn retained_messages_are_refused_where_they_are_not_available() {
    // [MQTT-3.2.2-13], [MQTT-3.2.2-14]
    let Some(broker) = limited("retain_available = false") else {
        return;
    };
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    client.send_publish(&Message::new("a", "x", 0).retained());
    client.expect_disconnect(&[0x9a]);
    let will = Will::new(Message::new("w", "x", 0).retained());
    let connect = Connect::new(Version::V5, "client").will(will);
    let (_, connack) = connect.try_open(broker.addr());
    assert_eq!(connack.code, 0x9a);
}

#[test]
fn a_retained_message_more_than_allowed_is_not_retained() {
    let Some(broker) = limited("max_retained_messages = 2") else {
        return;
    };
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    client.subscribe("#", 1);
    let reason = |client: &mut Client, topic: &str, payload: &str| {
        let reason = client.publish(&Message::new(topic, payload, 1).retained());
        while client.try_receive(Duration::from_millis(1)).is_ok() {}
        reason
    };
    assert_eq!(reason(&mut client, "a", "1"), 0);
    assert_eq!(reason(&mut client, "b", "1"), 0);
    // An error would have it sent again, and it was delivered.
    assert_eq!(reason(&mut client, "c", "1"), 0);
    assert_eq!(reason(&mut client, "a", "2"), 0, "replacing goes on");
    assert_eq!(reason(&mut client, "b", ""), 0, "so does clearing");
    assert_eq!(reason(&mut client, "c", "2"), 0, "which makes room");
    let mut late = Connect::new(Version::V5, "late").open(broker.addr());
    late.subscribe("#", 0);
    let mut got = [late.take(), late.take()].map(|p| (p.topic.clone(), p.text().to_owned()));
    got.sort();
    let expected = [("a", "2"), ("c", "2")].map(|(t, p)| (t.to_owned(), p.to_owned()));
    assert_eq!(got, expected);
    late.expect_nothing();
}

#[test]
fn a_subscription_more_than_allowed_is_refused() {
    let Some(broker) = limited("max_subscriptions = 2") else {
        return;
    };
    for (v, code) in [(Version::V5, 0x97), (Version::V311, 0x80)] {
        let mut client = Connect::new(v, "client").open(broker.addr());
        let filters = ["a", "b", "c"].map(|filter| Subscription::new(filter, 1));
        assert_eq!(
            client.subscribe_to(&filters, &Properties::new()),
            [1, 1, code]
        );
        client.subscribe("a", 0);
        client.unsubscribe(&["b"]);
        client.subscribe("c", 1);
    }
}

#[test]
fn a_session_more_than_allowed_is_refused() {
    let Some(broker) = limited("max_sessions = 2") else {
        return;
    };
    let one = Connect::durable(Version::V5, "one");
    one.open(broker.addr()).disconnect();
    let _two = Connect::durable(Version::V5, "two").open(broker.addr());
    let (_, connack) = Connect::new(Version::V5, "three").try_open(broker.addr());
    assert_eq!(connack.code, 0x97);
    let (_, connack) = Connect::new(Version::V311, "three").try_open(broker.addr());
    assert_eq!(connack.code, 3);
    assert!(one.open_with_answer(broker.addr()).1.session_present);
}

#[test]
fn topics_that_are_too_deep_or_too_long_are_refused() {
    let Some(broker) = limited("max_topic_levels = 4\nmax_topic_length = 20") else {
        return;
    };
    for topic in ["1/2/3/4/5", "longer-than-twenty-bytes"] {
        let mut client = Connect::new(Version::V5, "client").open(broker.addr());
        client.send(&subscribe5(0x82, 1, &[], topic.as_bytes(), 0));
        match client.receive() {
            Packet::SubAck(suback) => assert_eq!(suback.codes, [0x8f]),
            other => panic!("{other:?}"),
        }
        client.send(&publish5(0x32, topic.as_bytes(), Some(7), &[], b""));
        match client.receive() {
            Packet::PubAck(ack) => assert_eq!((ack.id, ack.reason), (7, 0x90)),
            Packet::Disconnect(said) => assert_eq!(said.reason, 0x90),
            other => panic!("{other:?}"),
        }
        let mut old = Connect::new(Version::V311, "old").open(broker.addr());
        old.send(&subscribe3(0x82, 1, topic.as_bytes(), 0));
        match old.receive() {
            Packet::SubAck(suback) => assert_eq!(suback.codes, [0x80]),
            other => panic!("{other:?}"),
        }
        old.send_publish(&Message::new(topic, "", 1));
        old.expect_closed();
    }
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    client.subscribe("1/2/3/+", 0);
    client.publish(&Message::new("1/2/3/4", "x", 0));
    client.expect("1/2/3/4", "x", 0);
}

#[test]
fn a_session_expiry_interval_that_is_too_long_is_lowered() {
    let Some(broker) = limited("persistent_client_expiration = \"1s\"") else {
        return;
    };
    for v in [Version::V5, Version::V311] {
        let durable = Connect::durable(v, "optimist");
        durable.open(broker.addr()).disconnect();
        std::thread::sleep(Duration::from_millis(2500));
        let (_, connack) = durable.open_with_answer(broker.addr());
        assert!(!connack.session_present);
    }
}
