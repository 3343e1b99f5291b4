//! When a bridge connects: always, when messages wait, or once; and sessions that end with the
//! connection.

use std::time::Duration;

use support::{Connect, Message, Version, wait_until};

use super::proxy::{Mode, Proxy};
use super::side::*;
use super::{LONG, mosquitto::mosquitto};

fn connects(log: &str) -> usize {
    log.matches("bridge connected").count()
}

#[test]
fn a_lazy_bridge_connects_when_messages_wait_and_leaves_when_there_is_nothing_to_do() {
    let cloud = cloud("");
    let edge = edge(
        cloud.addr(),
        "start_type = \"lazy\"\nthreshold = 3\nidle_timeout = \"1s\"",
    );
    expect_at(cloud.addr(), Version::V5, "consumer", "site/up/#");
    publish(edge.addr(), "up/a", 1, 0..2);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(connects(&edge.log()), 0, "two are not enough");
    publish(edge.addr(), "up/a", 1, 2..5);
    let got = collect(cloud.addr(), Version::V5, "consumer", "site/up/a", 5, LONG);
    assert_exactly_once(&got, 5, "the first time");
    wait_until("it leaves", || {
        edge.log().contains("there is nothing to do")
    });
    wait_for_state(edge.addr(), "disconnected");
    assert_eq!(connects(&edge.log()), 1);
    let is_warning = |line: &str| line.contains("WARN") && line.contains("bridge");
    assert!(!edge.log().lines().any(is_warning), "{}", edge.log());
    // What came for it meanwhile is there when it comes again.
    expect_at(edge.addr(), Version::V5, "here", "down/#");
    publish(cloud.addr(), "site/down/a", 1, 0..4);
    publish(edge.addr(), "up/a", 2, 0..3);
    let got = collect(edge.addr(), Version::V5, "here", "down/a", 4, LONG);
    assert_exactly_once(&got, 4, "what waited at the upstream");
    assert_eq!(connects(&edge.log()), 2);
}

#[test]
fn a_bridge_that_connects_once_does_not_come_back() {
    let cloud = cloud("");
    let proxy = Proxy::to(cloud.addr());
    let mut edge = edge(proxy.addr(), "start_type = \"once\"");
    wait_for_state(edge.addr(), "connected");
    proxy.drop_connections();
    wait_until("it says so", || {
        edge.log().contains("the bridge is not connected again")
    });
    wait_for_state(edge.addr(), "disconnected");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(connects(&edge.log()), 1);
    edge.crash();
    wait_for_state(edge.addr(), "connected");
    // Nor does it try again if the first attempt fails.
    proxy.set_mode(Mode::Refused);
    edge.crash();
    wait_until("it says so", || {
        edge.log().contains("the bridge is not connected again")
    });
}

#[test]
fn with_cleansession_nothing_waits_on_either_side() {
    let upstreams = [Some(cloud("")), mosquitto()];
    for upstream in upstreams.into_iter().flatten() {
        for version in ["5", "3.1.1"] {
            let proxy = Proxy::to(upstream.addr());
            let more = format!("cleansession = true\nprotocol_version = \"{version}\"");
            let edge = edge(proxy.addr(), &more);
            wait_for_state(edge.addr(), "connected");
            let mut there = Connect::new(Version::V5, "").open(upstream.addr());
            there.subscribe("site/up/#", 1);
            let mut here = Connect::new(Version::V5, "").open(edge.addr());
            here.subscribe("down/#", 1);
            here.publish(&Message::new("up/a", "one", 1));
            there.expect("site/up/a", "one", 1);
            there.publish(&Message::new("site/down/a", "two", 1));
            here.expect("down/a", "two", 1);
            proxy.set_mode(Mode::Refused);
            proxy.drop_connections();
            wait_for_state(edge.addr(), "disconnected");
            here.publish(&Message::new("up/a", "lost", 1));
            wait_until("the upstream has noticed", || {
                // Nobody is there to take it: what is published waits for nobody.
                there.publish(&Message::new("site/down/a", "lost", 1)) == 0x10
                    || upstream.log().contains("Client edge1")
            });
            proxy.set_mode(Mode::Pass);
            wait_for_state(edge.addr(), "connected");
            here.publish(&Message::new("up/a", "three", 1));
            there.expect("site/up/a", "three", 1);
            there.publish(&Message::new("site/down/a", "four", 1));
            here.expect("down/a", "four", 1);
        }
    }
}
