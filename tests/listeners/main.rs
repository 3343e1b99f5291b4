//! Listeners over real sockets: TLS, WebSocket, Unix sockets, the PROXY protocol, what each
//! listener allows, access rules, and changing all of it while the broker runs.

mod acl;
mod authority;
mod browser;
mod clients;
mod offers;
mod reload;
mod rules;
mod tls;
mod websocket;
mod wire;

use std::process::Output;

use support::{Broker, tidegate};

/// A broker with these listeners, and a plain one.
fn broker(listeners: &str) -> Broker {
    Broker::with(listeners).expect("these tests are for Tidegate")
}

/// Runs the binary with these arguments to its end.
fn run(arguments: &[&str]) -> Output {
    tidegate(arguments)
        .output()
        .expect("the binary has been built")
}
