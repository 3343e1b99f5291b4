//! How a bridge stands with one of its addresses.

/// What is known of an address of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not been tried.
    Unknown,
    /// The bridge is connected to it.
    Connected,
    /// It answered when it was tried last.
    Reachable,
    /// It did not, and why.
    Unreachable(String),
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Standing::Unknown => f.write_str("unknown"),
            Standing::Connected => f.write_str("connected"),
            Standing::Reachable => f.write_str("reachable"),
            Standing::Unreachable(why) => write!(f, "unreachable: {why}"),
        }
    }
}
