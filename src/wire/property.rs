//! Property blocks of MQTT 5. They are validated once and then read by an iterator.

use super::field::{Reader, put_binary, put_text, put_u16, put_varint, text};
use super::reason::{Fault, ReasonCode};
use super::topic;

/// One property, named as in the standard. Values are as encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    /// 0x01 Payload Format Indicator: 0 or 1.
    PayloadFormatIndicator(u8),
    /// 0x02 Message Expiry Interval, seconds.
    MessageExpiryInterval(u32),
    /// 0x03 Content Type.
    ContentType(&'a str),
    /// 0x08 Response Topic.
    ResponseTopic(&'a str),
    /// 0x09 Correlation Data.
    CorrelationData(&'a [u8]),
    /// 0x0B Subscription Identifier: 1 to 268,435,455.
    SubscriptionIdentifier(u32),
    /// 0x11 Session Expiry Interval, seconds; 0xFFFFFFFF is never.
    SessionExpiryInterval(u32),
    /// 0x12 Assigned Client Identifier.
    AssignedClientIdentifier(&'a str),
    /// 0x13 Server Keep Alive, seconds.
    ServerKeepAlive(u16),
    /// 0x15 Authentication Method.
    AuthenticationMethod(&'a str),
    /// 0x16 Authentication Data.
    AuthenticationData(&'a [u8]),
    /// 0x17 Request Problem Information: 0 or 1.
    RequestProblemInformation(u8),
    /// 0x18 Will Delay Interval, seconds.
    WillDelayInterval(u32),
    /// 0x19 Request Response Information: 0 or 1.
    RequestResponseInformation(u8),
    /// 0x1A Response Information.
    ResponseInformation(&'a str),
    /// 0x1C Server Reference.
    ServerReference(&'a str),
    /// 0x1F Reason String.
    ReasonString(&'a str),
    /// 0x21 Receive Maximum: not 0.
    ReceiveMaximum(u16),
    /// 0x22 Topic Alias Maximum.
    TopicAliasMaximum(u16),
    /// 0x23 Topic Alias: not 0.
    TopicAlias(u16),
    /// 0x24 Maximum QoS: 0 or 1.
    MaximumQos(u8),
    /// 0x25 Retain Available: 0 or 1.
    RetainAvailable(u8),
    /// 0x26 User Property.
    UserProperty(&'a str, &'a str),
    /// 0x27 Maximum Packet Size: not 0.
    MaximumPacketSize(u32),
    /// 0x28 Wildcard Subscription Available: 0 or 1.
    WildcardSubscriptionAvailable(u8),
    /// 0x29 Subscription Identifier Available: 0 or 1.
    SubscriptionIdentifierAvailable(u8),
    /// 0x2A Shared Subscription Available: 0 or 1.
    SharedSubscriptionAvailable(u8),
}

/// A valid property block without its length prefix. Empty for MQTT 3. Reading it cannot fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    block: &'a [u8],
}

/// What a property block belongs to. Each kind allows other properties (MQTT 5 table 2-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// CONNECT.
    Connect,
    /// The will of a CONNECT.
    Will,
    /// CONNACK.
    ConnAck,
    /// PUBLISH.
    Publish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK: reason string and user properties.
    Ack,
    /// SUBSCRIBE.
    Subscribe,
    /// UNSUBSCRIBE: only user properties.
    Unsubscribe,
    /// DISCONNECT.
    Disconnect,
    /// AUTH.
    Auth,
}

impl BlockKind {
    /// All kinds.
    pub const ALL: [BlockKind; 9] = [
        BlockKind::Connect,
        BlockKind::Will,
        BlockKind::ConnAck,
        BlockKind::Publish,
        BlockKind::Ack,
        BlockKind::Subscribe,
        BlockKind::Unsubscribe,
        BlockKind::Disconnect,
        BlockKind::Auth,
    ];
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties { block: &[] };

    /// Validates a block without its length prefix. Does not compare the payload with the payload
    /// format indicator.
    ///
    /// # Errors
    /// - 0x81 for an unknown identifier, a property that is not allowed in this packet, a value
    ///   that is cut, and text that is not UTF-8 or has U+0000.
    /// - 0x82 for a property that occurs twice or has a forbidden value.
    /// - 0x94 for topic alias 0.
    pub fn parse(block: &'a [u8], kind: BlockKind) -> Result<Properties<'a>, Fault> {
        let allowed = allowed(kind);
        let mut seen = 0_u64;
        let mut reader = Reader::new(block);
        while !reader.is_empty() {
            let (id, value) = split(&mut reader)?;
            let property = interpret(id, value).ok_or(Fault::malformed(
                "property: text is not UTF-8 or has U+0000",
            ))?;
            let bit = 1 << id;
            if allowed & bit == 0 {
                // Section 2.2.2.2: an identifier that is not valid for its packet makes the packet
                // malformed.
                return Err(Fault::malformed("property: does not belong in this packet"));
            }
            if seen & bit & !repeatable(kind) != 0 {
                return Err(Fault::protocol("property: comes twice"));
            }
            seen |= bit;
            check_value(property)?;
        }
        let method_and_data = seen >> id::AUTHENTICATION_METHOD & 0b11;
        if method_and_data == 0b10 {
            return Err(Fault::protocol(
                "authentication data without authentication method",
            ));
        }
        Ok(Properties { block })
    }

    /// Takes a block that [`Properties::parse`] has validated before, when a message was accepted
    /// or read from disk. Reading a block that was never validated stops at its first invalid byte;
    /// it does not panic.
    pub fn assume_valid(block: &'a [u8]) -> Properties<'a> {
        Properties { block }
    }

    /// Returns the bytes of the block, without the length prefix.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.block
    }

    /// Returns whether there are no properties.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Returns the properties in the order in which they were sent.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        raw(self.block)
            .map_while(|(id, value, _)| interpret(id, value))
            .fuse()
    }

    /// Returns the properties that are forwarded with a PUBLISH or a will. The broker reads the
    /// message expiry interval, topic alias, subscription identifiers and will delay interval
    /// itself; they are removed.
    ///
    /// Returns the same block if it has none of these, otherwise overwrites `copy` with the rest.
    pub fn forwardable<'b>(&self, copy: &'b mut PropertiesBuf) -> Properties<'b>
    where
        'a: 'b,
    {
        self.without(
            1 << id::MESSAGE_EXPIRY_INTERVAL
                | 1 << id::TOPIC_ALIAS
                | 1 << id::SUBSCRIPTION_IDENTIFIER
                | 1 << id::WILL_DELAY_INTERVAL,
            copy,
        )
    }

    /// Returns the properties without reason string and user properties. These are removed from a
    /// packet that is too large for its receiver, and if the receiver asked for no problem
    /// information \[MQTT-3.1.2-29, MQTT-3.2.2-19, MQTT-3.2.2-20\]. `copy` is used as in
    /// [`Properties::forwardable`].
    pub fn without_problem_information<'b>(&self, copy: &'b mut PropertiesBuf) -> Properties<'b>
    where
        'a: 'b,
    {
        self.without(1 << id::REASON_STRING | 1 << id::USER_PROPERTY, copy)
    }

    /// Returns the subscription identifiers of a PUBLISH in the order in which they were sent.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
    }

    /// Returns names and values of the user properties in the order in which they were sent.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    fn without<'b>(&self, dropped: u64, copy: &'b mut PropertiesBuf) -> Properties<'b>
    where
        'a: 'b,
    {
        if self.block.is_empty() {
            return *self;
        }
        let (mut end, mut kept_from, mut copied) = (0, 0, false);
        for (id, _, whole) in raw(self.block) {
            let start = end;
            end += whole.len();
            if dropped >> id & 1 == 0 {
                continue;
            }
            if !copied {
                copy.clear();
                copied = true;
            }
            copy.block.extend_from_slice(&self.block[kept_from..start]);
            kept_from = end;
        }
        if !copied {
            return *self;
        }
        copy.block.extend_from_slice(&self.block[kept_from..end]);
        copy.as_properties()
    }

    /// Returns the first property with this identifier. Others are skipped without parsing.
    fn first(&self, id: u8) -> Option<Property<'a>> {
        raw(self.block)
            .find(|(found, _, _)| *found == id)
            .and_then(|(id, value, _)| interpret(id, value))
    }
}

/// Defines one getter for each property that occurs at most once.
macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $id:ident $variant:ident -> $value:ty;)*) => {
        impl<'a> Properties<'a> {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> Option<$value> {
                    match self.first(id::$id) {
                        Some(Property::$variant(value)) => Some(value),
                        _ => None,
                    }
                }
            )*
        }
    };
}

