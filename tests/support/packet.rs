//! Decodes the packets of a server strictly: a packet that violates the standard fails the test
//! that received it.

use std::fmt;

/// Protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.
    V31,
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.0.
    V5,
}

impl Version {
    /// All versions.
    pub const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];
    /// The versions without properties and reason codes.
    pub const V3: [Version; 2] = [Version::V31, Version::V311];

    /// Returns the protocol level byte of CONNECT.
    pub fn level(self) -> u8 {
        match self {
            Version::V31 => 3,
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }

    /// Returns whether it is MQTT 5.
    pub fn is5(self) -> bool {
        self == Version::V5
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        })
    }
}

/// Property identifiers, MQTT 5 table 2-4.
pub mod property {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0b;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTH_METHOD: u8 = 0x15;
    pub const AUTH_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const REQUEST_RESPONSE: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1a;
    pub const SERVER_REFERENCE: u8 = 0x1c;
    pub const REASON_STRING: u8 = 0x1f;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_ID_AVAILABLE: u8 = 0x29;
    pub const SHARED_AVAILABLE: u8 = 0x2a;
}

/// The value of a property, in the types of the standard.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Byte.
    Byte(u8),
    /// Two byte integer.
    Two(u16),
    /// Four byte integer.
    Four(u32),
    /// Variable byte integer.
    Var(u32),
    /// UTF-8 string.
    Text(String),
    /// Binary data.
    Binary(Vec<u8>),
    /// UTF-8 string pair.
    Pair(String, String),
}

/// Properties in the order of the packet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties(pub Vec<(u8, Value)>);

impl Properties {
    /// Creates an empty list.
    pub fn new() -> Properties {
        Properties::default()
    }

    /// Adds a property.
    pub fn with(mut self, id: u8, value: Value) -> Properties {
        self.0.push((id, value));
        self
    }

    /// Adds a byte.
    pub fn byte(self, id: u8, value: u8) -> Properties {
        self.with(id, Value::Byte(value))
    }

    /// Adds a two byte integer.
    pub fn two(self, id: u8, value: u16) -> Properties {
        self.with(id, Value::Two(value))
    }

    /// Adds a four byte integer.
    pub fn four(self, id: u8, value: u32) -> Properties {
        self.with(id, Value::Four(value))
    }

    /// Adds a string.
    pub fn text(self, id: u8, value: &str) -> Properties {
        self.with(id, Value::Text(value.to_owned()))
    }

    /// Adds binary data.
    pub fn binary(self, id: u8, value: &[u8]) -> Properties {
        self.with(id, Value::Binary(value.to_vec()))
    }

    /// Adds a user property.
    pub fn user(self, name: &str, value: &str) -> Properties {
        self.with(property::USER, Value::Pair(name.into(), value.into()))
    }

    /// Adds a subscription identifier.
    pub fn subscription_id(self, value: u32) -> Properties {
        self.with(property::SUBSCRIPTION_ID, Value::Var(value))
    }

    /// Returns the value of the first property with this identifier.
    pub fn get(&self, id: u8) -> Option<&Value> {
        self.0.iter().find(|(i, _)| *i == id).map(|(_, v)| v)
    }

    /// Returns the value of a number of any width.
    pub fn number(&self, id: u8) -> Option<u32> {
        Some(match self.get(id)? {
            Value::Byte(value) => u32::from(*value),
            Value::Two(value) => u32::from(*value),
            Value::Four(value) | Value::Var(value) => *value,
            other => panic!("property 0x{id:02x} is no number: {other:?}"),
        })
    }

    /// Returns the value of a string.
    pub fn string(&self, id: u8) -> Option<&str> {
        match self.get(id)? {
            Value::Text(text) => Some(text),
            other => panic!("property 0x{id:02x} is no string: {other:?}"),
        }
    }

