//! What is known of the rows of the store while they are read at a start.

use std::collections::VecDeque;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::broker::model::ids::{Owner, SessionIndex};
use crate::broker::model::record::{Block, InflightRecord, QueueKey, Seq, SpreadRecord};

/// What recovery needs to know while it goes on.
#[derive(Debug, Default)]
pub struct Restoring {
    owners: HashMap<QueueKey, Owner, FxBuildHasher>,
    /// What blocks say of messages whose deliveries have not come yet.
    inflight: HashMap<(QueueKey, Seq), InflightRecord, FxBuildHasher>,
    /// Messages that are still to be given to sessions, in the order of their `Seq`.
    spreads: VecDeque<(Seq, u16, SpreadRecord)>,
    /// The message of the last delivery.
    last_seq: Option<Seq>,
    /// Deliveries so far.
    messages: u64,
}

impl Restoring {
    /// Notes whose the rows with a key are.
    pub fn add_owner(&mut self, key: QueueKey, owner: Owner) {
        self.owners.insert(key, owner);
    }

    /// Whose the rows with a key are.
    pub fn owner(&self, key: QueueKey) -> Option<Owner> {
        self.owners.get(&key).copied()
    }

    /// The session that owns a key.
    pub fn session(&self, key: QueueKey) -> Option<SessionIndex> {
        match self.owner(key) {
            Some(Owner::Session(index)) => Some(index),
            _ => None,
        }
    }

    /// Notes what a block says of a message whose delivery has not come yet.
    pub fn add_inflight(&mut self, key: QueueKey, record: InflightRecord) {
        self.inflight.insert((key, record.seq), record);
    }

    /// What a block says of a message.
    pub fn inflight(&self, key: QueueKey, seq: Seq) -> Option<InflightRecord> {
        self.inflight.get(&(key, seq)).copied()
    }

    /// Forgets what a block says of a message: the message has been found.
    pub fn found_inflight(&mut self, key: QueueKey, seq: Seq) {
        self.inflight.remove(&(key, seq));
    }

    /// Blocks that name a message which was not found, with their sessions.
    pub fn blocks_without_messages(&self) -> impl Iterator<Item = (SessionIndex, Block)> {
        self.inflight.iter().filter_map(|((key, _), record)| {
            let index = self.session(*key)?;
            Some((index, Block::of(record.packet_id)))
        })
    }

    /// Counts a delivery. Returns whether its message had another one before.
    pub fn count_delivery(&mut self, seq: Seq) -> bool {
        self.messages += 1;
        self.last_seq.replace(seq) == Some(seq)
    }

    /// How many deliveries there were.
    pub fn deliveries(&self) -> u64 {
        self.messages
    }

    /// Adds a part of the receivers of a message.
    pub fn add_spread(&mut self, seq: Seq, part: u16, record: SpreadRecord) {
        self.spreads.push_back((seq, part, record));
    }

    /// Takes the next part of the receivers of a message, if that is before this one.
    pub fn next_spread(&mut self, before: Option<Seq>) -> Option<(Seq, u16, SpreadRecord)> {
        let (seq, ..) = self.spreads.front()?;
        let is_due = before.is_none_or(|before| *seq < before);
        is_due.then(|| self.spreads.pop_front()).flatten()
    }

    /// Whether a message whose part was taken has no receiver: no part is left, and it had no delivery.
    pub fn is_without_receivers(&self, seq: Seq) -> bool {
        let next = self.spreads.front();
        next.is_none_or(|(next, ..)| *next != seq) && self.last_seq != Some(seq)
    }
}
