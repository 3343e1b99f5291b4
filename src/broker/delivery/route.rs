//! From an accepted message to the queues of its receivers.
//!
//! One broker decides, so every topic has one order.

use crate::broker::Broker;
use crate::broker::delivery::spread::cost;
use crate::broker::model::ids::{Owner, SessionIndex};
use crate::broker::model::message::Parts;
use crate::broker::model::record::{Durability, QueueKey, Seq, SubscriptionIds, Write};
use crate::broker::model::topics::SYS_PREFIX;
use crate::broker::state::gate::{Stamp, WRITE_WEIGHT};
use crate::broker::state::offer::{Frames, HOT_MESSAGES, Offer, Published, Receiver, Routes};
use crate::broker::state::queue::Queue;
use crate::broker::state::queued::Queued;
use crate::broker::state::tree::Subscriber;
use crate::wire::{QoS, ReasonCode, topic};

impl Broker {
    /// Gives a message to everybody who subscribes to it, and retains it if it says so. `from` is the session of its publisher.
    pub(in crate::broker) fn publish(
        &mut self,
        parts: &Parts<'_>,
        from: Option<SessionIndex>,
    ) -> Published {
        self.publish_if(parts, from, false)
    }

    /// As [`Broker::publish`], but nobody is given the message if a bridge should get it whose queue is full and which refuses what it has no room for.
    pub(in crate::broker) fn publish_or_refuse(
        &mut self,
        parts: &Parts<'_>,
        from: Option<SessionIndex>,
    ) -> Published {
        self.publish_if(parts, from, self.bridges.refusing)
    }

    fn publish_if(
        &mut self,
        parts: &Parts<'_>,
        from: Option<SessionIndex>,
        may_refuse: bool,
    ) -> Published {
        let mut routes = self.scratch.routes.take().unwrap_or_default();
        self.find_receivers(parts, from, &mut routes);
        let qos = self.offered_qos(parts.topic, parts.qos);
        let raised = Parts { qos, ..*parts };
        let mut published = self.give(&raised, parts.qos, from, &mut routes, may_refuse);
        if published.refused && parts.qos == QoS::AtMostOnce {
            // There is no room for it at a higher QoS, and nobody who could be told.
            published = self.give(parts, parts.qos, from, &mut routes, may_refuse);
        }
        routes.subscribers.clear();
        routes.receivers.clear();
        routes.groups.clear();
        self.scratch.routes = Some(routes);
        published
    }

    /// The QoS a message is offered with, of which each receiver gets no more than it was granted: the one it was published
    /// with \[MQTT-3.8.4-8\], or the highest (`upgrade_outgoing_qos`). What the broker says of itself stays at QoS 0.
    pub(in crate::broker) fn offered_qos(&self, topic: &str, published: QoS) -> QoS {
        match self.settings.upgrade_outgoing_qos && !topic.starts_with(SYS_PREFIX) {
            true => QoS::ExactlyOnce,
            false => published,
        }
    }

    /// Sets whether deliveries go out at the QoS that was granted, as [`crate::broker::Settings::upgrade_outgoing_qos`] says at the
    /// start. Holds for what is published from now on, and for what is retained.
    pub fn upgrade_outgoing_qos(&mut self, upgrade: bool) {
        self.settings.upgrade_outgoing_qos = upgrade;
    }

