//! What the tests ask of both sides: configurations, producers and consumers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::{Broker, Client, Connect, Message, Packet, TIMEOUT, Version};

/// In seconds, longer than any test: rumqttd takes no client without one.
const KEEP_ALIVE: u16 = 600;

/// The configuration of an edge broker with one bridge to this address: `up/#` goes out as
/// `site/up/#`, and `site/down/#` comes in as `down/#`. `more` are keys of the bridge.
pub fn bridge_to(address: SocketAddr, more: &str) -> String {
    format!(
        "[[bridges]]\nname = \"cloud\"\naddress = \"{address}\"\nremote_clientid = \"edge1\"\n\
         restart_timeout_base = \"20ms\"\nrestart_timeout_cap = \"200ms\"\n{more}\n\
         [[bridges.topics]]\npattern = \"up/#\"\ndirection = \"out\"\nremote_prefix = \"site/\"\n\
         [[bridges.topics]]\npattern = \"down/#\"\ndirection = \"in\"\nremote_prefix = \"site/\"\n"
    )
}

/// An edge broker with a bridge.
pub fn edge(address: SocketAddr, more: &str) -> Broker {
    Broker::with(&bridge_to(address, more)).expect("these tests are for Tidegate")
}

/// A cloud broker, with lines added to its configuration.
pub fn cloud(config: &str) -> Broker {
    Broker::with(config).expect("these tests are for Tidegate")
}

/// Makes a durable session that waits for messages, and goes away.
pub fn expect_at(addr: SocketAddr, version: Version, client_id: &str, filter: &str) {
    expect_up_to(2, addr, version, client_id, filter);
}

/// The same with a highest QoS, which the broker must grant.
pub fn expect_up_to(qos: u8, addr: SocketAddr, version: Version, client_id: &str, filter: &str) {
    let mut client = Connect::durable(version, client_id)
        .keep_alive(KEEP_ALIVE)
        .open(addr);
    client.subscribe(filter, qos);
    client.disconnect();
}

/// Publishes messages `from..to` at QoS `qos`, each acknowledged before the next.
pub fn publish(addr: SocketAddr, topic: &str, qos: u8, numbers: std::ops::Range<usize>) {
    publish_in(Version::V5, addr, topic, qos, numbers);
}

/// The same in this version of the protocol.
pub fn publish_in(
    version: Version,
    addr: SocketAddr,
    topic: &str,
    qos: u8,
    numbers: std::ops::Range<usize>,
) {
    let mut client = Connect::new(version, "device")
        .keep_alive(KEEP_ALIVE)
        .open(addr);
    for n in numbers {
        let reason = client.publish(&Message::new(topic, n.to_string(), qos));
        assert!(reason < 0x80, "refused: {reason:#04x}");
    }
    client.disconnect();
}

/// All numbers a durable session gets, until it has had `count` different ones and then nothing
/// more for a moment. Every message has this topic.
pub fn collect(
    addr: SocketAddr,
    version: Version,
    client_id: &str,
    topic: &str,
    count: usize,
    timeout: Duration,
) -> Vec<usize> {
    let mut client = Connect::durable(version, client_id)
        .keep_alive(KEEP_ALIVE)
        .open(addr);
    let mut numbers = Vec::new();
    let mut different = BTreeSet::new();
    let deadline = Instant::now() + timeout;
    while let Some(publish) = next(&mut client, different.len() < count, deadline) {
        assert_eq!(publish.0, topic);
        different.insert(publish.1);
        numbers.push(publish.1);
    }
    assert_eq!(different.len(), count, "messages that have arrived");
    client.disconnect();
    numbers
}

/// All numbers a durable session gets until these are among them, and what comes soon after.
pub fn collect_until(
    addr: SocketAddr,
    client_id: &str,
    wanted: impl IntoIterator<Item = usize>,
    timeout: Duration,
) -> Vec<usize> {
    let mut client = Connect::durable(Version::V5, client_id).open(addr);
    let mut wanted: BTreeSet<usize> = wanted.into_iter().collect();
    let mut numbers = Vec::new();
    let deadline = Instant::now() + timeout;
    while let Some((_, number)) = next(&mut client, !wanted.is_empty(), deadline) {
        wanted.remove(&number);
        numbers.push(number);
    }
    client.disconnect();
    numbers
}

/// The next message, acknowledged to its end. If `more` must come, it is waited for until the
/// deadline.
fn next(client: &mut Client, more: bool, deadline: Instant) -> Option<(String, usize)> {
    loop {
        let wait = if more {
            deadline.saturating_duration_since(Instant::now())
        } else {
            Duration::from_millis(300)
        };
        match client.try_receive(wait.max(Duration::from_millis(1))) {
            Ok(Some(Packet::Publish(publish))) => {
                client.answer(&publish);
                let text = String::from_utf8_lossy(&publish.payload).into_owned();
                let number = text
                    .parse()
                    .unwrap_or_else(|_| panic!("{text:?} is no number"));
                return Some((publish.topic, number));
            }
            Ok(Some(Packet::PubRel(ack))) => client.send_ack(0x70, ack.id),
            Ok(Some(other)) => panic!("{other:?} instead of a message"),
            Ok(None) => panic!("the broker closed the connection"),
            Err(_) => return None,
        }
    }
}

/// Exactly the numbers below `count`, once each and in order.
pub fn assert_exactly_once(got: &[usize], count: usize, what: &str) {
    let all: Vec<usize> = (0..count).collect();
    assert!(got == all, "{what}: {}", differences(got, count));
}

/// All numbers below `count`; the first of each are in order.
pub fn assert_at_least_once(got: &[usize], count: usize, what: &str) {
    let mut seen = BTreeSet::new();
    let first: Vec<usize> = got.iter().copied().filter(|n| seen.insert(*n)).collect();
    assert_exactly_once(&first, count, what);
}

fn differences(got: &[usize], count: usize) -> String {
    let missing: Vec<usize> = (0..count).filter(|n| !got.contains(n)).collect();
    let mut seen = BTreeSet::new();
    let twice: Vec<usize> = got.iter().copied().filter(|n| !seen.insert(*n)).collect();
    let swapped = got.windows(2).find(|pair| pair[0] > pair[1]);
    format!("missing {missing:?}, twice {twice:?}, out of order {swapped:?}")
}

/// Waits until the bridge says that it is in this state.
pub fn wait_for_state(addr: SocketAddr, state: &str) {
    wait_for(addr, "state", state);
}

/// Waits until the bridge publishes this of itself.
pub fn wait_for(addr: SocketAddr, what: &str, state: &str) {
    let mut client = Connect::new(Version::V5, "").open(addr);
    client.subscribe(&format!("$SYS/bridge/cloud/{what}"), 0);
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match client.try_receive(left) {
            Ok(Some(Packet::Publish(publish))) if publish.payload == state.as_bytes() => return,
            Ok(Some(_)) => {}
            other => panic!("{what} of the bridge is not {state}: {other:?}"),
        }
    }
}
