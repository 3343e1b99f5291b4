//! Shared subscriptions (MQTT 5 section 4.8.2): a group has a queue, and its members take from it.
//!
//! - A message goes to the next member that is connected and has room in its window.
//! - If there is none, it waits in the group's queue. That is on disk if one member's session is.
//! - What was sent at QoS 1 and not acknowledged goes back to the queue when the member's connection is
//!   gone and another member is there.
//! - A QoS 2 message that was sent stays with the member's session until that ends
//!   \[MQTT-4.8.2-4, MQTT-4.8.2-5\].

use crate::broker::Broker;
use crate::broker::model::ids::{GroupIndex, Owner, SessionIndex};
use crate::broker::model::message::Parts;
use crate::broker::model::record::{QueueKey, SubscriptionIds, Write};
use crate::broker::model::work::OPERATION;
use crate::broker::state::group::Group;
use crate::broker::state::notices::Notice;
use crate::broker::state::offer::{HOT_MESSAGES, Offer};
use crate::broker::state::tree::Subscriber;
use crate::wire::QoS;
use crate::wire::topic::Filter;

impl Broker {
    /// Makes a session a member of a group, or changes its options; the membership it replaces, if any.
    pub(in crate::broker) fn join_group(
        &mut self,
        name: &str,
        filter: &Filter<'_>,
        subscriber: Subscriber,
    ) -> Option<Subscriber> {
        let index = match self.groups.find(name) {
            Some(index) => index,
            None => {
                let key = self.messages.take_key();
                self.add_group(name, filter.filter, key, false)
            }
        };
        let session = subscriber.session;
        let state = &self.sessions[session];
        let (durable, connected) = (state.durable, state.connection.is_some());
        let group = &mut self.groups[index];
        if let Some(replaced) = group.join(subscriber, durable, connected) {
            return Some(replaced);
        }
        // Each of them is looked at for what it can give back.
        self.pace.spend(group.members().len() as u64);
        if durable && group.store() {
            let key = group.queue.key;
            self.write(Write::PutGroup(key, name.into()));
        }
        self.groups[index].queue.release_held();
        self.sessions[session].groups.push(index);
        self.reclaim(index);
        self.touch_session(session);
        None
    }

    /// Adds a group without members.
    pub(in crate::broker) fn add_group(
        &mut self,
        name: &str,
        filter: &str,
        key: QueueKey,
        stored: bool,
    ) -> GroupIndex {
        let node = self.tree.make(filter);
        let index = self.groups.add(Group::new(name, node, key, stored));
        self.tree.add_group(node, index);
        index
    }

    /// A session's membership of a group.
    pub(in crate::broker) fn membership(
        &self,
        name: &str,
        session: SessionIndex,
    ) -> Option<(GroupIndex, Subscriber)> {
        let index = self.groups.find(name)?;
        Some((index, self.groups[index].member(session)?))
    }

    /// Whether the limits allow another member of a group, which may be a new one.
    pub(in crate::broker) fn has_group_room(&self, name: &str) -> bool {
        let limits = &self.settings.limits;
        match self.groups.find(name) {
            Some(index) => self.groups[index].members().len() < limits.max_group_members,
            None => self.groups.len() < limits.max_shared_groups,
        }
    }

    /// Ends a session's membership; a group without members ends, and its queue with it.
    pub(in crate::broker) fn leave_group(&mut self, index: GroupIndex, session: SessionIndex) {
        let state = &mut self.sessions[session];
        let (durable, connected) = (state.durable, state.connection.is_some());
        self.pace.spend(state.groups.len() as u64 / 16);
        if let Some(at) = state.groups.iter().position(|other| *other == index) {
            state.groups.remove(at);
        }
        let group = &mut self.groups[index];
        group.leave(session, durable, connected);
        if !group.members().is_empty() {
            return self.wake_members(index);
        }
        self.remove_group(index);
    }

