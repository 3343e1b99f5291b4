//! How much work the broker has done: what a visit costs, and when a slice is over.

/// The measure of work.
#[derive(Debug, Default)]
pub struct Pace {
    /// What was done since the start, in deliveries at QoS 0.
    pub work: u64,
}
