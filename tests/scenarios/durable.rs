//! What survives SIGKILL: everything that was acknowledged, and how far each flow had come.

use std::thread::sleep;
use std::time::{Duration, Instant};

use support::{Broker, Connect, Message, Packet, Properties, Subscription, Version, Will};
use support::{property, raw};

use crate::each_version_durable;

#[test]
fn sessions_and_their_subscriptions_survive() {
    // [MQTT-4.1.0-1], [MQTT-4.1.0-2]; CONNACK and SUBACK of a durable session mean that they are on
    // disk.
    each_version_durable(|broker, v| {
        let durable = Connect::durable(v, "sleeper");
        let mut client = durable.open(broker.addr());
        let filters = [Subscription::new("a/+", 2), Subscription::new("b/#", 1)];
        assert_eq!(client.subscribe_to(&filters, &Properties::new()), [2, 1]);
        broker.crash();
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        publisher.publish(&Message::new("a/x", "1", 2));
        publisher.publish(&Message::new("b", "2", 2));
        let (mut client, connack) = durable.open_with_answer(broker.addr());
        assert_eq!(connack.session_present, v != Version::V31);
        client.expect("a/x", "1", 2);
        client.expect("b", "2", 1);
        client.expect_nothing();
    });
}

#[test]
fn a_session_that_was_connected_when_the_process_died_survives() {
    each_version_durable(|broker, v| {
        let durable = Connect::durable(v, "connected");
        let _client = durable.open(broker.addr());
        broker.crash();
        let (_, connack) = durable.open_with_answer(broker.addr());
        assert_eq!(connack.session_present, v != Version::V31);
    });
}

#[test]
fn sessions_that_end_with_their_connection_do_not_survive() {
    each_version_durable(|broker, v| {
        let mut client = Connect::new(v, "brief").open(broker.addr());
        client.subscribe("a", 2);
        broker.crash();
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        let reason = publisher.publish(&Message::new("a", "x", 1));
        assert_eq!(reason, if v.is5() { 0x10 } else { 0 });
        let (mut client, connack) = Connect::durable(v, "brief").open_with_answer(broker.addr());
        assert!(!connack.session_present);
        client.expect_nothing();
    });
}

#[test]
fn subscription_options_survive() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let durable = Connect::durable(Version::V5, "options");
    let mut client = durable.open(broker.addr());
    let filters = [Subscription::new("a", 1).no_local().retain_as_published()];
    client.subscribe_to(&filters, &Properties::new().subscription_id(42));
    broker.crash();
    let mut client = durable.open(broker.addr());
    client.publish(&Message::new("a", "mine", 1).retained());
    client.expect_nothing();
    let mut other = Connect::new(Version::V5, "other").open(broker.addr());
    other.publish(&Message::new("a", "theirs", 1).retained());
    let publish = client.expect("a", "theirs", 1);
    assert!(publish.retain);
    assert_eq!(publish.properties.subscription_ids(), [42]);
}

#[test]
fn an_unsubscribe_survives() {
    each_version_durable(|broker, v| {
        let durable = Connect::durable(v, "leaver");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 1);
        client.subscribe("b", 1);
        client.unsubscribe(&["a"]);
        broker.crash();
        let mut client = durable.open(broker.addr());
        client.publish(&Message::new("a", "x", 1));
        client.publish(&Message::new("b", "y", 1));
        client.expect("b", "y", 1);
        client.expect_nothing();
    });
}

#[test]
fn queued_messages_survive_whole_and_in_order() {
    each_version_durable(|broker, v| {
        let durable = Connect::durable(v, "sleeper");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 2);
        client.disconnect();
        let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
        for i in 0..100 {
            let message = Message::new("a", i.to_string(), 1 + i % 2);
            publisher.publish(&message.with(|p| {
                p.user("n", &i.to_string())
                    .text(property::CONTENT_TYPE, "number")
                    .binary(property::CORRELATION_DATA, &[i])
            }));
        }
        broker.crash();
        let mut client = durable.open(broker.addr());
        for i in 0..100 {
            let publish = client.expect("a", i.to_string(), 1 + i % 2);
            if v.is5() {
                assert_eq!(publish.properties.users(), [("n", i.to_string().as_str())]);
                let data = publish.properties.bytes(property::CORRELATION_DATA);
                assert_eq!(data, Some(&[i][..]));
            }
        }
        client.expect_nothing();
    });
}

