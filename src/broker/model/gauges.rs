//! What is measured at a moment.

/// What is measured at a moment, rather than counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Clients connected.
    pub connected: u64,
    /// Sessions, connected or not.
    pub sessions: u64,
    /// Subscriptions, shared ones included.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Bytes of retained messages.
    pub retained_bytes: u64,
    /// Messages waiting in queues.
    pub queued: u64,
    /// Bytes of messages waiting in queues.
    pub queued_bytes: u64,
    /// Bytes of writes that are not durable yet.
    pub pending_write_bytes: u64,
}
