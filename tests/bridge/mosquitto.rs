//! A real Mosquitto as the upstream. Where it is not installed this is left out with a line that
//! says so; with `TIDEGATE_REQUIRE_CLIENTS=1` that is a failure.

use std::collections::BTreeSet;
use std::time::Duration;

use support::{Broker, Connect, Message, Version};

use super::LONG;
use super::proxy::Proxy;
use super::side::*;

/// A Mosquitto that keeps sessions while it runs; `None` if it is not installed.
pub fn mosquitto() -> Option<Broker> {
    Broker::mosquitto(
        "allow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\nlog_type all\nlog_dest stderr\n",
    )
}

/// Whether it has sent the bridge a message again whose PUBREL it had sent before, which 2.0.11
/// does if a connection breaks while it is resending. Its identifier has been given back by then,
/// so nobody can tell the message from a new one [MQTT-4.3.3-6]. No identifier is used twice here.
fn has_sent_what_it_had_released(mosquitto: &Broker) -> bool {
    let mut released = BTreeSet::new();
    mosquitto.log().lines().any(|line| {
        let identifier = |line: &str| {
            let (_, rest) = line.split_once('m')?;
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            rest[..end].parse::<u16>().ok()
        };
        if let Some((_, rest)) = line.split_once("Sending PUBREL to edge1 (") {
            released.extend(identifier(rest));
        }
        let again = line.split_once("Sending PUBLISH to edge1 (d1, q2, ");
        let again = again.and_then(|(_, rest)| identifier(rest));
        again.is_some_and(|identifier| released.contains(&identifier))
    })
}

fn exactly_once_with_cuts_and_kills(version: &str) {
    let Some(mosquitto) = mosquitto() else {
        return;
    };
    let proxy = Proxy::to(mosquitto.addr());
    let more = format!("protocol_version = \"{version}\"");
    let mut edge = edge(proxy.addr(), &more);
    wait_for_state(edge.addr(), "connected");
    expect_at(mosquitto.addr(), Version::V5, "consumer", "site/up/#");
    expect_at(edge.addr(), Version::V5, "consumer", "down/#");
    for round in 0..12 {
        let numbers = round * 20..round * 20 + 20;
        publish(edge.addr(), "up/a", 2, numbers.clone());
        publish(mosquitto.addr(), "site/down/a", 2, numbers);
        match round % 3 {
            0 => proxy.drop_connections(),
            1 => edge.crash(),
            _ => proxy.set_budget(Some(100 + 97 * round as u64)),
        }
    }
    proxy.set_budget(None);
    proxy.drop_connections();
    let up = collect(
        mosquitto.addr(),
        Version::V5,
        "consumer",
        "site/up/a",
        240,
        LONG,
    );
    let down = collect(edge.addr(), Version::V5, "consumer", "down/a", 240, LONG);
    assert_exactly_once(&up, 240, "to Mosquitto");
    if has_sent_what_it_had_released(&mosquitto) {
        println!(
            "this Mosquitto sends again what it has released: what comes from it may come twice"
        );
        assert_at_least_once(&down, 240, "from Mosquitto");
    } else {
        assert_exactly_once(&down, 240, "from Mosquitto");
    }
}

#[test]
fn mqtt_5() {
    exactly_once_with_cuts_and_kills("5");
}

#[test]
fn mqtt_3_1_1() {
    exactly_once_with_cuts_and_kills("3.1.1");
}

#[test]
fn the_bridge_bit_keeps_retain_flags_and_sends_nothing_back() {
    let Some(mosquitto) = mosquitto() else {
        return;
    };
    let config = format!(
        "[[bridges]]\nname = \"cloud\"\naddress = \"{}\"\nremote_clientid = \"edge1\"\nprotocol_version = \"3.1.1\"\n\
         [[bridges.topics]]\npattern = \"#\"\ndirection = \"both\"\n",
        mosquitto.addr()
    );
    let edge = cloud(&config);
    wait_for_state(edge.addr(), "connected");
    let mut here = Connect::new(Version::V5, "here").open(edge.addr());
    here.subscribe_with(&support::Subscription::new("t/#", 2).retain_as_published());
    let mut there = Connect::new(Version::V5, "there").open(mosquitto.addr());
    there.subscribe("t/#", 2);
    here.publish(&Message::new("t/1", "x", 1));
    here.expect("t/1", "x", 1);
    there.expect("t/1", "x", 1);
    there.publish(&Message::new("t/2", "y", 1).retained());
    assert!(here.expect("t/2", "y", 1).retain);
    there.expect("t/2", "y", 1);
    std::thread::sleep(Duration::from_millis(200));
    here.expect_nothing();
    there.expect_nothing();
}

/// Over MQTT 3.1.1 Mosquitto cannot say how large a packet it takes, and closes the connection of
/// who sends a larger one.
#[test]
fn a_message_on_which_mosquitto_closes_the_connection_is_set_aside() {
    let config = "allow_anonymous true\nmax_packet_size 1000\n";
    let Some(mosquitto) = Broker::mosquitto(config) else {
        return;
    };
    let more = "protocol_version = \"3.1.1\"\ndead_letter_topic = \"dead\"";
    let edge = edge(mosquitto.addr(), more);
    wait_for_state(edge.addr(), "connected");
    expect_at(mosquitto.addr(), Version::V5, "consumer", "site/up/#");
    let mut operator = Connect::new(Version::V5, "operator").open(edge.addr());
    operator.subscribe("dead", 1);
    publish(edge.addr(), "up/a", 1, 0..10);
    let large = Message::new("up/large", "x".repeat(2000), 1);
    let mut device = Connect::new(Version::V5, "large").open(edge.addr());
    device.publish(&large);
    publish(edge.addr(), "up/a", 1, 10..20);
    let addr = mosquitto.addr();
    let up = collect(addr, Version::V5, "consumer", "site/up/a", 20, LONG);
    assert_at_least_once(&up, 20, "around the large one");
    let dead = operator.take();
    assert_eq!(dead.topic, "dead");
    let why = dead.properties.users();
    assert!(why.contains(&("bridge-topic", "up/large")), "{why:?}");
    operator.expect_nothing();
}
