//! What waits to be written: to each connection, and to all of them together.
//!
//! When the total is reached, QoS 0 is dropped and everything else waits in queues, also for connections for which nothing waits yet: one large message for many is
//! encoded once for each of them. Whoever takes what it is sent goes on nevertheless. A little is always sent. What is larger has its turn: one connection after the
//! other is sent one message beyond the total, and when that has been written it is the next one's turn. Who does not take it loses the turn after a second, and
//! has something waiting from then on, so its turn does not come again.

use std::collections::BTreeMap;

use super::inflight::Inflight;
use super::timer::Timer;
use super::{Broker, ConnectionId};

/// Bytes that may wait for each connection when the total is reached.
const SHARE: usize = 4096;
/// How long a connection has its turn while others wait, in milliseconds.
const TURN_MS: u64 = 1000;

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
        let bytes = connection.outbox.len() + connection.taken;
        let before = std::mem::replace(&mut connection.counted, bytes);
        self.outgoing_bytes = self.outgoing_bytes + bytes - before;
        if bytes < before {
            self.pass_turn();
        }
    }

    /// A connection is gone, and with it what waited for it.
    pub(super) fn drop_outgoing(&mut self, id: ConnectionId, counted: usize, ticket: Option<u64>) {
        self.outgoing_bytes -= counted;
        if let Some(ticket) = ticket {
            self.turns.waiting.remove(&ticket);
        }
        self.turns.turn.take_if(|turn| turn.id == id);
        self.pass_turn();
    }

    /// Whether so much waits for a connection, or for all of them, that a message of this size is not added for it: it can be dropped or can wait.
    pub(super) fn is_outgoing_full(&self, id: ConnectionId, most: usize, size: usize) -> bool {
        self.connections[id.0 as usize].outbox.len() >= most || self.is_total_full(id, size)
    }

    /// Whether so much waits for all connections that a message of this size is not added for this one.
    fn is_total_full(&self, id: ConnectionId, size: usize) -> bool {
        let waiting = self.connections[id.0 as usize].outbox.len();
        self.outgoing_bytes + size > self.settings.limits.max_outgoing_bytes_total
            && self.outgoing_bytes > 0
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
            let fits = self.outgoing_bytes <= self.settings.limits.max_outgoing_bytes_total;
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