    /// Gives a message, at the QoS it is offered with, to those who were found. It was published at another one, perhaps.
    fn give(
        &mut self,
        parts: &Parts<'_>,
        published: QoS,
        from: Option<SessionIndex>,
        routes: &mut Routes,
        may_refuse: bool,
    ) -> Published {
        let matched = !routes.receivers.is_empty() || !routes.groups.is_empty();
        if !matched {
            self.counters.publishes_unmatched += 1;
            if !parts.retain {
                return Published::nothing(ReasonCode::NoMatchingSubscribers);
            }
        }
        let acknowledged = parts.qos != QoS::AtMostOnce;
        let level = if acknowledged || parts.retain {
            self.durability_of(parts.topic)
        } else {
            Durability::Memory
        };
        let needs_store = level != Durability::Memory
            && (parts.retain || (acknowledged && self.any_durable(routes)));
        if needs_store
            && !(parts.retain && parts.payload.is_empty())
            && !self.has_room(rows_of(parts, routes))
        {
            self.counters.refused_store_full += 1;
            if acknowledged {
                return Published::REFUSED;
            }
        }
        if may_refuse && acknowledged && self.is_refused(parts, level, routes) {
            return Published::REFUSED;
        }
        let as_published = Parts {
            qos: published,
            ..*parts
        };
        let retained = parts
            .retain
            .then(|| self.retain(&as_published, from, level));
        let stamp = if needs_store {
            self.gate.require(level)
        } else {
            Stamp::NONE
        };
        let seq = match acknowledged {
            true => self.messages.take_seq(),
            false => self.messages.next_seq(),
        };
        let mut offer = Offer {
            parts,
            body: None,
            seq,
            level,
            stamp,
            stored: 0,
            admitted: may_refuse,
            taken: retained == Some(ReasonCode::Success),
            dropped: false,
            from,
            is_for_many: routes.receivers.len() + routes.groups.len() > 1,
        };
        for group in &routes.groups {
            self.offer_to_group(*group, &mut offer);
        }
        routes.frames.clear();
        let later = self.split_slice(parts.qos, &mut routes.receivers);
        for receiver in routes.receivers.drain(..) {
            self.hand_out(receiver, &mut offer, &mut routes.frames);
        }
        if !later.is_empty() {
            self.spread(&mut offer, later);
            // Nobody waits until the last of them has had its turn.
            offer.taken = true;
        }
        self.store_body(&mut offer);
        let reason = match retained {
            _ if offer.dropped && !offer.taken => ReasonCode::QuotaExceeded,
            Some(reason) if reason.is_error() && !matched => reason,
            _ if matched => ReasonCode::Success,
            _ => ReasonCode::NoMatchingSubscribers,
        };
        // An error would have its publisher send it again, and subscribers get it again.
        let not_retained = retained.is_some_and(ReasonCode::is_error) && !reason.is_error();
        Published {
            stamp,
            reason,
            why: not_retained
                .then_some("the message was delivered, but not retained: there is no room"),
            refused: false,
            seq: (needs_store && acknowledged).then_some(seq),
        }
    }

    /// Gives a message to one of its receivers.
    #[inline]
    pub(in crate::broker) fn hand_out(
        &mut self,
        receiver: Receiver,
        offer: &mut Offer<'_>,
        frames: &mut Frames,
    ) {
        let Receiver { subscriber, ids } = receiver;
        let retain = offer.parts.retain && self.keeps_retain(&subscriber); // [MQTT-3.3.1-12, MQTT-3.3.1-13]
        let qos = offer.parts.qos.min(subscriber.qos()); // [MQTT-3.8.4-8]
        self.pace.spend(cost(qos));
        if qos == QoS::AtMostOnce {
            self.deliver_qos0(subscriber.session, offer, retain, ids.as_slice(), frames);
        } else {
            let durable = self.sessions[subscriber.session].durable;
            let item = offer.queued(qos, retain, ids, durable);
            self.offer(subscriber.session, item, offer);
        }
    }

    /// Writes the body of a message that queues have stored, once for all of them.
    pub(in crate::broker) fn store_body(&mut self, offer: &mut Offer<'_>) {
        if offer.stored > 0 {
            let body = offer.body();
            self.messages.store(offer.seq, offer.stored);
            self.write(Write::PutMessage(offer.seq.into(), body));
        }
    }

