//! Where an upstream or a proxy is.

use std::fmt;

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name, which is resolved at each attempt, or an address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
