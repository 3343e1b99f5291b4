//! RabbitMQ and rumqttd as the upstream, where they are installed. At QoS 1, which is all RabbitMQ
//! has: everything arrives at least once, in order.

use std::time::Duration;

use support::{Broker, Version};

use super::proxy::Proxy;
use super::side::*;

const LONG: Duration = Duration::from_secs(60);
/// RabbitMQ acknowledges a subscription before it is on disk. Killed 0.3 s later, it had lost the
/// subscription: what was then published to RabbitMQ itself did not arrive, either.
const FLUSH: Duration = Duration::from_secs(4);
/// Messages of a round, each way.
const BATCH: usize = 20;

/// Messages at QoS 1 while the link is cut and this broker is killed. If the upstream keeps
/// sessions and messages, it is killed as well, and there are messages both ways.
fn at_least_once(mut upstream: Broker, version: Version, more: &str, keeps: bool) {
    let proxy = Proxy::to(upstream.addr());
    let mut edge = edge(proxy.addr(), more);
    wait_for_state(edge.addr(), "connected");
    expect_up_to(1, upstream.addr(), version, "consumer", "site/up/#");
    expect_up_to(1, edge.addr(), Version::V5, "consumer", "down/#");
    let rounds = 8;
    for round in 0..rounds {
        let numbers = round * BATCH..(round + 1) * BATCH;
        publish(edge.addr(), "up/a", 1, numbers.clone());
        if keeps {
            publish_in(version, upstream.addr(), "site/down/a", 1, numbers);
        }
        match round % 4 {
            0 => proxy.drop_connections(),
            1 => edge.crash(),
            2 => proxy.set_budget(Some(200 + 97 * round as u64)),
            _ if keeps && round == 3 => {
                std::thread::sleep(FLUSH);
                upstream.crash();
            }
            _ => proxy.set_budget(None),
        }
    }
    proxy.set_budget(None);
    proxy.drop_connections();
    let count = rounds * BATCH;
    let addr = upstream.addr();
    let up = collect(addr, version, "consumer", "site/up/a", count, LONG);
    assert_at_least_once(&up, count, "out");
    if !keeps {
        wait_for_state(edge.addr(), "connected");
        publish_in(version, addr, "site/down/a", 1, 0..count);
    }
    let down = collect(edge.addr(), Version::V5, "consumer", "down/a", count, LONG);
    assert_at_least_once(&down, count, "in");
}

/// RabbitMQ 3.10 speaks MQTT 3.1.1 only, and closes the connection instead of saying so.
#[test]
fn rabbitmq_is_found_out_to_speak_3_1_1_and_keeps_all() {
    let Some(rabbitmq) = Broker::rabbitmq() else {
        return;
    };
    at_least_once(rabbitmq, Version::V311, "max_inflight_messages = 50", true);
}

/// rumqttd 0.20 keeps nothing for a client that is away, and says so: session present is 0 at each
/// connection.
#[test]
fn rumqttd_in_mqtt_3_1_1() {
    let Some(rumqttd) = Broker::rumqttd(false) else {
        return;
    };
    at_least_once(
        rumqttd,
        Version::V311,
        "protocol_version = \"3.1.1\"",
        false,
    );
}

#[test]
fn rumqttd_in_mqtt_5() {
    let Some(rumqttd) = Broker::rumqttd(true) else {
        return;
    };
    at_least_once(rumqttd, Version::V5, "protocol_version = \"5\"", false);
}
