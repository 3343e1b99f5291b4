//! Recovery: rows of the store become sessions, queues, subscriptions and retained messages again.

use crate::broker::Broker;
use crate::broker::model::ids::{GroupIndex, Owner, SessionIndex};
use crate::broker::model::message::Message;
use crate::broker::model::record::{
    DeliveryRecord, Durability, InflightRecord, QueueKey, Resume, Seq, SubscriptionRecord, Write,
};
use crate::broker::model::restored::Restored;
use crate::broker::state::queued::Queued;
use crate::broker::state::restoring::Restoring;
use crate::broker::state::session::{Received, Replay, Session};
use crate::broker::state::tree::Subscriber;
use crate::clock::Now;
use crate::wire::topic::Filter;
use crate::wire::{PacketId, QoS};

impl Broker {
    /// Takes one row of the store. Rows come in this order: the reading of the clocks, sessions, groups, subscriptions, wills, received identifiers, bridges, retained
    /// messages, identities of messages by [`Seq`], blocks of messages on their way, whom messages are still to be given to and deliveries, both by [`Seq`]. Rows without an owner are passed over.
    pub fn restore(&mut self, row: Write) {
        match row {
            Write::PutSession(key, record) => {
                let mut session = Session::new(key, record.client_id, record.version);
                // Also if it was to end with its connection: it may have been kept before, and its rows must go with it.
                session.durable = true;
                session.stored = true;
                session.expiry = record.expiry;
                session.disconnected_at = record.disconnected_at;
                session.restored_user = record.user;
                let index = self.sessions.add(session);
                self.recount_session(index, 0);
                self.upkeep.restoring.add_owner(key, Owner::Session(index));
            }
            Write::PutGroup(key, name) => {
                if let Some(filter) = Filter::parse(&name) {
                    let group = self.add_group(&name, filter.filter, key, true);
                    self.upkeep.restoring.add_owner(key, Owner::Group(group));
                }
            }
            Write::PutSubscription(key, text, record) => {
                self.restore_subscription(key, &text, record)
            }
            Write::PutWill(key, record) => {
                if let Some(index) = self.restored_session(key) {
                    self.set_will(index, Some(Box::new(record)));
                }
            }
            Write::PutReceived(key, packet_id) => {
                if let Some(index) = self.restored_session(key) {
                    let received = Received {
                        stamp: Default::default(),
                        stored: true,
                        counted: false,
                    };
                    self.sessions[index].received.insert(packet_id, received);
                }
            }
            Write::PutBridge(key, record) => {
                if self.restored_session(key).is_some() {
                    self.bridges.records.insert(key, record);
                }
            }
            Write::PutMessageId(seq, id) => self.remember_message(id, Some(seq)),
            Write::PutRetained(message, source) => {
                self.retained
                    .insert(message, Default::default(), true, source);
            }
            Write::PutInflight(key, block, records) => {
                if let Some(index) = self.restored_session(key) {
                    let inflight = &mut self.sessions[index].inflight;
                    inflight.recovered(block);
                    for record in records {
                        if record.seq == InflightRecord::NO_ROW {
                            inflight.hold(record.packet_id);
                        } else {
                            self.upkeep.restoring.add_inflight(key, record);
                        }
                    }
                }
            }
            Write::PutSpread(seq, part, record) => {
                self.upkeep.restoring.add_spread(seq, part, record)
            }
            Write::PutDelivery(seq, key, record) => {
                self.restore_spreads(Some(seq));
                self.restore_delivery(seq, key, record);
            }
            Write::PutClock(reading) => self.wall.restored(reading),
            _ => debug_assert!(false, "recovery hands back rows that were put"),
        }
    }

    fn restored_session(&self, key: QueueKey) -> Option<SessionIndex> {
        self.upkeep.restoring.session(key)
    }

    fn restore_subscription(&mut self, key: QueueKey, text: &str, record: SubscriptionRecord) {
        let Some((index, filter)) = self.restored_session(key).zip(Filter::parse(text)) else {
            return;
        };
        let subscriber = Subscriber::new(index, record.options, record.id);
        self.insert_subscription(index, text, &filter, subscriber);
        if let Some(after) = record.replaying.as_deref() {
            let after = (!after.is_empty()).then(|| Message::of_topic(after));
            self.sessions[index].replays.push_back(Replay {
                filter: filter.filter.into(),
                subscriber,
                record,
                after,
                moved: false,
            });
        }
    }

    fn restore_delivery(&mut self, seq: Seq, key: QueueKey, mut record: DeliveryRecord) {
        let Some(owner) = self.upkeep.restoring.owner(key) else {
            return;
        };
        let shares_its_place = self.upkeep.restoring.count_delivery(seq);
        let body = record.message.body_at(seq);
        if body != seq.into() {
            self.messages.recover_moved(seq, body);
        } else if shares_its_place {
            self.messages.share(seq, 1);
        }
        if self.bridges.records.contains_key(&key) {
            let topics = self.bridges.recovered_topics.entry(key).or_default();
            topics.push((seq, record.message.topic));
        }
        let noted = self.upkeep.restoring.inflight(key, seq);
        if let Some(noted) = noted {
            record.packet_id = Some(noted.packet_id);
            record.released |= noted.released;
        }
        let mut item = Queued {
            seq,
            body: None,
            ids: record.subscription_ids,
            expires: record.message.expires.unwrap_or(0),
            size: record.message.size,
            qos: record.qos,
            retain: record.retain,
            level: Durability::Fsync,
            reveals: Default::default(),
            dup: record.packet_id.is_some(),
        };
        let waiting = match owner {
            Owner::Session(index) | Owner::Resend(index) | Owner::Topics(index) => {
                let session = &mut self.sessions[index];
                match record.packet_id {
                    Some(id) => {
                        let published = (record.message.qos, record.message.retain);
                        let waiting =
                            recover_inflight(session, id, item, published, record.released);
                        if noted.is_some() && session.inflight.recovered_note(id, seq) {
                            self.upkeep.restoring.found_inflight(key, seq);
                        }
                        waiting
                    }
                    None => {
                        // The client was connected when the process died: it may have been sent these. Not those of QoS 2, whose identifier
                        // would be known.
                        let most = usize::from(self.settings.limits.max_inflight_messages);
                        item.dup = item.qos == QoS::AtLeastOnce
                            && session.disconnected_at.is_none()
                            && session.queue.len() < most;
                        Some(item)
                    }
                }
            }
            Owner::Group(_) => Some(item),
        };
        if let Some(item) = waiting {
            self.change_queue(owner, |queue| queue.insert(item));
        }
    }

