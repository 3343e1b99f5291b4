//! What a kind of row says of itself.

use redb::TableDefinition;

use super::key::RowKey;
use super::record::What;
use crate::broker::record::Write;

/// A table of the store.
pub(in crate::store) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// A kind of row.
pub(in crate::store) trait Row {
    /// Its table.
    const TABLE: Definition;
    /// What it belongs to.
    const OWNER: Owner;
    /// What it is keyed by.
    type Key<'a>: RowKey;
    /// What its record says.
    type Value<'a>: Copy;

    /// Appends its record.
    fn put(value: Self::Value<'_>, out: &mut Vec<u8>);

    /// Reads a row: the write that would put it there.
    ///
    /// # Errors
    /// What is wrong with the key or the record.
    fn read(key: &[u8], record: &[u8]) -> Result<Write, What>;

    /// Whether a row that a batch puts and removes was not there before it: then it never reaches the database. `fresh` are the `Seq`s, in order, of the
    /// messages that the batch puts.
    fn is_new(_key: &Self::Key<'_>, _fresh: &[u64]) -> bool {
        false
    }
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
