//! What recovery has found.

/// What recovery has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Sessions, those included that had ended meanwhile.
    pub sessions: usize,
    /// Messages in queues and on their way, one for each session that waits for it.
    pub messages: u64,
    /// Retained messages.
    pub retained: usize,
}
