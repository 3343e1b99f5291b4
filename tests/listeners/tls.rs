//! TLS: who gets in, who does not, and what happens when files change.

use std::io::{Read, Write};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConnection};
use support::{Broker, wait_until};

use super::authority::Authority;
use super::wire::{Wire, dial, place, tls};
use super::{broker, run};

const OPEN: &str = "allow_anonymous = true";

fn server() -> (Authority, Broker) {
    let authority = Authority::new();
    authority.issue("server", &["localhost", "127.0.0.1"], 1, 2090);
    let broker = broker(&authority.listener("mqtts", "server", OPEN));
    (authority, broker)
}

/// A broker that wants client certificates, and what its listener is to have beside.
fn strict(authority: &Authority, more: &str) -> Broker {
    authority.issue("server", &["localhost"], 1, 2090);
    authority.issue("device", &[], 2, 2090);
    let ca = authority.file("ca.pem");
    let more = format!("require_certificate = \"required\"\ncafile = {ca:?}\n{more}");
    broker(&authority.listener("mqtts", "server", &more))
}

fn serial_shown(broker: &Broker, authority: &Authority) -> Vec<u8> {
    let config = Arc::new(authority.client(None, &[&TLS13]));
    let wire = tls(place(broker, "mqtts"), &config, "looks").expect("connected");
    let shown = wire.0.conn.peer_certificates().expect("a certificate");
    shown[0].to_vec()
}

