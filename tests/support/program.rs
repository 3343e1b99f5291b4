//! Runs the built program and programs of others, and waits for them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::TIMEOUT;
use crate::broker::binary;

/// Builds a command that runs the binary with these arguments, with empty standard input and
/// without the environment variables of the tests.
pub fn tidegate(arguments: &[&str]) -> Command {
    let mut command = without_tidegate(Command::new(binary()));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Removes the environment variables that configure the broker or the tests.
pub(crate) fn without_tidegate(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Returns whether another program was found. If not, the test is skipped with a line that says so;
/// with `TIDEGATE_REQUIRE_CLIENTS=1` it fails.
pub fn is_installed(name: &str, advice: &str, found: bool) -> bool {
    if !found {
        println!("left out: {name} is not installed; {advice}");
        let require = std::env::var("TIDEGATE_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
        assert!(!require, "{name} is required and not installed; {advice}");
    }
    found
}

/// Returns the number in an environment variable, or the default.
pub fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => default,
    }
}

/// Polls until the condition is true.
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
