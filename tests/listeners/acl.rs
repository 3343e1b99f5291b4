//! Access rules over sockets: the same decisions as Mosquitto's on the same file; mount points;
//! quotas.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::{Broker, Client, Connect, Message, Packet, Properties, Subscription, Version};
use tempfile::TempDir;

use super::wire::place;
use super::{broker, run};

/// Rules as they are found on gateways, and some that are hard to read.
const RULES: &str = "\
# What everybody who has no name may do
topic read public/#
topic drop/box
topic write drop/other

user admin
topic readwrite #
topic read $SYS/#

user alice
topic sensors/alice/+
topic write    commands/with space
topic read +/shared/#
topic deny sensors/alice/secret
topic deny deep/a/b
topic readwrite deep/#
topic readwrite /leading/slash
topic readwrite %u/literal

user bob
topic write sensors/#
topic read sensors/bob/#

# For everybody
pattern readwrite home/%u/%c/#
pattern read device/%c
pattern write device/%c/status
pattern write news/%u
user alice
topic read late/rule
";

const TOPICS: [&str; 30] = [
    "public",
    "public/a/b",
    "drop/box",
    "drop/other",
    "sensors/alice/1",
    "sensors/alice/secret",
    "sensors/alice",
    "sensors/alice/1/2",
    "sensors/bob/1",
    "sensors/bob",
    "sensors",
    "commands/with space",
    "commands/with",
    "x/shared",
    "x/shared/y/z",
    "x/y/shared",
    "deep",
    "deep/a",
    "deep/a/b",
    "deep/a/b/c",
    "/leading/slash",
    "leading/slash",
    "%u/literal",
    "alice/literal",
    "home/alice/c1/x",
    "home/alice/c1",
    "home/bob/c1/x",
    "device/c1",
    "device/c1/status",
    "late/rule",
];

/// A connection as a user, who is told Mosquitto in the CONNECT and Tidegate by a load balancer:
/// neither asks for a password here.
fn open(addr: SocketAddr, by_balancer: bool, user: Option<&str>, id: &str) -> Client {
    let mut connect = Connect::new(Version::V5, id);
    let mut client = Client::dial(addr, Version::V5);
    if by_balancer {
        client.send(&proxy_header(user));
    } else if let Some(user) = user {
        connect = connect.login(user, None);
    }
    client.send(&connect.bytes());
    match client.receive() {
        Packet::ConnAck(connack) => assert_eq!(connack.code, 0, "{user:?} {id}: {connack:?}"),
        other => panic!("{other:?} instead of a CONNACK"),
    }
    client
}

/// A header of the PROXY protocol, version 2, of a client whose certificate has this common name.
fn proxy_header(user: Option<&str>) -> Vec<u8> {
    let mut block = vec![192, 0, 2, 1, 192, 0, 2, 2, 1, 2, 3, 4];
    if let Some(user) = user {
        let name = [&[0x22, 0, user.len() as u8], user.as_bytes()].concat();
        block.extend([0x20, 0, 5 + name.len() as u8, 3, 0, 0, 0, 0]);
        block.extend(name);
    }
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0".to_vec();
    header.push(block.len() as u8);
    header.extend(block);
    header
}

/// What a user may read and write, by topic.
type Decisions = BTreeMap<String, (bool, bool)>;

fn decisions(addr: SocketAddr, by_balancer: bool) -> Decisions {
    let mut all = Decisions::new();
    let mut admin = open(addr, by_balancer, Some("admin"), "the admin");
    let users = [
        None,
        Some("alice"),
        Some("bob"),
        Some("carol"),
        Some("+"),
        Some("a#"),
    ];
    for user in users {
        for id in ["c1", "c2", "c+"] {
            let mut client = open(addr, by_balancer, user, id);
            for topic in TOPICS {
                let may_write = client.publish(&Message::new(topic, "w", 1)) < 0x80;
                let filter = [Subscription::new(topic, 0)];
                client.subscribe_to(&filter, &Properties::new());
                admin.publish(&Message::new(topic, "r", 1));
                client.ping();
                let may_read = matches!(client.try_receive(Duration::ZERO), Ok(Some(_)));
                client.unsubscribe(&[topic]);
                all.insert(format!("{user:?} {id} {topic}"), (may_read, may_write));
            }
            client.disconnect();
        }
    }
    all
}

/// What users are given who subscribe to more than they may read.
fn given(addr: SocketAddr, by_balancer: bool) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    let mut admin = open(addr, by_balancer, Some("admin"), "the admin");
    for user in [None, Some("alice"), Some("bob"), Some("+")] {
        for filter in ["#", "+/+", "+/shared/#", "sensors/#", "home/+/+/x"] {
            let mut client = open(addr, by_balancer, user, "c1");
            client.subscribe_to(&[Subscription::new(filter, 0)], &Properties::new());
            for topic in TOPICS {
                admin.publish(&Message::new(topic, "r", 1));
            }
            client.ping();
            let mut topics = Vec::new();
            while let Ok(Some(Packet::Publish(message))) = client.try_receive(Duration::ZERO) {
                topics.push(message.topic);
            }
            all.insert(format!("{user:?} {filter}"), topics);
            client.disconnect();
        }
    }
    all
}

