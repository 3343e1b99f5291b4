//! What is said to the upstream before anything else, and what it answers: CONNECT, CONNACK and the
//! terms they come to.

use crate::broker::bridge::settings::Bridge;
use crate::broker::model::marks::BRIDGE;
use crate::broker::state::origins::Origin;
use crate::wire::packet::{ConnAck, Connect};
use crate::wire::{
    Packet, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, codec,
};

/// How to speak to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1, saying with bit 7 of the protocol level that this is a bridge: a broker that
    /// knows it returns nothing to where it came from, and keeps the retain flag.
    V311Bridge,
    /// MQTT 3.1.1, as any client.
    V311,
}

impl UpstreamProtocol {
    /// The protocol version.
    pub fn version(self) -> ProtocolVersion {
        match self {
            UpstreamProtocol::V5 => ProtocolVersion::V5,
            UpstreamProtocol::V311Bridge | UpstreamProtocol::V311 => ProtocolVersion::V311,
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

/// A reason the upstream has given, with all that it says about it: its reason string, and which
/// server it refers to.
pub fn told(reason: ReasonCode, properties: &Properties<'_>) -> String {
    let mut text = reason.to_string();
    if let Some(why) = properties.reason_string() {
        text += &format!(": {why}");
    }
    if let Some(server) = properties.server_reference() {
        text += &format!(" (it refers to the server {server})");
    }
    text
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
    /// Topic aliases it lets the bridge set.
    pub topic_alias_maximum: u16,
    /// It takes subscriptions with wildcards.
    pub wildcards: bool,
}

impl Upstream {
    /// The terms of a CONNACK that accepts. What the upstream grants less of than was asked for,
    /// and what only matters to who reads the log, is logged.
    pub fn new(connack: &ConnAck<'_>, version: ProtocolVersion, bridge: &Bridge) -> Upstream {
        let says = &connack.properties;
        let name = &*bridge.name;
        if let Some(granted) = says.session_expiry()
            && granted < bridge.session_expiry
            && !bridge.clean_session
        {
            tracing::warn!(
                bridge = name,
                seconds = granted,
                "the upstream keeps the session for less than session_expiry: what it has kept longer is lost"
            );
        }
        if let Some(given) = says.assigned_client_identifier() {
            tracing::warn!(
                bridge = name,
                given,
                "the upstream has given the bridge another client identifier"
            );
        }
        if let Some(text) = says.reason_string() {
            tracing::info!(bridge = name, text, "the upstream says");
        }
        Upstream {
            version,
            session_present: connack.session_present,
            receive_maximum: says.receive_maximum().unwrap_or(u16::MAX),
            maximum_qos: says
                .maximum_qos()
                .and_then(QoS::new)
                .unwrap_or(QoS::ExactlyOnce),
            retain_available: says.retain_available() != Some(0),
            maximum_packet_size: says.maximum_packet_size().unwrap_or(u32::MAX),
            keep_alive: says
                .server_keep_alive()
                .unwrap_or(bridge.keepalive_interval),
            topic_alias_maximum: says.topic_alias_maximum().unwrap_or(0),
            wildcards: says.wildcard_subscription_available() != Some(0),
        }
    }
}

impl Bridge {
    /// Appends the CONNECT to `out`. `new` asks for a new session at the upstream, which in MQTT
    /// 3.1.1 ends with this connection; `max_packet_size` is what this broker takes, and `origin`
    /// tells where the bridge comes from.
    pub fn encode_connect(
        &self,
        origin: Origin,
        protocol: UpstreamProtocol,
        login: Login<'_>,
        new: bool,
        max_packet_size: u32,
        out: &mut Vec<u8>,
    ) {
        let mut properties = PropertiesBuf::new();
        let expiry = match self.clean_session {
            true => 0,
            false => self.session_expiry,
        };
        properties.push(Property::SessionExpiryInterval(expiry));
        properties.push(Property::ReceiveMaximum(self.window(ProtocolVersion::V5)));
        properties.push(Property::MaximumPacketSize(max_packet_size));
        if self.marks {
            properties.push(Property::UserProperty(BRIDGE, &origin.to_string()));
        }
        let connect = Connect {
            version: protocol.version(),
            bridge: protocol == UpstreamProtocol::V311Bridge,
            clean_start: new || self.clean_session,
            keep_alive: self.keepalive_interval,
            client_id: &self.remote_clientid,
            will: self.will(),
            username: login.username,
            password: login.password,
            properties: properties.as_properties(),
        };
        codec::encode(&Packet::Connect(Box::new(connect)), protocol.version(), out);
    }
}
