//! A real Mosquitto as the upstream. Where it is not installed this is left out with a line that says so; with `TIDEGATE_REQUIRE_CLIENTS=1` that is a
//! failure.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Connect, Message, PATIENCE, Version};

use super::LONG;
use super::proxy::Proxy;
use super::side::*;

struct Mosquitto {
    child: Child,
    addr: SocketAddr,
    dir: tempfile::TempDir,
}

impl Mosquitto {
    /// A Mosquitto that keeps sessions while it runs; `None` if it is not installed.
    fn start() -> Option<Mosquitto> {
        let program = ["/usr/sbin/mosquitto", "mosquitto"]
            .into_iter()
            .find(|program| Command::new(program).arg("-h").output().is_ok());
        let Some(program) = program else {
            println!("left out: mosquitto is not installed; apt-get install mosquitto");
            let require = std::env::var("TIDEGATE_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
            assert!(!require, "mosquitto is required and not installed");
            return None;
        };
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let addr = free.expect("a port is free");
        let dir = tempfile::TempDir::new().expect("a directory");
        let config = dir.path().join("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\nlog_type all\n\
             log_dest stderr\n",
            addr.port()
        );
        std::fs::write(&config, text).expect("written");
        let log = std::fs::File::create(dir.path().join("log")).expect("a file");
        let child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(addr).is_err() {
            assert!(Instant::now() < deadline, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Mosquitto { child, addr, dir })
    }

    /// Whether it has sent the bridge a message again whose PUBREL it had sent before, which 2.0.11 does if a connection breaks while it is resending.
    /// Its identifier has been given back by then, so nobody can tell the message from a new one [MQTT-4.3.3-6]. No identifier is used twice here.
    fn has_sent_what_it_had_released(&self) -> bool {
        let log = std::fs::read_to_string(self.dir.path().join("log")).expect("a log");
        let mut released = BTreeSet::new();
        log.lines().any(|line| {
            let identifier = |line: &str| {
                let (_, rest) = line.split_once('m')?;
                let end = rest.find(|c: char| !c.is_ascii_digit())?;
                rest[..end].parse::<u16>().ok()
            };
            if let Some((_, rest)) = line.split_once("Sending PUBREL to edge1 (") {
                released.extend(identifier(rest));
            }
            let again = line.split_once("Sending PUBLISH to edge1 (d1, q2, ");
            let again = again.and_then(|(_, rest)| identifier(rest));
            again.is_some_and(|identifier| released.contains(&identifier))
        })
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log"));
            println!("--- mosquitto's log ---\n{}", log.unwrap_or_default());
        }
    }
}

fn exactly_once_with_cuts_and_kills(version: &str) {
    let Some(mosquitto) = Mosquitto::start() else {
        return;
    };
    let proxy = Proxy::to(mosquitto.addr);
    let more = format!("protocol_version = \"{version}\"");
    let mut edge = edge(proxy.addr(), &more);
    wait_for_state(edge.addr(), "connected");
    expect_at(mosquitto.addr, Version::V5, "consumer", "site/up/#");
    expect_at(edge.addr(), Version::V5, "consumer", "down/#");
    for round in 0..12 {
        let numbers = round * 20..round * 20 + 20;
        publish(edge.addr(), "up/a", 2, numbers.clone());
        publish(mosquitto.addr, "site/down/a", 2, numbers);
        match round % 3 {
            0 => proxy.cut(),
            1 => edge.crash(),
            _ => proxy.set_budget(Some(100 + 97 * round as u64)),
        }
    }
    proxy.set_budget(None);
    proxy.cut();
    let up = collect(
        mosquitto.addr,
        Version::V5,
        "consumer",
        "site/up/a",
        240,
        LONG,
    );
    let down = collect(edge.addr(), Version::V5, "consumer", "down/a", 240, LONG);
    assert_exactly_once(&up, 240, "to Mosquitto");
    if mosquitto.has_sent_what_it_had_released() {
        println!(
            "this Mosquitto sends again what it has released: what comes from it may come twice"
        );
        assert_at_least_once(&down, 240, "from Mosquitto");
    } else {
        assert_exactly_once(&down, 240, "from Mosquitto");
    }
}

#[test]
fn mqtt_5() {
    exactly_once_with_cuts_and_kills("5");
}

#[test]
fn mqtt_3_1_1() {
    exactly_once_with_cuts_and_kills("3.1.1");
}

#[test]
fn the_bridge_bit_keeps_retain_flags_and_sends_nothing_back() {
    let Some(mosquitto) = Mosquitto::start() else {
        return;
    };
    let config = format!(
        "[[bridges]]\nname = \"cloud\"\naddress = \"{}\"\nremote_clientid = \"edge1\"\nprotocol_version = \"3.1.1\"\n\
         [[bridges.topics]]\npattern = \"#\"\ndirection = \"both\"\n",
        mosquitto.addr
    );
    let edge = cloud(&config);
    wait_for_state(edge.addr(), "connected");
    let mut here = Connect::new(Version::V5, "here").open(edge.addr());
    here.subscribe_with(&support::Subscription::new("t/#", 2).retain_as_published());
    let mut there = Connect::new(Version::V5, "there").open(mosquitto.addr);
    there.subscribe("t/#", 2);
    here.publish(&Message::new("t/1", "x", 1));
    here.expect("t/1", "x", 1);
    there.expect("t/1", "x", 1);
    there.publish(&Message::new("t/2", "y", 1).retained());
    assert!(here.expect("t/2", "y", 1).retain);
    there.expect("t/2", "y", 1);
    std::thread::sleep(Duration::from_millis(200));
    here.expect_nothing();
    there.expect_nothing();
}
