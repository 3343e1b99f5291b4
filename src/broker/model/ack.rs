//! Acknowledgements.

use crate::wire::packet::Ack;
use crate::wire::{PacketId, Properties, ReasonCode};

/// An acknowledgement without properties.
pub fn ack(packet_id: PacketId, reason: ReasonCode) -> Ack<'static> {
    Ack {
        packet_id,
        reason,
        properties: Properties::EMPTY,
    }
}
