//! Keep alive: one and a half times, no less and not for ever.

use std::time::{Duration, Instant};

use support::{Broker, Connect, Version, property};

use crate::each_version;

#[test]
fn a_silent_client_is_disconnected_after_one_and_a_half_keep_alives() {
    // [MQTT-3.1.2-22], 3.1.1: [MQTT-3.1.2-24]
    each_version(|broker, v| {
        let mut client = Connect::new(v, "silent").keep_alive(2).open(broker.addr());
        let start = Instant::now();
        client.expect_disconnect(&[0x8d]);
        let silent = start.elapsed();
        assert!(silent >= Duration::from_millis(2900), "after {silent:?}");
        assert!(silent < Duration::from_millis(6000), "after {silent:?}");
    });
}

#[test]
fn any_packet_keeps_a_client_alive() {
    each_version(|broker, v| {
        let mut client = Connect::new(v, "alive").keep_alive(1).open(broker.addr());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(500));
            client.ping();
        }
    });
}

#[test]
fn what_the_server_sends_does_not_keep_a_client_alive() {
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "listener")
        .keep_alive(1)
        .open(broker.addr());
    client.subscribe("a", 0);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        publisher.publish(&support::Message::new("a", "x", 0));
        std::thread::sleep(Duration::from_millis(200));
    }
    client.expect_disconnect(&[0x8d]);
}

#[test]
fn without_keep_alive_a_client_may_be_silent() {
    // MQTT 5 section 3.1.2.10: 0 turns it off.
    let broker = Broker::start();
    let mut client = Connect::new(Version::V311, "quiet").open(broker.addr());
    std::thread::sleep(Duration::from_millis(2500));
    client.ping();
}

#[test]
fn the_servers_keep_alive_is_used_when_it_gives_one() {
    // [MQTT-3.2.2-21], [MQTT-3.2.2-22]
    let Some(broker) = Broker::with("[limits]\nmax_keepalive = \"1s\"\n") else {
        return;
    };
    for asked in [0, 600] {
        let connect = Connect::new(Version::V5, &format!("asked-{asked}")).keep_alive(asked);
        let (mut client, connack) = connect.open_with_answer(broker.addr());
        let given = connack.properties.number(property::SERVER_KEEP_ALIVE);
        assert_eq!(given, Some(1));
        client.expect_disconnect(&[0x8d]);
    }
    let connect = Connect::new(Version::V5, "modest").keep_alive(1);
    let (_, connack) = connect.open_with_answer(broker.addr());
    let given = connack.properties.number(property::SERVER_KEEP_ALIVE);
    assert_eq!(given, None, "nothing was lowered");
}

#[test]
fn a_keep_alive_that_is_too_long_is_refused_in_mqtt_3() {
    // MQTT 3 cannot be told another one.
    let Some(broker) = Broker::with("[limits]\nmax_keepalive = \"10s\"\n") else {
        return;
    };
    for v in Version::V3 {
        for asked in [0, 11] {
            let connect = Connect::new(v, "insistent").keep_alive(asked);
            let (mut client, connack) = connect.try_open(broker.addr());
            assert_eq!(connack.code, 2);
            client.expect_closed();
        }
        Connect::new(v, "modest")
            .keep_alive(10)
            .open(broker.addr())
            .ping();
    }
}
