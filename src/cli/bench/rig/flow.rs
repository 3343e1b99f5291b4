//! Publishers and the flows they send: a flow is one publisher's messages on one topic, numbered from 0.

use std::ops::Range;

use super::frame::{STAMP_BYTES, Stamp};
use crate::wire::packet::Publish;
use crate::wire::{PacketId, Properties, ProtocolVersion, QoS, codec};

/// How messages are made.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// QoS of the PUBLISH.
    pub qos: QoS,
    /// Bytes of payload, at least those of a stamp.
    pub size: usize,
    /// Publish retained.
    pub retain: bool,
    /// Messages that may be on their way at once.
    pub window: u32,
    /// How many receivers each message should reach before it no longer counts against the window; 0 to wait for nobody.
    pub receivers: u32,
}

/// One publisher's messages on one topic.
#[derive(Debug)]
pub struct Flow {
    /// Its publisher.
    pub publisher: u32,
    /// The number of its next message.
    pub next_seq: u64,
    /// The packet, complete but for packet identifier and stamp.
    template: Vec<u8>,
    id_at: usize,
    stamp_at: usize,
    /// Receivers each message should reach; 0 if nobody counts.
    receivers: u32,
    /// How many receivers have each message from `floor` on, by the low bits of its number.
    reached: Vec<u32>,
    floor: u64,
}

impl Flow {
    /// A flow to this topic.
    pub fn new(publisher: u32, topic: &str, shape: &Shape, version: ProtocolVersion) -> Flow {
        let size = shape.size.max(STAMP_BYTES);
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
        let stamp_at = template.len() - size;
        let block = usize::from(version == ProtocolVersion::V5);
        let slots = match shape.receivers {
            0 => 0,
            _ => (shape.window as usize).next_power_of_two(),
        };
        Flow {
            publisher,
            next_seq: 0,
            id_at: stamp_at - block - 2,
            stamp_at,
            template,
            receivers: shape.receivers,
            reached: vec![0; slots],
            floor: 0,
        }
    }

    /// Appends a message. Nothing but its stamp and packet identifier differs from the last.
    #[inline]
    pub fn write(&mut self, id: u16, stamp: &Stamp, dup: bool, out: &mut Vec<u8>) {
        if id != 0 {
            self.template[self.id_at..self.id_at + 2].copy_from_slice(&id.to_be_bytes());
        }
        self.template[self.stamp_at..self.stamp_at + STAMP_BYTES].copy_from_slice(&stamp.bytes());
        let start = out.len();
        out.extend_from_slice(&self.template);
        if dup {
            out[start] |= 8;
        }
    }

    /// A receiver has this message. Returns how many messages have thereby reached everybody.
    #[inline]
    pub fn reach(&mut self, seq: u64) -> u32 {
        if seq < self.floor || seq >= self.next_seq || self.reached.is_empty() {
            return 0;
        }
        let mask = self.reached.len() - 1;
        self.reached[seq as usize & mask] += 1;
        let before = self.floor;
        while self.floor < self.next_seq
            && self.reached[self.floor as usize & mask] >= self.receivers
        {
            self.reached[self.floor as usize & mask] = 0;
            self.floor += 1;
        }
        (self.floor - before) as u32
    }

    /// Waits no longer for what is on its way.
    pub fn write_off(&mut self) {
        self.reached.fill(0);
        self.floor = self.next_seq;
    }

    /// Whether its messages count against the window until they have arrived.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        !self.reached.is_empty()
    }
}

/// A message that is not acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// How far it is.
    pub state: SlotState,
    /// Its flow.
    pub flow: u32,
    /// Its number.
    pub seq: u64,
    /// Its time.
    pub at: u64,
}

/// How far a message is.
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

