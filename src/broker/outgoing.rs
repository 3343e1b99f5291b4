//! What waits to be written: to each connection, and to all of them together.
//!
//! A payload that many connections share counts once. When the total is reached, QoS 0 is dropped and everything else waits in queues, also for connections for
//! which nothing waits yet. Whoever takes what it is sent goes on nevertheless. A little is always sent. What is larger has its turn: one connection after the
//! other is sent one message beyond the total, and when that has been written it is the next one's turn. Who does not take it loses the turn after a second, and
//! has something waiting from then on, so its turn does not come again.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::connection::Connection;
use super::inflight::Inflight;
use super::message::Message;
use super::outbox::Taken;
use super::timer::Timer;
use super::{Broker, ConnectionId};

/// Bytes that may wait for each connection when the total is reached.
const SHARE: usize = 4096;
/// How long a connection has its turn while others wait, in milliseconds.
const TURN_MS: u64 = 1000;

/// Bytes that wait to be written to all connections, in memory: payloads that several of them share count once.
#[derive(Debug, Default)]
pub(super) struct Account {
    own: usize,
    shared: usize,
    /// By address: how many connections share each, and how often.
    messages: HashMap<usize, u32, FixedState>,
}

impl Account {
    /// Bytes in all.
    pub fn total(&self) -> usize {
        self.own + self.shared
    }

    /// Whether a message's payload is counted: to send it once more takes no more memory.
    fn has(&self, message: &Message) -> bool {
        self.messages.contains_key(&message.address())
    }

    /// One connection more is sent a payload that is shared.
    fn enter(&mut self, message: &Message) {
        let count = self.messages.entry(message.address()).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.shared += message.payload().len();
        }
    }

    /// A payload that is shared waits once less.
    fn leave(&mut self, message: &Message) {
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
pub(super) struct Turns {
    /// In the order in which they were held back.
    waiting: BTreeMap<u64, ConnectionId>,
    next: u64,
    turn: Option<Turn>,
    /// A timer will look at them.
    is_watched: bool,
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
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    fn is_turn_of(&self, id: ConnectionId) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.id == id)
    }
}

impl Inflight {
    /// Bytes of what is sent next of it.
    pub fn len(&self) -> usize {
        if self.released {
            0
        } else {
            self.item.size as usize
        }
    }
}

