//! Retained messages: kept by topic, and sent to new subscriptions in slices.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::message::{Message, Parts};
use crate::broker::model::record::{
    Durability, Source, SubscriptionIds, SubscriptionRecord, Write,
};
use crate::broker::state::gate::Stamp;
use crate::broker::state::offer::Offer;
use crate::broker::state::session::Replay;
use crate::broker::state::timers::Timer;
use crate::broker::state::tree::Subscriber;
use crate::wire::{QoS, ReasonCode, topic};

/// Retained topics looked at in one slice of a replay.
const TOPICS_AT_ONCE: usize = 512;

/// Milliseconds between two slices for a client that is gone.
const REPLAY_MS: u64 = 10;

impl Broker {
    /// Keeps a message as the retained one of its topic; an empty payload removes it \[MQTT-3.3.1-5, MQTT-3.3.1-6\].
    pub(in crate::broker) fn retain(
        &mut self,
        parts: &Parts<'_>,
        from: Option<SessionIndex>,
        level: Durability,
    ) -> ReasonCode {
        if parts.payload.is_empty() {
            if self.retained.remove(parts.topic) {
                self.write(Write::RemoveRetained(parts.topic.into()));
            }
            return ReasonCode::Success;
        }
        let limits = &self.settings.limits;
        let source = self.source(from, parts.topic);
        let size = parts.size() as u64;
        let more = self.retained.bytes_for(size, source.as_deref());
        let (messages, bytes) = (limits.max_retained_messages, limits.max_retained_bytes);
        let full = self.retained.is_full(parts.topic, more, messages, bytes);
        let no_room = level != Durability::Memory && !self.has_room(more);
        if full || no_room {
            self.counters.refused_retained += u64::from(full);
            // What is older than a message that was published must not stand in its place.
            if self.retained.remove(parts.topic) {
                self.write(Write::RemoveRetained(parts.topic.into()));
            }
            return ReasonCode::QuotaExceeded;
        }
        // Whenever it is sent for a new subscription it is a message of its own.
        let message = Message::new(&Parts { id: None, ..*parts });
        let stored = level != Durability::Memory;
        let mut stamp = Stamp::NONE;
        if stored {
            self.write(Write::PutRetained(message.clone(), source.clone()));
            stamp = self.gate.require(level);
        }
        let had_row = self.retained.insert(message, stamp, stored, source);
        if had_row && !stored {
            // Left there, an older message would be the retained one after the next start.
            self.write(Write::RemoveRetained(parts.topic.into()));
        }
        ReasonCode::Success
    }

    /// Who publishes what is to be retained; `None` if it is the broker or a bridge of it, if the rules for it came with
    /// its login, or if it is a client that was here before this process.
    fn source(&self, from: Option<SessionIndex>, topic: &str) -> Option<Arc<Source>> {
        let session = &self.sessions[from?];
        let identity = session.identity.as_ref()?;
        if session.backlog.is_some() || identity.rules.is_some() {
            return None;
        }
        let acl = session.rights.as_ref().and_then(|rights| rights.list());
        Some(
            self.retained
                .source(topic, &session.client_id, identity.user.as_deref(), acl),
        )
    }

    /// Whether what is retained of a topic may be shown as far as its publisher is concerned.
    fn lets_show(&self, topic: &str) -> bool {
        let acls = &self.settings.acl;
        let ask = |source: &Source| acls.lets_show(source, topic);
        self.retained.lets_show(topic, ask)
    }

    /// Whether there may be retained messages that a filter matches: there are some that begin as it does.
    pub(in crate::broker) fn may_be_retained(&self, filter: &str) -> bool {
        self.retained.candidates(filter, None).next().is_some()
    }

