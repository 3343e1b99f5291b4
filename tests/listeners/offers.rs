//! Clients whose TLS has nothing in common with ours: the log says what they offer, and those that
//! are too old are told the version.

use std::process::{Command, Stdio};

use support::{Broker, is_installed, wait_until};

use super::authority::Authority;
use super::broker;
use super::wire::place;

/// What `openssl s_client` says that connects with these options; `None` if it is not installed.
fn client(broker: &Broker, options: &[&str]) -> Option<String> {
    let found = Command::new("openssl").arg("version").output().is_ok();
    if !is_installed("openssl", "Debian: apt-get install openssl", found) {
        return None;
    }
    let address = place(broker, "mqtts").to_string();
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &address])
        .args(options);
    let output = command.stdin(Stdio::null()).output();
    let output = output.expect("openssl is there");
    assert!(!output.status.success(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_a_client_offers_that_fits_nothing_is_in_the_log() {
    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    let listener = authority.listener("mqtts", "server", "allow_anonymous = true");
    let broker = broker(&listener);
    for (options, said) in [
        (
            &["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"][..],
            "the cipher suites TLS_RSA_WITH_AES_128_CBC_SHA",
        ),
        (
            &["-tls1_3", "-groups", "ffdhe2048"][..],
            "the key exchanges FFDHE2048",
        ),
    ] {
        if client(&broker, options).is_none() {
            return;
        }
        wait_until(said, || broker.log().contains(said));
    }
    for (option, said) in [("-tls1_1", "TLS 1.1 at most"), ("-tls1", "TLS 1.0 at most")] {
        let options = [option, "-cipher", "ALL:@SECLEVEL=0"];
        let told = client(&broker, &options).expect("it was there just now");
        assert!(told.contains("alert protocol version"), "{told}");
        wait_until(said, || broker.log().contains(said));
    }
}

#[test]
fn a_client_of_tls_1_2_is_told_where_1_3_is_asked_for() {
    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    let more = "allow_anonymous = true\ntls_version = \"tlsv1.3\"";
    let broker = broker(&authority.listener("mqtts", "server", more));
    let Some(told) = client(&broker, &["-tls1_2"]) else {
        return;
    };
    assert!(told.contains("alert protocol version"), "{told}");
    let said = "speaks TLS 1.2 at most";
    wait_until(said, || broker.log().contains(said));
}

#[test]
fn a_record_that_comes_in_pieces_is_a_sign_of_life() {
    use std::io::Write;
    use std::time::Duration;

    use support::{Connect, Version, raw};

    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    let listener = authority.listener("mqtts", "server", "allow_anonymous = true");
    let broker = broker(&listener);
    let config = std::sync::Arc::new(authority.client(None, &[&rustls::version::TLS13]));
    // With a keep alive of two seconds it is closed when nothing comes for three.
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let tls = rustls::ClientConnection::new(config, name).expect("a configuration");
    let socket = super::wire::dial(place(&broker, "mqtts"));
    let mut wire = super::wire::Wire(rustls::StreamOwned::new(tls, socket));
    wire.send(&Connect::new(Version::V5, "slow").keep_alive(2).bytes())
        .expect("sent");
    assert_eq!(wire.receive().expect("a CONNACK")[3], 0);
    // One record, which is nothing to the broker before its last byte has come.
    let packet = raw::publish5(0x32, b"t", Some(1), &[], &[b'x'; 10_000]);
    wire.0
        .conn
        .writer()
        .write_all(&packet)
        .expect("it is buffered");
    let mut record = Vec::new();
    wire.0.conn.write_tls(&mut record).expect("it is in memory");
    assert!(record.len() > 10_000, "one record");
    for piece in record.chunks(record.len().div_ceil(8)) {
        wire.0.sock.write_all(piece).expect("it stays open");
        std::thread::sleep(Duration::from_millis(500));
    }
    let puback = wire.receive().expect("a PUBACK");
    assert_eq!(puback[0], 0x40, "{puback:?}: {}", broker.log());
}