/// Who sends flows.
#[derive(Debug)]
pub struct Publisher {
    /// Its connection.
    pub peer: u32,
    /// Its flows, which take turns.
    pub flows: Range<u32>,
    /// The next of them.
    pub turn: u32,
    /// QoS as a number.
    pub qos: u8,
    /// Messages that may be on their way.
    pub window: u32,
    /// Messages not acknowledged.
    pub unacknowledged: u32,
    /// Messages that have not reached all their receivers.
    pub unreached: u32,
    /// Messages sent.
    pub sent: u64,
    /// Messages it may send, by rate or by number.
    pub allowed: u64,
    /// It is in the list of those that could send.
    pub hungry: bool,
    /// By packet identifier.
    pub slots: Vec<Slot>,
    next_id: u16,
}

impl Publisher {
    /// A publisher of these flows.
    pub fn new(peer: u32, flows: Range<u32>, shape: &Shape) -> Publisher {
        let slots = match shape.qos {
            QoS::AtMostOnce => 0,
            _ => (shape.window as usize * 2 + 1).min(65_536),
        };
        Publisher {
            peer,
            turn: flows.start,
            flows,
            qos: shape.qos as u8,
            window: shape.window,
            unacknowledged: 0,
            unreached: 0,
            sent: 0,
            allowed: u64::MAX,
            hungry: false,
            slots: vec![Slot::default(); slots],
            next_id: 0,
        }
    }

    /// Whether it may send one more.
    #[inline]
    pub fn may_send(&self) -> bool {
        self.unacknowledged < self.window
            && self.unreached < self.window
            && self.sent < self.allowed
    }

    /// The flow whose turn it is.
    #[inline]
    pub fn take_turn(&mut self) -> u32 {
        let flow = self.turn;
        self.turn += 1;
        if self.turn == self.flows.end {
            self.turn = self.flows.start;
        }
        flow
    }

    /// Takes a packet identifier; 0 for QoS 0. One is free as long as [`Publisher::may_send`].
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

    /// Handles PUBACK (4), PUBREC (5) or PUBCOMP (7). Returns whether that ends the message; `None` if it does not fit.
    #[inline]
    pub fn acknowledge(&mut self, kind: u8, id: u16, refused: bool) -> Option<bool> {
        let slot = self.slots.get_mut(usize::from(id))?;
        slot.state = match (kind, self.qos, slot.state) {
            (4, 1, SlotState::Sent) | (7, 2, SlotState::Released) => SlotState::Free,
            (5, 2, SlotState::Sent) if refused => SlotState::Free,
            (5, 2, SlotState::Sent) => SlotState::Released,
            // A PUBREC that comes again is answered again.
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
        let stamp = Stamp {
            run: 1,
            flow: 0,
            seq: 9,
            at: 7,
        };
        let mut out = Vec::new();
        flow.write(300, &stamp, true, &mut out);
        let Ok(crate::wire::Packet::Publish(publish)) = codec::decode(&out, ProtocolVersion::V5)
        else {
            panic!("{out:?}");
        };
        assert!(publish.dup);
        assert_eq!(publish.topic, "bench/1");
        assert_eq!(publish.packet_id, PacketId::new(300));
        assert_eq!(publish.payload.len(), 64);
        assert_eq!(Stamp::of(publish.payload), Some(stamp));
    }

    #[test]
    fn the_window_opens_when_the_slowest_receiver_has_a_message() {
        let mut flow = Flow::new(0, "t", &SHAPE, ProtocolVersion::V311);
        flow.next_seq = 3;
        assert_eq!(flow.reach(1), 0);
        assert_eq!(flow.reach(0), 0);
        assert_eq!(flow.reach(1), 0);
        assert_eq!(flow.reach(0), 2);
        assert_eq!(flow.reach(0), 0, "a repetition");
        assert_eq!(flow.reach(3), 0, "a number that was not sent");
        flow.write_off();
        assert_eq!(flow.reach(2), 0);
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
                publisher.take_turn(),
                publisher.take_turn(),
                publisher.take_turn()
            ),
            (0, 1, 0)
        );
    }
}
