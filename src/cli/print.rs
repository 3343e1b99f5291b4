//! Prints to stdout and stderr. Write errors are ignored: if the reader is gone, as in
//! `tidegate check | true`, a command must not fail, nor abort as `print!` would.

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
