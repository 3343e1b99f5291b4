//! SIGKILL of either broker, while the bridge works through what is there.

use std::time::Duration;

use support::{Random, Version};

use super::LONG;
use super::proxy::Proxy;
use super::side::*;

/// Messages of a round, each way.
const BATCH: usize = 60;

fn killed_at_random(qos: u8, seed: u64) {
    let rounds = support::number("TIDEGATE_BRIDGE_ROUNDS", 6) as usize;
    let mut cloud = cloud("");
    let proxy = Proxy::to(cloud.addr());
    let mut edge = edge(proxy.addr(), "max_inflight_messages = 30");
    expect_at(cloud.addr(), Version::V5, "consumer", "site/up/#");
    expect_at(edge.addr(), Version::V5, "consumer", "down/#");
    wait_for_state(edge.addr(), "connected");
    let mut random = Random::new(seed);
    for round in 0..rounds {
        let numbers = round * BATCH..(round + 1) * BATCH;
        publish(edge.addr(), "up/a", qos, numbers.clone());
        publish(cloud.addr(), "site/down/a", qos, numbers);
        std::thread::sleep(Duration::from_millis(random.below(30)));
        if random.one_in(2) {
            edge.crash();
        } else {
            cloud.crash();
            proxy.set_target(cloud.addr());
        }
        std::thread::sleep(Duration::from_millis(random.below(100)));
    }
    let count = rounds * BATCH;
    let up = collect(
        cloud.addr(),
        Version::V5,
        "consumer",
        "site/up/a",
        count,
        LONG,
    );
    let down = collect(edge.addr(), Version::V5, "consumer", "down/a", count, LONG);
    if qos == 2 {
        assert_exactly_once(&up, count, "out");
        assert_exactly_once(&down, count, "in");
    } else {
        assert_at_least_once(&up, count, "out");
        assert_at_least_once(&down, count, "in");
    }
}

#[test]
fn qos_1_loses_nothing() {
    killed_at_random(1, 11);
}

#[test]
fn qos_2_arrives_exactly_once() {
    killed_at_random(2, 12);
}
