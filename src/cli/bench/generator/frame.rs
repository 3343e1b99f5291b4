//! A minimal decoder for packets from the broker, and the header of the payloads.

use crate::wire::ProtocolVersion;

/// Length of a [`PayloadHeader`] in bytes, which is the smallest payload.
pub const PAYLOAD_HEADER_BYTES: usize = 24;

/// A packet from the broker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Frame<'a> {
    /// A message.
    Publish {
        /// QoS: 0, 1 or 2.
        qos: u8,
        /// Packet identifier; 0 for QoS 0.
        id: u16,
        /// Payload.
        payload: &'a [u8],
    },
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack {
        /// Packet type: 4 to 7.
        kind: u8,
        /// Packet identifier.
        id: u16,
        /// Reason code: 0 in MQTT 3.
        reason: u8,
    },
    /// Any other packet as a whole.
    Other(&'a [u8]),
}

/// The header at the beginning of every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadHeader {
    /// The run.
    pub run: u32,
    /// The flow: one publisher and one topic.
    pub flow: u32,
    /// Number in the flow, from 0.
    pub seq: u64,
    /// Scheduled time in nanoseconds of the run.
    pub at: u64,
}

impl PayloadHeader {
    /// Encodes the header.
    pub fn bytes(&self) -> [u8; PAYLOAD_HEADER_BYTES] {
        let mut bytes = [0; PAYLOAD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.run.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.flow.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..].copy_from_slice(&self.at.to_le_bytes());
        bytes
    }

    /// Decodes the header of a payload. `None` if the payload is too short.
    #[inline]
    pub fn of(payload: &[u8]) -> Option<PayloadHeader> {
        let (bytes, _) = payload.split_first_chunk::<PAYLOAD_HEADER_BYTES>()?;
        let (run, rest) = bytes.split_first_chunk::<4>()?;
        let (flow, rest) = rest.split_first_chunk::<4>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let (at, _) = rest.split_first_chunk::<8>()?;
        Some(PayloadHeader {
            run: u32::from_le_bytes(*run),
            flow: u32::from_le_bytes(*flow),
            seq: u64::from_le_bytes(*seq),
            at: u64::from_le_bytes(*at),
        })
    }
}

/// Returns the first packet of `bytes` and its length. `None` if it is not complete.
///
/// # Errors
/// Describes why it is not a packet.
#[inline]
pub fn first(
    bytes: &[u8],
    version: ProtocolVersion,
) -> Result<Option<(Frame<'_>, usize)>, &'static str> {
    let Some((body_at, len)) = extent(bytes)? else {
        return Ok(None);
    };
    let Some(frame) = bytes.get(..len) else {
        return Ok(None);
    };
    let body = &frame[body_at..];
    let found = match frame[0] >> 4 {
        3 => publish(frame[0], body, version).ok_or("a PUBLISH that is too short")?,
        kind @ 4..=7 => match *body {
            [high, low] => ack(kind, high, low, 0),
            [high, low, reason, ..] => ack(kind, high, low, reason),
            _ => return Err("an acknowledgement that is too short"),
        },
        _ => Frame::Other(frame),
    };
    Ok(Some((found, len)))
}

/// Returns where the body of the first packet begins and ends.
#[inline]
fn extent(bytes: &[u8]) -> Result<Option<(usize, usize)>, &'static str> {
    let mut remaining = 0;
    for (at, byte) in bytes.iter().enumerate().skip(1).take(4) {
        remaining |= usize::from(byte & 0x7F) << (7 * (at - 1));
        if *byte < 0x80 {
            return Ok(Some((at + 1, at + 1 + remaining)));
        }
    }
    if bytes.len() > 4 {
        Err("a remaining length that does not end")
    } else {
        Ok(None)
    }
}

