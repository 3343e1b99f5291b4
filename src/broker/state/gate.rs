//! The gate: how an acknowledgement comes to mean "on disk".
//!
//! Writes join the open batch. The committer takes it whole, and reports it written and then durable. A packet
//! that promises or reveals a write carries the [`Stamp`] of its batch. It stays in its connection's
//! [`Outbox`](super::outbox::Outbox) until the stamp has passed.

use crate::broker::model::record::{Batch, BatchId, Durability, Seq, Write};

/// How long writes that nobody waits for are gathered before they are committed, in milliseconds.
const LAZY_MS: u64 = 100;

/// The same for removals only. At one message a second they go with the next message, so flash memory wears half
/// as fast. What was acknowledged meanwhile may be sent once more after a crash.
const REMOVALS_MS: u64 = 5_000;

/// How many writes may wait before they are committed on their own.
const LAZY_WRITES: usize = 4096;

/// The part of `max_pending_write_bytes` that may wait before it is committed on its own.
const LAZY_PART: usize = 4;

/// What a write weighs beside the body that it carries, in bytes. An estimate.
pub const WRITE_WEIGHT: usize = 96;

/// What each receiver weighs in the row of a spread, in bytes.
const SPREAD_WEIGHT: usize = 9;

/// The durability of facts about sessions and packet identifiers, whatever the topic of the message. A later message
/// may have another level and the same identifier. Below fsync, a power cut could bring an earlier state of the
/// session back.
pub const SESSION: Durability = Durability::Fsync;

/// A point in the order of commits. Batch `n` is written at `2n` and durable at `2n + 1`. The committer finishes one
/// batch before it begins the next, so all points are in one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

impl Stamp {
    /// Waits for nothing.
    pub const NONE: Stamp = Stamp(0);

    fn of(batch: BatchId, level: Durability) -> Stamp {
        match level {
            Durability::Memory => Stamp::NONE,
            Durability::Os => Stamp(2 * batch.0),
            Durability::Fsync => Stamp(2 * batch.0 + 1),
        }
    }
}

/// Kinds of packets that wait for the disk, by what they promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrow {
    /// The message of a client is kept (QoS 1).
    PubAck,
    /// The message of a client and its packet identifier are kept (QoS 2).
    PubRec,
    /// It is kept that the client has the message.
    PubRel,
    /// It is kept that the client has released the message.
    PubComp,
    /// The packet identifier of a QoS 2 delivery is kept.
    Publish,
    /// The subscriptions of a durable session are kept, or kept no more.
    SubAck,
    /// The session is kept, and its will.
    ConnAck,
}

/// The open batch, and how far the disk has come.
#[derive(Debug)]
pub struct Gate {
    open: Batch,
    open_bytes: usize,
    open_last_seq: Seq,
    urgent: bool,
    /// There are only removals in it.
    #[cfg(test)]
    only_removals: bool,
    /// Packets of this kind leave before what they promise is on disk: the simulator shows that it finds out.
    #[cfg(test)]
    pub open_arrow: Option<Arrow>,
    lazy_deadline: Option<u64>,
    lazy_bytes: usize,
    committing: Option<Committing>,
    passed: Stamp,
    durable_seq: Seq,
}

#[derive(Debug)]
struct Committing {
    id: BatchId,
    bytes: usize,
    last_seq: Seq,
}

impl Gate {
    /// Nothing to write. `most_bytes` is how much may wait before nothing more is read.
    pub fn new(most_bytes: usize) -> Gate {
        Gate {
            open: Batch {
                id: BatchId(1),
                writes: Vec::new(),
            },
            open_bytes: 0,
            open_last_seq: Seq(0),
            urgent: false,
            #[cfg(test)]
            only_removals: true,
            #[cfg(test)]
            open_arrow: None,
            lazy_deadline: None,
            lazy_bytes: most_bytes / LAZY_PART,
            committing: None,
            passed: Stamp::NONE,
            durable_seq: Seq(0),
        }
    }

    /// Checks that batches, stamps and places in the order follow one another.
    pub fn check(&self) {
        let committing = self.committing.as_ref();
        let open = Stamp::of(self.open.id, Durability::Os);
        assert!(self.passed < open, "the open batch has passed");
        assert!(
            committing.is_none_or(|it| it.id < self.open.id && it.last_seq >= self.durable_seq),
            "batch {:?} commits while {:?} is open",
            committing,
            self.open.id
        );
        assert!(
            self.open.writes.is_empty() == (self.open_bytes == 0),
            "{} writes of {} bytes",
            self.open.writes.len(),
            self.open_bytes
        );
    }

    /// How much may wait before nothing more is read.
    pub fn set_most_bytes(&mut self, most_bytes: usize) {
        self.lazy_bytes = most_bytes / LAZY_PART;
    }

    /// Adds a write to the open batch. Nobody waits for it yet: it commits with the next batch, or alone after a
    /// while.
    pub fn write(&mut self, write: Write, uptime: u64) {
        self.open_bytes += WRITE_WEIGHT;
        match &write {
            Write::PutMessage(id, message) => {
                self.open_bytes += message.size() as usize;
                self.open_last_seq = self.open_last_seq.max(Seq(id.0));
            }
            Write::PutSpread(_, _, spread) => {
                self.open_bytes += spread.receivers.len() * SPREAD_WEIGHT;
            }
            Write::PutMessageId(seq, _) => self.open_last_seq = self.open_last_seq.max(*seq),
            _ => {}
        }
        if is_removal(&write) {
            self.expect(uptime + REMOVALS_MS);
        } else {
            self.expect(uptime + LAZY_MS);
            #[cfg(test)]
            {
                self.only_removals = false;
            }
        }
        self.open.writes.push(write);
    }

