//! What a listener allows: addresses, numbers, versions, sizes; the PROXY protocol and Unix
//! sockets.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use support::{
    Broker, Client, Connect, Message, Packet, Properties, Subscription, Version, wait_until,
};

use super::wire::{Wire, dial, place};
use super::{broker, run};

/// A broker whose listener under test is the first `mqtt://`.
fn with(keys: &str) -> Broker {
    broker(&format!(
        "[[listeners]]\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n{keys}\n"
    ))
}

#[test]
fn only_allowed_addresses_connect() {
    let denied = with("allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.1\"]");
    let address = place(&denied, "mqtt");
    assert!(Wire(dial(address)).connect("denied").is_err());
    wait_until("the log says why", || {
        denied.log().contains("its address is not allowed here")
    });
    let allowed = with("allow = [\"127.0.0.0/8\"]");
    Connect::new(Version::V5, "c").open(place(&allowed, "mqtt"));
}

#[test]
fn connections_beyond_the_listeners_own_limit_are_closed() {
    let broker = with("max_connections = 2");
    let address = place(&broker, "mqtt");
    let mut kept: Vec<Client> = (0..2)
        .map(|n| Connect::new(Version::V5, &format!("c{n}")).open(address))
        .collect();
    assert!(Wire(dial(address)).connect("third").is_err());
    kept.remove(0).disconnect();
    wait_until("the place is free again", || {
        Wire(dial(address)).connect("again").is_ok()
    });
}

#[test]
fn connections_beyond_the_rate_wait() {
    let broker = with("max_connection_rate = 5");
    let address = place(&broker, "mqtt");
    let start = Instant::now();
    for n in 0..10 {
        Connect::new(Version::V5, &format!("c{n}")).open(address);
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(800), "{took:?}");
}

#[test]
fn only_the_allowed_versions_are_spoken() {
    let broker = with("protocol_versions = [\"5\"]");
    let address = place(&broker, "mqtt");
    Connect::new(Version::V5, "c").open(address);
    for version in [Version::V31, Version::V311] {
        let (_, connack) = Connect::new(version, "c").try_open(address);
        assert_eq!(connack.code, 1, "unacceptable protocol version");
    }
}

#[test]
fn packet_size_and_qos_are_the_listeners_own() {
    let broker = with("max_packet_size = 100\nmaximum_qos = 1");
    let address = place(&broker, "mqtt");
    let (mut client, connack) = Connect::new(Version::V5, "c").open_with_answer(address);
    let told = |id| connack.properties.number(id);
    assert_eq!(told(support::property::MAXIMUM_PACKET_SIZE), Some(100));
    assert_eq!(told(support::property::MAXIMUM_QOS), Some(1));
    let wanted = [Subscription::new("a", 2)];
    assert_eq!(client.subscribe_to(&wanted, &Properties::new()), [1]);
    client.send(&support::raw::publish5(0x34, b"a", Some(1), &[], b"x"));
    assert!(matches!(client.receive(), Packet::Disconnect(end) if end.reason == 0x9B));
    let mut client = Connect::new(Version::V5, "c").open(address);
    client.send(&support::raw::publish5(0x30, b"a", None, &[], &[0; 100]));
    assert!(matches!(client.receive(), Packet::Disconnect(end) if end.reason == 0x95));
    // The other listener has its own.
    let mut client = Connect::new(Version::V5, "d").open(other(&broker));
    client.publish(&Message::new("a", [0; 200], 2));
}

/// The plain listener every test broker has: the last one.
fn other(broker: &Broker) -> std::net::SocketAddr {
    let line = broker
        .banner()
        .iter()
        .find(|line| line.starts_with("Listening"))
        .expect("a line");
    let url = line.split_whitespace().last().expect("a URL");
    url.trim_start_matches("mqtt://")
        .parse()
        .expect("an address")
}

