//! A rule for both directions and retained values, with a real Mosquitto: what is newer wins,
//! whatever happened to the link in between.

use std::net::SocketAddr;
use std::time::Duration;

use support::{Connect, Message, Version, wait_until};

use super::mosquitto::mosquitto;
use super::proxy::{Mode, Proxy};
use super::side::*;

/// What is retained; empty if nothing is.
fn retained_at(addr: SocketAddr, topic: &str) -> String {
    let mut client = Connect::new(Version::V5, "").open(addr);
    client.subscribe(topic, 1);
    match client.try_receive(Duration::from_secs(1)) {
        Ok(Some(support::Packet::Publish(publish))) => {
            String::from_utf8_lossy(&publish.payload).into_owned()
        }
        _ => String::new(),
    }
}

fn retain(addr: SocketAddr, topic: &str, payload: &str) {
    let mut client = Connect::new(Version::V5, "").open(addr);
    client.publish(&Message::new(topic, payload, 1).retained());
}

#[test]
fn an_old_value_of_the_upstream_does_not_come_back() {
    for version in ["5", "3.1.1"] {
        for (restarts, loses_session) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let Some(mosquitto) = mosquitto() else { return };
            let proxy = Proxy::to(mosquitto.addr());
            let config = format!(
                "[[bridges]]\nname = \"cloud\"\naddress = \"{}\"\nremote_clientid = \"edge1\"\nprotocol_version = \"{version}\"\n\
                 restart_timeout_base = \"20ms\"\nrestart_timeout_cap = \"200ms\"\n[[bridges.topics]]\npattern = \"r/#\"\ndirection = \"both\"\nqos = 1\n",
                proxy.addr()
            );
            let mut edge = cloud(&config);
            wait_for_state(edge.addr(), "connected");
            retain(edge.addr(), "r/a", "old");
            wait_until("the first value is there", || {
                retained_at(mosquitto.addr(), "r/a") == "old"
            });
            proxy.set_mode(Mode::Refused);
            proxy.drop_connections();
            wait_for_state(edge.addr(), "disconnected");
            retain(edge.addr(), "r/a", "new");
            // What is newer at the upstream comes here.
            retain(mosquitto.addr(), "r/b", "there");
            if restarts {
                edge.crash();
            }
            if loses_session {
                let mut thief = Connect::new(Version::V5, "edge1")
                    .clean(true)
                    .open(mosquitto.addr());
                thief.ping();
                thief.disconnect();
            }
            proxy.set_mode(Mode::Pass);
            wait_for_state(edge.addr(), "connected");
            let what =
                format!("version {version}, restarts {restarts}, session lost {loses_session}");
            wait_until(&what, || {
                retained_at(mosquitto.addr(), "r/a") == "new"
                    && retained_at(edge.addr(), "r/b") == "there"
            });
            // Nothing comes back later either.
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(retained_at(edge.addr(), "r/a"), "new", "{what}");
            assert_eq!(retained_at(mosquitto.addr(), "r/a"), "new", "{what}");
        }
    }
}
