//! Problems of files that authentication needs.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::net::tls::TlsError;

/// A problem of a file that authentication needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    file: PathBuf,
    line: Option<usize>,
    what: String,
}

impl Problem {
    pub(super) fn new(file: &Path, line: Option<usize>, what: impl Into<String>) -> Problem {
        Problem {
            file: file.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl From<TlsError> for Problem {
    fn from(error: TlsError) -> Problem {
        Problem::new(&error.file, None, error.what)
    }
}

/// Writes file, line and error text.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.what)
    }
}
