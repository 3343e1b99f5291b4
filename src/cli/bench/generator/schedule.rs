//! The schedule of messages at a fixed rate.

/// A fixed total rate, divided evenly among the publishers.
#[derive(Debug)]
pub struct Schedule {
    pub start: u64,
    pub period_ns: f64,
    /// Number of messages due so far.
    pub due: u64,
}
