//! Message expiry.

use std::thread::sleep;
use std::time::Duration;

use support::{Broker, Connect, Message, Version, property};

fn expiring(topic: &str, payload: &str, seconds: u32) -> Message {
    Message::new(topic, payload, 1).with(|p| p.four(property::MESSAGE_EXPIRY, seconds))
}

#[test]
fn a_message_that_has_expired_is_not_delivered() {
    // [MQTT-3.3.2-5]
    let broker = Broker::start();
    let durable = Connect::durable(Version::V5, "late");
    let mut client = durable.open(broker.addr());
    client.subscribe("a", 1);
    client.disconnect();
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    publisher.publish(&expiring("a", "gone", 1));
    publisher.publish(&expiring("a", "kept", 600));
    publisher.publish(&Message::new("a", "for ever", 1));
    sleep(Duration::from_millis(2200));
    let mut client = durable.open(broker.addr());
    client.expect("a", "kept", 1);
    client.expect("a", "for ever", 1);
    client.expect_nothing();
}

#[test]
fn what_is_left_of_the_expiry_interval_is_sent() {
    // [MQTT-3.3.2-6]
    let broker = Broker::start();
    let durable = Connect::durable(Version::V5, "waiting");
    let mut client = durable.open(broker.addr());
    client.subscribe("a", 1);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    publisher.publish(&expiring("a", "at once", 600));
    let publish = client.expect("a", "at once", 1);
    let left = publish.properties.number(property::MESSAGE_EXPIRY);
    assert!(matches!(left, Some(599 | 600)), "{left:?} seconds left");
    client.disconnect();
    publisher.publish(&expiring("a", "later", 600));
    sleep(Duration::from_millis(2000));
    let mut client = durable.open(broker.addr());
    let publish = client.expect("a", "later", 1);
    let left = publish.properties.number(property::MESSAGE_EXPIRY);
    assert!(matches!(left, Some(590..=598)), "{left:?} seconds left");
}

#[test]
fn a_message_expires_behind_a_full_window_too() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let connect = Connect::new(Version::V5, "busy").receive_maximum(1);
    let mut client = connect.open(broker.addr());
    client.subscribe("a", 1);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    publisher.publish(&Message::new("a", "first", 1));
    publisher.publish(&expiring("a", "expires in the queue", 1));
    publisher.publish(&Message::new("a", "third", 1));
    let first = client.receive_publish();
    sleep(Duration::from_millis(2200));
    client.acknowledge(&first);
    client.expect("a", "third", 1);
    client.expect_nothing();
}

#[test]
fn a_retained_message_expires() {
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    client.publish(&expiring("brief", "x", 1).retained());
    client.publish(&expiring("lasting", "x", 600).retained());
    client.subscribe("brief", 1);
    client.expect("brief", "x", 1);
    sleep(Duration::from_millis(2200));
    client.subscribe("brief", 1);
    client.expect_nothing();
    client.subscribe("lasting", 1);
    let publish = client.expect("lasting", "x", 1);
    let left = publish.properties.number(property::MESSAGE_EXPIRY);
    assert!(matches!(left, Some(590..=598)), "{left:?} seconds left");
}

#[test]
fn a_message_with_an_expiry_interval_of_zero_is_not_kept() {
    // Section 3.3.2.3.3
    let Some(broker) = Broker::with("") else {
        return;
    };
    let mut away = Connect::durable(Version::V5, "away").open(broker.addr());
    away.subscribe("a", 1);
    away.disconnect();
    let mut client = Connect::new(Version::V5, "here").open(broker.addr());
    client.publish(&expiring("a", "now or never", 0));
    sleep(Duration::from_millis(1100));
    Connect::durable(Version::V5, "away")
        .open(broker.addr())
        .expect_nothing();
}

#[test]
fn messages_expire_for_subscribers_of_mqtt_3_too() {
    let broker = Broker::start();
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for v in Version::V3 {
        let durable = Connect::durable(v, &format!("old-{v}"));
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 1);
        client.disconnect();
        publisher.publish(&expiring("a", "gone", 1));
        sleep(Duration::from_millis(2200));
        let mut client = durable.open(broker.addr());
        client.expect_nothing();
    }
}