    /// Collects who gets a message: each session once, whatever number of its filters match \[MQTT-3.3.4-2\].
    fn find_receivers(
        &mut self,
        parts: &Parts<'_>,
        from: Option<SessionIndex>,
        routes: &mut Routes,
    ) {
        let matched = self
            .tree
            .matches(parts.topic, &mut routes.subscribers, &mut routes.groups);
        // Groups and receivers count when they are given the message.
        self.pace.spend(matched.visited as u64);
        let most_ids = self.settings.limits.max_subscription_ids;
        if matched.filters > 1 {
            routes
                .subscribers
                .sort_by_key(|subscriber| subscriber.session);
        }
        for subscriber in &routes.subscribers {
            if subscriber.no_local() && from == Some(subscriber.session) {
                let session = &self.sessions[subscriber.session];
                if session.has_options {
                    continue; // [MQTT-3.8.3-3]
                }
            }
            match routes.receivers.last_mut() {
                Some(last) if last.subscriber.session == subscriber.session => {
                    last.subscriber.merge(*subscriber)
                }
                _ => routes.receivers.push(Receiver {
                    subscriber: *subscriber,
                    ids: SubscriptionIds::NONE,
                }),
            }
            if let Some(last) = routes.receivers.last_mut().filter(|_| subscriber.id != 0)
                && !last.ids.add(subscriber.id, most_ids)
            {
                self.counters.subscription_ids_left_out += 1; // [MQTT-3.3.4-3, MQTT-3.3.4-4]
            }
        }
        if self.upkeep.removals.placeholders() > 0 {
            let sessions = &self.sessions;
            let is_placeholder = |it: &Receiver| sessions[it.subscriber.session].is_placeholder;
            routes
                .receivers
                .retain(|receiver| !is_placeholder(receiver));
        }
        if self.sessions.restricted {
            routes
                .receivers
                .retain(|receiver| self.may_read(receiver.subscriber.session, parts.topic));
        }
    }

    /// Whether a delivery keeps its message's retain flag. A MQTT 3 client gets it with what was retained before it subscribed only, also in a session
    /// in which a MQTT 5 client has asked for more (MQTT 3.1.1, MQTT-3.3.1-9).
    pub(in crate::broker) fn keeps_retain(&self, subscriber: &Subscriber) -> bool {
        subscriber.retain_as_published() && self.sessions[subscriber.session].has_options
    }

    fn any_durable(&self, routes: &Routes) -> bool {
        let durable = |session: SessionIndex| self.sessions[session].durable;
        routes.receivers.iter().any(|receiver| {
            receiver.subscriber.qos() != QoS::AtMostOnce && durable(receiver.subscriber.session)
        }) || routes
            .groups
            .iter()
            .any(|group| self.groups[*group].is_durable())
    }

    /// Whether a bridge that should get a message refuses it.
    fn is_refused(&mut self, parts: &Parts<'_>, level: Durability, routes: &Routes) -> bool {
        let size = parts.size();
        let mut receivers = routes.receivers.iter();
        receivers.any(|Receiver { subscriber, .. }| {
            let stored = level != Durability::Memory && self.sessions[subscriber.session].durable;
            subscriber.qos() != QoS::AtMostOnce
                && self.is_refused_by(subscriber.session, parts.topic, size as u64, stored)
        })
    }

    /// How far acknowledgements wait for messages of a topic. What the broker says of itself is never written.
    pub(in crate::broker) fn durability_of(&self, topic: &str) -> Durability {
        if topic.starts_with(SYS_PREFIX) {
            return Durability::Memory;
        }
        let rules = &self.settings.durability;
        let rule = rules
            .topics
            .iter()
            .find(|(filter, _)| topic::matches(filter, topic));
        rule.map_or(rules.default, |(_, level)| *level)
    }