    /// A subscription is made anew. If retained messages that were to be sent for it still are, returns how far that has come: it is lost with the
    /// process if it is not written with the subscription.
    pub(in crate::broker) fn replayed(
        &mut self,
        index: SessionIndex,
        filter: &str,
        record: &SubscriptionRecord,
    ) -> Option<Box<str>> {
        let replays = self.sessions[index].replays.iter_mut();
        let mut least: Option<Box<str>> = None;
        for replay in replays.filter(|it| it.is_stored() && *it.filter == *filter) {
            replay.record = SubscriptionRecord {
                replaying: Some("".into()),
                ..record.clone()
            };
            if least.as_deref().is_none_or(|least| replay.after() < least) {
                least = Some(replay.after().into());
            }
        }
        least
    }

    /// A replay goes on later. How far it has come is written with the open batch, which has what it has sent so far.
    fn suspend_replay(&mut self, index: SessionIndex, replay: Replay) {
        let session = &mut self.sessions[index];
        let moved = replay.moved && replay.is_stored();
        session.replays.push_front(replay);
        if moved && !std::mem::replace(&mut session.replays_moved, true) {
            self.note_changed(index);
        }
    }

    /// Writes how far the replays of a session have come, where that has changed.
    pub(in crate::broker) fn write_replays(&mut self, index: SessionIndex) {
        let session = &mut self.sessions[index];
        if !std::mem::take(&mut session.replays_moved) {
            return;
        }
        let key = session.key();
        let mut rows = Vec::new();
        // The first ones move, and those behind them wait for their turn.
        for at in 0..self.sessions[index].replays.len() {
            if !std::mem::take(&mut self.sessions[index].replays[at].moved) {
                continue;
            }
            let session = &self.sessions[index];
            let moved = &session.replays[at];
            // If it was unsubscribed meanwhile, its row is gone and must not come back.
            if !self.is_wanted(index, moved) {
                continue;
            }
            let same = session
                .replays
                .iter()
                .filter(|it| it.is_stored() && it.filter == moved.filter);
            let least = same.map(Replay::after).min().unwrap_or_default();
            let record = SubscriptionRecord {
                replaying: Some(least.into()),
                ..moved.record.clone()
            };
            rows.push(Write::PutSubscription(key, moved.filter.clone(), record));
        }
        rows.into_iter().for_each(|row| self.write(row));
    }

    /// All retained messages of a replay have been sent or are in the queue: its subscription says so from now on, unless there is another one for it.
    fn end_replay(&mut self, index: SessionIndex, replay: Replay) {
        let session = &self.sessions[index];
        let mut others = session.replays.iter();
        if replay.is_stored()
            && !others.any(|other| other.is_stored() && other.filter == replay.filter)
        {
            let record = SubscriptionRecord {
                replaying: None,
                ..replay.record
            };
            let key = session.key();
            self.write(Write::PutSubscription(key, replay.filter, record));
        }
    }

    /// Sees to it that retained messages for a session whose client is gone go to its queue.
    pub(in crate::broker) fn watch_replays(&mut self, index: SessionIndex) {
        let session = &self.sessions[index];
        if !session.replays.is_empty() {
            let at = self.now.uptime + REPLAY_MS;
            self.timers.set(at, Timer::Replay(index));
        }
    }

    /// Begins to send the retained messages a new subscription matches.
    pub(in crate::broker) fn begin_replay(
        &mut self,
        index: SessionIndex,
        filter: &str,
        subscriber: Subscriber,
        record: SubscriptionRecord,
    ) {
        if self.retained.is_empty() {
            return;
        }
        let replay = Replay {
            filter: filter.into(),
            subscriber,
            record,
            after: None,
            moved: false,
        };
        let session = &mut self.sessions[index];
        session.replays.push_back(replay);
        if session.replays.len() > 2 * session.subscriptions.len() + 8 {
            self.thin_replays(index);
        }
        self.touch_session(index);
    }

    /// Drops replays that are not wanted any more and all but the last for each filter: a client that subscribes over and over and takes
    /// nothing has no more of them than about twice its subscriptions.
    fn thin_replays(&mut self, index: SessionIndex) {
        let mut replays = std::mem::take(&mut self.sessions[index].replays);
        let mut filters = BTreeSet::new();
        let mut kept = VecDeque::new();
        while let Some(replay) = replays.pop_back() {
            if self.is_wanted(index, &replay) && filters.insert(replay.filter.clone()) {
                kept.push_front(replay);
            }
        }
        self.sessions[index].replays = kept;
    }

