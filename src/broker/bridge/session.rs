//! A bridge's session at this broker: its subscriptions, and what is set aside.

use crate::broker::Broker;
use crate::broker::bridge::retained::subscribe_options;
use crate::broker::bridge::rules::Rule;
use crate::broker::bridge::settings::Bridge;
use crate::broker::model::access::Arrival;
use crate::broker::model::ack::ack;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::marks;
use crate::broker::model::marks::BRIDGE;
use crate::broker::model::message::{Message, Parts};
use crate::broker::model::record::{BridgeRecord, Write};
use crate::broker::model::topics::CLIENT_PREFIX;
use crate::clock::Now;
use crate::wire::packet::{Connect, Publish, Subscribe, Unsubscribe};
use crate::wire::{
    Fault, Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode,
};

impl Broker {
    /// Makes a bridge's session and its subscriptions what the rules say, so that messages wait for it from now on, whether it is connected or
    /// not, unless its sessions end with its connections. It must not be connected. At the start, call it before clients connect.
    pub fn open_bridge(&mut self, bridge: &Bridge, now: Now) {
        self.now = now;
        let state = self.bridges.states.entry(bridge.name.clone()).or_default();
        state.disconnect();
        state
            .dead_letter_topic
            .clone_from(&bridge.dead_letter_topic);
        let topic = bridge.notifications.as_ref().map(|it| it.topic.clone());
        state.notification_topic = topic;
        let state = state.clone();
        self.publish_bridge_state(&bridge.name, &state);
        match bridge.clean_session {
            true => self.end_bridge_session(bridge, now),
            false => self.make_bridge_session(bridge, now),
        }
    }

    /// Ends a bridge's session, with what waits in it.
    pub(in crate::broker) fn end_bridge_session(&mut self, bridge: &Bridge, now: Now) {
        self.now = now;
        if let Some(index) = self.bridge_session(&bridge.name) {
            self.end_session(index);
        }
    }

    /// Makes a bridge's session and its subscriptions what the rules say.
    pub(in crate::broker) fn make_bridge_session(&mut self, bridge: &Bridge, now: Now) {
        let client_id = bridge.local_clientid();
        let new = self.sessions.find(&client_id).is_none();
        let Some(id) = self.connect_bridge(bridge, 1, ProtocolVersion::V5, now) else {
            return;
        };
        self.open_record(bridge, new);
        if let Some(session) = self.connections[id].session() {
            self.set_queue_policy(session, bridge);
            let wanted = bridge.rules.iter().filter(|rule| rule.goes_out());
            let wanted: Vec<&Rule> = wanted.collect();
            let filters = self.filters_of(session);
            let ended: Vec<&str> = filters
                .iter()
                .map(String::as_str)
                .filter(|text| !wanted.iter().any(|rule| rule.local_filter() == *text))
                .collect();
            if !ended.is_empty() {
                let unsubscribe = Unsubscribe {
                    packet_id: PacketId::FIRST,
                    properties: Properties::EMPTY,
                    filters: ended,
                };
                self.receive(id, Packet::Unsubscribe(unsubscribe), now);
            }
            for rule in wanted {
                let options = subscribe_options(&bridge.rules, rule.local_filter());
                let subscribe = Subscribe {
                    packet_id: PacketId::FIRST,
                    properties: Properties::EMPTY,
                    filters: vec![(rule.local_filter(), options)],
                };
                self.receive(id, Packet::Subscribe(subscribe), now);
            }
        }
        self.lost(id, now);
    }

    /// Connects a bridge to its session; `version` is what its upstream speaks. `None` if the broker shuts down.
    pub(in crate::broker) fn connect_bridge(
        &mut self,
        bridge: &Bridge,
        receive_maximum: u16,
        version: ProtocolVersion,
        now: Now,
    ) -> Option<ConnectionId> {
        let id = self.accept_local(Arrival::bridge(), now)?;
        self.limit_rates(id, bridge.rates_in, bridge.rates_out);
        let mut properties = PropertiesBuf::new();
        properties.push(Property::ReceiveMaximum(receive_maximum));
        if version == ProtocolVersion::V5 && bridge.marks {
            properties.push(Property::UserProperty(BRIDGE, "1"));
        }
        let client_id = bridge.local_clientid();
        let connect = Connect {
            version: ProtocolVersion::V5,
            bridge: false,
            clean_start: false,
            keep_alive: 0,
            client_id: &client_id,
            will: None,
            username: None,
            password: None,
            properties: properties.as_properties(),
        };
        self.receive(id, Packet::Connect(Box::new(connect)), now);
        Some(id)
    }

    /// What is remembered of the bridge with this name beside its session: what [`Broker::remember_bridge`] was told last, in this process or before.
    pub fn bridge_record(&self, name: &str) -> Option<&BridgeRecord> {
        let session = &self.sessions[self.bridge_session(name)?];
        self.bridges.records.get(&session.key())
    }