    /// Returns the value of binary data.
    pub fn bytes(&self, id: u8) -> Option<&[u8]> {
        match self.get(id)? {
            Value::Binary(bytes) => Some(bytes),
            other => panic!("property 0x{id:02x} is not binary: {other:?}"),
        }
    }

    /// Returns the user properties in order.
    pub fn users(&self) -> Vec<(&str, &str)> {
        let pairs = self.0.iter().filter_map(|(_, value)| match value {
            Value::Pair(name, value) => Some((name.as_str(), value.as_str())),
            _ => None,
        });
        pairs.collect()
    }

    /// Returns the subscription identifiers, sorted.
    pub fn subscription_ids(&self) -> Vec<u32> {
        let ids = self.0.iter().filter_map(|(id, value)| match value {
            Value::Var(value) if *id == property::SUBSCRIPTION_ID => Some(*value),
            _ => None,
        });
        let mut ids: Vec<u32> = ids.collect();
        ids.sort_unstable();
        ids
    }
}

/// A packet that a server may send.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    /// CONNACK.
    ConnAck(ConnAck),
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK.
    PubAck(Ack),
    /// PUBREC.
    PubRec(Ack),
    /// PUBREL.
    PubRel(Ack),
    /// PUBCOMP.
    PubComp(Ack),
    /// SUBACK.
    SubAck(Codes),
    /// UNSUBACK.
    UnsubAck(Codes),
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(Reason),
    /// AUTH.
    Auth(Reason),
}

/// CONNACK.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck {
    /// Session present.
    pub session_present: bool,
    /// Return code (MQTT 3) or reason code.
    pub code: u8,
    /// Properties.
    pub properties: Properties,
}

/// PUBLISH.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// Whether the packet may have been sent before.
    pub dup: bool,
    /// QoS.
    pub qos: u8,
    /// Retain.
    pub retain: bool,
    /// Topic name. A topic alias is replaced by the name.
    pub topic: String,
    /// Whether the packet contained the topic name.
    pub named: bool,
    /// Packet identifier; 0 at QoS 0.
    pub id: u16,
    /// Properties.
    pub properties: Properties,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Publish {
    /// Returns the payload as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a payload this test sent is text")
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    /// Packet identifier.
    pub id: u16,
    /// Reason code; 0 in MQTT 3.
    pub reason: u8,
    /// Properties.
    pub properties: Properties,
}

/// SUBACK or UNSUBACK.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    /// Packet identifier.
    pub id: u16,
    /// Properties.
    pub properties: Properties,
    /// One code for each filter. Empty in an UNSUBACK of MQTT 3.
    pub codes: Vec<u8>,
}

/// DISCONNECT or AUTH.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// Reason code.
    pub reason: u8,
    /// Properties.
    pub properties: Properties,
}

/// Decodes a complete frame from a server.
///
/// # Errors
/// Says which rule of the standard the server violates.
pub fn parse(version: Version, frame: &[u8]) -> Result<Packet, String> {
    let after_first = frame.get(1..).ok_or("there is no frame")?;
    let (len, used) = var_int(after_first)?.ok_or("the frame is not whole")?;
    let body = &frame[1 + used..];
    if body.len() != len as usize {
        return Err("the frame's length is wrong".into());
    }
    let mut reader = Reader { rest: body };
    let packet = parse_body(version, frame[0], &mut reader)?;
    if !reader.rest.is_empty() {
        return Err(format!(
            "{} bytes too many in {packet:?}",
            reader.rest.len()
        ));
    }
    Ok(packet)
}

/// Reads a variable byte integer. Returns its value and length, `None` if bytes are missing.
///
/// # Errors
/// Fails if it has more than four bytes or more than it needs [MQTT-1.5.5-1].
pub fn var_int(bytes: &[u8]) -> Result<Option<(u32, usize)>, String> {
    let mut value = 0u32;
    for (i, byte) in bytes.iter().enumerate().take(4) {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            if i > 0 && *byte == 0 {
                return Err("a variable byte integer longer than it needs to be".into());
            }
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err("a variable byte integer of more than four bytes".into());
    }
    Ok(None)
}

