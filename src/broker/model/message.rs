//! A message the broker has taken in: one allocation, shared by all its deliveries.

use std::fmt;
use std::num::NonZeroU64;

use triomphe::ThinArc;

use crate::wire::{Properties, QoS};

/// A message of so many bytes is put together without an allocation of its own.
const SMALL: usize = 512;

/// A published message. Cloning it counts a reference; topic, properties and payload stand in one allocation.
#[derive(Clone)]
pub struct Message(ThinArc<Head, u8>);

#[derive(Clone, Copy, PartialEq)]
struct Head {
    topic_len: u16,
    properties_len: u32,
    qos: QoS,
    retain: bool,
    expires: Option<u64>,
    id: Option<NonZeroU64>,
}

/// The parts a message is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// The properties that travel with the message: payload format, content type, response topic, correlation data and user properties.
    pub properties: Properties<'a>,
    /// Payload.
    pub payload: &'a [u8],
    /// QoS it was published with.
    pub qos: QoS,
    /// Retain flag it was published with.
    pub retain: bool,
    /// When it expires, in milliseconds since 1970.
    pub expires: Option<u64>,
    /// What the broker that took it in first calls it, if it came over a bridge.
    pub id: Option<NonZeroU64>,
}

impl Parts<'_> {
    /// Bytes that count: topic, properties and payload.
    pub fn size(&self) -> usize {
        self.topic.len() + self.properties.as_bytes().len() + self.payload.len()
    }
}

impl Message {
    /// A message of these parts, which are copied.
    pub fn new(parts: &Parts<'_>) -> Message {
        let properties = parts.properties.as_bytes();
        let (mut small, mut large) = ([0; SMALL], Vec::new());
        let data = match parts.size() {
            size if size <= SMALL => &mut small[..size],
            size => {
                large.resize(size, 0);
                &mut large[..]
            }
        };
        let (topic, rest) = data.split_at_mut(parts.topic.len());
        topic.copy_from_slice(parts.topic.as_bytes());
        let (copied, payload) = rest.split_at_mut(properties.len());
        copied.copy_from_slice(properties);
        payload.copy_from_slice(parts.payload);
        let head = Head {
            topic_len: parts.topic.len() as u16,
            properties_len: properties.len() as u32,
            qos: parts.qos,
            retain: parts.retain,
            expires: parts.expires,
            id: parts.id,
        };
        Message(ThinArc::from_header_and_slice(head, data))
    }

    /// A message that says nothing but its topic.
    pub(in crate::broker) fn of_topic(topic: &str) -> Message {
        Message::new(&Parts {
            topic,
            properties: Properties::EMPTY,
            payload: &[],
            qos: QoS::AtMostOnce,
            retain: false,
            expires: None,
            id: None,
        })
    }

    /// Topic name. Looks at each of its bytes: keep it where it is needed twice.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_bytes()).expect("a message is made of a &str topic")
    }

    /// Topic name, as bytes.
    pub fn topic_bytes(&self) -> &[u8] {
        &self.0.slice[..usize::from(self.0.header.header.topic_len)]
    }

    /// The properties that travel with the message.
    pub fn properties(&self) -> Properties<'_> {
        let head = &self.0.header.header;
        let start = usize::from(head.topic_len);
        Properties::assume_valid(&self.0.slice[start..start + head.properties_len as usize])
    }

    /// Payload.
    pub fn payload(&self) -> &[u8] {
        let head = &self.0.header.header;
        &self.0.slice[usize::from(head.topic_len) + head.properties_len as usize..]
    }

    /// QoS it was published with.
    pub fn qos(&self) -> QoS {
        self.0.header.header.qos
    }

    /// Retain flag it was published with.
    pub fn retain(&self) -> bool {
        self.0.header.header.retain
    }

    /// When it expires, in milliseconds since 1970.
    pub fn expires(&self) -> Option<u64> {
        self.0.header.header.expires
    }

    /// Bytes that count in queues: topic, properties and payload.
    pub fn size(&self) -> u32 {
        self.0.slice.len() as u32
    }

    /// Where it is in memory: tells messages apart that live at the same time, and clones are the same.
    pub fn address(&self) -> usize {
        self.0.heap_ptr().addr()
    }

    /// All parts, borrowed.
    pub fn parts(&self) -> Parts<'_> {
        Parts {
            topic: self.topic(),
            properties: self.properties(),
            payload: self.payload(),
            qos: self.qos(),
            retain: self.retain(),
            expires: self.expires(),
            id: self.0.header.header.id,
        }
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        self.parts() == other.parts()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().fmt(f)
    }
}