    /// Gives messages to those who have not got them before the process ended: the messages before one of which there are deliveries, or all.
    fn restore_spreads(&mut self, before: Option<Seq>) {
        while let Some((seq, part, record)) = self.upkeep.restoring.next_spread(before) {
            self.write(Write::RemoveSpread(seq, part));
            for receiver in record.receivers {
                if self.upkeep.restoring.owner(receiver.queue).is_none() {
                    continue;
                }
                let delivery = DeliveryRecord {
                    qos: receiver.qos,
                    retain: receiver.retain,
                    released: false,
                    packet_id: None,
                    message: record.message,
                    subscription_ids: receiver.subscription_ids,
                };
                self.restore_delivery(seq, receiver.queue, delivery.clone());
                self.write(Write::PutDelivery(seq, receiver.queue, delivery));
            }
            if self.upkeep.restoring.is_without_receivers(seq) {
                self.write(Write::RemoveMessage(record.message.body_at(seq)));
            }
        }
    }

    /// All rows are there: sessions whose connection died with the process are disconnected now, wills due are published, sessions that have
    /// expired end.
    pub fn finish_restore(&mut self, resume: &Resume, now: Now) -> Restored {
        self.now = now;
        self.gate.recovered(resume.seq, resume.batch);
        self.restore_spreads(None);
        self.settle_moved_bodies();
        self.messages.resume_at(resume);
        let restoring = std::mem::take(&mut self.upkeep.restoring);
        self.forget_notes(&restoring);
        let restored = Restored {
            sessions: self.sessions.len(),
            messages: restoring.deliveries(),
            retained: self.retained.len(),
        };
        let all: Vec<SessionIndex> = self.sessions.iter().map(|(index, _)| index).collect();
        let mut died = Vec::new();
        for index in all {
            self.limit_waits(index);
            let session = &mut self.sessions[index];
            session.inflight.settle_held();
            session.inflight.disconnected();
            if session.disconnected_at.is_none() {
                session.disconnected_at = Some(now.unix);
                let (key, record) = (session.key(), session.record());
                self.write(Write::PutSession(key, record));
                died.push(index);
            }
            self.set_session_timer(index);
            self.watch_replays(index);
        }
        for index in died {
            self.start_will(index);
            if self.sessions[index].expiry == 0 {
                self.end_session(index);
            } else {
                self.set_session_timer(index);
            }
        }
        self.groups_without_members();
        restored
    }

    /// Counts who needs bodies that are needed at other places than their own.
    fn settle_moved_bodies(&mut self) {
        if !self.messages.has_moved() {
            return;
        }
        let inflight = self.sessions.iter();
        let inflight = inflight.flat_map(|(_, session)| session.inflight.seqs());
        let queues = self.sessions.iter().map(|(_, session)| &session.queue);
        let queues = queues.chain(self.groups.iter().map(|(_, group)| &group.queue));
        let queued = queues.flat_map(|queue| queue.messages().map(|item| item.seq));
        self.messages.settle_moved(inflight.chain(queued));
    }

    /// What blocks say of messages that are not on their way goes with the next batch.
    fn forget_notes(&mut self, restoring: &Restoring) {
        for (index, block) in restoring.blocks_without_messages() {
            if self.sessions[index].inflight.change(block, true) {
                self.sessions.changed.push_back(index);
            }
        }
    }

    /// A group whose members' subscriptions were removed just before the process died.
    fn groups_without_members(&mut self) {
        let empty: Vec<GroupIndex> = self
            .groups
            .iter()
            .filter(|(_, group)| group.members().is_empty())
            .map(|(index, _)| index)
            .collect();
        for index in empty {
            self.remove_group(index);
        }
    }
}

/// Takes a message with a packet identifier for one that is on its way to the client. Returns the message that belongs in the queue instead.
///
/// A QoS 1 message keeps its identifier only while nothing stands before it that has none: order matters more. One that has lost it finds it
/// given to another meanwhile; a QoS 2 message keeps its own, or it would arrive twice.
fn recover_inflight(
    session: &mut Session,
    id: PacketId,
    item: Queued,
    published: (QoS, bool),
    released: bool,
) -> Option<Queued> {
    let exact = item.qos == QoS::ExactlyOnce;
    if !exact && !session.queue.is_empty() {
        return Some(item);
    }
    let displaced = match session.inflight.get(id).map(|holder| holder.item.qos) {
        None => None,
        Some(QoS::AtLeastOnce) if exact => session.inflight.remove(id).map(|holder| holder.item),
        Some(_) => return Some(item),
    };
    let key = session.key();
    session
        .inflight
        .insert_recovered(id, item, key, published, released);
    displaced
}