getters! {
    /// Payload format indicator: 1 says that the payload is UTF-8.
    payload_format: PAYLOAD_FORMAT_INDICATOR PayloadFormatIndicator -> u8;
    /// Message expiry interval, seconds.
    message_expiry: MESSAGE_EXPIRY_INTERVAL MessageExpiryInterval -> u32;
    /// Content type.
    content_type: CONTENT_TYPE ContentType -> &'a str;
    /// Response topic.
    response_topic: RESPONSE_TOPIC ResponseTopic -> &'a str;
    /// Correlation data.
    correlation_data: CORRELATION_DATA CorrelationData -> &'a [u8];
    /// Subscription identifier: the one of a SUBSCRIBE, or the first of a PUBLISH.
    subscription_identifier: SUBSCRIPTION_IDENTIFIER SubscriptionIdentifier -> u32;
    /// Session expiry interval, seconds; 0xFFFFFFFF means never.
    session_expiry: SESSION_EXPIRY_INTERVAL SessionExpiryInterval -> u32;
    /// Assigned client identifier.
    assigned_client_identifier: ASSIGNED_CLIENT_IDENTIFIER AssignedClientIdentifier -> &'a str;
    /// Server keep alive, seconds.
    server_keep_alive: SERVER_KEEP_ALIVE ServerKeepAlive -> u16;
    /// Authentication method.
    authentication_method: AUTHENTICATION_METHOD AuthenticationMethod -> &'a str;
    /// Authentication data.
    authentication_data: AUTHENTICATION_DATA AuthenticationData -> &'a [u8];
    /// Request problem information: 0 or 1.
    request_problem_information: REQUEST_PROBLEM_INFORMATION RequestProblemInformation -> u8;
    /// Will delay interval, seconds.
    will_delay: WILL_DELAY_INTERVAL WillDelayInterval -> u32;
    /// Request response information: 0 or 1.
    request_response_information: REQUEST_RESPONSE_INFORMATION RequestResponseInformation -> u8;
    /// Response information.
    response_information: RESPONSE_INFORMATION ResponseInformation -> &'a str;
    /// Server reference.
    server_reference: SERVER_REFERENCE ServerReference -> &'a str;
    /// Reason string.
    reason_string: REASON_STRING ReasonString -> &'a str;
    /// Receive maximum: not 0.
    receive_maximum: RECEIVE_MAXIMUM ReceiveMaximum -> u16;
    /// Topic alias maximum.
    topic_alias_maximum: TOPIC_ALIAS_MAXIMUM TopicAliasMaximum -> u16;
    /// Topic alias: not 0.
    topic_alias: TOPIC_ALIAS TopicAlias -> u16;
    /// Maximum QoS: 0 or 1.
    maximum_qos: MAXIMUM_QOS MaximumQos -> u8;
    /// Retain available: 0 or 1.
    retain_available: RETAIN_AVAILABLE RetainAvailable -> u8;
    /// Maximum packet size, bytes: not 0.
    maximum_packet_size: MAXIMUM_PACKET_SIZE MaximumPacketSize -> u32;
    /// Wildcard subscription available: 0 or 1.
    wildcard_subscription_available: WILDCARD_SUBSCRIPTION_AVAILABLE WildcardSubscriptionAvailable -> u8;
    /// Subscription identifier available: 0 or 1.
    subscription_identifier_available: SUBSCRIPTION_IDENTIFIER_AVAILABLE SubscriptionIdentifierAvailable -> u8;
    /// Shared subscription available: 0 or 1.
    shared_subscription_available: SHARED_SUBSCRIPTION_AVAILABLE SharedSubscriptionAvailable -> u8;
}

