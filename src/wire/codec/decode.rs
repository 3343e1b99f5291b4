//! Decodes packets.

use super::super::field::Reader;
use super::super::packet::*;
use super::super::packet_id::PacketId;
use super::super::property::{BlockKind, Properties};
use super::super::reason::{Fault, ReasonCode};
use super::super::topic;
use super::codes::{self, CodeTable};
use crate::wire::QoS;

type Result<T> = std::result::Result<T, Fault>;

/// Decodes one complete frame. `version` is the version of the connection; a CONNECT carries its
/// own.
///
/// # Errors
/// 0x81 (malformed packet), 0x82 (protocol error), 0x84 for a CONNECT of an unknown version, 0x94
/// for topic alias 0. If the standard names no code, 0x81 is for bytes that cannot be parsed:
/// reserved bits, invalid texts and topic names, contradicting flags. 0x82 is for packets that can
/// be parsed but are not allowed. The caller closes the connection and uses nothing of the packet.
#[inline]
pub fn decode(frame: &[u8], version: ProtocolVersion) -> Result<Packet<'_>> {
    let mut body = Reader::new(frame);
    let first = body.u8("packet: no byte")?;
    let remaining = body.varint("packet: remaining length is not minimal or too long")?;
    if remaining != body.len() {
        return Err(Fault::malformed("packet: not as long as it says"));
    }
    let flags = first & 0x0f;
    if first >> 4 == 3 {
        return publish(flags, body, version).map(Packet::Publish);
    }
    decode_other(first >> 4, flags, body, version)
}

/// Decodes all packets but PUBLISH.
fn decode_other(
    kind: u8,
    flags: u8,
    body: Reader<'_>,
    version: ProtocolVersion,
) -> Result<Packet<'_>> {
    check_flags(kind, flags, version)?;
    match kind {
        1 => connect(body).map(|connect| Packet::Connect(Box::new(connect))),
        2 => connack(body, version).map(Packet::ConnAck),
        4 => ack(body, version, CodeTable::PubAck).map(Packet::PubAck),
        5 => ack(body, version, CodeTable::PubAck).map(Packet::PubRec),
        6 => ack(body, version, CodeTable::PubRel).map(Packet::PubRel),
        7 => ack(body, version, CodeTable::PubRel).map(Packet::PubComp),
        8 => subscribe(body, version).map(Packet::Subscribe),
        9 => suback(body, version).map(Packet::SubAck),
        10 => unsubscribe(body, version).map(Packet::Unsubscribe),
        11 => unsuback(body, version).map(Packet::UnsubAck),
        12 => body.end("PINGREQ: has a body").map(|()| Packet::PingReq),
        13 => body.end("PINGRESP: has a body").map(|()| Packet::PingResp),
        14 => disconnect(body, version).map(Packet::Disconnect),
        15 if version == ProtocolVersion::V5 => auth(body).map(Packet::Auth),
        _ => Err(Fault::malformed("packet: reserved packet type")),
    }
}

/// Checks the reserved flags of the fixed header [MQTT-2.1.3-1]. In MQTT 3.1 PUBREL, SUBSCRIBE and
/// UNSUBSCRIBE have a DUP flag.
fn check_flags(kind: u8, flags: u8, version: ProtocolVersion) -> Result<()> {
    let right = match kind {
        // [MQTT-3.6.1-1, MQTT-3.8.1-1, MQTT-3.10.1-1]
        6 | 8 | 10 => flags == 0b0010 || (version == ProtocolVersion::V31 && flags == 0b1010),
        _ => flags == 0,
    };
    if right {
        Ok(())
    } else {
        Err(Fault::malformed(
            "packet: reserved flags of the fixed header",
        ))
    }
}

/// Reads the property block of MQTT 5. MQTT 3 has none.
#[inline]
fn properties<'a>(
    body: &mut Reader<'a>,
    version: ProtocolVersion,
    kind: BlockKind,
) -> Result<Properties<'a>> {
    if version != ProtocolVersion::V5 {
        return Ok(Properties::EMPTY);
    }
    let len = body.varint("property length: missing, not minimal or too long")?;
    let block = body.take(len, "property length: runs past the end of the packet")?;
    Properties::parse(block, kind)
}