impl Broker {
    /// Brings the account of what waits to be written up to date with a connection.
    #[inline]
    pub(super) fn count_outgoing(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id.0 as usize];
        let bytes = connection.outbox.own_len() + connection.taken;
        let before = std::mem::replace(&mut connection.counted, bytes);
        self.outgoing.own = self.outgoing.own + bytes - before;
        if bytes < before {
            self.pass_turn();
        }
    }

    /// Ends the PUBLISH just pushed to a connection with a payload that others are sent too.
    pub(super) fn push_shared(&mut self, id: ConnectionId, message: &Message) {
        self.outgoing.enter(message);
        let outbox = &mut self.connections[id.0 as usize].outbox;
        outbox.push_payload(message.clone());
    }

    /// What was taken from a connection's outbox has been written, but for `left` bytes.
    pub(super) fn count_written(&mut self, id: ConnectionId, left: usize) {
        let connection = &mut self.connections[id.0 as usize];
        connection.taken = left;
        if left == 0 {
            for message in std::mem::take(&mut connection.taken_messages) {
                self.outgoing.leave(&message);
            }
        }
        self.count_outgoing(id);
    }

    /// Moves what is released for a connection to the end of `out`: from then on it is being written.
    pub(super) fn take_released<T: Taken>(&mut self, id: ConnectionId, out: &mut T) {
        let connection = &mut self.connections[id.0 as usize];
        let mut taken: Vec<Message> = connection.outbox.messages().cloned().collect();
        connection.outbox.take(out);
        connection.taken = out.own_len();
        taken.truncate(taken.len() - connection.outbox.messages().count());
        if T::SHARES {
            connection.taken_messages.append(&mut taken);
        }
        for copied in taken {
            self.outgoing.leave(&copied);
        }
        self.count_outgoing(id);
    }

    /// A connection is gone, and with it what waited for it.
    pub(super) fn drop_outgoing(&mut self, id: ConnectionId, gone: &Connection) {
        self.outgoing.own -= gone.counted;
        for message in gone.outbox.messages().chain(&gone.taken_messages) {
            self.outgoing.leave(message);
        }
        if let Some(ticket) = gone.ticket {
            self.turns.waiting.remove(&ticket);
        }
        self.turns.turn.take_if(|turn| turn.id == id);
        self.pass_turn();
    }

    /// Drops what waits for the disk for a connection that ends.
    pub(super) fn drop_gated(&mut self, id: ConnectionId) {
        for message in self.connections[id.0 as usize].outbox.drop_held() {
            self.outgoing.leave(&message);
        }
        self.count_outgoing(id);
    }

    /// How many bytes more wait to be written when a message of this size is sent to one more connection.
    pub(super) fn outgoing_size(&self, size: usize, body: Option<&Message>) -> usize {
        match body.and_then(Message::shared) {
            Some(message) if self.outgoing.has(message) => size - message.payload().len(),
            _ => size,
        }
    }

    /// Whether so much waits for a connection, or for all of them, that a message of this size is not added for it: it can be dropped or can wait.
    pub(super) fn is_outgoing_full(&self, id: ConnectionId, most: usize, size: usize) -> bool {
        self.connections[id.0 as usize].outbox.len() >= most || self.is_total_full(id, size)
    }

    /// Whether so much waits for all connections that a message of this size is not added for this one.
    fn is_total_full(&self, id: ConnectionId, size: usize) -> bool {
        let waiting = self.connections[id.0 as usize].outbox.len();
        self.outgoing.total() + size > self.settings.limits.max_outgoing_bytes_total
            && self.outgoing.total() > 0
            && waiting + size > SHARE
            && !(waiting == 0 && self.turns.is_turn_of(id))
    }

    /// A message of this size waits for a connection. If it waits only because too much waits for all, the connection gets its turn.
    pub(super) fn await_turn(&mut self, id: ConnectionId, size: usize) {
        let is_held_back = self.is_total_full(id, size);
        let connection = &mut self.connections[id.0 as usize];
        if !is_held_back || connection.outbox.len() > 0 || connection.ticket.is_some() {
            return;
        }
        let ticket = self.turns.next;
        self.turns.next += 1;
        connection.ticket = Some(ticket);
        self.turns.waiting.insert(ticket, id);
        self.pass_turn();
    }

    /// Whether it is a connection's turn, and it has not been sent anything yet.
    pub(super) fn has_turn(&self, id: ConnectionId) -> bool {
        let turn = self.turns.turn.as_ref();
        turn.is_some_and(|turn| turn.id == id && !turn.used)
    }

    /// A connection has had its turn: it is over when what it was sent has been written, or fits.
    pub(super) fn use_turn(&mut self, id: ConnectionId) {
        if let Some(turn) = self.turns.turn.as_mut().filter(|turn| turn.id == id) {
            turn.used = true;
            self.pass_turn();
        }
    }

    /// Gives the turn to the next one, if it is nobody's any more.
    fn pass_turn(&mut self) {
        if let Some(turn) = &self.turns.turn {
            let fits = self.outgoing.total() <= self.settings.limits.max_outgoing_bytes_total;
            let connection = self.connections.get(turn.id.0 as usize);
            let is_written = connection.is_none_or(|connection| connection.counted == 0);
            if turn.until > self.now.uptime && !(turn.used && (fits || is_written)) {
                return;
            }
            self.turns.turn = None;
        }
        let Some((_, id)) = self.turns.waiting.pop_first() else {
            return;
        };
        let until = self.now.uptime + TURN_MS;
        self.turns.turn = Some(Turn {
            id,
            until,
            used: false,
        });
        self.connections[id.0 as usize].ticket = None;
        // Its own task may be the one that is here.
        self.go_on(id);
        if !std::mem::replace(&mut self.turns.is_watched, true) {
            self.timers.set(until, Timer::Turn);
        }
    }

    /// Somebody may have had its turn for too long.
    pub(super) fn check_turn(&mut self) {
        self.turns.is_watched = false;
        self.pass_turn();
        if !self.turns.waiting.is_empty() && !std::mem::replace(&mut self.turns.is_watched, true) {
            let at = self.now.uptime + TURN_MS;
            self.timers.set(at, Timer::Turn);
        }
    }
}
