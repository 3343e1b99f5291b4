//! Packets and writes as text, one line each.

use super::super::record::{DeliveryRecord, SpreadReceiver};
use super::*;

/// All packets in a connection's output.
pub(super) fn show(mut bytes: &[u8], version: ProtocolVersion) -> Vec<String> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let length = codec::frame_len(bytes, u32::MAX)
            .expect("a frame")
            .expect("a whole frame");
        let (frame, rest) = bytes.split_at(length);
        lines.push(show_packet(
            &codec::decode(frame, version).expect("a valid packet"),
        ));
        bytes = rest;
    }
    lines
}

fn show_packet(packet: &Packet<'_>) -> String {
    match packet {
        Packet::ConnAck(connack) => {
            let present = if connack.session_present {
                " present"
            } else {
                ""
            };
            format!("CONNACK{present} {:?}", connack.reason)
        }
        Packet::Publish(publish) => show_publish(publish),
        Packet::PubAck(ack) => show_ack("PUBACK", ack),
        Packet::PubRec(ack) => show_ack("PUBREC", ack),
        Packet::PubRel(ack) => show_ack("PUBREL", ack),
        Packet::PubComp(ack) => show_ack("PUBCOMP", ack),
        Packet::SubAck(suback) => format!("SUBACK {:?}", suback.codes),
        Packet::UnsubAck(unsuback) => format!("UNSUBACK {:?}", unsuback.codes),
        Packet::Subscribe(subscribe) => show_subscribe(subscribe),
        Packet::PingReq => "PINGREQ".into(),
        Packet::PingResp => "PINGRESP".into(),
        Packet::Disconnect(disconnect) => format!("DISCONNECT {:?}", disconnect.reason),
        other => format!("{other:?}"),
    }
}

fn show_subscribe(subscribe: &Subscribe<'_>) -> String {
    let mut line = format!("SUBSCRIBE #{}", subscribe.packet_id);
    for (filter, options) in &subscribe.filters {
        let SubscribeOptions {
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        } = options;
        line += &format!(" {filter} q{}", *qos as u8);
        line += &format!(" no_local={no_local} retain_as_published={retain_as_published}");
        line += &format!(" {retain_handling:?}");
    }
    line
}

fn show_ack(name: &str, ack: &Ack<'_>) -> String {
    let mut line = format!("{name} #{}", ack.packet_id);
    if ack.reason != ReasonCode::Success {
        line += &format!(" {:?}", ack.reason);
    }
    if let Some(why) = ack.properties.reason_string() {
        line += &format!(" ({why})");
    }
    line
}

/// `PUBLISH #id qN dup retain topic=payload`, and what is special: alias, what is left of the expiry interval, subscription identifiers.
fn show_publish(publish: &Publish<'_>) -> String {
    let mut line = String::from("PUBLISH");
    if let Some(id) = publish.packet_id {
        line += &format!(" #{id} q{}", publish.qos as u8);
    }
    line += if publish.dup { " dup" } else { "" };
    line += if publish.retain { " retain" } else { "" };
    let payload = String::from_utf8_lossy(publish.payload);
    if payload.len() > 40 {
        line += &format!(" {}={} bytes", publish.topic, payload.len());
    } else {
        line += &format!(" {}={payload}", publish.topic);
    }
    if let Some(alias) = publish.properties.topic_alias() {
        line += &format!(" alias {alias}");
    }
    if let Some(expiry) = publish.properties.message_expiry() {
        line += &format!(" expiry {expiry}");
    }
    for id in publish.properties.subscription_identifiers() {
        line += &format!(" id {id}");
    }
    line
}

/// A write; `kN` is a queue key, `sN` a message.
pub(super) fn show_write(write: &Write) -> String {
    match write {
        Write::PutSession(key, record) => {
            let state = if record.disconnected_at.is_some() {
                "away"
            } else {
                "connected"
            };
            format!("PutSession k{} {} {state}", key.0, record.client_id)
        }
        Write::RemoveSession(key) => format!("RemoveSession k{}", key.0),
        Write::PutSubscription(key, filter, _) => format!("PutSubscription k{} {filter}", key.0),
        Write::RemoveSubscription(key, filter) => {
            format!("RemoveSubscription k{} {filter}", key.0)
        }
        Write::PutGroup(key, name) => format!("PutGroup k{} {name}", key.0),
        Write::RemoveGroup(key) => format!("RemoveGroup k{}", key.0),
        Write::PutWill(key, record) => {
            let due = if record.due.is_some() { " due" } else { "" };
            format!("PutWill k{}{due}", key.0)
        }
        Write::RemoveWill(key) => format!("RemoveWill k{}", key.0),
        Write::PutMessage(seq, _) => format!("PutMessage s{}", seq.0),
        Write::RemoveMessage(seq) => format!("RemoveMessage s{}", seq.0),
        Write::PutDelivery(seq, key, record) => {
            format!("PutDelivery s{} k{}{}", seq.0, key.0, show_delivery(record))
        }
        Write::RemoveDelivery(seq, key) => format!("RemoveDelivery s{} k{}", seq.0, key.0),
        Write::PutReceived(key, id) => format!("PutReceived k{} #{id}", key.0),
        Write::RemoveReceived(key, id) => format!("RemoveReceived k{} #{id}", key.0),
        Write::PutInflight(key, _, records) => {
            let record = |record: &InflightRecord| {
                let released = if record.released { " released" } else { "" };
                format!(" #{} s{}{released}", record.packet_id, record.seq.0)
            };
            let records: String = records.iter().map(record).collect();
            format!("PutInflight k{}{records}", key.0)
        }
        Write::RemoveInflight(key, block) => format!("RemoveInflight k{} {}", key.0, block.0),
        Write::PutBridge(key, record) => format!("PutBridge k{} {}", key.0, record.address),
        Write::RemoveBridge(key) => format!("RemoveBridge k{}", key.0),
        Write::PutMessageId(seq, _) => format!("PutMessageId s{}", seq.0),
        Write::RemoveMessageId(seq) => format!("RemoveMessageId s{}", seq.0),
        Write::PutSpread(seq, part, record) => {
            let receiver = |it: &SpreadReceiver| format!(" k{} q{}", it.queue.0, it.qos as u8);
            let receivers: String = record.receivers.iter().map(receiver).collect();
            format!("PutSpread s{} {part}{receivers}", seq.0)
        }
        Write::RemoveSpread(seq, part) => format!("RemoveSpread s{} {part}", seq.0),
        Write::PutRetained(message, _) => format!("PutRetained {}", message.topic()),
        Write::RemoveRetained(topic) => format!("RemoveRetained {topic}"),
        Write::PutClock(reading) => format!("PutClock {} {}", reading.unix, reading.wall),
    }
}

fn show_delivery(record: &DeliveryRecord) -> String {
    let mut text = format!(" q{}", record.qos as u8);
    if let Some(id) = record.packet_id {
        text += &format!(" #{id}");
    }
    text += if record.retain { " retain" } else { "" };
    let (published, retained) = (record.message.qos, record.message.retain);
    if published != record.qos {
        text += &format!(" published q{}", published as u8);
    }
    text += if retained && !record.retain {
        " published retain"
    } else {
        ""
    };
    text += if record.released { " released" } else { "" };
    text
}
