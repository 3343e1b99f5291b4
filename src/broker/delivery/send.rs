//! From a session's queue to its client: packet identifiers, windows and resending.

use crate::broker::Broker;
use crate::broker::model::ack::ack;
use crate::broker::model::alias::Alias;
use crate::broker::model::delivery::Delivery;
use crate::broker::model::ids::{ConnectionId, GroupIndex, Owner, SessionIndex};
use crate::broker::model::local::{LocalDelivery, LocalPacket};
use crate::broker::model::message::{Message, Parts};
use crate::broker::model::record::{QueueKey, Write};
use crate::broker::state::gate::{Arrow, SESSION, Stamp};
use crate::broker::state::notices::Notice;
use crate::broker::state::offer::{Frames, Offer};
use crate::broker::state::queued::Queued;
use crate::wire::{Packet, PacketId, ProtocolVersion, QoS, ReasonCode, codec};

/// An outbox is filled up from the queue while less than this waits in it, in bytes: enough to keep a connection busy while it is written.
const FILL_BYTES: usize = 256 * 1024;

/// Messages that are looked at when an outbox is filled up, sent or not (what has expired is not): about a millisecond's work.
const PUMP_MESSAGES: usize = if cfg!(test) { 64 } else { 2048 };

impl Broker {
    /// Whether a session's client may be sent a message of this size now, ahead of nothing.
    pub(in crate::broker) fn may_send_at_once(&self, index: SessionIndex, size: usize) -> bool {
        let session = &self.sessions[index];
        let queue = &session.queue;
        let overtakes = || session.is_live_first() && queue.may_overtake() && !session.is_held();
        (queue.is_empty() || overtakes())
            && session.inflight.resend().is_none()
            && self.has_window(index, size)
    }

    /// Whether a session's client is connected and its receive maximum allows a message [MQTT-3.3.4-9].
    fn client_has_window(&self, index: SessionIndex) -> bool {
        let session = &self.sessions[index];
        session.connection.is_some_and(|id| {
            let most = self.connections[id].receive_maximum();
            session.inflight.on_wire() < usize::from(most)
        })
    }

    /// Whether a session's client is connected and can take a message of this size.
    pub(in crate::broker) fn has_window(&self, index: SessionIndex, size: usize) -> bool {
        let session = &self.sessions[index];
        let Some(id) = session.connection else {
            return false;
        };
        let limits = &self.settings.limits;
        let most = usize::from(limits.max_inflight_messages);
        let bytes = limits.max_inflight_bytes;
        let inflight = &session.inflight;
        let fits = inflight.has_room(most) && (bytes == 0 || inflight.bytes() < bytes);
        let connection = &self.connections[id];
        self.client_has_window(index)
            && !connection.is_finishing()
            && (fits || connection.is_own_bridge())
            && !self.is_outgoing_full(id, FILL_BYTES, size)
            && !connection.has_had_enough(self.now.uptime)
    }