    /// Whether what a replay was begun for is still subscribed to \[MQTT-3.10.4-2\].
    fn is_wanted(&self, index: SessionIndex, replay: &Replay) -> bool {
        let node = self.tree.find(&replay.filter);
        node.is_some_and(|node| self.tree.subscriber(node, index).is_some())
    }

    /// Sends the next slice of retained messages, as far as the client's window allows. What is left follows when that has been taken.
    pub(in crate::broker) fn replay(&mut self, id: ConnectionId, index: SessionIndex) {
        let (mut looked, mut is_held_back) = (0, false);
        while let Some(mut replay) = self.sessions[index].replays.pop_front() {
            if !self.is_wanted(index, &replay) {
                continue;
            }
            let finished = loop {
                if looked == TOPICS_AT_ONCE || !self.may_send_at_once(index, 0) {
                    break false;
                }
                let (found, last, seen) = self.next_retained(&replay, TOPICS_AT_ONCE - looked);
                looked += seen;
                self.pace.spend(seen as u64);
                if let Some(message) = &found {
                    let size = self.outgoing_size(message.size() as usize, Some(message));
                    if !self.may_send_at_once(index, size) {
                        self.await_turn(id, size);
                        is_held_back = true;
                        break false;
                    }
                }
                replay.advance(last);
                match found {
                    Some(message) => self.replay_one(index, &message, replay.subscriber),
                    None => break looked < TOPICS_AT_ONCE,
                }
            };
            if !finished {
                self.suspend_replay(index, replay);
                break;
            }
            self.end_replay(index, replay);
        }
        if looked == TOPICS_AT_ONCE && !is_held_back {
            self.serve_again(id);
        }
    }

    /// A message has left a session's queue: if others wait there, a retained message joins them. However busy the queue is, a new subscription
    /// is shown what is retained, at the pace at which the client takes messages.
    pub(in crate::broker) fn replay_in_turn(&mut self, index: SessionIndex) {
        let session = &mut self.sessions[index];
        if session.queue.is_empty() {
            return; // It will be sent straight away.
        }
        let Some(mut replay) = session.replays.pop_front() else {
            return;
        };
        if !self.is_wanted(index, &replay) {
            return;
        }
        let (found, last, seen) = self.next_retained(&replay, TOPICS_AT_ONCE);
        self.pace.spend(seen as u64);
        if let Some(message) = &found {
            if self.would_be_dropped(index, message, replay.subscriber) {
                self.suspend_replay(index, replay);
                return;
            }
            self.replay_one(index, message, replay.subscriber);
        }
        if found.is_some() || seen == TOPICS_AT_ONCE {
            replay.advance(last);
            self.suspend_replay(index, replay);
        } else {
            self.end_replay(index, replay);
        }
    }

    /// Whether a retained message at QoS 0 would be dropped if it were sent now.
    fn would_be_dropped(
        &self,
        index: SessionIndex,
        message: &Message,
        subscriber: Subscriber,
    ) -> bool {
        let most = self.settings.limits.max_outgoing_bytes;
        let size = self.outgoing_size(message.size() as usize, Some(message));
        let connection = self.sessions[index].connection;
        self.offered_qos(message.topic(), message.qos())
            .min(subscriber.qos())
            == QoS::AtMostOnce
            && connection.is_some_and(|id| self.is_outgoing_full(id, most, size))
    }

    /// The next retained message a replay is for among the next `most`; the last one looked at; and how many were.
    fn next_retained(
        &self,
        replay: &Replay,
        most: usize,
    ) -> (Option<Message>, Option<Message>, usize) {
        let after = replay.after.as_ref().map(Message::topic);
        let (mut last, mut seen) = (None, 0);
        for message in self.retained.candidates(&replay.filter, after).take(most) {
            (last, seen) = (Some(message), seen + 1);
            if topic::matches(&replay.filter, message.topic()) {
                return (last.cloned(), last.cloned(), seen);
            }
        }
        (None, last.cloned(), seen)
    }

