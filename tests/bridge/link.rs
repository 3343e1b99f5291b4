//! Links that fail.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::{Broker, Connect, Message, Random, Version, wait_until};

use super::LONG;
use super::mosquitto::mosquitto;
use super::proxy::{Mode, Proxy};
use super::secure::{certificates, place};
use super::side::*;

#[test]
fn cuts_at_any_byte_lose_and_repeat_nothing() {
    let cloud = cloud("");
    let proxy = Proxy::to(cloud.addr());
    let edge = edge(proxy.addr(), "max_inflight_messages = 20");
    expect_at(cloud.addr(), Version::V5, "consumer", "site/up/#");
    expect_at(edge.addr(), Version::V5, "consumer", "down/#");
    wait_for_state(edge.addr(), "connected");
    let mut random = Random::new(7);
    proxy.set_budget(Some(200));
    for round in 0..40 {
        let numbers = round * 10..round * 10 + 10;
        publish(edge.addr(), "up/a", 2, numbers.clone());
        publish(cloud.addr(), "site/down/a", 2, numbers);
        // From the middle of CONNECT to many messages later.
        proxy.set_budget(Some(40 + random.below(1500)));
        let before = proxy.accepted();
        proxy.drop_connections();
        wait_until("a new connection", || proxy.accepted() > before);
    }
    proxy.set_budget(None);
    let up = collect(
        cloud.addr(),
        Version::V5,
        "consumer",
        "site/up/a",
        400,
        LONG,
    );
    let down = collect(edge.addr(), Version::V5, "consumer", "down/a", 400, LONG);
    assert_exactly_once(&up, 400, "out");
    assert_exactly_once(&down, 400, "in");
}

#[test]
fn resets_refusals_and_black_holes_are_recovered_from() {
    let cloud = cloud("");
    let proxy = Proxy::to(cloud.addr());
    let more =
        "response_timeout = \"300ms\"\nconnect_timeout = \"300ms\"\nkeepalive_interval = \"1s\"";
    let edge = edge(proxy.addr(), more);
    expect_at(cloud.addr(), Version::V5, "consumer", "site/up/#");
    wait_for_state(edge.addr(), "connected");
    let modes = [Mode::Reset, Mode::Refused, Mode::BlackHole];
    for (round, mode) in modes.into_iter().enumerate() {
        proxy.set_mode(mode);
        // A black hole does not close anything: it is found because nothing is acknowledged.
        if mode != Mode::BlackHole {
            proxy.drop_connections();
        }
        publish(edge.addr(), "up/a", 2, round * 20..round * 20 + 20);
        wait_for_state(edge.addr(), "disconnected");
        proxy.set_mode(Mode::Pass);
        wait_for_state(edge.addr(), "connected");
    }
    let got = collect(cloud.addr(), Version::V5, "consumer", "site/up/a", 60, LONG);
    assert_exactly_once(&got, 60, "after every fault");
    // Without anything to be acknowledged, it is found because a PINGREQ is not answered.
    proxy.set_mode(Mode::BlackHole);
    wait_for_state(edge.addr(), "disconnected");
    wait_until("the log says why", || edge.log().contains("no PINGRESP"));
    proxy.set_mode(Mode::Pass);
    wait_for_state(edge.addr(), "connected");
}

#[test]
fn latency_does_not_stall_it_as_the_window_grows() {
    let took = |round_trip: u64, window: u16| {
        let cloud = cloud("");
        let proxy = Proxy::to(cloud.addr());
        proxy.set_mode(Mode::Refused);
        let more = format!("max_inflight_messages = {window}");
        let edge = edge(proxy.addr(), &more);
        expect_at(cloud.addr(), Version::V5, "consumer", "site/up/#");
        publish(edge.addr(), "up/a", 1, 0..200);
        proxy.set_latency(Duration::from_millis(round_trip / 2));
        proxy.set_mode(Mode::Pass);
        wait_for_state(edge.addr(), "connected");
        let begun = Instant::now();
        let got = collect(
            cloud.addr(),
            Version::V5,
            "consumer",
            "site/up/a",
            200,
            LONG,
        );
        assert_exactly_once(&got, 200, "over a slow link");
        let took = begun.elapsed();
        println!("200 messages over {round_trip} ms, {window} under way: {took:?}");
        took
    };
    // 20 and 2 round trips of 300 ms; 20 of 50 ms; no delay at all.
    let (narrow, wide) = (took(300, 10), took(300, 200));
    assert!(narrow > 3 * wide, "{narrow:?} and {wide:?}");
    let (short, none) = (took(50, 10), took(0, 10));
    assert!(narrow > 3 * short, "{narrow:?} and {short:?}");
    assert!(none < narrow, "{none:?} and {narrow:?}");
}

