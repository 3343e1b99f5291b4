//! All sessions, by their places and by the client identifiers of their clients.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use foldhash::fast::FixedState;

use crate::broker::model::access::Identity;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::state::client_ids::ClientIds;
use crate::broker::state::session::Session;
use crate::broker::state::slots::Slots;
use crate::broker::state::table::Table;
use crate::broker::state::tally::Tally;

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    slots: Slots<SessionIndex, Session>,
    by_client: Table<Box<str>, SessionIndex, FixedState>,
    /// Connections of each user.
    by_user: Tally<Box<str>>,
    /// Client identifiers for clients that have none.
    pub client_ids: ClientIds,
    /// Clients connected.
    connected: u64,
    /// Those that outlast their connection are kept on disk: so are messages of some topic at
    /// least.
    pub are_kept: bool,
    /// There is, or was, a session that may not do everything: until then no delivery asks.
    pub restricted: bool,
    /// Those whose rows of messages on their way have changed since the last batch was taken.
    pub changed: VecDeque<SessionIndex>,
}

impl Sessions {
    /// None yet; `seed` keeps clients from choosing identifiers that collide.
    pub fn new(client_ids: ClientIds, are_kept: bool, seed: u64) -> Sessions {
        Sessions {
            slots: Slots::default(),
            by_client: Table::with_hasher(FixedState::with_seed(seed)),
            by_user: Tally::new(seed),
            client_ids,
            connected: 0,
            are_kept,
            restricted: false,
            changed: VecDeque::new(),
        }
    }

    /// Adds a session under its client identifier, which no other one has.
    pub fn add(&mut self, session: Session) -> SessionIndex {
        let client_id = session.client_id.clone();
        let index = self.slots.insert(session);
        let before = self.by_client.insert(client_id, index);
        debug_assert!(before.is_none(), "two sessions have one client identifier");
        index
    }

    /// The session of a client identifier.
    pub fn find(&self, client_id: &str) -> Option<SessionIndex> {
        self.by_client.get(client_id).copied()
    }

    /// The client of a session has connected.
    pub fn connect(&mut self, index: SessionIndex, id: ConnectionId) {
        let session = &mut self.slots[index];
        debug_assert!(session.connection.is_none(), "two connections of a session");
        session.connection = Some(id);
        session.disconnected_at = None;
        self.connected += 1;
    }

    /// The client that has connected has proved to be this.
    pub fn identify(&mut self, index: SessionIndex, identity: Identity) {
        if let Some(user) = &identity.user {
            self.by_user.add(user.clone());
        }
        let session = &mut self.slots[index];
        session.identity = Some(identity);
        session.restored_user = None;
    }

    /// The connection of a session has ended, at this moment of broker time.
    pub fn disconnect(&mut self, index: SessionIndex, unix: u64) {
        let session = &mut self.slots[index];
        session.connection = None;
        session.disconnected_at = Some(unix);
        if let Some(user) = session.identity.as_ref().and_then(|it| it.user.as_ref()) {
            self.by_user.remove(user);
        }
        self.connected -= 1;
    }

    /// Clients connected.
    pub fn connected(&self) -> u64 {
        self.connected
    }

    /// Connections of a user.
    pub fn connections_of(&self, user: &str) -> usize {
        self.by_user.count(user)
    }

    /// Puts what only holds the place into the place of a session that has ended: its client
    /// identifier is free. Returns the session.
    pub fn end(&mut self, index: SessionIndex, placeholder: Session) -> Session {
        let ended = std::mem::replace(&mut self.slots[index], placeholder);
        self.by_client.remove(&ended.client_id);
        ended
    }

    /// Removes what holds the place of a session that has ended.
    pub fn remove(&mut self, index: SessionIndex) -> Session {
        self.slots.remove(index)
    }

    /// All client identifiers.
    pub fn client_ids(&self) -> impl Iterator<Item = (&str, SessionIndex)> {
        let all = self.by_client.iter();
        all.map(|(client_id, index)| (&**client_id, *index))
    }

    /// A session, if there is one in this place.
    pub fn get(&self, index: SessionIndex) -> Option<&Session> {
        self.slots.get(index)
    }

    /// A session, if there is one in this place.
    pub fn get_mut(&mut self, index: SessionIndex) -> Option<&mut Session> {
        self.slots.get_mut(index)
    }

    /// How many there are, those included that have ended and still hold a place.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Every place is below this number.
    pub fn places(&self) -> u32 {
        self.slots.places()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (SessionIndex, &Session)> {
        self.slots.iter()
    }
}

impl Index<SessionIndex> for Sessions {
    type Output = Session;

    #[inline]
    fn index(&self, index: SessionIndex) -> &Session {
        &self.slots[index]
    }
}

impl IndexMut<SessionIndex> for Sessions {
    #[inline]
    fn index_mut(&mut self, index: SessionIndex) -> &mut Session {
        &mut self.slots[index]
    }
}
