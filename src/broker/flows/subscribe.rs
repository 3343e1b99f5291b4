//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5 sections 3.8 to 3.11).

use crate::broker::Broker;
use crate::broker::model::cost::subscription_bytes;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::record::{SubscriptionRecord, Write};
use crate::broker::model::work::OPERATION;
use crate::broker::state::gate::{Arrow, SESSION, Stamp};
use crate::broker::state::notices::Notice;
use crate::broker::state::tree::Subscriber;
use crate::wire::packet::{RetainHandling, SubAck, Subscribe, SubscribeOptions, Unsubscribe};
use crate::wire::topic::Filter;
use crate::wire::{Fault, Packet, Properties, ProtocolVersion, QoS, ReasonCode};

impl Broker {
    /// Each filter is answered by one code, in order \[MQTT-3.8.4-6\]; SUBACK waits until the
    /// subscriptions of a durable session are on disk.
    pub(in crate::broker) fn receive_subscribe(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        subscribe: &Subscribe<'_>,
    ) -> Result<(), Fault> {
        self.check_filters(id, subscribe.filters.len())?;
        if !self.connections[id].is_own_bridge() {
            subscribe.check_texts()?;
        }
        self.catch_up(session);
        let subscription_id = subscribe.properties.subscription_identifier();
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let mut replays = Vec::new();
        let is_bridge = self.connections[id].options().is_bridge;
        for (text, options) in &subscribe.filters {
            let mounted = self.mounted_filter(session, text);
            let text = mounted.as_deref().unwrap_or(text);
            let granted = SubscribeOptions {
                qos: options.qos.min(self.maximum_qos(id)),
                no_local: options.no_local || is_bridge,
                retain_as_published: options.retain_as_published || is_bridge,
                ..*options
            };
            match self.subscribe(session, text, granted, subscription_id) {
                Ok((record, wanted)) => {
                    if wanted {
                        let subscriber = Subscriber::new(session, granted, subscription_id);
                        replays.push((Box::<str>::from(text), subscriber, record));
                    }
                    codes.push(granted_code(granted.qos));
                }
                Err(reason) => codes.push(reason),
            }
        }
        let stamp = self.require_session(session, codes.iter().any(|code| !code.is_error()));
        let suback = SubAck {
            packet_id: subscribe.packet_id,
            properties: Properties::EMPTY,
            codes,
        };
        self.push(id, stamp, &Packet::SubAck(suback));
        for (filter, subscriber, record) in replays {
            self.begin_replay(session, &filter, subscriber, record);
        }
        Ok(())
    }

    /// Adds or replaces one subscription. Returns what is kept of it, and whether retained messages
    /// are to be sent for it.
    fn subscribe(
        &mut self,
        session: SessionIndex,
        text: &str,
        options: SubscribeOptions,
        subscription_id: Option<u32>,
    ) -> Result<(SubscriptionRecord, bool), ReasonCode> {
        let filter = Filter::parse(text).ok_or(ReasonCode::TopicFilterInvalid)?;
        if !self.fits(filter.filter) {
            self.counters.topics_refused += 1;
            return Err(ReasonCode::TopicFilterInvalid);
        }
        if !self.grants(session, filter.filter) {
            self.counters.subscriptions_not_authorized += 1;
            self.notice(session, Notice::SubscribeDenied, text);
            return Err(ReasonCode::NotAuthorized);
        }
        self.count_filter(text);
        let state = &self.sessions[session];
        let count = state.subscriptions.len() + state.groups.len();
        let is_stored = state.durable;
        let is_full = count >= self.settings.limits.max_subscriptions
            || !self.has_memory(session, subscription_bytes(text))
            || filter.share.is_some() && !self.has_group_room(text);
        let no_room = is_stored && !self.has_session_room();
        // What there is already may be replaced.
        if (is_full || no_room) && !self.is_subscribed(session, text, &filter) {
            self.counters.subscriptions_refused += u64::from(is_full);
            self.counters.refused_store_full += u64::from(!is_full);
            return Err(ReasonCode::QuotaExceeded);
        }
        let new = self.insert_subscription(
            session,
            text,
            &filter,
            Subscriber::new(session, options, subscription_id),
        );
        let wanted = match options.retain_handling {
            RetainHandling::OnSubscribe => true,
            RetainHandling::IfNew => new,
            RetainHandling::Never => false,
        };
        // Retained messages are not sent for shared subscriptions (section 4.8.2).
        let wanted = wanted && filter.share.is_none();
        let state = &self.sessions[session];
        let mut record = SubscriptionRecord {
            options,
            id: subscription_id,
            replaying: None,
        };
        if state.durable {
            let key = state.key();
            let begins = wanted && options.qos != QoS::AtMostOnce && self.may_be_retained(text);
            let replayed = self.replayed(session, text, &record);
            record.replaying = if begins { Some("".into()) } else { replayed };
            self.write(Write::PutSubscription(key, text.into(), record.clone()));
        }
        Ok((record, wanted))
    }

