//! Listeners over real sockets: TLS, WebSocket, Unix sockets, the PROXY protocol, what each listener allows, access rules, and changing all of it while the broker runs.

mod acl;
mod authority;
mod clients;
mod reload;
mod rules;
mod tls;
mod websocket;
mod wire;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{Broker, PATIENCE};

/// A broker with these listeners, and a plain one.
fn broker(listeners: &str) -> Broker {
    Broker::with(listeners).expect("these tests are for Tidegate")
}

/// The built binary.
fn tidegate() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_tidegate")).to_owned()
}

/// Runs the binary with these arguments to its end.
fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(tidegate());
    // What the tests are told by the environment is not for the program.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary has been built")
}

/// Looks until it is so.
fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
