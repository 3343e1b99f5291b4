//! Shared subscriptions: `$share/group/filter`, MQTT 5 section 4.8.2.

use std::collections::HashMap;

use support::{Broker, Client, Connect, Message, Packet, Properties, Subscription, Version};

use crate::in_versions;

fn member(broker: &Broker, id: &str, filter: &str, qos: u8) -> Client {
    let mut client = Connect::new(Version::V5, id).open(broker.addr());
    client.subscribe(filter, qos);
    client
}

fn publisher(broker: &Broker) -> Client {
    Connect::new(Version::V5, "publisher").open(broker.addr())
}

/// All messages that have come for a client, acknowledged; a PING marks the end.
fn collect(client: &mut Client) -> Vec<String> {
    let mut got = Vec::new();
    client.send(&[0xc0, 0]);
    loop {
        match client.receive() {
            Packet::Publish(publish) => {
                client.acknowledge(&publish);
                got.push(publish.text().to_owned());
            }
            Packet::PingResp => return got,
            other => panic!("{other:?}"),
        }
    }
}

/// Collects from all members until `count` messages have come.
fn collect_all(members: &mut [Client], count: usize) -> Vec<Vec<String>> {
    let mut got: Vec<Vec<String>> = members.iter().map(|_| Vec::new()).collect();
    let deadline = std::time::Instant::now() + support::TIMEOUT;
    while got.iter().map(Vec::len).sum::<usize>() < count {
        assert!(std::time::Instant::now() < deadline, "only {got:?}");
        for (member, got) in members.iter_mut().zip(&mut got) {
            got.extend(collect(member));
        }
    }
    got
}

fn exactly_once(got: &[Vec<String>], count: usize) {
    let mut seen = HashMap::new();
    for payload in got.iter().flatten() {
        *seen.entry(payload.clone()).or_insert(0) += 1;
    }
    for i in 0..count {
        assert_eq!(seen.get(&i.to_string()), Some(&1), "message {i} in {got:?}");
    }
    assert_eq!(seen.len(), count);
}

#[test]
fn each_message_goes_to_one_member() {
    // [MQTT-4.8.2-4] and section 4.8.2
    let broker = Broker::start();
    for qos in 0..=2 {
        let filter = format!("$share/g/jobs/{qos}");
        let mut members: Vec<Client> = (0..3)
            .map(|i| member(&broker, &format!("m{qos}-{i}"), &filter, qos))
            .collect();
        let mut publisher = publisher(&broker);
        for i in 0..60 {
            let topic = format!("jobs/{qos}");
            publisher.publish(&Message::new(&topic, i.to_string(), qos));
        }
        let got = collect_all(&mut members, 60);
        exactly_once(&got, 60);
        assert!(
            got.iter().all(|got| got.len() >= 5),
            "the load is shared: {got:?}"
        );
    }
}

#[test]
fn groups_and_ordinary_subscribers_do_not_take_from_each_other() {
    let broker = Broker::start();
    let mut one = member(&broker, "one", "$share/one/a", 1);
    let mut two = member(&broker, "two", "$share/two/a", 1);
    let mut all = member(&broker, "all", "a", 1);
    let mut publisher = publisher(&broker);
    for i in 0..10 {
        publisher.publish(&Message::new("a", i.to_string(), 1));
        for client in [&mut one, &mut two, &mut all] {
            client.expect("a", i.to_string(), 1);
        }
    }
}

#[test]
fn the_same_group_name_with_another_filter_is_another_group() {
    // Section 4.8.2: the share name and the filter together name it.
    let broker = Broker::start();
    let mut plus = member(&broker, "plus", "$share/g/a/+", 1);
    let mut hash = member(&broker, "hash", "$share/g/a/#", 1);
    let mut publisher = publisher(&broker);
    publisher.publish(&Message::new("a/b", "x", 1));
    plus.expect("a/b", "x", 1);
    hash.expect("a/b", "x", 1);
}