    /// Delivers at QoS 0: now or never.
    pub(in crate::broker) fn deliver_qos0(
        &mut self,
        index: SessionIndex,
        offer: &mut Offer<'_>,
        retain: bool,
        ids: &[u32],
        frames: &mut Frames,
    ) {
        self.catch_up(index);
        let Some(id) = self.sessions[index].connection else {
            return;
        };
        let body = offer.shared();
        let most = self.settings.limits.max_outgoing_bytes;
        let size = self.outgoing_size(offer.parts.size(), body.as_ref());
        if self.is_outgoing_full(id, most, size) {
            self.counters.dropped_outgoing_full += 1;
            self.notice(index, Notice::OutgoingFull, offer.parts.topic);
            return;
        }
        let mark = self.mark(id, offer.parts, None);
        let connection = &mut self.connections[id];
        if connection.has_had_enough(self.now.uptime) {
            self.counters.dropped_quota += 1;
            self.notice(index, Notice::TooFast, offer.parts.topic);
            return;
        }
        let mut delivery = Delivery {
            parts: offer.parts,
            shared: body.as_ref(),
            topic: connection.topic_for_client(offer.parts.topic),
            qos: QoS::AtMostOnce,
            retain,
            dup: false,
            packet_id: None,
            ids,
            mark,
        };
        let is_mounted = delivery.topic.len() < offer.parts.topic.len();
        let is_local = connection.outbox().is_local();
        let is_alone = is_local || is_mounted || connection.uses_aliases() || mark.is_some();
        if is_alone || !ids.is_empty() {
            if self.fits_client(id, &mut delivery) {
                let body = is_local.then(|| offer.body());
                self.push_publish(id, &delivery, body.as_ref(), offer.stamp);
                offer.taken = true;
            }
            return;
        }
        let v5 = connection.version() == ProtocolVersion::V5;
        let frame = frames.of(v5, retain);
        if frame.is_empty() {
            let unix = self.now.unix;
            let publish = delivery.publish(v5, Alias::None, unix, &mut self.scratch.properties);
            delivery.encode(&publish, connection.version(), frame);
        }
        if frame.len() + delivery.shared_len() > connection.options().maximum_packet_size as usize {
            self.counters.dropped_too_large += 1;
            return;
        }
        connection
            .outbox_mut()
            .push(offer.stamp, &self.gate, |out| out.extend_from_slice(frame));
        if let Some(message) = delivery.shared.filter(|_| !frame.is_empty()) {
            self.push_shared(id, message);
        }
        self.counters.publishes_sent += 1;
        self.counters.payload_bytes_sent += offer.parts.payload.len() as u64;
        self.count_sent(id, delivery.len());
        self.pushed(id);
        offer.taken = true;
    }

    /// Delivers a message to one client at QoS 0, if it is connected and can take it; whether it did.
    pub(in crate::broker) fn deliver_now(
        &mut self,
        index: SessionIndex,
        parts: &Parts<'_>,
        body: Option<&Message>,
        retain: bool,
        subscription: u32,
        stamp: Stamp,
    ) -> bool {
        self.catch_up(index);
        let Some(id) = self.sessions[index].connection else {
            return false;
        };
        let most = self.settings.limits.max_outgoing_bytes;
        let size = self.outgoing_size(parts.size(), body);
        if self.is_outgoing_full(id, most, size) {
            self.counters.dropped_outgoing_full += 1;
            self.notice(index, Notice::OutgoingFull, parts.topic);
            return false;
        }
        let connection = &self.connections[id];
        if connection.has_had_enough(self.now.uptime) {
            self.counters.dropped_quota += 1;
            self.notice(index, Notice::TooFast, parts.topic);
            return false;
        }
        let ids = if subscription == 0 {
            &[][..]
        } else {
            &[subscription][..]
        };
        let mut delivery = Delivery {
            parts,
            shared: body.and_then(Message::shared),
            topic: connection.topic_for_client(parts.topic),
            qos: QoS::AtMostOnce,
            retain,
            dup: false,
            packet_id: None,
            ids,
            mark: self.mark(id, parts, None),
        };
        let fits = self.fits_client(id, &mut delivery);
        if fits {
            self.push_publish(id, &delivery, body, stamp);
        }
        fits
    }

