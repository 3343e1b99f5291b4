//! Bytes that wait to be written to all connections, and whose turn it is when they are too many.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::broker::model::ids::ConnectionId;
use crate::broker::model::message::Message;

/// Bytes that wait to be written to all connections, in memory: payloads that several of them share
/// count once.
#[derive(Debug, Default)]
pub struct OutgoingAccount {
    own: usize,
    shared: usize,
    /// By address: how many connections share each, and how often.
    messages: HashMap<usize, u32, FixedState>,
    /// Who waits until there are less.
    pub turns: Turns,
}

impl OutgoingAccount {
    /// Bytes in all.
    pub fn total(&self) -> usize {
        self.own + self.shared
    }

    /// Of one connection so many bytes wait now, and so many did before; payloads that are shared
    /// aside.
    pub fn change(&mut self, before: usize, now: usize) {
        self.own = self.own + now - before;
    }

    /// Whether a message's payload is counted: to send it once more takes no more memory.
    pub fn has(&self, message: &Message) -> bool {
        self.messages.contains_key(&message.address())
    }

    /// One connection more is sent a payload that is shared.
    pub fn enter(&mut self, message: &Message) {
        let count = self.messages.entry(message.address()).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.shared += message.payload().len();
        }
    }

    /// A payload that is shared waits once less.
    pub fn leave(&mut self, message: &Message) {
        match self.messages.entry(message.address()) {
            Entry::Occupied(mut entry) if *entry.get() > 1 => *entry.get_mut() -= 1,
            Entry::Occupied(entry) => {
                entry.remove();
                self.shared -= message.payload().len();
            }
            Entry::Vacant(_) => debug_assert!(false, "a payload leaves that has not entered"),
        }
    }
}

/// Connections for which nothing waits to be written, and which wait until less waits for all.
#[derive(Debug, Default)]
pub struct Turns {
    /// In the order in which they were held back.
    waiting: BTreeMap<u64, ConnectionId>,
    next: u64,
    turn: Option<Turn>,
}

/// Whose turn it is.
#[derive(Debug)]
struct Turn {
    id: ConnectionId,
    /// When it ends at the latest, in milliseconds of uptime.
    until: u64,
    /// It has been sent what did not fit.
    used: bool,
}

impl Turns {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Has a connection wait. Returns its ticket.
    pub fn wait(&mut self, id: ConnectionId) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.waiting.insert(ticket, id);
        ticket
    }

    /// A connection is gone; it waited if it had a ticket.
    pub fn leave(&mut self, id: ConnectionId, ticket: Option<u64>) {
        if let Some(ticket) = ticket {
            self.waiting.remove(&ticket);
        }
        self.turn.take_if(|turn| turn.id == id);
    }

    /// Whether it is a connection's turn.
    pub fn is_turn_of(&self, id: ConnectionId) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.id == id)
    }

    /// Whether it is a connection's turn, and it has not been sent anything yet.
    pub fn is_unused(&self, id: ConnectionId) -> bool {
        let turn = self.turn.as_ref();
        turn.is_some_and(|turn| turn.id == id && !turn.used)
    }

    /// A connection has been sent what did not fit. Returns whether it was its turn.
    pub fn use_turn(&mut self, id: ConnectionId) -> bool {
        let turn = self.turn.as_mut().filter(|turn| turn.id == id);
        turn.map(|turn| turn.used = true).is_some()
    }

    /// Ends the turn if it has taken too long, or if `is_over` says so of a connection that has
    /// used it. Returns whether it is nobody's turn.
    pub fn end(&mut self, uptime: u64, is_over: impl FnOnce(ConnectionId) -> bool) -> bool {
        let over = |turn: &mut Turn| turn.until <= uptime || turn.used && is_over(turn.id);
        self.turn.take_if(over);
        self.turn.is_none()
    }

    /// Gives the turn to the connection that has waited longest, until this moment of uptime.
    pub fn pass(&mut self, until: u64) -> Option<ConnectionId> {
        let (_, id) = self.waiting.pop_first()?;
        self.turn = Some(Turn {
            id,
            until,
            used: false,
        });
        Some(id)
    }
}