#[inline]
fn publish(first: u8, body: &[u8], version: ProtocolVersion) -> Option<Frame<'_>> {
    let (topic_len, rest) = body.split_first_chunk::<2>()?;
    let mut rest = rest.get(usize::from(u16::from_be_bytes(*topic_len))..)?;
    let qos = first >> 1 & 3;
    let mut id = 0;
    if qos > 0 {
        let (bytes, after) = rest.split_first_chunk::<2>()?;
        id = u16::from_be_bytes(*bytes);
        rest = after;
    }
    if version == ProtocolVersion::V5 {
        let mut properties = 0;
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first()?;
            rest = after;
            properties |= usize::from(byte & 0x7F) << shift;
            if *byte < 0x80 {
                break;
            }
            shift += 7;
            if shift > 21 {
                return None;
            }
        }
        rest = rest.get(properties..)?;
    }
    Some(Frame::Publish {
        qos,
        id,
        payload: rest,
    })
}

const fn ack(kind: u8, high: u8, low: u8, reason: u8) -> Frame<'static> {
    Frame::Ack {
        kind,
        id: u16::from_be_bytes([high, low]),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::{Ack, Publish};
    use crate::wire::{
        Packet, PacketId, Properties, PropertiesBuf, Property, QoS, ReasonCode, codec,
    };

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let header = PayloadHeader {
            run: 1,
            flow: 2,
            seq: u64::MAX - 1,
            at: 4,
        };
        assert_eq!(PayloadHeader::of(&header.bytes()), Some(header));
        assert_eq!(PayloadHeader::of(&header.bytes()[1..]), None);
    }

    #[test]
    fn a_message_is_found_as_the_codec_writes_it() {
        let mut block = PropertiesBuf::new();
        block.push(Property::UserProperty("key", &"v".repeat(200)));
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            for (qos, id) in [(QoS::AtMostOnce, 0), (QoS::ExactlyOnce, 513)] {
                for payload in [&b"hello"[..], &[7; 300]] {
                    let publish = Packet::Publish(Publish {
                        dup: false,
                        qos,
                        retain: true,
                        topic: "a/b",
                        packet_id: PacketId::new(id),
                        properties: block.as_properties(),
                        payload,
                    });
                    let mut bytes = Vec::new();
                    codec::encode(&publish, version, &mut bytes);
                    let wanted = Frame::Publish {
                        qos: qos as u8,
                        id,
                        payload,
                    };
                    assert_eq!(first(&bytes, version), Ok(Some((wanted, bytes.len()))));
                    for end in 0..bytes.len() {
                        assert_eq!(first(&bytes[..end], version), Ok(None));
                    }
                }
            }
        }
    }

    #[test]
    fn acknowledgements_have_a_reason_in_mqtt_5() {
        let id = PacketId::new(258).expect("not zero");
        let ack = |reason| {
            let packet = Packet::PubRec(Ack {
                packet_id: id,
                reason,
                properties: Properties::EMPTY,
            });
            let mut bytes = Vec::new();
            codec::encode(&packet, ProtocolVersion::V5, &mut bytes);
            bytes
        };
        let found = |bytes: &[u8]| match first(bytes, ProtocolVersion::V5) {
            Ok(Some((Frame::Ack { kind, id, reason }, _))) => (kind, id, reason),
            other => panic!("{other:?}"),
        };
        assert_eq!(found(&ack(ReasonCode::Success)), (5, 258, 0));
        assert_eq!(found(&ack(ReasonCode::QuotaExceeded)), (5, 258, 0x97));
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        let v5 = ProtocolVersion::V5;
        assert!(first(&[0x30, 0x80, 0x80, 0x80, 0x80, 1], v5).is_err());
        assert!(first(&[0x30, 1, 0], v5).is_err());
        assert!(first(&[0x30, 3, 0, 9, 1], v5).is_err());
        assert!(first(&[0x40, 1, 0], v5).is_err());
        assert!(first(&[0x30, 6, 0, 0, 0x80, 0x80, 0x80, 0x80], v5).is_err());
        assert_eq!(
            first(&[0xD0, 0], v5),
            Ok(Some((Frame::Other(&[0xD0, 0]), 2)))
        );
    }
}
