//! How much work the broker has done, and slices of it.
//!
//! The broker sees no clock. What it does is bounded by what it counts: packets, deliveries,
//! filters and groups visited, rows removed. A slice is over when so much of that has been done,
//! whatever it was.

/// All work since the start, in deliveries at QoS 0.
#[derive(Debug, Default)]
pub struct Pace {
    work: u64,
}

/// A part of a long piece of work; others have their turn before the next one.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    end: u64,
}

impl Pace {
    /// Counts work.
    #[inline]
    pub fn spend(&mut self, work: u64) {
        self.work += work;
    }

    /// All work since the start.
    pub fn spent(&self) -> u64 {
        self.work
    }

    /// Begins a slice: it is over when so much work has been done from now on.
    pub fn slice(&self, work: u64) -> Slice {
        Slice {
            end: self.work + work,
        }
    }

    /// Whether a slice is over.
    pub fn is_over(&self, slice: Slice) -> bool {
        self.work >= slice.end
    }

    /// How much work is left in a slice.
    pub fn left(&self, slice: Slice) -> u64 {
        slice.end.saturating_sub(self.work)
    }
}
