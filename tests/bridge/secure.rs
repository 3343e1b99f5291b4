//! TLS and WebSocket to the upstream, and logging in.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use support::{Broker, Version, wait_until};

use super::LONG;
use super::side::*;

/// Certificates of the server and of a client `edge1`, by the program's own command.
pub fn certificates(dir: &Path) {
    let made = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["certs", "--client", "edge1", "--dir"])
        .arg(dir)
        .output()
        .expect("the binary has been built");
    assert!(made.status.success(), "{made:?}");
}

pub fn place(broker: &Broker, scheme: &str) -> SocketAddr {
    let prefix = format!("{scheme}://");
    let line = broker.banner().iter().find(|line| line.contains(&prefix));
    let line = line.unwrap_or_else(|| panic!("no {prefix} in {:?}", broker.banner()));
    let after = line.split(&prefix).nth(1).expect("it is there");
    let end = after.find(|c: char| c.is_whitespace() || matches!(c, '/' | ','));
    let text = &after[..end.unwrap_or(after.len())];
    text.parse().expect("an address")
}

#[test]
fn tls_with_a_client_certificate_and_websocket_over_it() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let dir = dir.path();
    certificates(dir);
    let file = |name: &str| dir.join(name);
    let tls = format!(
        "certfile = {:?}\nkeyfile = {:?}\ncafile = {:?}\nrequire_certificate = \"required\"\nuse_identity_as_clientid = true\nallow_anonymous = true\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    let listeners = ["mqtts", "wss"].map(|protocol| {
        format!("[[listeners]]\nprotocol = \"{protocol}\"\nbind = \"127.0.0.1:0\"\n{tls}")
    });
    let cloud = cloud(&listeners.concat());
    for (round, scheme) in ["mqtts", "wss"].into_iter().enumerate() {
        let consumer = format!("consumer-{scheme}");
        expect_at(cloud.addr(), Version::V5, &consumer, "site/up/#");
        let more = format!(
            "protocol = \"{scheme}\"\nserver_name = \"localhost\"\ncafile = {:?}\ncertfile = {:?}\nkeyfile = {:?}",
            file("ca.pem"),
            file("edge1.pem"),
            file("edge1.key")
        );
        let edge = edge(place(&cloud, scheme), &more);
        wait_for_state(edge.addr(), "connected");
        publish(edge.addr(), "up/a", 2, 0..20);
        let got = collect(cloud.addr(), Version::V5, &consumer, "site/up/a", 20, LONG);
        assert_exactly_once(&got, 20, &format!("{scheme}, round {round}"));
    }
    // Without a certificate, or for another name, there is no connection.
    let ca = file("ca.pem");
    for (more, why) in [
        (
            format!("cafile = {ca:?}\nserver_name = \"localhost\""),
            "ertificate",
        ),
        (
            format!("cafile = {ca:?}\nserver_name = \"elsewhere.example\""),
            "elsewhere.example",
        ),
    ] {
        let more = format!("protocol = \"mqtts\"\n{more}");
        let edge = edge(place(&cloud, "mqtts"), &more);
        wait_until(why, || edge.log().contains(why));
        assert!(!edge.log().contains("bridge connected"), "{}", edge.log());
    }
}
