//! How records are laid out in bytes. Version 1.
//!
//! Every record begins with its version; integers are little-endian and of fixed width. Records are read strictly: a byte too many or too
//! few, a flag that has no meaning, or a text that is not one is an error, never a panic.
//!
//! A message is kept as one byte string, [`MESSAGE_HEAD`] bytes, its identity if it has one, and then topic, properties and payload. What exceeds [`PART`] bytes goes on in the
//! table of parts: so that no row needs more than one page of the file, and a large message never asks for a hole of many pages in a file that is
//! nearly full.

use std::num::NonZeroU64;

use crate::broker::Message;
use crate::broker::message::Parts;
use crate::broker::record::{
    BridgeRecord, DeliveryRecord, InflightRecord, LeftAddress, MessageId, QueueKey, Seq,
    SessionRecord, Source, SpreadReceiver, SpreadRecord, SubscriptionIds, SubscriptionRecord,
    WillRecord,
};
use crate::clock::Reading;
use crate::wire::packet::{RetainHandling, SubscribeOptions};
use crate::wire::property::Place;
use crate::wire::{PacketId, Properties, ProtocolVersion, QoS, topic};

/// Version of every record written by this program.
pub(super) const VERSION: u8 = 1;

/// Most bytes of a message in one row.
pub(super) const PART: usize = 4000;

/// Bytes of a message's record before its identity and its topic.
pub(super) const MESSAGE_HEAD: usize = 16;

const RETAIN: u8 = 1 << 2;
const EXPIRES: u8 = 1 << 3;
const RELEASED: u8 = 1 << 4;
const PACKET_ID: u8 = 1 << 5;
const ID: u8 = 1 << 6;
/// A retained message's row names who published it. Without this flag, as in rows of older programs, it is not known.
const SOURCE: u8 = 1 << 7;
const SOURCE_USER: u8 = 1;
const SOURCE_ACL: u8 = 1 << 1;

/// What is wrong with a record.
pub(super) type What = &'static str;

/// Appends a message.
pub(super) fn put_message(out: &mut Vec<u8>, message: &Message) {
    put_message_of(out, message, message.topic(), None);
}

/// Appends a retained message. Its topic is its key, so it is not written again.
pub(super) fn put_retained(out: &mut Vec<u8>, message: &Message, source: Option<&Source>) {
    put_message_of(out, message, "", source);
}

