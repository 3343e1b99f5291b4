//! What a process does that has fewer descriptors than it may have clients.

use std::net::TcpStream;

use support::{Connect, Version, wait_until};

use super::within;

#[test]
fn the_soft_limit_is_raised_and_what_is_possible_is_said() {
    let broker = within("", "ulimit -Sn 40; ulimit -Hn 600; exec \"$@\"");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.pid()));
    let limits = limits.expect("it runs");
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().nth(3));
    assert_eq!(soft, Some("600"), "{limits}");
    let log = broker.log();
    assert!(log.contains("at most 472 connections"), "{log}");
}

#[test]
fn clients_beyond_what_descriptors_allow_are_closed_and_the_listener_goes_on() {
    let config = "[limits]\nmax_connections = 5000\n";
    let broker = within(config, "ulimit -n 80; exec \"$@\"");
    let log = broker.log();
    let warned = "WARN";
    assert!(
        log.contains(warned) && log.contains("not max_connections = 5000"),
        "{log}"
    );
    let connect = |id: &str| Connect::new(Version::V311, id).open(broker.addr());
    let mut first = connect("first");
    let others: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(broker.addr()).expect("the broker listens"))
        .collect();
    first.ping();
    wait_until("refusals are logged", || {
        broker.log().contains("max_connections is reached")
    });
    drop(others);
    wait_until("others come in again", || {
        let log = broker.log();
        let at = log.len();
        drop(TcpStream::connect(broker.addr()));
        broker.log().len() == at
    });
    connect("later").ping();
    let told = broker.log().matches("connection refused").count();
    assert!((1..=61).contains(&told), "{told} lines for 300 connections");
}
