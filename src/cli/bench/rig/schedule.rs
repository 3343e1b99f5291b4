//! When messages are due that go out at a rate.

/// A fixed rate in all, shared out evenly.
#[derive(Debug)]
pub struct Schedule {
    pub start: u64,
    pub period_ns: f64,
    /// Messages that were due so far.
    pub due: u64,
}
