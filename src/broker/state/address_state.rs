//! How a bridge stands with one of its addresses.

/// What is known of an address of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressState {
    /// It has not been tried.
    Unknown,
    /// The bridge is connected to it.
    Connected,
    /// It answered when it was tried last.
    Reachable,
    /// It did not, and why.
    Unreachable(String),
}

impl std::fmt::Display for AddressState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AddressState::Unknown => f.write_str("unknown"),
            AddressState::Connected => f.write_str("connected"),
            AddressState::Reachable => f.write_str("reachable"),
            AddressState::Unreachable(why) => write!(f, "unreachable: {why}"),
        }
    }
}