    fn is_subscribed(&self, session: SessionIndex, text: &str, filter: &Filter<'_>) -> bool {
        match filter.share {
            Some(_) => self.membership(text, session).is_some(),
            None => self
                .tree
                .find(filter.filter)
                .is_some_and(|node| self.tree.subscriber(node, session).is_some()),
        }
    }

    /// Puts a subscription where publishing finds it; whether it is new.
    pub(in crate::broker) fn insert_subscription(
        &mut self,
        session: SessionIndex,
        text: &str,
        filter: &Filter<'_>,
        subscriber: Subscriber,
    ) -> bool {
        let new = match filter.share {
            Some(_) => self.join_group(text, filter, subscriber).is_none(),
            None => {
                let (node, old) = self.tree.subscribe(filter.filter, subscriber);
                self.sessions[session].subscriptions.insert(node);
                old.is_none()
            }
        };
        if new {
            self.accounts.subscribe();
            self.count_subscription(session, text);
        }
        new
    }

    /// The filters of a packet are handled in one go: there must not be too many.
    fn check_filters(&mut self, id: ConnectionId, count: usize) -> Result<(), Fault> {
        let bridge = self.connections[id].is_own_bridge();
        if bridge || count <= self.settings.limits.max_filters_per_packet {
            return Ok(());
        }
        self.counters.filters_refused += 1;
        Err(Fault {
            reason: ReasonCode::QuotaExceeded,
            what: "more filters in one packet than max_filters_per_packet",
        })
    }

    /// Counts the work that a filter of a packet is: each of its levels is looked up, and made or
    /// removed.
    fn count_filter(&mut self, text: &str) {
        let levels = text.bytes().filter(|byte| *byte == b'/').count() as u64;
        self.pace.spend(OPERATION + levels);
    }

    /// \[MQTT-3.10.4-4\]: UNSUBACK even if nothing was removed. What is under way or queued is
    /// still delivered.
    pub(in crate::broker) fn receive_unsubscribe(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Result<(), Fault> {
        self.check_filters(id, unsubscribe.filters.len())?;
        if !self.connections[id].is_own_bridge() {
            unsubscribe.check_texts()?;
        }
        // In MQTT 3, UNSUBACK cannot say that a filter is none [MQTT-4.7.3-1].
        let is_old = self.connections[id].version() != ProtocolVersion::V5;
        let mut filters = unsubscribe.filters.iter();
        if is_old && filters.any(|text| Filter::parse(text).is_none()) {
            return Err(Fault::malformed(
                "UNSUBSCRIBE: a topic filter is not well formed",
            ));
        }
        // What was published before is not new to it [MQTT-3.10.4-2].
        self.catch_up(session);
        let codes: Vec<ReasonCode> = unsubscribe
            .filters
            .iter()
            .map(|text| {
                let mounted = self.mounted_filter(session, text);
                self.unsubscribe(session, mounted.as_deref().unwrap_or(text))
            })
            .collect();
        let stamp = self.require_session(session, codes.contains(&ReasonCode::Success));
        let unsuback = SubAck {
            packet_id: unsubscribe.packet_id,
            properties: Properties::EMPTY,
            codes,
        };
        self.push(id, stamp, &Packet::UnsubAck(unsuback));
        Ok(())
    }

    /// Removes one subscription.
    pub(in crate::broker) fn unsubscribe(
        &mut self,
        session: SessionIndex,
        text: &str,
    ) -> ReasonCode {
        let Some(filter) = Filter::parse(text) else {
            return ReasonCode::TopicFilterInvalid;
        };
        self.count_filter(text);
        let removed = match filter.share {
            Some(_) => match self.membership(text, session) {
                Some((group, _)) => {
                    self.leave_inflight(group, session);
                    self.leave_group(group, session);
                    true
                }
                None => false,
            },
            None => match self.tree.find(filter.filter) {
                Some(node) if self.sessions[session].subscriptions.remove(&node) => {
                    self.tree.unsubscribe(node, session)
                }
                _ => false,
            },
        };
        if !removed {
            return ReasonCode::NoSubscriptionExisted;
        }
        self.accounts.unsubscribe();
        self.discount_subscription(session, text);
        let state = &self.sessions[session];
        if state.durable {
            let key = state.key();
            self.write(Write::RemoveSubscription(key, text.into()));
        }
        ReasonCode::Success
    }

    /// What an acknowledgement waits for that promises a change of a session.
    fn require_session(&mut self, session: SessionIndex, changed: bool) -> Stamp {
        if changed && self.sessions[session].durable {
            let stamp = self.gate.require(SESSION);
            self.gated(Arrow::SubAck, stamp)
        } else {
            Stamp::NONE
        }
    }
}

fn granted_code(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQos1,
        QoS::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