#[test]
fn both_versions_of_tls_are_spoken_and_alpn_is_answered() {
    let (authority, broker) = server();
    for version in [&TLS12, &TLS13] {
        let mut config = authority.client(None, &[version]);
        config.alpn_protocols = vec![b"other".to_vec(), b"mqtt".to_vec()];
        let mut wire = tls(place(&broker, "mqtts"), &Arc::new(config), "c").expect("connected");
        assert_eq!(wire.0.conn.protocol_version(), Some(version.version));
        assert_eq!(wire.0.conn.alpn_protocol(), Some(&b"mqtt"[..]));
        wire.publish("a", 1).expect("acknowledged");
    }
    let mut config = authority.client(None, &[&TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(tls(place(&broker, "mqtts"), &Arc::new(config), "c").is_err());
}

#[test]
fn on_wss_a_client_may_ask_for_http_or_mqtt_or_nothing() {
    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    let broker = broker(&authority.listener("wss", "server", OPEN));
    let asked = |names: &[&str]| {
        let mut config = authority.client(None, &[&TLS13]);
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").expect("a name");
        let mut connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut stream = dial(place(&broker, "wss"));
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).ok()?;
        }
        Some(connection.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(asked(&["mqtt"]), Some(Some(b"mqtt".to_vec())));
    let http = Some(Some(b"http/1.1".to_vec()));
    assert_eq!(asked(&["mqtt", "http/1.1"]), http);
    assert_eq!(asked(&["h2", "http/1.1"]), http);
    assert_eq!(asked(&[]), Some(None));
}

#[test]
fn only_the_chosen_cipher_suites_are_offered() {
    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    let chosen = "ciphers = \"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305\"\n\
                  ciphers_tls13 = [\"TLS_AES_128_GCM_SHA256\"]";
    let broker = broker(&authority.listener("mqtts", "server", &format!("{OPEN}\n{chosen}")));
    for (version, suite) in [
        (
            &TLS12,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
        (&TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
    ] {
        let config = Arc::new(authority.client(None, &[version]));
        let wire = tls(place(&broker, "mqtts"), &config, "c").expect("connected");
        let agreed = wire.0.conn.negotiated_cipher_suite().expect("one");
        assert_eq!(agreed.suite(), suite);
    }
}

#[test]
fn a_post_quantum_key_exchange_is_agreed_and_sessions_resume() {
    let (authority, broker) = server();
    let config = Arc::new(authority.client(None, &[&TLS13]));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut wire = tls(place(&broker, "mqtts"), &config, "c").expect("connected");
        wire.ping().expect("answered");
        let group = wire.0.conn.negotiated_key_exchange_group();
        let group = group.expect("a key exchange").name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
        kinds.push(wire.0.conn.handshake_kind().expect("a handshake"));
    }
    use rustls::HandshakeKind::{Full, Resumed};
    assert!(matches!(kinds[..], [Full, Resumed]), "{kinds:?}");
}

#[test]
fn a_version_below_the_minimum_is_refused() {
    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    let only13 = format!("{OPEN}\ntls_version = \"tlsv1.3\"");
    let broker = broker(&authority.listener("mqtts", "server", &only13));
    let connect = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let config = Arc::new(authority.client(None, versions));
        tls(place(&broker, "mqtts"), &config, "c").map(|_| ())
    };
    connect(&[&TLS13]).expect("TLS 1.3");
    let error = connect(&[&TLS12]).expect_err("TLS 1.2").to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
}

#[test]
fn our_client_refuses_a_server_it_should_not_trust() {
    let (authority, broker) = server();
    let address = place(&broker, "mqtts");
    let publish = |host: &str, cafile: &std::path::Path, more: &[&str]| -> Output {
        let url = format!("mqtts://{host}:{}", address.port());
        let cafile = cafile.display().to_string();
        let mut arguments = vec!["pub", "-L", &url, "-t", "a", "-m", "b", "-q", "1"];
        if more.is_empty() {
            arguments.extend(["--cafile", &cafile]);
        }
        arguments.extend(more);
        run(&arguments)
    };
    let ca = authority.file("ca.pem");
    assert!(publish("localhost", &ca, &[]).status.success());
    assert!(publish("127.0.0.1", &ca, &[]).status.success());
    let refused = |output: Output, needle: &str| {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(needle), "{told} without {needle}");
    };
    let other = Authority::new();
    refused(
        publish("localhost", &other.file("ca.pem"), &[]),
        "UnknownIssuer",
    );
    assert!(publish("localhost", &ca, &["--insecure"]).status.success());
    authority.issue("elsewhere", &["elsewhere.example"], 9, 2090);
    authority.issue("old", &["localhost"], 9, 2020);
    let wrong = super::broker(&authority.listener("mqtts", "elsewhere", OPEN));
    let url = format!("mqtts://localhost:{}", place(&wrong, "mqtts").port());
    let ca = ca.display().to_string();
    let output = run(&["pub", "-L", &url, "--cafile", &ca, "-t", "a", "-m", "b"]);
    refused(output, "not valid for name");
}

#[test]
fn only_clients_with_a_good_certificate_get_in_and_it_tells_who_they_are() {
    let authority = Authority::new();
    authority.revoke(&[7]);
    let crl = format!(
        "crlfile = {:?}\nuse_identity_as_username = true\nuse_identity_as_clientid = true",
        authority.file("ca.crl")
    );
    let broker = strict(&authority, &crl);
    let stranger = Authority::new();
    for (issuer, name, serial, until) in [
        (&authority, "expired", 3, 2020),
        (&authority, "revoked", 7, 2090),
        (&stranger, "stranger", 3, 2090),
    ] {
        issuer.issue(name, &[], serial, until);
    }
    let address = place(&broker, "mqtts");
    for version in [&TLS12, &TLS13] {
        let connect = |config| tls(address, &Arc::new(config), "").map(|_| ());
        connect(authority.client(Some("device"), &[version])).expect("a good certificate");
        for (name, needle) in [
            (None, "CertificateRequired"),
            (Some("expired"), "CertificateExpired"),
            (Some("revoked"), "CertificateRevoked"),
        ] {
            let error = connect(authority.client(name, &[version])).expect_err("bad");
            let told = error.to_string();
            // TLS 1.2 has no word for a missing certificate.
            let also = name.is_none() && told.contains("HandshakeFailure");
            assert!(told.contains(needle) || also, "{name:?}: {told}");
        }
        std::fs::copy(authority.file("ca.pem"), stranger.file("ca.pem")).expect("copied");
        let error = connect(stranger.client(Some("stranger"), &[version])).expect_err("bad");
        assert!(error.to_string().contains("UnknownCA"), "{error}");
    }
    // The identity is the client identifier, and no other can be had.
    let config = Arc::new(authority.client(Some("device"), &[&TLS13]));
    let name = "localhost".try_into().expect("a name");
    let connection = rustls::ClientConnection::new(config, name).expect("a connection");
    let mut wire = Wire(rustls::StreamOwned::new(connection, dial(address)));
    assert_eq!(wire.connect("another").expect("answered"), 0x85);
    wait_until("the log tells who", || {
        let log = broker.log();
        log.contains("user=\"device\"") && log.contains("client=\"device\"")
    });
}

#[test]
fn a_bad_file_ends_the_start_and_the_check_with_its_name() {
    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    authority.issue("other", &["localhost"], 1, 2090);
    std::fs::copy(authority.file("other.key"), authority.file("mixed.key")).expect("copied");
    std::fs::copy(authority.file("server.pem"), authority.file("mixed.pem")).expect("copied");
    for (name, needle) in [
        ("none", "none.pem: cannot be read"),
        ("mixed", "mixed.key: the key does not belong to"),
    ] {
        let file = authority.file("bad.toml");
        let data = authority.file("data");
        let text = format!(
            "data_dir = {data:?}\n{}",
            authority.listener("mqtts", name, OPEN)
        );
        std::fs::write(&file, text).expect("written");
        let file = file.display().to_string();
        for (command, code) in [("check", 2), ("run", 1)] {
            let output = run(&[command, "--config", &file]);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(told.contains(needle), "{told}");
            assert_eq!(output.status.code(), Some(code), "{told}");
        }
        assert!(!data.exists(), "the data was not touched");
    }
}

#[test]
fn certificates_are_chosen_by_the_name_that_is_asked_for() {
    let authority = Authority::new();
    authority.issue("server", &["first.example"], 1, 2090);
    authority.issue("second", &["localhost"], 2, 2090);
    let more = format!(
        "{OPEN}\ncertificates = [{{ certfile = {:?}, keyfile = {:?} }}]",
        authority.file("second.pem"),
        authority.file("second.key")
    );
    let broker = broker(&authority.listener("mqtts", "server", &more));
    // The client checks the name: with the first certificate, it would refuse.
    serial_shown(&broker, &authority);
}

/// Ends the workers of a test, also when it fails.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn rotation_under_load_drops_nothing_and_new_connections_see_the_new_certificate() {
    let (authority, broker) = server();
    let address = place(&broker, "mqtts");
    let config = Arc::new(authority.client(None, &[&TLS13]));
    let before = serial_shown(&broker, &authority);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = EndOnDrop(&done);
        let workers: Vec<_> = (0..4)
            .map(|n| {
                let (config, done) = (&config, &done);
                scope.spawn(move || {
                    let mut steady =
                        tls(address, config, &format!("steady{n}")).expect("connected");
                    let mut sent = 0;
                    while !done.load(Ordering::Relaxed) {
                        steady.publish("load", 1).expect("acknowledged");
                        let mut brief =
                            tls(address, config, &format!("brief{n}")).expect("connected");
                        brief.publish("load", 1).expect("acknowledged");
                        sent += 1;
                    }
                    sent
                })
            })
            .collect();
        authority.issue("server", &["localhost"], 5, 2090);
        broker.signal("HUP");
        wait_until("the new certificate is shown", || {
            serial_shown(&broker, &authority) != before
        });
        // Noticed without a signal; the key comes a moment after its certificate.
        let before = serial_shown(&broker, &authority);
        authority.issue("server", &["localhost"], 6, 2090);
        wait_until("the newest certificate is shown", || {
            serial_shown(&broker, &authority) != before
        });
        drop(end);
        for worker in workers {
            assert!(worker.join().expect("no errors") > 0);
        }
    });
    let newest = serial_shown(&broker, &authority);
    authority.write("server.key", "nonsense");
    broker.signal("HUP");
    wait_until("the log says why", || {
        broker.log().contains("has no private key in PEM")
    });
    assert_eq!(serial_shown(&broker, &authority), newest);
}

