//! Real clients over TLS and WebSocket. One that is not installed is left out with a line that says
//! so; with `TIDEGATE_REQUIRE_CLIENTS=1` that is a failure. `TIDEGATE_PYTHON` names the interpreter
//! that has paho-mqtt.

use std::process::{Command, Output, Stdio};

use support::{Broker, Connect, Version};

use super::authority::Authority;
use super::broker;
use super::wire::place;

/// Whether a client is there: this command succeeds.
fn is_installed(name: &str, advice: &str, test: &mut Command) -> bool {
    let output = test.stdin(Stdio::null()).output();
    // mosquitto_pub --version ends with 1; that it could be run is enough there.
    let is_good = |output: Output| output.status.success() || name == "mosquitto_pub";
    support::is_installed(name, advice, output.is_ok_and(is_good))
}

fn server(authority: &Authority, protocol: &str) -> Broker {
    authority.issue("server", &["localhost"], 1, 2090);
    authority.issue("device", &[], 2, 2090);
    let more = format!(
        "cafile = {:?}\nrequire_certificate = \"optional\"\nallow_anonymous = true\nuse_identity_as_username = true",
        authority.file("ca.pem")
    );
    let ws = "[[listeners]]\nprotocol = \"ws\"\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n";
    broker(&format!(
        "{}{ws}",
        authority.listener(protocol, "server", &more)
    ))
}

/// Runs a client that publishes `hi` to `t`, and sees it arrive.
fn publishes(broker: &Broker, command: &mut Command) {
    let mut subscriber = Connect::new(Version::V5, "sees").open(broker.addr());
    subscriber.subscribe("t", 2);
    let output: Output = command.stdin(Stdio::null()).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    subscriber.expect("t", "hi", 1);
}

#[test]
fn mosquitto_pub_connects_over_tls_with_and_without_a_certificate() {
    let advice = "Debian: apt-get install mosquitto-clients";
    if !is_installed(
        "mosquitto_pub",
        advice,
        Command::new("mosquitto_pub").arg("--version"),
    ) {
        return;
    }
    let authority = Authority::new();
    let broker = server(&authority, "mqtts");
    let port = place(&broker, "mqtts").port().to_string();
    let mosquitto = |shows: bool, cafile: &std::path::Path| {
        let mut command = Command::new("mosquitto_pub");
        command.args([
            "-h",
            "localhost",
            "-p",
            &port,
            "-t",
            "t",
            "-m",
            "hi",
            "-q",
            "1",
            "--cafile",
        ]);
        command.arg(cafile);
        if shows {
            command.arg("--cert").arg(authority.file("device.pem"));
            command.arg("--key").arg(authority.file("device.key"));
        }
        command
    };
    let ca = authority.file("ca.pem");
    publishes(&broker, &mut mosquitto(false, &ca));
    publishes(&broker, &mut mosquitto(true, &ca));
    support::wait_until("the log tells who", || {
        broker.log().contains("user=\"device\"")
    });
    let stranger = Authority::new();
    let output = mosquitto(false, &stranger.file("ca.pem"))
        .output()
        .expect("it runs");
    assert!(!output.status.success());
}

/// A certificate of X.509 version 1 with its key, and that of its authority, as `openssl x509 -req`
/// makes them without extensions; good until 2126.
const V1: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBHTCBxAIUVBkhqEhI+gb+ow+lxAnUMd3fFm0wCgYIKoZIzj0EAwIwDTELMAkG\n\
A1UEAwwCY2EwIBcNMjYxMTI2MDgzNzAwWhgPMjEyNjExMDIwODM3MDBaMBQxEjAQ\n\
BgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABB5wTqJb\n\
GfxUy/nJRCylo5h3AXzJ6wfozlHX5mo1w4pfxXsGLuy7hHqxe0gJ9Yd2r4tGI+GO\n\
8rZnFQli6NUWfXQwCgYIKoZIzj0EAwIDSAAwRQIgY0YJngRXqh2lzAHrThlYqnRx\n\
JyQvUXfnOC2eefSlKi8CIQDKJ5lr1wdtqk/J/OpsiD15IBF0nkfrceHD4TWA4Wxb\n\
nA==\n\
-----END CERTIFICATE-----\n\n";
const V1_KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgPvvhUDG8DpxFGWMH\n\
v08z3wz9vOXJ6IsmJ0Yo/Fzrf8ShRANCAAQecE6iWxn8VMv5yUQspaOYdwF8yesH\n\
6M5R1+ZqNcOKX8V7Bi7su4R6sXtICfWHdq+LRiPhjvK2ZxUJYujVFn10\n\
-----END PRIVATE KEY-----\n\n";
const V1_CA: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBcjCCARegAwIBAgIUG/9JM6ZejCSvdL31l+jIsZt60ZowCgYIKoZIzj0EAwIw\n\
DTELMAkGA1UEAwwCY2EwIBcNMjYxMTI2MDgzNzAwWhgPMjEyNjExMDIwODM3MDBa\n\
MA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE6hYhmIm4\n\
6/vzaIi9b4F4KOr4jeUdUJ6bWseMPGvKwjitmX5njniW+uBetxr05urXJah21w71\n\
UUuFfYarmLXYRKNTMFEwHQYDVR0OBBYEFEziUkb4WxOSmIi6q521iJ8JU/5/MB8G\n\
A1UdIwQYMBaAFEziUkb4WxOSmIi6q521iJ8JU/5/MA8GA1UdEwEB/wQFMAMBAf8w\n\
CgYIKoZIzj0EAwIDSQAwRgIhAJ53Ke8FnOGUjKlnhl34AbbQN1G4K+3+o/v7jriV\n\
CQXdAiEA8lb3m+VJ0hyIFRUQGV87l4aImroY7ClpE/PDlTgGD7I=\n\
-----END CERTIFICATE-----\n\n";

