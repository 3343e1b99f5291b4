//! What becomes of a message in a PUBLISH for one client.

use crate::broker::model::alias::Alias;
use crate::broker::model::marks;
use crate::broker::model::marks::Mark;
use crate::broker::model::message::{Message, Parts};
use crate::wire::packet::Publish;
use crate::wire::{PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, codec};

/// A PUBLISH to be encoded for a client.
pub struct Delivery<'a> {
    pub parts: &'a Parts<'a>,
    /// The message these are the parts of, if its payload is shared and not copied.
    pub shared: Option<&'a Message>,
    /// What the client calls its topic.
    pub topic: &'a str,
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    pub packet_id: Option<PacketId>,
    pub ids: &'a [u32],
    pub mark: Option<Mark>,
}

impl Delivery<'_> {
    /// Bytes of topic, properties and payload.
    pub fn len(&self) -> usize {
        self.topic.len()
            + self.parts.properties.as_bytes().len()
            + self.parts.payload.len()
            + 5 * self.ids.len()
    }

    /// Bytes of the payload, if it is shared.
    pub fn shared_len(&self) -> usize {
        self.shared.map_or(0, |message| message.payload().len())
    }

    /// Appends the packet that [`Delivery::publish`] made, without the payload if that is shared.
    #[inline]
    pub fn encode(&self, publish: &Publish<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
        match self.shared {
            None => codec::encode_publish(publish, version, out),
            Some(_) => codec::encode_publish_header(publish, version, out),
        }
    }

    /// The packet, its properties put together in `scratch` if they are not the message's own.
    pub fn publish<'b>(
        &'b self,
        v5: bool,
        alias: Alias,
        unix: u64,
        scratch: &'b mut PropertiesBuf,
    ) -> Publish<'b> {
        let topic = match alias {
            Alias::Use(_) if v5 => "",
            _ => self.topic,
        };
        let properties = match v5 {
            true => properties_for(self.parts, self.ids, alias, self.mark, unix, scratch),
            false => self.parts.properties,
        };
        Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic,
            packet_id: self.packet_id,
            properties,
            payload: self.parts.payload,
        }
    }
}

/// The properties of a message as a client is sent them, put together in `scratch` if they are not
/// the message's own. Of its expiry, what is left at this time remains \[MQTT-3.3.2-6\].
pub fn properties_for<'b>(
    parts: &Parts<'b>,
    ids: &[u32],
    alias: Alias,
    mark: Option<Mark>,
    unix: u64,
    scratch: &'b mut PropertiesBuf,
) -> Properties<'b> {
    let stripped = mark.is_none() && marks::leads(parts.properties);
    let is_own = !stripped
        && mark.is_none()
        && parts.expires.is_none()
        && ids.is_empty()
        && alias == Alias::None;
    if is_own {
        return parts.properties;
    }
    scratch.clear();
    if let Alias::Set(alias) | Alias::Use(alias) = alias {
        scratch.push(Property::TopicAlias(alias));
    }
    if let Some(expires) = parts.expires {
        let left = expires.saturating_sub(unix).div_ceil(1000);
        scratch.push(Property::MessageExpiryInterval(
            left.try_into().unwrap_or(u32::MAX),
        ));
    }
    for id in ids {
        scratch.push(Property::SubscriptionIdentifier(*id));
    }
    match mark {
        Some(mark) => mark.put(parts.properties, scratch),
        None if stripped => marks::strip(parts.properties, scratch),
        None => scratch.extend(parts.properties),
    }
    scratch.as_properties()
}