    /// Expects removals that are written when the open batch is taken. Nobody waits for them.
    pub fn expect_removal(&mut self, uptime: u64) {
        self.expect(uptime + REMOVALS_MS);
    }

    /// Has the open batch committed at this time, if not before.
    fn expect(&mut self, at: u64) {
        let sooner = self.lazy_deadline.map_or(at, |deadline| deadline.min(at));
        self.lazy_deadline = Some(sooner);
    }

    /// The stamp of the open batch, for a packet that waits for what was just written. The batch commits as soon as
    /// the disk is free.
    pub fn require(&mut self, level: Durability) -> Stamp {
        self.urgent |= level != Durability::Memory;
        Stamp::of(self.open.id, level)
    }

    /// The stamp of the batch that is being committed. [`Stamp::NONE`] if there is none.
    pub fn stamp_of_committing(&self, level: Durability) -> Stamp {
        let committing = self.committing.as_ref();
        committing.map_or(Stamp::NONE, |batch| Stamp::of(batch.id, level))
    }

    /// The stamp for a packet that reveals a stored message. [`Stamp::NONE`] if its body is durable.
    pub fn stamp_of(&self, seq: Seq, level: Durability) -> Stamp {
        if seq <= self.durable_seq {
            return Stamp::NONE;
        }
        match &self.committing {
            Some(committing) if seq <= committing.last_seq => Stamp::of(committing.id, level),
            _ => Stamp::of(self.open.id, level),
        }
    }

    /// Whether the body of a stored message can be read from the store.
    pub fn is_durable(&self, seq: Seq) -> bool {
        seq <= self.durable_seq
    }

    /// Whether a packet with this stamp may leave.
    pub fn is_open(&self, stamp: Stamp) -> bool {
        stamp <= self.passed
    }

    /// Takes the open batch if it should be committed now. The batch taken before must be durable.
    pub fn take_batch(&mut self, uptime: u64) -> Option<Batch> {
        if !self.wants_commit(uptime) {
            return None;
        }
        debug_assert!(self.committing.is_none(), "one batch commits at a time");
        let next = Batch {
            id: BatchId(self.open.id.0 + 1),
            writes: Vec::new(),
        };
        let batch = std::mem::replace(&mut self.open, next);
        self.committing = Some(Committing {
            id: batch.id,
            bytes: self.open_bytes,
            last_seq: self.open_last_seq,
        });
        self.open_bytes = 0;
        self.urgent = false;
        #[cfg(test)]
        {
            self.only_removals = true;
        }
        self.lazy_deadline = None;
        Some(batch)
    }

    /// Whether there is a batch that should be committed now.
    pub fn wants_commit(&self, uptime: u64) -> bool {
        // A batch somebody waits for commits even if it is empty: the writes its stamp was given for may not have been made (a full queue).
        self.urgent
            || self.open.writes.len() >= LAZY_WRITES
            || self.open_bytes > self.lazy_bytes
            || self
                .lazy_deadline
                .is_some_and(|deadline| deadline <= uptime)
    }

    /// When a batch that nobody waits for should be committed. `None` while another one is being committed: the next
    /// is taken when that one is durable.
    pub fn deadline(&self) -> Option<u64> {
        self.lazy_deadline.filter(|_| self.committing.is_none())
    }

    /// Has the open batch committed now, whatever is in it.
    pub fn flush(&mut self) {
        self.urgent |= !self.open.writes.is_empty();
    }

    /// Whether all writes are durable.
    pub fn is_idle(&self) -> bool {
        self.open.writes.is_empty() && self.committing.is_none()
    }

    /// Whether nothing waits but removals that nobody needs.
    #[cfg(test)]
    pub fn only_removals_wait(&self) -> bool {
        self.only_removals && !self.urgent && self.committing.is_none()
    }

    /// The operating system has all of the batch.
    pub fn written(&mut self, batch: BatchId) {
        self.passed = self.passed.max(Stamp::of(batch, Durability::Os));
    }

    /// All of the batch is on disk.
    pub fn durable(&mut self, batch: BatchId) {
        self.passed = self.passed.max(Stamp::of(batch, Durability::Fsync));
        if let Some(committing) = self.committing.take_if(|committing| committing.id <= batch) {
            self.durable_seq = self.durable_seq.max(committing.last_seq);
        }
    }

    /// All messages before a place were found in the store at the start. `next` is the first batch, and above
    /// all that were ever committed.
    pub fn recovered(&mut self, before: Seq, next: BatchId) {
        debug_assert!(self.committing.is_none(), "recovery is first");
        let last = Seq(before.0.saturating_sub(1));
        self.durable_seq = last;
        self.open_last_seq = last;
        self.open.id = self.open.id.max(next);
    }

    /// Bytes of writes that are not durable yet. An estimate.
    pub fn pending_bytes(&self) -> usize {
        self.open_bytes
            + self
                .committing
                .as_ref()
                .map_or(0, |committing| committing.bytes)
    }
}

/// Whether a write only says that a message is done with. If it is lost, the message is sent once more after a crash,
/// as DUP, or its PUBREL is.
fn is_removal(write: &Write) -> bool {
    matches!(
        write,
        Write::RemoveDelivery(..)
            | Write::RemoveMessage(_)
            | Write::RemoveMessageId(_)
            | Write::PutInflight(..)
            | Write::RemoveInflight(..)
    )
}