    /// Sends a message that has its body to a connected client: gives it a packet identifier, remembers it, and pushes the packet. `queue` is whose
    /// row it has, `stamp` what the message itself waits for, `new` says that its row is not written yet. False if the client does not take packets
    /// of that size: then the delivery is as good as done \[MQTT-3.1.2-25\].
    pub(in crate::broker) fn send(
        &mut self,
        index: SessionIndex,
        item: Queued,
        queue: QueueKey,
        group: Option<GroupIndex>,
        stamp: Stamp,
        new: bool,
    ) -> bool {
        let session = &mut self.sessions[index];
        let (own, durable) = (session.key(), session.durable);
        let ready = session
            .connection
            .zip(session.inflight.free_id())
            .zip(item.body.clone());
        let Some(((id, packet_id), body)) = ready else {
            debug_assert!(
                false,
                "a message is sent through an open window and with its body"
            );
            return false;
        };
        let parts = body.parts();
        let mut delivery = Delivery {
            parts: &parts,
            shared: body.shared(),
            topic: self.connections[id].topic_for_client(parts.topic),
            qos: item.qos,
            retain: item.retain,
            dup: item.dup,
            packet_id: Some(packet_id),
            ids: item.ids.as_slice(),
            mark: self.mark(id, &parts, Some(item.seq)),
        };
        if !self.fits_client(id, &mut delivery) {
            if !new {
                self.forget(&item, queue);
            }
            return false;
        }
        // A QoS 2 packet identifier must be known after a crash, or the message would go out under another one and arrive twice, or another under this
        // one: its PUBLISH waits until that is written, with the row or with its block. One of QoS 1 is written with the row only.
        let names = item.qos == QoS::ExactlyOnce && durable;
        let exact = names && item.is_stored();
        let row = if exact { own } else { queue };
        let write_row = item.is_stored() && (new || row != queue);
        let mut stamp = stamp;
        if write_row {
            let record = match row == own {
                true => self.messages.record(&item, Some(packet_id), false),
                false => self.messages.group_record(&item),
            };
            self.write(Write::PutDelivery(item.seq, row, record));
            if !new && row != queue {
                self.write(Write::RemoveDelivery(item.seq, queue));
            }
        }
        stamp = stamp.max(match (exact, names) {
            (true, _) => self.gate.require(SESSION),
            (_, true) => self.open_block(index, packet_id),
            _ if write_row => self.gate.require(item.level),
            _ => Stamp::NONE,
        });
        if names {
            stamp = self.gated(Arrow::Publish, stamp);
        }
        self.push_publish(id, &delivery, Some(&body), stamp);
        self.sessions[index]
            .inflight
            .insert_sent(packet_id, item, row, group);
        if exact && !write_row {
            self.note(index, packet_id);
        }
        true
    }

    /// Whether the client takes packets of this size \[MQTT-3.1.2-24\], at least without a mark, which then goes; counts it if not.
    fn fits_client(&mut self, id: ConnectionId, delivery: &mut Delivery<'_>) -> bool {
        let connection = &self.connections[id];
        if connection.options().maximum_packet_size == u32::MAX {
            return true;
        }
        let v5 = connection.version() == ProtocolVersion::V5;
        let publish =
            delivery.publish(v5, Alias::None, self.now.unix, &mut self.scratch.properties);
        let fits = codec::publish_len(&publish, connection.version())
            <= connection.options().maximum_packet_size as usize;
        if !fits && delivery.mark.take().is_some() {
            return self.fits_client(id, delivery);
        }
        if !fits {
            self.counters.dropped_too_large += 1;
        }
        fits
    }

    /// Pushes a PUBLISH. `body` is the message that it delivers, if there is one already: a local
    /// consumer gets it as it is.
    fn push_publish(
        &mut self,
        id: ConnectionId,
        delivery: &Delivery<'_>,
        body: Option<&Message>,
        stamp: Stamp,
    ) {
        self.counters.publishes_sent += 1;
        self.counters.payload_bytes_sent += delivery.parts.payload.len() as u64;
        if self.connections[id].outbox().is_local() {
            let body = body.cloned();
            let message = body.unwrap_or_else(|| Message::new(delivery.parts));
            self.push_value(id, delivery, message, stamp);
        } else {
            self.push_encoded(id, delivery, stamp);
        }
        self.count_sent(id, delivery.len());
        self.pushed(id);
    }

