//! Packets in one line of a trace.

use std::fmt;

use super::history::number_of;
use crate::wire::Packet;

/// Shows what matters of a packet.
pub struct Brief<'a, 'p>(pub &'a Packet<'p>);

impl fmt::Display for Brief<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Packet::Publish(publish) => {
                let id = publish.packet_id.map_or(0, |id| id.get());
                let (qos, topic) = (publish.qos as u8, publish.topic);
                write!(f, "PUBLISH {topic} qos {qos} id {id}")?;
                match number_of(publish.payload) {
                    Some(number) => write!(f, " message {number}")?,
                    None => write!(f, " {} bytes", publish.payload.len())?,
                }
                let dup = if publish.dup { " dup" } else { "" };
                let retain = if publish.retain { " retain" } else { "" };
                write!(f, "{dup}{retain}")?;
                let properties = publish.properties.iter();
                properties
                    .into_iter()
                    .try_for_each(|one| write!(f, " {one:?}"))
            }
            Packet::Connect(connect) => write!(
                f,
                "CONNECT {} {:?} clean {} expiry {:?} will {:?}",
                connect.client_id,
                connect.version,
                connect.clean_start,
                connect.properties.session_expiry(),
                connect
                    .will
                    .as_ref()
                    .and_then(|will| number_of(will.payload))
            ),
            Packet::ConnAck(connack) => write!(
                f,
                "CONNACK present {} {}",
                connack.session_present, connack.reason
            ),
            Packet::PubAck(ack) => write!(f, "PUBACK {} {}", ack.packet_id, ack.reason),
            Packet::PubRec(ack) => write!(f, "PUBREC {} {}", ack.packet_id, ack.reason),
            Packet::PubRel(ack) => write!(f, "PUBREL {} {}", ack.packet_id, ack.reason),
            Packet::PubComp(ack) => write!(f, "PUBCOMP {} {}", ack.packet_id, ack.reason),
            Packet::Subscribe(subscribe) => {
                write!(f, "SUBSCRIBE {}", subscribe.packet_id)?;
                let mut filters = subscribe.filters.iter();
                filters
                    .try_for_each(|(filter, options)| write!(f, " {filter} {}", options.qos as u8))
            }
            Packet::Unsubscribe(unsubscribe) => {
                write!(f, "UNSUBSCRIBE {:?}", unsubscribe.filters)
            }
            Packet::SubAck(ack) => write!(f, "SUBACK {} {:?}", ack.packet_id, ack.codes),
            Packet::UnsubAck(ack) => write!(f, "UNSUBACK {} {:?}", ack.packet_id, ack.codes),
            Packet::Disconnect(disconnect) => write!(
                f,
                "DISCONNECT {} {:?} expiry {:?}",
                disconnect.reason,
                disconnect.properties.reason_string(),
                disconnect.properties.session_expiry()
            ),
            other => write!(f, "{other:?}"),
        }
    }
}
