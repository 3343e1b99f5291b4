//! Encodes packets.

use super::super::field::{MAX_VARINT, fit, put_binary, put_text, put_u16, put_varint, varint_len};
use super::super::packet::*;
use super::super::property::{Properties, PropertiesBuf};
use super::super::reason::ReasonCode;
use super::codes;
use crate::wire::QoS;

use ProtocolVersion::{V5, V31};

/// Appends a packet to `out` in the shortest form that the version allows. A CONNECT is encoded in
/// its own version.
///
/// Fields that a version does not have are omitted. In MQTT 3 these are properties, reason codes
/// (mapped where there are return codes), subscription options, a password without a user name, and
/// AUTH packets as a whole. Text and data longer than 65,535 bytes are cut. A packet longer than
/// [`MAX_PACKET_SIZE`](super::MAX_PACKET_SIZE) is not appended.
pub fn encode(packet: &Packet<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    match packet {
        Packet::Publish(publish) => encode_publish(publish, version, out),
        Packet::Connect(connect) => frame(0x10, out, |out| put_connect(connect, out)),
        Packet::ConnAck(connack) => frame(0x20, out, |out| put_connack(connack, version, out)),
        Packet::PubAck(ack) => frame(0x40, out, |out| put_ack(ack, version, out)),
        Packet::PubRec(ack) => frame(0x50, out, |out| put_ack(ack, version, out)),
        Packet::PubRel(ack) => frame(0x62, out, |out| put_ack(ack, version, out)),
        Packet::PubComp(ack) => frame(0x70, out, |out| put_ack(ack, version, out)),
        Packet::Subscribe(subscribe) => {
            frame(0x82, out, |out| put_subscribe(subscribe, version, out));
        }
        Packet::SubAck(suback) => frame(0x90, out, |out| put_suback(suback, version, out)),
        Packet::Unsubscribe(unsubscribe) => {
            frame(0xa2, out, |out| put_unsubscribe(unsubscribe, version, out));
        }
        Packet::UnsubAck(unsuback) => frame(0xb0, out, |out| put_unsuback(unsuback, version, out)),
        Packet::PingReq => out.extend_from_slice(&[0xc0, 0]),
        Packet::PingResp => out.extend_from_slice(&[0xd0, 0]),
        Packet::Disconnect(end) => frame(0xe0, out, |out| {
            put_reason_and_properties(end.reason, end.properties, version, out);
        }),
        Packet::Auth(auth) if version == V5 => frame(0xf0, out, |out| {
            put_reason_and_properties(auth.reason, auth.properties, version, out);
        }),
        Packet::Auth(_) => {}
    }
}

/// Appends a packet to `out` if it takes at most `max_packet_size` bytes. A packet that is too long
/// is encoded without its reason string and user properties \[MQTT-3.2.2-19, MQTT-3.2.2-20,
/// MQTT-3.4.2-2, MQTT-3.4.2-3 and others\]. A PUBLISH keeps its user properties \[MQTT-3.3.2-17\].
///
/// Returns whether the packet was appended. If not, `out` is unchanged.
pub fn encode_within(
    packet: &Packet<'_>,
    version: ProtocolVersion,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    let max = max_packet_size as usize;
    let appended = |out: &Vec<u8>| (1..=max).contains(&(out.len() - start));
    if let Packet::Publish(publish) = packet {
        if publish_len(publish, version) > max {
            return false;
        }
        encode_publish(publish, version, out);
        return appended(out);
    }
    encode(packet, version, out);
    if appended(out) {
        return true;
    }
    out.truncate(start);
    let mut copy = PropertiesBuf::new();
    let mut bare = packet.clone();
    let Some(properties) = removable_properties(&mut bare) else {
        return false;
    };
    *properties = properties.without_problem_information(&mut copy);
    encode(&bare, version, out);
    if !appended(out) {
        out.truncate(start);
    }
    out.len() > start
}

/// Appends a PUBLISH to `out`. The hot path of [`encode`], inlined where deliveries are encoded.
#[inline]
pub fn encode_publish(publish: &Publish<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    let remaining = remaining_len(publish, version);
    if remaining > MAX_VARINT {
        return;
    }
    out.reserve(1 + varint_len(remaining) + remaining);
    put_publish_header(publish, remaining, version, out);
    out.extend_from_slice(publish.payload);
}

/// Appends a PUBLISH without its payload, which the caller writes after it. Appends nothing if the
/// packet is longer than MQTT allows.
pub fn encode_publish_header(publish: &Publish<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    let remaining = remaining_len(publish, version);
    if remaining <= MAX_VARINT {
        put_publish_header(publish, remaining, version, out);
    }
}

#[inline]
fn put_publish_header(
    publish: &Publish<'_>,
    remaining: usize,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) {
    debug_assert_eq!(
        publish.packet_id.is_some(),
        publish.qos != QoS::AtMostOnce,
        "a packet identifier exactly with QoS 1 and 2 [MQTT-2.2.1-2]"
    );
    let topic = fit(publish.topic);
    // [MQTT-3.3.1-2]: no DUP with QoS 0.
    let dup = publish.dup && publish.qos != QoS::AtMostOnce;
    out.push(0x30 | u8::from(dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain));
    put_varint(out, remaining);
    put_u16(out, topic.len() as u16);
    out.extend_from_slice(topic.as_bytes());
    if let Some(packet_id) = publish.packet_id {
        put_u16(out, packet_id.get());
    }
    put_properties(publish.properties, version, out);
}

