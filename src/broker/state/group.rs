//! A shared group: its members, whose turn it is, and its queue.

use crate::broker::model::ids::SessionIndex;
use crate::broker::model::record::QueueKey;
use crate::broker::state::queue::Queue;
use crate::broker::state::tree::{NodeId, Subscriber};

/// A shared group.
#[derive(Debug)]
pub struct Group {
    name: Box<str>,
    node: NodeId,
    /// What waits for a member.
    pub queue: Queue,
    /// By session.
    members: Vec<Subscriber>,
    /// How many of them are connected.
    connected: usize,
    /// The place of the member whose turn it is.
    next: usize,
    /// Members whose sessions are on disk.
    durable: usize,
    /// It has a row in the store.
    stored: bool,
}

impl Group {
    /// A group without members; `stored` says that it has a row in the store.
    pub fn new(name: &str, node: NodeId, key: QueueKey, stored: bool) -> Group {
        Group {
            name: name.into(),
            node,
            queue: Queue::new(key),
            members: Vec::new(),
            connected: 0,
            next: 0,
            durable: 0,
            stored,
        }
    }

    /// As in a SUBSCRIBE: `$share/name/filter`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its filter stands in the tree.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Whether a member's session is on disk: so is the queue.
    pub fn is_durable(&self) -> bool {
        self.durable > 0
    }

    /// Whether it has a row in the store.
    pub fn is_stored(&self) -> bool {
        self.stored
    }

    /// It has a row in the store from now on. Returns whether it had none.
    pub fn store(&mut self) -> bool {
        !std::mem::replace(&mut self.stored, true)
    }

    /// All members, in the order of their sessions.
    pub fn members(&self) -> &[Subscriber] {
        &self.members
    }

    /// The membership of a session.
    pub fn member(&self, session: SessionIndex) -> Option<Subscriber> {
        let at = self.place_of(session).ok()?;
        Some(self.members[at])
    }

    /// How many members are connected.
    pub fn connected(&self) -> usize {
        self.connected
    }

    /// A member has connected.
    pub fn connect(&mut self) {
        self.connected += 1;
        debug_assert!(self.connected <= self.members.len());
    }

    /// A member's connection has ended.
    pub fn disconnect(&mut self) {
        self.connected -= 1;
    }

    /// Adds a member, or replaces its membership. Returns the one that is replaced.
    pub fn join(
        &mut self,
        member: Subscriber,
        durable: bool,
        connected: bool,
    ) -> Option<Subscriber> {
        let at = match self.place_of(member.session) {
            Ok(at) => return Some(std::mem::replace(&mut self.members[at], member)),
            Err(at) => at,
        };
        self.members.insert(at, member);
        self.next += usize::from(at < self.next);
        self.connected += usize::from(connected);
        self.durable += usize::from(durable);
        None
    }

    /// Removes a member.
    pub fn leave(&mut self, session: SessionIndex, durable: bool, connected: bool) {
        if let Ok(at) = self.place_of(session) {
            self.members.remove(at);
            self.next -= usize::from(at < self.next);
        }
        self.connected -= usize::from(connected);
        self.durable -= usize::from(durable);
    }

    /// The places of all members, beginning with the one whose turn it is.
    pub fn turns(&self) -> impl Iterator<Item = usize> + use<> {
        let (count, next) = (self.members.len(), self.next);
        (0..count).map(move |step| (next + step) % count)
    }

    /// The member at a place has had its turn.
    pub fn pass_turn(&mut self, at: usize) {
        self.next = (at + 1) % self.members.len();
    }

    /// Where a member stands, or would.
    fn place_of(&self, session: SessionIndex) -> Result<usize, usize> {
        let by_session = |member: &Subscriber| member.session;
        self.members.binary_search_by_key(&session, by_session)
    }
}
