//! Bridges that come, change and go while the broker runs, and the queues that are left.

use std::net::SocketAddr;
use std::path::Path;

use support::{Broker, Version, tidegate, wait_until};

use super::LONG;
use super::proxy::{Mode, Proxy};
use super::side::*;

/// A bridge by this name, from `NAME/#` here to `site/NAME/#` there.
fn bridge(name: &str, address: SocketAddr, more: &str) -> String {
    format!(
        "[[bridges]]\nname = \"{name}\"\naddress = \"{address}\"\nremote_clientid = \"edge-{name}\"\n\
         restart_timeout_base = \"20ms\"\nrestart_timeout_cap = \"200ms\"\n{more}\n\
         [[bridges.topics]]\npattern = \"{name}/#\"\nremote_prefix = \"site/\"\n"
    )
}

/// Runs the program, which must end with this code; what it told.
fn run(command: &[&str], config: &Path, code: i32) -> String {
    let mut program = tidegate(command);
    let output = program.arg("--config").arg(config).output();
    let output = output.expect("the program has been built");
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8(told).expect("text");
    assert_eq!(output.status.code(), Some(code), "{told}");
    told
}

fn reload(broker: &mut Broker, config: &str, code: i32) -> String {
    broker.configure(config);
    run(&["reload"], &broker.config_file(), code)
}

#[test]
fn bridges_come_change_and_go_and_the_others_stay_connected() {
    let cloud = cloud("");
    let steady_way = Proxy::to(cloud.addr());
    let steady = bridge("steady", steady_way.addr(), "");
    let mut edge = super::side::cloud(&steady);
    wait_until("it is connected", || steady_way.accepted() == 1);
    expect_at(cloud.addr(), Version::V5, "consumer", "site/moving/#");
    let collect = |count| {
        collect(
            cloud.addr(),
            Version::V5,
            "consumer",
            "site/moving/a",
            count,
            LONG,
        )
    };

    let (one, two) = (Proxy::to(cloud.addr()), Proxy::to(cloud.addr()));
    // It comes.
    let come = steady.clone() + &bridge("moving", one.addr(), "");
    let told = reload(&mut edge, &come, 0);
    assert_eq!(told, "bridge moving: started\n");
    publish(edge.addr(), "moving/a", 2, 0..50);
    assert_exactly_once(&collect(50), 50, "over a bridge that came");
    // Nothing has changed.
    assert_eq!(reload(&mut edge, &come, 0), "nothing has changed\n");
    // It changes, with a message under way for whose acknowledgement nobody listens.
    one.set_mode(Mode::BlackHole);
    publish(edge.addr(), "moving/a", 2, 0..20);
    let changed = steady.clone() + &bridge("moving", two.addr(), "keepalive_interval = \"7s\"");
    let told = reload(&mut edge, &changed, 0);
    assert_eq!(told, "bridge moving: changed; connects again\n");
    publish(edge.addr(), "moving/a", 2, 20..40);
    assert_exactly_once(&collect(40), 40, "over a bridge that changed");
    // It goes, and nothing waits for it any more.
    two.set_mode(Mode::Refused);
    publish(edge.addr(), "moving/a", 1, 0..3);
    let told = reload(&mut edge, &steady, 0);
    assert!(
        told.starts_with("bridge moving: stopped; 3 messages wait"),
        "{told}"
    );
    publish(edge.addr(), "moving/a", 1, 3..6);
    // It comes again, with what has waited.
    two.set_mode(Mode::Pass);
    reload(&mut edge, &changed, 0);
    assert_exactly_once(&collect(3), 3, "what was left");
    assert_eq!(steady_way.accepted(), 1, "the other one was left alone");
}

#[test]
fn what_cannot_be_read_changes_no_bridge() {
    let cloud = cloud("");
    let proxy = Proxy::to(cloud.addr());
    let good = bridge("cloud", proxy.addr(), "");
    let mut edge = super::side::cloud(&good);
    wait_for_state(edge.addr(), "connected");
    for (more, needle) in [
        (
            "remote_username = \"u\"\nremote_password_file = \"/nowhere/p\"",
            "/nowhere/p",
        ),
        (
            "protocol = \"mqtts\"\ncafile = \"/nowhere/ca\"",
            "/nowhere/ca",
        ),
    ] {
        let told = reload(&mut edge, &bridge("cloud", proxy.addr(), more), 2);
        assert!(
            told.contains("nothing took effect") && told.contains(needle),
            "{told}"
        );
    }
    assert_eq!(proxy.accepted(), 1, "it was left alone");
}

#[test]
fn the_queue_of_a_bridge_that_is_gone_is_named_until_it_is_dropped() {
    let cloud = cloud("");
    let proxy = Proxy::to(cloud.addr());
    proxy.set_mode(Mode::Refused);
    let config = bridge("gone", proxy.addr(), "");
    let mut edge = super::side::cloud(&config);
    publish(edge.addr(), "gone/a", 1, 0..5);
    let file = edge.config_file();
    let told = run(&["drop-bridge", "gone"], &file, 2);
    assert!(told.contains("\"gone\" is configured"), "{told}");
    reload(&mut edge, "", 0);
    let named = |edge: &Broker| edge.log().matches("is not configured any more").count();
    for start in 1..=2 {
        edge.crash();
        wait_until("it is named", || named(&edge) == start);
    }
    let told = run(&["drop-bridge", "other"], &file, 2);
    assert!(
        told.contains("expected one of \"gone\" (5 messages)"),
        "{told}"
    );
    let told = run(&["drop-bridge", "no name"], &file, 2);
    assert!(told.contains("letters, digits"), "{told}");
    let told = run(&["drop-bridge", "gone"], &file, 0);
    assert!(
        told.contains("gone and its 5 messages were dropped"),
        "{told}"
    );
    edge.crash();
    let told = run(&["drop-bridge", "gone"], &file, 2);
    assert!(told.contains("nor by any other"), "{told}");
    assert_eq!(named(&edge), 2);
    edge.kill();
    let told = run(&["drop-bridge", "gone"], &file, 1);
    assert!(told.contains("no broker answers"), "{told}");
}
