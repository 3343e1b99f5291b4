//! The packets of MQTT: one model for the three protocol versions, with MQTT 5 names.
//!
//! A packet borrows from the frame it was decoded from, so decoding a PUBLISH allocates nothing.
//! MQTT 3 has no properties and no reason codes: there they are empty and success. The codec maps
//! return codes to reason codes.

use super::packet_id::PacketId;
use super::property::Properties;
use super::qos::QoS;
use super::reason::ReasonCode;

/// The protocol versions that a listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    V311,
    /// MQTT 5.0: protocol name `MQTT`, level 5.
    V5,
}

/// One MQTT control packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet<'a> {
    /// A client asks to connect.
    Connect(Box<Connect<'a>>),
    /// The server answers a CONNECT.
    ConnAck(ConnAck<'a>),
    /// A message.
    Publish(Publish<'a>),
    /// QoS 1: received.
    PubAck(Ack<'a>),
    /// QoS 2, step 1: received.
    PubRec(Ack<'a>),
    /// QoS 2, step 2: released.
    PubRel(Ack<'a>),
    /// QoS 2, step 3: complete.
    PubComp(Ack<'a>),
    /// A client subscribes.
    Subscribe(Subscribe<'a>),
    /// The server answers a SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// A client unsubscribes.
    Unsubscribe(Unsubscribe<'a>),
    /// The server answers an UNSUBSCRIBE. In MQTT 3 it has no codes: the list is empty when decoded
    /// and is not encoded.
    UnsubAck(SubAck<'a>),
    /// A client asks for a PINGRESP.
    PingReq,
    /// The server answers a PINGREQ.
    PingResp,
    /// One side ends the connection. In MQTT 3 only clients send it.
    Disconnect(Disconnect<'a>),
    /// Enhanced authentication, MQTT 5 only.
    Auth(Disconnect<'a>),
}

/// CONNECT: a client's request for a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect<'a> {
    /// Protocol version that the client asks for.
    pub version: ProtocolVersion,
    /// Whether the peer says that it is a bridge: bit 7 of the protocol level in MQTT 3.1 and 3.1.1
    /// (`0x83`, `0x84`).
    pub bridge: bool,
    /// Clean start (MQTT 5) or clean session (MQTT 3).
    pub clean_start: bool,
    /// Keep alive in seconds; 0 means none.
    pub keep_alive: u16,
    /// Client identifier as sent. May be empty.
    pub client_id: &'a str,
    /// The will, if any.
    pub will: Option<Will<'a>>,
    /// User name, if any.
    pub username: Option<&'a str>,
    /// Password, if any. Binary data.
    pub password: Option<&'a [u8]>,
    /// CONNECT properties.
    pub properties: Properties<'a>,
}

/// The will of a CONNECT.
#[derive(Clone, Debug, PartialEq)]
pub struct Will<'a> {
    /// Topic name, valid and without wildcards.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// QoS of the will message.
    pub qos: QoS,
    /// Whether the will message is retained.
    pub retain: bool,
    /// Will properties.
    pub properties: Properties<'a>,
}

/// CONNACK: a server's answer to a CONNECT.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck<'a> {
    /// Whether the server has state of the session. Always false in MQTT 3.1.
    pub session_present: bool,
    /// Success, or the reason of the refusal. MQTT 3 return codes are mapped in both directions.
    pub reason: ReasonCode,
    /// CONNACK properties.
    pub properties: Properties<'a>,
}

/// PUBLISH: a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Publish<'a> {
    /// Whether the packet may have been sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Retain flag.
    pub retain: bool,
    /// Topic name, valid and without wildcards. Empty only if a topic alias replaces it (MQTT 5).
    pub topic: &'a str,
    /// Packet identifier. Present exactly if `qos` is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// PUBLISH properties.
    pub properties: Properties<'a>,
    /// Payload.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ack<'a> {
    /// Packet identifier of the message.
    pub packet_id: PacketId,
    /// Reason; always success in MQTT 3.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: Properties<'a>,
}

/// SUBSCRIBE: at least one topic filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// SUBSCRIBE properties.
    pub properties: Properties<'a>,
    /// The filters as sent, with their options. The codec checks that each is UTF-8, but not that
    /// it is a valid filter.
    pub filters: Vec<(&'a str, SubscribeOptions)>,
}

/// Options of one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Maximum QoS of deliveries.
    pub qos: QoS,
    /// Whether messages that the same client published are not delivered.
    pub no_local: bool,
    /// Whether deliveries keep the published retain flag.
    pub retain_as_published: bool,
    /// When to send retained messages.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent for a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    /// 0: at every SUBSCRIBE.
    OnSubscribe = 0,
    /// 1: only if the subscription did not exist.
    IfNew = 1,
    /// 2: never.
    Never = 2,
}

impl SubscribeOptions {
    /// Returns the options of a MQTT 3 subscription, which has only a QoS.
    pub const fn with_qos(qos: QoS) -> SubscribeOptions {
        SubscribeOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::OnSubscribe,
        }
    }
}

/// SUBACK or UNSUBACK: one reason code for each filter.
#[derive(Clone, Debug, PartialEq)]
pub struct SubAck<'a> {
    /// Packet identifier of the SUBSCRIBE or UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties.
    pub properties: Properties<'a>,
    /// One reason code for each filter, in the order of the filters.
    pub codes: Vec<ReasonCode>,
}

/// UNSUBSCRIBE: at least one topic filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// UNSUBSCRIBE properties.
    pub properties: Properties<'a>,
    /// The filters as sent.
    pub filters: Vec<&'a str>,
}

/// DISCONNECT or AUTH: a reason and properties.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: Properties<'a>,
}
