//! Take-overs (MQTT 5 section 3.1.4): a CONNECT whose client identifier an open connection has.
//!
//! The client may have left that connection in good order and come back at once. Then its last
//! packets and its DISCONNECT are still unread. So the CONNECT waits until the older connection's
//! driver has handed over what its peer had sent \[MQTT-3.14.4-3, MQTT-3.1.2-8\], but no longer
//! than [`WAIT_MS`].
//!
//! Several CONNECTs with one client identifier are served in the order in which they came. One that
//! has waited for [`WAIT_MS`] ends all that are before it.

use crate::broker::Broker;
use crate::broker::model::ids::ConnectionId;
use crate::broker::state::connection::{Connection, State};
use crate::broker::state::timers::Timer;
use crate::clock::Now;
use crate::wire::ReasonCode;

/// How long a CONNECT waits for older connections, in milliseconds: with what a busy machine adds,
/// no more than 100.
pub(crate) const WAIT_MS: u64 = 60;

impl Broker {
    /// Whether a CONNECT has to wait for an older connection. It is presented again when
    /// [`Broker::is_waiting`] says that it may go on.
    pub(in crate::broker) fn must_wait(&mut self, id: ConnectionId, client_id: &str) -> bool {
        let connection = &self.connections[id];
        let waits = connection.waits_for().is_some();
        let older = self.connection_of(client_id);
        let first = self.connections.take_overs.first(client_id);
        if older.is_none() && first.is_none_or(|first| first == id) {
            if waits {
                self.stop_waiting(id);
            }
            return false;
        }
        if !waits {
            self.connections.take_overs.join(client_id, id);
            let at = self.now.uptime + WAIT_MS;
            self.timers.set(at, Timer::TakeOver(id));
            self.connections[id].wait_for(client_id);
        }
        if let Some(older) = older {
            self.make_yield(older);
        }
        true
    }

    /// Whether a connection's CONNECT waits for an older connection of the same client to end. The
    /// connection is touched when that changes: then the driver presents the CONNECT again, and
    /// what came behind it.
    pub fn is_waiting(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id);
        connection
            .and_then(Connection::waits_for)
            .is_some_and(|client_id| {
                self.connections.take_overs.first(client_id) != Some(id)
                    || self.connection_of(client_id).is_some()
            })
    }

    /// Whether another connection waits to take the place of this one: what its peer has already
    /// sent is to be read and handed over, and then [`Broker::drained`] called.
    pub fn is_yielding(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id);
        connection.is_some_and(Connection::yields)
    }

    /// What the peer of a yielding connection had sent is handed over: the connection ends, and the
    /// one that waits goes on.
    pub fn drained(&mut self, id: ConnectionId, now: Now) {
        self.now = now;
        // Whom it was to give way to may have gone.
        if self.is_yielding(id) {
            self.take_over(id);
        }
    }

    /// Ends a connection because another one has its client identifier \[MQTT-3.1.4-3\].
    pub(in crate::broker) fn take_over(&mut self, older: ConnectionId) {
        self.counters.takeovers += 1;
        let newer = self.connections.take_overs.first(self.client_name(older));
        match newer.map(|id| &self.connections[id].arrival().peer) {
            Some(peer) => {
                let why = format!("session taken over from {peer}");
                self.say_end(older, why);
            }
            None => self.say_end(older, "session taken over"),
        }
        self.disconnect(older, ReasonCode::SessionTakenOver, None);
    }

    /// A connection has got its client identifier: it gives way to who waits for that already.
    pub(in crate::broker) fn give_way(&mut self, id: ConnectionId, client_id: &str) {
        if self.connections.take_overs.first(client_id).is_some() {
            self.make_yield(id);
        }
    }

    /// A client identifier may be free: who is first in its line looks.
    pub(in crate::broker) fn call_next(&mut self, client_id: &str) {
        if let Some(first) = self.connections.take_overs.first(client_id) {
            self.touch(first);
        }
    }

    /// A connection does not wait any more.
    pub(in crate::broker) fn stop_waiting(&mut self, id: ConnectionId) {
        let Some(client_id) = self.connections[id].stop_waiting() else {
            return;
        };
        self.connections.take_overs.leave(&client_id, id);
        self.call_next(&client_id);
        if self.connections.take_overs.first(&client_id).is_none()
            && let Some(older) = self.connection_of(&client_id)
        {
            self.connections[older].set_yields(false);
        }
    }

    /// A connection has waited long enough: what is before it ends, however far that is.
    pub(in crate::broker) fn check_take_over(&mut self, id: ConnectionId) {
        let connection = self.connections.get(id);
        let connection = connection.filter(|it| it.state() == State::New);
        let client_id = connection.and_then(Connection::waits_for);
        let Some(client_id) = client_id.map(str::to_owned) else {
            return;
        };
        if let Some(older) = self.connection_of(&client_id) {
            self.take_over(older);
        }
        while let Some(first) = self.connections.take_overs.first(&client_id)
            && first != id
        {
            self.stop_waiting(first);
            let before = &mut self.connections[first];
            if before.state() == State::New {
                before.close();
                self.counters.takeovers += 1;
                self.touch(first);
            }
        }
        self.touch(id);
    }

    fn make_yield(&mut self, id: ConnectionId) {
        if self.connections[id].set_yields(true) {
            self.touch(id);
        }
    }

    /// The open connection with a client identifier.
    fn connection_of(&self, client_id: &str) -> Option<ConnectionId> {
        let index = self.sessions.find(client_id)?;
        self.sessions[index].connection
    }
}
