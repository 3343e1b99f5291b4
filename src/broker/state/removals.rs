//! What is left of ended sessions and groups until it is removed.

use std::collections::VecDeque;
use std::vec;

use foldhash::fast::FixedState;
use hashbrown::{HashSet, hash_set};

use crate::broker::model::ids::{GroupIndex, SessionIndex};
use crate::broker::model::message::Message;
use crate::broker::model::record::QueueKey;
use crate::broker::state::gate::{Gate, SESSION, Stamp};
use crate::broker::state::queued::Queued;
use crate::broker::state::tree::NodeId;
use crate::wire::PacketId;

/// What is left of ended sessions and groups: it is removed bit by bit, so that nobody waits for
/// it. An end itself takes no time: the own row of a session or group goes with the batch that is
/// open then, and its name is free. If the process ends before the rest is removed, recovery finds
/// rows without an owner and removes them.
#[derive(Debug, Default)]
pub struct Removals {
    all: VecDeque<Removal>,
    /// Places of ended sessions that subscriptions still lead to.
    placeholders: usize,
}

/// What is left of an ended session or group.
#[derive(Debug)]
pub enum Removal {
    /// Messages that waited in a queue.
    Queued(QueueKey, VecDeque<Queued>),
    /// Messages that were on their way, and whose rows they are.
    Inflight(VecDeque<(QueueKey, Queued)>),
    /// Bodies in memory that the store has as well.
    Bodies(Vec<Message>),
    /// Identifiers of messages that were received.
    Received(QueueKey, vec::IntoIter<PacketId>),
    /// Subscriptions that lead to the place of a session.
    Subscribed {
        place: SessionIndex,
        key: QueueKey,
        groups: vec::IntoIter<GroupIndex>,
        nodes: hash_set::IntoIter<NodeId>,
    },
}

impl Removal {
    /// Rows, subscriptions and bodies that are left.
    pub fn len(&self) -> usize {
        match self {
            Removal::Queued(_, items) => items.len(),
            Removal::Inflight(items) => items.len(),
            Removal::Bodies(bodies) => bodies.len(),
            Removal::Received(_, ids) => ids.len(),
            Removal::Subscribed { groups, nodes, .. } => groups.len() + nodes.len(),
        }
    }
}

impl Removals {
    /// Adds what is left of an end; it is removed after all that is there already.
    pub fn add(&mut self, removal: Removal) {
        self.all.push_back(removal);
    }

    /// Takes the oldest.
    pub fn take(&mut self) -> Option<Removal> {
        self.all.pop_front()
    }

    /// Puts back what is left of the one that was taken, if anything is.
    pub fn put_back(&mut self, removal: Removal) {
        if removal.len() > 0 {
            self.all.push_front(removal);
        }
    }

    /// How many ends are unfinished.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// A session has ended: its place is kept until no subscription leads there any more.
    pub fn keep_place(&mut self) {
        self.placeholders += 1;
    }

    /// No subscription leads to such a place any more.
    pub fn free_place(&mut self) {
        self.placeholders -= 1;
    }

    /// Places in which there is no session any more.
    pub fn placeholders(&self) -> usize {
        self.placeholders
    }

    /// Subscriptions that lead to placeholders.
    #[cfg(test)]
    pub fn subscriptions(&self) -> usize {
        let subscribed = |removal: &&Removal| matches!(removal, Removal::Subscribed { .. });
        self.all.iter().filter(subscribed).map(Removal::len).sum()
    }

    /// The stored messages whose rows are still to be removed.
    #[cfg(test)]
    pub fn stored(&self) -> impl Iterator<Item = crate::broker::model::record::Seq> {
        let items = self.all.iter().flat_map(|removal| match removal {
            Removal::Queued(_, items) => items.iter().collect(),
            Removal::Inflight(items) => items.iter().map(|(_, item)| item).collect(),
            _ => Vec::new(),
        });
        items.filter(|item| item.is_stored()).map(|item| item.seq)
    }
}

/// Sessions that have ended and whose rows a crash might bring back. Whoever is told that there is
/// no session waits until it cannot.
#[derive(Debug)]
pub struct PendingEnds {
    /// Those that end with the open batch, by client identifier.
    open: HashSet<Box<str>, FixedState>,
    /// Those that end with the batch on its way to the disk.
    committing: HashSet<Box<str>, FixedState>,
}

impl PendingEnds {
    /// None yet; `seed` keeps clients from choosing identifiers that collide.
    pub fn new(seed: u64) -> PendingEnds {
        let none = || HashSet::with_hasher(FixedState::with_seed(seed));
        PendingEnds {
            open: none(),
            committing: none(),
        }
    }

    /// A session with this client identifier ends with the open batch.
    pub fn add(&mut self, client_id: Box<str>) {
        self.open.insert(client_id);
    }

    /// What a packet waits for that says there is no session with this client identifier.
    pub fn stamp(&self, client_id: &str, gate: &mut Gate) -> Stamp {
        if self.open.contains(client_id) {
            return gate.require(SESSION);
        }
        match self.committing.contains(client_id) {
            true => gate.stamp_of_committing(SESSION),
            false => Stamp::NONE,
        }
    }

    /// The open batch is taken; the one before it is durable.
    pub fn taken(&mut self) {
        std::mem::swap(&mut self.open, &mut self.committing);
        self.open.clear();
    }

    /// The batch that was taken is durable.
    pub fn durable(&mut self) {
        self.committing.clear();
    }
}