fn parse_body(version: Version, first: u8, r: &mut Reader<'_>) -> Result<Packet, String> {
    let is5 = version.is5();
    Ok(match first {
        0x20 => {
            let flags = r.byte()?;
            if flags > 1 || (version == Version::V31 && flags != 0) {
                return Err(format!("CONNACK flags {flags:02x}"));
            }
            let code = r.byte()?;
            let properties = r.properties(is5, BlockKind::ConnAck)?;
            if code != 0 && flags != 0 {
                return Err("session present in a refusal [MQTT-3.2.2-6]".into());
            }
            if !is5 && code > 5 {
                return Err(format!("CONNACK return code {code} in MQTT 3"));
            }
            Packet::ConnAck(ConnAck {
                session_present: flags == 1,
                code,
                properties,
            })
        }
        0x30..=0x3f => Packet::Publish(parse_publish(is5, first, r)?),
        0x40 => Packet::PubAck(parse_ack(is5, r)?),
        0x50 => Packet::PubRec(parse_ack(is5, r)?),
        0x62 => Packet::PubRel(parse_ack(is5, r)?),
        0x70 => Packet::PubComp(parse_ack(is5, r)?),
        0x90 => Packet::SubAck(parse_codes(is5, true, r)?),
        0xb0 => Packet::UnsubAck(parse_codes(is5, is5, r)?),
        0xd0 => Packet::PingResp,
        0xe0 if is5 => Packet::Disconnect(parse_reason(BlockKind::Disconnect, r)?),
        0xf0 if is5 => Packet::Auth(parse_reason(BlockKind::Auth, r)?),
        other => return Err(format!("a server must not send first byte 0x{other:02x}")),
    })
}

fn parse_publish(is5: bool, first: u8, r: &mut Reader<'_>) -> Result<Publish, String> {
    let qos = (first >> 1) & 3;
    let dup = first & 8 != 0;
    if qos == 3 {
        return Err("PUBLISH of QoS 3".into());
    }
    if qos == 0 && dup {
        return Err("DUP at QoS 0 [MQTT-3.3.1-2]".into());
    }
    let topic = r.string()?;
    if topic.contains(['#', '+']) {
        return Err("a wildcard in a topic name [MQTT-3.3.2-2]".into());
    }
    let id = if qos > 0 { r.id()? } else { 0 };
    let properties = r.properties(is5, BlockKind::Publish)?;
    if topic.is_empty() && properties.get(property::TOPIC_ALIAS).is_none() {
        return Err("PUBLISH without topic name and alias".into());
    }
    Ok(Publish {
        dup,
        qos,
        retain: first & 1 != 0,
        named: !topic.is_empty(),
        topic,
        id,
        properties,
        payload: std::mem::take(&mut r.rest).to_vec(),
    })
}

fn parse_ack(is5: bool, r: &mut Reader<'_>) -> Result<Ack, String> {
    let id = r.id()?;
    let reason = if is5 && !r.rest.is_empty() {
        r.byte()?
    } else {
        0
    };
    let properties = r.properties(is5 && !r.rest.is_empty(), BlockKind::Ack)?;
    Ok(Ack {
        id,
        reason,
        properties,
    })
}

fn parse_codes(is5: bool, has_codes: bool, r: &mut Reader<'_>) -> Result<Codes, String> {
    let id = r.id()?;
    let properties = r.properties(is5, BlockKind::Ack)?;
    let codes = match has_codes {
        true => std::mem::take(&mut r.rest).to_vec(),
        false => Vec::new(),
    };
    if has_codes && codes.is_empty() {
        return Err("no codes".into());
    }
    Ok(Codes {
        id,
        properties,
        codes,
    })
}

