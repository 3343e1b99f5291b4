//! A peer that breaks the rules: noise, packets with bytes turned, cut short or sent when they must
//! not be. The broker must neither panic nor stand still, and nobody else may notice.

use super::client::{Move, qos_of};
use super::rng::Rng;
use crate::wire::packet::{
    Ack, Connect, Disconnect, Publish, Subscribe, SubscribeOptions, Unsubscribe, Will,
};
use crate::wire::{Packet, PacketId, Properties, ProtocolVersion, QoS, ReasonCode, codec};

const TOPIC: &str = "zzzz/breaker/of/rules";

/// Does the next thing on a connection; what it sends is appended to `out`.
pub fn step(rng: &mut Rng, out: &mut Vec<u8>) -> Move {
    let version = *rng.pick(&[
        ProtocolVersion::V31,
        ProtocolVersion::V311,
        ProtocolVersion::V5,
    ]);
    if rng.chance(70) {
        out.extend(connect(version));
    }
    for _ in 0..rng.below(8) {
        let mut bytes = Vec::new();
        packet(rng, version, &mut bytes);
        match rng.below(10) {
            0..3 => {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            3 => bytes.truncate(rng.below(bytes.len() as u64) as usize),
            4 => bytes = (0..rng.below(40)).map(|_| rng.next() as u8).collect(),
            _ => {}
        }
        out.extend(bytes);
    }
    *rng.pick(&[
        Move::Stay,
        Move::Stay,
        Move::Close,
        Move::Reset,
        Move::Vanish,
    ])
}

fn connect(version: ProtocolVersion) -> Vec<u8> {
    let connect = Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive: 5,
        client_id: "breaker",
        will: Some(Will {
            topic: TOPIC,
            payload: b"broken",
            qos: qos_of(1),
            retain: false,
            properties: Properties::EMPTY,
        }),
        username: None,
        password: None,
        properties: Properties::EMPTY,
    };
    let mut bytes = Vec::new();
    codec::encode(&Packet::Connect(Box::new(connect)), version, &mut bytes);
    bytes
}

fn packet(rng: &mut Rng, version: ProtocolVersion, bytes: &mut Vec<u8>) {
    let packet_id = PacketId::new(rng.between(1, 3) as u16).unwrap_or(PacketId::FIRST);
    let properties = Properties::EMPTY;
    let reason = ReasonCode::Success;
    let ack = Ack {
        packet_id,
        reason,
        properties,
    };
    let qos = qos_of(rng.below(3) as u8);
    let packet = match rng.below(10) {
        0 => Packet::PubAck(ack),
        1 => Packet::PubRec(ack),
        2 => Packet::PubRel(ack),
        3 => Packet::PubComp(ack),
        4 => Packet::Subscribe(Subscribe {
            packet_id,
            properties,
            filters: vec![
                (TOPIC, SubscribeOptions::with_qos(qos)),
                ("q/#", SubscribeOptions::with_qos(qos)),
            ],
        }),
        5 => Packet::Unsubscribe(Unsubscribe {
            packet_id,
            properties,
            filters: vec![TOPIC],
        }),
        6 => Packet::Disconnect(Disconnect { reason, properties }),
        _ => Packet::Publish(Publish {
            dup: rng.chance(20),
            qos,
            retain: rng.chance(20),
            topic: TOPIC,
            packet_id: (qos > QoS::AtMostOnce).then_some(packet_id),
            properties,
            payload: b"broken",
        }),
    };
    codec::encode(&packet, version, bytes);
}
