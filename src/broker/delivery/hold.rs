//! Messages that wait for rights: their client may not have them at present, but it could when they
//! were queued for it, and may again.
//!
//! Rights hold back delivery, and nothing else. A message that has waited is checked when its turn
//! comes. Is it not allowed then, it is held: it leaves the queue's order, so that what stands
//! behind it goes on, and waits until the rights of the session are given anew (its client
//! connects, or the rules are read again) or until it expires. What is held counts in the limits of
//! the queue, and gives way when there is no room for a new message.

use crate::broker::Broker;
use crate::broker::model::ids::{GroupIndex, Owner, SessionIndex};
use crate::broker::model::record::SubscriptionIds;
use crate::broker::state::inflight::InflightMessage;
use crate::broker::state::notices::Notice;
use crate::broker::state::offer::{Offer, Receiver};
use crate::broker::state::queued::Queued;
use crate::wire::{PacketId, QoS};

impl Broker {
    /// Holds a message that was taken out of a queue.
    pub(in crate::broker) fn hold(&mut self, owner: Owner, mut item: Queued) {
        self.counters.held_not_authorized += 1;
        if item.is_stored() {
            item.body = None;
        }
        self.change_queue(owner, |queue| queue.hold(item));
    }

    /// Holds a message that was still to be given to a session when its rights changed. One of QoS
    /// 0 does not wait.
    pub(in crate::broker) fn hold_offer(&mut self, receiver: Receiver, offer: &mut Offer<'_>) {
        let Receiver { subscriber, ids } = receiver;
        let qos = offer.parts.qos.min(subscriber.qos());
        if qos == QoS::AtMostOnce {
            self.counters.dropped_not_authorized += 1;
            return;
        }
        let index = subscriber.session;
        let session = &self.sessions[index];
        let (key, durable) = (session.key(), session.durable);
        let retain = offer.parts.retain && self.keeps_retain(&subscriber);
        let mut item = offer.queued(qos, retain, ids, durable);
        if !self.make_room(index, &item, None, offer.admitted) {
            offer.dropped = true;
            return;
        }
        self.prepare_to_wait(&mut item, key, false, offer);
        self.change_queue(Owner::Session(index), |queue| queue.hold(item));
        self.counters.held_not_authorized += 1;
    }

    /// Does not send a message again that its client may not have any more. At QoS 1, one of a
    /// shared group goes back to it, for others. Any other is held, its packet identifier with it:
    /// the client may know it, and given to another message, that would be taken for this one. No
    /// more are held than may be under way (`max_inflight_messages`); the others are given up.
    pub(in crate::broker) fn hold_inflight(&mut self, index: SessionIndex, packet_id: PacketId) {
        let most = usize::from(self.settings.limits.max_inflight_messages);
        let unix = self.now.unix;
        let inflight = &mut self.sessions[index].inflight;
        let Some(message) = inflight.get(packet_id) else {
            return;
        };
        let once = message.item.qos == QoS::AtLeastOnce;
        let has_expired = once && message.item.is_expired(unix);
        let group = message.group.filter(|_| once && !has_expired);
        if group.is_none() && !has_expired && inflight.withheld() < most {
            inflight.withhold(packet_id);
            self.counters.held_not_authorized += 1;
            return;
        }
        let Some(message) = self.take_inflight(index, packet_id) else {
            return;
        };
        if let Some(group) = group {
            self.give_back(group, message);
            self.wake_members(group);
            return;
        }
        match has_expired {
            true => self.count_expired(Some(index)),
            false => self.counters.dropped_not_authorized += 1,
        }
        self.forget(&message.item, message.queue);
    }

    /// Puts a message that a member of a group was sent back into the group's queue, where its row
    /// still is.
    pub(in crate::broker) fn give_back(&mut self, group: GroupIndex, message: InflightMessage) {
        let mut item = message.item;
        item.ids = SubscriptionIds::NONE;
        item.dup = false;
        (item.qos, item.retain) = message.published;
        self.change_queue(Owner::Group(group), |queue| queue.insert(item));
    }

    /// The rights of a session were given anew: what is held for it, and in its groups, waits for
    /// its turn again and is looked at then.
    pub(in crate::broker) fn recheck_held(&mut self, index: SessionIndex) {
        let session = &mut self.sessions[index];
        let mut any = session.queue.release_held();
        any |= session.inflight.release_withheld();
        for group in &session.groups {
            any |= self.groups[*group].queue.release_held();
        }
        if any {
            self.touch_session(index);
        }
    }

    /// Drops the oldest message that a queue holds, to make room for a new one; false if it holds
    /// none.
    pub(in crate::broker) fn drop_held(&mut self, owner: Owner) -> bool {
        let taken = self.change_queue(owner, |queue| Some((queue.take_oldest_held()?, queue.key)));
        let Some((item, key)) = taken.flatten() else {
            return false;
        };
        self.counters.dropped_queue_full += 1;
        match owner {
            Owner::Group(group) => self.notice_dropped(group, ""),
            Owner::Session(index) | Owner::Resend(index) | Owner::Topics(index) => {
                self.notice(index, Notice::QueueFull, "")
            }
        }
        self.forget(&item, key);
        true
    }
}
