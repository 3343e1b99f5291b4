//! PUBLISH from a client, and the rest of the exchange that brings it in (MQTT 5 sections 3.3 and
//! 4.3).

use crate::broker::Broker;
use crate::broker::model::ack::ack;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::marks;
use crate::broker::model::marks::Marks;
use crate::broker::model::message::Parts;
use crate::broker::model::record::{Durability, Write};
use crate::broker::model::topics::{SYS_PREFIX, is_state_topic_of};
use crate::broker::state::gate::{Arrow, SESSION};
use crate::broker::state::notices::Notice;
use crate::broker::state::offer::Published;
use crate::broker::state::session::Received;
use crate::wire::packet::{Ack, Publish};
use crate::wire::{
    Fault, Packet, PacketId, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, text,
};

/// What a PUBLISH says in its properties beside what is forwarded.
#[derive(Default)]
struct Instructions {
    alias: Option<u16>,
    expiry: Option<u32>,
    utf8: bool,
    marks: Marks,
}

impl Broker {
    pub(in crate::broker) fn receive_publish(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        publish: &Publish<'_>,
    ) -> Result<(), Fault> {
        self.counters.publishes_received += 1;
        self.counters.payload_bytes_received += publish.payload.len() as u64;
        let properties = publish.properties.as_bytes().len();
        self.count_received(id, publish.topic.len() + properties + publish.payload.len());
        let mut instructions = Instructions::default();
        let connection = &self.connections[id];
        let is_bridge = connection.is_own_bridge();
        let believed = is_bridge || connection.options().marked;
        for property in publish.properties.iter() {
            if !is_bridge {
                text::check_publish_property(&property)?;
            }
            match property {
                Property::TopicAlias(alias) => instructions.alias = Some(alias),
                Property::MessageExpiryInterval(seconds) => instructions.expiry = Some(seconds),
                Property::PayloadFormatIndicator(format) => instructions.utf8 = format == 1,
                Property::SubscriptionIdentifier(_) => {
                    return Err(Fault::protocol(
                        "PUBLISH from a client with a subscription identifier",
                    )); // [MQTT-3.3.4-6]
                }
                Property::UserProperty(name, value) if name.starts_with(marks::PREFIX) => {
                    let own = || marks::hop(self.settings.identity, publish.payload);
                    match believed {
                        true => instructions.marks.read(name, value, own),
                        false => instructions.marks.ignore(name),
                    }
                }
                _ => {}
            }
        }
        let resolved = self.resolve_topic(id, session, publish.topic, instructions.alias)?;
        let topic = resolved.as_deref().unwrap_or(publish.topic);
        if resolved.is_none() {
            // What an upstream sends is answered, or it would send it for ever.
            text::check_topic_name(topic).map_err(|fault| match is_bridge {
                true => Fault::new(ReasonCode::TopicNameInvalid, fault.what),
                false => fault,
            })?;
        }
        let own_id = &self.sessions[session].client_id;
        if topic.starts_with(SYS_PREFIX) && !is_state_topic_of(own_id, topic) {
            self.deny_publish(id, session, publish, topic);
            return Ok(());
        }
        let mounted = self.mounted_topic(session, topic);
        let topic = mounted.as_deref().unwrap_or(topic);
        self.check_message(id, topic, publish.qos, publish.retain)?;
        self.check_receive_maximum(id, session, publish)?;
        if !self.may_write(session, topic) && !self.has_received(session, publish) {
            self.deny_publish(id, session, publish, topic);
            return Ok(());
        }

        let (mut forwarded, mut unmarked) = (PropertiesBuf::new(), PropertiesBuf::new());
        let marks = &instructions.marks;
        let properties = publish.properties.forwardable(&mut forwarded);
        let parts = Parts {
            topic,
            properties: marks.take_off(properties, believed, &mut unmarked),
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            expires: instructions
                .expiry
                .map(|seconds| self.now.unix + u64::from(seconds) * 1000),
            id: marks.id.filter(|_| marks.is_bridged()),
        };
        let readable = !instructions.utf8 || std::str::from_utf8(publish.payload).is_ok();
        match publish.packet_id {
            None if readable => {
                self.publish_once(&parts, session, marks);
                Ok(())
            }
            None => Err(Fault {
                reason: ReasonCode::PayloadFormatInvalid,
                what: "PUBLISH payload is not UTF-8",
            }),
            Some(packet_id) if publish.qos == QoS::AtLeastOnce => {
                self.receive_qos1(id, session, packet_id, &parts, readable, marks)
            }
            Some(packet_id) => self.receive_qos2(id, session, packet_id, &parts, readable, marks),
        }
    }

    /// Whether this is a QoS 2 message again that was taken before: its exchange goes on, whatever
    /// the client may do by now.
    fn has_received(&self, session: SessionIndex, publish: &Publish<'_>) -> bool {
        let received = &self.sessions[session].received;
        let id = publish
            .packet_id
            .filter(|_| publish.qos == QoS::ExactlyOnce);
        id.is_some_and(|id| received.contains_key(&id))
    }

