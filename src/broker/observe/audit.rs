//! What tests may know of a broker, and what must always be true of one.

use std::collections::BTreeMap;

use crate::broker::Broker;
use crate::broker::model::cost::subscription_bytes;
use crate::broker::model::ids::ConnectionId;
use crate::broker::model::record::BodyId;

/// What a broker keeps in memory.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// By client identifier, or name of a shared group: what is queued, on its way, and received and not released.
    pub kept: BTreeMap<String, Kept>,
    /// Bytes in queues.
    pub queued_bytes: u64,
    /// Bytes of queued messages whose bodies are in memory.
    pub hot_bytes: u64,
    /// Bytes of writes that are not durable.
    pub pending_bytes: usize,
    /// Stored messages that several deliveries need.
    pub shares: usize,
}

/// What is kept for one session or group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Messages in its queue.
    pub queued: usize,
    /// Messages on their way to its client.
    pub inflight: usize,
    /// QoS 2 messages of its client that are not released.
    pub received: usize,
}

impl Broker {
    /// Whether a connection has a session.
    pub fn is_attached(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id);
        connection.is_some_and(|connection| connection.session().is_some())
    }

    /// Plants a fault: a byte too much in the accounts.
    pub fn miscount(&mut self) {
        self.accounts.break_queued();
    }

    /// Counts everything anew; the accounts that do not agree are the error.
    pub fn audit(&self) -> Result<Audit, String> {
        let mut audit = Audit {
            queued_bytes: self.accounts.queued().bytes,
            hot_bytes: self.accounts.queued().hot_bytes,
            pending_bytes: self.gate.pending_bytes(),
            shares: self.messages.shares().count(),
            ..Audit::default()
        };
        let mut needed: BTreeMap<BodyId, u32> = BTreeMap::new();
        let body_of = |seq| self.messages.body_of(seq);
        for seq in self.upkeep.removals.stored() {
            *needed.entry(body_of(seq)).or_default() += 1;
        }
        for seq in self.spread_seqs() {
            *needed.entry(body_of(seq)).or_default() += 1;
        }
        let (mut queued, mut hot, mut waiting) = (0, 0, 0);
        let sessions = self.sessions.iter().map(|(_, session)| &session.queue);
        let groups = self.groups.iter().map(|(_, group)| &group.queue);
        for queue in sessions.chain(groups) {
            let items = || queue.messages();
            queued += items().map(|item| u64::from(item.size)).sum::<u64>();
            let warm = items().filter(|item| item.body.is_some());
            hot += warm.map(|item| u64::from(item.size)).sum::<u64>();
            waiting += items().count() as u64;
            for item in items().filter(|item| item.is_stored()) {
                *needed.entry(body_of(item.seq)).or_default() += 1;
            }
        }
        let connections = self.connections.iter();
        let mut taken: u64 = connections.map(|(_, it)| it.alias_bytes()).sum();
        for (_, session) in self.sessions.iter() {
            let mut on_wire = 0;
            for message in session.inflight.all() {
                on_wire += usize::from(message.on_wire);
                if message.item.is_stored() {
                    *needed.entry(body_of(message.item.seq)).or_default() += 1;
                }
            }
            if on_wire != session.inflight.on_wire() {
                return Err(format!("{}: on the wire {on_wire}", session.client_id));
            }
            let nodes = session.subscriptions.iter();
            let filters = nodes.map(|node| subscription_bytes(&self.tree.filter(*node)));
            let groups = session.groups.iter();
            let groups = groups.map(|group| subscription_bytes(self.groups[*group].name()));
            let subscribed = filters.chain(groups).sum::<u64>();
            if !session.is_placeholder && subscribed != session.subscription_bytes {
                return Err(format!(
                    "{}: subscriptions take {subscribed}, but accounted for {}",
                    session.client_id, session.subscription_bytes
                ));
            }
            taken += session.own_bytes() + session.subscription_bytes;
            let kept = Kept {
                queued: session.queue.len(),
                inflight: session.inflight.len(),
                received: session.received.len(),
            };
            audit.kept.insert(session.client_id.to_string(), kept);
        }
        if taken != self.accounts.session_bytes() {
            return Err(format!(
                "sessions take {taken}, but accounted for {}",
                self.accounts.session_bytes()
            ));
        }
        for (_, group) in self.groups.iter() {
            let members = group.members().iter();
            let connected = members.filter(|member| {
                let session = &self.sessions[member.session];
                session.connection.is_some()
            });
            if connected.count() != group.connected() {
                return Err(format!("{}: {} connected", group.name(), group.connected()));
            }
            let kept = Kept {
                queued: group.queue.len(),
                ..Kept::default()
            };
            audit.kept.insert(group.name().to_owned(), kept);
        }
        self.check_gauges(waiting)?;
        if (queued, hot)
            != (
                self.accounts.queued().bytes,
                self.accounts.queued().hot_bytes,
            )
        {
            return Err(format!(
                "queued {queued}, hot {hot}, but accounted for {} and {}",
                self.accounts.queued().bytes,
                self.accounts.queued().hot_bytes
            ));
        }
        let connections = self.connections.iter().map(|(_, connection)| connection);
        let (mut outgoing, mut shared) = (0, BTreeMap::new());
        for connection in connections {
            outgoing += connection.outbox().all_own_len();
            for message in connection.outbox().all_messages() {
                shared.insert(message.address(), message.payload().len());
            }
        }
        outgoing += shared.values().sum::<usize>();
        if outgoing != self.outgoing.total() {
            return Err(format!(
                "outgoing {outgoing}, but accounted for {}",
                self.outgoing.total()
            ));
        }
        needed.retain(|_, count| *count > 1);
        let shares: BTreeMap<BodyId, u32> = self.messages.shares().collect();
        if needed != shares {
            return Err(format!(
                "bodies are needed {needed:?}, but shared {shares:?}"
            ));
        }
        Ok(audit)
    }

    fn check_gauges(&self, queued: u64) -> Result<(), String> {
        let sessions = || self.sessions.iter().map(|(_, session)| session);
        let placeholders = sessions().filter(|session| session.is_placeholder).count();
        let connected = sessions().filter(|session| session.connection.is_some());
        let counts = (placeholders, connected.count() as u64, queued);
        let accounts = (
            self.upkeep.removals.placeholders(),
            self.sessions.connected(),
            self.accounts.queued().messages,
        );
        let kept = sessions().map(|session| session.subscriptions.len() + session.groups.len());
        let subscriptions = kept.sum::<usize>() + self.upkeep.removals.subscriptions();
        if counts != accounts || subscriptions as u64 != self.accounts.subscriptions() {
            return Err(format!(
                "{counts:?} placeholders, clients and messages, but accounted for {accounts:?}; \
                 {subscriptions} subscriptions, but {}",
                self.accounts.subscriptions()
            ));
        }
        Ok(())
    }
}