    /// Ends a group without members, and its queue with it.
    pub(in crate::broker) fn remove_group(&mut self, index: GroupIndex) {
        let group = self.groups.remove(index);
        self.tree.remove_group(group.node(), index);
        if group.is_stored() {
            self.write(Write::RemoveGroup(group.queue.key));
        }
        self.discard_queue(group.queue);
    }

    /// Gives a message to a group: to the next member that can take it, or to the group's queue.
    pub(in crate::broker) fn offer_to_group(&mut self, index: GroupIndex, offer: &mut Offer<'_>) {
        self.pace.spend(OPERATION);
        let (key, durable, waiting) = {
            let group = &self.groups[index];
            (group.queue.key, group.is_durable(), !group.queue.is_empty())
        };
        // QoS 0 waits for nobody, so it overtakes what does.
        let at_once = !waiting || offer.parts.qos == QoS::AtMostOnce;
        if at_once && let Some(member) = self.next_member(index, offer.parts) {
            let retain = offer.parts.retain && self.keeps_retain(&member);
            let qos = offer.parts.qos.min(member.qos());
            if qos == QoS::AtMostOnce {
                let (parts, stamp) = (offer.parts, offer.stamp);
                let body = offer.shared();
                let (session, id) = (member.session, member.id);
                offer.taken |= self.deliver_now(session, parts, body.as_ref(), retain, id, stamp);
                return;
            }
            let item = offer.queued(qos, retain, ids_of(member), durable);
            let stored = item.is_stored();
            let sent = self.send(member.session, item, key, Some(index), offer.stamp, true);
            offer.taken |= sent;
            offer.stored += u32::from(sent && stored);
            return;
        }
        let waits = self.any_member_may_read(index, offer.parts.topic, QoS::AtLeastOnce);
        if offer.parts.qos != QoS::AtMostOnce && !waits && self.sessions.restricted {
            self.counters.dropped_not_authorized += 1;
            return;
        }
        if offer.parts.qos == QoS::AtMostOnce || !waits {
            // QoS 0 does not wait, and there is nobody to take it now.
            let full = self.groups[index].connected() > 0;
            self.counters.dropped_outgoing_full += u64::from(full);
            return;
        }
        let mut item = offer.queued(
            offer.parts.qos,
            offer.parts.retain,
            SubscriptionIds::NONE,
            durable,
        );
        while self.is_full(&self.groups[index].queue, &item) {
            if !self.drop_held(Owner::Group(index)) {
                self.counters.dropped_queue_full += 1;
                self.notice_dropped(index, offer.parts.topic);
                offer.dropped = true;
                return;
            }
        }
        let group = &self.groups[index];
        let soon = group.queue.lane_len(false) < HOT_MESSAGES && group.connected() > 0;
        self.prepare_to_wait(&mut item, key, soon, offer);
        self.change_queue(Owner::Group(index), |queue| queue.insert(item));
        // Members that wait for nothing themselves would not look again when there is room.
        self.wake_members(index);
    }

    /// Says that the queue of a group is full.
    pub(in crate::broker) fn notice_dropped(&mut self, index: GroupIndex, topic: &str) {
        let group = &self.groups[index];
        let (key, name) = (group.queue.key, group.name());
        let uptime = self.now.uptime;
        let notices = &mut self.observed.notices;
        notices.note(key, name, Notice::QueueFull, topic, uptime);
        self.watch_notices();
    }

    /// The member whose turn it is among those that can take a message now.
    fn next_member(&mut self, index: GroupIndex, parts: &Parts<'_>) -> Option<Subscriber> {
        let group = &self.groups[index];
        if group.connected() == 0 {
            return None;
        }
        for at in group.turns() {
            let member = self.groups[index].members()[at];
            self.pace.spend(1);
            if self.can_take(member, parts.qos, parts.size())
                && self.is_readable(member.session, parts.topic)
            {
                self.groups[index].pass_turn(at);
                return Some(member);
            }
        }
        None
    }

    /// Whether a group has a member, connected or not, that has subscribed with this QoS at least and may read a topic.
    fn any_member_may_read(&mut self, index: GroupIndex, topic: &str, qos: QoS) -> bool {
        for at in 0..self.groups[index].members().len() {
            let member = self.groups[index].members()[at];
            self.pace.spend(1);
            if member.qos() >= qos && self.is_readable(member.session, topic) {
                return true;
            }
        }
        false
    }

