//! A shared group: its members, its turn and its queue.

use crate::broker::model::ids::SessionIndex;
use crate::broker::state::queue::Queue;
use crate::broker::state::tree::{NodeId, Subscriber};

#[derive(Debug)]
pub struct Group {
    /// As in a SUBSCRIBE: `$share/name/filter`.
    pub name: Box<str>,
    pub node: NodeId,
    pub queue: Queue,
    /// By session.
    pub members: Vec<Subscriber>,
    /// How many of them are connected.
    pub connected: usize,
    /// Whose turn it is.
    pub next: usize,
    /// Members whose sessions are on disk.
    pub durable_members: usize,
    /// It has a row in the store.
    pub stored: bool,
}

impl Group {
    pub fn is_durable(&self) -> bool {
        self.durable_members > 0
    }

    /// Where a member stands, or would.
    pub fn place_of(&self, session: SessionIndex) -> Result<usize, usize> {
        let by_session = |member: &Subscriber| member.session;
        self.members.binary_search_by_key(&session, by_session)
    }
}