#[test]
fn a_certificate_of_version_1_is_shown_and_clients_of_openssl_take_it() {
    let authority = Authority::new();
    for (name, text) in [("v1.pem", V1), ("v1.key", V1_KEY), ("v1ca.pem", V1_CA)] {
        std::fs::write(authority.file(name), text).expect("written");
    }
    let more = "allow_anonymous = true\nmax_fragment_size = 1029";
    let ws = "[[listeners]]\nprotocol = \"ws\"\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n";
    let broker = broker(&format!("{}{ws}", authority.listener("mqtts", "v1", more)));
    support::wait_until("the log tells", || broker.log().contains("X.509 version 1"));
    let advice = "Debian: apt-get install mosquitto-clients";
    let mut version = Command::new("mosquitto_pub");
    if !is_installed("mosquitto_pub", advice, version.arg("--version")) {
        return;
    }
    let port = place(&broker, "mqtts").port().to_string();
    let mut command = Command::new("mosquitto_pub");
    command.args([
        "-h",
        "localhost",
        "-p",
        &port,
        "-t",
        "t",
        "-m",
        "hi",
        "-q",
        "1",
    ]);
    command.arg("--cafile").arg(authority.file("v1ca.pem"));
    publishes(&broker, &mut command);
}

#[test]
fn paho_connects_over_tls() {
    let python = std::env::var("TIDEGATE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let advice = "pip install paho-mqtt, and name the interpreter in TIDEGATE_PYTHON";
    let mut test = Command::new(&python);
    if !is_installed(
        "paho-mqtt",
        advice,
        test.args(["-c", "import paho.mqtt.client"]),
    ) {
        return;
    }
    let authority = Authority::new();
    let broker = server(&authority, "mqtts");
    let script = "import sys, paho.mqtt.publish as p\n\
                  ca, cert, key, port = sys.argv[1:]\n\
                  p.single('t', 'hi', qos=1, hostname='localhost', port=int(port), tls={'ca_certs': ca, 'certfile': cert, 'keyfile': key})";
    let mut command = Command::new(&python);
    command.args(["-c", script]).arg(authority.file("ca.pem"));
    command
        .arg(authority.file("device.pem"))
        .arg(authority.file("device.key"));
    publishes(
        &broker,
        command.arg(place(&broker, "mqtts").port().to_string()),
    );
}

#[test]
fn mqtt_js_connects_over_websocket_with_and_without_tls() {
    let advice = "npm install mqtt, and name its directory in NODE_PATH";
    let mut test = Command::new("node");
    if !is_installed("MQTT.js", advice, test.args(["-e", "require('mqtt')"])) {
        return;
    }
    let authority = Authority::new();
    let broker = server(&authority, "wss");
    let script = "const [url, ca] = process.argv.slice(1);\n\
                  const c = require('mqtt').connect(url, { ca: require('fs').readFileSync(ca), reconnectPeriod: 0 });\n\
                  c.on('error', e => { console.error(e); process.exit(1); });\n\
                  c.on('connect', () => c.publish('t', 'hi', { qos: 1 }, e => c.end(false, {}, () => process.exit(e ? 1 : 0))));";
    for url in [
        format!("ws://{}/mqtt", place(&broker, "ws")),
        format!("wss://localhost:{}/mqtt", place(&broker, "wss").port()),
    ] {
        let mut command = Command::new("node");
        publishes(
            &broker,
            command
                .args(["-e", script, &url])
                .arg(authority.file("ca.pem")),
        );
    }
}