#[test]
fn one_client_may_have_both_a_shared_and_an_ordinary_subscription() {
    // Section 4.8.2: it may get the message for both.
    let broker = Broker::start();
    let mut client = member(&broker, "both", "$share/g/a", 1);
    client.subscribe("a", 1);
    publisher(&broker).publish(&Message::new("a", "x", 1));
    client.expect("a", "x", 1);
    client.expect("a", "x", 1);
    client.expect_nothing();
}

#[test]
fn wildcards_work_in_shared_filters() {
    let broker = Broker::start();
    let mut client = member(&broker, "m", "$share/g/a/+/c/#", 1);
    let mut publisher = publisher(&broker);
    publisher.publish(&Message::new("a/b/c/d/e", "x", 1));
    client.expect("a/b/c/d/e", "x", 1);
    publisher.publish(&Message::new("a/b/x", "x", 1));
    client.expect_nothing();
}

#[test]
fn retained_messages_are_not_sent_to_shared_subscriptions() {
    // Section 3.8.4
    let broker = Broker::start();
    publisher(&broker).publish(&Message::new("a", "on", 1).retained());
    let mut client = member(&broker, "m", "$share/g/a", 1);
    client.expect_nothing();
}

#[test]
fn a_member_that_unsubscribes_gets_nothing_more() {
    let broker = Broker::start();
    let mut stays = member(&broker, "stays", "$share/g/a", 1);
    let mut leaves = member(&broker, "leaves", "$share/g/a", 1);
    assert_eq!(leaves.unsubscribe(&["a"]), [0x11], "it is another filter");
    assert_eq!(leaves.unsubscribe(&["$share/g/a"]), [0]);
    let mut publisher = publisher(&broker);
    for i in 0..10 {
        publisher.publish(&Message::new("a", i.to_string(), 1));
        stays.expect("a", i.to_string(), 1);
    }
    leaves.expect_nothing();
}

#[test]
fn what_a_member_that_ends_has_not_acknowledged_goes_to_another() {
    // Section 4.8.2: QoS 1 goes back to the group when the session ends.
    let Some(broker) = Broker::with("") else {
        return;
    };
    let mut dies = member(&broker, "dies", "$share/g/a", 1);
    let mut publisher = publisher(&broker);
    for i in 0..5 {
        publisher.publish(&Message::new("a", i.to_string(), 1));
        dies.receive_publish();
    }
    let mut lives = member(&broker, "lives", "$share/g/a", 1);
    dies.drop_connection();
    let got = collect_all(std::slice::from_mut(&mut lives), 5);
    exactly_once(&got, 5);
}

#[test]
fn a_message_no_member_has_acknowledged_is_not_lost_when_a_durable_member_is_away() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let durable = Connect::durable(Version::V5, "durable");
    let mut client = durable.open(broker.addr());
    client.subscribe("$share/g/a", 2);
    client.disconnect();
    let mut publisher = publisher(&broker);
    for i in 0..20 {
        let qos = 1 + (i % 2) as u8;
        let reason = publisher.publish(&Message::new("a", i.to_string(), qos));
        assert_eq!(reason, 0, "there is a subscriber");
    }
    let mut client = durable.open(broker.addr());
    let got = collect_all(std::slice::from_mut(&mut client), 20);
    exactly_once(&got, 20);
}

#[test]
fn a_member_that_is_there_takes_what_one_that_is_away_cannot() {
    // Nothing waits for a member that is away while another could take it.
    let Some(broker) = Broker::with("") else {
        return;
    };
    let durable = Connect::durable(Version::V5, "away");
    let mut away = durable.open(broker.addr());
    away.subscribe("$share/g/a", 1);
    away.disconnect();
    let here = member(&broker, "here", "$share/g/a", 1);
    let mut publisher = publisher(&broker);
    for i in 0..20 {
        publisher.publish(&Message::new("a", i.to_string(), 1));
    }
    let mut members = [here, durable.open(broker.addr())];
    let got = collect_all(&mut members, 20);
    exactly_once(&got, 20);
    assert_eq!(got[0].len(), 20, "{got:?}");
}

