//! Work that is done in slices, and how far it has come.

use crate::broker::state::removals::{PendingEnds, Removals};
use crate::broker::state::restoring::Restoring;
use crate::broker::state::spreads::Spreads;
use crate::broker::state::waiting::Waiting;
use crate::broker::state::walks::Walks;

/// Work that is done in slices.
#[derive(Debug)]
pub struct Upkeep {
    /// Who waits for the disk.
    pub waiting: Waiting,
    /// Messages for very many receivers.
    pub spreads: Spreads,
    /// What is left of ended sessions and groups.
    pub removals: Removals,
    /// Sessions that have ended and whose rows a crash might bring back.
    pub pending_ends: PendingEnds,
    /// Walks over all sessions or connections.
    pub walks: Walks,
    /// Where looking for expired messages goes on: a place among sessions and groups, and one in
    /// its queue.
    pub sweep: (u32, usize),
    /// Rows that were read at the start and wait for others.
    pub restoring: Restoring,
}

impl Upkeep {
    /// Nothing to do yet; `seed` keeps clients from choosing identifiers that collide.
    pub fn new(seed: u64) -> Upkeep {
        Upkeep {
            waiting: Waiting::default(),
            spreads: Spreads::default(),
            removals: Removals::default(),
            pending_ends: PendingEnds::new(seed),
            walks: Walks::default(),
            sweep: (0, 0),
            restoring: Restoring::default(),
        }
    }
}
