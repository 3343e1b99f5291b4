//! Real clients with a user name and a password.

use std::process::Command;

use support::{Broker, Connect, Version, is_installed};

use super::{broker, output_of, password_file};

/// A broker that knows ann, and somebody who hears what she publishes.
fn world() -> (tempfile::TempDir, Broker) {
    let (dir, file) = password_file(&[("ann", "secret")], "argon2id");
    let broker = broker(&format!("password_file = {file:?}"));
    (dir, broker)
}

/// The client gets in with the right password, and its message arrives; it ends otherwise with a
/// wrong one.
fn logs_in(broker: &Broker, command: impl Fn(&str) -> Command) {
    let ann = Connect::new(Version::V5, "sees").login("ann", Some(b"secret"));
    let mut subscriber = ann.open(broker.addr());
    subscriber.subscribe("t", 1);
    let output = output_of(&mut command("secret"));
    assert!(output.status.success(), "{output:?}");
    subscriber.expect("t", "hi", 1);
    let output = output_of(&mut command("wrong"));
    assert!(!output.status.success(), "{output:?}");
    subscriber.expect_nothing();
}

#[test]
fn mosquitto_pub_logs_in() {
    let found = Command::new("mosquitto_pub")
        .arg("--version")
        .output()
        .is_ok();
    let advice = "Debian: apt-get install mosquitto-clients";
    if !is_installed("mosquitto_pub", advice, found) {
        return;
    }
    let (_dir, broker) = world();
    let port = broker.addr().port().to_string();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        logs_in(&broker, |password| {
            let mut command = Command::new("mosquitto_pub");
            command.args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-V",
                version,
                "-t",
                "t",
                "-m",
                "hi",
            ]);
            command.args(["-q", "1", "-u", "ann", "-P", password]);
            command
        });
    }
}

#[test]
fn paho_logs_in() {
    let python = std::env::var("TIDEGATE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut test = Command::new(&python);
    let found = test.args(["-c", "import paho.mqtt.client"]).output();
    let advice = "pip install paho-mqtt, and name the interpreter in TIDEGATE_PYTHON";
    if !is_installed(
        "paho-mqtt",
        advice,
        found.is_ok_and(|it| it.status.success()),
    ) {
        return;
    }
    let (_dir, broker) = world();
    let script = "import sys, paho.mqtt.publish as p\n\
                  port, version, password = sys.argv[1:]\n\
                  p.single('t', 'hi', qos=1, hostname='127.0.0.1', port=int(port), protocol=int(version), auth={'username': 'ann', 'password': password})";
    for version in ["3", "4", "5"] {
        logs_in(&broker, |password| {
            let port = broker.addr().port().to_string();
            let mut command = Command::new(&python);
            command.args(["-c", script, &port, version, password]);
            command
        });
    }
}

#[test]
fn mqtt_js_logs_in() {
    let found = Command::new("node")
        .args(["-e", "require('mqtt')"])
        .output();
    let advice = "npm install mqtt, and name its directory in NODE_PATH";
    if !is_installed("MQTT.js", advice, found.is_ok_and(|it| it.status.success())) {
        return;
    }
    let (_dir, broker) = world();
    let script = "const [port, version, password] = process.argv.slice(1);\n\
                  const c = require('mqtt').connect({ port, host: '127.0.0.1', protocolVersion: +version, username: 'ann', password, reconnectPeriod: 0 });\n\
                  c.on('error', e => { console.error(e); process.exit(1); });\n\
                  c.on('connect', () => c.publish('t', 'hi', { qos: 1 }, e => c.end(false, {}, () => process.exit(e ? 1 : 0))));";
    for version in ["4", "5"] {
        logs_in(&broker, |password| {
            let port = broker.addr().port().to_string();
            let mut command = Command::new("node");
            command.args(["-e", script, &port, version, password]);
            command
        });
    }
}
