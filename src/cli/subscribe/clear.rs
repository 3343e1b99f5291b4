//! `--remove-retained`: an empty retained message for each topic, no more at once than the server takes.

use std::collections::{HashMap, VecDeque};

use crate::cli::client::{Client, reason_string};
use crate::cli::exit::Failure;
use crate::wire::packet::{Ack, Publish};
use crate::wire::{Packet, PacketId, QoS};

/// Retained messages that are being removed.
#[derive(Debug, Default)]
pub struct Clearing {
    waiting: VecDeque<String>,
    /// Topics by the packet identifiers of the messages that wait for their PUBACK.
    in_flight: HashMap<PacketId, String>,
    last_id: Option<PacketId>,
    /// The first refusal.
    refused: Option<Failure>,
}

impl Clearing {
    /// Removes what is retained under a topic, once there is room for it on the connection.
    pub fn add(&mut self, topic: &str) {
        self.waiting.push_back(topic.to_owned());
    }

    /// Sends as many as the server takes at once.
    pub fn send(&mut self, client: &mut Client) {
        let granted = client.granted();
        while self.in_flight.len() < usize::from(granted.receive_maximum.min(100)) {
            let Some(topic) = self.waiting.pop_front() else {
                return;
            };
            let is_acknowledged = granted.maximum_qos > 0;
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

    /// The window is smaller than the number of identifiers, so there is one.
    fn free_id(&mut self) -> PacketId {
        let mut id = self.last_id.map_or(PacketId::FIRST, PacketId::next);
        while self.in_flight.contains_key(&id) {
            id = id.next();
        }
        self.last_id = Some(id);
        id
    }

    /// Takes a PUBACK; whether it was for one of these.
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

    /// Whether nothing is under way.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// The first refusal, if there was one.
    ///
    /// # Errors
    /// The server's reason.
    pub fn outcome(&mut self) -> Result<(), Failure> {
        self.refused.take().map_or(Ok(()), Err)
    }
}
