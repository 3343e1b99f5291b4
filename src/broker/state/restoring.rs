//! What is known of the rows of the store while they are read at a start.

use std::collections::VecDeque;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::broker::model::ids::Owner;
use crate::broker::model::record::{InflightRecord, QueueKey, Seq, SpreadRecord};

/// What recovery needs to know while it goes on.
#[derive(Debug, Default)]
pub struct Restoring {
    pub owners: HashMap<QueueKey, Owner, FxBuildHasher>,
    /// What blocks say of messages whose deliveries have not come yet.
    pub inflight: HashMap<(QueueKey, Seq), InflightRecord, FxBuildHasher>,
    /// Messages that are still to be given to sessions, in the order of their `Seq`.
    pub spreads: VecDeque<(Seq, u16, SpreadRecord)>,
    pub last_seq: Option<Seq>,
    pub messages: u64,
}

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
