//! How connections and sessions end (MQTT 5 sections 3.14, 4.1 and 3.1.2.11.2).

use std::collections::VecDeque;

use super::connection::State;
use super::queue::{Queue, Queued};
use super::record::{Durability, QueueKey, Write};
use super::timer::Timer;
use super::{Broker, ConnectionId, SessionIndex};
use crate::wire::packet::Disconnect;
use crate::wire::{Fault, QoS, ReasonCode};

/// Messages of ended queues whose rows are removed in one go.
const BURY_STEP: usize = 10_000;
/// How long to wait before the next go, in milliseconds.
const BURY_MS: u64 = 20;

/// Queues of ended sessions and groups, whose rows are removed bit by bit so that nobody waits for it. If the process ends before that is done,
/// recovery finds rows without an owner and removes them.
#[derive(Debug, Default)]
pub(super) struct Graveyard(VecDeque<(QueueKey, VecDeque<Queued>)>);

#[cfg(test)]
impl Graveyard {
    /// The stored messages whose rows are still to be removed.
    pub fn stored(&self) -> impl Iterator<Item = super::record::Seq> {
        let items = self.0.iter().flat_map(|(_, items)| items);
        items.filter(|item| item.is_stored()).map(|item| item.seq)
    }
}

impl Broker {
    /// DISCONNECT from the client.
    pub(super) fn receive_disconnect(
        &mut self,
        id: ConnectionId,
        index: SessionIndex,
        disconnect: &Disconnect<'_>,
    ) -> Result<(), Fault> {
        if let Some(expiry) = disconnect.properties.session_expiry() {
            if expiry > 0 && !self.connections[id.0 as usize].may_set_expiry {
                return Err(Fault::protocol(
                    "DISCONNECT sets a session expiry although CONNECT did not",
                )); // [MQTT-3.14.2-2]
            }
            self.sessions[index.0 as usize].expiry =
                expiry.min(self.settings.limits.persistent_client_expiration);
        }
        if disconnect.reason == ReasonCode::Success {
            self.discard_will(index);
        }
        tracing::info!(client = self.client_name(id), reason = %disconnect.reason, "disconnected");
        self.detach(id);
        let connection = &mut self.connections[id.0 as usize];
        connection.state = State::Closing;
        connection.outbox.drop_held();
        self.count_outgoing(id);
        self.touch(id);
        Ok(())
    }

    /// Takes a connection from its session: the session waits for its client, or ends with the connection.
    pub(super) fn detach(&mut self, id: ConnectionId) {
        let Some(index) = self.connections[id.0 as usize].session.take() else {
            return;
        };
        let session = &mut self.sessions[index.0 as usize];
        session.connection = None;
        if let Some(user) = session.identity.as_ref().and_then(|it| it.user.as_ref()) {
            self.by_user.remove(user);
        }
        session.disconnected_at = Some(self.now.unix);
        self.member_disconnected(index);
        if self.sessions[index.0 as usize].expiry > 0 {
            self.queue_replays(index);
        }
        let session = &mut self.sessions[index.0 as usize];
        session.outgoing.disconnected();
        session.queue.end_live();
        self.hot_bytes -= session.queue.cool();
        self.start_will(index);
        let session = &self.sessions[index.0 as usize];
        if session.expiry == 0 {
            return self.end_session(index);
        }
        if session.stored {
            let (key, record) = (session.key(), session.record());
            self.write(Write::PutSession(key, record));
        }
        self.set_session_timer(index);
    }

    /// Ends a session that has no connection: its will is published \[MQTT-3.1.2-8\], and everything else is forgotten.
    pub(super) fn end_session(&mut self, index: SessionIndex) {
        self.publish_will(index);
        let (durable, key) = {
            let session = &self.sessions[index.0 as usize];
            (session.durable, session.key())
        };
        for group in self.sessions[index.0 as usize].groups.clone() {
            let name = self.groups[group.0 as usize].name.clone();
            self.take_back(group, index);
            self.leave_group(group, index);
            if durable {
                self.write(Write::RemoveSubscription(key, name));
            }
        }
        for node in std::mem::take(&mut self.sessions[index.0 as usize].subscriptions) {
            if durable {
                let filter = self.tree.filter(node).into();
                self.write(Write::RemoveSubscription(key, filter));
            }
            self.tree.unsubscribe(node, index);
        }
        self.end_spreads(index);
        let mut session = self.sessions.remove(index.0 as usize);
        self.by_client.remove(&session.client_id);
        for (packet_id, received) in session.received {
            if received.level != Durability::Memory {
                self.write(Write::RemoveReceived(key, packet_id));
            }
        }
        for inflight in session.outgoing.extract(|_| true) {
            if inflight.group.is_some()
                && inflight.item.qos == QoS::ExactlyOnce
                && !inflight.released
            {
                self.counters.dropped_shared_incomplete += 1;
            }
            self.forget(&inflight.item, inflight.queue);
        }
        for write in session.outgoing.end(key) {
            self.write(write);
        }
        self.discard_queue(session.queue);
        if self.bridge_records.remove(&key).is_some() && session.stored {
            self.write(Write::RemoveBridge(key));
        }
        if session.stored {
            self.write(Write::RemoveSession(key));
        }
    }

    /// Forgets all messages of a queue.
    pub(super) fn discard_queue(&mut self, mut queue: Queue) {
        self.queued_bytes -= queue.bytes();
        self.hot_bytes -= queue.hot_bytes();
        let items = queue.drain();
        self.bury_soon(queue.key, items);
    }

    /// Forgets messages that were taken out of a queue.
    pub(super) fn bury_soon(&mut self, key: QueueKey, items: VecDeque<Queued>) {
        if items.iter().any(Queued::is_stored) {
            if self.graveyard.0.is_empty() {
                self.timers.set(self.now.uptime, Timer::Bury);
            }
            self.graveyard.0.push_back((key, items));
        }
    }

    /// Removes some rows of ended queues.
    pub(super) fn bury(&mut self) {
        let mut left = BURY_STEP;
        while let Some((key, mut items)) = self.graveyard.0.pop_front() {
            let step = items.len().min(left);
            left -= step;
            for item in items.drain(..step) {
                self.forget(&item, key);
            }
            if !items.is_empty() {
                self.graveyard.0.push_front((key, items));
                self.timers.set(self.now.uptime + BURY_MS, Timer::Bury);
                return;
            }
        }
    }
}
