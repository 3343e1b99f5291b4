//! Identities of messages by `Seq`. Since layout 2.

use redb::TableDefinition;

use super::key::key_u64;
use super::record::Input;
use super::{Definition, Owner, Put, Row, Table, Unused, VERSION, What};
use crate::broker::record::{self, Seq, Write};

/// The identity of the message that was accepted as this one. Outlives the message.
pub(in crate::store) struct MessageId;

impl Table for MessageId {
    const TABLE: Definition = TableDefinition::new("message_ids");
    type Key<'a> = u64;
    type Value<'a> = &'a record::MessageId;

    fn put(id: &record::MessageId, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&id.publisher.to_le_bytes());
        out.extend_from_slice(&id.id.to_le_bytes());
    }

    /// A `Seq` is given an identity once.
    fn is_new(_: &u64, _: &[u64]) -> bool {
        true
    }
}

impl Row for MessageId {
    const OWNER: Owner = Owner::Nobody;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutMessageId(seq, id) => Some((seq.0, Some(id))),
            Write::RemoveMessageId(seq) => Some((seq.0, None)),
            _ => None,
        }
    }

    fn used(key: &u64) -> Unused {
        Unused::after_seq(*key)
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let mut input = Input::versioned(record)?;
        let (publisher, id) = (input.u64()?, input.u64()?);
        input.end()?;
        let id = record::MessageId { publisher, id };
        Ok(Write::PutMessageId(Seq(key_u64(key)?), id))
    }
}