    /// Pushes a PUBLISH to a local consumer.
    fn push_value(
        &mut self,
        id: ConnectionId,
        delivery: &Delivery<'_>,
        message: Message,
        stamp: Stamp,
    ) {
        debug_assert!(
            delivery.ids.is_empty(),
            "its SUBSCRIBEs have no identifiers"
        );
        if let Some(message) = message.shared() {
            self.outgoing.enter(message);
        }
        let packet = LocalPacket::Publish(LocalDelivery {
            message,
            qos: delivery.qos,
            retain: delivery.retain,
            dup: delivery.dup,
            packet_id: delivery.packet_id,
            mark: delivery.mark,
        });
        let outbox = self.connections[id].outbox_mut();
        outbox.push_local(stamp, &self.gate, packet);
    }

    /// Pushes a PUBLISH to a socket.
    fn push_encoded(&mut self, id: ConnectionId, delivery: &Delivery<'_>, stamp: Stamp) {
        let connection = &self.connections[id];
        let version = connection.version();
        let topic = delivery.topic;
        // Setting an alias makes the packet larger by up to six bytes: it must fit even then.
        let largest = connection.options().maximum_packet_size;
        let fits = largest == u32::MAX || delivery.len() + 1024 < largest as usize;
        let alias = if fits {
            self.alias_for(id, topic)
        } else {
            Alias::None
        };
        let connection = &mut self.connections[id];
        let publish = delivery.publish(
            version == ProtocolVersion::V5,
            alias,
            self.now.unix,
            &mut self.scratch.properties,
        );
        let before = connection.outbox().own_len();
        connection.outbox_mut().push(stamp, &self.gate, |out| {
            delivery.encode(&publish, version, out)
        });
        // A packet that would be too long for MQTT is not encoded.
        let is_encoded = connection.outbox().own_len() > before;
        if let Some(message) = delivery.shared.filter(|_| is_encoded) {
            self.push_shared(id, message);
        }
    }

    /// Fills a connection's outbox: first what must be sent again, then retained messages for new subscriptions and the session's queue, then the
    /// queues of its shared groups. Goes on when the outbox has been taken, an acknowledgement has come or bodies have been read.
    pub(in crate::broker) fn pump(&mut self, id: ConnectionId, index: SessionIndex) {
        let mut left = PUMP_MESSAGES;
        self.pump_session(id, index, &mut left);
        if self.has_turn(id) {
            self.pump_session(id, index, &mut left);
            self.use_turn(id);
        }
        if left == 0 {
            self.serve_again(id);
        }
    }

    fn pump_session(&mut self, id: ConnectionId, index: SessionIndex, left: &mut usize) {
        while let Some(packet_id) = self.sessions[index].inflight.resend() {
            let inflight = &self.sessions[index].inflight;
            let size = inflight
                .get(packet_id)
                .map_or(0, |it| self.outgoing_size(it.len(), it.item.body.as_ref()));
            if *left == 0 || self.is_outgoing_full(id, FILL_BYTES, size) {
                return self.await_turn(id, size);
            }
            *left -= 1;
            if self.has_older_queued(index, packet_id) {
                // Both were under way before the crash, so max_inflight_messages had room for both: only the client's window can be closed.
                if !self.client_has_window(index) || !self.send_next(index) {
                    return;
                }
                continue;
            }
            if !self.resend(id, index, packet_id) {
                return;
            }
            self.sessions[index].inflight.resent();
        }
        while let Some(item) = self.sessions[index].queue.next_item() {
            let size = self.outgoing_size(item.size as usize, item.body.as_ref());
            if !self.has_window(index, size) {
                self.await_turn(id, size);
                break;
            }
            if *left == 0 || !self.send_next(index) {
                return;
            }
            *left -= 1;
            self.replay_in_turn(index);
        }
        if self.sessions[index].queue.is_empty() && !self.sessions[index].replays.is_empty() {
            self.replay(id, index);
        }
        self.pump_groups(index, left);
    }

