//! Several addresses: changing over when one fails, going back when it is there again, and what the brokers behind them may not notice of that.

use std::time::{Duration, Instant};

use support::{Broker, Version, wait_until};

use super::LONG;
use super::proxy::{Mode, Proxy};
use super::side::*;

/// An edge with a bridge to these proxies, the better ones first.
fn edge_to(proxies: &[Proxy], more: &str) -> Broker {
    let quoted: Vec<String> = proxies
        .iter()
        .map(|proxy| format!("\"{}\"", proxy.addr()))
        .collect();
    let config = bridge_to(proxies[0].addr(), more).replace(
        &format!("address = {}", quoted[0]),
        &format!("address = [{}]", quoted.join(", ")),
    );
    cloud(&config)
}

fn wait_for_address(edge: &Broker, proxy: &Proxy) {
    wait_for(edge.addr(), "address", &proxy.addr().to_string());
}

const QUICK: &str = "probe_interval = \"100ms\"\nhold_down = \"300ms\"";

/// The connection to the better one had been accepted before the other one was closed.
fn assert_made_before_broken(better: &Proxy, other: &Proxy) {
    wait_until("the old connection is closed", || {
        other
            .answered()
            .last()
            .is_some_and(|life| life.closed.is_some())
    });
    let made = better.answered().last().and_then(|life| life.answered);
    let broken = other.answered().last().and_then(|life| life.closed);
    assert!(made < broken, "{made:?} and {broken:?}");
}

#[test]
fn brokers_apart_get_each_message_once_when_the_bridge_goes_back_as_planned() {
    let clouds = [cloud(""), cloud("")];
    let proxies = [Proxy::to(clouds[0].addr()), Proxy::to(clouds[1].addr())];
    let edge = edge_to(&proxies, QUICK);
    for cloud in &clouds {
        expect_at(cloud.addr(), Version::V5, "consumer", "site/up/#");
    }
    expect_at(edge.addr(), Version::V5, "consumer", "down/#");
    wait_for_address(&edge, &proxies[0]);
    publish(edge.addr(), "up/a", 2, 0..50);
    let all_of = |at: usize, wanted: std::ops::Range<usize>| {
        collect_until(clouds[at].addr(), "consumer", wanted, LONG)
    };
    let mut at_first = all_of(0, 0..50);
    // It fails, and the other one takes over.
    proxies[0].set_mode(Mode::Refused);
    wait_for_address(&edge, &proxies[1]);
    publish(edge.addr(), "up/a", 2, 50..100);
    let mut at_second = all_of(1, 50..100);
    // What the first one has for the bridge waits there.
    publish(clouds[0].addr(), "site/down/a", 2, 0..20);
    publish(clouds[1].addr(), "site/down/a", 2, 20..40);
    // It is there again, and gone back to in the midst of what goes on.
    let device = std::thread::spawn({
        let addr = edge.addr();
        move || publish(addr, "up/a", 2, 100..3000)
    });
    proxies[0].set_mode(Mode::Pass);
    wait_for_address(&edge, &proxies[0]);
    device.join().expect("all is published");
    publish(edge.addr(), "up/a", 2, 3000..3001);
    assert_made_before_broken(&proxies[0], &proxies[1]);
    at_first.extend(all_of(0, 3000..3001));
    at_second.extend(all_of(1, 0..0));
    for got in [&at_first, &at_second] {
        assert!(got.is_sorted(), "in order: {got:?}");
    }
    assert!(at_second.len() > 50, "something went on meanwhile");
    let mut both = [at_first, at_second].concat();
    both.sort_unstable();
    assert_exactly_once(&both, 3001, "over both");
    let mut down = collect(edge.addr(), Version::V5, "consumer", "down/a", 40, LONG);
    down.sort_unstable();
    assert_exactly_once(&down, 40, "from both");
}

