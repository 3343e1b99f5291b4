//! Message bodies by their identifiers: inserts at the right edge, removals mostly at the left.
//!
//! A message is one byte string: [`MESSAGE_HEAD`] bytes, its identity if it has one, who published it if it is retained and that is known, and then
//! topic, properties and payload. What exceeds a row goes on in the table of parts, as with every record: so that no row needs more than one page
//! of the file, and a large message never asks for a hole of many pages in a file that is nearly full.

use std::num::NonZeroU64;

use redb::TableDefinition;

use super::key::key_u64;
use super::record::{EXPIRES, ID, Input, RETAIN, SHORT, optional, qos};
use super::source::{put_source, source};
use super::{Definition, Owner, Put, Row, Table, Unused, VERSION, What};
use crate::broker::Message as Body;
use crate::broker::message::Parts;
use crate::broker::record::{BodyId, Source, Write};
use crate::wire::property::BlockKind;
use crate::wire::{Properties, topic};

/// Bytes of a message's record before its identity and its topic.
pub(in crate::store) const MESSAGE_HEAD: usize = 16;

/// A retained message's row names who published it. Without this flag, as in rows of older programs, it is not known.
const SOURCE: u8 = 1 << 7;

/// The body of a message.
pub(in crate::store) struct Message;

impl Table for Message {
    const TABLE: Definition = TableDefinition::new("messages");
    type Key<'a> = u64;
    type Value<'a> = &'a Body;

    fn put(message: &Body, out: &mut Vec<u8>) {
        put(out, message, message.topic(), None);
    }

    /// A body is put once in its life.
    fn is_new(_: &u64, _: &[u64]) -> bool {
        true
    }
}

impl Row for Message {
    const OWNER: Owner = Owner::Message;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutMessage(id, message) => Some((id.0, Some(message))),
            Write::RemoveMessage(id) => Some((id.0, None)),
            _ => None,
        }
    }

    fn used(key: &u64) -> Unused {
        Unused::after_seq(*key)
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let message = Message::of(record)?;
        Ok(Write::PutMessage(BodyId(key_u64(key)?), message))
    }
}

impl Message {
    /// Reads the record of a message.
    pub(in crate::store) fn of(record: &[u8]) -> Result<Body, What> {
        Ok(read(record, None)?.0)
    }
}

/// Appends a message with this topic, and who published it.
pub(super) fn put(out: &mut Vec<u8>, message: &Body, topic: &str, source: Option<&Source>) {
    let properties = message.properties();
    let id = message.parts().id;
    let mut flags = message.qos() as u8;
    flags |= if message.retain() { RETAIN } else { 0 };
    flags |= message.expires().map_or(0, |_| EXPIRES);
    flags |= id.map_or(0, |_| ID);
    flags |= source.map_or(0, |_| SOURCE);
    out.extend_from_slice(&[VERSION, flags]);
    out.extend_from_slice(&message.expires().unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&(topic.len() as u16).to_le_bytes());
    out.extend_from_slice(&(properties.as_bytes().len() as u32).to_le_bytes());
    if let Some(id) = id {
        out.extend_from_slice(&id.get().to_le_bytes());
    }
    if let Some(source) = source {
        put_source(out, source);
    }
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(properties.as_bytes());
    out.extend_from_slice(message.payload());
}

/// Reads a message and who published it. A topic that is the key is not in the record.
pub(super) fn read(record: &[u8], key_topic: Option<&str>) -> Result<(Body, Option<Source>), What> {
    let mut input = Input::versioned(record)?;
    let known = 0b11 | RETAIN | EXPIRES | ID;
    let flags = input.flags(key_topic.map_or(known, |_| known | SOURCE))?;
    let expires = input.u64()?;
    let topic_len = input.u16()?;
    let properties_len = input.u32()?;
    let id = match flags & ID {
        0 => None,
        _ => Some(NonZeroU64::new(input.u64()?).ok_or("identity 0")?),
    };
    let source = match flags & SOURCE {
        0 => None,
        _ => Some(source(&mut input)?),
    };
    let own_topic = input.text(usize::from(topic_len))?;
    let properties = input.take(usize::try_from(properties_len).map_err(|_| SHORT)?)?;
    let topic = match key_topic {
        Some(topic) if own_topic.is_empty() => topic,
        Some(_) => return Err("a topic both in the key and in the record"),
        None => own_topic,
    };
    if !topic::is_valid_name(topic) {
        return Err("the topic is not a topic name");
    }
    let message = Body::new(&Parts {
        topic,
        properties: Properties::parse(properties, BlockKind::Publish)
            .map_err(|_| "the properties are not those of a PUBLISH")?,
        payload: input.rest(),
        qos: qos(flags)?,
        retain: flags & RETAIN != 0,
        expires: optional(flags & EXPIRES != 0, expires)?,
        id,
    });
    Ok((message, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::QoS;

    #[test]
    fn a_message_that_is_not_one_is_refused() {
        let record_of = |parts: Parts<'_>| {
            let mut bytes = Vec::new();
            Message::put(&Body::new(&parts), &mut bytes);
            bytes
        };
        let parts = Parts {
            topic: "a",
            properties: Properties::EMPTY,
            payload: b"x",
            qos: QoS::AtLeastOnce,
            retain: false,
            expires: None,
            id: None,
        };
        let good = record_of(parts);
        assert_eq!(Message::of(&good), Ok(Body::new(&parts)));
        assert_eq!(good.len(), MESSAGE_HEAD + 2);
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Message::of(&bytes)
        };
        assert_eq!(changed(0, 2), Err("its version is not 1"));
        assert_eq!(changed(1, 3), Err("no such QoS"));
        assert_eq!(changed(1, 128), Err("a flag without a meaning"));
        assert_eq!(changed(2, 1), Err("a value that is said not to be there"));
        assert_eq!(changed(1, 1 | ID), Err(SHORT));
        let named = Parts {
            id: NonZeroU64::new(7),
            ..parts
        };
        let mut named_bytes = record_of(named);
        assert_eq!(Message::of(&named_bytes), Ok(Body::new(&named)));
        named_bytes[MESSAGE_HEAD] = 0;
        assert_eq!(Message::of(&named_bytes), Err("identity 0"));
        assert_eq!(changed(10, 3), Err(SHORT));
        assert_eq!(changed(12, 2), Err(SHORT));
        assert_eq!(changed(16, 0xff), Err("a text that is not UTF-8"));
        assert!(read(&good, Some("b")).is_err(), "two topics");
        for len in 0..good.len() - 1 {
            assert!(Message::of(&good[..len]).is_err(), "{len}");
        }
    }
}
