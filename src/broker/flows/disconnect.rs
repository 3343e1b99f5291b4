//! Connections that the broker ends.

use crate::broker::Broker;
use crate::broker::model::ids::ConnectionId;
use crate::broker::state::gate::Stamp;
use crate::wire::packet::Disconnect;
use crate::wire::{Packet, PropertiesBuf, Property, ProtocolVersion, ReasonCode};

impl Broker {
    /// Ends a connection from this side: says why to a client that can be told, and closes once
    /// that has been written. What still waits for the disk is not sent.
    pub(in crate::broker) fn disconnect(
        &mut self,
        id: ConnectionId,
        reason: ReasonCode,
        what: Option<&str>,
    ) {
        match what {
            Some(what) => self.say_end(id, what),
            None => self.say_end(id, reason),
        }
        self.detach(id);
        self.connections[id].close();
        self.drop_gated(id);
        let connection = &self.connections[id];
        // A CONNACK that still waits for the disk is not sent, and nothing goes before it
        // [MQTT-3.14.0-1].
        if connection.version() == ProtocolVersion::V5 && connection.outbox().has_begun() {
            let mut properties = PropertiesBuf::new();
            if let Some(what) = what {
                properties.push(Property::ReasonString(what));
            }
            let packet = Packet::Disconnect(Disconnect {
                reason,
                properties: properties.as_properties(),
            });
            self.push(id, Stamp::NONE, &packet);
        }
        self.touch(id);
    }
}