#[test]
fn behind_a_balancer_the_real_address_counts() {
    let broker = with("proxy_protocol_from = [\"127.0.0.1\"]\ndeny = [\"192.0.2.66\"]");
    let address = place(&broker, "mqtt");
    let v1 = |source: &str| format!("PROXY TCP4 {source} 198.51.100.1 4711 1883\r\n").into_bytes();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([203, 0, 113, 9, 198, 51, 100, 1, 0x12, 0x67, 7, 0x5B]);
    for (header, shown) in [
        (v1("192.0.2.7"), "192.0.2.7:4711"),
        (v2, "203.0.113.9:4711"),
    ] {
        // The header comes byte by byte, or with the CONNECT.
        let mut stream = dial(address);
        for byte in &header {
            stream.write_all(&[*byte]).expect("written");
        }
        assert_eq!(Wire(stream).connect("slow").expect("answered"), 0);
        let mut stream = dial(address);
        let joined = [&header[..], &Connect::new(Version::V5, "fast").bytes()].concat();
        stream.write_all(&joined).expect("written");
        let connack = Wire(stream).receive().expect("answered");
        assert_eq!(connack[0], 0x20);
        let line = format!("peer={shown}");
        wait_until(&line, || broker.log().contains(&line));
    }
    let mut denied = dial(address);
    denied.write_all(&v1("192.0.2.66")).expect("written");
    assert!(Wire(denied).connect("denied").is_err());
    let mut bare = Wire(dial(address));
    assert!(bare.connect("bare").is_err());
    wait_until("the log says why", || {
        broker.log().contains("no PROXY protocol header")
    });
    let elsewhere = with("proxy_protocol_from = [\"192.0.2.1\"]");
    let mut untrusted = dial(place(&elsewhere, "mqtt"));
    let _ = untrusted.write_all(&v1("192.0.2.7"));
    assert!(Wire(untrusted).connect("untrusted").is_err());
}

#[test]
fn a_balancer_must_say_what_proxy_protocol_require_asks_for() {
    // Version 1 says nothing of TLS. Version 2 does: bits for TLS, a certificate on this
    // connection, and 0 for verified.
    let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 1883\r\n".to_vec();
    let v2 = |ssl: &[u8]| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
        header.extend((12 + ssl.len() as u16).to_be_bytes());
        header.extend([203, 0, 113, 9, 198, 51, 100, 1, 0x12, 0x67, 7, 0x5B]);
        header.extend(ssl);
        header
    };
    let tls = |flags: u8, result: u8| v2(&[0x20, 0, 5, flags, 0, 0, 0, result]);
    let headers = [v1, v2(&[]), tls(0, 0), tls(1, 0), tls(3, 1), tls(3, 0)];
    for (required, lets_in, said) in [
        ("", [true; 6], ""),
        ("tls", [false, false, false, true, true, true], "TLS"),
        (
            "certificate",
            [false, false, false, false, false, true],
            "certificate",
        ),
    ] {
        let key = match required {
            "" => String::new(),
            required => format!("\nproxy_protocol_require = {required:?}"),
        };
        let broker = with(&format!("proxy_protocol_from = [\"127.0.0.1\"]{key}"));
        let address = place(&broker, "mqtt");
        for (at, (header, expected)) in headers.iter().zip(lets_in).enumerate() {
            let mut stream = dial(address);
            // One that is refused may be closed before the CONNECT is written.
            let _ = stream.write_all(header);
            let connected = Wire(stream).connect("c").is_ok_and(|code| code == 0);
            assert_eq!(connected, expected, "{required}: header {at}");
        }
        wait_until("the log says why", || {
            said.is_empty() || broker.log().contains(said)
        });
    }
}

#[test]
fn a_unix_socket_is_a_listener_and_a_killed_brokers_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("mqtt.sock");
    let keys = format!(
        "[[listeners]]\nsocket = {path:?}\nsocket_mode = \"0600\"\nallow_anonymous = true\n"
    );
    let mut broker = broker(&keys);
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let stream = UnixStream::connect(&path).expect("somebody listens");
    let mut wire = Wire(stream);
    assert_eq!(wire.connect("c").expect("answered"), 0);
    wire.publish("a", 1).expect("acknowledged");
    wait_until("the log tells", || broker.log().contains("peer=local"));
    broker.crash();
    let at = path.display().to_string();
    let output = run(&["pub", "--unix", &at, "-t", "a", "-m", "b", "-q", "1"]);
    assert!(output.status.success(), "{output:?}");
    let mut rest = Vec::new();
    let _ = wire.0.read_to_end(&mut rest);
    broker.stop();
    assert!(
        !path.exists(),
        "a broker that stops takes its socket with it"
    );
}
