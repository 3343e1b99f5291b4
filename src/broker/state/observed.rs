//! What is remembered for an operator.

use crate::broker::state::notices::Notices;
use crate::broker::state::origins::Origins;
use crate::broker::state::sys::Sys;
use crate::clock::Now;

/// What is remembered for an operator.
#[derive(Debug)]
pub struct Observed {
    pub sys: Sys,
    /// What happened to clients and is still to be said.
    pub notices: Notices,
    /// The brokers that bridges have come from.
    pub origins: Origins,
}

impl Observed {
    /// Nothing yet.
    pub fn new(now: Now) -> Observed {
        Observed {
            sys: Sys::new(now),
            notices: Notices::default(),
            origins: Origins::default(),
        }
    }
}
