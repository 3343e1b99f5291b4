//! What the store says of itself: a row for each fact, by its name.

use redb::TableDefinition;

use super::record::Input;
use super::{Definition, Table, VERSION, What};
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

/// A number: no batch from this one on has been committed. Since layout 4.
pub(in crate::store) const BATCH: &[u8] = b"batch";
/// A number: the key of topic hashes. Since layout 4.
pub(in crate::store) const TOPIC_KEY: &[u8] = b"topic_key";

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::store) enum Fact {
    /// A number.
    Number(u64),
    /// A reading of the clocks.
    Reading(Reading),
}

/// The store itself.
pub(in crate::store) struct Meta;

impl Table for Meta {
    const TABLE: Definition = META;
    type Key<'a> = &'a [u8];
    type Value<'a> = Fact;

    fn put(fact: Fact, out: &mut Vec<u8>) {
        out.push(VERSION);
        let numbers = match fact {
            Fact::Number(number) => [Some(number), None],
            Fact::Reading(reading) => [Some(reading.unix), Some(reading.wall)],
        };
        for number in numbers.into_iter().flatten() {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// The record of a number.
pub(in crate::store) fn number_record(number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    Meta::put(Fact::Number(number), &mut out);
    out
}

/// Reads a number.
pub(in crate::store) fn number(record: &[u8]) -> Result<u64, What> {
    let mut input = Input::versioned(record)?;
    let number = input.u64()?;
    input.end()?;
    Ok(number)
}

/// Reads a reading of the clocks.
pub(in crate::store) fn reading(record: &[u8]) -> Result<Reading, What> {
    let mut input = Input::versioned(record)?;
    let (unix, wall) = (input.u64()?, input.u64()?);
    input.end()?;
    Ok(Reading { unix, wall })
}
