//! Sessions: what outlives a connection and for how long.

use std::thread::sleep;
use std::time::Duration;

use support::{Broker, Connect, Message, Properties, Version, property};

use crate::{each_version, in_versions};

#[test]
fn a_session_keeps_subscriptions_and_what_was_published_while_it_was_away() {
    // [MQTT-3.1.2-5], [MQTT-3.2.2-2], [MQTT-4.1.0-1]; 3.1.1: [MQTT-3.1.2-4], [MQTT-3.1.2-5]
    each_version(|broker, v| {
        let durable = Connect::durable(v, "sleeper");
        let mut client = durable.open(broker.addr());
        client.subscribe("news/+", 2);
        client.disconnect();
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for (i, qos) in [1, 2, 1, 2, 2].into_iter().enumerate() {
            publisher.publish(&Message::new("news/a", i.to_string(), qos));
        }
        let (mut client, connack) = durable.open_with_answer(broker.addr());
        assert_eq!(connack.session_present, v != Version::V31);
        for (i, qos) in [1, 2, 1, 2, 2].into_iter().enumerate() {
            let publish = client.expect("news/a", i.to_string(), qos);
            assert!(!publish.dup, "it is sent for the first time [MQTT-3.3.1-1]");
        }
        client.expect_nothing();
        publisher.publish(&Message::new("news/b", "live", 1));
        client.expect("news/b", "live", 1);
    });
}

#[test]
fn a_clean_start_throws_the_session_away() {
    // [MQTT-3.1.2-4], 3.1.1: [MQTT-3.1.2-6]
    each_version(|broker, v| {
        let durable = Connect::durable(v, "forgetful");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 1);
        client.disconnect();
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        publisher.publish(&Message::new("a", "lost", 1));
        let (mut client, connack) = durable.clone().clean(true).open_with_answer(broker.addr());
        assert!(!connack.session_present);
        publisher.publish(&Message::new("a", "not subscribed", 1));
        client.expect_nothing();
    });
}

#[test]
fn a_clean_session_of_mqtt_3_ends_with_its_connection() {
    // 3.1.1: [MQTT-3.1.2-6]
    in_versions(&Version::V3, |broker, v| {
        let mut client = Connect::new(v, "clean").open(broker.addr());
        client.subscribe("a", 1);
        client.disconnect();
        let (mut client, connack) = Connect::durable(v, "clean").open_with_answer(broker.addr());
        assert!(!connack.session_present);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        publisher.publish(&Message::new("a", "1", 1));
        client.expect_nothing();
    });
}

#[test]
fn a_session_without_an_expiry_interval_ends_with_its_connection() {
    // MQTT 5 section 3.1.2.11.2: absent is 0.
    let broker = Broker::start();
    for connect in [
        Connect::new(Version::V5, "brief").clean(false),
        Connect::new(Version::V5, "zero").clean(false).expiry(0),
    ] {
        let mut client = connect.open(broker.addr());
        client.subscribe("a", 1);
        client.disconnect();
        let (_, connack) = connect.open_with_answer(broker.addr());
        assert!(!connack.session_present);
    }
}

#[test]
fn a_session_ends_when_its_expiry_interval_has_passed() {
    // [MQTT-3.1.2-23]
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "short").clean(false).expiry(1);
    let mut client = connect.open(broker.addr());
    client.subscribe("a", 1);
    client.drop_connection();
    let (client, connack) = connect.open_with_answer(broker.addr());
    assert!(connack.session_present, "a moment is less than a second");
    client.drop_connection();
    sleep(Duration::from_millis(2500));
    let (_, connack) = connect.open_with_answer(broker.addr());
    assert!(!connack.session_present);
}

#[test]
fn the_expiry_interval_counts_from_the_end_of_the_connection() {
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "long").clean(false).expiry(2);
    let mut client = connect.open(broker.addr());
    sleep(Duration::from_millis(2500));
    client.ping();
    client.drop_connection();
    let (_, connack) = connect.open_with_answer(broker.addr());
    assert!(connack.session_present);
}