    /// Offers a retained message to one session, as a message of its own: it is as new to this session as any other.
    fn replay_one(&mut self, index: SessionIndex, message: &Message, subscriber: Subscriber) {
        let parts = message.parts();
        if parts
            .expires
            .is_some_and(|expires| expires <= self.now.unix)
        {
            return;
        }
        if !self.may_read(index, parts.topic) {
            return;
        }
        if !self.lets_show(parts.topic) {
            self.counters.retained_source_not_authorized += 1;
            return;
        }
        // Shown before it is on disk, it could be followed by an older one after a crash.
        let shown = match self.gate.is_idle() {
            true => Stamp::NONE,
            false => self.retained.stamp(parts.topic),
        };
        let offered = self.offered_qos(parts.topic, parts.qos);
        let qos = offered.min(subscriber.qos());
        if qos == QoS::AtMostOnce {
            self.deliver_now(index, &parts, Some(message), true, subscriber.id, shown);
            return;
        }
        let durable = self.sessions[index].durable;
        // Where the store has no room the delivery is kept in memory: what is retained is on disk, and a session that is lost is told of it again.
        let level = match self.durability_of(parts.topic) {
            _ if !self.has_room(parts.size() as u64) => Durability::Memory,
            level => level,
        };
        let stored = durable && level != Durability::Memory;
        let stamp = if stored {
            self.gate.require(level)
        } else {
            shown
        };
        let seq = self.messages.take_seq();
        let mut offer = Offer {
            parts: &parts,
            body: Some(message.clone()),
            seq,
            level,
            stamp,
            stored: 0,
            admitted: false,
            taken: false,
            dropped: false,
            from: None,
            is_for_many: false,
        };
        let ids: SubscriptionIds = (subscriber.id != 0)
            .then_some(subscriber.id)
            .into_iter()
            .collect();
        let item = offer.queued(qos, true, ids, durable); // [MQTT-3.3.1-8]
        self.offer(index, item, &mut offer);
        self.store_body(&mut offer);
    }

    /// The client of a session that goes on is gone before all retained messages could be sent to it: what was promised to it at QoS 1 and 2
    /// goes to its queue, a slice at a time, unless the client comes back for it.
    pub(in crate::broker) fn queue_replays(&mut self, index: SessionIndex) {
        let mut looked = 0;
        while looked < TOPICS_AT_ONCE
            && let Some(mut replay) = self.sessions[index].replays.pop_front()
        {
            if replay.subscriber.qos() == QoS::AtMostOnce || !self.is_wanted(index, &replay) {
                looked += 1;
                continue;
            }
            let (found, last, seen) = self.next_retained(&replay, TOPICS_AT_ONCE - looked);
            looked += seen;
            self.pace.spend(seen as u64);
            if let Some(message) = &found {
                self.replay_one(index, message, replay.subscriber);
            }
            if found.is_some() || looked == TOPICS_AT_ONCE {
                replay.advance(last);
                self.suspend_replay(index, replay);
            } else {
                self.end_replay(index, replay);
            }
        }
        self.watch_replays(index);
    }

    /// Goes on with the retained messages for a session whose client is gone; one that is back takes them itself.
    pub(in crate::broker) fn check_replays(&mut self, index: SessionIndex) {
        if self.sessions[index].connection.is_none() {
            self.queue_replays(index);
        }
    }

    /// Removes expired messages among the next `count`; whether those were the last ones.
    pub(in crate::broker) fn sweep_retained(&mut self, count: usize) -> bool {
        let (expired, is_over) = self.retained.sweep(count, self.now.unix);
        for (message, had_row) in expired {
            self.counters.dropped_expired += 1;
            if had_row {
                self.write(Write::RemoveRetained(message.topic().into()));
            }
        }
        is_over
    }
}