/// Builds a property block.
#[derive(Clone, Debug, Default)]
pub struct PropertiesBuf {
    block: Vec<u8>,
}

impl PropertiesBuf {
    /// Creates an empty block. Allocates nothing.
    pub const fn new() -> PropertiesBuf {
        PropertiesBuf { block: Vec::new() }
    }

    /// Appends a property. Cuts text and data to 65,535 bytes. The caller must make sure that the
    /// packet may have the property, and that it occurs once.
    pub fn push(&mut self, property: Property<'_>) {
        use Property::*;
        let out = &mut self.block;
        match property {
            PayloadFormatIndicator(value) => put(out, id::PAYLOAD_FORMAT_INDICATOR, [value]),
            MessageExpiryInterval(value) => put_u32(out, id::MESSAGE_EXPIRY_INTERVAL, value),
            ContentType(value) => put_str(out, id::CONTENT_TYPE, value),
            ResponseTopic(value) => put_str(out, id::RESPONSE_TOPIC, value),
            CorrelationData(value) => put_data(out, id::CORRELATION_DATA, value),
            SubscriptionIdentifier(value) => {
                out.push(id::SUBSCRIPTION_IDENTIFIER);
                put_varint(out, value as usize);
            }
            SessionExpiryInterval(value) => put_u32(out, id::SESSION_EXPIRY_INTERVAL, value),
            AssignedClientIdentifier(value) => put_str(out, id::ASSIGNED_CLIENT_IDENTIFIER, value),
            ServerKeepAlive(value) => put_short(out, id::SERVER_KEEP_ALIVE, value),
            AuthenticationMethod(value) => put_str(out, id::AUTHENTICATION_METHOD, value),
            AuthenticationData(value) => put_data(out, id::AUTHENTICATION_DATA, value),
            RequestProblemInformation(value) => put(out, id::REQUEST_PROBLEM_INFORMATION, [value]),
            WillDelayInterval(value) => put_u32(out, id::WILL_DELAY_INTERVAL, value),
            RequestResponseInformation(value) => {
                put(out, id::REQUEST_RESPONSE_INFORMATION, [value]);
            }
            ResponseInformation(value) => put_str(out, id::RESPONSE_INFORMATION, value),
            ServerReference(value) => put_str(out, id::SERVER_REFERENCE, value),
            ReasonString(value) => put_str(out, id::REASON_STRING, value),
            ReceiveMaximum(value) => put_short(out, id::RECEIVE_MAXIMUM, value),
            TopicAliasMaximum(value) => put_short(out, id::TOPIC_ALIAS_MAXIMUM, value),
            TopicAlias(value) => put_short(out, id::TOPIC_ALIAS, value),
            MaximumQos(value) => put(out, id::MAXIMUM_QOS, [value]),
            RetainAvailable(value) => put(out, id::RETAIN_AVAILABLE, [value]),
            UserProperty(name, value) => {
                put_str(out, id::USER_PROPERTY, name);
                put_text(out, value);
            }
            MaximumPacketSize(value) => put_u32(out, id::MAXIMUM_PACKET_SIZE, value),
            WildcardSubscriptionAvailable(value) => {
                put(out, id::WILDCARD_SUBSCRIPTION_AVAILABLE, [value]);
            }
            SubscriptionIdentifierAvailable(value) => {
                put(out, id::SUBSCRIPTION_IDENTIFIER_AVAILABLE, [value]);
            }
            SharedSubscriptionAvailable(value) => {
                put(out, id::SHARED_SUBSCRIPTION_AVAILABLE, [value]);
            }
        }
    }