#[test]
fn an_expired_certificate_is_served_and_said_everywhere() {
    let authority = Authority::new();
    authority.issue("old", &["localhost"], 1, 2020);
    let metrics = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("bound")
    };
    let broker = broker(&format!(
        "[metrics]\nbind = \"{metrics}\"\n{}",
        authority.listener("mqtts", "old", OPEN)
    ));
    // The plain listener is there, and so is the other for those who do not check.
    Wire(dial(place(&broker, "mqtt")))
        .connect("plain")
        .expect("accepted");
    let port = place(&broker, "mqtts").port().to_string();
    let flags = ["pub", "--tls", "--insecure", "-h", "127.0.0.1", "-p", &port];
    let output = run(&[&flags[..], &["-t", "a", "-m", "b", "-q", "1"]].concat());
    assert!(output.status.success(), "{output:?}");
    let config = Arc::new(authority.client(None, &[&TLS13]));
    assert!(tls(place(&broker, "mqtts"), &config, "c").is_err());
    wait_until("the log says so", || {
        let log = broker.log();
        let line = log
            .lines()
            .find(|line| line.contains("the certificate has expired"));
        line.is_some_and(|line| line.contains("ERROR") && line.contains("old.pem"))
    });
    let mut stream = dial(metrics);
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let line = text
        .lines()
        .find(|line| line.starts_with("tidegate_certificate_expired{"));
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{text}");
    let file = broker.config_file();
    let output = run(&["check", "--config", file.to_str().expect("text")]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        told.contains("old.pem: the certificate has expired"),
        "{told}"
    );
}