#[test]
fn a_session_with_the_largest_interval_never_expires() {
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "eternal")
        .clean(false)
        .expiry(u32::MAX);
    connect.open(broker.addr()).disconnect();
    assert!(connect.open_with_answer(broker.addr()).1.session_present);
}

#[test]
fn a_disconnect_changes_the_expiry_interval() {
    // MQTT 5 section 3.14.2.2.2
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "changing");
    let end_now = Properties::new().four(property::SESSION_EXPIRY, 0);
    connect.open(broker.addr()).disconnect_with(0, &end_now);
    let (client, connack) = connect.open_with_answer(broker.addr());
    assert!(!connack.session_present, "0 ends it");
    let one_second = Properties::new().four(property::SESSION_EXPIRY, 1);
    client.disconnect_with(0, &one_second);
    sleep(Duration::from_millis(2500));
    let (_, connack) = connect.open_with_answer(broker.addr());
    assert!(!connack.session_present, "1 second ends it");
}

#[test]
fn the_expiry_interval_may_be_raised_at_disconnect_unless_it_was_zero() {
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "raising").clean(false).expiry(1);
    let hour = Properties::new().four(property::SESSION_EXPIRY, 3600);
    connect.open(broker.addr()).disconnect_with(0, &hour);
    sleep(Duration::from_millis(2500));
    assert!(connect.open_with_answer(broker.addr()).1.session_present);
    // A protocol error if it was 0 in the CONNECT.
    let mut client = Connect::new(Version::V5, "zero").open(broker.addr());
    let bytes = [0xe0, 7, 0, 5, 0x11, 0, 0, 0, 60];
    client.send(&bytes);
    client.expect_disconnect(&[0x82]);
}

#[test]
fn a_later_connect_sets_the_expiry_interval_anew() {
    let broker = Broker::start();
    let durable = Connect::durable(Version::V5, "anew");
    durable.open(broker.addr()).disconnect();
    let brief = Connect::new(Version::V5, "anew").clean(false);
    let (client, connack) = brief.open_with_answer(broker.addr());
    assert!(connack.session_present);
    client.disconnect();
    let (_, connack) = durable.open_with_answer(broker.addr());
    assert!(!connack.session_present);
}

#[test]
fn qos_0_is_not_kept_for_a_session_that_is_away() {
    // MQTT 5 section 4.1: optional; this server does not.
    each_version(|broker, v| {
        let durable = Connect::durable(v, "away");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 2);
        client.disconnect();
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        publisher.publish(&Message::new("a", "gone", 0));
        publisher.publish(&Message::new("a", "kept", 1));
        let mut client = durable.open(broker.addr());
        client.expect("a", "kept", 1);
        client.expect_nothing();
    });
}

#[test]
fn a_session_may_go_on_in_another_protocol_version() {
    let broker = Broker::start();
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for from in Version::ALL {
        for to in Version::ALL {
            let id = format!("{from}-{to}");
            let mut client = Connect::durable(from, &id).open(broker.addr());
            client.subscribe(&id, 2);
            client.drop_connection();
            let message = Message::new(&id, "kept", 2).with(|p| p.user("a", "b"));
            publisher.publish(&message);
            let mut client = Connect::durable(to, &id).open(broker.addr());
            let publish = client.expect(&id, "kept", 2);
            assert_eq!(publish.properties.users().len(), usize::from(to.is5()));
        }
    }
}

#[test]
fn two_sessions_do_not_mix() {
    each_version(|broker, v| {
        let mut one = Connect::durable(v, "one").open(broker.addr());
        let mut two = Connect::durable(v, "two").open(broker.addr());
        one.subscribe("for/one", 1);
        two.subscribe("for/two", 1);
        one.drop_connection();
        two.drop_connection();
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        publisher.publish(&Message::new("for/two", "2", 1));
        publisher.publish(&Message::new("for/one", "1", 1));
        let mut one = Connect::durable(v, "one").open(broker.addr());
        one.expect("for/one", "1", 1);
        one.expect_nothing();
        let mut two = Connect::durable(v, "two").open(broker.addr());
        two.expect("for/two", "2", 1);
        two.expect_nothing();
    });
}
