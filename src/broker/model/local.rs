//! What the broker hands to a local consumer: packets as values, which are never encoded.
//!
//! A local consumer runs in this process, without a socket. Bridges are local consumers.

use std::collections::VecDeque;

use crate::broker::model::alias::Alias;
use crate::broker::model::delivery::properties_for;
use crate::broker::model::marks::Mark;
use crate::broker::model::message::Message;
use crate::wire::packet::{Ack, Publish};
use crate::wire::{Packet, PacketId, PropertiesBuf, QoS, ReasonCode};

/// Bytes that a packet is taken to have beside its message.
const OVERHEAD: usize = 16;

/// A packet for a local consumer.
#[derive(Clone, Debug)]
pub enum LocalPacket {
    /// Its CONNECT was accepted, or refused for this reason.
    ConnAck(ReasonCode),
    /// A message.
    Publish(LocalDelivery),
    /// An acknowledgement or a PUBREL.
    Ack(LocalAck),
    /// The broker ends the connection.
    Disconnect(ReasonCode),
}

/// A message for a local consumer.
#[derive(Clone, Debug)]
pub struct LocalDelivery {
    /// The message. Others may be sent it, too.
    pub message: Message,
    /// QoS of this delivery.
    pub qos: QoS,
    /// Retain flag of this delivery.
    pub retain: bool,
    /// It may have been delivered before.
    pub dup: bool,
    /// What [`Broker::acknowledge`](crate::broker::Broker::acknowledge) calls it. `None` at QoS 0.
    pub packet_id: Option<PacketId>,
    /// What is added to it for a bridge.
    pub mark: Option<Mark>,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP for a local consumer.
#[derive(Clone, Debug)]
pub struct LocalAck {
    /// Which of them.
    pub step: Step,
    /// Whose exchange it is.
    pub packet_id: PacketId,
    /// Reason.
    pub reason: ReasonCode,
    properties: PropertiesBuf,
}

/// A step in the exchange of a QoS 1 or QoS 2 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// QoS 1: PUBACK.
    Acknowledged,
    /// QoS 2: PUBREC.
    Received,
    /// QoS 2: PUBREL.
    Released,
    /// QoS 2: PUBCOMP.
    Completed,
}

impl Step {
    /// The packet that says so.
    pub fn packet(self, ack: Ack<'_>) -> Packet<'_> {
        match self {
            Step::Acknowledged => Packet::PubAck(ack),
            Step::Received => Packet::PubRec(ack),
            Step::Released => Packet::PubRel(ack),
            Step::Completed => Packet::PubComp(ack),
        }
    }
}

impl LocalPacket {
    /// The packet as a local consumer takes it. `None` for packets that it is not told of: the
    /// answers to SUBSCRIBE and UNSUBSCRIBE. A PUBLISH is a [`LocalDelivery`] from the beginning.
    pub fn of(packet: &Packet<'_>) -> Option<LocalPacket> {
        let (step, ack) = match packet {
            Packet::ConnAck(connack) => return Some(LocalPacket::ConnAck(connack.reason)),
            Packet::Disconnect(end) => return Some(LocalPacket::Disconnect(end.reason)),
            Packet::PubAck(ack) => (Step::Acknowledged, ack),
            Packet::PubRec(ack) => (Step::Received, ack),
            Packet::PubRel(ack) => (Step::Released, ack),
            Packet::PubComp(ack) => (Step::Completed, ack),
            _ => return None,
        };
        let mut properties = PropertiesBuf::new();
        properties.extend(ack.properties);
        Some(LocalPacket::Ack(LocalAck {
            step,
            packet_id: ack.packet_id,
            reason: ack.reason,
            properties,
        }))
    }

    /// The message, if this is a PUBLISH whose payload is shared.
    fn shared(&self) -> Option<&Message> {
        match self {
            LocalPacket::Publish(delivery) => delivery.message.shared(),
            _ => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            LocalPacket::Publish(delivery) => OVERHEAD + delivery.message.size() as usize,
            _ => OVERHEAD,
        }
    }

    fn shared_len(&self) -> usize {
        self.shared().map_or(0, |message| message.payload().len())
    }
}

impl LocalDelivery {
    /// The PUBLISH, with what is left of its expiry at this time, in milliseconds since 1970
    /// \[MQTT-3.3.2-6\]. Its properties are put together in `scratch`.
    pub fn publish<'b>(&'b self, unix: u64, scratch: &'b mut PropertiesBuf) -> Publish<'b> {
        let (parts, mark) = (self.message.parts(), self.mark);
        Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.message.topic(),
            packet_id: self.packet_id,
            properties: properties_for(&parts, &[], Alias::None, mark, unix, scratch),
            payload: self.message.payload(),
        }
    }
}

impl LocalAck {
    /// The packet.
    pub fn packet(&self) -> Packet<'_> {
        self.step.packet(Ack {
            packet_id: self.packet_id,
            reason: self.reason,
            properties: self.properties.as_properties(),
        })
    }
}

/// Packets for a local consumer, in order.
#[derive(Debug, Default)]
pub struct LocalPackets {
    packets: VecDeque<LocalPacket>,
    len: usize,
    shared_len: usize,
}

impl LocalPackets {
    /// How many packets there are.
    pub fn count(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Bytes of their messages and of themselves, about.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes without payloads that are shared.
    pub fn own_len(&self) -> usize {
        self.len - self.shared_len
    }

    /// Appends a packet.
    pub fn push(&mut self, packet: LocalPacket) {
        self.len += packet.len();
        self.shared_len += packet.shared_len();
        self.packets.push_back(packet);
    }

    /// Takes the first packet.
    pub fn pop(&mut self) -> Option<LocalPacket> {
        let packet = self.packets.pop_front()?;
        self.len -= packet.len();
        self.shared_len -= packet.shared_len();
        Some(packet)
    }

    /// Messages whose payloads are shared, in order.
    pub(in crate::broker) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.packets.iter().filter_map(LocalPacket::shared)
    }

    /// Moves the first `count` packets to the end of `to`.
    pub(in crate::broker) fn move_to(&mut self, count: usize, to: &mut LocalPackets) {
        for _ in 0..count {
            let Some(packet) = self.pop() else { return };
            to.push(packet);
        }
    }
}
