//! The tables of the database, their keys, and reading rows from them.
//!
//! Keys are byte strings that sort as what they stand for: integers are big-endian there, and nowhere else.

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableHandle, WriteTransaction};

use super::error::{Doing, StoreError};
use super::record::{PART, What};

/// A table of the store.
pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Sessions by queue key.
pub(super) const SESSIONS: Definition = TableDefinition::new("sessions");
/// Shared groups by queue key.
pub(super) const GROUPS: Definition = TableDefinition::new("groups");
/// Subscriptions by session and filter.
pub(super) const SUBSCRIPTIONS: Definition = TableDefinition::new("subscriptions");
/// Wills by session.
pub(super) const WILLS: Definition = TableDefinition::new("wills");
/// Received packet identifiers by session and identifier.
pub(super) const RECEIVED: Definition = TableDefinition::new("received");
/// Retained messages by topic.
pub(super) const RETAINED: Definition = TableDefinition::new("retained");
/// Message bodies by `Seq`: inserts at the right edge, removals mostly at the left.
pub(super) const MESSAGES: Definition = TableDefinition::new("messages");
/// Deliveries by `Seq` and queue key, in this order for the same reason.
pub(super) const DELIVERIES: Definition = TableDefinition::new("deliveries");
/// What records of other tables have beyond their first row, by [`part_key`].
pub(super) const PARTS: Definition = TableDefinition::new("parts");
/// Numbers about the store.
pub(super) const META: Definition = TableDefinition::new("meta");

/// What is remembered of bridges, by the queue key of their sessions. Since version 2.
pub(super) const BRIDGES: Definition = TableDefinition::new("bridges");
/// Identities of messages by `Seq`. Since version 2.
pub(super) const MESSAGE_IDS: Definition = TableDefinition::new("message_ids");

/// What is known of messages on their way, by session and block of packet identifiers. Since version 2.
pub(super) const INFLIGHT: Definition = TableDefinition::new("inflight");

/// Sessions that messages are still to be given to, by `Seq` and number of the part. Since version 3.
pub(super) const SPREADS: Definition = TableDefinition::new("spreads");

/// All tables. A table's place here is its number in [`part_key`], so new ones go to the end.
const ALL: [Definition; 14] = [
    SESSIONS,
    GROUPS,
    SUBSCRIPTIONS,
    WILLS,
    RECEIVED,
    RETAINED,
    MESSAGES,
    DELIVERIES,
    PARTS,
    META,
    BRIDGES,
    MESSAGE_IDS,
    INFLIGHT,
    SPREADS,
];

/// Key in [`META`]: version of the layout.
pub(super) const META_FORMAT: &[u8] = b"format";
/// Key in [`META`]: no `Seq` from this one on has been used.
pub(super) const META_SEQ: &[u8] = b"seq";
/// Key in [`META`]: no queue key from this one on has been used.
pub(super) const META_QUEUE: &[u8] = b"queue";

/// Key in [`META`]: what names this store among all. Since version 2.
pub(super) const META_IDENTITY: &[u8] = b"identity";

/// Key in [`META`]: the last reading of the clocks. Programs that do not know it leave it alone.
pub(super) const META_CLOCK: &[u8] = b"clock";

/// Makes the tables that are not there, so that no reader finds one missing.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), StoreError> {
    for definition in ALL {
        transaction
            .open_table(definition)
            .doing("make its tables")?;
    }
    Ok(())
}

pub(super) const READ: &str = "read its tables";

/// Checks that all tables are there; what is wrong otherwise.
pub(super) fn check(transaction: &ReadTransaction) -> Result<(), String> {
    for definition in ALL {
        transaction
            .open_table(definition)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What a table is keyed by.
pub(super) trait RowKey: Ord {
    /// Appends the key's bytes.
    fn put(&self, out: &mut Vec<u8>);
}

impl RowKey for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl RowKey for (u64, u64) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
}

impl RowKey for (u64, u16) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        out.extend_from_slice(&self.1.to_be_bytes());
    }
}

