//! More than one way from broker to broker: nothing goes in circles, and nothing arrives twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use support::{Broker, Client, Connect, Message, Packet, TIMEOUT, Version};

use super::side::cloud;

/// The configuration of bridges of these names to these brokers, for everything both ways.
fn everything_to(bridges: &[(&str, &Broker)]) -> String {
    let one = |(name, to): &(&str, &Broker)| {
        format!(
            "[[bridges]]\nname = \"{name}\"\naddress = \"{}\"\nremote_clientid = \"{name}\"\n\
             [[bridges.topics]]\npattern = \"#\"\ndirection = \"both\"\n",
            to.addr()
        )
    };
    bridges.iter().map(one).collect()
}

fn wait_until_connected(broker: &Broker, name: &str) {
    let mut client = Connect::new(Version::V5, "").open(broker.addr());
    client.subscribe(&format!("$SYS/bridge/{name}/state"), 0);
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match client.try_receive(left) {
            Ok(Some(Packet::Publish(publish))) if publish.payload == b"connected" => return,
            Ok(Some(_)) => {}
            other => panic!("the bridge {name} is not connected: {other:?}"),
        }
    }
}

/// How often each message comes, until there are `different` ones and then nothing more for a
/// while.
fn counted(client: &mut Client, different: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let wait = match counts.len() < different {
            true => deadline.saturating_duration_since(Instant::now()),
            false => Duration::from_millis(500),
        };
        match client.try_receive(wait.max(Duration::from_millis(1))) {
            Ok(Some(Packet::Publish(publish))) => {
                client.answer(&publish);
                let text = String::from_utf8_lossy(&publish.payload).into_owned();
                *counts.entry(text).or_insert(0) += 1;
            }
            Ok(Some(Packet::PubRel(ack))) => client.send_ack(0x70, ack.id),
            Ok(Some(_)) => {}
            _ => return counts,
        }
    }
}

/// Publishes at each broker, QoS 0, 1 and 2; each message must come to each broker once, those of
/// QoS 0 at most twice.
fn assert_once_everywhere(brokers: &[&Broker]) {
    let mut clients: Vec<Client> = brokers
        .iter()
        .enumerate()
        .map(|(n, broker)| {
            let mut client = Connect::new(Version::V5, &format!("at-{n}")).open(broker.addr());
            client.subscribe("ring/#", 2);
            client
        })
        .collect();
    for (n, broker) in brokers.iter().enumerate() {
        let mut device = Connect::new(Version::V5, "device").open(broker.addr());
        for round in 0..20 {
            for qos in 0..=2 {
                let payload = format!("{qos}: {n} {round}");
                device.publish(&Message::new("ring/x", payload, qos));
            }
        }
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let counts = counted(client, brokers.len() * 60);
        assert_eq!(counts.len(), brokers.len() * 60, "at {n}");
        for (message, count) in counts {
            let most = if message.starts_with('0') { 2 } else { 1 };
            assert!(
                count <= most,
                "{message:?} came {count} times to broker {n}"
            );
        }
    }
}

#[test]
fn in_a_ring_of_three_everything_arrives_once() {
    let one = cloud("");
    let two = cloud(&everything_to(&[("two-one", &one)]));
    let three = cloud(&everything_to(&[("three-one", &one), ("three-two", &two)]));
    for (broker, name) in [
        (&two, "two-one"),
        (&three, "three-one"),
        (&three, "three-two"),
    ] {
        wait_until_connected(broker, name);
    }
    assert_once_everywhere(&[&one, &two, &three]);
}

#[test]
fn over_two_bridges_to_the_same_broker_everything_arrives_once() {
    let one = cloud("");
    let two = cloud(&everything_to(&[("first", &one), ("second", &one)]));
    wait_until_connected(&two, "first");
    wait_until_connected(&two, "second");
    assert_once_everywhere(&[&one, &two]);
}

#[test]
fn a_store_that_was_replaced_by_an_older_copy_gives_no_identity_twice() {
    let identity = |broker: &Broker| {
        let mut bridge = Connect::new(Version::V5, "bridge")
            .with(|said| said.user("tidegate-bridge", "1"))
            .open(broker.addr());
        bridge.subscribe("heartbeat", 1);
        let mut device = Connect::new(Version::V5, "device").open(broker.addr());
        device.publish(&Message::new("heartbeat", "alive", 1));
        let got = bridge.expect("heartbeat", "alive", 1);
        let marks = got.properties.users();
        let id = marks.iter().find(|(name, _)| *name == "tidegate-id");
        id.expect("an identity").1.to_owned()
    };
    let mut broker = cloud("");
    identity(&broker);
    broker.stop();
    let store = broker.data_dir().join("tidegate.redb");
    let copy = std::fs::read(&store).expect("it is there");
    broker.start_again();
    let first = identity(&broker);
    broker.stop();
    std::fs::write(&store, copy).expect("written");
    broker.start_again();
    assert_ne!(identity(&broker), first);
}