fn parse_reason(kind: BlockKind, r: &mut Reader<'_>) -> Result<Reason, String> {
    let reason = if r.rest.is_empty() { 0 } else { r.byte()? };
    let properties = r.properties(!r.rest.is_empty(), kind)?;
    Ok(Reason { reason, properties })
}

#[derive(Clone, Copy, PartialEq)]
enum BlockKind {
    ConnAck,
    Publish,
    Ack,
    Disconnect,
    Auth,
}

/// Returns whether a server may send this property there (MQTT 5 table 2-4 and the sections of the
/// packets).
fn belongs(id: u8, kind: BlockKind) -> bool {
    match kind {
        BlockKind::ConnAck => {
            matches!(id, 0x11..=0x13 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f | 0x21 | 0x22 | 0x24..=0x2a)
        }
        BlockKind::Publish => matches!(id, 0x01..=0x03 | 0x08 | 0x09 | 0x0b | 0x23 | 0x26),
        BlockKind::Ack => matches!(id, 0x1f | 0x26),
        // A server must not send a session expiry interval in DISCONNECT [MQTT-3.14.2-2].
        BlockKind::Disconnect => matches!(id, 0x1c | 0x1f | 0x26),
        BlockKind::Auth => matches!(id, 0x15 | 0x16 | 0x1f | 0x26),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        if self.rest.len() < count {
            return Err("the packet ends too early".into());
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn two(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn id(&mut self) -> Result<u16, String> {
        match self.two()? {
            0 => Err("packet identifier 0".into()),
            id => Ok(id),
        }
    }

    fn binary(&mut self) -> Result<Vec<u8>, String> {
        let len = self.two()?;
        Ok(self.take(usize::from(len))?.to_vec())
    }

    fn string(&mut self) -> Result<String, String> {
        let text = String::from_utf8(self.binary()?).map_err(|_| "text is not UTF-8")?;
        if text.contains('\0') {
            return Err("U+0000 in text [MQTT-1.5.4-2]".into());
        }
        Ok(text)
    }

    fn var(&mut self) -> Result<u32, String> {
        let (value, used) = var_int(self.rest)?.ok_or("the packet ends too early")?;
        self.take(used)?;
        Ok(value)
    }

    fn properties(&mut self, there: bool, kind: BlockKind) -> Result<Properties, String> {
        let mut properties = Properties::new();
        if !there {
            return Ok(properties);
        }
        let len = self.var()?;
        let mut block = Reader {
            rest: self.take(len as usize)?,
        };
        while !block.rest.is_empty() {
            let id = block.byte()?;
            if !belongs(id, kind) {
                return Err(format!("property 0x{id:02x} does not belong here"));
            }
            let twice_allowed = matches!(id, property::USER | property::SUBSCRIPTION_ID);
            if !twice_allowed && properties.get(id).is_some() {
                return Err(format!("property 0x{id:02x} comes twice"));
            }
            let value = block.value(id)?;
            properties.0.push((id, value));
        }
        Ok(properties)
    }

    fn value(&mut self, id: u8) -> Result<Value, String> {
        Ok(match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => match self.byte()? {
                value @ 0..=1 => Value::Byte(value),
                value => return Err(format!("property 0x{id:02x} is {value}")),
            },
            0x13 | 0x22 => Value::Two(self.two()?),
            0x21 | 0x23 => Value::Two(self.id().map_err(|_| "a 0 that is not allowed")?),
            0x02 | 0x11 | 0x18 => Value::Four(self.four()?),
            0x27 => match self.four()? {
                0 => return Err("maximum packet size 0".into()),
                value => Value::Four(value),
            },
            0x0b => match self.var()? {
                0 => return Err("subscription identifier 0".into()),
                value => Value::Var(value),
            },
            0x09 | 0x16 => Value::Binary(self.binary()?),
            0x26 => Value::Pair(self.string()?, self.string()?),
            _ => Value::Text(self.string()?),
        })
    }

    fn four(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}
