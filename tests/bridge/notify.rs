//! Notifications: each side sees the other's bridge come and go, Mosquitto's and ours.

use support::{Broker, Client, Connect, Version, wait_until};

use super::mosquitto::mosquitto;
use super::side::{cloud, edge, wait_for_state};

const TOPIC: &str = "$SYS/broker/connection/edge1/state";

/// A client that has been shown the state of the bridge `edge1`.
fn watcher(at: &Broker) -> Client {
    let mut client = Connect::new(Version::V5, "").open(at.addr());
    client.subscribe(TOPIC, 1);
    client
}

/// Waits until the state is told to be this.
fn await_state(watcher: &mut Client, state: &str) {
    loop {
        if watcher.take().payload == state.as_bytes() {
            return;
        }
    }
}

fn both_ends_are_told(upstream: &Broker) {
    for version in ["5", "3.1.1"] {
        let more = format!("notifications = true\nprotocol_version = \"{version}\"");
        let mut edge = edge(upstream.addr(), &more);
        wait_for_state(edge.addr(), "connected");
        let mut seen = watcher(upstream);
        await_state(&mut seen, "1");
        // What is retained is there for those who come later.
        await_state(&mut watcher(upstream), "1");
        edge.kill();
        await_state(&mut seen, "0");
        edge.start_again();
        await_state(&mut seen, "1");
        edge.stop();
        await_state(&mut seen, "0");
        await_state(&mut watcher(upstream), "0");
    }
}

#[test]
fn an_upstream_sees_a_site_go_and_come() {
    both_ends_are_told(&cloud(""));
}

#[test]
fn mosquitto_sees_a_site_go_and_come() {
    if let Some(mosquitto) = mosquitto() {
        both_ends_are_told(&mosquitto);
    }
}

#[test]
fn a_bridge_of_mosquitto_is_seen_here() {
    let cloud = cloud("");
    for version in ["mqttv50", "mqttv311"] {
        let config = format!(
            "allow_anonymous true\nconnection site\naddress {}\nremote_clientid edge1\nbridge_protocol_version {version}\n\
             notifications true\nrestart_timeout 1\ntopic up/# out 1\n",
            cloud.addr()
        );
        let Some(mut site) = Broker::mosquitto(&config) else {
            return;
        };
        let mut seen = watcher(&cloud);
        await_state(&mut seen, "1");
        site.kill();
        await_state(&mut seen, "0");
    }
    wait_until("nothing is refused", || !cloud.log().contains("is refused"));
}
