//! What the store says of itself: a row for each fact, by its name.

use redb::TableDefinition;

use super::record::Input;
use super::{Definition, VERSION, What};
use crate::clock::Reading;

/// Facts about the store.
pub(in crate::store) const META: Definition = TableDefinition::new("meta");

/// A number: version of the layout.
pub(in crate::store) const FORMAT: &[u8] = b"format";
/// A number: no `Seq` from this one on has been used.
pub(in crate::store) const SEQ: &[u8] = b"seq";
/// A number: no queue key from this one on has been used.
pub(in crate::store) const QUEUE: &[u8] = b"queue";
/// A number: what names this store among all. Since layout 2.
pub(in crate::store) const IDENTITY: &[u8] = b"identity";
/// A reading of the clocks, the last. Programs that do not know it leave it alone.
pub(in crate::store) const CLOCK: &[u8] = b"clock";

/// The record of a number.
pub(in crate::store) fn number_record(number: u64) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&number.to_le_bytes());
    out
}

/// Reads a number.
pub(in crate::store) fn number(record: &[u8]) -> Result<u64, What> {
    let mut input = Input::versioned(record)?;
    let number = input.u64()?;
    input.end()?;
    Ok(number)
}

/// The record of a reading of the clocks.
pub(in crate::store) fn reading_record(reading: Reading) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&reading.unix.to_le_bytes());
    out.extend_from_slice(&reading.wall.to_le_bytes());
    out
}

/// Reads a reading of the clocks.
pub(in crate::store) fn reading(record: &[u8]) -> Result<Reading, What> {
    let mut input = Input::versioned(record)?;
    let (unix, wall) = (input.u64()?, input.u64()?);
    input.end()?;
    Ok(Reading { unix, wall })
}
