//! The password of a bridge at its upstream or proxy.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A password. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// The password itself.
    Inline(String),
    /// A file whose first line is the password. It is read at each attempt.
    File(PathBuf),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::Inline(_) => f.write_str("Inline(..)"),
            Password::File(path) => write!(f, "File({path:?})"),
        }
    }
}

impl Password {
    /// Returns the password.
    ///
    /// # Errors
    /// The file cannot be read. The error names it.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Password::Inline(password) => Ok(password.clone().into_bytes()),
            Password::File(path) => {
                let named =
                    |error: io::Error| io::Error::new(error.kind(), format!("{path:?}: {error}"));
                let bytes = std::fs::read(path).map_err(named)?;
                let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                Ok(bytes[..end.unwrap_or(bytes.len())].to_vec())
            }
        }
    }
}
