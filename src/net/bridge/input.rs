//! Bytes from the upstream that are not handled yet. Packets that are too large are skipped, and
//! never kept.

use crate::broker::bridge::Leave;
use crate::wire::codec::{self, PublishHeader};
use crate::wire::{Fault, ReasonCode};

/// Bytes from the upstream.
#[derive(Debug, Default)]
pub struct Input {
    /// Bytes that came and are not handled.
    pub bytes: Vec<u8>,
    /// Bytes to come of a packet that is skipped.
    skip: usize,
}

/// The next packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A whole packet.
    Frame(&'a [u8]),
    /// The start of a PUBLISH that is too large. The rest of it is skipped.
    TooLarge(PublishHeader<'a>),
    /// More bytes are needed.
    Nothing,
}

impl Input {
    /// Starts with these bytes.
    pub fn new(bytes: Vec<u8>) -> Input {
        Input { bytes, skip: 0 }
    }

    /// Returns whether a packet has begun and not ended.
    pub fn is_within_packet(&self) -> bool {
        self.skip > 0 || !self.bytes.is_empty()
    }

    /// Returns the packet at offset `used`, and advances `used` behind it.
    ///
    /// # Errors
    /// The upstream breaks the protocol; or a packet other than PUBLISH is larger than `largest`.
    pub fn next(&mut self, used: &mut usize, largest: u32) -> Result<Next<'_>, Leave> {
        let past = self.skip.min(self.bytes.len() - *used);
        self.skip -= past;
        *used += past;
        let rest = &self.bytes[*used..];
        match codec::frame_len(rest, largest) {
            Ok(None) => Ok(Next::Nothing),
            Ok(Some(length)) => {
                *used += length;
                Ok(Next::Frame(&rest[..length]))
            }
            Err(Fault {
                reason: ReasonCode::PacketTooLarge,
                ..
            }) if rest[0] >> 4 == 3 => match codec::publish_header(rest)? {
                None => Ok(Next::Nothing),
                Some(head) => {
                    let here = head.length.min(rest.len());
                    self.skip = head.length - here;
                    *used += here;
                    Ok(Next::TooLarge(head))
                }
            },
            Err(fault) => Err(fault.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::Publish;
    use crate::wire::{Packet, PacketId, Properties, ProtocolVersion, QoS};

    /// Three messages, the second of which is too large.
    fn stream(payload: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let large = vec![b'x'; payload];
        for (topic, payload) in [("a", &b"1"[..]), ("large/topic", &large), ("b", b"2")] {
            let publish = Packet::Publish(Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic,
                packet_id: PacketId::new(7),
                properties: Properties::EMPTY,
                payload,
            });
            codec::encode(&publish, ProtocolVersion::V311, &mut bytes);
        }
        bytes
    }

    /// Reads these bytes in pieces. Returns the packets, and the most bytes that were kept.
    fn read(bytes: &[u8], piece: usize, largest: u32) -> (Vec<String>, usize) {
        let (mut input, mut seen, mut kept) = (Input::default(), Vec::new(), 0);
        for piece in bytes.chunks(piece) {
            input.bytes.extend_from_slice(piece);
            let mut used = 0;
            loop {
                match input.next(&mut used, largest).expect("no fault") {
                    Next::Nothing => break,
                    Next::Frame(frame) => seen.push(format!("{} bytes", frame.len())),
                    Next::TooLarge(head) => {
                        let id = head.packet_id.map(PacketId::get);
                        seen.push(format!("{} {id:?} {}", head.topic, head.length));
                    }
                }
            }
            input.bytes.drain(..used);
            kept = kept.max(input.bytes.len());
        }
        assert!(!input.is_within_packet());
        (seen, kept)
    }

    #[test]
    fn a_message_that_is_too_large_is_read_past_and_never_kept() {
        let bytes = stream(300_000);
        for piece in [1, 7, 1000, 65_536, bytes.len()] {
            let (seen, kept) = read(&bytes, piece, 1000);
            let expected = ["8 bytes", "large/topic Some(7) 300019", "8 bytes"];
            assert_eq!(seen, expected, "in pieces of {piece}");
            assert!(kept <= 20, "{kept} bytes kept in pieces of {piece}");
        }
        let (seen, _) = read(&bytes, 1000, 400_000);
        assert_eq!(seen, ["8 bytes", "300019 bytes", "8 bytes"]);
    }

    #[test]
    fn another_packet_that_is_too_large_is_a_fault() {
        let mut input = Input::new(vec![0x90, 0xFF, 0x7F]);
        let fault = input.next(&mut 0, 1000).expect_err("too large");
        assert!(fault.to_string().contains("PacketTooLarge"), "{fault}");
        let mut input = Input::new(vec![0x36, 0xFF, 0x7F, 0, 1, b'a', 0, 1]);
        assert!(input.next(&mut 0, 1000).is_err(), "QoS 3");
    }
}
