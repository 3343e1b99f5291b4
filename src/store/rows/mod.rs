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
mod row;
mod session;
mod source;
mod spread;
mod subscription;
#[cfg(test)]
mod tests;
mod will;

pub(super) use bridge::Bridge;
pub(super) use delivery::Delivery;
pub(super) use group::Group;
pub(super) use inflight::Inflight;
pub(super) use key::{RowKey, key_pair, key_short_pair, key_u64, key_u64_and};
pub(super) use message::{MESSAGE_HEAD, Message};
pub(super) use message_id::MessageId;
pub(super) use received::Received;
pub(super) use record::What;
pub(super) use retained::Retained;
pub(super) use row::{Definition, Owner, Row};
pub(super) use session::Session;
pub(super) use spread::Spread;
pub(super) use subscription::Subscription;
pub(super) use will::Will;

use crate::broker::record::Write;
use record::VERSION;

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
