//! Numbers that are given out once: places in the order of messages, and keys of queues.

use crate::broker::model::record::{QueueKey, Seq};

/// The numbers that come next.
#[derive(Debug)]
pub struct Numbers {
    seq: u64,
    key: u64,
}

impl Numbers {
    /// Those of an empty store.
    pub fn new() -> Numbers {
        Numbers { seq: 1, key: 1 }
    }

    /// Goes on with these, which were never used.
    pub fn go_on(&mut self, seq: Seq, key: QueueKey) {
        self.seq = seq.0.max(1);
        self.key = key.0.max(1);
    }

    /// The place that the next message will have.
    pub fn next_seq(&self) -> Seq {
        Seq(self.seq)
    }

    /// Gives a message its place.
    pub fn take_seq(&mut self) -> Seq {
        let seq = self.next_seq();
        self.seq += 1;
        seq
    }

    /// Gives a queue its key.
    pub fn take_key(&mut self) -> QueueKey {
        let key = QueueKey(self.key);
        self.key += 1;
        key
    }
}
