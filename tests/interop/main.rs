//! Real clients against the built broker: mosquitto_pub and mosquitto_sub, paho-mqtt, MQTT.js and
//! rumqttc.
//!
//! A client that is not installed is left out with a line that says how to install it; with
//! `TIDEGATE_REQUIRE_CLIENTS=1` that is a failure. `TIDEGATE_PYTHON` names the interpreter that has
//! paho-mqtt, `python3` if it is not set; MQTT.js is looked for by Node itself (`NODE_PATH`), and
//! where npm installs globally.

mod rumqttc_client;
mod tool;

use support::{Broker, Client, Connect, Version};

use tool::{Receiver, Tool};

/// Messages of one run.
const COUNT: usize = 5;

/// All tools that are installed.
fn installed() -> Vec<Tool> {
    let require = std::env::var("TIDEGATE_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
    let mut found = Vec::new();
    for tool in Tool::ALL {
        match tool.missing() {
            None => found.push(tool),
            Some(advice) => {
                println!("left out: {tool:?} is not installed; {advice}");
                assert!(!require, "{tool:?} is required and not installed; {advice}");
            }
        }
    }
    found
}

/// One run: messages from one tool to another, at one QoS.
fn run(broker: &Broker, from: (Tool, Version), to: (Tool, Version), qos: u8) {
    let topic = format!("interop/{:?}/{:?}/{qos}", from.0, to.0);
    println!("{from:?} to {to:?} at QoS {qos}");
    let receiver = Receiver::start(
        to.0,
        broker.addr(),
        to.1,
        qos,
        &topic,
        COUNT,
        "receiver",
        true,
    );
    from.0.publish(broker.addr(), from.1, qos, &topic, COUNT);
    let expected: Vec<String> = (0..COUNT).map(|i| format!("{qos} 0 {i}")).collect();
    assert_eq!(
        receiver.messages(),
        expected,
        "{from:?} to {to:?} at QoS {qos}"
    );
}

/// Every tool publishes to the next one in a ring, and receives from the one before.
fn ring(from: Version, to: Version, levels: &[u8]) {
    let mut tools = installed();
    // rumqttc does not speak MQTT 3.1.
    tools.retain(|tool| *tool != Tool::Rumqttc || (from != Version::V31 && to != Version::V31));
    if tools.is_empty() {
        return println!("left out: there is nobody to talk in MQTT {from} and {to}");
    }
    let broker = Broker::start();
    for (i, &tool) in tools.iter().enumerate() {
        let next = tools[(i + 1) % tools.len()];
        for &qos in levels {
            run(&broker, (tool, from), (next, to), qos);
        }
    }
}

#[test]
fn every_client_talks_to_another_in_mqtt_3_1_1() {
    ring(Version::V311, Version::V311, &[0, 1, 2]);
}

#[test]
fn every_client_talks_to_another_in_mqtt_5() {
    ring(Version::V5, Version::V5, &[0, 1, 2]);
}

#[test]
fn clients_that_know_mqtt_3_1_talk_in_it() {
    ring(Version::V31, Version::V31, &[0, 1, 2]);
}

#[test]
fn every_client_talks_to_another_across_versions() {
    ring(Version::V311, Version::V5, &[2]);
    ring(Version::V5, Version::V311, &[1]);
}

#[test]
fn a_qos_2_message_to_an_offline_subscriber_arrives_exactly_once_after_sigkill() {
    let tools = installed();
    for version in [Version::V311, Version::V5] {
        for (i, &subscriber) in tools.iter().enumerate() {
            let publisher = tools[(i + 1) % tools.len()];
            println!("{publisher:?} to {subscriber:?} in MQTT {version}");
            let Some(mut broker) = Broker::durable() else {
                return;
            };
            subscriber.join(broker.addr(), version, 2, "offline", "sleeper");
            publisher.publish(broker.addr(), version, 2, "offline", 1);
            broker.crash();
            let receiver = Receiver::start(
                subscriber,
                broker.addr(),
                version,
                2,
                "offline",
                1,
                "sleeper",
                false,
            );
            assert_eq!(receiver.messages(), ["2 0 0"]);
            nothing_is_left(&broker, version);
            broker.crash();
            nothing_is_left(&broker, version);
        }
    }
}

/// The session exists and has nothing more to say, but for a PUBREL whose PUBCOMP was lost with the
/// process.
fn nothing_is_left(broker: &Broker, version: Version) {
    let durable = Connect::durable(version, "sleeper");
    let (mut client, connack): (Client, _) = durable.open_with_answer(broker.addr());
    assert!(connack.session_present);
    client.expect_nothing_but_pubrel();
    client.disconnect();
}