    /// Refuses what a client may not publish, counts it and says so.
    fn deny_publish(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        publish: &Publish<'_>,
        topic: &str,
    ) {
        let in_silence = publish.packet_id.is_some() && !self.is_told(id);
        self.counters.publishes_not_authorized += 1;
        self.counters.publishes_not_authorized_acknowledged += u64::from(in_silence);
        self.notice(session, Notice::PublishDenied, topic);
        self.refuse_publish(id, publish, ReasonCode::NotAuthorized);
    }

    /// What a client may not publish goes nowhere, and neither does what it sends to `$SYS`, where
    /// only the broker publishes (section 4.7.2). A MQTT 5 client is told; a MQTT 3 client, which
    /// cannot be, gets its acknowledgement, as with Mosquitto.
    pub(in crate::broker) fn refuse_publish(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        reason: ReasonCode,
    ) {
        let Some(packet_id) = publish.packet_id else {
            return;
        };
        let answer = ack(packet_id, reason);
        let packet = if publish.qos == QoS::AtLeastOnce {
            Packet::PubAck(answer)
        } else {
            Packet::PubRec(answer)
        };
        self.push_final_ack(id, Default::default(), &packet);
    }

    /// \[MQTT-4.3.2-4\]: PUBACK says that the broker has taken over the message, so it waits until
    /// that is true.
    fn receive_qos1(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        packet_id: PacketId,
        parts: &Parts<'_>,
        readable: bool,
        marks: &Marks,
    ) -> Result<(), Fault> {
        if !readable {
            self.push_final_ack(
                id,
                Default::default(),
                &Packet::PubAck(ack(packet_id, ReasonCode::PayloadFormatInvalid)),
            );
            return Ok(());
        }
        let published = self.publish_once(parts, session, marks);
        // A client that cannot be told is sent away if the message was refused, and comes back with
        // it; not if it only was not retained.
        if published.refused && !self.is_told(id) {
            return Err(Fault {
                reason: published.reason,
                what: "the message cannot be stored",
            });
        }
        // The upstream of a bridge would take an error for the end of it, and a full queue here is
        // no reason to leave it.
        let bridge = self.connections[id].is_own_bridge();
        let reason = match published.reason {
            ReasonCode::QuotaExceeded if bridge => ReasonCode::Success,
            reason => reason,
        };
        self.push_final_ack(
            id,
            self.gated(Arrow::PubAck, published.stamp),
            &Packet::PubAck(Ack {
                packet_id,
                reason,
                properties: self.explained(id, published.why).as_properties(),
            }),
        );
        Ok(())
    }

    /// \[MQTT-4.3.3-8, MQTT-4.3.3-10\]: PUBREC waits until message and packet identifier are kept;
    /// until PUBREL the same identifier is the same message, and is answered without publishing it
    /// again. What is lost is lost together: so both wait as the topic does.
    fn receive_qos2(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        packet_id: PacketId,
        parts: &Parts<'_>,
        readable: bool,
        marks: &Marks,
    ) -> Result<(), Fault> {
        if let Some(received) = self.sessions[session].received.get_mut(&packet_id) {
            let stamp = received.stamp;
            if !std::mem::replace(&mut received.counted, true) {
                self.connections[id].count_unreleased();
            }
            self.counters.duplicates_suppressed += 1;
            self.push(
                id,
                stamp,
                &Packet::PubRec(ack(packet_id, ReasonCode::Success)),
            );
            return Ok(());
        }
        if !readable {
            self.push_final_ack(
                id,
                Default::default(),
                &Packet::PubRec(ack(packet_id, ReasonCode::PayloadFormatInvalid)),
            );
            return Ok(());
        }
        let level = self.durability_of(parts.topic);
        // The identifier must be kept, even if the message is not.
        let keeps = self.sessions[session].durable && level != Durability::Memory;
        let published = match keeps && !self.has_session_room() {
            true => {
                self.counters.refused_store_full += 1;
                Published::REFUSED
            }
            false => self.publish_once(parts, session, marks),
        };
        let told = self.is_told(id);
        if published.refused && !told {
            return Err(Fault {
                reason: published.reason,
                what: "the message cannot be stored",
            });
        }
        if published.reason.is_error() && told {
            // [MQTT-4.3.3-9]: with an error the exchange is over; the identifier is free again.
            self.push_final_ack(
                id,
                published.stamp,
                &Packet::PubRec(ack(packet_id, published.reason)),
            );
            return Ok(());
        }
        let mut stamp = published.stamp;
        let publisher = &self.sessions[session];
        // What goes in a circle is dropped again, whatever its identifier.
        let kept = if publisher.durable && !marks.is_circling() {
            level
        } else {
            Durability::Memory
        };
        if kept != Durability::Memory {
            let key = publisher.key();
            self.write(Write::PutReceived(key, packet_id));
            stamp = stamp.max(self.gate.require(kept));
        }
        let received = Received {
            stamp,
            stored: kept != Durability::Memory,
            counted: true,
        };
        self.sessions[session].received.insert(packet_id, received);
        self.connections[id].count_unreleased();
        let stamp = self.gated(Arrow::PubRec, stamp);
        // An error would end the exchange for a publisher that has not been told of it before.
        let reason = if told {
            published.reason
        } else {
            ReasonCode::Success
        };
        let why = self.explained(id, published.why);
        let answer = Ack {
            packet_id,
            reason,
            properties: why.as_properties(),
        };
        self.push(id, stamp, &Packet::PubRec(answer));
        Ok(())
    }

