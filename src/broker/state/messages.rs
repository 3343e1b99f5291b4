//! Messages over all queues: their places in the order, who needs a body that is stored, and bodies to be read.

use rustc_hash::FxBuildHasher;

use crate::broker::model::fetch::Fetch;
use crate::broker::model::record::{QueueKey, Seq};
use crate::broker::state::table::Table;

/// What is known of all messages.
#[derive(Debug)]
pub struct Messages {
    next_seq: u64,
    next_key: u64,
    /// How many deliveries need a stored body, where it is more than one.
    shares: Table<Seq, u32, FxBuildHasher>,
    /// Bodies to be read from the store.
    pub fetches: Vec<Fetch>,
}

impl Default for Messages {
    fn default() -> Messages {
        Messages {
            next_seq: 1,
            next_key: 1,
            shares: Table::default(),
            fetches: Vec::new(),
        }
    }
}

impl Messages {
    /// Goes on with these numbers, which were never used.
    pub fn resume_at(&mut self, seq: Seq, key: QueueKey) {
        self.next_seq = seq.0.max(1);
        self.next_key = key.0.max(1);
    }

    /// The place that the next message will have.
    pub fn next_seq(&self) -> Seq {
        Seq(self.next_seq)
    }

    /// Gives a message its place.
    pub fn take_seq(&mut self) -> Seq {
        let seq = self.next_seq();
        self.next_seq += 1;
        seq
    }

    /// Gives a queue its key.
    pub fn take_key(&mut self) -> QueueKey {
        let key = QueueKey(self.next_key);
        self.next_key += 1;
        key
    }

    /// So many deliveries need the body of a message, which is about to be stored.
    pub fn store(&mut self, seq: Seq, deliveries: u32) {
        if deliveries > 1 {
            self.shares.insert(seq, deliveries);
        }
    }

    /// So many deliveries more need a body that one needs already.
    pub fn share(&mut self, seq: Seq, more: u32) {
        if more > 0 {
            *self.shares.part(&seq).entry(seq).or_insert(1) += more;
        }
    }

    /// One delivery less needs a body. Returns whether it was the last.
    pub fn release(&mut self, seq: Seq) -> bool {
        let shares = self.shares.part(&seq);
        match shares.get_mut(&seq) {
            Some(shares) if *shares > 2 => *shares -= 1,
            Some(_) => {
                shares.remove(&seq);
            }
            None => return true,
        }
        false
    }

    /// The bodies that several deliveries need, and how many.
    #[cfg(test)]
    pub fn shares(&self) -> impl Iterator<Item = (Seq, u32)> {
        self.shares.iter().map(|(seq, count)| (*seq, *count))
    }
}
