//! The kinds of rows, a file each: what a row is keyed by, what its record says, and what it belongs to.
//!
//! A new kind is a file here, a line in `kinds`, and its writes in [`Write`].
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
mod summary;
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
pub(super) use row::{Definition, Owner, Put, Row, Table, Unused};
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

/// Hands the list of all kinds to another macro: a place in the list, the type, its number in keys of
/// parts, and the first layout that has it. It is in the order in which recovery hands rows back.
///
/// Numbers 8 and 9 are those of the tables of parts and of the store itself.
macro_rules! kinds {
    ($use:ident) => {
        $use! {
            0 Session 0 since 1;
            1 Group 1 since 1;
            2 Subscription 2 since 1;
            3 Will 3 since 1;
            4 Received 4 since 1;
            5 Bridge 10 since 2;
            6 Retained 5 since 1;
            7 MessageId 11 since 2;
            8 Inflight 12 since 2;
            9 Spread 13 since 3;
            10 Delivery 7 since 1;
            11 Message 6 since 1;
        }
    };
}
pub(super) use kinds;

macro_rules! list {
    ($($at:tt $kind:ident $number:literal since $since:literal;)*) => {
        /// All kinds.
        pub(super) const KINDS: &[Kind] = &[$(kind::<$kind>($number, $since)),*];
    };
}
kinds!(list);
