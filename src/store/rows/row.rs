//! What a kind of row says of itself.

use redb::TableDefinition;

use super::key::RowKey;
use super::record::What;
use crate::broker::record::Write;

/// The name of a table, and the types of what is in it.
pub(in crate::store) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// A table of the store, for those who write it.
pub(in crate::store) trait Table {
    /// Its definition.
    const TABLE: Definition;
    /// What it is keyed by.
    type Key<'a>: RowKey;
    /// What its records say.
    type Value<'a>: Copy;

    /// Appends a record.
    fn put(value: Self::Value<'_>, out: &mut Vec<u8>);

    /// Whether a row that a batch puts and removes was not there before it. Then it never reaches the
    /// database. `fresh` are the bodies that the batch puts, in order.
    fn is_new(_key: &Self::Key<'_>, _fresh: &[u64]) -> bool {
        false
    }
}

/// A row that is put, or removed if there is no value.
pub(in crate::store) type Put<'a, T> = (<T as Table>::Key<'a>, Option<<T as Table>::Value<'a>>);

/// A kind of row.
pub(in crate::store) trait Row: Table {
    /// What its rows belong to.
    const OWNER: Owner;

    /// Returns what a write does to a row of this kind. `None` if it is about another kind.
    fn of(write: &Write) -> Option<Put<'_, Self>>;

    /// Returns the numbers that a key uses up.
    fn used(_key: &Self::Key<'_>) -> Unused {
        Unused::default()
    }

    /// Reads a row: the write that would put it there.
    ///
    /// # Errors
    /// What is wrong with the key or the record.
    fn read(key: &[u8], record: &[u8]) -> Result<Write, What>;
}

/// What a row belongs to: without that it is an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Owner {
    /// To nothing.
    Nobody,
    /// To nothing, and other rows belong to it: its key is that of a queue.
    IsQueue,
    /// To the queue whose key its own begins with.
    Queue,
    /// To a message, or it is one: its key begins with a `Seq`.
    Message,
}

/// The first numbers of each sort that were never used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::store) struct Unused {
    pub(in crate::store) seq: u64,
    pub(in crate::store) queue: u64,
    pub(in crate::store) batch: u64,
}

impl Unused {
    /// This place in the order, or body, is used.
    pub(in crate::store) fn after_seq(seq: u64) -> Unused {
        let seq = seq.saturating_add(1);
        Unused {
            seq,
            ..Unused::default()
        }
    }

    /// This queue key is used.
    pub(in crate::store) fn after_queue(queue: u64) -> Unused {
        let queue = queue.saturating_add(1);
        Unused {
            queue,
            ..Unused::default()
        }
    }

    /// Returns what neither of two has used.
    pub(in crate::store) fn max(self, other: Unused) -> Unused {
        Unused {
            seq: self.seq.max(other.seq),
            queue: self.queue.max(other.queue),
            batch: self.batch.max(other.batch),
        }
    }
}
