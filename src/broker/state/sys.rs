//! What the `$SYS` topics need to remember.

use crate::clock::Now;

/// What the `$SYS` topics need to remember.
#[derive(Debug)]
pub struct Sys {
    pub started: u64,
}

impl Sys {
    pub fn new(now: Now) -> Sys {
        Sys {
            started: now.uptime,
        }
    }
}