/// Returns the length in bytes of the frame that [`encode_publish`] would append. For a packet that
/// is too long for MQTT the length is more than [`MAX_PACKET_SIZE`](super::MAX_PACKET_SIZE).
#[inline]
pub fn publish_len(publish: &Publish<'_>, version: ProtocolVersion) -> usize {
    let remaining = remaining_len(publish, version);
    1 + varint_len(remaining) + remaining
}

#[inline]
fn remaining_len(publish: &Publish<'_>, version: ProtocolVersion) -> usize {
    let properties = match version {
        V5 => {
            let len = publish.properties.as_bytes().len();
            varint_len(len) + len
        }
        _ => 0,
    };
    let packet_id = if publish.packet_id.is_some() { 2 } else { 0 };
    2 + fit(publish.topic).len() + packet_id + properties + publish.payload.len()
}

/// Returns the properties of a packet from which reason string and user properties may be removed.
fn removable_properties<'p, 'a>(packet: &'p mut Packet<'a>) -> Option<&'p mut Properties<'a>> {
    match packet {
        Packet::ConnAck(connack) => Some(&mut connack.properties),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            Some(&mut ack.properties)
        }
        Packet::SubAck(suback) | Packet::UnsubAck(suback) => Some(&mut suback.properties),
        Packet::Disconnect(end) | Packet::Auth(end) => Some(&mut end.properties),
        _ => None,
    }
}

/// Appends a frame whose body is appended by `body`. Few bodies are longer than 127 bytes; those
/// are moved to make room for a longer length field.
fn frame(first: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[first, 0]);
    body(out);
    let remaining = out.len() - start - 2;
    if remaining < 0x80 {
        out[start + 1] = remaining as u8;
    } else if remaining <= MAX_VARINT {
        let mut length = Vec::with_capacity(4);
        put_varint(&mut length, remaining);
        out.splice(start + 1..start + 2, length);
    } else {
        out.truncate(start);
    }
}

#[inline]
fn put_properties(properties: Properties<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    if version == V5 {
        put_varint(out, properties.as_bytes().len());
        out.extend_from_slice(properties.as_bytes());
    }
}

fn put_connect(connect: &Connect<'_>, out: &mut Vec<u8>) {
    let version = connect.version;
    let (name, level) = match version {
        V31 => ("MQIsdp", 3),
        ProtocolVersion::V311 => ("MQTT", 4),
        V5 => ("MQTT", 5),
    };
    let bridge = connect.bridge && version != V5;
    let password = connect
        .password
        .filter(|_| version == V5 || connect.username.is_some());
    let mut flags = u8::from(connect.clean_start) << 1
        | u8::from(connect.username.is_some()) << 7
        | u8::from(password.is_some()) << 6;
    if let Some(will) = &connect.will {
        flags |= 1 << 2 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
    }
    put_text(out, name);
    out.extend_from_slice(&[level | u8::from(bridge) << 7, flags]);
    put_u16(out, connect.keep_alive);
    put_properties(connect.properties, version, out);
    put_text(out, connect.client_id);
    if let Some(will) = &connect.will {
        put_properties(will.properties, version, out);
        put_text(out, will.topic);
        put_binary(out, will.payload);
    }
    if let Some(username) = connect.username {
        put_text(out, username);
    }
    if let Some(password) = password {
        put_binary(out, password);
    }
}

fn put_connack(connack: &ConnAck<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    // [MQTT-3.2.2-6]: a refusal has no session. A MQTT 3.1 CONNACK has no such flag.
    let present =
        connack.session_present && version != V31 && connack.reason == ReasonCode::Success;
    let code = match version {
        V5 => connack.reason.as_u8(),
        _ => codes::return_code(connack.reason),
    };
    out.extend_from_slice(&[u8::from(present), code]);
    put_properties(connack.properties, version, out);
}

fn put_ack(ack: &Ack<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    put_u16(out, ack.packet_id.get());
    put_reason_and_properties(ack.reason, ack.properties, version, out);
}

/// Appends a reason code and properties. Omits them if they are success and empty.
fn put_reason_and_properties(
    reason: ReasonCode,
    properties: Properties<'_>,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) {
    if version != V5 || (reason == ReasonCode::Success && properties.is_empty()) {
        return;
    }
    out.push(reason.as_u8());
    if !properties.is_empty() {
        put_properties(properties, version, out);
    }
}

fn put_subscribe(subscribe: &Subscribe<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    put_u16(out, subscribe.packet_id.get());
    put_properties(subscribe.properties, version, out);
    for (filter, options) in &subscribe.filters {
        put_text(out, filter);
        let mut bits = options.qos as u8;
        if version == V5 {
            bits |= u8::from(options.no_local) << 2
                | u8::from(options.retain_as_published) << 3
                | (options.retain_handling as u8) << 4;
        }
        out.push(bits);
    }
}

fn put_suback(suback: &SubAck<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    put_u16(out, suback.packet_id.get());
    put_properties(suback.properties, version, out);
    out.extend(suback.codes.iter().map(|code| match version {
        V5 => code.as_u8(),
        _ => codes::suback_code(*code),
    }));
}

fn put_unsubscribe(unsubscribe: &Unsubscribe<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    put_u16(out, unsubscribe.packet_id.get());
    put_properties(unsubscribe.properties, version, out);
    for filter in &unsubscribe.filters {
        put_text(out, filter);
    }
}

fn put_unsuback(unsuback: &SubAck<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    put_u16(out, unsuback.packet_id.get());
    if version == V5 {
        put_properties(unsuback.properties, version, out);
        out.extend(unsuback.codes.iter().map(|code| code.as_u8()));
    }
}