    /// Whether a group has a member that is connected and may read a topic.
    fn any_present_may_read(&mut self, index: GroupIndex, topic: &str) -> bool {
        for at in 0..self.groups[index].members().len() {
            let session = self.groups[index].members()[at].session;
            let is_present = self.sessions[session].connection.is_some();
            if is_present && self.is_readable(session, topic) {
                return true;
            }
        }
        false
    }

    /// Where in a group's queue the first message is that a member may read. What stands before it waits for others who are there and may, and what
    /// nobody who is there may read is held. `None` if there is none among those that could be in memory.
    fn first_readable(&mut self, index: GroupIndex, session: SessionIndex) -> Option<usize> {
        let mut at = 0;
        while at < HOT_MESSAGES.min(self.groups[index].queue.places()) {
            let Some(item) = self.groups[index].queue.get(at) else {
                at += 1;
                continue;
            };
            let Some(body) = item.body.clone() else {
                return Some(at);
            };
            if item.is_expired(self.now.unix) || self.is_readable(session, body.topic()) {
                return Some(at);
            }
            if self.any_present_may_read(index, body.topic()) {
                at += 1;
            } else if let Some(item) = self.pop(Owner::Group(index), at) {
                self.hold(Owner::Group(index), item);
            }
        }
        None
    }

    /// Whether a member can take a message of this size.
    fn can_take(&self, member: Subscriber, qos: QoS, size: usize) -> bool {
        let session = &self.sessions[member.session];
        let Some(id) = session.connection else {
            return false;
        };
        if qos.min(member.qos()) == QoS::AtMostOnce {
            let most = self.settings.limits.max_outgoing_bytes;
            return !self.is_outgoing_full(id, most, size)
                && !self.connections[id].has_had_enough(self.now.uptime);
        }
        session.inflight.resend().is_none() && self.has_window(member.session, size)
    }

    /// Sends a member what waits in its groups, as far as its window allows, and `left` messages at most.
    pub(in crate::broker) fn pump_groups(&mut self, session: SessionIndex, left: &mut usize) {
        for at in 0..self.sessions[session].groups.len() {
            let index = self.sessions[session].groups[at];
            while *left > 0
                && !self.groups[index].queue.is_empty()
                && self.send_from_group(index, session)
            {
                *left -= 1;
            }
        }
    }

    /// Sends a member the first message of a group's queue; false if it cannot be sent yet.
    fn send_from_group(&mut self, index: GroupIndex, session: SessionIndex) -> bool {
        let group = &self.groups[index];
        let key = group.queue.key;
        let Some(member) = group.member(session) else {
            return false;
        };
        let at = if self.sessions.restricted {
            self.first_readable(index, session)
        } else {
            Some(0)
        };
        let queue = &self.groups[index].queue;
        let Some((at, first)) = at.and_then(|at| Some((at, queue.get(at)?))) else {
            return false;
        };
        let size = self.outgoing_size(first.size as usize, first.body.as_ref());
        if !self.can_take(member, first.qos, size) {
            if let Some(id) = self.sessions[session].connection {
                self.await_turn(id, size);
            }
            return false;
        }
        let queue = &self.groups[index].queue;
        let Some(first) = queue.get(at) else {
            return false;
        };
        if first.body.is_none() && !first.is_expired(self.now.unix) {
            self.fetch(Owner::Group(index));
            return false;
        }
        if let Some(mut item) = self.pop(Owner::Group(index), at) {
            let stamp = self.stamp_of(&item);
            item.retain &= self.keeps_retain(&member);
            match (item.qos.min(member.qos()), &item.body) {
                (QoS::AtMostOnce, Some(body)) => {
                    let parts = body.parts();
                    self.deliver_now(session, &parts, Some(body), item.retain, member.id, stamp);
                    self.forget(&item, key);
                }
                (qos, _) => {
                    item.qos = qos;
                    item.ids = ids_of(member);
                    self.send(session, item, key, Some(index), stamp, false);
                }
            }
        }
        self.fetch_ahead(Owner::Group(index));
        true
    }