#[test]
fn a_slow_link_is_not_taken_for_a_silent_one() {
    let cloud = cloud("");
    let proxy = Proxy::to(cloud.addr());
    proxy.set_bandwidth(4_000);
    let edge = edge(proxy.addr(), "response_timeout = \"1s\"");
    expect_at(cloud.addr(), Version::V5, "consumer", "site/up/#");
    wait_for_state(edge.addr(), "connected");
    publish(edge.addr(), "up/a", 1, 0..400);
    let got = collect(
        cloud.addr(),
        Version::V5,
        "consumer",
        "site/up/a",
        400,
        LONG,
    );
    assert_at_least_once(&got, 400, "over a narrow link");
    assert_eq!(proxy.accepted(), 1, "{}", edge.log());
}

#[test]
fn another_address_is_taken_and_left_again_without_a_loss() {
    let clouds = [cloud(""), cloud("")];
    let proxies = [Proxy::to(clouds[0].addr()), Proxy::to(clouds[1].addr())];
    let more = "max_inflight_messages = 10";
    let config = bridge_to(proxies[0].addr(), more).replace(
        &format!("\"{}\"", proxies[0].addr()),
        &format!("[\"{}\", \"{}\"]", proxies[0].addr(), proxies[1].addr()),
    );
    let edge = cloud(&config);
    for cloud in &clouds {
        expect_at(cloud.addr(), Version::V5, "consumer", "site/up/#");
    }
    wait_for_state(edge.addr(), "connected");
    let (mut sent, mut random) = (0, Random::new(3));
    for round in 0..10 {
        proxies[round % 2].set_mode(Mode::Pass);
        proxies[1 - round % 2].set_mode(Mode::Refused);
        // In the middle of what goes on.
        proxies[round % 2].set_budget(Some(300 + random.below(2000)));
        publish(edge.addr(), "up/a", 2, sent..sent + 30);
        sent += 30;
    }
    proxies[1].set_budget(None);
    proxies[1].drop_connections();
    publish(edge.addr(), "up/a", 2, sent..sent + 1);
    sent += 1;
    let last = collect_until(clouds[1].addr(), "consumer", [sent - 1], LONG);
    let rest = (0..sent).filter(|number| !last.contains(number));
    let mut got = collect_until(clouds[0].addr(), "consumer", rest, LONG);
    assert!(!got.is_empty() && last.len() > 1, "both were used");
    got.extend(last);
    got.sort_unstable();
    got.dedup();
    assert_eq!(
        got,
        (0..sent).collect::<Vec<_>>(),
        "at the one or the other"
    );
}

/// A message that takes several times as long as anybody waits passes a narrow link, out and in, at
/// once.
fn a_large_message_passes(upstream: &Broker, listener: SocketAddr, more: &str) {
    // 5 s for 100 KB.
    let proxy = Proxy::narrow(listener, 20_000);
    let edge = edge(proxy.addr(), more);
    wait_for_state(edge.addr(), "connected");
    let ways = [
        (edge.addr(), upstream.addr(), "up/large", "site/up/large"),
        (
            upstream.addr(),
            edge.addr(),
            "site/down/large",
            "down/large",
        ),
    ];
    for (from, to, sent, got) in ways {
        let mut consumer = Connect::new(Version::V5, "consumer").open(to);
        consumer.subscribe(got, 1);
        let mut device = Connect::new(Version::V5, "device").open(from);
        for (payload, qos) in [(vec![b'x'; 100_000], 1), (b"behind".to_vec(), 0)] {
            device.publish(&Message::new(sent, &payload, qos));
            let publish = consumer.take();
            assert_eq!(publish.payload, payload);
            assert!(!publish.dup);
        }
    }
    // One connection was enough for both.
    assert_eq!(proxy.accepted(), 1, "{}", edge.log());
}

