//! `--remove-retained`: publishes an empty retained message to each topic, at most as many at once
//! as the server allows.

use std::collections::{HashMap, VecDeque};

use crate::cli::client::{Client, reason_string};
use crate::cli::exit::Failure;
use crate::wire::packet::{Ack, Publish};
use crate::wire::{Packet, PacketId, QoS};

/// The removal of retained messages.
#[derive(Debug, Default)]
pub struct RetainedRemoval {
    waiting: VecDeque<String>,
    /// Topics by packet identifier, for messages that wait for their PUBACK.
    in_flight: HashMap<PacketId, String>,
    last_id: Option<PacketId>,
    /// The first refusal.
    refused: Option<Failure>,
}

impl RetainedRemoval {
    /// Queues the removal of the retained message of a topic.
    pub fn add(&mut self, topic: &str) {
        self.waiting.push_back(topic.to_owned());
    }

    /// Sends as many as the server allows at once.
    pub fn send(&mut self, client: &mut Client) {
        let capabilities = client.capabilities();
        while self.in_flight.len() < usize::from(capabilities.receive_maximum.min(100)) {
            let Some(topic) = self.waiting.pop_front() else {
                return;
            };
            let is_acknowledged = capabilities.maximum_qos > 0;
            let packet_id = is_acknowledged.then(|| self.free_id());
            client.send(&Packet::Publish(Publish {
                dup: false,
                qos: match is_acknowledged {
                    true => QoS::AtLeastOnce,
                    false => QoS::AtMostOnce,
                },
                retain: true,
                topic: &topic,
                packet_id,
                properties: Default::default(),
                payload: b"",
            }));
            if let Some(id) = packet_id {
                self.in_flight.insert(id, topic);
            }
        }
    }

    /// Returns a free identifier. There is one, because the window is smaller than the number of
    /// identifiers.
    fn free_id(&mut self) -> PacketId {
        let mut id = self.last_id.map_or(PacketId::FIRST, PacketId::next);
        while self.in_flight.contains_key(&id) {
            id = id.next();
        }
        self.last_id = Some(id);
        id
    }

    /// Handles a PUBACK. Returns whether it belongs to a removal.
    pub fn acknowledge(&mut self, ack: &Ack<'_>) -> bool {
        let Some(topic) = self.in_flight.remove(&ack.packet_id) else {
            return false;
        };
        if ack.reason.is_error() {
            let what = format!("what is retained under {topic} was not removed");
            let explained = reason_string(ack.properties.iter());
            let failure = Failure::refused(&what, ack.reason, explained);
            self.refused.get_or_insert(failure);
        }
        true
    }

    /// Returns whether all removals are acknowledged.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Fails with the first refusal, if any.
    ///
    /// # Errors
    /// The reason of the server.
    pub fn outcome(&mut self) -> Result<(), Failure> {
        self.refused.take().map_or(Ok(()), Err)
    }
}