    /// Appends all properties of a block.
    pub fn extend(&mut self, properties: Properties<'_>) {
        self.block.extend_from_slice(properties.block);
    }

    /// Removes all properties. Keeps the allocation.
    pub fn clear(&mut self) {
        self.block.clear();
    }

    /// Returns the block for use in a packet.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties { block: &self.block }
    }
}

/// Identifiers (MQTT 5 table 2-4); each is a variable byte integer of one byte.
mod id {
    pub(super) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub(super) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub(super) const CONTENT_TYPE: u8 = 0x03;
    pub(super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(super) const CORRELATION_DATA: u8 = 0x09;
    pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
    pub(super) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(super) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(super) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(super) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(super) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(super) const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub(super) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(super) const RESPONSE_INFORMATION: u8 = 0x1a;
    pub(super) const SERVER_REFERENCE: u8 = 0x1c;
    pub(super) const REASON_STRING: u8 = 0x1f;
    pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(super) const TOPIC_ALIAS: u8 = 0x23;
    pub(super) const MAXIMUM_QOS: u8 = 0x24;
    pub(super) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(super) const USER_PROPERTY: u8 = 0x26;
    pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(super) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(super) const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub(super) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2a;
}

/// Splits off identifier and value of the next property. Looks only at the data type of the
/// identifier. A text or data value is returned without its length.
#[inline]
fn split<'a>(reader: &mut Reader<'a>) -> Result<(u8, &'a [u8]), Fault> {
    const CUT: &str = "property: value runs past the end of the block";
    let id = reader.u8(CUT)?;
    let value = match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => reader.take(1, CUT)?,
        0x13 | 0x21..=0x23 => reader.take(2, CUT)?,
        0x02 | 0x11 | 0x18 | 0x27 => reader.take(4, CUT)?,
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => reader.binary(CUT)?,
        id::SUBSCRIPTION_IDENTIFIER => {
            let start = *reader;
            reader.varint("subscription identifier: not a minimal variable byte integer")?;
            &start.rest()[..start.len() - reader.len()]
        }
        id::USER_PROPERTY => {
            let start = *reader;
            reader.binary(CUT)?;
            reader.binary(CUT)?;
            &start.rest()[..start.len() - reader.len()]
        }
        _ => return Err(Fault::malformed("property: unknown identifier")),
    };
    Ok((id, value))
}