const IMPATIENT: &str = "response_timeout = \"1s\"\nkeepalive_interval = \"1s\"";

#[test]
fn what_is_on_its_way_is_waited_for() {
    let cloud = cloud("");
    a_large_message_passes(&cloud, cloud.addr(), IMPATIENT);
}

#[test]
fn what_is_on_its_way_to_mosquitto_is_waited_for() {
    if let Some(mosquitto) = mosquitto() {
        a_large_message_passes(&mosquitto, mosquitto.addr(), IMPATIENT);
    }
}

#[test]
fn what_is_on_its_way_under_tls_and_websocket_is_waited_for() {
    let dir = tempfile::TempDir::new().expect("a directory");
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name);
    let listener = format!(
        "[[listeners]]\nprotocol = \"wss\"\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\ncertfile = {:?}\nkeyfile = {:?}\n",
        file("server.pem"),
        file("server.key")
    );
    let cloud = cloud(&listener);
    // Nobody sees a record of TLS before all of it has come: 16 KB, nearly a second.
    let more = format!(
        "response_timeout = \"3s\"\nkeepalive_interval = \"3s\"\nprotocol = \"wss\"\nserver_name = \"localhost\"\ncafile = {:?}",
        file("ca.pem")
    );
    a_large_message_passes(&cloud, place(&cloud, "wss"), &more);
}

#[test]
fn a_link_on_which_nothing_moves_is_left() {
    let cloud = cloud("");
    let proxy = Proxy::narrow(cloud.addr(), 20_000);
    let edge = edge(proxy.addr(), "response_timeout = \"1s\"");
    wait_for_state(edge.addr(), "connected");
    let mut device = Connect::new(Version::V5, "device").open(edge.addr());
    device.publish(&Message::new("up/large", vec![b'x'; 200_000], 1));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(proxy.accepted(), 1, "{}", edge.log());
    let stuck = Instant::now();
    proxy.set_mode(Mode::Stuck);
    wait_for_state(edge.addr(), "disconnected");
    assert!(
        stuck.elapsed() > Duration::from_millis(500),
        "{}",
        edge.log()
    );
    edge.expect_log("no acknowledgement");
    proxy.set_mode(Mode::Pass);
    wait_for_state(edge.addr(), "connected");
}

#[test]
fn an_edge_that_was_stopped_looks_for_answers_before_it_gives_up() {
    let cloud = cloud("");
    let proxy = Proxy::to(cloud.addr());
    proxy.set_latency(Duration::from_millis(300));
    let edge = edge(proxy.addr(), "response_timeout = \"2s\"");
    wait_for_state(edge.addr(), "connected");
    for round in 0..3 {
        publish(edge.addr(), "up/a", 1, round..round + 1);
        edge.signal("STOP");
        std::thread::sleep(Duration::from_millis(2500));
        edge.signal("CONT");
        std::thread::sleep(Duration::from_millis(1000));
    }
    assert_eq!(proxy.accepted(), 1, "{}", edge.log());
}

/// PINGREQs that go nowhere are no progress either.
#[test]
fn a_link_that_is_silent_is_left_however_often_it_is_asked() {
    let cloud = cloud("");
    let more = "response_timeout = \"3s\"\nkeepalive_interval = \"1s\"";
    let edge = edge(cloud.addr(), more);
    wait_for_state(edge.addr(), "connected");
    // Its operating system goes on.
    cloud.signal("STOP");
    wait_for_state(edge.addr(), "disconnected");
    cloud.signal("CONT");
    edge.expect_log("no PINGRESP");
}
