//! Where it is told whether a bridge is connected.

/// Where it is told whether a bridge is connected: "1" or "0", retained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notifications {
    /// The topic, at this broker and at the upstream.
    pub topic: Box<str>,
    /// At this broker only.
    pub local_only: bool,
}