    /// A member's client has connected: what members that are away were sent and have not acknowledged need not wait for them.
    pub(in crate::broker) fn member_connected(&mut self, session: SessionIndex) {
        for index in self.sessions[session].groups.clone() {
            self.reclaim(index);
        }
    }

    /// A member's connection has ended: what it was sent goes to another member, if one is there. Otherwise it waits for the client.
    pub(in crate::broker) fn member_disconnected(&mut self, session: SessionIndex) {
        let groups = self.sessions[session].groups.clone();
        let (others, alone): (Vec<GroupIndex>, Vec<GroupIndex>) = groups
            .into_iter()
            .partition(|index| self.groups[*index].connected() > 0);
        self.take_back(&others, session);
        for index in others {
            self.wake_members(index);
        }
        for index in alone {
            self.cool_unless_wanted(Owner::Group(index));
        }
    }

    fn reclaim(&mut self, index: GroupIndex) {
        let members = self.groups[index].members().to_vec();
        for member in members {
            if self.sessions[member.session].connection.is_none() {
                self.take_back(&[index], member.session);
            }
        }
    }

    /// Leaves what a member was sent to its session: the member unsubscribes, and what it has begun to receive is completed \[MQTT-3.10.4-3\].
    /// A transient session's row stays the group's: should the process die, the group has the message again.
    pub(in crate::broker) fn leave_inflight(&mut self, index: GroupIndex, session: SessionIndex) {
        let state = &mut self.sessions[session];
        let (own, durable) = (state.queue.key, state.durable);
        let messages = &self.messages;
        let mut writes = Vec::new();
        for (packet_id, message) in state.inflight.of_group(index) {
            message.group = None;
            let from = message.queue;
            if durable && message.item.is_stored() && from != own {
                message.queue = own;
                let (seq, released) = (message.item.seq, message.released);
                let mut record = messages.record(&message.item, Some(packet_id), released);
                (record.message.qos, record.message.retain) = message.published;
                writes.push(Write::PutDelivery(seq, own, record));
                writes.push(Write::RemoveDelivery(seq, from));
            }
        }
        for write in writes {
            self.write(write);
        }
    }

    /// Puts what a member was sent at QoS 1 and has not acknowledged back into the queues of these groups, where its rows still are.
    pub(in crate::broker) fn take_back(&mut self, groups: &[GroupIndex], session: SessionIndex) {
        let inflight = &mut self.sessions[session].inflight;
        if groups.is_empty() || inflight.len() == 0 {
            return;
        }
        let mut groups = groups.to_vec();
        groups.sort_unstable();
        let taken = inflight.extract(|message| {
            let is_theirs = |group| groups.binary_search(&group).is_ok();
            message.item.qos == QoS::AtLeastOnce && message.group.is_some_and(is_theirs)
        });
        // The youngest first: so each is put before all that wait.
        for message in taken.into_iter().rev() {
            let Some(index) = message.group else {
                continue;
            };
            self.give_back(index, message);
        }
    }

    /// Lets the connected members of a group look at its queue.
    pub(in crate::broker) fn wake_members(&mut self, index: GroupIndex) {
        let Some(group) = self.groups.get(index) else {
            return;
        };
        if group.queue.is_empty() || group.connected() == 0 {
            return;
        }
        self.pace.spend(group.members().len() as u64);
        for at in 0..group.members().len() {
            let session = self.groups[index].members()[at].session;
            self.touch_session(session);
        }
    }

    /// Lets the members of a group look at its queue after the next commit.
    pub(in crate::broker) fn await_commit_of_members(&mut self, index: GroupIndex) {
        for member in self.groups[index].members() {
            self.upkeep.waiting.await_commit(member.session);
        }
    }
}

fn ids_of(member: Subscriber) -> SubscriptionIds {
    (member.id != 0).then_some(member.id).into_iter().collect()
}
