//! The kinds of rows, a file each: what a row is keyed by, what its record says, and what it belongs to. Version 1 of every record.
//!
//! A new kind is a file here, a line in [`KINDS`], and its place in a batch (`apply`).
//!
//! Keys are byte strings that sort as what they stand for: integers are big-endian there, and nowhere else. Every record begins with its version;
//! integers are little-endian and of fixed width. Records are read strictly: a byte too many or too few, a flag that has no meaning, or a text that is
//! not one is an error, never a panic.

mod bridge;
mod delivery;
mod group;
mod inflight;
mod key;
mod message;
mod message_id;
pub(super) mod meta;
mod received;
mod record;
mod retained;
mod session;
mod spread;
mod subscription;
#[cfg(test)]
mod tests;
mod will;

use redb::TableDefinition;

pub(super) use bridge::Bridge;
pub(super) use delivery::Delivery;
pub(super) use group::Group;
pub(super) use inflight::Inflight;
pub(super) use key::{RowKey, key_pair, key_short_pair, key_u64, key_u64_and};
pub(super) use message::{MESSAGE_HEAD, Message};
pub(super) use message_id::MessageId;
pub(super) use received::Received;
pub(super) use retained::Retained;
pub(super) use session::Session;
pub(super) use spread::Spread;
pub(super) use subscription::Subscription;
pub(super) use will::Will;

use crate::broker::record::Write;

/// What is wrong with a row.
pub(super) type What = &'static str;

/// A table of the store.
pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Version of every record written by this program.
const VERSION: u8 = 1;

/// A kind of row.
pub(super) trait Row {
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
pub(super) enum Owner {
    /// To nothing.
    Nobody,
    /// To nothing, and other rows belong to it: its key is that of a queue.
    IsQueue,
    /// To the queue whose key its own begins with.
    Queue,
    /// To a message, or it is one: its key begins with a `Seq`.
    Message,
}

/// What is known of a kind of row where its type is not.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// Its table.
    pub(super) table: Definition,
    /// Stands for the table in keys of parts. Never used for another.
    pub(super) number: u8,
    /// The first layout of the store that has the table.
    pub(super) since: u64,
    /// What its rows belong to.
    pub(super) owner: Owner,
    /// Reads a row.
    pub(super) read: fn(&[u8], &[u8]) -> Result<Write, What>,
}

const fn kind<R: Row>(number: u8, since: u64) -> Kind {
    Kind {
        table: R::TABLE,
        number,
        since,
        owner: R::OWNER,
        read: R::read,
    }
}

/// All kinds, in the order in which recovery hands their rows back. Numbers 8 and 9 are those of the tables of parts and of the store itself.
pub(super) const KINDS: [Kind; 12] = [
    kind::<Session>(0, 1),
    kind::<Group>(1, 1),
    kind::<Subscription>(2, 1),
    kind::<Will>(3, 1),
    kind::<Received>(4, 1),
    kind::<Bridge>(10, 2),
    kind::<Retained>(5, 1),
    kind::<MessageId>(11, 2),
    kind::<Inflight>(12, 2),
    kind::<Spread>(13, 3),
    kind::<Delivery>(7, 1),
    kind::<Message>(6, 1),
];