/// The fields at the beginning of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishHeader<'a> {
    /// QoS.
    pub qos: QoS,
    /// Topic name.
    pub topic: &'a str,
    /// Packet identifier, for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Length of the whole packet in bytes.
    pub length: usize,
}

/// The maximum length of the fields of a [`PublishHeader`], in bytes.
const MAX_HEADER: usize = 1 + 4 + 2 + 65_535 + 2;

/// Reads the beginning of a PUBLISH up to the packet identifier; the rest may be missing. These
/// fields are within the first 65,544 bytes. Returns `None` if more bytes are needed.
///
/// # Errors
/// Fails if the packet is no PUBLISH or is malformed.
pub fn publish_header(bytes: &[u8]) -> Result<Option<PublishHeader<'_>>> {
    let cut = "PUBLISH: cut off";
    let Some((first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if first >> 4 != 3 {
        return Err(Fault::protocol("no PUBLISH"));
    }
    let mut rest = Reader::new(rest);
    let Ok(remaining) = rest.varint(cut) else {
        return Ok(None);
    };
    let length = bytes.len() - rest.len() + remaining;
    let body = &rest.rest()[..remaining.min(rest.len())];
    let enough = body.len() == remaining || bytes.len() >= MAX_HEADER;
    let mut body = Reader::new(body);
    let mut read = || {
        let qos = QoS::new(first >> 1 & 0b11).ok_or(Fault::malformed("PUBLISH: QoS 3"))?;
        let topic = std::str::from_utf8(body.binary(cut)?)
            .map_err(|_| Fault::malformed("PUBLISH: topic name is not UTF-8"))?;
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => Some(body.packet_id(cut)?),
        };
        Ok(PublishHeader {
            qos,
            topic,
            packet_id,
            length,
        })
    };
    match read() {
        Ok(head) => Ok(Some(head)),
        Err(Fault { what, .. }) if what == cut && !enough => Ok(None),
        Err(fault) => Err(fault),
    }
}

#[inline]
fn publish<'a>(flags: u8, mut body: Reader<'a>, version: ProtocolVersion) -> Result<Publish<'a>> {
    let qos = QoS::new(flags >> 1 & 0b11).ok_or(Fault::malformed(
        "PUBLISH: QoS 3", // [MQTT-3.3.1-4]
    ))?;
    let mut dup = flags & 0b1000 != 0;
    if dup && qos == QoS::AtMostOnce {
        // [MQTT-3.3.1-2]. MQTT 3.1 says only that the flag applies to QoS 1 and 2.
        if version != ProtocolVersion::V31 {
            return Err(Fault::malformed("PUBLISH: DUP with QoS 0"));
        }
        dup = false;
    }
    let topic = body.binary("PUBLISH: topic name runs past the end")?;
    let topic = std::str::from_utf8(topic)
        .map_err(|_| Fault::malformed("PUBLISH: topic name is not UTF-8"))?; // [MQTT-3.3.2-1]
    let packet_id = match qos {
        QoS::AtMostOnce => None,
        _ => Some(body.packet_id("PUBLISH: no packet identifier")?),
    };
    let properties = properties(&mut body, version, BlockKind::Publish)?;
    if !topic::is_valid_name(topic) {
        check_empty_topic(topic, properties, version)?;
    }
    Ok(Publish {
        dup,
        qos,
        retain: flags & 1 != 0,
        topic,
        packet_id,
        properties,
        payload: body.rest(),
    })
}

/// Checks a topic that is not a valid name: it must be empty and replaced by a topic alias.
fn check_empty_topic(
    topic: &str,
    properties: Properties<'_>,
    version: ProtocolVersion,
) -> Result<()> {
    if !topic.is_empty() {
        // [MQTT-3.3.2-2, MQTT-1.5.4-2]
        return Err(Fault::malformed(
            "PUBLISH: topic name has a wildcard or U+0000",
        ));
    }
    if properties.topic_alias().is_some() {
        Ok(())
    } else if version == ProtocolVersion::V5 {
        Err(Fault::protocol("PUBLISH: neither topic name nor alias"))
    } else {
        Err(Fault::malformed("PUBLISH: empty topic name"))
    }
}

