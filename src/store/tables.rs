//! The tables of the database, and reading rows from them.

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableHandle, WriteTransaction};

use super::error::{Doing, StoreError};
use super::rows::meta::META;
use super::rows::{Definition, KINDS, What};

/// Most bytes of a record in one row.
pub(super) const PART: usize = 4000;

/// What records have beyond their first row, by [`part_key`].
pub(super) const PARTS: Definition = TableDefinition::new("parts");

/// All tables.
fn all() -> impl Iterator<Item = Definition> {
    KINDS.iter().map(|kind| kind.table).chain([PARTS, META])
}

/// Makes the tables that are not there, so that no reader finds one missing.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), StoreError> {
    for definition in all() {
        transaction
            .open_table(definition)
            .doing("make its tables")?;
    }
    Ok(())
}

/// What is done when reading fails.
pub(super) const READ: &str = "read its tables";

/// Checks that all tables are there; what is wrong otherwise.
pub(super) fn check(transaction: &ReadTransaction) -> Result<(), String> {
    for definition in all() {
        transaction
            .open_table(definition)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Sets `key` to that of part number `part` of the row `owner` of `table`. The owner's length goes
/// before it, so that no owner's keys begin with another's.
pub(super) fn part_key(key: &mut Vec<u8>, table: Definition, owner: &[u8], part: u32) {
    key.clear();
    let kind = KINDS.iter().find(|kind| kind.table.name() == table.name());
    key.push(kind.map_or(u8::MAX, |kind| kind.number));
    key.extend_from_slice(&(owner.len() as u32).to_be_bytes());
    key.extend_from_slice(owner);
    key.extend_from_slice(&part.to_be_bytes());
}

/// Reads the whole of a record whose first row is `first` into `bytes`, unless that is all of it.
/// Returns the record.
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
