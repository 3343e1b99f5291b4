//! From the broker to the upstream.

use crate::broker::Broker;
use crate::broker::bridge::relay::{ECHOES, Relay};
use crate::broker::bridge::rules::{SendRetained, remote_topic};
use crate::broker::bridge::settings::Bridge;
use crate::broker::bridge::upstream::Upstream;
use crate::broker::model::ack::ack;
use crate::broker::model::alias::Alias;
use crate::broker::model::leave::Leave;
use crate::broker::model::local::{LocalAck, LocalDelivery, LocalPacket, Step};
use crate::broker::model::marks;
use crate::broker::model::marks::digest;
use crate::clock::Now;
use crate::wire::packet::{Publish, RetainHandling, Subscribe, SubscribeOptions};
use crate::wire::{
    Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, codec,
};

/// Nothing more is taken from the broker while this much waits for the upstream, in bytes.
const FILL_BYTES: usize = 256 * 1024;

/// Filters in one SUBSCRIBE: AWS IoT Core takes eight.
const SUBSCRIBE_FILTERS: usize = 8;

/// A topic that is not longer, in bytes, is shorter than the property that would stand for it.
const ALIAS_BYTES: usize = 3;

impl Relay {
    /// Appends what the broker has for the upstream to `out`; whether nothing more should be read from the upstream for now. Call it when the
    /// connection was touched and all of `out` has been written, until it adds nothing.
    ///
    /// # Errors
    /// The connection should be left.
    pub fn take_output(
        &mut self,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<bool, Leave> {
        self.go_on_trying(broker, out, now)?;
        self.follow_backlog(broker, out, now);
        loop {
            if self.inbox.is_empty() {
                let output = broker.take_deliveries(self.id, &mut self.inbox, now);
                self.closing = output.close;
                if self.inbox.is_empty() {
                    return if output.close {
                        Err(Leave::Ended(ReasonCode::UnspecifiedError))
                    } else if out.is_empty()
                        && self.has_heard_all(broker)
                        && broker.is_taken(self.id)
                    {
                        Err(Leave::Finished)
                    } else {
                        Ok(output.pause)
                    };
                }
            }
            if self.is_held_back() || out.len() >= FILL_BYTES {
                return Ok(broker.should_pause(self.id));
            }
            if let Some(packet) = self.inbox.pop() {
                self.send(packet, broker, out, now)?;
            }
        }
    }

    /// Whether what the broker has must wait for the upstream to answer SUBSCRIBEs.
    fn is_held_back(&self) -> bool {
        (!self.subscribes.is_empty() || self.is_trying_filters()) && !self.closing
    }

    /// Hands one packet of the broker on.
    fn send(
        &mut self,
        packet: LocalPacket,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<(), Leave> {
        self.busy = now.uptime;
        match packet {
            LocalPacket::Publish(delivery) if self.trial.careful => {
                self.hold(delivery, broker, out, now)
            }
            LocalPacket::Publish(delivery) => self.send_publish(&delivery, broker, out, now),
            LocalPacket::Ack(ack) if ack.step == Step::Released => {
                self.send_pubrel(&ack, broker, out, now);
                Ok(())
            }
            LocalPacket::Ack(answer) => {
                codec::encode(&answer.packet(), self.upstream.version, out);
                Ok(())
            }
            LocalPacket::ConnAck(reason) => self.connected(reason, broker, out, now),
            LocalPacket::Disconnect(ReasonCode::ServerShuttingDown) => Err(Leave::ShuttingDown),
            LocalPacket::Disconnect(reason) => Err(Leave::Ended(reason)),
        }
    }

    /// Sends a message, with what is left of its expiry now \[MQTT-3.3.2-6\].
    pub(in crate::broker) fn send_publish(
        &mut self,
        delivery: &LocalDelivery,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<(), Leave> {
        let mut properties = std::mem::take(&mut self.delivered);
        let publish = delivery.publish(now.unix, &mut properties);
        let sent = self.send_delivered(&publish, broker, out, now);
        self.delivered = properties;
        sent
    }

    fn send_delivered(
        &mut self,
        publish: &Publish<'_>,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<(), Leave> {
        let Upstream {
            session_present,
            retain_available,
            maximum_qos,
            ..
        } = self.upstream;
        let rule = remote_topic(&self.bridge.rules, publish.topic, &mut self.name);
        let may_return = self.upstream.version != ProtocolVersion::V5
            && rule.is_some_and(|rule| rule.meets_what_comes_in(&self.bridge.rules));
        let qos = rule.map_or(publish.qos, |rule| publish.qos.min(rule.qos()));
        let qos = qos.min(maximum_qos);
        let keeps = rule.is_none_or(|rule| rule.keeps_retain());
        let sent = Publish {
            // To a session that is new the message is, too.
            dup: publish.dup && session_present,
            qos,
            retain: publish.retain && retain_available && keeps,
            packet_id: publish.packet_id.filter(|_| qos != QoS::AtMostOnce),
            ..*publish
        };
        let refusal = if rule.is_none() {
            Some("no rule of the bridge fits it any more, or its name would be too long")
        } else if !self.encode(&sent, out) {
            Some("it is larger than the upstream takes")
        } else {
            None
        };
        if may_return {
            let named = [self.name.as_bytes(), publish.payload];
            self.echo.sent.push_back(digest(0, &named));
            if self.echo.sent.len() > ECHOES {
                self.echo.sent.pop_front();
            }
        }
        let Some(packet_id) = publish.packet_id else {
            broker.counters.bridge_messages_set_aside += u64::from(refusal.is_some());
            return Ok(());
        };
        if let Some(why) = refusal {
            return self.set_aside(packet_id, why, broker, now);
        }
        if qos != publish.qos {
            self.lowered.insert(packet_id);
        }
        if qos != QoS::AtMostOnce {
            self.await_answer(packet_id, now);
        } else if publish.qos == QoS::AtLeastOnce {
            self.lowered.remove(&packet_id);
            broker.acknowledge(self.id, packet_id, Step::Acknowledged, now);
        } else {
            broker.acknowledge(self.id, packet_id, Step::Received, now);
        }
        Ok(())
    }

    /// Appends a message to `out` under the name the upstream knows it by, and with what is stamped on it; false if it is larger than the upstream takes.
    fn encode(&mut self, publish: &Publish<'_>, out: &mut Vec<u8>) -> bool {
        let Relay {
            name,
            scratch,
            stamp,
            upstream,
            aliases,
            ..
        } = self;
        let version = upstream.version;
        let stamp = stamp.as_properties();
        let most = upstream.maximum_packet_size.min(codec::MAX_PACKET_SIZE) as usize;
        // Whether it fits does not hang on the aliases there are: a message that has been sent can be sent again. What only spares repetitions and loops is
        // left out if the message does not fit with it.
        let mut bare = PropertiesBuf::new();
        let mut publish = *publish;
        let mut length = stamped_len(&publish, name, stamp, scratch, version);
        if length > most {
            publish.properties = marks::without(publish.properties, &mut bare);
            length = stamped_len(&publish, name, stamp, scratch, version);
        }
        if length > most {
            return false;
        }
        // Setting an alias makes the packet longer: by the property, and by a byte for each of two lengths.
        let alias = if name.len() > ALIAS_BYTES && length + ALIAS_BYTES + 2 <= most {
            aliases.name(name)
        } else {
            Alias::None
        };
        let topic = if matches!(alias, Alias::Use(_)) {
            ""
        } else {
            name
        };
        let sent = stamped(&publish, topic, alias, stamp, scratch);
        codec::encode_publish(&sent, version, out);
        true
    }

    /// PUBREL for a message the upstream has not received under this identifier, because it went with a lower QoS or to a session that is gone, is
    /// answered in its place.
    fn send_pubrel(&mut self, pubrel: &LocalAck, broker: &mut Broker, out: &mut Vec<u8>, now: Now) {
        let packet_id = pubrel.packet_id;
        let gone = !self.upstream.session_present && !self.received.contains(&packet_id);
        let lowered = self.lowered.remove(&packet_id);
        if lowered || gone || self.upstream.maximum_qos != QoS::ExactlyOnce {
            return broker.acknowledge(self.id, packet_id, Step::Completed, now);
        }
        self.await_answer(packet_id, now);
        codec::encode(&pubrel.packet(), self.upstream.version, out);
    }

    fn await_answer(&mut self, packet_id: PacketId, now: Now) {
        if self.awaiting.is_empty() {
            self.progress = now.uptime;
        }
        self.awaiting.insert(packet_id);
    }

    /// The broker has the bridge connected, and what was forgotten for it is off the disk: the upstream may begin to send.
    fn connected(
        &mut self,
        reason: ReasonCode,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<(), Leave> {
        if reason.is_error() {
            return Err(Leave::Ended(reason));
        }
        self.release(broker, out);
        broker.replay_to_bridge(self.id, &self.bridge);
        let subscribed = std::mem::replace(&mut self.subscribed, true);
        let bridge = std::sync::Arc::clone(&self.bridge);
        let mut filters = self.filters_of(&bridge);
        let always = |filter: &str| {
            let mut rules = bridge.rules.iter().filter(|rule| rule.goes_in());
            rules.any(|it| {
                it.remote_filter() == filter && it.send_retained() == SendRetained::Always
            })
        };
        filters.retain(|(filter, _)| !subscribed || always(filter));
        let filters = self.sort_out_filters(filters, broker, now);
        let filters = self.keep_behind_backlog(filters, broker);
        self.tell_what_is_missed(broker);
        self.subscribe_all(&filters, broker, out, now);
        self.progress = now.uptime;
        Ok(())
    }

    /// Sends as many SUBSCRIBEs as it takes.
    pub(in crate::broker) fn subscribe_all(
        &mut self,
        filters: &[(&str, SubscribeOptions)],
        broker: &Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) {
        for filters in filters.chunks(SUBSCRIBE_FILTERS) {
            self.subscribe(filters, broker, out, now);
        }
    }

    /// What is to be subscribed to at the upstream, as far as it takes that.
    pub(in crate::broker) fn filters_of<'r>(
        &mut self,
        bridge: &'r Bridge,
    ) -> Vec<(&'r str, SubscribeOptions)> {
        let mut filters: Vec<(&str, SubscribeOptions)> = Vec::new();
        for rule in bridge.rules.iter().filter(|rule| rule.goes_in()) {
            let filter = rule.remote_filter();
            if !self.upstream.wildcards && filter.contains(['+', '#']) {
                if self.refused.iter().all(|(refused, _)| refused != filter) {
                    self.miss(filter, "it takes no wildcards");
                }
                continue;
            }
            let options = SubscribeOptions {
                qos: rule.qos(),
                no_local: true,
                retain_as_published: true,
                retain_handling: match rule.send_retained() {
                    SendRetained::IfNew => RetainHandling::IfNew,
                    SendRetained::Always => RetainHandling::OnSubscribe,
                    SendRetained::Never => RetainHandling::Never,
                },
            };
            filters.push((filter, options));
        }
        filters
    }

    /// Sends a SUBSCRIBE.
    pub(in crate::broker) fn subscribe(
        &mut self,
        filters: &[(&str, SubscribeOptions)],
        broker: &Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) {
        // The broker counts the identifiers of deliveries upwards from 1.
        let free = (1..=u16::MAX)
            .rev()
            .filter_map(PacketId::new)
            .find(|id| !self.subscribes.contains_key(id) && !broker.is_used(self.id, *id));
        let Some(packet_id) = free else { return };
        let subscribe = Subscribe {
            packet_id,
            properties: Properties::EMPTY,
            filters: filters.to_vec(),
        };
        let names = filters.iter().map(|(filter, _)| (*filter).to_owned());
        self.subscribes.insert(packet_id, names.collect());
        self.progress = now.uptime;
        codec::encode(&Packet::Subscribe(subscribe), self.upstream.version, out);
    }

    /// What the upstream may hold as received since an earlier stay is released: before that, nothing new has these identifiers. Nobody waits for it, so an
    /// upstream that does not answer for an identifier it does not know is no worse for that.
    fn release(&mut self, broker: &mut Broker, out: &mut Vec<u8>) {
        if self.upstream.maximum_qos != QoS::ExactlyOnce && !self.releasing.is_empty() {
            self.releasing.clear();
            broker.released(&self.bridge);
        }
        let mut ids: Vec<PacketId> = self.releasing.iter().copied().collect();
        ids.sort_unstable();
        for packet_id in ids {
            let pubrel = Packet::PubRel(ack(packet_id, ReasonCode::Success));
            codec::encode(&pubrel, self.upstream.version, out);
        }
    }
}

/// A message under this topic, with an alias and what the bridge stamps on each before and behind its own properties, which are put together in `scratch`.
fn stamped<'b>(
    publish: &Publish<'b>,
    topic: &'b str,
    alias: Alias,
    stamp: Properties<'_>,
    scratch: &'b mut PropertiesBuf,
) -> Publish<'b> {
    let mut properties = publish.properties;
    if alias != Alias::None || !stamp.is_empty() {
        scratch.clear();
        if let Alias::Set(alias) | Alias::Use(alias) = alias {
            scratch.push(Property::TopicAlias(alias));
        }
        scratch.extend(properties);
        scratch.extend(stamp);
        properties = scratch.as_properties();
    }
    Publish {
        topic,
        properties,
        ..*publish
    }
}

/// The length of such a message without an alias.
fn stamped_len(
    publish: &Publish<'_>,
    topic: &str,
    stamp: Properties<'_>,
    scratch: &mut PropertiesBuf,
    version: ProtocolVersion,
) -> usize {
    let plain = stamped(publish, topic, Alias::None, stamp, scratch);
    codec::publish_len(&plain, version)
}
