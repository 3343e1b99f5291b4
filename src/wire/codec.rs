//! Bytes to packets and back.

use super::packet::{Packet, ProtocolVersion, Publish};
use super::reason::Fault;

/// The length of the first whole frame in `bytes`, `None` if more bytes are needed.
///
/// # Errors
/// 0x81 for a remaining length that does not end within four bytes or is not minimal; 0x95 for a frame longer than `max_packet_size` bytes in
/// all, known as soon as its header is there.
pub fn frame_len(bytes: &[u8], max_packet_size: u32) -> Result<Option<usize>, Fault> {
    let _ = (bytes, max_packet_size);
    Ok(None)
}

/// Decodes one whole frame. `version` is what the connection speaks; a CONNECT says its own.
///
/// # Errors
/// 0x81 and 0x82 told apart as the standard does, 0x84 for a CONNECT of an unknown version, 0x90 and so on where a code is
/// exact. The caller closes the connection; nothing of the packet is used.
pub fn decode(frame: &[u8], version: ProtocolVersion) -> Result<Packet<'_>, Fault> {
    let _ = (frame, version);
    Ok(Packet::PingReq)
}

/// Appends a packet to `out`.
pub fn encode(packet: &Packet<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    let _ = (packet, version, out);
}

/// Appends a PUBLISH to `out`: the hot path of [`encode`], inlined where deliveries are made.
pub fn encode_publish(publish: &Publish<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    let _ = (publish, version, out);
}

/// The length in bytes of the frame that [`encode_publish`] would append.
pub fn publish_len(publish: &Publish<'_>, version: ProtocolVersion) -> usize {
    let _ = (publish, version);
    0
}
