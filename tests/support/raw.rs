//! Packets as bytes: illegal ones, and those that mqttbytes cannot encode.

use crate::packet::{Properties, Value};

/// Builds a frame: first byte, remaining length, body.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    out.extend(length(body.len() as u32));
    out.extend_from_slice(body);
    out
}

/// Encodes a variable byte integer in the shortest form.
pub fn length(mut value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

/// Puts the two-byte length in front of a string or binary data.
pub fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// Concatenates byte strings.
pub fn concat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Encodes a property block with its length.
pub fn properties(properties: &Properties) -> Vec<u8> {
    let mut block = Vec::new();
    for (id, value) in &properties.0 {
        block.push(*id);
        match value {
            Value::Byte(value) => block.push(*value),
            Value::Two(value) => block.extend(value.to_be_bytes()),
            Value::Four(value) => block.extend(value.to_be_bytes()),
            Value::Var(value) => block.extend(length(*value)),
            Value::Text(value) => block.extend(string(value)),
            Value::Binary(value) => block.extend(string(value)),
            Value::Pair(name, value) => {
                block.extend(string(name));
                block.extend(string(value));
            }
        }
    }
    let mut out = length(block.len() as u32);
    out.extend(block);
    out
}

/// Builds a CONNECT: protocol name, level, flags, keep alive 0, and the rest.
pub fn connect(name: &str, level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    frame(0x10, &concat(&[&string(name), &[level, flags, 0, 0], rest]))
}

/// Builds a PUBLISH of MQTT 5 with a property block given as bytes without its length.
pub fn publish5(first: u8, topic: &[u8], id: Option<u16>, block: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = string(topic);
    if let Some(id) = id {
        body.extend(id.to_be_bytes());
    }
    body.extend(length(block.len() as u32));
    body.extend_from_slice(block);
    body.extend_from_slice(payload);
    frame(first, &body)
}

/// Builds a SUBSCRIBE of MQTT 5 to one filter, with a property block given as bytes without its
/// length.
pub fn subscribe5(first: u8, id: u16, block: &[u8], filter: &[u8], options: u8) -> Vec<u8> {
    let id = id.to_be_bytes();
    let len = length(block.len() as u32);
    frame(
        first,
        &concat(&[&id, &len, block, &string(filter), &[options]]),
    )
}

/// Builds a SUBSCRIBE of MQTT 3 to one filter.
pub fn subscribe3(first: u8, id: u16, filter: &[u8], qos: u8) -> Vec<u8> {
    frame(
        first,
        &concat(&[&id.to_be_bytes(), &string(filter), &[qos]]),
    )
}
