//! Bodies of queued messages, read back from the store.

use crate::broker::Broker;
use crate::broker::model::fetch::Fetch;
use crate::broker::model::ids::Owner;
use crate::broker::model::message::Message;
use crate::broker::state::queue::Queue;
use crate::clock::Now;

/// Most bodies a queue asks for at once.
const FETCH_MESSAGES: usize = 512;

/// Most bytes of bodies a queue asks for at once.
const FETCH_BYTES: u64 = 512 * 1024;

impl Broker {
    /// Asks for the bodies of the next messages, unless that has been done.
    pub(in crate::broker) fn fetch(&mut self, owner: Owner) {
        let budget = self
            .settings
            .limits
            .max_hot_bytes
            .saturating_sub(self.accounts.queued().hot_bytes)
            .clamp(FETCH_BYTES / 8, FETCH_BYTES);
        let gate = &self.gate;
        let (key, seqs) = match owner {
            Owner::Session(index) => {
                let queue = &mut self.sessions[index].queue;
                if queue.fetching {
                    return;
                }
                let seqs = queue.cold(FETCH_MESSAGES, budget, |seq| gate.is_durable(seq));
                queue.fetching = !seqs.is_empty();
                (queue.key, seqs)
            }
            Owner::Group(group) => {
                let queue = &mut self.groups[group].queue;
                if queue.fetching {
                    return;
                }
                let seqs = queue.cold(FETCH_MESSAGES, budget, |seq| gate.is_durable(seq));
                queue.fetching = !seqs.is_empty();
                (queue.key, seqs)
            }
            Owner::Resend(index) => {
                let session = &mut self.sessions[index];
                if session.inflight.fetching {
                    return;
                }
                let inflight = &session.inflight;
                let seqs = inflight.cold_resends(FETCH_MESSAGES, |seq| gate.is_durable(seq));
                session.inflight.fetching = !seqs.is_empty();
                (session.key(), seqs)
            }
            Owner::Topics(index) => return self.learn(index),
        };
        if seqs.is_empty() {
            self.await_commit(owner);
            return;
        }
        self.counters.bodies_fetched += seqs.len() as u64;
        let serial = self.serial_of(owner);
        self.messages.ask(owner, key, serial, seqs);
    }

    /// Asks for more bodies while half of the last ones are still there, so that reading and sending go on side by side.
    pub(in crate::broker) fn fetch_ahead(&mut self, owner: Owner) {
        let queue = self.queue(owner);
        if queue.is_some_and(|it| !it.fetching && it.is_running_cold(FETCH_MESSAGES / 2)) {
            self.fetch(owner);
        }
    }

    /// Takes bodies that were read from the store, in the order in which they were asked for; `None` for one that is not there.
    pub fn fetched(&mut self, fetch: Fetch, bodies: Vec<Option<Message>>, now: Now) {
        debug_assert_eq!(fetch.seqs.len(), bodies.len());
        self.now = now;
        let bodies: Vec<_> = fetch.seqs.iter().copied().zip(bodies).collect();
        match fetch.owner {
            Owner::Topics(index) => self.learned(index, &fetch, &bodies),
            Owner::Resend(index) => {
                let serial = self.serial_of(fetch.owner);
                let Some(session) = self
                    .sessions
                    .get_mut(index)
                    .filter(|session| session.key() == fetch.key)
                else {
                    return;
                };
                if serial != fetch.serial {
                    return; // The connection has changed since; the new one asks for itself.
                }
                session.inflight.fetching = false;
                let missing = session.inflight.warm(&bodies);
                for (packet_id, seq) in missing {
                    tracing::error!(
                        seq = seq.0,
                        "a message in flight has no body in the store; it is given up"
                    );
                    if let Some(message) = self.take_inflight(index, packet_id) {
                        self.forget(&message.item, message.queue);
                    }
                }
                self.touch_session(index);
            }
            owner => {
                if self.queue(owner).is_none_or(|queue| queue.key != fetch.key) {
                    return;
                }
                let missing = self.change_queue(owner, |queue| {
                    queue.fetching = false;
                    queue.warm(&bodies)
                });
                for item in missing.unwrap_or_default() {
                    tracing::error!(
                        seq = item.seq.0,
                        "a queued message has no body in the store; it is given up"
                    );
                    self.forget(&item, fetch.key);
                }
                self.cool_unless_wanted(owner);
                self.wake(owner);
            }
        }
    }

    /// Drops bodies from memory that the store has, if nobody is connected who could take them.
    pub(in crate::broker) fn cool_unless_wanted(&mut self, owner: Owner) {
        let wanted = match owner {
            Owner::Session(index) | Owner::Resend(index) | Owner::Topics(index) => {
                let session = self.sessions.get(index);
                session.is_some_and(|session| session.connection.is_some())
            }
            Owner::Group(group) => {
                let group = self.groups.get(group);
                group.is_some_and(|group| group.connected() > 0)
            }
        };
        if !wanted {
            self.change_queue(owner, Queue::cool);
        }
    }

    fn wake(&mut self, owner: Owner) {
        match owner {
            Owner::Session(index) | Owner::Resend(index) | Owner::Topics(index) => {
                self.touch_session(index)
            }
            Owner::Group(group) => self.wake_members(group),
        }
    }

    /// A queue, if whose it is is still there.
    pub(in crate::broker) fn queue(&self, owner: Owner) -> Option<&Queue> {
        match owner {
            Owner::Session(index) | Owner::Resend(index) | Owner::Topics(index) => {
                Some(&self.sessions.get(index)?.queue)
            }
            Owner::Group(group) => Some(&self.groups.get(group)?.queue),
        }
    }

    /// Changes a queue, and what is counted of all queues with it. `None` if whose it is is not there any more.
    #[inline]
    pub(in crate::broker) fn change_queue<R>(
        &mut self,
        owner: Owner,
        change: impl FnOnce(&mut Queue) -> R,
    ) -> Option<R> {
        let queue = match owner {
            Owner::Session(index) | Owner::Resend(index) | Owner::Topics(index) => {
                &mut self.sessions.get_mut(index)?.queue
            }
            Owner::Group(group) => &mut self.groups.get_mut(group)?.queue,
        };
        Some(self.accounts.change(queue, change))
    }

    fn serial_of(&self, owner: Owner) -> u64 {
        let Owner::Resend(index) = owner else {
            return 0;
        };
        let connection = self
            .sessions
            .get(index)
            .and_then(|session| session.connection);
        connection.map_or(0, |id| self.connections[id].serial())
    }
}