#[test]
fn a_file_of_mosquitto_has_the_same_meaning() {
    let dir = TempDir::new().expect("a directory");
    let rules = dir.path().join("acl");
    std::fs::write(&rules, RULES).expect("written");
    let config = format!("allow_anonymous true\nacl_file {}\n", rules.display());
    let Some(theirs) = Broker::mosquitto(&config) else {
        return;
    };
    let ours = broker(&format!(
        "acl_file = {rules:?}\n[[listeners]]\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n\
         use_identity_as_username = true\nproxy_protocol_from = [\"127.0.0.1\"]\n"
    ));
    let expected = decisions(theirs.addr(), false);
    let found = decisions(place(&ours, "mqtt"), true);
    let differ: Vec<_> = expected
        .iter()
        .filter(|(key, decision)| found[*key] != **decision)
        .map(|(key, decision)| format!("{key}: {decision:?} there, {:?} here", found[key]))
        .collect();
    assert!(differ.is_empty(), "{differ:#?}");
    assert!(expected.values().filter(|(read, _)| *read).count() > 30);
    assert!(expected.values().filter(|(_, write)| *write).count() > 30);
    let (expected, found) = (
        given(theirs.addr(), false),
        given(place(&ours, "mqtt"), true),
    );
    assert_eq!(found, expected);
    assert!(expected["Some(\"alice\") #"].len() > 5, "{expected:?}");
}

#[test]
fn a_listener_has_rules_of_its_own_and_rules_nobody_can_have_are_warned_about() {
    let dir = TempDir::new().expect("a directory");
    let (common, own) = (dir.path().join("common"), dir.path().join("own"));
    std::fs::write(&common, "topic readwrite a\n").expect("written");
    std::fs::write(&own, "topic readwrite b\nuser ann\ntopic readwrite c\n").expect("written");
    let mut broker = broker(&format!(
        "acl_file = {common:?}\n[[listeners]]\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\nacl_file = {own:?}\n"
    ));
    let mut other = Connect::new(Version::V5, "other").open(place(&broker, "mqtt"));
    let mut client = Connect::new(Version::V5, "c").open(plain(&broker));
    let codes = |client: &mut Client| {
        ["a", "b", "c"].map(|topic| client.publish(&Message::new(topic, "x", 1)) < 0x80)
    };
    assert_eq!(codes(&mut client), [true, false, false]);
    assert_eq!(codes(&mut other), [false, true, false]);
    let config = broker.config_file().to_str().expect("text").to_owned();
    let told = run(&["check", "--config", &config]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let warning = format!(
        "warning    {}: the rules of 1 users, such as \"ann\"",
        own.display()
    );
    assert!(told.contains(&warning), "{told}");
    broker.expect_log("can never hold");
    // Both files are read again, and nobody has to connect again.
    std::fs::write(&own, "topic readwrite c\n").expect("written");
    let told = run(&["reload", "--config", &config]);
    assert!(told.status.success(), "{told:?}");
    assert_eq!(codes(&mut other), [false, false, true]);
    broker.stop();
}

#[test]
fn a_check_names_file_and_line_of_what_is_wrong() {
    let dir = TempDir::new().expect("a directory");
    let (config, rules) = (dir.path().join("t.toml"), dir.path().join("acl"));
    std::fs::write(&config, format!("acl_file = {rules:?}\n")).expect("written");
    let check = || run(&["check", "--config", config.to_str().expect("text")]);
    std::fs::write(&rules, "topic a\n\ntopic x a\nuser\n").expect("written");
    let output = check();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains(&format!("{}:3: found \"x\"", rules.display())),
        "{told}"
    );
    assert!(
        told.contains(&format!("{}:4: expected a user", rules.display())),
        "{told}"
    );
    std::fs::write(&rules, "topic a\n").expect("written");
    assert!(check().status.success());
}

/// The listener that every test broker has beside those under test: the last one.
fn plain(broker: &Broker) -> SocketAddr {
    let banner = broker.banner().iter();
    let words = banner.flat_map(|line| line.split_whitespace());
    let plain = words.rev().find_map(|word| word.strip_prefix("mqtt://"));
    let address = plain.and_then(|address| address.parse().ok());
    address.expect("an address")
}

#[test]
fn a_listener_has_a_mount_point() {
    let broker = broker(
        "[[listeners]]\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\nmount_point = \"one/\"\n",
    );
    let mut inside = Connect::new(Version::V5, "in").open(place(&broker, "mqtt"));
    let mut outside = Connect::new(Version::V5, "out").open(plain(&broker));
    inside.subscribe("#", 1);
    outside.subscribe("#", 1);
    inside.publish(&Message::new("a", "x", 1).retained());
    inside.expect("a", "x", 1);
    let seen = outside.expect("one/a", "x", 1);
    outside.acknowledge(&seen);
    let mut late = Connect::new(Version::V311, "late").open(place(&broker, "mqtt"));
    late.subscribe("a", 1);
    late.expect("a", "x", 1);
}

#[test]
fn a_client_that_sends_too_fast_is_slowed_down_and_loses_nothing() {
    let broker = broker("[limits]\nmax_byte_rate_in = \"100KB\"\n");
    let mut subscriber = Connect::new(Version::V311, "s").open(broker.addr());
    subscriber.subscribe("t", 1);
    let mut client = Connect::new(Version::V311, "p").open(broker.addr());
    let start = Instant::now();
    let payload = "x".repeat(20_000);
    // A tenth of what is sent goes at once; the others wait in the socket.
    let ids: Vec<u16> = (0..20)
        .map(|_| client.send_publish(&Message::new("t", &payload, 1)))
        .collect();
    for id in ids {
        client.puback_for(id);
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    for _ in 0..20 {
        let message = subscriber.receive_publish();
        subscriber.acknowledge(&message);
    }
}