impl RowKey for (u64, &str) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        out.extend_from_slice(self.1.as_bytes());
    }
}

impl RowKey for &str {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

const KEY: What = "its key is not one of this table";

/// Reads a key of one integer.
pub(super) fn key_u64(key: &[u8]) -> Result<u64, What> {
    Ok(u64::from_be_bytes(key.try_into().map_err(|_| KEY)?))
}

/// Reads a key of an integer and what follows it.
pub(super) fn key_u64_and(key: &[u8]) -> Result<(u64, &[u8]), What> {
    let (number, rest) = key.split_first_chunk().ok_or(KEY)?;
    Ok((u64::from_be_bytes(*number), rest))
}

/// Reads a key of two integers, of which the second is short.
pub(super) fn key_short_pair(key: &[u8]) -> Result<(u64, u16), What> {
    let (first, rest) = key_u64_and(key)?;
    Ok((first, u16::from_be_bytes(rest.try_into().map_err(|_| KEY)?)))
}

/// Reads a key of two integers.
pub(super) fn key_pair(key: &[u8]) -> Result<(u64, u64), What> {
    let (first, rest) = key_u64_and(key)?;
    Ok((first, key_u64(rest)?))
}

/// Reads a key, or what is left of one, that is text.
pub(super) fn key_text(key: &[u8]) -> Result<&str, What> {
    std::str::from_utf8(key).map_err(|_| KEY)
}

/// Sets `key` to that of part number `part` of the row `owner` of `table`. The owner's length goes before it, so that no owner's keys begin
/// with another's.
pub(super) fn part_key(key: &mut Vec<u8>, table: Definition, owner: &[u8], part: u32) {
    key.clear();
    let number = ALL.iter().position(|known| known.name() == table.name());
    key.push(number.unwrap_or(ALL.len()) as u8);
    key.extend_from_slice(&(owner.len() as u32).to_be_bytes());
    key.extend_from_slice(owner);
    key.extend_from_slice(&part.to_be_bytes());
}

/// Reads the whole of a record whose first row is `first` into `bytes`, unless that is all of it. Returns the record.
///
/// # Errors
/// If the database fails.
pub(super) fn whole<'b>(
    transaction: &ReadTransaction,
    table: Definition,
    owner: &[u8],
    first: &'b [u8],
    bytes: &'b mut Vec<u8>,
) -> Result<&'b [u8], StoreError> {
    if first.len() < PART {
        return Ok(first);
    }
    let (mut from, mut to) = (Vec::new(), Vec::new());
    part_key(&mut from, table, owner, 0);
    part_key(&mut to, table, owner, u32::MAX);
    let parts = transaction.open_table(PARTS).doing(READ)?;
    bytes.clear();
    bytes.extend_from_slice(first);
    for part in parts.range(from.as_slice()..=to.as_slice()).doing(READ)? {
        bytes.extend_from_slice(part.doing(READ)?.1.value());
    }
    Ok(bytes)
}

/// Hands every key and record of a table to `each`, in key order.
///
/// # Errors
/// What `each` returns; or if the database fails.
pub(super) fn every(
    transaction: &ReadTransaction,
    definition: Definition,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut bytes = Vec::new();
    let table = transaction.open_table(definition).doing(READ)?;
    for row in table.iter().doing(READ)? {
        let (key, first) = row.doing(READ)?;
        let record = whole(
            transaction,
            definition,
            key.value(),
            first.value(),
            &mut bytes,
        )?;
        each(key.value(), record)?;
    }
    Ok(())
}

/// Names the table and the key of a bad record.
pub(super) fn bad(table: Definition, key: &[u8]) -> impl FnOnce(What) -> StoreError {
    move |what| StoreError::Record {
        table: table.name().to_owned(),
        key: key.escape_ascii().take(200).map(char::from).collect(),
        what,
    }
}