#[test]
fn what_was_acknowledged_by_the_client_does_not_come_again_at_qos_2() {
    each_version_durable(|broker, v| {
        let durable = Connect::durable(v, "done");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 2);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for i in 0..10 {
            publisher.publish(&Message::new("a", i.to_string(), 2));
            client.expect("a", i.to_string(), 2);
        }
        client.ping();
        broker.crash();
        // Removing rows is lazy: a PUBREL may come again for a message that was complete, a PUBLISH
        // never.
        durable.open(broker.addr()).expect_nothing_but_pubrel();
    });
}

#[test]
fn qos_2_messages_on_their_way_keep_their_identifiers() {
    // [MQTT-4.4.0-1]
    each_version_durable(|broker, v| {
        let durable = Connect::durable(v, "in-flight");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 2);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for i in 0..10 {
            publisher.publish(&Message::new("a", i.to_string(), 2));
        }
        let first: Vec<_> = (0..10).map(|_| client.receive_publish()).collect();
        broker.crash();
        let mut client = durable.open(broker.addr());
        for before in first {
            let again = client.receive_publish();
            assert!(again.dup);
            assert_eq!((again.id, &again.payload), (before.id, &before.payload));
            client.acknowledge(&again);
        }
        client.expect_nothing();
    });
}

#[test]
fn qos_1_messages_on_their_way_come_again() {
    each_version_durable(|broker, v| {
        let durable = Connect::durable(v, "in-flight");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 1);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for i in 0..10 {
            publisher.publish(&Message::new("a", i.to_string(), 1));
            client.receive_publish();
        }
        broker.crash();
        let mut client = durable.open(broker.addr());
        for i in 0..10 {
            client.expect("a", i.to_string(), 1);
        }
        client.expect_nothing();
    });
}

#[test]
fn a_released_message_goes_on_with_pubrel() {
    // [MQTT-4.3.3-5]: PUBREL means that the broker has written down that PUBREC came.
    each_version_durable(|broker, v| {
        let durable = Connect::durable(v, "released");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 2);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        publisher.publish(&Message::new("a", "x", 2));
        let publish = client.receive_publish();
        client.send_ack(0x50, publish.id);
        client.pubrel_for(publish.id);
        broker.crash();
        let mut client = durable.open(broker.addr());
        match client.receive() {
            Packet::PubRel(ack) => assert_eq!(ack.id, publish.id),
            other => panic!("{other:?} instead of PUBREL"),
        }
        client.send_ack(0x70, publish.id);
        client.expect_nothing();
    });
}

#[test]
fn received_qos_2_identifiers_survive() {
    // [MQTT-4.3.3-10]: the same identifier after the crash is the same message.
    each_version_durable(|broker, v| {
        let subscriber = Connect::durable(v, "subscriber");
        let mut client = subscriber.open(broker.addr());
        client.subscribe("a", 2);
        client.disconnect();
        let durable = Connect::durable(v, "publisher");
        let mut publisher = durable.open(broker.addr());
        let message = Message::new("a", "once", 2);
        for id in [7, 8, 9] {
            publisher.send_publish_as(&message, id, false);
            publisher.pubrec_for(id);
        }
        publisher.release(8);
        broker.crash();
        let mut publisher = durable.open(broker.addr());
        // 7: PUBREC was lost, as far as this client pretends to know. 9: PUBREL was lost. 8 is
        // complete and free for another message.
        publisher.send_publish_as(&message, 7, true);
        assert_eq!(publisher.pubrec_for(7).reason, 0);
        assert_eq!(publisher.release(7), 0);
        assert_eq!(publisher.release(9), 0);
        publisher.send_publish_as(&Message::new("a", "another", 2), 8, false);
        assert_eq!(publisher.pubrec_for(8).reason, 0);
        publisher.release(8);
        let mut client = subscriber.open(broker.addr());
        for payload in ["once", "once", "once", "another"] {
            client.expect("a", payload, 2);
        }
        client.expect_nothing();
    });
}