    /// What explains an acknowledgement, if its client wants to know.
    fn explained(&self, id: ConnectionId, why: Option<&str>) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        let wanted = why.filter(|_| self.connections[id].options().wants_reasons);
        if let Some(why) = wanted {
            properties.push(Property::ReasonString(why));
        }
        properties
    }

    /// PUBREL: the client will not send the message again, so its identifier is forgotten; PUBCOMP
    /// waits until that is on disk, or a crash would make the identifier's next message look like
    /// this one \[MQTT-4.3.3-11\]. That may be one of another topic.
    pub(in crate::broker) fn receive_pubrel(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        pubrel: &Ack<'_>,
    ) -> Result<(), Fault> {
        let packet_id = pubrel.packet_id;
        let publisher = &mut self.sessions[session];
        let key = publisher.key();
        let Some(received) = publisher.received.remove(&packet_id) else {
            let answer = ack(packet_id, ReasonCode::PacketIdentifierNotFound);
            self.push(id, Default::default(), &Packet::PubComp(answer));
            return Ok(());
        };
        if received.counted {
            self.connections[id].release();
        }
        let mut stamp = received.stamp;
        if received.stored {
            self.write(Write::RemoveReceived(key, packet_id));
            stamp = self.gate.require(SESSION);
        }
        self.push_final_ack(
            id,
            self.gated(Arrow::PubComp, stamp),
            &Packet::PubComp(ack(packet_id, ReasonCode::Success)),
        );
        Ok(())
    }

    /// The topic an alias stands for; `None` if the PUBLISH names it.
    fn resolve_topic(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        topic: &str,
        alias: Option<u16>,
    ) -> Result<Option<Box<str>>, Fault> {
        let Some(alias) = alias else { return Ok(None) };
        if alias == 0 || alias > self.settings.limits.max_topic_alias {
            return Err(Fault {
                reason: ReasonCode::TopicAliasInvalid,
                what: "PUBLISH topic alias above the maximum",
            }); // [MQTT-3.3.2-9]
        }
        if !topic.is_empty() {
            self.set_alias(id, session, alias, topic)?;
            return Ok(None);
        }
        match self.connections[id].resolve_alias(alias) {
            Some(topic) => Ok(Some(topic.into())),
            None => Err(Fault::protocol("PUBLISH topic alias that was never set")),
        }
    }

    /// Checks a message against what the broker takes: the will of a CONNECT and a PUBLISH alike.
    pub(in crate::broker) fn check_message(
        &mut self,
        id: ConnectionId,
        topic: &str,
        qos: QoS,
        retain: bool,
    ) -> Result<(), Fault> {
        if qos > self.maximum_qos(id) {
            return Err(Fault {
                reason: ReasonCode::QosNotSupported,
                what: "QoS above maximum_qos",
            }); // [MQTT-3.2.2-11]
        }
        if retain && !self.settings.limits.retain_available {
            return Err(Fault {
                reason: ReasonCode::RetainNotSupported,
                what: "retain is not available",
            }); // [MQTT-3.2.2-13]
        }
        if !self.fits(topic) {
            self.counters.topics_refused += 1;
            return Err(Fault {
                reason: ReasonCode::TopicNameInvalid,
                what: "the topic is longer or deeper than allowed",
            });
        }
        Ok(())
    }

    /// Whether a topic name or filter is within the limits.
    pub(in crate::broker) fn fits(&self, topic: &str) -> bool {
        let limits = &self.settings.limits;
        topic.len() <= limits.max_topic_length
            && (topic.len() < limits.max_topic_levels
                || topic.bytes().filter(|byte| *byte == b'/').count() < limits.max_topic_levels)
    }

    /// \[MQTT-3.3.4-7, MQTT-3.3.4-9\]: a MQTT 5 client has been told how many messages it may have
    /// under way.
    fn check_receive_maximum(
        &self,
        id: ConnectionId,
        session: SessionIndex,
        publish: &Publish<'_>,
    ) -> Result<(), Fault> {
        let connection = &self.connections[id];
        let Some(packet_id) = publish
            .packet_id
            .filter(|_| connection.version() == ProtocolVersion::V5 && !connection.is_own_bridge())
        else {
            return Ok(());
        };
        let again = self.sessions[session]
            .received
            .get(&packet_id)
            .is_some_and(|received| received.counted);
        let underway = connection.underway();
        if !again && underway >= u32::from(self.settings.limits.receive_maximum) {
            return Err(Fault {
                reason: ReasonCode::ReceiveMaximumExceeded,
                what: "more messages under way than the receive maximum",
            });
        }
        Ok(())
    }
}