fn connect(mut body: Reader<'_>) -> Result<Connect<'_>> {
    let name = body.text("CONNECT: protocol name is cut or not UTF-8")?;
    let level = body.u8("CONNECT: no protocol level")?;
    let (version, bridge) = protocol(name, level)?;
    let flags = ConnectFlags::read(body.u8("CONNECT: no flags")?, version)?;
    let keep_alive = body.u16("CONNECT: no keep alive")?;
    let properties = properties(&mut body, version, BlockKind::Connect)?;
    let client_id = body.text("CONNECT: client identifier is cut or not UTF-8")?;
    let will = match flags.will {
        Some((qos, retain)) => Some(will(&mut body, version, qos, retain)?),
        None => None,
    };
    // In MQTT 3.1 the remaining length overrides these two flags: a field past the end is absent.
    let absent = |body: &Reader<'_>| version == ProtocolVersion::V31 && body.is_empty();
    let username = match flags.username && !absent(&body) {
        true => Some(body.text("CONNECT: user name is cut or not UTF-8")?),
        false => None,
    };
    let password = match flags.password && !absent(&body) {
        true => Some(body.binary("CONNECT: password is cut")?),
        false => None,
    };
    body.end("CONNECT: bytes after the last field")?;
    Ok(Connect {
        version,
        bridge,
        clean_start: flags.clean_start,
        keep_alive,
        client_id,
        will,
        username,
        password,
        properties,
    })
}

/// Returns the version for a protocol name and level, and whether the peer is a bridge
/// [MQTT-3.1.2-1, MQTT-3.1.2-2].
fn protocol(name: &str, level: u8) -> Result<(ProtocolVersion, bool)> {
    let bridge = level & 0x80 != 0;
    match (name, level & 0x7f) {
        ("MQIsdp", 3) => Ok((ProtocolVersion::V31, bridge)),
        ("MQTT", 4) => Ok((ProtocolVersion::V311, bridge)),
        ("MQTT", 5) if !bridge => Ok((ProtocolVersion::V5, false)),
        _ => Err(Fault::new(
            ReasonCode::UnsupportedProtocolVersion,
            "CONNECT: protocol name and level are not MQTT 3.1, 3.1.1 or 5.0",
        )),
    }
}

struct ConnectFlags {
    clean_start: bool,
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl ConnectFlags {
    /// Parses the flags. MQTT 3.1 ignores bit 0, and the bits of the will if there is no will. In
    /// later versions they must be 0.
    fn read(bits: u8, version: ProtocolVersion) -> Result<ConnectFlags> {
        let strict = version != ProtocolVersion::V31;
        if strict && bits & 0b0000_0001 != 0 {
            // [MQTT-3.1.2-3]
            return Err(Fault::malformed("CONNECT: reserved flag"));
        }
        let will = match bits & 0b0000_0100 != 0 {
            true => Some((
                // [MQTT-3.1.2-12]
                QoS::new(bits >> 3 & 0b11).ok_or(Fault::malformed("CONNECT: will QoS 3"))?,
                bits & 0b0010_0000 != 0,
            )),
            false if strict && bits & 0b0011_1000 != 0 => {
                // [MQTT-3.1.2-11, MQTT-3.1.2-13]
                return Err(Fault::malformed(
                    "CONNECT: will QoS or will retain without a will",
                ));
            }
            false => None,
        };
        let username = bits & 0b1000_0000 != 0;
        let password = bits & 0b0100_0000 != 0;
        if password && !username && version != ProtocolVersion::V5 {
            // [MQTT-3.1.2-22] of MQTT 3.1.1
            return Err(Fault::malformed("CONNECT: password without user name"));
        }
        Ok(ConnectFlags {
            clean_start: bits & 0b0000_0010 != 0,
            will,
            username,
            password,
        })
    }
}

fn will<'a>(
    body: &mut Reader<'a>,
    version: ProtocolVersion,
    qos: QoS,
    retain: bool,
) -> Result<Will<'a>> {
    let properties = properties(body, version, BlockKind::Will)?;
    // [MQTT-3.1.3-11]
    let topic = body.text("CONNECT: will topic is cut or not UTF-8")?;
    if !topic::is_valid_name(topic) {
        return Err(Fault::malformed(
            "CONNECT: will topic is empty or has a wildcard",
        ));
    }
    Ok(Will {
        topic,
        payload: body.binary("CONNECT: will payload is cut")?,
        qos,
        retain,
        properties,
    })
}

