//! rumqttc, in this process: its modules for MQTT 3.1.1 and 5 are two clients with the same shape.

use std::net::SocketAddr;
use std::sync::mpsc::Sender;

use support::Version;

/// Publishes the payloads 0, 1, 2 ... and waits for all acknowledgements.
pub fn publish(addr: SocketAddr, version: Version, qos: u8, topic: &str, count: usize) {
    match version {
        Version::V5 => v5::publish(addr, qos, topic, count),
        _ => v4::publish(addr, qos, topic, count),
    }
}

/// Subscribes, says `ready`, then `QOS RETAIN PAYLOAD` for each message, and leaves when `count`
/// flows are complete.
#[expect(
    clippy::too_many_arguments,
    reason = "they are the arguments of the scripts"
)]
pub fn subscribe(
    addr: SocketAddr,
    version: Version,
    qos: u8,
    topic: &str,
    count: usize,
    id: &str,
    clean: bool,
    lines: &Sender<String>,
) {
    match version {
        Version::V5 => v5::subscribe(addr, qos, topic, count, id, clean, lines),
        _ => v4::subscribe(addr, qos, topic, count, id, clean, lines),
    }
}

macro_rules! client {
    ($name:ident, $($root:ident)::+, $qos:path, $session:expr) => {
        mod $name {
            use std::net::SocketAddr;
            use std::sync::mpsc::Sender;
            use std::time::Duration;

            use $($root)::+::{Client, Event, Incoming, MqttOptions};
            use rumqttc::Outgoing;

            fn options(addr: SocketAddr, id: &str, clean: bool) -> MqttOptions {
                let mut options = MqttOptions::new(id, addr.ip().to_string(), addr.port());
                options.set_keep_alive(Duration::from_secs(30));
                $session(&mut options, clean);
                options
            }

            pub fn publish(addr: SocketAddr, qos: u8, topic: &str, count: usize) {
                let options = options(addr, "rumqttc-pub", true);
                let (client, mut connection) = Client::new(options, 100);
                for i in 0..count {
                    let sent = client.publish(topic, $qos(qos), false, i.to_string());
                    sent.expect("rumqttc takes a message");
                }
                let mut done = 0;
                while done < count {
                    let event = connection.recv().expect("rumqttc goes on");
                    match event.expect("rumqttc stays connected") {
                        Event::Outgoing(Outgoing::Publish(_)) if qos == 0 => done += 1,
                        Event::Incoming(Incoming::PubAck(_)) if qos == 1 => done += 1,
                        Event::Incoming(Incoming::PubComp(_)) if qos == 2 => done += 1,
                        _ => {}
                    }
                }
                client.disconnect().expect("rumqttc takes a DISCONNECT");
                while let Ok(Ok(_)) = connection.recv() {}
            }

            pub fn subscribe(
                addr: SocketAddr,
                qos: u8,
                topic: &str,
                count: usize,
                id: &str,
                clean: bool,
                lines: &Sender<String>,
            ) {
                let (client, mut connection) = Client::new(options(addr, id, clean), 100);
                client.subscribe(topic, $qos(qos)).expect("rumqttc takes a SUBSCRIBE");
                let mut ready = false;
                let mut done = 0;
                while !ready || done < count {
                    let event = connection.recv().expect("rumqttc goes on");
                    match event.expect("rumqttc stays connected") {
                        Event::Incoming(Incoming::SubAck(_)) => {
                            ready = true;
                            let _ = lines.send("ready".to_owned());
                        }
                        Event::Incoming(Incoming::Publish(publish)) => {
                            let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                            let retain = u8::from(publish.retain);
                            let line = format!("{} {retain} {payload}", publish.qos as u8);
                            let _ = lines.send(line);
                            done += usize::from(publish.qos as u8 == 0);
                        }
                        Event::Outgoing(Outgoing::PubAck(_) | Outgoing::PubComp(_)) => done += 1,
                        _ => {}
                    }
                }
                client.disconnect().expect("rumqttc takes a DISCONNECT");
                while let Ok(Ok(_)) = connection.recv() {}
            }
        }
    };
}

client!(
    v4,
    rumqttc,
    super::qos4,
    |options: &mut rumqttc::MqttOptions, clean| {
        options.set_clean_session(clean);
    }
);
client!(
    v5,
    rumqttc::v5,
    super::qos5,
    |options: &mut rumqttc::v5::MqttOptions, clean| {
        options.set_clean_start(clean);
        if !clean {
            options.set_session_expiry_interval(Some(3600));
        }
    }
);

fn qos4(value: u8) -> rumqttc::QoS {
    rumqttc::qos(value).expect("QoS 0, 1 or 2")
}

fn qos5(value: u8) -> rumqttc::v5::mqttbytes::QoS {
    rumqttc::v5::mqttbytes::qos(value).expect("QoS 0, 1 or 2")
}
