//! The built program as a process: its log, its environment, its signals, its descriptors, what it
//! tells over HTTP, and what its commands do to a terminal.

mod descriptors;
mod ends;
mod environment;
mod figures;
mod log;
mod signals;
mod terminal;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use support::{Broker, TIMEOUT};

/// A broker with these lines in its configuration, started by this script.
fn within(config: &str, shell: &str) -> Broker {
    Broker::with_shell(config, shell).expect("these tests are for Tidegate")
}

/// An address of this machine at which nobody listens.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound")
}

/// What is answered to a GET of this path, head and body.
fn get(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).expect("somebody listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("set");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    )
    .expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// A line of the figures, if it is there.
fn figure(at: SocketAddr, name: &str) -> Option<f64> {
    let text = get(at, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(|value| value.trim().parse().expect("a number"))
}