    /// Remembers this of the bridge with this name for as long as it has its session, on disk if that is. The row is in the open batch when this returns,
    /// and no sooner durable than that is.
    pub fn remember_bridge(&mut self, name: &str, record: BridgeRecord) {
        let Some(index) = self.bridge_session(name) else {
            return;
        };
        let key = self.sessions[index].key();
        if self.bridges.records.get(&key) == Some(&record) {
            return;
        }
        if self.sessions[index].stored {
            self.write(Write::PutBridge(key, record.clone()));
        }
        self.bridges.records.insert(key, record);
    }

    /// The session of the bridge with this name.
    pub(in crate::broker) fn bridge_session(&self, name: &str) -> Option<SessionIndex> {
        self.sessions.find(&format!("{CLIENT_PREFIX}{name}"))
    }

    pub(in crate::broker) fn filters_of(&self, session: SessionIndex) -> Vec<String> {
        let nodes = &self.sessions[session].subscriptions;
        nodes.iter().map(|node| self.tree.filter(*node)).collect()
    }

    /// Whether a packet identifier is that of a delivery on its way to this connection's client, or is kept from being one.
    pub(in crate::broker) fn is_used(&self, id: ConnectionId, packet_id: PacketId) -> bool {
        let session = self.connections[id].session();
        session.is_some_and(|session| {
            let inflight = &self.sessions[session].inflight;
            inflight.get(packet_id).is_some() || inflight.is_reserved(packet_id)
        })
    }

    /// Takes a message that is on its way to a bridge out of its queue, because the upstream will never take it: it goes to the dead-letter topic, with
    /// where it came from and the reason as user properties, unless it is a dead letter already: then it is dropped. False if that cannot be stored now: then it stays where it is.
    pub(in crate::broker) fn set_aside(
        &mut self,
        id: ConnectionId,
        packet_id: PacketId,
        bridge: &Bridge,
        reason: &str,
        now: Now,
    ) -> bool {
        let Some(session) = self.connections[id].session() else {
            return true;
        };
        let Some(message) = self.sessions[session].inflight.get(packet_id) else {
            return true;
        };
        let (qos, body) = (message.item.qos, message.item.body.clone());
        if let Some(body) = &body {
            tracing::warn!(
                bridge = &*bridge.name,
                topic = body.topic(),
                reason,
                "the upstream will not take a message: it is set aside"
            );
        }
        let again = body.as_ref().is_some_and(|it| self.is_dead_letter(it));
        if let (Some(topic), Some(body), false) = (&bridge.dead_letter_topic, &body, again) {
            let mut properties = PropertiesBuf::new();
            marks::put_dead_letter(&mut properties);
            properties.extend(body.properties());
            properties.push(Property::UserProperty("bridge-topic", body.topic()));
            properties.push(Property::UserProperty("bridge-reason", reason));
            let parts = Parts {
                topic,
                properties: properties.as_properties(),
                retain: false,
                qos,
                id: None,
                ..body.parts()
            };
            // The bridge itself must not take it out again.
            if self.publish(&parts, Some(session)).refused {
                return false;
            }
        }
        self.counters.bridge_messages_set_aside += 1;
        if let Some(backlog) = &mut self.sessions[session].backlog {
            backlog.set_aside += 1;
        }
        let packet = match qos {
            QoS::ExactlyOnce => Packet::PubRec(ack(packet_id, ReasonCode::UnspecifiedError)),
            _ => Packet::PubAck(ack(packet_id, ReasonCode::Success)),
        };
        self.receive(id, packet, now);
        true
    }

    /// Whether a message has been set aside before, by this broker or one it is bridged with: it is not set aside again, or two bridges that take everything
    /// out would hand it to each other for ever, larger each time. It is known by its mark, which no client but a bridge can give, and, where it has been
    /// through MQTT 3.1.1, by its topic.
    fn is_dead_letter(&self, message: &Message) -> bool {
        let mut topics = self.bridges.states.values().map(|it| &it.dead_letter_topic);
        marks::is_dead_letter(message.properties())
            || topics.any(|topic| topic.as_deref() == Some(message.topic()))
    }

    /// A message of the upstream that this broker does not take is answered and counted, and the bridge goes on: closing the connection would make it
    /// come again for ever. What cannot be stored for now is worth coming again.
    pub(in crate::broker) fn refuse_bridged(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        fault: Fault,
    ) -> Result<(), Fault> {
        let lasting = matches!(
            fault.reason,
            ReasonCode::TopicNameInvalid
                | ReasonCode::QosNotSupported
                | ReasonCode::RetainNotSupported
                | ReasonCode::PayloadFormatInvalid
        );
        if !self.connections[id].is_own_bridge() || !lasting {
            return Err(fault);
        }
        self.counters.bridge_messages_refused += 1;
        tracing::warn!(client = self.client_name(id), topic = publish.topic, %fault, "a message of the upstream is refused");
        self.refuse_publish(id, publish, fault.reason);
        Ok(())
    }

    /// Whether a publisher can be told that its message was refused, and does something sensible then. A bridge's upstream would take any answer for
    /// "done".
    pub(in crate::broker) fn is_told(&self, id: ConnectionId) -> bool {
        let connection = &self.connections[id];
        connection.version() == ProtocolVersion::V5 && !connection.is_own_bridge()
    }
}