#[test]
fn an_expired_revocation_list_refuses_certificates_unless_it_may_go_on() {
    for (keys, accepts) in [
        ("", false),
        ("crl_expired = \"refuse\"", false),
        ("crl_expired = \"accept\"", true),
    ] {
        let authority = Authority::new();
        authority.revoke(&[7]);
        let crl = format!("crlfile = {:?}\n{keys}\n{OPEN}", authority.file("ca.crl"));
        let broker = strict(&authority, &crl);
        authority.issue("revoked", &[], 7, 2090);
        let address = place(&broker, "mqtts");
        let config = Arc::new(authority.client(Some("device"), &[&TLS13]));
        tls(address, &config, "before").expect("the list is good");
        authority.revoke_until(&[7], 2025);
        broker.signal("HUP");
        wait_until("the log says so", || {
            broker.log().contains("the revocation list has expired")
        });
        let config = Arc::new(authority.client(Some("device"), &[&TLS13]));
        assert_eq!(tls(address, &config, "after").is_ok(), accepts, "{keys}");
        let config = Arc::new(authority.client(Some("revoked"), &[&TLS13]));
        assert!(tls(address, &config, "revoked").is_err(), "{keys}");
        Wire(dial(place(&broker, "mqtt")))
            .connect("plain")
            .expect("accepted");
    }
}

#[test]
fn who_is_revoked_cannot_come_back_by_resuming() {
    let authority = Authority::new();
    authority.revoke(&[]);
    let crl = format!("crlfile = {:?}\n{OPEN}", authority.file("ca.crl"));
    let broker = strict(&authority, &crl);
    let address = place(&broker, "mqtts");
    let config = Arc::new(authority.client(Some("device"), &[&TLS13]));
    let mut open = tls(address, &config, "open").expect("connected");
    open.ping().expect("answered");
    let mut again = tls(address, &config, "again").expect("connected");
    again.ping().expect("answered");
    authority.revoke(&[2]);
    broker.signal("HUP");
    wait_until("the revoked certificate is refused", || {
        tls(address, &config, "later").is_err()
    });
    open.ping().expect("what is open stays open");
}

#[test]
fn plaintext_on_the_tls_port_and_tls_on_the_plaintext_port_are_closed() {
    let (authority, broker) = server();
    let mut plain = Wire(dial(place(&broker, "mqtts")));
    assert!(plain.connect("c").is_err());
    plain.read_to_end();
    let config = Arc::new(authority.client(None, &[&TLS13]));
    assert!(tls(place(&broker, "mqtt"), &config, "c").is_err());
    tls(place(&broker, "mqtts"), &config, "c").expect("both ports go on");
}

#[test]
fn a_client_on_the_wrong_port_is_named_in_the_log_at_once() {
    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    let broker = broker(&format!(
        "{}[[listeners]]\nprotocol = \"ws\"\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n",
        authority.listener("mqtts", "server", OPEN)
    ));
    let hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
    let connect = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c";
    let request = b"GET / HTTP/1.1\r\n\r\n";
    let proxy1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n";
    let proxy2 = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (protocol, bytes, needle) in [
        ("mqtt", &hello[..], "TLS where MQTT without TLS is spoken"),
        ("mqtt", request, "HTTP where MQTT is spoken"),
        ("mqtts", connect, "MQTT without TLS where TLS is spoken"),
        ("mqtts", request, "HTTP without TLS where TLS is spoken"),
        ("ws", connect, "MQTT without WebSocket where WebSocket"),
        ("ws", hello, "TLS where WebSocket without TLS is spoken"),
        ("mqtt", proxy1, "a PROXY protocol header where none"),
        ("mqtts", proxy2, "a PROXY protocol header where none"),
        ("ws", proxy1, "a PROXY protocol header where none"),
    ] {
        let start = Instant::now();
        let mut stream = dial(place(&broker, protocol));
        let peer = format!("peer={} ", stream.local_addr().expect("bound"));
        stream.write_all(bytes).expect("written");
        wait_until(needle, || {
            let log = broker.log();
            log.lines()
                .any(|line| line.contains(needle) && line.contains(&peer))
        });
        // Long before connect_timeout and handshake_timeout.
        assert!(start.elapsed() < Duration::from_secs(9), "{needle}");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
}

#[test]
fn slow_handshakes_keep_nobody_waiting_and_end_in_time() {
    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    let more = format!("{OPEN}\nhandshake_timeout = \"1s\"");
    let broker = broker(&authority.listener("mqtts", "server", &more));
    let address = place(&broker, "mqtts");
    let start = Instant::now();
    let slow: Vec<_> = (0..200)
        .map(|n| {
            let mut stream = dial(address);
            if n % 2 == 0 {
                // The beginning of a ClientHello.
                stream.write_all(&[0x16, 3, 1]).expect("written");
            }
            stream
        })
        .collect();
    let config = Arc::new(authority.client(None, &[&TLS13]));
    let mut wire = tls(address, &config, "quick").expect("connected");
    wire.ping().expect("answered");
    assert!(
        start.elapsed() < Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(900) && took < Duration::from_secs(8),
        "{took:?}"
    );
    wire.ping().expect("answered");
}
