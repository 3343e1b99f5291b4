//! What is told to a person on stdout and stderr. One who has stopped reading (`tidegate check | true`)
//! is told no more, which is no reason for a command to fail, let alone to abort as `print!` would.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes this text to stdout.
pub fn out(text: impl Display) {
    let mut stdout = io::stdout().lock();
    let _ = write!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Writes this line to stderr.
pub fn err(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
