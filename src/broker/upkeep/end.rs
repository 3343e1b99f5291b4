//! The end of connections and sessions (MQTT 5 sections 3.14, 4.1 and 3.1.2.11.2).

use std::collections::VecDeque;

use crate::broker::Broker;
use crate::broker::model::ids::{ConnectionId, GroupIndex, Owner, SessionIndex};
use crate::broker::model::record::{QueueKey, Write};
use crate::broker::model::work::OPERATION;
use crate::broker::state::gate::Stamp;
use crate::broker::state::queue::Queue;
use crate::broker::state::queued::Queued;
use crate::broker::state::removals::Removal;
use crate::broker::state::session::Session;
use crate::broker::state::timers::Timer;
use crate::broker::state::tree::NodeId;
use crate::wire::packet::Disconnect;
use crate::wire::{Fault, PacketId, QoS, ReasonCode};

/// What is left of an end that is no more than this is removed at once: rows and subscriptions.
pub(in crate::broker) const AT_ONCE: usize = if cfg!(test) { 4 } else { 256 };

/// How much of all that is removed in one go: about a millisecond's work.
pub(in crate::broker) const STEP: usize = if cfg!(test) { 8 } else { 2048 };

/// How long to wait before the next go, in milliseconds.
pub(in crate::broker) const STEP_MS: u64 = 4;

/// Removals that may be unfinished at once. Who ends beyond that removes a step of the oldest.
pub const MOST: usize = if cfg!(test) { 4 } else { 1024 };

impl Broker {
    /// What a CONNACK waits for that says there is no session with this client identifier.
    pub(in crate::broker) fn stamp_of_end(&mut self, client_id: &str) -> Stamp {
        self.upkeep.pending_ends.stamp(client_id, &mut self.gate)
    }

    /// DISCONNECT from the client.
    pub(in crate::broker) fn receive_disconnect(
        &mut self,
        id: ConnectionId,
        index: SessionIndex,
        disconnect: &Disconnect<'_>,
    ) -> Result<(), Fault> {
        if let Some(expiry) = disconnect.properties.session_expiry() {
            if expiry > 0 && !self.connections[id].may_set_expiry() {
                return Err(Fault::protocol(
                    "DISCONNECT sets a session expiry although CONNECT did not",
                )); // [MQTT-3.14.2-2]
            }
            self.sessions[index].expiry =
                expiry.min(self.settings.limits.persistent_client_expiration);
        }
        if disconnect.reason == ReasonCode::Success {
            self.discard_will(index);
        }
        self.say_end(id, format_args!("DISCONNECT: {}", disconnect.reason));
        self.detach(id);
        self.connections[id].close();
        self.drop_gated(id);
        self.touch(id);
        Ok(())
    }

    /// Takes a connection from its session: the session waits for its client, or ends with the connection.
    pub(in crate::broker) fn detach(&mut self, id: ConnectionId) {
        let Some(index) = self.connections[id].leave_session() else {
            return;
        };
        self.drop_aliases(id);
        self.sessions.disconnect(index, self.now.unix);
        let session = &self.sessions[index];
        self.connections[id].name_end(&session.client_id);
        for group in &session.groups {
            self.groups[*group].disconnect();
        }
        let next = self.connections.take_overs.first(&session.client_id);
        let expiry = session.expiry;
        if let Some(next) = next {
            self.touch(next);
        }
        if expiry == 0 {
            return self.end_session(index);
        }
        self.member_disconnected(index);
        self.queue_replays(index);
        let session = &mut self.sessions[index];
        let bodies = session.inflight.disconnected();
        self.change_queue(Owner::Session(index), |queue| {
            queue.end_live();
            queue.cool();
        });
        self.remove_later(Removal::Bodies(bodies));
        // Sent from the queue and not acknowledged: after a restart nothing else would say so, and they would go out without DUP [MQTT-3.3.1-1].
        let session = &self.sessions[index];
        for packet_id in session.inflight.unsaid(session.key()) {
            self.note(index, packet_id);
        }
        self.start_will(index);
        let session = &self.sessions[index];
        if session.stored {
            let (key, record) = (session.key(), session.record());
            self.write(Write::PutSession(key, record));
        }
        self.set_session_timer(index);
    }

