//! Decodes and encodes packets.
//!
//! mqttbytes finds the end of a frame. This module decodes and encodes the bodies of all three
//! protocol versions with one packet model. Both sides of a connection use the same codec: the
//! caller checks whether its peer may send a packet, and when.

mod codes;
mod decode;
mod encode;

pub use decode::{PublishHeader, decode, publish_header};
pub use encode::{encode, encode_publish, encode_publish_header, encode_within, publish_len};

use super::field::MAX_VARINT;
use super::packet::ProtocolVersion;
use super::reason::{Fault, ReasonCode};

/// The length of the longest packet in bytes: type, length field and the largest remaining length.
pub const MAX_PACKET_SIZE: u32 = 1 + 4 + MAX_VARINT as u32;

/// Returns the length in bytes of the first frame in `bytes`, `None` if it is not complete.
///
/// # Errors
/// 0x81 for a remaining length that does not end within four bytes or is not minimal. 0x95 for a
/// frame of more than `max_packet_size` bytes, even before it is complete.
#[inline]
pub fn frame_len(bytes: &[u8], max_packet_size: u32) -> Result<Option<usize>, Fault> {
    let (len, whole) = match mqttbytes::check(bytes.iter(), usize::MAX) {
        Ok(header) => (header.frame_length(), true),
        // A lower bound while the length field is incomplete, exact after that.
        Err(mqttbytes::Error::InsufficientBytes(missing)) => {
            (bytes.len().saturating_add(missing), false)
        }
        Err(_) => {
            return Err(Fault::malformed(
                "remaining length does not end within four bytes",
            ));
        }
    };
    let mut length_field = bytes.iter().skip(1).take(4).enumerate();
    // mqttbytes accepts `80 00` as 0; the standard does not [MQTT-1.5.5-1].
    if let Some((1.., 0)) = length_field.find(|(_, byte)| **byte < 0x80) {
        return Err(Fault::malformed("remaining length is not minimal"));
    }
    if len > max_packet_size as usize {
        return Err(Fault::new(
            ReasonCode::PacketTooLarge,
            "packet is larger than the maximum packet size",
        ));
    }
    Ok(whole.then_some(len))
}

/// Returns the version that a CONNECT asks for, even if the rest of it is malformed. Returns `None`
/// if the frame is no CONNECT or its version is not supported.
///
/// The answer to a CONNECT that is refused is encoded in this version.
pub fn version_of_connect(frame: &[u8]) -> Option<ProtocolVersion> {
    let (kind, rest) = frame.split_first()?;
    let length = rest.iter().position(|byte| *byte < 0x80)?;
    let body = rest.get(length + 1..).filter(|_| kind >> 4 == 1)?;
    let level = match body {
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] => level & 0x7F,
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..] if level & 0x7F == 3 => 3,
        _ => return None,
    };
    match level {
        3 => Some(ProtocolVersion::V31),
        4 => Some(ProtocolVersion::V311),
        5 => Some(ProtocolVersion::V5),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
