//! What went through a connection.

/// What went through a connection, for the log.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// What the operating system said when it was lost.
    pub error: Option<Box<str>>,
}