/// Returns identifier, value and all bytes of each property, up to the first that cannot be parsed.
fn raw(block: &[u8]) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
    let mut reader = Reader::new(block);
    std::iter::from_fn(move || {
        let start = reader.rest();
        let (id, value) = split(&mut reader).ok()?;
        Some((id, value, &start[..start.len() - reader.len()]))
    })
}

/// Builds a property from the result of [`split`]. Returns `None` if its text is not MQTT text.
fn interpret(id: u8, value: &[u8]) -> Option<Property<'_>> {
    use Property::*;
    Some(match id {
        id::PAYLOAD_FORMAT_INDICATOR => PayloadFormatIndicator(byte(value)?),
        id::MESSAGE_EXPIRY_INTERVAL => MessageExpiryInterval(long(value)?),
        id::CONTENT_TYPE => ContentType(text(value)?),
        id::RESPONSE_TOPIC => ResponseTopic(text(value)?),
        id::CORRELATION_DATA => CorrelationData(value),
        id::SUBSCRIPTION_IDENTIFIER => {
            let id = Reader::new(value).varint("").ok()?;
            SubscriptionIdentifier(u32::try_from(id).ok()?)
        }
        id::SESSION_EXPIRY_INTERVAL => SessionExpiryInterval(long(value)?),
        id::ASSIGNED_CLIENT_IDENTIFIER => AssignedClientIdentifier(text(value)?),
        id::SERVER_KEEP_ALIVE => ServerKeepAlive(short(value)?),
        id::AUTHENTICATION_METHOD => AuthenticationMethod(text(value)?),
        id::AUTHENTICATION_DATA => AuthenticationData(value),
        id::REQUEST_PROBLEM_INFORMATION => RequestProblemInformation(byte(value)?),
        id::WILL_DELAY_INTERVAL => WillDelayInterval(long(value)?),
        id::REQUEST_RESPONSE_INFORMATION => RequestResponseInformation(byte(value)?),
        id::RESPONSE_INFORMATION => ResponseInformation(text(value)?),
        id::SERVER_REFERENCE => ServerReference(text(value)?),
        id::REASON_STRING => ReasonString(text(value)?),
        id::RECEIVE_MAXIMUM => ReceiveMaximum(short(value)?),
        id::TOPIC_ALIAS_MAXIMUM => TopicAliasMaximum(short(value)?),
        id::TOPIC_ALIAS => TopicAlias(short(value)?),
        id::MAXIMUM_QOS => MaximumQos(byte(value)?),
        id::RETAIN_AVAILABLE => RetainAvailable(byte(value)?),
        id::USER_PROPERTY => {
            let mut pair = Reader::new(value);
            UserProperty(pair.text("").ok()?, pair.text("").ok()?)
        }
        id::MAXIMUM_PACKET_SIZE => MaximumPacketSize(long(value)?),
        id::WILDCARD_SUBSCRIPTION_AVAILABLE => WildcardSubscriptionAvailable(byte(value)?),
        id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => SubscriptionIdentifierAvailable(byte(value)?),
        id::SHARED_SUBSCRIPTION_AVAILABLE => SharedSubscriptionAvailable(byte(value)?),
        _ => return None,
    })
}

