//! Real clients over TLS and WebSocket. One that is not installed is left out with a line that says so; with `TIDEGATE_REQUIRE_CLIENTS=1` that is a
//! failure. `TIDEGATE_PYTHON` names the interpreter that has paho-mqtt.

use std::process::{Command, Output, Stdio};

use support::{Broker, Connect, Version};

use super::authority::Authority;
use super::broker;
use super::wire::place;

/// Whether a client is there: this command succeeds.
fn is_there(name: &str, advice: &str, test: &mut Command) -> bool {
    let output = test.stdin(Stdio::null()).output();
    // mosquitto_pub --version ends with 1; that it could be run is enough there.
    let is_good = |output: Output| output.status.success() || name == "mosquitto_pub";
    support::is_there(name, advice, output.is_ok_and(is_good))
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
    if !is_there(
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

#[test]
fn paho_connects_over_tls() {
    let python = std::env::var("TIDEGATE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let advice = "pip install paho-mqtt, and name the interpreter in TIDEGATE_PYTHON";
    let mut test = Command::new(&python);
    if !is_there(
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
    if !is_there("MQTT.js", advice, test.args(["-e", "require('mqtt')"])) {
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
