//! What a process does that has fewer descriptors than it may have clients.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use support::{Connect, TIMEOUT, Version, wait_until};

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
    broker.expect_log("at most 472 connections");
}

#[test]
fn clients_beyond_what_descriptors_allow_are_closed_and_the_listener_goes_on() {
    let config = "[limits]\nmax_connections = 5000\n";
    let broker = within(config, "ulimit -n 80; exec \"$@\"");
    broker.expect_log("not max_connections = 5000");
    assert!(broker.log().contains("WARN"), "{}", broker.log());
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
    // The broker notices one after the other that they have gone.
    let later = Connect::new(Version::V311, "later").bytes();
    wait_until("others come in again", || {
        let mut stream = TcpStream::connect(broker.addr()).expect("the broker listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("set");
        let mut answer = [0; 4];
        let answered = stream
            .write_all(&later)
            .and_then(|()| stream.read_exact(&mut answer));
        answered.is_ok() && answer[0] == 0x20
    });
    first.ping();
    let told = broker.log().matches("connection refused").count();
    // A minute may have ended in between.
    assert!(
        (1..=121).contains(&told),
        "{told} lines for 300 connections"
    );
}

#[test]
fn a_listener_without_a_descriptor_says_so_once_and_goes_on_when_there_is_one() {
    let broker = within("", "exec \"$@\"");
    let limit = |most: &str| {
        let pid = broker.pid().to_string();
        let set = Command::new("prlimit")
            .args(["--pid", &pid, &format!("--nofile={most}:")])
            .status();
        assert!(set.expect("there is prlimit").success());
    };
    let mut before = Connect::new(Version::V311, "before").open(broker.addr());
    limit("3");
    let waiting = Connect::new(Version::V311, "waiting").bytes();
    let mut stream = TcpStream::connect(broker.addr()).expect("the backlog takes it");
    stream.set_read_timeout(Some(TIMEOUT)).expect("set");
    stream.write_all(&waiting).expect("written");
    let told = || broker.log().matches("cannot accept a connection").count();
    wait_until("the log says so", || told() > 0);
    // Many attempts more.
    for _ in 0..100 {
        before.ping();
    }
    limit("1000");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("it comes in");
    assert_eq!(answer[0], 0x20);
    assert_eq!(told(), 1, "{}", broker.log());
}