fn connack(mut body: Reader<'_>, version: ProtocolVersion) -> Result<ConnAck<'_>> {
    let flags = body.u8("CONNACK: no flags")?;
    let code = body.u8("CONNACK: no reason code")?;
    let (flags, reason) = match version {
        ProtocolVersion::V5 => (flags, codes::reason(code, CodeTable::ConnAck)?),
        ProtocolVersion::V311 => (flags, codes::from_return_code(code)?),
        // The byte is not used in MQTT 3.1.
        ProtocolVersion::V31 => (0, codes::from_return_code(code)?),
    };
    if flags > 1 {
        // [MQTT-3.2.2-1]
        return Err(Fault::malformed("CONNACK: reserved flags"));
    }
    let session_present = flags == 1;
    if session_present && reason != ReasonCode::Success {
        // [MQTT-3.2.2-6]
        return Err(Fault::protocol("CONNACK: refused with session present"));
    }
    let properties = properties(&mut body, version, BlockKind::ConnAck)?;
    body.end("CONNACK: bytes after the last field")?;
    Ok(ConnAck {
        session_present,
        reason,
        properties,
    })
}

/// Reads PUBACK, PUBREC, PUBREL and PUBCOMP.
fn ack(mut body: Reader<'_>, version: ProtocolVersion, table: CodeTable) -> Result<Ack<'_>> {
    let packet_id = body.packet_id("acknowledgement: no packet identifier")?;
    let (reason, properties) = reason_and_properties(&mut body, version, table, BlockKind::Ack)?;
    Ok(Ack {
        packet_id,
        reason,
        properties,
    })
}

/// Reads a reason code and properties at the end of a packet. Each may be absent. MQTT 3 has
/// neither.
fn reason_and_properties<'a>(
    body: &mut Reader<'a>,
    version: ProtocolVersion,
    table: CodeTable,
    kind: BlockKind,
) -> Result<(ReasonCode, Properties<'a>)> {
    let mut reason = ReasonCode::Success;
    let mut block = Properties::EMPTY;
    if version == ProtocolVersion::V5 && !body.is_empty() {
        reason = codes::reason(body.u8("no reason code")?, table)?;
        if !body.is_empty() {
            block = properties(body, version, kind)?;
        }
    }
    body.end("acknowledgement or DISCONNECT: bytes after the last field")?;
    Ok((reason, block))
}

fn subscribe(mut body: Reader<'_>, version: ProtocolVersion) -> Result<Subscribe<'_>> {
    let packet_id = body.packet_id("SUBSCRIBE: no packet identifier")?;
    let properties = properties(&mut body, version, BlockKind::Subscribe)?;
    let mut filters = Vec::new();
    while !body.is_empty() {
        // [MQTT-3.8.3-1]
        let filter = body.text("SUBSCRIBE: topic filter is cut or not UTF-8")?;
        let bits = body.u8("SUBSCRIBE: no options after a topic filter")?;
        let options = match version {
            ProtocolVersion::V5 => subscribe_options(filter, bits)?,
            _ => SubscribeOptions::with_qos(requested_qos(bits, version)?),
        };
        filters.push((filter, options));
    }
    if filters.is_empty() {
        // [MQTT-3.8.3-2]
        return Err(Fault::protocol("SUBSCRIBE: no topic filter"));
    }
    Ok(Subscribe {
        packet_id,
        properties,
        filters,
    })
}

fn subscribe_options(filter: &str, bits: u8) -> Result<SubscribeOptions> {
    if bits & 0b1100_0000 != 0 {
        // [MQTT-3.8.3-5]
        return Err(Fault::malformed("SUBSCRIBE: reserved bits of the options"));
    }
    let retain_handling = match bits >> 4 {
        0 => RetainHandling::OnSubscribe,
        1 => RetainHandling::IfNew,
        2 => RetainHandling::Never,
        _ => return Err(Fault::protocol("SUBSCRIBE: retain handling 3")),
    };
    let options = SubscribeOptions {
        qos: QoS::new(bits & 0b11).ok_or(Fault::protocol("SUBSCRIBE: QoS 3"))?,
        no_local: bits & 0b0000_0100 != 0,
        retain_as_published: bits & 0b0000_1000 != 0,
        retain_handling,
    };
    if options.no_local && filter.starts_with(topic::SHARE_PREFIX) {
        // [MQTT-3.8.3-4]
        return Err(Fault::protocol(
            "SUBSCRIBE: no local on a shared subscription",
        ));
    }
    Ok(options)
}

/// Reads the requested QoS of MQTT 3. MQTT 3.1 ignores the six reserved bits [MQTT-3.8.3-4 of MQTT
/// 3.1.1].
fn requested_qos(bits: u8, version: ProtocolVersion) -> Result<QoS> {
    if version != ProtocolVersion::V31 && bits & 0b1111_1100 != 0 {
        return Err(Fault::malformed("SUBSCRIBE: reserved bits of the QoS"));
    }
    QoS::new(bits & 0b11).ok_or(Fault::malformed("SUBSCRIBE: QoS 3"))
}

fn suback(mut body: Reader<'_>, version: ProtocolVersion) -> Result<SubAck<'_>> {
    let packet_id = body.packet_id("SUBACK: no packet identifier")?;
    let properties = properties(&mut body, version, BlockKind::Ack)?;
    let code = |code: &u8| match version {
        ProtocolVersion::V5 => codes::reason(*code, CodeTable::SubAck),
        _ => codes::from_suback_code(*code),
    };
    codes_for(packet_id, properties, body.rest(), code)
}

fn unsubscribe(mut body: Reader<'_>, version: ProtocolVersion) -> Result<Unsubscribe<'_>> {
    let packet_id = body.packet_id("UNSUBSCRIBE: no packet identifier")?;
    let properties = properties(&mut body, version, BlockKind::Unsubscribe)?;
    let mut filters = Vec::new();
    while !body.is_empty() {
        // [MQTT-3.10.3-1]
        filters.push(body.text("UNSUBSCRIBE: topic filter is cut or not UTF-8")?);
    }
    if filters.is_empty() {
        // [MQTT-3.10.3-2]
        return Err(Fault::protocol("UNSUBSCRIBE: no topic filter"));
    }
    Ok(Unsubscribe {
        packet_id,
        properties,
        filters,
    })
}

fn unsuback(mut body: Reader<'_>, version: ProtocolVersion) -> Result<SubAck<'_>> {
    let packet_id = body.packet_id("UNSUBACK: no packet identifier")?;
    if version != ProtocolVersion::V5 {
        body.end("UNSUBACK: bytes after the packet identifier")?;
        return Ok(SubAck {
            packet_id,
            properties: Properties::EMPTY,
            codes: Vec::new(),
        });
    }
    let properties = properties(&mut body, version, BlockKind::Ack)?;
    codes_for(packet_id, properties, body.rest(), |code| {
        codes::reason(*code, CodeTable::UnsubAck)
    })
}

/// Builds a SUBACK or UNSUBACK. It has at least one code, because there is one for each filter.
fn codes_for<'a>(
    packet_id: PacketId,
    properties: Properties<'a>,
    bytes: &[u8],
    code: impl Fn(&u8) -> Result<ReasonCode>,
) -> Result<SubAck<'a>> {
    if bytes.is_empty() {
        return Err(Fault::protocol("SUBACK or UNSUBACK: no code"));
    }
    Ok(SubAck {
        packet_id,
        properties,
        codes: bytes.iter().map(code).collect::<Result<_>>()?,
    })
}

fn disconnect(mut body: Reader<'_>, version: ProtocolVersion) -> Result<Disconnect<'_>> {
    let (reason, properties) = reason_and_properties(
        &mut body,
        version,
        CodeTable::Disconnect,
        BlockKind::Disconnect,
    )?;
    Ok(Disconnect { reason, properties })
}

fn auth(mut body: Reader<'_>) -> Result<Disconnect<'_>> {
    let version = ProtocolVersion::V5;
    let (reason, properties) =
        reason_and_properties(&mut body, version, CodeTable::Auth, BlockKind::Auth)?;
    // Section 3.15.2.2.2: only a success without properties may omit the authentication method.
    let bare = reason == ReasonCode::Success && properties.is_empty();
    if !bare && properties.authentication_method().is_none() {
        return Err(Fault::protocol("AUTH: no authentication method"));
    }
    Ok(Disconnect { reason, properties })
}