    /// Gives a message to a session: straight to its client if that may have it now, into the queue otherwise.
    pub(in crate::broker) fn offer(
        &mut self,
        index: SessionIndex,
        mut item: Queued,
        offer: &mut Offer<'_>,
    ) {
        self.catch_up(index);
        let topic = offer.parts.topic;
        let older = self.older_waiting(index, topic, item.is_stored());
        let size = self.outgoing_size(item.size as usize, item.body.as_ref());
        if self.may_send_at_once(index, size) {
            self.supersede(index, older);
            let session = &mut self.sessions[index];
            let (key, stored) = (session.key(), item.is_stored());
            session.queue.sent_live();
            let sent = self.send(index, item, key, None, offer.stamp, true);
            offer.taken |= sent;
            offer.stored += u32::from(sent && stored);
            return;
        }
        if !self.make_room(index, &item, older, offer.admitted) {
            offer.dropped = true;
            return;
        }
        self.note_newest(index, topic, item.seq);
        let session = &self.sessions[index];
        let (key, live) = (session.key(), session.is_live_first());
        let soon = session.connection.is_some() && session.queue.lane_len(live) < HOT_MESSAGES;
        self.prepare_to_wait(&mut item, key, soon, offer);
        self.change_queue(Owner::Session(index), |queue| match live {
            true => queue.insert_live(item),
            false => queue.insert(item),
        });
        self.touch_session(index);
    }

    /// Whether the queue of a shared group has no room for a message.
    pub(in crate::broker) fn is_full(&self, queue: &Queue, item: &Queued) -> bool {
        let limits = &self.settings.limits;
        let size = u64::from(item.size);
        let caps = (limits.max_queued_messages, limits.max_queued_bytes);
        let waiting = (queue.len() as u64, queue.bytes());
        self.is_short(caps, waiting, size, 0) || !item.is_stored() && self.is_memory_short(size)
    }

    /// Whether a message is too much for a queue with these caps and this much in it, or for all queues when some bytes have been freed. Of two
    /// numbers, the first is of messages, the second of bytes.
    pub(in crate::broker) fn is_short(
        &self,
        caps: (u64, u64),
        waiting: (u64, u64),
        size: u64,
        freed: u64,
    ) -> bool {
        waiting.0 >= caps.0
            || waiting.1 + size > caps.1
            || self.accounts.queued().bytes - freed + size
                > self.settings.limits.max_queued_bytes_total
    }

    /// Whether there is no memory for a message that is not on disk.
    pub(in crate::broker) fn is_memory_short(&self, size: u64) -> bool {
        self.accounts.queued().hot_bytes + size > self.settings.limits.max_queued_memory_bytes
    }

    /// Writes the row of a message that is about to join a queue. Its body stays in memory if the store will not have it, or if
    /// it will be wanted `soon` and the budget allows.
    pub(in crate::broker) fn prepare_to_wait(
        &mut self,
        item: &mut Queued,
        key: QueueKey,
        soon: bool,
        offer: &mut Offer<'_>,
    ) {
        let size = u64::from(item.size);
        offer.taken = true;
        if item.is_stored() {
            offer.stored += 1;
            let record = self.messages.record(item, None, false);
            self.write(Write::PutDelivery(item.seq, key, record));
            let hot_bytes = self.accounts.queued().hot_bytes;
            if !soon || hot_bytes + size > self.settings.limits.max_hot_bytes {
                item.body = None;
            }
        }
    }

    /// A delivery of a stored message is over: its row goes, and the body with the last of them. Nobody waits for that.
    pub(in crate::broker) fn forget(&mut self, item: &Queued, key: QueueKey) {
        if item.is_stored() {
            self.write(Write::RemoveDelivery(item.seq, key));
            self.release_body(item.seq);
        }
    }

    /// One delivery less needs the body of a stored message.
    pub(in crate::broker) fn release_body(&mut self, seq: Seq) {
        if let Some(body) = self.messages.release(seq) {
            self.write(Write::RemoveMessage(body));
        }
    }
}

/// Bytes of all rows that a message needs at most: its body, and one for everybody it is for.
fn rows_of(parts: &Parts<'_>, routes: &Routes) -> u64 {
    let deliveries = routes.receivers.len() + routes.groups.len();
    (parts.size() + deliveries * WRITE_WEIGHT) as u64
}