    /// Whether the queue has a message older than one to be sent again: after a crash it may, because QoS 1 messages lose their identifiers.
    fn has_older_queued(&self, index: SessionIndex, packet_id: PacketId) -> bool {
        let session = &self.sessions[index];
        if session.inflight.as_sent {
            return false;
        }
        let again = session
            .inflight
            .get(packet_id)
            .filter(|message| !message.released);
        again
            .zip(session.queue.front())
            .is_some_and(|(again, first)| first.seq < again.item.seq)
    }

    /// Sends the first message of a session's queue; false if its body is not there yet.
    fn send_next(&mut self, index: SessionIndex) -> bool {
        let session = &self.sessions[index];
        let queue = &session.queue;
        let key = queue.key;
        let next = queue.next().filter(|_| !session.is_held());
        let Some((at, first)) = next.and_then(|at| Some((at, queue.get(at)?))) else {
            return false;
        };
        if first.body.is_none() && !first.is_expired(self.now.unix) {
            self.fetch(Owner::Session(index));
            return false;
        }
        if let Some(item) = self.pop(Owner::Session(index), at) {
            if self.may_have(index, &item) {
                let stamp = self.stamp_of(&item);
                self.send(index, item, key, None, stamp, false);
            } else {
                self.hold(Owner::Session(index), item);
            }
        }
        self.fetch_ahead(Owner::Session(index));
        true
    }

    /// What the delivery of a queued message waits for.
    pub(in crate::broker) fn stamp_of(&self, item: &Queued) -> Stamp {
        if item.is_stored() {
            self.gate.stamp_of(item.seq, item.level)
        } else {
            item.reveals
        }
    }

    /// Takes a message out of a queue, mostly the first; `None` if it has expired.
    pub(in crate::broker) fn pop(&mut self, owner: Owner, at: usize) -> Option<Queued> {
        let unix = self.now.unix;
        let taken = self.change_queue(owner, |queue| Some((queue.take(at)?, queue.key)));
        let (item, key) = taken.flatten()?;
        if item.is_expired(unix) {
            let session = match owner {
                Owner::Group(_) => None,
                Owner::Session(index) | Owner::Resend(index) | Owner::Topics(index) => Some(index),
            };
            self.count_expired(session); // [MQTT-3.3.2-5]
            self.forget(&item, key);
            return None;
        }
        Some(item)
    }

    /// Sends a message or a PUBREL again after a reconnection, under its original packet identifier \[MQTT-4.4.0-1\]; false if it cannot be yet.
    fn resend(&mut self, id: ConnectionId, index: SessionIndex, packet_id: PacketId) -> bool {
        let session = &mut self.sessions[index];
        let Some(message) = session.inflight.get(packet_id) else {
            return true;
        };
        if message.released {
            self.push(
                id,
                Stamp::NONE,
                &Packet::PubRel(ack(packet_id, ReasonCode::Success)),
            );
            return true;
        }
        if session.inflight.on_wire() >= usize::from(self.connections[id].receive_maximum()) {
            return false;
        }
        let Some(body) = message.item.body.clone() else {
            self.fetch(Owner::Resend(index));
            return false;
        };
        let item = message.item.clone();
        let queue = message.queue;
        // What has been sent once is sent again even if it has expired since: the exchange must be finished. A message that was never sent is not here.
        let parts = body.parts();
        let mut delivery = Delivery {
            parts: &parts,
            shared: body.shared(),
            topic: self.connections[id].topic_for_client(parts.topic),
            qos: item.qos,
            retain: item.retain,
            dup: true, // [MQTT-3.3.1-1]
            packet_id: Some(packet_id),
            ids: item.ids.as_slice(),
            mark: self.mark(id, &parts, Some(item.seq)),
        };
        let stamp = self.stamp_of(&item);
        if !self.may_have(index, &item) {
            self.hold_inflight(index, packet_id);
        } else if self.fits_client(id, &mut delivery) {
            self.push_publish(id, &delivery, Some(&body), stamp);
            self.sessions[index].inflight.mark_on_wire(packet_id);
        } else {
            self.take_inflight(index, packet_id);
            self.forget(&item, queue);
        }
        true
    }
}