fn put_message_of(out: &mut Vec<u8>, message: &Message, topic: &str, source: Option<&Source>) {
    let properties = message.properties();
    let mut flags = message.qos() as u8;
    flags |= if message.retain() { RETAIN } else { 0 };
    flags |= if message.expires().is_some() {
        EXPIRES
    } else {
        0
    };
    let id = message.parts().id;
    flags |= if id.is_some() { ID } else { 0 };
    flags |= if source.is_some() { SOURCE } else { 0 };
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

/// Reads a message.
pub(super) fn message(bytes: &[u8]) -> Result<Message, What> {
    Ok(message_of(bytes, None)?.0)
}

/// Reads a retained message, whose topic is the key, and who published it.
pub(super) fn retained(bytes: &[u8], topic: &str) -> Result<(Message, Option<Source>), What> {
    message_of(bytes, Some(topic))
}

fn message_of(bytes: &[u8], key_topic: Option<&str>) -> Result<(Message, Option<Source>), What> {
    let mut input = Input::versioned(bytes)?;
    let known = 0b11 | RETAIN | EXPIRES | ID;
    let flags = input.flags(if key_topic.is_some() {
        known | SOURCE
    } else {
        known
    })?;
    let expires = input.u64()?;
    let topic_len = input.u16()?;
    let properties_len = input.u32()?;
    let id = match flags & ID {
        0 => None,
        _ => Some(NonZeroU64::new(input.u64()?).ok_or("identity 0")?),
    };
    let source = match flags & SOURCE {
        0 => None,
        _ => Some(input.source()?),
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
    let message = Message::new(&Parts {
        topic,
        properties: Properties::parse(properties, Place::Publish)
            .map_err(|_| "the properties are not those of a PUBLISH")?,
        payload: input.rest(),
        qos: qos(flags)?,
        retain: flags & RETAIN != 0,
        expires: optional(flags & EXPIRES != 0, expires)?,
        id,
    });
    Ok((message, source))
}

fn put_source(out: &mut Vec<u8>, source: &Source) {
    let user = source.user.as_ref().map_or(0, |_| SOURCE_USER);
    let acl = source.acl.as_ref().map_or(0, |_| SOURCE_ACL);
    out.push(user | acl);
    put_text(out, &source.client_id);
    for text in source.user.iter().chain(&source.acl) {
        put_text(out, text);
    }
}

/// A session's row names its user. Without this flag, as in rows of older programs, it has none.
const USER: u8 = 1 << 1;

/// Appends a session.
pub(super) fn put_session(out: &mut Vec<u8>, session: &SessionRecord) {
    let version = match session.version {
        ProtocolVersion::V31 => 3,
        ProtocolVersion::V311 => 4,
        ProtocolVersion::V5 => 5,
    };
    out.extend_from_slice(&[VERSION, version]);
    let named = if session.user.is_some() { USER } else { 0 };
    out.push(u8::from(session.disconnected_at.is_some()) | named);
    out.extend_from_slice(&session.expiry.to_le_bytes());
    out.extend_from_slice(&session.disconnected_at.unwrap_or(0).to_le_bytes());
    if let Some(user) = &session.user {
        put_text(out, user);
    }
    out.extend_from_slice(session.client_id.as_bytes());
}

/// Reads a session.
pub(super) fn session(bytes: &[u8]) -> Result<SessionRecord, What> {
    let mut input = Input::versioned(bytes)?;
    let version = match input.u8()? {
        3 => ProtocolVersion::V31,
        4 => ProtocolVersion::V311,
        5 => ProtocolVersion::V5,
        _ => return Err("no such protocol version"),
    };
    let flags = input.flags(1 | USER)?;
    let expiry = input.u32()?;
    let disconnected_at = input.u64()?;
    let user = match flags & USER {
        0 => None,
        _ => Some(input.long_text()?.into()),
    };
    Ok(SessionRecord {
        user,
        client_id: input.rest_text()?.into(),
        version,
        expiry,
        disconnected_at: optional(flags & 1 != 0, disconnected_at)?,
    })
}

/// Appends a subscription.
pub(super) fn put_subscription(out: &mut Vec<u8>, subscription: &SubscriptionRecord) {
    let options = &subscription.options;
    let handling = match options.retain_handling {
        RetainHandling::OnSubscribe => 0,
        RetainHandling::IfNew => 1,
        RetainHandling::Never => 2,
    };
    let bits = options.qos as u8
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | handling << 4
        | u8::from(subscription.replaying) << 6;
    out.extend_from_slice(&[VERSION, bits]);
    // Zero is not a subscription identifier, so it stands for none [MQTT-3.8.2.1.2].
    out.extend_from_slice(&subscription.id.unwrap_or(0).to_le_bytes());
}

/// Reads a subscription.
pub(super) fn subscription(bytes: &[u8]) -> Result<SubscriptionRecord, What> {
    let mut input = Input::versioned(bytes)?;
    let bits = input.flags(0b0111_1111)?;
    let id = input.u32()?;
    input.end()?;
    Ok(SubscriptionRecord {
        options: SubscribeOptions {
            qos: qos(bits)?,
            no_local: bits & 1 << 2 != 0,
            retain_as_published: bits & 1 << 3 != 0,
            retain_handling: match bits >> 4 & 3 {
                0 => RetainHandling::OnSubscribe,
                1 => RetainHandling::IfNew,
                2 => RetainHandling::Never,
                _ => return Err("no such retain handling"),
            },
        },
        id: (id != 0).then_some(id),
        replaying: bits & 1 << 6 != 0,
    })
}

/// Appends the name of a shared group.
pub(super) fn put_group(out: &mut Vec<u8>, name: &str) {
    out.push(VERSION);
    out.extend_from_slice(name.as_bytes());
}

/// Reads the name of a shared group.
pub(super) fn group(bytes: &[u8]) -> Result<Box<str>, What> {
    Ok(Input::versioned(bytes)?.rest_text()?.into())
}

/// Appends a will: what it is to do, and then its message.
pub(super) fn put_will(out: &mut Vec<u8>, will: &WillRecord) {
    let flags = u8::from(will.expiry.is_some()) | u8::from(will.due.is_some()) << 1;
    out.extend_from_slice(&[VERSION, flags]);
    out.extend_from_slice(&will.expiry.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&will.delay.to_le_bytes());
    out.extend_from_slice(&will.due.unwrap_or(0).to_le_bytes());
    put_message(out, &will.message);
}

/// Reads a will.
pub(super) fn will(bytes: &[u8]) -> Result<WillRecord, What> {
    let mut input = Input::versioned(bytes)?;
    let flags = input.flags(0b11)?;
    let expiry = input.u32()?;
    let delay = input.u32()?;
    let due = input.u64()?;
    Ok(WillRecord {
        message: message(input.rest())?,
        expiry: optional(flags & 1 != 0, expiry)?,
        delay,
        due: optional(flags & 2 != 0, due)?,
    })
}

/// Appends a delivery: 6 bytes, and what else it has.
pub(super) fn put_delivery(out: &mut Vec<u8>, delivery: &DeliveryRecord) {
    let mut flags = delivery.qos as u8;
    flags |= if delivery.retain { RETAIN } else { 0 };
    flags |= if delivery.released { RELEASED } else { 0 };
    flags |= if delivery.expires.is_some() {
        EXPIRES
    } else {
        0
    };
    flags |= if delivery.packet_id.is_some() {
        PACKET_ID
    } else {
        0
    };
    out.extend_from_slice(&[VERSION, flags]);
    out.extend_from_slice(&delivery.size.to_le_bytes());
    if let Some(id) = delivery.packet_id {
        out.extend_from_slice(&id.get().to_le_bytes());
    }
    if let Some(expires) = delivery.expires {
        out.extend_from_slice(&expires.to_le_bytes());
    }
    for id in delivery.subscription_ids.as_slice() {
        out.extend_from_slice(&id.to_le_bytes());
    }
}

/// Reads a delivery.
pub(super) fn delivery(bytes: &[u8]) -> Result<DeliveryRecord, What> {
    let mut input = Input::versioned(bytes)?;
    let flags = input.flags(0b11 | RETAIN | RELEASED | EXPIRES | PACKET_ID)?;
    let size = input.u32()?;
    let packet_id = match flags & PACKET_ID {
        0 => None,
        _ => Some(PacketId::new(input.u16()?).ok_or("packet identifier 0")?),
    };
    let expires = match flags & EXPIRES {
        0 => None,
        _ => Some(input.u64()?),
    };
    let ids = input.rest();
    if ids.len() % 4 != 0 {
        return Err("the subscription identifiers are cut short");
    }
    Ok(DeliveryRecord {
        qos: qos(flags)?,
        retain: flags & RETAIN != 0,
        released: flags & RELEASED != 0,
        packet_id,
        size,
        expires,
        subscription_ids: subscription_ids(ids),
    })
}

/// Reads only what a delivery says of its message's size.
pub(super) fn delivery_size(bytes: &[u8]) -> Result<u32, What> {
    let mut input = Input::versioned(bytes)?;
    input.u8()?;
    input.u32()
}

/// Checks the record of a received packet identifier, which says nothing but its version.
pub(super) fn received(bytes: &[u8]) -> Result<(), What> {
    Input::versioned(bytes)?.end()
}

/// Appends what is known of messages on their way: for each its packet identifier, whether it is released, and its `Seq`.
pub(super) fn put_inflight(out: &mut Vec<u8>, records: &[InflightRecord]) {
    out.push(VERSION);
    for record in records {
        out.extend_from_slice(&record.packet_id.get().to_le_bytes());
        out.push(u8::from(record.released));
        out.extend_from_slice(&record.seq.0.to_le_bytes());
    }
}

/// Reads what is known of messages on their way.
pub(super) fn inflight(bytes: &[u8]) -> Result<Vec<InflightRecord>, What> {
    let mut input = Input::versioned(bytes)?;
    let mut records = Vec::with_capacity(input.0.len() / 11);
    while !input.0.is_empty() {
        records.push(InflightRecord {
            packet_id: PacketId::new(input.u16()?).ok_or("packet identifier 0")?,
            released: input.flags(1)? != 0,
            seq: Seq(input.u64()?),
        });
    }
    Ok(records)
}

/// Appends what is remembered of a bridge: texts and lists with their lengths before them.
pub(super) fn put_bridge(out: &mut Vec<u8>, bridge: &BridgeRecord) {
    out.extend_from_slice(&[VERSION, u8::from(bridge.apart)]);
    put_text(out, &bridge.remote_clientid);
    put_text(out, &bridge.home);
    out.extend_from_slice(&(bridge.left.len() as u32).to_le_bytes());
    for left in &bridge.left {
        put_text(out, &left.address);
        for ids in [&left.dirty, &left.received] {
            out.extend_from_slice(&(ids.len() as u32).to_le_bytes());
            for id in ids {
                out.extend_from_slice(&id.get().to_le_bytes());
            }
        }
    }
}

/// Reads what is remembered of a bridge.
pub(super) fn bridge(bytes: &[u8]) -> Result<BridgeRecord, What> {
    let mut input = Input::versioned(bytes)?;
    let apart = input.flags(1)? != 0;
    let mut bridge = BridgeRecord {
        remote_clientid: input.long_text()?.into(),
        home: input.long_text()?.into(),
        apart,
        left: Vec::new(),
    };
    for _ in 0..input.u32()? {
        bridge.left.push(LeftAddress {
            address: input.long_text()?.into(),
            dirty: input.packet_ids()?,
            received: input.packet_ids()?,
        });
    }
    input.end()?;
    Ok(bridge)
}

/// Appends whom a message is still to be given to: 13 bytes, and for each session 9 and what subscription identifiers it has.
pub(super) fn put_spread(out: &mut Vec<u8>, spread: &SpreadRecord) {
    out.push(VERSION);
    out.extend_from_slice(&spread.size.to_le_bytes());
    out.extend_from_slice(&spread.expires.unwrap_or(0).to_le_bytes());
    for receiver in &spread.receivers {
        let ids = receiver.subscription_ids.as_slice();
        let mut flags = receiver.qos as u8;
        flags |= if receiver.retain { RETAIN } else { 0 };
        flags |= if ids.is_empty() { 0 } else { ID };
        out.extend_from_slice(&receiver.queue.0.to_le_bytes());
        out.push(flags);
        if !ids.is_empty() {
            out.extend_from_slice(&(ids.len() as u32).to_le_bytes());
            for id in ids {
                out.extend_from_slice(&id.to_le_bytes());
            }
        }
    }
}

/// Reads whom a message is still to be given to.
pub(super) fn spread(bytes: &[u8]) -> Result<SpreadRecord, What> {
    let mut input = Input::versioned(bytes)?;
    let (size, expires) = (input.u32()?, input.u64()?);
    let mut receivers = Vec::new();
    while !input.0.is_empty() {
        let queue = QueueKey(input.u64()?);
        let flags = input.flags(0b11 | RETAIN | ID)?;
        let subscription_ids = match flags & ID {
            0 => SubscriptionIds::NONE,
            _ => input.subscription_ids()?,
        };
        receivers.push(SpreadReceiver {
            queue,
            qos: qos(flags)?,
            retain: flags & RETAIN != 0,
            subscription_ids,
        });
    }
    Ok(SpreadRecord {
        size,
        expires: (expires != 0).then_some(expires),
        receivers,
    })
}

/// Reads only what a spread says of its message's size.
pub(super) fn spread_size(bytes: &[u8]) -> Result<u32, What> {
    Input::versioned(bytes)?.u32()
}

/// Appends the identity of a message.
pub(super) fn put_message_id(out: &mut Vec<u8>, id: &MessageId) {
    out.push(VERSION);
    out.extend_from_slice(&id.publisher.to_le_bytes());
    out.extend_from_slice(&id.id.to_le_bytes());
}

/// Reads the identity of a message.
pub(super) fn message_id(bytes: &[u8]) -> Result<MessageId, What> {
    let mut input = Input::versioned(bytes)?;
    let (publisher, id) = (input.u64()?, input.u64()?);
    input.end()?;
    Ok(MessageId { publisher, id })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a number of the meta table.
pub(super) fn put_number(out: &mut Vec<u8>, number: u64) {
    out.push(VERSION);
    out.extend_from_slice(&number.to_le_bytes());
}

/// Reads a number of the meta table.
pub(super) fn number(bytes: &[u8]) -> Result<u64, What> {
    let mut input = Input::versioned(bytes)?;
    let number = input.u64()?;
    input.end()?;
    Ok(number)
}

/// Appends the reading of the clocks in the meta table.
pub(super) fn put_reading(out: &mut Vec<u8>, reading: Reading) {
    out.push(VERSION);
    out.extend_from_slice(&reading.unix.to_le_bytes());
    out.extend_from_slice(&reading.wall.to_le_bytes());
}

/// Reads the reading of the clocks in the meta table.
pub(super) fn reading(bytes: &[u8]) -> Result<Reading, What> {
    let mut input = Input::versioned(bytes)?;
    let (unix, wall) = (input.u64()?, input.u64()?);
    input.end()?;
    Ok(Reading { unix, wall })
}

fn qos(flags: u8) -> Result<QoS, What> {
    match flags & 0b11 {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        2 => Ok(QoS::ExactlyOnce),
        _ => Err("no such QoS"),
    }
}

fn optional<T: Default + PartialEq>(there: bool, value: T) -> Result<Option<T>, What> {
    match (there, value) {
        (true, value) => Ok(Some(value)),
        (false, value) if value == T::default() => Ok(None),
        (false, _) => Err("a value that is said not to be there"),
    }
}

/// Reads subscription identifiers, four bytes each.
fn subscription_ids(bytes: &[u8]) -> SubscriptionIds {
    let ids = bytes.chunks_exact(4);
    ids.map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
        .collect()
}

const SHORT: What = "it is cut short";

/// What is left to read of a record.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn versioned(bytes: &'a [u8]) -> Result<Input<'a>, What> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(Input(rest)),
            Some(_) => Err("its version is not 1"),
            None => Err("it is empty"),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], What> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], What> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, What> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, What> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, What> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, What> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn flags(&mut self, known: u8) -> Result<u8, What> {
        match self.u8()? {
            flags if flags & !known == 0 => Ok(flags),
            _ => Err("a flag without a meaning"),
        }
    }

    fn text(&mut self, len: usize) -> Result<&'a str, What> {
        std::str::from_utf8(self.take(len)?).map_err(|_| "a text that is not UTF-8")
    }

    fn long_text(&mut self) -> Result<&'a str, What> {
        let len = self.u32()?;
        self.text(usize::try_from(len).map_err(|_| SHORT)?)
    }

    fn source(&mut self) -> Result<Source, What> {
        let flags = self.flags(SOURCE_USER | SOURCE_ACL)?;
        let client_id = self.long_text()?.into();
        let mut there = |flag| match flags & flag {
            0 => Ok(None),
            _ => self.long_text().map(|text| Some(text.into())),
        };
        Ok(Source {
            client_id,
            user: there(SOURCE_USER)?,
            acl: there(SOURCE_ACL)?,
        })
    }

    fn subscription_ids(&mut self) -> Result<SubscriptionIds, What> {
        let len = usize::try_from(self.u32()?).map_err(|_| SHORT)?;
        let ids = self.take(len.checked_mul(4).ok_or(SHORT)?)?;
        Ok(subscription_ids(ids))
    }

    fn packet_ids(&mut self) -> Result<Vec<PacketId>, What> {
        let len = usize::try_from(self.u32()?).map_err(|_| SHORT)?;
        let ids = self.take(len.checked_mul(2).ok_or(SHORT)?)?.chunks_exact(2);
        let ids = ids.map(|id| PacketId::new(u16::from_le_bytes([id[0], id[1]])));
        ids.collect::<Option<_>>().ok_or("packet identifier 0")
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn rest_text(&mut self) -> Result<&'a str, What> {
        self.text(self.0.len())
    }

    fn end(self) -> Result<(), What> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("it is too long")
        }
    }
}

#[cfg(test)]
mod tests;