#[test]
fn a_broker_behind_two_addresses_gets_each_message_once_whatever_happens() {
    let cloud = cloud("");
    let proxies = [Proxy::to(cloud.addr()), Proxy::to(cloud.addr())];
    for version in ["5", "3.1.1"] {
        let more = format!("{QUICK}\nprotocol_version = \"{version}\"");
        let edge = edge_to(&proxies, &more);
        expect_at(cloud.addr(), Version::V5, "consumer", "site/up/#");
        wait_for_address(&edge, &proxies[0]);
        let device = std::thread::spawn({
            let addr = edge.addr();
            move || publish(addr, "up/a", 2, 0..3000)
        });
        proxies[0].set_mode(Mode::Refused);
        wait_for_address(&edge, &proxies[1]);
        proxies[0].set_mode(Mode::Pass);
        wait_for_address(&edge, &proxies[0]);
        device.join().expect("all is published");
        let got = collect(
            cloud.addr(),
            Version::V5,
            "consumer",
            "site/up/a",
            3000,
            LONG,
        );
        assert_exactly_once(&got, 3000, version);
    }
}

/// Ten messages arrive at the one that is connected, to which there has been one connection.
fn crosses_without_a_change(edge: &Broker, cloud: &Broker, proxy: &Proxy) {
    publish(edge.addr(), "up/a", 2, 0..10);
    let addr = cloud.addr();
    let got = collect(addr, Version::V5, "consumer", "site/up/a", 10, LONG);
    assert_exactly_once(&got, 10, "at the one that is connected");
    assert_eq!(proxy.answered().len(), 1, "{}", edge.log());
}

#[test]
fn a_better_address_that_does_not_accept_changes_nothing() {
    let clouds = [cloud(""), cloud("")];
    let proxies = [Proxy::to(clouds[0].addr()), Proxy::to(clouds[1].addr())];
    proxies[0].set_mode(Mode::BlackHole);
    let more = format!("{QUICK}\nconnect_timeout = \"300ms\"");
    let edge = edge_to(&proxies, &more);
    wait_for_address(&edge, &proxies[1]);
    expect_at(clouds[1].addr(), Version::V5, "consumer", "site/up/#");
    wait_until("it has been tried twice", || {
        edge.log()
            .matches("the better address does not accept")
            .count()
            > 1
    });
    crosses_without_a_change(&edge, &clouds[1], &proxies[1]);
}

#[test]
fn an_address_that_answers_nothing_does_not_hold_the_bridge_up() {
    let clouds = [cloud(""), cloud("")];
    let proxies = [Proxy::to(clouds[0].addr()), Proxy::to(clouds[1].addr())];
    proxies[0].set_mode(Mode::Deaf);
    let begun = Instant::now();
    let more = format!("{QUICK}\nconnect_timeout = \"500ms\"");
    let edge = edge_to(&proxies, &more);
    wait_for_address(&edge, &proxies[1]);
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(500), "it was deaf: {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    wait_until("it is known", || {
        edge.log().contains("bridge address unreachable")
    });
    expect_at(clouds[1].addr(), Version::V5, "consumer", "site/up/#");
    crosses_without_a_change(&edge, &clouds[1], &proxies[1]);
    proxies[0].set_mode(Mode::Pass);
    wait_for_address(&edge, &proxies[0]);
    assert_made_before_broken(&proxies[0], &proxies[1]);
}

#[test]
fn round_robin_goes_on_to_the_next_and_not_back() {
    let cloud = cloud("");
    let proxies = [0, 1, 2].map(|_| Proxy::to(cloud.addr()));
    let more = "round_robin = true\nprobe_interval = \"100ms\"";
    let edge = edge_to(&proxies, more);
    for (at, proxy) in [0, 1, 2, 0].map(|at| (at, &proxies[at])) {
        wait_for_address(&edge, proxy);
        // All are reachable, and probed; nothing happens.
        std::thread::sleep(Duration::from_millis(500));
        wait_for_address(&edge, proxy);
        let others = (0..3).filter(|other| *other != at);
        for other in others {
            let standing = format!("{} reachable", proxies[other].addr());
            wait_for(edge.addr(), &format!("addresses/{}", other + 1), &standing);
        }
        proxy.drop_connections();
        wait_until("it is found out", || {
            proxy
                .answered()
                .last()
                .is_some_and(|life| life.closed.is_some())
        });
    }
    wait_for_address(&edge, &proxies[1]);
}
