//! The packets of MQTT, one model for the three protocol versions, in MQTT 5 vocabulary.
//!
//! A packet borrows from the frame it was decoded from: reading a PUBLISH allocates nothing. What MQTT 3 does not
//! have (properties, reason codes) is empty or a success there; the codec maps return codes to reason codes.

use super::packet_id::PacketId;
use super::property::Properties;
use super::qos::QoS;
use super::reason::ReasonCode;

/// The protocol versions served, on one port.
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
    /// Client asks to connect.
    Connect(Box<Connect<'a>>),
    /// Server answers a CONNECT.
    ConnAck(ConnAck<'a>),
    /// A message.
    Publish(Publish<'a>),
    /// QoS 1: received.
    PubAck(Ack<'a>),
    /// QoS 2, part 1: received.
    PubRec(Ack<'a>),
    /// QoS 2, part 2: released.
    PubRel(Ack<'a>),
    /// QoS 2, part 3: complete.
    PubComp(Ack<'a>),
    /// Client subscribes.
    Subscribe(Subscribe<'a>),
    /// Server answers a SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// Client unsubscribes.
    Unsubscribe(Unsubscribe<'a>),
    /// Server answers an UNSUBSCRIBE. MQTT 3 has no codes here: they are empty when decoded and left out when encoded.
    UnsubAck(SubAck<'a>),
    /// Client asks for a sign of life.
    PingReq,
    /// Server gives it.
    PingResp,
    /// Either side ends the connection; only clients in MQTT 3.
    Disconnect(Disconnect<'a>),
    /// Enhanced authentication, MQTT 5 only.
    Auth(Disconnect<'a>),
}

/// CONNECT: a client's request for a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect<'a> {
    /// Protocol version asked for.
    pub version: ProtocolVersion,
    /// Bit 7 of the protocol level in MQTT 3.1 and 3.1.1 (`0x83`, `0x84`): the peer says that it is a bridge.
    pub bridge: bool,
    /// Clean start (MQTT 5) or clean session (MQTT 3).
    pub clean_start: bool,
    /// Keep alive in seconds; 0 means none.
    pub keep_alive: u16,
    /// Client identifier as sent; may be empty.
    pub client_id: &'a str,
    /// The will, where there is one.
    pub will: Option<Will<'a>>,
    /// User name, where there is one.
    pub username: Option<&'a str>,
    /// Password, where there is one. Binary.
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
    /// QoS to publish it with.
    pub qos: QoS,
    /// Whether to publish it retained.
    pub retain: bool,
    /// Will properties.
    pub properties: Properties<'a>,
}

/// CONNACK: a server's answer to a CONNECT.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck<'a> {
    /// The server has the session's state. Always false in MQTT 3.1, which has no such bit.
    pub session_present: bool,
    /// Success, or why not. MQTT 3 return codes are mapped both ways.
    pub reason: ReasonCode,
    /// CONNACK properties.
    pub properties: Properties<'a>,
}

/// PUBLISH: a message on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Publish<'a> {
    /// May be a repetition.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Retain flag.
    pub retain: bool,
    /// Topic name, valid and without wildcards. Empty only where a topic alias stands for it (MQTT 5).
    pub topic: &'a str,
    /// Packet identifier; present exactly when `qos` is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// PUBLISH properties.
    pub properties: Properties<'a>,
    /// Payload.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ack<'a> {
    /// The message's packet identifier.
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
    /// The filters as sent, with their options. The codec checks that each is UTF-8, not that it is a valid filter.
    pub filters: Vec<(&'a str, SubscribeOptions)>,
}

/// Options of one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Maximum QoS of deliveries.
    pub qos: QoS,
    /// Do not deliver what the same client published.
    pub no_local: bool,
    /// Keep the retain flag as it was published.
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
    /// The options a MQTT 3 client has: only a QoS.
    pub const fn with_qos(qos: QoS) -> SubscribeOptions {
        SubscribeOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::OnSubscribe,
        }
    }
}

/// SUBACK or UNSUBACK: a code for each filter.
#[derive(Clone, Debug, PartialEq)]
pub struct SubAck<'a> {
    /// Packet identifier of the SUBSCRIBE or UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties.
    pub properties: Properties<'a>,
    /// One reason code a filter, in their order.
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
