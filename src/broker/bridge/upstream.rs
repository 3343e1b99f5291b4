//! What is said to the upstream before anything else, and what it answers: CONNECT, CONNACK and the terms they come to.

use super::Bridge;
use crate::broker::marks::BRIDGE;
use crate::wire::packet::{ConnAck, Connect};
use crate::wire::{Packet, PropertiesBuf, Property, ProtocolVersion, QoS, codec};

/// How to speak to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1, saying with bit 7 of the protocol level that this is a bridge: a broker that knows it returns nothing to where it came from, and
    /// keeps the retain flag.
    V311Bridge,
    /// MQTT 3.1.1, as any client.
    V311,
}

impl Speech {
    /// The protocol version.
    pub fn version(self) -> ProtocolVersion {
        match self {
            Speech::V5 => ProtocolVersion::V5,
            Speech::V311Bridge | Speech::V311 => ProtocolVersion::V311,
        }
    }
}

/// Who the bridge is to the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Login<'a> {
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
}

/// What the upstream allows, as its CONNACK says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// What is spoken.
    pub version: ProtocolVersion,
    /// It has the session of before.
    pub session_present: bool,
    /// QoS 1 and 2 messages it takes at once.
    pub receive_maximum: u16,
    /// The highest QoS it takes.
    pub maximum_qos: QoS,
    /// It retains messages.
    pub retain_available: bool,
    /// Bytes of a packet it takes.
    pub maximum_packet_size: u32,
    /// Seconds without a packet after which it must be sent a PINGREQ; 0 for never.
    pub keep_alive: u16,
}

impl Upstream {
    /// The terms of a CONNACK that accepts.
    pub fn new(connack: &ConnAck<'_>, version: ProtocolVersion, bridge: &Bridge) -> Upstream {
        let says = &connack.properties;
        Upstream {
            version,
            session_present: connack.session_present,
            receive_maximum: says.receive_maximum().unwrap_or(u16::MAX),
            maximum_qos: match says.maximum_qos() {
                Some(0) => QoS::AtMostOnce,
                Some(1) => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            retain_available: says.retain_available() != Some(0),
            maximum_packet_size: says.maximum_packet_size().unwrap_or(u32::MAX),
            keep_alive: says
                .server_keep_alive()
                .unwrap_or(bridge.keepalive_interval),
        }
    }
}

impl Bridge {
    /// Appends the CONNECT to `out`. `new` asks for a new session at the upstream, which in MQTT 3.1.1 ends with this connection; `max_packet_size` is
    /// what this broker takes.
    pub fn encode_connect(
        &self,
        speech: Speech,
        login: Login<'_>,
        new: bool,
        max_packet_size: u32,
        out: &mut Vec<u8>,
    ) {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(self.session_expiry));
        properties.push(Property::ReceiveMaximum(self.window(ProtocolVersion::V5)));
        properties.push(Property::MaximumPacketSize(max_packet_size));
        properties.push(Property::UserProperty(BRIDGE, "1"));
        let connect = Connect {
            version: speech.version(),
            bridge: speech == Speech::V311Bridge,
            clean_start: new,
            keep_alive: self.keepalive_interval,
            client_id: &self.remote_clientid,
            will: None,
            username: login.username,
            password: login.password,
            properties: properties.as_properties(),
        };
        codec::encode(&Packet::Connect(Box::new(connect)), speech.version(), out);
    }
}
