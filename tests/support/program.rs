//! The built program beside the broker's harness, other people's programs, and waiting for them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::broker::binary;

/// The built binary with these arguments and nothing to read. What the tests are told by the environment is not for it.
pub fn tidegate(arguments: &[&str]) -> Command {
    let mut command = without_tidegate(Command::new(binary()));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A command without the environment variables that say something to the broker or to the tests.
pub(crate) fn without_tidegate(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Whether somebody else's program was found: without it a test is left out, with a line that says so; with `TIDEGATE_REQUIRE_CLIENTS=1` that is a
/// failure.
pub fn is_there(name: &str, advice: &str, found: bool) -> bool {
    if !found {
        println!("left out: {name} is not installed; {advice}");
        let require = std::env::var("TIDEGATE_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
        assert!(!require, "{name} is required and not installed; {advice}");
    }
    found
}

/// A number that an environment variable says, or else this one.
pub fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => default,
    }
}

/// Looks until it is so.
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
