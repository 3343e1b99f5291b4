//! Memory that sessions take, messages aside, and room in the store.
//!
//! Client identifiers, user names, wills, subscriptions and topic aliases are one account for each
//! session, and one for all sessions. Counted are the bytes that the peer says, and about what
//! tables need for them: each level of a filter may be a node of the tree. The subscriptions of an
//! ended session count until they are removed.

use crate::broker::Broker;
use crate::broker::model::access::Identity;
use crate::broker::model::alias::Alias;
use crate::broker::model::cost::{ALIAS, connect_bytes, subscription_bytes};
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::record::WillRecord;
use crate::broker::state::connection::Connection;
use crate::broker::state::session::Session;
use crate::wire::{Fault, ReasonCode};

/// Room in the store that messages leave: clients must be able to come for what waits for them,
/// whatever they bring with their CONNECT.
const SESSION_ROOM: u64 = 64 * 1024;

impl Session {
    /// What it takes, subscriptions and topic aliases aside.
    pub fn own_bytes(&self) -> u64 {
        connect_bytes(
            &self.client_id,
            self.identity.as_ref(),
            self.will.as_deref(),
        )
    }
}

impl Broker {
    /// Counts anew what a session takes that had this much before; subscriptions and topic aliases
    /// aside.
    pub(in crate::broker) fn recount_session(&mut self, index: SessionIndex, before: u64) {
        let now = self.sessions[index].own_bytes();
        self.accounts.change_session(before, now);
    }

    /// Counts a new subscription.
    pub(in crate::broker) fn count_subscription(&mut self, index: SessionIndex, text: &str) {
        let bytes = subscription_bytes(text);
        self.sessions[index].subscription_bytes += bytes;
        self.accounts.change_session(0, bytes);
    }

    /// Counts a subscription that is gone.
    pub(in crate::broker) fn discount_subscription(&mut self, index: SessionIndex, text: &str) {
        let bytes = subscription_bytes(text);
        self.sessions[index].subscription_bytes -= bytes;
        self.accounts.change_session(bytes, 0);
    }

    /// Replaces a session's will; the one it had.
    pub(in crate::broker) fn set_will(
        &mut self,
        index: SessionIndex,
        will: Option<Box<WillRecord>>,
    ) -> Option<Box<WillRecord>> {
        let session = &mut self.sessions[index];
        let before = session.own_bytes();
        let old = std::mem::replace(&mut session.will, will);
        self.recount_session(index, before);
        old
    }

    /// Whether a session may take so much more.
    pub(in crate::broker) fn has_memory(&self, index: SessionIndex, more: u64) -> bool {
        let limits = &self.settings.limits;
        let session = &self.sessions[index];
        let connection = session.connection.map(|id| &self.connections[id]);
        if connection.is_some_and(|connection| connection.is_own_bridge()) {
            return true;
        }
        let aliases = connection.map_or(0, Connection::alias_bytes);
        let bytes = session.own_bytes() + session.subscription_bytes + aliases;
        bytes + more <= limits.max_session_bytes
            && self.accounts.session_bytes() + more <= limits.max_session_bytes_total
    }

    /// Whether there is memory for what a client brings with its CONNECT. Who brings no more than
    /// its session has already may always come.
    pub(in crate::broker) fn check_memory(
        &mut self,
        client_id: &str,
        identity: &Identity,
        will: Option<&WillRecord>,
    ) -> Result<(), Fault> {
        let limits = &self.settings.limits;
        let known = self.sessions.find(client_id);
        let known = known.map(|index| &self.sessions[index]);
        let (has, subscriptions) = known.map_or((0, 0), |session| {
            (session.own_bytes(), session.subscription_bytes)
        });
        let wants = connect_bytes(client_id, Some(identity), will);
        let what = if wants <= has {
            return Ok(());
        } else if wants + subscriptions > limits.max_session_bytes {
            "max_session_bytes is reached"
        } else if self.accounts.session_bytes() - has + wants > limits.max_session_bytes_total {
            "max_session_bytes_total is reached"
        } else {
            return Ok(());
        };
        self.counters.refused_session_bytes += 1;
        Err(Fault {
            reason: ReasonCode::QuotaExceeded,
            what,
        })
    }

    /// A client sets a topic alias, which is within its maximum.
    pub(in crate::broker) fn set_alias(
        &mut self,
        id: ConnectionId,
        index: SessionIndex,
        alias: u16,
        topic: &str,
    ) -> Result<(), Fault> {
        let old = self.connections[id].resolve_alias(alias);
        if old == Some(topic) {
            return Ok(());
        }
        let freed = old.map_or(0, |old| ALIAS + old.len() as u64);
        let taken = ALIAS + topic.len() as u64;
        if !self.has_memory(index, taken.saturating_sub(freed)) {
            self.counters.refused_session_bytes += 1;
            return Err(Fault {
                reason: ReasonCode::QuotaExceeded,
                what: "max_session_bytes or max_session_bytes_total leaves no room for a topic alias",
            });
        }
        let seed = self.connections.seed;
        let connection = &mut self.connections[id];
        connection.set_alias(alias, topic, seed, freed, taken);
        self.accounts.change_session(freed, taken);
        Ok(())
    }

    /// How to name a topic to a client. Where there is no memory for an alias, topics go by name.
    pub(in crate::broker) fn alias_for(&mut self, id: ConnectionId, topic: &str) -> Alias {
        let connection = &self.connections[id];
        if !connection.uses_aliases() {
            return Alias::None;
        }
        let bytes = ALIAS + topic.len() as u64;
        let session = connection.session();
        let may_set = session.is_some_and(|index| self.has_memory(index, bytes));
        let alias = self.connections[id].alias_for(topic, may_set);
        if let Alias::Set(_) = alias {
            self.accounts.change_session(0, bytes);
        }
        alias
    }

    /// A connection ends, and with it its topic aliases.
    pub(in crate::broker) fn drop_aliases(&mut self, id: ConnectionId) {
        let freed = self.connections[id].forget_aliases();
        self.accounts.change_session(freed, 0);
    }

    /// Whether the store can take a message that needs so many bytes with all its rows; messages
    /// leave some room for sessions. If not, what waits to be removed is: it may make room.
    pub(in crate::broker) fn has_room(&mut self, bytes: u64) -> bool {
        let room = self.promised_bytes() + SESSION_ROOM + bytes < self.accounts.room();
        if !room {
            self.gate.flush();
        }
        room
    }

    /// Whether the store can take a session, a will, a subscription, or a packet identifier. If
    /// not, as [`Broker::has_room`].
    pub(in crate::broker) fn has_session_room(&mut self) -> bool {
        let room = self.promised_bytes() < self.accounts.room();
        if !room {
            self.gate.flush();
        }
        room
    }

    /// Bytes of rows that wait to be committed, and of those that are still to be written for
    /// messages that were accepted.
    fn promised_bytes(&self) -> u64 {
        (self.gate.pending_bytes() + self.upkeep.spreads.promised_bytes()) as u64
    }
}
