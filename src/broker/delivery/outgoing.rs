//! Bytes that wait to be written: to each connection, and to all of them together.
//!
//! A payload that many connections share counts once. When the total is reached, QoS 0 is dropped, and
//! QoS 1 and 2 wait in queues. A small packet is always sent. A larger one waits for a turn: one connection
//! after the other is sent one message beyond the total. A turn ends when that is written, or after a second.

use crate::broker::Broker;
use crate::broker::model::ids::ConnectionId;
use crate::broker::model::message::Message;
use crate::broker::state::connection::Connection;
use crate::broker::state::inflight::InflightMessage;
use crate::broker::state::outbox::Outbox;
use crate::broker::state::timers::Timer;

/// Bytes that may wait for each connection when the total is reached.
const SHARE: usize = 4096;

/// How long a connection has its turn while others wait, in milliseconds.
const TURN_MS: u64 = 1000;

impl InflightMessage {
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
    pub(in crate::broker) fn count_outgoing(&mut self, id: ConnectionId) {
        let (before, now) = self.connections[id].outbox_mut().count();
        self.outgoing.change(before, now);
        if now < before {
            self.pass_turn();
        }
    }

    /// Ends the PUBLISH just pushed to a connection with a payload that others are sent too.
    pub(in crate::broker) fn push_shared(&mut self, id: ConnectionId, message: &Message) {
        self.outgoing.enter(message);
        let outbox = self.connections[id].outbox_mut();
        outbox.push_payload(message.clone());
    }

    /// What was taken from a connection's outbox has been written, but for `left` bytes.
    pub(in crate::broker) fn count_written(&mut self, id: ConnectionId, left: usize) {
        for message in self.connections[id].outbox_mut().written(left) {
            self.outgoing.leave(&message);
        }
        self.count_outgoing(id);
    }

    /// Lets `take` move what is released for a connection out of its outbox, as
    /// [`Outbox::begin_writing`] does.
    pub(in crate::broker) fn take_released(
        &mut self,
        id: ConnectionId,
        shares: bool,
        take: impl FnOnce(&mut Outbox) -> usize,
    ) {
        let outbox = self.connections[id].outbox_mut();
        for copied in outbox.begin_writing(shares, take) {
            self.outgoing.leave(&copied);
        }
        self.count_outgoing(id);
    }

    /// A connection is gone, and with it what waited for it.
    pub(in crate::broker) fn drop_outgoing(&mut self, id: ConnectionId, gone: &Connection) {
        let outbox = gone.outbox();
        self.outgoing.change(outbox.counted(), 0);
        for message in outbox.all_messages() {
            self.outgoing.leave(message);
        }
        self.outgoing.turns.leave(id, outbox.ticket());
        self.pass_turn();
    }

    /// Drops what waits for the disk for a connection that ends.
    pub(in crate::broker) fn drop_gated(&mut self, id: ConnectionId) {
        for message in self.connections[id].outbox_mut().drop_held() {
            self.outgoing.leave(&message);
        }
        self.count_outgoing(id);
    }

    /// How many bytes more wait to be written when a message of this size is sent to one more connection.
    pub(in crate::broker) fn outgoing_size(&self, size: usize, body: Option<&Message>) -> usize {
        match body.and_then(Message::shared) {
            Some(message) if self.outgoing.has(message) => size - message.payload().len(),
            _ => size,
        }
    }

    /// Whether so much waits for a connection, or for all of them, that a message of this size is not added for it: it can be dropped or can wait.
    pub(in crate::broker) fn is_outgoing_full(
        &self,
        id: ConnectionId,
        most: usize,
        size: usize,
    ) -> bool {
        self.connections[id].outbox().len() >= most || self.is_total_full(id, size)
    }

    /// Whether so much waits for all connections that a message of this size is not added for this one.
    fn is_total_full(&self, id: ConnectionId, size: usize) -> bool {
        let waiting = self.connections[id].outbox().len();
        self.outgoing.total() + size > self.settings.limits.max_outgoing_bytes_total
            && self.outgoing.total() > 0
            && waiting + size > SHARE
            && !(waiting == 0 && self.outgoing.turns.is_turn_of(id))
    }

    /// A message of this size waits for a connection. If it waits only because too much waits for all, the connection gets its turn.
    pub(in crate::broker) fn await_turn(&mut self, id: ConnectionId, size: usize) {
        let is_held_back = self.is_total_full(id, size);
        let outbox = self.connections[id].outbox_mut();
        if !is_held_back || outbox.len() > 0 || outbox.ticket().is_some() {
            return;
        }
        outbox.set_ticket(Some(self.outgoing.turns.wait(id)));
        self.pass_turn();
    }

    /// Whether it is a connection's turn, and it has not been sent anything yet.
    pub(in crate::broker) fn has_turn(&self, id: ConnectionId) -> bool {
        self.outgoing.turns.is_unused(id)
    }

    /// A connection has had its turn: it is over when what it was sent has been written, or fits.
    pub(in crate::broker) fn use_turn(&mut self, id: ConnectionId) {
        if self.outgoing.turns.use_turn(id) {
            self.pass_turn();
        }
    }

    /// Gives the turn to the next one, if it is nobody's any more.
    fn pass_turn(&mut self) {
        let fits = self.outgoing.total() <= self.settings.limits.max_outgoing_bytes_total;
        let connections = &self.connections;
        let is_over = |id| {
            let connection = connections.get(id);
            fits || connection.is_none_or(|connection| connection.outbox().counted() == 0)
        };
        if !self.outgoing.turns.end(self.now.uptime, is_over) {
            return;
        }
        let until = self.now.uptime + TURN_MS;
        if let Some(id) = self.outgoing.turns.pass(until) {
            self.connections[id].outbox_mut().set_ticket(None);
            // Its own task may be the one that is here.
            self.serve_again(id);
            self.timers.set(until, Timer::Turn);
        }
    }

    /// Somebody may have had its turn for too long.
    pub(in crate::broker) fn check_turn(&mut self) {
        self.pass_turn();
        if self.outgoing.turns.len() > 0 {
            let at = self.now.uptime + TURN_MS;
            self.timers.set(at, Timer::Turn);
        }
    }
}
