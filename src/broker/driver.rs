//! What drivers call beside packets: batches, fetches, output, and the shutdown.

use crate::broker::Broker;
use crate::broker::model::ack::ack;
use crate::broker::model::counters::Counters;
use crate::broker::model::fetch::Fetch;
use crate::broker::model::ids::ConnectionId;
use crate::broker::model::local::{LocalPackets, Step};
use crate::broker::model::output::Output;
use crate::broker::model::record::Batch;
use crate::broker::model::segments::Taken;
use crate::broker::state::connection::{Connection, State};
use crate::broker::state::walks::Walk;
use crate::clock::Now;
use crate::limits::Limits;
use crate::wire::{PacketId, ReasonCode};

impl Broker {
    /// Says how many bytes of messages the store can still take, those included that wait to be committed. Beyond it, messages that must be
    /// stored are refused.
    ///
    /// `may_have_more` says that the store may find more once that is used up. Until it has looked, clients are not read from when half of it is taken: they
    /// wait, and are not refused.
    pub fn set_room(&mut self, bytes: u64, may_have_more: bool) {
        self.accounts.set_room(bytes, may_have_more);
    }

    /// The batch that should be committed now, if there is one. The one taken before must be durable.
    pub fn take_batch(&mut self, now: Now) -> Option<Batch> {
        if self.gate.wants_commit(now.uptime) {
            self.now = now;
            self.write_changed();
            self.write_reading_if_due();
        }
        let batch = self.gate.take_batch(now.uptime)?;
        self.upkeep.pending_ends.taken();
        Some(batch)
    }

    /// Whether [`Broker::take_batch`] has something.
    pub fn wants_commit(&self, now: Now) -> bool {
        self.gate.wants_commit(now.uptime)
    }

    /// The bodies to be read from the store.
    pub fn take_fetches(&mut self) -> Vec<Fetch> {
        self.messages.take_fetches()
    }

    /// Moves the connections that should be served to the end of `into`.
    pub fn take_touched(&mut self, into: &mut Vec<ConnectionId>) {
        self.connections.take_touched(into);
    }

    /// Moves what may be written to a connection to the end of `out`, filling up from the session's
    /// queue. Call it again when all of that has been written, until it adds nothing.
    pub fn take_output<T: Taken>(&mut self, id: ConnectionId, out: &mut T, now: Now) -> Output {
        self.begin_output(id, out.own_len(), now);
        self.take_released(id, T::SHARES, |outbox| {
            outbox.take(out);
            out.own_len()
        });
        self.end_output(id, !out.is_empty())
    }

    /// Does for a local consumer what [`Broker::take_output`] does for a socket: call it again when
    /// all packets of `out` have been handled, until it adds nothing.
    pub fn take_deliveries(
        &mut self,
        id: ConnectionId,
        out: &mut LocalPackets,
        now: Now,
    ) -> Output {
        self.begin_output(id, out.own_len(), now);
        self.take_released(id, true, |outbox| {
            outbox.take_local(out);
            out.own_len()
        });
        self.end_output(id, !out.is_empty())
    }

    /// Takes a local consumer's acknowledgement of a delivery: the next step of its exchange.
    pub fn acknowledge(&mut self, id: ConnectionId, packet_id: PacketId, step: Step, now: Now) {
        let packet = step.packet(ack(packet_id, ReasonCode::Success));
        self.receive(id, packet, now);
    }

    /// What was taken before is written, but for `left` bytes: fills the outbox up.
    fn begin_output(&mut self, id: ConnectionId, left: usize, now: Now) {
        self.now = now;
        let connection = &mut self.connections[id];
        connection.set_has_more(false);
        let session = connection.session();
        self.count_written(id, left);
        if let Some(session) = session {
            self.pump(id, session);
        }
    }

    fn end_output(&mut self, id: ConnectionId, is_any: bool) -> Output {
        if is_any {
            self.sent(id);
        }
        self.check_connection(id);
        self.output(id)
    }

    /// Tells all clients that the server shuts down, and lets no new ones in. When their connections are lost, [`Broker::flush`] and
    /// [`Broker::is_settled`] say when the store can be closed.
    pub fn shut_down(&mut self, now: Now) {
        self.now = now;
        self.connections.close();
        self.begin_walk(Walk::ShutDown);
    }

    /// Whether [`Broker::shut_down`] was called.
    pub fn is_shutting_down(&self) -> bool {
        self.connections.is_closed()
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What packets and their deliveries have cost so far, about, in deliveries at QoS 0: a measure of how long the lock is held.
    pub fn work(&self) -> u64 {
        self.pace.spent()
    }

    /// Whether a connection is to be closed as soon as what waits for it has been written.
    pub fn is_closing(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id);
        connection.is_some_and(|connection| connection.state() == State::Closing)
    }

    /// Whether [`Broker::take_output`] did not do all there was to do: who has called it is to come again, when others have had their turn.
    pub fn has_more(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id);
        connection.is_some_and(Connection::has_more)
    }

    /// The limits it keeps.
    pub fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// Connections at present.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    pub(in crate::broker) fn client_name(&self, id: ConnectionId) -> &str {
        let session = self.connections[id].session();
        session.map_or("", |session| &self.sessions[session].client_id)
    }

    /// What [`Broker::take_output`] says beside the bytes, while none can be taken: [`Output::close`] means that what there is still to take does not
    /// matter.
    pub fn output(&mut self, id: ConnectionId) -> Output {
        Output {
            close: self.is_closing(id),
            pause: self.should_pause(id),
            waits: self.is_waiting(id),
            yields: self.is_yielding(id),
            ask_progress: self.asks_progress(id),
        }
    }
}
