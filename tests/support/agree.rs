//! Compares our reading of each received packet with that of mqttbytes, except where mqttbytes is
//! wrong.

use bytes::BytesMut;
use mqttbytes::{v4, v5};

use crate::packet::{Packet, Properties, Version, property};

/// Compares our reading of a frame with that of mqttbytes.
///
/// # Errors
/// Describes how they differ.
pub fn agree(version: Version, frame: &[u8], ours: &Packet) -> Result<(), String> {
    if !is_right(version, frame, ours) {
        return Ok(());
    }
    let mut bytes = BytesMut::from(frame);
    let same = if version.is5() {
        let theirs = v5::read(&mut bytes, usize::MAX)
            .map_err(|error| format!("mqttbytes cannot read {ours:?}: {error:?}"))?;
        agree5(ours, &theirs)
    } else {
        let theirs = v4::read(&mut bytes, usize::MAX)
            .map_err(|error| format!("mqttbytes cannot read {ours:?}: {error:?}"))?;
        agree4(ours, &theirs)
    };
    match same {
        true => Ok(()),
        false => Err(format!("mqttbytes reads something else than {ours:?}")),
    }
}

/// Returns whether mqttbytes 0.6 reads this frame as the standard says. It does not for DISCONNECT
/// and AUTH of MQTT 5 and for packets with a subscription identifier. It does not know some reason
/// codes that the standard added later.
fn is_right(version: Version, frame: &[u8], ours: &Packet) -> bool {
    match ours {
        Packet::Disconnect(_) | Packet::Auth(_) => false,
        Packet::Publish(publish) => publish.properties.get(property::SUBSCRIPTION_ID).is_none(),
        Packet::ConnAck(connack) => version.is5() || connack.code <= 5,
        Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_) => {
            frame.len() >= 4
        }
        _ => true,
    }
}

fn agree4(ours: &Packet, theirs: &v4::Packet) -> bool {
    match (ours, theirs) {
        (Packet::ConnAck(a), v4::Packet::ConnAck(b)) => {
            a.session_present == b.session_present && a.code == b.code as u8
        }
        (Packet::Publish(a), v4::Packet::Publish(b)) => {
            (a.dup, a.qos, a.retain, a.id) == (b.dup, b.qos as u8, b.retain, b.pkid)
                && a.topic == b.topic
                && a.payload == b.payload
        }
        (Packet::PubAck(a), v4::Packet::PubAck(b)) => a.id == b.pkid,
        (Packet::PubRec(a), v4::Packet::PubRec(b)) => a.id == b.pkid,
        (Packet::PubRel(a), v4::Packet::PubRel(b)) => a.id == b.pkid,
        (Packet::PubComp(a), v4::Packet::PubComp(b)) => a.id == b.pkid,
        (Packet::SubAck(a), v4::Packet::SubAck(b)) => {
            a.id == b.pkid && a.codes.len() == b.return_codes.len()
        }
        (Packet::UnsubAck(a), v4::Packet::UnsubAck(b)) => a.id == b.pkid,
        (Packet::PingResp, v4::Packet::PingResp) => true,
        _ => false,
    }
}

fn agree5(ours: &Packet, theirs: &v5::Packet) -> bool {
    match (ours, theirs) {
        (Packet::ConnAck(a), v5::Packet::ConnAck(b)) => {
            let (expiry, receive, id) = match &b.properties {
                Some(p) => (
                    p.session_expiry_interval,
                    p.receive_max,
                    p.assigned_client_identifier.as_deref(),
                ),
                None => (None, None, None),
            };
            a.session_present == b.session_present
                && a.code == b.code as u8
                && a.properties.number(property::SESSION_EXPIRY) == expiry
                && a.properties.number(property::RECEIVE_MAXIMUM) == receive.map(u32::from)
                && a.properties.string(property::ASSIGNED_CLIENT_ID) == id
        }
        (Packet::Publish(a), v5::Packet::Publish(b)) => {
            let wire_topic = if a.named { a.topic.as_str() } else { "" };
            (a.dup, a.qos, a.retain, a.id) == (b.dup, b.qos as u8, b.retain, b.pkid)
                && wire_topic == b.topic
                && a.payload == b.payload
                && agree_properties(&a.properties, b.properties.as_ref())
        }
        (Packet::PubAck(a), v5::Packet::PubAck(b)) => (a.id, a.reason) == (b.pkid, b.reason as u8),
        (Packet::PubRec(a), v5::Packet::PubRec(b)) => (a.id, a.reason) == (b.pkid, b.reason as u8),
        (Packet::PubRel(a), v5::Packet::PubRel(b)) => (a.id, a.reason) == (b.pkid, b.reason as u8),
        (Packet::PubComp(a), v5::Packet::PubComp(b)) => {
            (a.id, a.reason) == (b.pkid, b.reason as u8)
        }
        (Packet::SubAck(a), v5::Packet::SubAck(b)) => {
            let codes: Vec<u8> = b.return_codes.iter().map(|code| *code as u8).collect();
            a.id == b.pkid && a.codes == codes
        }
        (Packet::UnsubAck(a), v5::Packet::UnsubAck(b)) => {
            let codes: Vec<u8> = b.reasons.iter().map(|code| *code as u8).collect();
            a.id == b.pkid && a.codes == codes
        }
        (Packet::PingResp, v5::Packet::PingResp) => true,
        _ => false,
    }
}

fn agree_properties(ours: &Properties, theirs: Option<&v5::PublishProperties>) -> bool {
    let Some(theirs) = theirs else {
        return ours.0.is_empty();
    };
    let users: Vec<(&str, &str)> = theirs
        .user_properties
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    ours.users() == users
        && ours.number(property::PAYLOAD_FORMAT) == theirs.payload_format_indicator.map(u32::from)
        && ours.number(property::MESSAGE_EXPIRY) == theirs.message_expiry_interval
        && ours.number(property::TOPIC_ALIAS) == theirs.topic_alias.map(u32::from)
        && ours.string(property::CONTENT_TYPE) == theirs.content_type.as_deref()
        && ours.string(property::RESPONSE_TOPIC) == theirs.response_topic.as_deref()
        && ours.bytes(property::CORRELATION_DATA) == theirs.correlation_data.as_deref()
}