#[test]
fn retained_messages_survive_replaced_and_cleared_as_they_were() {
    each_version_durable(|broker, v| {
        let mut client = Connect::new(v, "client").open(broker.addr());
        for qos in 0..=2 {
            for payload in ["old", "new"] {
                client.publish(&Message::new(&format!("r/{qos}"), payload, qos).retained());
            }
            client.publish(&Message::new(&format!("cleared/{qos}"), "x", qos).retained());
            client.publish(&Message::new(&format!("cleared/{qos}"), "", qos).retained());
        }
        // QoS 0 has no acknowledgement: a QoS 1 message behind it on the same connection has.
        client.publish(&Message::new("fence", "", 1).retained());
        broker.crash();
        let mut client = Connect::new(v, "client").open(broker.addr());
        client.subscribe("#", 2);
        let mut got: Vec<_> = (0..3)
            .map(|_| {
                let publish = client.take();
                assert!(publish.retain);
                (
                    publish.topic.clone(),
                    publish.text().to_owned(),
                    publish.qos,
                )
            })
            .collect();
        got.sort();
        for (qos, got) in (0..=2).zip(got) {
            assert_eq!(got, (format!("r/{qos}"), "new".to_owned(), qos));
        }
        client.expect_nothing();
    });
}

#[test]
fn the_will_of_a_client_that_was_connected_is_published_after_the_crash() {
    // [MQTT-3.1.2-8]: its connection ended with the process.
    each_version_durable(|broker, v| {
        let watcher = Connect::durable(v, "watcher");
        let mut client = watcher.open(broker.addr());
        client.subscribe("will/#", 2);
        client.disconnect();
        for (id, durable) in [("with-session", true), ("without", false)] {
            let connect = match durable {
                true => Connect::durable(v, id),
                false => Connect::new(v, id),
            };
            let message = Message::new(&format!("will/{id}"), id, 2).retained();
            let client = connect.will(Will::new(message)).open(broker.addr());
            // Its connection stays open until the process dies.
            std::mem::forget(client);
        }
        let polite = Connect::new(v, "polite").will(Will::new(Message::new("will/p", "p", 2)));
        polite.open(broker.addr()).disconnect();
        // DISCONNECT has no answer; the CONNACK of a durable session is behind it on the disk.
        Connect::durable(v, "fence").open(broker.addr());
        broker.crash();
        let mut client = watcher.open(broker.addr());
        let mut got = [client.take().topic, client.take().topic];
        got.sort();
        assert_eq!(got, ["will/with-session", "will/without"]);
        client.expect_nothing();
        // The end of a delivery is written with the next batch: this one.
        Connect::durable(v, "fence").open(broker.addr());
        broker.crash();
        let mut client = watcher.open(broker.addr());
        client.expect_nothing_but_pubrel();
        client.subscribe("will/without", 1);
        assert!(client.expect("will/without", "without", 1).retain);
    });
}

#[test]
fn a_delayed_will_goes_on_waiting_through_a_crash() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let watcher = Connect::durable(Version::V5, "watcher");
    let mut client = watcher.open(broker.addr());
    client.subscribe("will", 1);
    let will = Will::new(Message::new("will", "late", 1)).delay(3);
    let cut = Instant::now();
    let connect = Connect::durable(Version::V5, "mortal").will(will);
    connect.open(broker.addr()).drop_connection();
    // The broker must have seen the end of the connection, which nothing tells us.
    sleep(Duration::from_millis(300));
    broker.crash();
    let mut client = watcher.open(broker.addr());
    client.expect_nothing();
    client.expect("will", "late", 1);
    let waited = cut.elapsed();
    assert!(waited >= Duration::from_millis(2900), "after {waited:?}");
    assert!(waited < Duration::from_secs(8), "after {waited:?}");
}

#[test]
fn a_client_that_comes_back_after_the_crash_cancels_its_delayed_will() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let mut watcher = Connect::durable(Version::V5, "watcher").open(broker.addr());
    watcher.subscribe("will", 1);
    let durable = Connect::durable(Version::V5, "back");
    let will = Will::new(Message::new("will", "late", 1)).delay(2);
    let _client = durable.clone().will(will).open(broker.addr());
    broker.crash();
    let mut back = durable.open(broker.addr());
    sleep(Duration::from_millis(3000));
    back.ping();
    Connect::durable(Version::V5, "watcher")
        .open(broker.addr())
        .expect_nothing();
}

#[test]
fn message_expiry_goes_on_counting_while_the_broker_is_down() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let durable = Connect::durable(Version::V5, "sleeper");
    let mut client = durable.open(broker.addr());
    client.subscribe("a", 1);
    client.disconnect();
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    let expiring = |payload: &str, seconds| {
        Message::new("a", payload, 1).with(|p| p.four(property::MESSAGE_EXPIRY, seconds))
    };
    publisher.publish(&expiring("gone", 2));
    publisher.publish(&expiring("kept", 600));
    publisher.publish(&expiring("gone too", 2).retained());
    broker.kill();
    sleep(Duration::from_millis(3100));
    broker.start_again();
    let mut client = durable.open(broker.addr());
    let publish = client.expect("a", "kept", 1);
    let left = publish.properties.number(property::MESSAGE_EXPIRY);
    assert!(matches!(left, Some(580..=597)), "{left:?} seconds left");
    client.expect_nothing();
    client.subscribe("a", 1);
    client.expect_nothing();
}

