//! A second connection with the same client identifier.

use support::{Broker, Connect, Message, Version};

use crate::each_version;

#[test]
fn a_second_connection_takes_the_place_of_the_first() {
    // [MQTT-3.1.4-3]: 0x8E to the old one; 3.1.1: [MQTT-3.1.4-2]
    each_version(|broker, v| {
        let mut old = Connect::new(v, "twice").open(broker.addr());
        let mut new = Connect::new(v, "twice").open(broker.addr());
        old.expect_disconnect(&[0x8e]);
        new.ping();
    });
}

#[test]
fn the_session_moves_to_the_new_connection() {
    each_version(|broker, v| {
        let durable = Connect::durable(v, "moving");
        let mut old = durable.open(broker.addr());
        old.subscribe("a", 2);
        let (mut new, connack) = durable.open_with_answer(broker.addr());
        assert_eq!(connack.session_present, v != Version::V31);
        old.expect_disconnect(&[0x8e]);
        new.publish(&Message::new("a", "still subscribed", 2));
        new.expect("a", "still subscribed", 2);
    });
}

#[test]
fn a_clean_take_over_begins_a_new_session() {
    each_version(|broker, v| {
        let mut old = Connect::durable(v, "reset").open(broker.addr());
        old.subscribe("a", 2);
        let connect = Connect::durable(v, "reset").clean(true);
        let (mut new, connack) = connect.open_with_answer(broker.addr());
        assert!(!connack.session_present);
        new.publish(&Message::new("a", "nobody", 2));
        new.expect_nothing();
        old.expect_disconnect(&[0x8e]);
    });
}

#[test]
fn a_connection_may_be_taken_over_from_another_version() {
    let broker = Broker::start();
    let versions = [Version::V5, Version::V311, Version::V31, Version::V5];
    let mut old = Connect::durable(versions[0], "hopper").open(broker.addr());
    for v in &versions[1..] {
        let new = Connect::durable(*v, "hopper").open(broker.addr());
        old.expect_disconnect(&[0x8e]);
        old = new;
    }
    old.ping();
}

#[test]
fn messages_on_their_way_to_the_old_connection_are_sent_to_the_new_one() {
    // [MQTT-4.4.0-1]: with DUP and the original packet identifier.
    each_version(|broker, v| {
        let durable = Connect::durable(v, "carrier");
        let mut old = durable.open(broker.addr());
        old.subscribe("a", 2);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        publisher.publish(&Message::new("a", "1", 1));
        publisher.publish(&Message::new("a", "2", 2));
        let first = [old.receive_publish(), old.receive_publish()];
        let mut new = durable.open(broker.addr());
        for before in first {
            let again = new.take();
            assert!(again.dup, "[MQTT-3.3.1-1]");
            assert_eq!(
                (again.id, &again.payload, again.qos),
                (before.id, &before.payload, before.qos)
            );
        }
        new.expect_nothing();
    });
}

#[test]
fn many_take_overs_in_a_row_leave_one_connection() {
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "storm");
    let mut clients: Vec<_> = (0..50).map(|_| connect.open(broker.addr())).collect();
    let mut last = clients.pop().expect("there are fifty");
    for mut client in clients {
        client.expect_disconnect(&[0x8e]);
    }
    last.subscribe("a", 0);
    last.publish(&Message::new("a", "alone", 0));
    last.expect("a", "alone", 0);
    last.expect_nothing();
}
