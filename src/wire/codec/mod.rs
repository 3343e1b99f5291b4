//! Bytes to packets and back.
//!
//! mqttbytes finds where a frame ends; the bodies of all three protocol versions are read and written here, into and from one packet model. The
//! same codec serves both sides of a connection: whether a packet may come from this peer, and now, is for the caller to say.

mod codes;
mod decode;
mod encode;

pub use decode::{PublishHead, decode, publish_head};
pub use encode::{encode, encode_publish, encode_publish_head, encode_within, publish_len};

use super::field::MAX_VARINT;
use super::packet::ProtocolVersion;
use super::reason::{Fault, ReasonCode};

/// The longest packet there can be, in bytes: type, length and the largest remaining length.
pub const MAX_PACKET_SIZE: u32 = 1 + 4 + MAX_VARINT as u32;

/// The length of the first whole frame in `bytes`, `None` if more bytes are needed.
///
/// # Errors
/// 0x81 for a remaining length that does not end within four bytes or is not minimal; 0x95 for a frame longer than `max_packet_size` bytes in
/// all, known as soon as its header is there.
#[inline]
pub fn frame_len(bytes: &[u8], max_packet_size: u32) -> Result<Option<usize>, Fault> {
    let (len, whole) = match mqttbytes::check(bytes.iter(), usize::MAX) {
        Ok(header) => (header.frame_length(), true),
        // At least this long: exactly, once the whole length is there.
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
    // mqttbytes takes `80 00` for 0; the standard does not [MQTT-1.5.5-1].
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

/// The version a CONNECT asks for, even if the rest of it is malformed; `None` if the frame is no CONNECT, or of no version that is served. With
/// it a connection that cannot be accepted can be answered in its own words.
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