/// Refuses values that can be parsed but are not allowed.
fn check_value(property: Property<'_>) -> Result<(), Fault> {
    use Property::*;
    let wrong = match property {
        PayloadFormatIndicator(value)
        | RequestProblemInformation(value)
        | RequestResponseInformation(value)
        | MaximumQos(value)
        | RetainAvailable(value)
        | WildcardSubscriptionAvailable(value)
        | SubscriptionIdentifierAvailable(value)
        | SharedSubscriptionAvailable(value) => {
            (value > 1).then_some("property: value is not 0 or 1")
        }
        ReceiveMaximum(0) => Some("receive maximum is 0"),
        MaximumPacketSize(0) => Some("maximum packet size is 0"),
        SubscriptionIdentifier(0) => Some("subscription identifier is 0"),
        // [MQTT-3.3.2-14]. A will becomes a PUBLISH, so the same holds for it.
        ResponseTopic(name) if !topic::is_valid_name(name) => {
            Some("response topic is empty or has a wildcard")
        }
        TopicAlias(0) => {
            // [MQTT-3.3.2-8]
            return Err(Fault::new(
                ReasonCode::TopicAliasInvalid,
                "topic alias is 0",
            ));
        }
        _ => None,
    };
    wrong.map_or(Ok(()), |what| Err(Fault::protocol(what)))
}

/// The identifiers that a packet may have, as bits (MQTT 5 table 2-4).
const fn allowed(kind: BlockKind) -> u64 {
    const fn bits(ids: &[u8]) -> u64 {
        let mut bits = 1 << id::USER_PROPERTY;
        let mut rest = ids;
        while let [id, others @ ..] = rest {
            bits |= 1 << *id;
            rest = others;
        }
        bits
    }
    const CONNECT: u64 = bits(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x27]);
    const WILL: u64 = bits(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18]);
    const CONN_ACK: u64 = bits(&[
        0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25, 0x27, 0x28, 0x29,
        0x2a,
    ]);
    const PUBLISH: u64 = bits(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x23]);
    const ACK: u64 = bits(&[0x1f]);
    const SUBSCRIBE: u64 = bits(&[0x0b]);
    const UNSUBSCRIBE: u64 = bits(&[]);
    const DISCONNECT: u64 = bits(&[0x11, 0x1c, 0x1f]);
    const AUTH: u64 = bits(&[0x15, 0x16, 0x1f]);
    match kind {
        BlockKind::Connect => CONNECT,
        BlockKind::Will => WILL,
        BlockKind::ConnAck => CONN_ACK,
        BlockKind::Publish => PUBLISH,
        BlockKind::Ack => ACK,
        BlockKind::Subscribe => SUBSCRIBE,
        BlockKind::Unsubscribe => UNSUBSCRIBE,
        BlockKind::Disconnect => DISCONNECT,
        BlockKind::Auth => AUTH,
    }
}

/// The identifiers that may occur more than once, as bits. A PUBLISH from a server has one
/// subscription identifier for each matching subscription. The broker checks that a PUBLISH from a
/// client has none [MQTT-3.3.4-6].
const fn repeatable(kind: BlockKind) -> u64 {
    match kind {
        BlockKind::Publish => 1 << id::USER_PROPERTY | 1 << id::SUBSCRIPTION_IDENTIFIER,
        _ => 1 << id::USER_PROPERTY,
    }
}

fn byte(value: &[u8]) -> Option<u8> {
    value.first().copied()
}

fn short(value: &[u8]) -> Option<u16> {
    value.first_chunk().copied().map(u16::from_be_bytes)
}

fn long(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_be_bytes)
}

fn put<const N: usize>(out: &mut Vec<u8>, id: u8, value: [u8; N]) {
    out.push(id);
    out.extend_from_slice(&value);
}

fn put_short(out: &mut Vec<u8>, id: u8, value: u16) {
    out.push(id);
    put_u16(out, value);
}

fn put_u32(out: &mut Vec<u8>, id: u8, value: u32) {
    put(out, id, value.to_be_bytes());
}

fn put_str(out: &mut Vec<u8>, id: u8, value: &str) {
    out.push(id);
    put_text(out, value);
}

fn put_data(out: &mut Vec<u8>, id: u8, value: &[u8]) {
    out.push(id);
    put_binary(out, value);
}

#[cfg(test)]
mod tests;
