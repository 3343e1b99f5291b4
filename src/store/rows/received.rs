//! Received packet identifiers by session and identifier.

use redb::TableDefinition;

use super::key::key_short_pair;
use super::record::Input;
use super::{Definition, Owner, Put, Row, Table, VERSION, What};
use crate::broker::record::{QueueKey, Write};
use crate::wire::PacketId;

/// The packet identifier of a QoS 2 message that a session's client published and has not released. Its record says nothing but its version.
pub(in crate::store) struct Received;

impl Table for Received {
    const TABLE: Definition = TableDefinition::new("received");
    type Key<'a> = (u64, u16);
    type Value<'a> = ();

    fn put((): (), out: &mut Vec<u8>) {
        out.push(VERSION);
    }
}

impl Row for Received {
    const OWNER: Owner = Owner::Queue;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutReceived(key, id) => Some(((key.0, id.get()), Some(()))),
            Write::RemoveReceived(key, id) => Some(((key.0, id.get()), None)),
            _ => None,
        }
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        Input::versioned(record)?.end()?;
        let (queue, id) = key_short_pair(key)?;
        let id = PacketId::new(id).ok_or("no packet identifier")?;
        Ok(Write::PutReceived(QueueKey(queue), id))
    }
}
