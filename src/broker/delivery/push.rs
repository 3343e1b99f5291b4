//! Packets and writes on their way out: into the open batch, and into the outboxes of connections.

use crate::broker::Broker;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::local::LocalPacket;
use crate::broker::model::record::Write;
use crate::broker::state::gate::{Arrow, Stamp};
use crate::wire::{Packet, codec};

/// Memory for a small packet and those behind it, in bytes: so a few acknowledgements do not ask for
/// memory each time.
const FIRST_BYTES: usize = 256;

impl Broker {
    pub(in crate::broker) fn write(&mut self, write: Write) {
        self.gate.write(write, self.now.uptime);
    }

    /// What a packet that is an arrow of the gate waits for: its stamp, unless a test has opened the arrow.
    #[inline]
    pub(in crate::broker) fn gated(&self, arrow: Arrow, stamp: Stamp) -> Stamp {
        #[cfg(test)]
        if self.gate.open_arrow == Some(arrow) {
            return Stamp::NONE;
        }
        let _ = arrow;
        stamp
    }

    /// Lets packets of a kind leave before what they promise is on disk: the simulator shows that it finds out.
    #[cfg(test)]
    pub(crate) fn open_arrow(&mut self, arrow: Arrow) {
        self.gate.open_arrow = Some(arrow);
    }

    /// Appends a packet to a connection's outbox.
    pub(in crate::broker) fn push(&mut self, id: ConnectionId, stamp: Stamp, packet: &Packet<'_>) {
        let connection = &mut self.connections[id];
        let options = connection.options();
        let (version, largest) = (options.version, options.maximum_packet_size);
        let outbox = connection.outbox_mut();
        if outbox.is_local() {
            if let Some(packet) = LocalPacket::of(packet) {
                outbox.push_local(stamp, &self.gate, packet);
            }
        } else {
            // A packet the client cannot take, even without what explains it, is not sent
            // [MQTT-3.1.2-24].
            outbox.push(stamp, &self.gate, |out| {
                if out.capacity() == 0 {
                    out.reserve(FIRST_BYTES);
                }
                _ = codec::encode_within(packet, version, largest, out)
            });
        }
        self.pushed(id);
    }

    /// Appends a packet that ends an incoming message's exchange: until it leaves, it counts against the receive maximum.
    pub(in crate::broker) fn push_final_ack(
        &mut self,
        id: ConnectionId,
        stamp: Stamp,
        packet: &Packet<'_>,
    ) {
        self.push(id, stamp, packet);
        self.connections[id].outbox_mut().count_ack();
    }

    pub(in crate::broker) fn pushed(&mut self, id: ConnectionId) {
        self.count_outgoing(id);
        if let Some(stamp) = self.connections[id].outbox_mut().begin_holding() {
            self.upkeep.waiting.hold(id, stamp);
        }
        self.touch(id);
    }

    pub(in crate::broker) fn touch(&mut self, id: ConnectionId) {
        self.connections.touch(id);
    }

    /// There is more for a connection than was done at once: its own task has to come back as well.
    pub(in crate::broker) fn serve_again(&mut self, id: ConnectionId) {
        self.connections[id].set_has_more(true);
        self.touch(id);
    }

    pub(in crate::broker) fn touch_session(&mut self, session: SessionIndex) {
        if let Some(id) = self
            .sessions
            .get(session)
            .and_then(|session| session.connection)
        {
            self.touch(id);
        }
    }
}
