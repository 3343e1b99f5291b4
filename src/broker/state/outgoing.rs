//! Bytes that wait to be written to all connections, and whose turn it is when they are too many.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::broker::model::ids::ConnectionId;
use crate::broker::model::message::Message;

/// Bytes that wait to be written to all connections, in memory: payloads that several of them share count once.
#[derive(Debug, Default)]
pub struct OutgoingAccount {
    pub own: usize,
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
    pub waiting: BTreeMap<u64, ConnectionId>,
    pub next: u64,
    pub turn: Option<Turn>,
}

/// Whose turn it is.
#[derive(Debug)]
pub struct Turn {
    pub id: ConnectionId,
    /// When it ends at the latest, in milliseconds of uptime.
    pub until: u64,
    /// It has been sent what did not fit.
    pub used: bool,
}

impl Turns {
    /// How many wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_turn_of(&self, id: ConnectionId) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.id == id)
    }
}
