//! Shared groups by queue key.

use redb::TableDefinition;

use super::key::key_u64;
use super::record::Input;
use super::{Definition, Owner, Put, Row, Table, Unused, VERSION, What};
use crate::broker::record::{QueueKey, Write};

/// A shared group: its name and filter as in a SUBSCRIBE.
pub(in crate::store) struct Group;

impl Table for Group {
    const TABLE: Definition = TableDefinition::new("groups");
    type Key<'a> = u64;
    type Value<'a> = &'a str;

    fn put(name: &str, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(name.as_bytes());
    }
}

impl Row for Group {
    const OWNER: Owner = Owner::IsQueue;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutGroup(key, name) => Some((key.0, Some(name))),
            Write::RemoveGroup(key) => Some((key.0, None)),
            _ => None,
        }
    }

    fn used(key: &u64) -> Unused {
        Unused::after_queue(*key)
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let name = Input::versioned(record)?.rest_text()?;
        Ok(Write::PutGroup(QueueKey(key_u64(key)?), name.into()))
    }
}
