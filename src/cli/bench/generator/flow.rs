//! Publishers and their flows. A flow is the messages of one publisher on one topic, numbered from
//! 0.

use std::ops::Range;

use super::frame::{PAYLOAD_HEADER_BYTES, PayloadHeader};
use crate::wire::packet::Publish;
use crate::wire::{PacketId, Properties, ProtocolVersion, QoS, codec};

/// The parameters of messages.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// QoS of the PUBLISH.
    pub qos: QoS,
    /// Length of the payload in bytes, at least that of its header.
    pub size: usize,
    /// Retain flag.
    pub retain: bool,
    /// Maximum number of messages in flight.
    pub window: u32,
    /// How many receivers a message must reach before it leaves the window. 0 to wait for none.
    pub receivers: u32,
}

/// One publisher's messages on one topic.
#[derive(Debug)]
pub struct Flow {
    /// Publisher.
    pub publisher: u32,
    /// Number of the next message.
    pub next_seq: u64,
    /// The packet, complete except for packet identifier and payload header.
    template: Vec<u8>,
    id_at: usize,
    header_at: usize,
    /// How many receivers each message must reach; 0 to count none.
    receivers: u32,
    /// For each message from `floor` on, how many receivers it has reached. Indexed by the low bits
    /// of its number.
    reached: Vec<u32>,
    first_awaited: u64,
}

impl Flow {
    /// Creates a flow to this topic.
    pub fn new(publisher: u32, topic: &str, shape: &Shape, version: ProtocolVersion) -> Flow {
        let size = shape.size.max(PAYLOAD_HEADER_BYTES);
        let payload: Vec<u8> = (0..size).map(|at| b'a' + (at % 26) as u8).collect();
        let publish = Publish {
            dup: false,
            qos: shape.qos,
            retain: shape.retain,
            topic,
            packet_id: (shape.qos != QoS::AtMostOnce).then_some(PacketId::FIRST),
            properties: Properties::EMPTY,
            payload: &payload,
        };
        let mut template = Vec::new();
        codec::encode_publish(&publish, version, &mut template);
        let header_at = template.len() - size;
        let block = usize::from(version == ProtocolVersion::V5);
        let slots = match shape.receivers {
            0 => 0,
            _ => (shape.window as usize).next_power_of_two(),
        };
        Flow {
            publisher,
            next_seq: 0,
            id_at: header_at - block - 2,
            header_at,
            template,
            receivers: shape.receivers,
            reached: vec![0; slots],
            first_awaited: 0,
        }
    }

    /// Appends a message. It differs from the previous one only in payload header and packet
    /// identifier.
    #[inline]
    pub fn write(&mut self, id: u16, header: &PayloadHeader, dup: bool, out: &mut Vec<u8>) {
        if id != 0 {
            self.template[self.id_at..self.id_at + 2].copy_from_slice(&id.to_be_bytes());
        }
        self.template[self.header_at..self.header_at + PAYLOAD_HEADER_BYTES]
            .copy_from_slice(&header.bytes());
        let start = out.len();
        out.extend_from_slice(&self.template);
        if dup {
            out[start] |= 8;
        }
    }

    /// Counts that a message has reached a receiver. Returns how many messages have reached all
    /// receivers now.
    #[inline]
    pub fn record_reached(&mut self, seq: u64) -> u32 {
        if seq < self.first_awaited || seq >= self.next_seq || self.reached.is_empty() {
            return 0;
        }
        let mask = self.reached.len() - 1;
        self.reached[seq as usize & mask] += 1;
        let before = self.first_awaited;
        while self.first_awaited < self.next_seq
            && self.reached[self.first_awaited as usize & mask] >= self.receivers
        {
            self.reached[self.first_awaited as usize & mask] = 0;
            self.first_awaited += 1;
        }
        (self.first_awaited - before) as u32
    }

    /// Stops waiting for messages in flight.
    pub fn give_up(&mut self) {
        self.reached.fill(0);
        self.first_awaited = self.next_seq;
    }

    /// Returns whether messages stay in the window until they have arrived.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        !self.reached.is_empty()
    }
}

/// A message that is not acknowledged yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// State.
    pub state: SlotState,
    /// Flow.
    pub flow: u32,
    /// Number in the flow.
    pub seq: u64,
    /// Scheduled time.
    pub at: u64,
}

/// The state of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotState {
    /// The packet identifier is free.
    #[default]
    Free,
    /// PUBLISH sent.
    Sent,
    /// PUBREL sent.
    Released,
}

/// A client that sends flows.
#[derive(Debug)]
pub struct Publisher {
    /// Connection.
    pub peer: u32,
    /// Flows, which are used in turn.
    pub flows: Range<u32>,
    /// The next flow.
    pub next_flow: u32,
    /// QoS as a number.
    pub qos: u8,
    /// Maximum number of messages in flight.
    pub window: u32,
    /// Number of messages without an acknowledgement.
    pub unacknowledged: u32,
    /// Number of messages that have not reached all receivers.
    pub unreached: u32,
    /// Number of messages sent.
    pub sent: u64,
    /// How many messages it may send, by rate or by number.
    pub allowed: u64,
    /// Whether it is in the list of publishers that may be able to send.
    pub ready: bool,
    /// Messages by packet identifier.
    pub slots: Vec<Slot>,
    next_id: u16,
}

