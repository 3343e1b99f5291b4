//! What must be true between any two calls of a driver, as far as that is cheap to check.
//!
//! These checks run after each call, in debug builds and in all tests. The audit of the tests
//! counts everything anew; these only hold against each other what two rooms say of the same thing.

use crate::broker::Broker;
use crate::broker::model::ids::ConnectionId;
use crate::broker::state::connection::State;

impl Broker {
    /// Checks the broker as a whole.
    ///
    /// # Panics
    /// If an invariant is broken: that is a bug.
    #[inline]
    pub(in crate::broker) fn check(&self) {
        if !cfg!(any(test, debug_assertions)) {
            return;
        }
        self.gate.check();
        self.timers.check();
        let connected = self.sessions.connected();
        assert!(
            connected <= self.connections.len() as u64,
            "{connected} clients are connected, by {} connections",
            self.connections.len()
        );
        let queued = self.accounts.queued();
        assert!(
            queued.hot_bytes <= queued.bytes,
            "more is in memory than is queued: {queued:?}"
        );
    }

    /// Checks the broker, and a connection with its session.
    ///
    /// # Panics
    /// If an invariant is broken: that is a bug.
    #[inline]
    pub(in crate::broker) fn check_connection(&self, id: ConnectionId) {
        if !cfg!(any(test, debug_assertions)) {
            return;
        }
        self.check();
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let (outbox, state) = (connection.outbox(), connection.state());
        let bytes = outbox.all_own_len();
        assert_eq!(outbox.counted(), bytes, "{id:?}: bytes that wait for it");
        assert!(self.outgoing.total() >= bytes, "{id:?}: bytes for all");
        let Some(index) = connection.session() else {
            assert_ne!(state, State::Open, "{id:?} has no session");
            return;
        };
        assert_eq!(state, State::Open, "{id:?} has a session");
        let session = &self.sessions[index];
        assert_eq!(session.connection, Some(id), "whose {index:?} is");
        let (own, all) = (session.queue.size(), self.accounts.queued());
        assert!(
            own.messages <= all.messages
                && own.bytes <= all.bytes
                && own.hot_bytes <= all.hot_bytes,
            "{index:?} has {own:?} of {all:?}"
        );
        let inflight = &session.inflight;
        assert!(inflight.withheld() <= inflight.len(), "{index:?}: withheld");
        assert!(
            inflight.on_wire() <= inflight.len(),
            "{index:?}: on the wire"
        );
    }
}