#[test]
fn a_member_with_a_full_window_does_not_hold_up_the_group() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let connect = Connect::new(Version::V5, "stuck").receive_maximum(2);
    let mut stuck = connect.open(broker.addr());
    stuck.subscribe("$share/g/a", 1);
    let mut works = member(&broker, "works", "$share/g/a", 1);
    let mut publisher = publisher(&broker);
    for i in 0..40 {
        publisher.publish(&Message::new("a", i.to_string(), 1));
    }
    let got = collect_all(std::slice::from_mut(&mut works), 38);
    assert_eq!(
        got[0].len(),
        38,
        "all but the two that fill the other window"
    );
    let mut members = [stuck, works];
    let rest = collect_all(&mut members, 2);
    exactly_once(&[got[0].clone(), rest.concat()], 40);
}

#[test]
fn the_last_member_that_leaves_takes_the_group_with_it() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let mut client = member(&broker, "last", "$share/g/a", 1);
    let mut publisher = publisher(&broker);
    assert_eq!(publisher.publish(&Message::new("a", "x", 1)), 0);
    client.expect("a", "x", 1);
    client.unsubscribe(&["$share/g/a"]);
    assert_eq!(publisher.publish(&Message::new("a", "y", 1)), 0x10);
    client.subscribe("$share/g/a", 1);
    client.expect_nothing();
}

#[test]
fn a_message_to_a_member_comes_in_order() {
    // [MQTT-4.6.0-6] for a group of one.
    let broker = Broker::start();
    let mut client = member(&broker, "m", "$share/g/a", 2);
    let mut publisher = publisher(&broker);
    for i in 0..100 {
        publisher.publish(&Message::new("a", i.to_string(), 2));
    }
    for i in 0..100 {
        client.expect("a", i.to_string(), 2);
    }
}

#[test]
fn the_lower_qos_holds_for_each_member() {
    // [MQTT-4.8.2-3]
    let broker = Broker::start();
    let mut client = member(&broker, "low", "$share/g/a", 0);
    let mut publisher = publisher(&broker);
    publisher.publish(&Message::new("a", "x", 2));
    client.expect("a", "x", 0);
}

#[test]
fn illegal_shared_filters_are_refused() {
    // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    let Some(broker) = Broker::with("") else {
        return;
    };
    let mut client = Connect::new(Version::V5, "careless").open(broker.addr());
    for filter in [
        "$share",
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
        "$share/#/a",
        "$share/g+/a",
        "$share/g/a#",
    ] {
        let codes = client.subscribe_to(&[Subscription::new(filter, 1)], &Properties::new());
        // `$share` alone, without a slash, is an ordinary topic.
        let expected = if filter == "$share" { 1 } else { 0x8f };
        assert_eq!(codes, [expected], "for {filter}");
    }
}

#[test]
fn a_shared_subscription_has_its_subscription_identifier() {
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "m").open(broker.addr());
    let properties = Properties::new().subscription_id(12);
    client.subscribe_to(&[Subscription::new("$share/g/a", 1)], &properties);
    publisher(&broker).publish(&Message::new("a", "x", 1));
    let publish = client.expect("a", "x", 1);
    assert_eq!(publish.properties.subscription_ids(), [12]);
}

#[test]
fn a_share_filter_is_shared_in_mqtt_3_too() {
    // Not in the standard of MQTT 3; clients of it use it everywhere.
    in_versions(&Version::V3, |broker, v| {
        let mut members: Vec<Client> = (0..2)
            .map(|i| Connect::new(v, &format!("m{i}")).open(broker.addr()))
            .collect();
        for member in &mut members {
            member.subscribe("$share/g/a", 1);
        }
        let mut publisher = publisher(broker);
        for i in 0..20 {
            publisher.publish(&Message::new("a", i.to_string(), 1));
        }
        let got = collect_all(&mut members, 20);
        exactly_once(&got, 20);
    });
}
