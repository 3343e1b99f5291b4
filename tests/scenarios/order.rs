//! Order: section 4.6, and the promise that one topic has one order for everybody.

use std::thread;

use support::{Broker, Client, Connect, Message, Version};

use crate::each_version;

#[test]
fn messages_of_one_publisher_arrive_in_order_at_each_qos() {
    // [MQTT-4.6.0-5], [MQTT-4.6.0-6]
    each_version(|broker, v| {
        let mut subscriber = Connect::new(v, "subscriber").open(broker.addr());
        subscriber.subscribe("a/#", 2);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for qos in 0..=2 {
            let topic = format!("a/{qos}");
            for i in 0..300 {
                let id = publisher.send_publish(&Message::new(&topic, i.to_string(), qos));
                if qos == 2 {
                    publisher.pubrec_for(id);
                    publisher.release(id);
                }
            }
            publisher.ping();
            for i in 0..300 {
                subscriber.expect(&topic, i.to_string(), qos);
            }
        }
    });
}

#[test]
fn qos_mixed_on_one_topic_keeps_its_order_for_a_subscriber_that_keeps_up() {
    let broker = Broker::start();
    let mut subscriber = Connect::new(Version::V5, "subscriber").open(broker.addr());
    subscriber.subscribe("a", 2);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for i in 0..100 {
        publisher.publish(&Message::new("a", i.to_string(), 1 + i % 2));
        subscriber.expect("a", i.to_string(), 1 + i % 2);
    }
}

fn payloads(subscriber: &mut Client, count: usize) -> Vec<String> {
    (0..count)
        .map(|_| subscriber.take().text().to_owned())
        .collect()
}

#[test]
fn all_subscribers_see_the_messages_of_many_publishers_in_the_same_order() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let addr = broker.addr();
    let mut subscribers: Vec<Client> = (0..4)
        .map(|i| Connect::new(Version::V5, &format!("s{i}")).open(addr))
        .collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("a", 1);
    }
    let publishers: Vec<_> = (0..4)
        .map(|p| {
            thread::spawn(move || {
                let mut publisher = Connect::new(Version::V5, &format!("p{p}")).open(addr);
                for i in 0..50 {
                    publisher.publish(&Message::new("a", format!("{p}:{i}"), 1 + i % 2));
                }
            })
        })
        .collect();
    let orders: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| thread::spawn(move || payloads(&mut subscriber, 200)))
        .map(|thread| thread.join().expect("no subscriber fails"))
        .collect();
    for publisher in publishers {
        publisher.join().expect("no publisher fails");
    }
    for order in &orders[1..] {
        assert!(*order == orders[0], "two subscribers saw different orders");
    }
    for p in 0..4 {
        let own: Vec<_> = orders[0]
            .iter()
            .filter_map(|payload| payload.strip_prefix(&format!("{p}:")))
            .collect();
        let sent: Vec<String> = (0..50).map(|i| i.to_string()).collect();
        assert_eq!(own, sent);
    }
}

#[test]
fn order_holds_through_reconnections() {
    let broker = Broker::start();
    let durable = Connect::durable(Version::V5, "subscriber").receive_maximum(10);
    let mut subscriber = durable.open(broker.addr());
    subscriber.subscribe("a", 2);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for i in 0..200 {
        publisher.publish(&Message::new("a", i.to_string(), 2));
    }
    for next in 0..200 {
        subscriber.expect("a", next.to_string(), 2);
        if next % 7 == 0 {
            subscriber.ping();
            subscriber.drop_connection();
            subscriber = durable.open(broker.addr());
        }
    }
    subscriber.expect_nothing();
}