#[test]
fn session_expiry_goes_on_counting_while_the_broker_is_down() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let brief = Connect::new(Version::V5, "brief").clean(false).expiry(2);
    let lasting = Connect::durable(Version::V5, "lasting");
    brief.open(broker.addr()).disconnect();
    lasting.open(broker.addr()).disconnect();
    broker.kill();
    sleep(Duration::from_millis(3100));
    broker.start_again();
    let (_, connack) = brief.open_with_answer(broker.addr());
    assert!(!connack.session_present);
    let (_, connack) = lasting.open_with_answer(broker.addr());
    assert!(connack.session_present);
}

#[test]
fn a_changed_session_expiry_survives() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let durable = Connect::durable(Version::V5, "changed");
    let now = Properties::new().four(property::SESSION_EXPIRY, 0);
    durable.open(broker.addr()).disconnect_with(0, &now);
    // DISCONNECT has no answer; the CONNACK of a durable session is behind it on the disk.
    Connect::durable(Version::V5, "fence").open(broker.addr());
    broker.crash();
    let (_, connack) = durable.open_with_answer(broker.addr());
    assert!(!connack.session_present);
}

#[test]
fn a_shared_groups_messages_survive() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let durable = Connect::durable(Version::V5, "member");
    let mut client = durable.open(broker.addr());
    client.subscribe("$share/g/a", 2);
    client.disconnect();
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for i in 0..20 {
        publisher.publish(&Message::new("a", i.to_string(), 1 + i % 2));
    }
    broker.crash();
    let mut client = durable.open(broker.addr());
    for i in 0..20 {
        client.expect("a", i.to_string(), 1 + i % 2);
    }
    client.expect_nothing();
}

#[test]
fn a_clean_start_is_final() {
    each_version_durable(|broker, v| {
        let durable = Connect::durable(v, "reset");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 1);
        client.publish(&Message::new("a", "x", 1));
        client.drop_connection();
        durable.clone().clean(true).open(broker.addr()).disconnect();
        // In MQTT 5 the new session is durable again; in MQTT 3 it ends with the connection.
        broker.crash();
        let mut client = durable.open(broker.addr());
        client.publish(&Message::new("a", "y", 1));
        client.expect_nothing();
    });
}

#[test]
fn one_crash_after_the_other_loses_nothing() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let durable = Connect::durable(Version::V311, "sleeper");
    let mut client = durable.open(broker.addr());
    client.subscribe("a", 2);
    client.disconnect();
    for i in 0..10 {
        let mut publisher = Connect::new(Version::V311, "publisher").open(broker.addr());
        publisher.publish(&Message::new("a", i.to_string(), 2));
        broker.crash();
    }
    let mut client = durable.open(broker.addr());
    for i in 0..10 {
        client.expect("a", i.to_string(), 2);
    }
    client.expect_nothing();
}

#[test]
fn large_messages_survive() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let durable = Connect::durable(Version::V5, "sleeper");
    let mut client = durable.open(broker.addr());
    client.subscribe("a", 1);
    client.disconnect();
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    let payload: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    for _ in 0..5 {
        publisher.publish(&Message::new("a", &payload, 1));
    }
    broker.crash();
    let mut client = durable.open(broker.addr());
    for _ in 0..5 {
        assert!(client.take().payload == payload);
    }
    client.expect_nothing();
}

#[test]
fn a_connection_cut_within_a_packet_leaves_nothing_behind() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let durable = Connect::durable(Version::V5, "subscriber");
    let mut client = durable.open(broker.addr());
    client.subscribe("a", 1);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    let whole = raw::publish5(0x32, b"a", Some(1), &[], b"whole");
    publisher.send(&raw::concat(&[&whole, &whole[..whole.len() - 1]]));
    publisher.puback_for(1);
    publisher.drop_connection();
    client.expect("a", "whole", 1);
    client.expect_nothing();
    broker.crash();
    durable.open(broker.addr()).ping();
}