impl Publisher {
    /// Creates a publisher of these flows.
    pub fn new(peer: u32, flows: Range<u32>, shape: &Shape) -> Publisher {
        let slots = match shape.qos {
            QoS::AtMostOnce => 0,
            _ => (shape.window as usize * 2 + 1).min(65_536),
        };
        Publisher {
            peer,
            next_flow: flows.start,
            flows,
            qos: shape.qos as u8,
            window: shape.window,
            unacknowledged: 0,
            unreached: 0,
            sent: 0,
            allowed: u64::MAX,
            ready: false,
            slots: vec![Slot::default(); slots],
            next_id: 0,
        }
    }

    /// Returns whether it may send another message.
    #[inline]
    pub fn may_send(&self) -> bool {
        self.unacknowledged < self.window
            && self.unreached < self.window
            && self.sent < self.allowed
    }

    /// Returns the next flow.
    #[inline]
    pub fn take_flow(&mut self) -> u32 {
        let flow = self.next_flow;
        self.next_flow += 1;
        if self.next_flow == self.flows.end {
            self.next_flow = self.flows.start;
        }
        flow
    }

    /// Takes a packet identifier, 0 for QoS 0. One is free if [`Publisher::may_send`].
    #[inline]
    pub fn take_id(&mut self, slot: Slot) -> u16 {
        if self.qos == 0 {
            return 0;
        }
        loop {
            self.next_id += 1;
            if usize::from(self.next_id) >= self.slots.len() {
                self.next_id = 1;
            }
            let place = &mut self.slots[usize::from(self.next_id)];
            if place.state == SlotState::Free {
                *place = slot;
                self.unacknowledged += 1;
                return self.next_id;
            }
        }
    }

    /// Handles PUBACK (4), PUBREC (5) or PUBCOMP (7). Returns whether that ends the message, `None`
    /// if no message expects it.
    #[inline]
    pub fn acknowledge(&mut self, kind: u8, id: u16, refused: bool) -> Option<bool> {
        let slot = self.slots.get_mut(usize::from(id))?;
        slot.state = match (kind, self.qos, slot.state) {
            (4, 1, SlotState::Sent) | (7, 2, SlotState::Released) => SlotState::Free,
            (5, 2, SlotState::Sent) if refused => SlotState::Free,
            (5, 2, SlotState::Sent) => SlotState::Released,
            // A repeated PUBREC is answered again.
            (5, 2, SlotState::Released) => SlotState::Released,
            _ => return None,
        };
        let ended = slot.state == SlotState::Free;
        self.unacknowledged -= u32::from(ended);
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        qos: QoS::ExactlyOnce,
        size: 64,
        retain: false,
        window: 4,
        receivers: 2,
    };

    #[test]
    fn a_message_is_what_the_codec_reads() {
        let mut flow = Flow::new(0, "bench/1", &SHAPE, ProtocolVersion::V5);
        let header = PayloadHeader {
            run: 1,
            flow: 0,
            seq: 9,
            at: 7,
        };
        let mut out = Vec::new();
        flow.write(300, &header, true, &mut out);
        let Ok(crate::wire::Packet::Publish(publish)) = codec::decode(&out, ProtocolVersion::V5)
        else {
            panic!("{out:?}");
        };
        assert!(publish.dup);
        assert_eq!(publish.topic, "bench/1");
        assert_eq!(publish.packet_id, PacketId::new(300));
        assert_eq!(publish.payload.len(), 64);
        assert_eq!(PayloadHeader::of(publish.payload), Some(header));
    }

    #[test]
    fn the_window_opens_when_the_slowest_receiver_has_a_message() {
        let mut flow = Flow::new(0, "t", &SHAPE, ProtocolVersion::V311);
        flow.next_seq = 3;
        assert_eq!(flow.record_reached(1), 0);
        assert_eq!(flow.record_reached(0), 0);
        assert_eq!(flow.record_reached(1), 0);
        assert_eq!(flow.record_reached(0), 2);
        assert_eq!(flow.record_reached(0), 0, "a repetition");
        assert_eq!(flow.record_reached(3), 0, "a number that was not sent");
        flow.give_up();
        assert_eq!(flow.record_reached(2), 0);
    }

    #[test]
    fn identifiers_are_used_again_only_when_free() {
        let mut publisher = Publisher::new(0, 0..2, &SHAPE);
        let slot = Slot {
            state: SlotState::Sent,
            ..Slot::default()
        };
        let ids: Vec<u16> = (0..4).map(|_| publisher.take_id(slot)).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        assert!(!publisher.may_send());
        assert_eq!(publisher.acknowledge(4, 1, false), None, "PUBACK for QoS 2");
        assert_eq!(publisher.acknowledge(7, 1, false), None, "not released");
        assert_eq!(publisher.acknowledge(5, 1, false), Some(false));
        assert_eq!(publisher.acknowledge(7, 1, false), Some(true));
        assert_eq!(publisher.acknowledge(5, 2, true), Some(true), "refused");
        assert_eq!(publisher.acknowledge(5, 60_000, false), None);
        let ids: Vec<u16> = (0..2).map(|_| publisher.take_id(slot)).collect();
        assert_eq!(ids, [5, 6]);
        assert_eq!(
            (
                publisher.take_flow(),
                publisher.take_flow(),
                publisher.take_flow()
            ),
            (0, 1, 0)
        );
    }
}
