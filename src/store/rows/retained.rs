//! Retained messages by topic. The topic is the key, so it is not in the record.

use std::sync::Arc;

use redb::TableDefinition;

use super::key::key_text;
use super::message;
use super::{Definition, Owner, Put, Row, Table, What};
use crate::broker::Message;
use crate::broker::record::{Source, Write};

/// A retained message, and who published it, where that is known.
pub(in crate::store) struct Retained;

impl Table for Retained {
    const TABLE: Definition = TableDefinition::new("retained");
    type Key<'a> = &'a str;
    type Value<'a> = (&'a Message, Option<&'a Source>);

    fn put((message, source): (&Message, Option<&Source>), out: &mut Vec<u8>) {
        message::put(out, message, "", source);
    }
}

impl Row for Retained {
    const OWNER: Owner = Owner::Nobody;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutRetained(message, source) => {
                Some((message.topic(), Some((message, source.as_deref()))))
            }
            Write::RemoveRetained(topic) => Some((topic, None)),
            _ => None,
        }
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let (message, source) = message::read(record, Some(key_text(key)?))?;
        Ok(Write::PutRetained(message, source.map(Arc::new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::message::Parts;
    use crate::wire::{Properties, QoS};

    /// A retained message of an older program does not say who published it.
    #[test]
    fn a_retained_message_names_its_publisher_where_that_is_known() {
        let parts = Parts {
            topic: "a/b",
            properties: Properties::EMPTY,
            payload: b"x",
            qos: QoS::ExactlyOnce,
            retain: true,
            expires: Some(7),
            id: None,
        };
        let expected = Message::new(&parts);
        let named = |user: Option<&str>, acl: Option<&str>| Source {
            client_id: "pump-1".into(),
            user: user.map(Into::into),
            acl: acl.map(Into::into),
        };
        for source in [
            None,
            Some(named(None, None)),
            Some(named(Some("Zoë"), None)),
            Some(named(None, Some("acl/own"))),
            Some(named(Some(""), Some("acl/own"))),
        ] {
            let written = Ok((expected.clone(), source.clone()));
            let mut bytes = Vec::new();
            Retained::put((&expected, source.as_ref()), &mut bytes);
            assert_eq!(message::read(&bytes, Some("a/b")), written);
            if source.is_some() {
                let as_body = message::read(&bytes, None);
                assert_eq!(as_body, Err("a flag without a meaning"));
                for len in 0..bytes.len() - 1 {
                    let cut = message::read(&bytes[..len], Some("a/b"));
                    assert!(cut != written, "{len}");
                }
            }
        }
    }
}
