//! Shared groups by queue key.

use redb::TableDefinition;

use super::key::key_u64;
use super::record::Input;
use super::{Definition, Owner, Row, VERSION, What};
use crate::broker::record::{QueueKey, Write};

/// A shared group: its name and filter as in a SUBSCRIBE.
pub(in crate::store) struct Group;

impl Row for Group {
    const TABLE: Definition = TableDefinition::new("groups");
    const OWNER: Owner = Owner::IsQueue;
    type Key<'a> = u64;
    type Value<'a> = &'a str;

    fn put(name: &str, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(name.as_bytes());
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let name = Input::versioned(record)?.rest_text()?;
        Ok(Write::PutGroup(QueueKey(key_u64(key)?), name.into()))
    }
}
