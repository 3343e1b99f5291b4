//! Connections that are ended for what their peer did, and what it is told (MQTT 5 section 4.13).

use crate::broker::Broker;
use crate::broker::model::ids::ConnectionId;
use crate::broker::state::connection::State;
use crate::clock::Now;
use crate::wire::{Fault, ProtocolVersion, ReasonCode};

impl Broker {
    /// Ends a connection whose peer broke the protocol, telling it why where its version can
    /// \[MQTT-4.13.1-1\]. `version` is what the peer speaks, if that is known.
    pub fn fault(
        &mut self,
        id: ConnectionId,
        fault: Fault,
        version: Option<ProtocolVersion>,
        now: Now,
    ) {
        self.now = now;
        let connection = &self.connections[id];
        match connection.state() {
            State::Closing => return,
            State::New => {
                tracing::info!(peer = %connection.arrival().peer, %fault, "connection refused");
                self.refuse_connect(id, fault, version);
            }
            State::Open => {
                self.say_end(id, fault);
                self.disconnect(id, fault.reason, Some(fault.what));
            }
        }
        self.counters.protocol_faults += 1;
    }

    /// Ends a connection whose unfinished packet takes memory that others need
    /// (`max_incoming_bytes`).
    pub fn shed(&mut self, id: ConnectionId, now: Now) {
        self.now = now;
        let connection = &self.connections[id];
        let peer = &connection.arrival().peer;
        let what = "max_incoming_bytes is reached, and this packet has been unfinished longest";
        match connection.state() {
            State::Closing => return,
            State::New => {
                tracing::info!(%peer, what, "connection refused");
                self.refuse_connect(id, Fault::new(ReasonCode::QuotaExceeded, what), None);
            }
            State::Open => {
                self.disconnect(id, ReasonCode::QuotaExceeded, Some(what));
            }
        }
        self.counters.connections_shed += 1;
    }
}