    /// Ends a session that has no connection: its will is published \[MQTT-3.1.2-8\], and everything else is forgotten.
    pub(in crate::broker) fn end_session(&mut self, index: SessionIndex) {
        let groups = self.sessions[index].groups.clone();
        self.take_back(&groups, index);
        self.publish_will(index);
        self.end_spreads(index);
        for timer in Timer::of_session(index) {
            self.timers.stop(timer);
        }
        let place = &self.sessions[index];
        let mut placeholder = Session::placeholder(place.durable);
        placeholder.subscription_bytes = place.subscription_bytes;
        let mut session = self.sessions.end(index, placeholder);
        self.accounts.change_session(session.own_bytes(), 0);
        self.upkeep.removals.keep_place();
        let key = session.key();
        self.remove_later(Removal::Subscribed {
            place: index,
            key,
            groups: groups.into_iter(),
            nodes: session.subscriptions.into_iter(),
        });
        let received = session.received.into_iter();
        let received = received.filter(|(_, it)| it.stored);
        let received: Vec<PacketId> = received.map(|(packet_id, _)| packet_id).collect();
        self.remove_later(Removal::Received(key, received.into_iter()));
        for write in session.inflight.end(key) {
            self.write(write);
        }
        let mut inflight = VecDeque::with_capacity(session.inflight.len());
        for it in session.inflight.into_all() {
            if it.group.is_some() && it.item.qos == QoS::ExactlyOnce && !it.released {
                self.counters.dropped_shared_incomplete += 1;
            }
            inflight.push_back((it.queue, it.item));
        }
        self.remove_later(Removal::Inflight(inflight));
        self.discard_queue(session.queue);
        self.bridges.recovered_topics.remove(&key);
        if self.bridges.records.remove(&key).is_some() && session.stored {
            self.write(Write::RemoveBridge(key));
        }
        if session.stored {
            self.write(Write::RemoveSession(key));
            self.upkeep.pending_ends.add(session.client_id);
        }
    }

    /// Forgets all messages of a queue.
    pub(in crate::broker) fn discard_queue(&mut self, mut queue: Queue) {
        let items = self.accounts.change(&mut queue, Queue::drain);
        self.remove_queued(queue.key, items);
    }

    /// Forgets messages that were taken out of a queue.
    pub(in crate::broker) fn remove_queued(&mut self, key: QueueKey, items: VecDeque<Queued>) {
        self.remove_later(Removal::Queued(key, items));
    }

    /// Removes what is left, at once if that is little.
    fn remove_later(&mut self, mut removal: Removal) {
        let most = removal.len();
        if most <= AT_ONCE {
            self.remove_some(&mut removal, most);
            return;
        }
        self.upkeep.removals.add(removal);
        self.schedule_removals(0);
        if self.upkeep.removals.len() > MOST {
            self.remove_step();
        }
    }

    fn schedule_removals(&mut self, ms: u64) {
        if self.upkeep.removals.len() > 0 {
            self.timers.set(self.now.uptime + ms, Timer::Removals);
        }
    }

    /// Removes some of what is left, unless the disk is behind.
    pub(in crate::broker) fn continue_removals(&mut self) {
        if !self.is_congested() {
            self.remove_step();
        }
        self.schedule_removals(STEP_MS);
    }

    fn remove_step(&mut self) {
        let slice = self.pace.slice(OPERATION * STEP as u64);
        while !self.pace.is_over(slice)
            && let Some(mut removal) = self.upkeep.removals.take()
        {
            let most = self.pace.left(slice).div_ceil(OPERATION);
            self.remove_some(&mut removal, most as usize);
            self.upkeep.removals.put_back(removal);
        }
    }

    /// Removes so many rows and subscriptions at most.
    fn remove_some(&mut self, removal: &mut Removal, most: usize) {
        let count = removal.len().min(most);
        match removal {
            Removal::Queued(key, items) => {
                for item in items.drain(..count) {
                    self.forget(&item, *key);
                }
            }
            Removal::Inflight(items) => {
                for (queue, item) in items.drain(..count) {
                    self.forget(&item, queue);
                }
            }
            Removal::Bodies(bodies) => bodies.truncate(bodies.len() - count),
            Removal::Received(key, ids) => {
                for packet_id in ids.take(count) {
                    self.write(Write::RemoveReceived(*key, packet_id));
                }
            }
            Removal::Subscribed {
                place,
                key,
                groups,
                nodes,
            } => {
                let of_groups = groups.len().min(count);
                for group in groups.take(of_groups) {
                    self.end_membership(group, *place, *key);
                }
                for node in nodes.take(count - of_groups) {
                    self.end_subscription(node, *place, *key);
                }
                if groups.len() + nodes.len() == 0 {
                    let gone = self.sessions.remove(*place);
                    self.accounts.change_session(gone.subscription_bytes, 0);
                    self.upkeep.removals.free_place();
                }
            }
        }
        self.pace.spend(count as u64 * OPERATION);
    }

    fn end_membership(&mut self, group: GroupIndex, place: SessionIndex, key: QueueKey) {
        if self.sessions[place].durable {
            let name = self.groups[group].name().into();
            self.write(Write::RemoveSubscription(key, name));
        }
        self.leave_group(group, place);
        self.accounts.unsubscribe();
    }

    fn end_subscription(&mut self, node: NodeId, place: SessionIndex, key: QueueKey) {
        if self.sessions[place].durable {
            let filter = self.tree.filter(node).into();
            self.write(Write::RemoveSubscription(key, filter));
        }
        self.tree.unsubscribe(node, place);
        self.accounts.unsubscribe();
    }
}
