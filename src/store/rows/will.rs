//! Wills by session.

use redb::TableDefinition;

use super::key::key_u64;
use super::record::{Input, optional};
use super::{Definition, Message, Owner, Put, Row, Table, VERSION, What};
use crate::broker::record::{QueueKey, WillRecord, Write};

const HAS_EXPIRY: u8 = 1;
const IS_DUE: u8 = 1 << 1;

/// The will of a session: what is to be done with it, and then its message.
pub(in crate::store) struct Will;

impl Table for Will {
    const TABLE: Definition = TableDefinition::new("wills");
    type Key<'a> = u64;
    type Value<'a> = &'a WillRecord;

    fn put(will: &WillRecord, out: &mut Vec<u8>) {
        let mut flags = if will.expiry.is_some() { HAS_EXPIRY } else { 0 };
        flags |= if will.due.is_some() { IS_DUE } else { 0 };
        out.extend_from_slice(&[VERSION, flags]);
        out.extend_from_slice(&will.expiry.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&will.delay.to_le_bytes());
        out.extend_from_slice(&will.due.unwrap_or(0).to_le_bytes());
        Message::put(&will.message, out);
    }
}

impl Row for Will {
    const OWNER: Owner = Owner::Queue;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutWill(key, will) => Some((key.0, Some(will))),
            Write::RemoveWill(key) => Some((key.0, None)),
            _ => None,
        }
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let queue = QueueKey(key_u64(key)?);
        let mut input = Input::versioned(record)?;
        let flags = input.flags(HAS_EXPIRY | IS_DUE)?;
        let expiry = input.u32()?;
        let delay = input.u32()?;
        let due = input.u64()?;
        let will = WillRecord {
            message: Message::of(input.rest())?,
            expiry: optional(flags & HAS_EXPIRY != 0, expiry)?,
            delay,
            due: optional(flags & IS_DUE != 0, due)?,
        };
        Ok(Write::PutWill(queue, will))
    }
}
