//! Notifications: a retained message that tells whether a bridge is connected, at the upstream and here, as Mosquitto's bridges send.

use super::Bridge;
use super::relay::Relay;
use crate::wire::codec;
use crate::wire::packet::{Publish, Will};
use crate::wire::{Properties, QoS};

/// What a notification says.
const UP: &[u8] = b"1";
const DOWN: &[u8] = b"0";

/// Where it is told whether a bridge is connected: "1" or "0", retained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notifications {
    /// The topic, at this broker and at the upstream.
    pub topic: Box<str>,
    /// At this broker only.
    pub local_only: bool,
}

/// Whether a topic is that of the state of the bridge with this client identifier: the one topic under `$SYS/` that a client may publish to.
pub(in crate::broker) fn is_state_topic_of(client_id: &str, topic: &str) -> bool {
    let id = topic.strip_prefix("$SYS/broker/connection/");
    id.and_then(|rest| rest.strip_suffix("/state")) == Some(client_id)
}

impl Bridge {
    /// The topic of notifications at the upstream.
    fn told_upstream(&self) -> Option<&str> {
        let notifications = self.notifications.as_ref();
        notifications.and_then(|it| (!it.local_only).then_some(&*it.topic))
    }

    /// The will that tells the upstream that the bridge is gone.
    pub(super) fn will(&self) -> Option<Will<'_>> {
        self.told_upstream().map(|topic| Will {
            topic,
            payload: DOWN,
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Properties::EMPTY,
        })
    }
}

impl Relay {
    /// Appends what tells the upstream that the bridge is connected, or is about to leave, if it wants to be told.
    pub fn notify(&self, is_up: bool, out: &mut Vec<u8>) {
        if let Some(topic) = self.bridge().told_upstream() {
            let publish = Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: true,
                topic,
                packet_id: None,
                properties: Properties::EMPTY,
                payload: if is_up { UP } else { DOWN },
            };
            codec::encode_publish(&publish, self.version(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_one_topic_for_its_state() {
        assert!(is_state_topic_of(
            "edge1",
            "$SYS/broker/connection/edge1/state"
        ));
        assert!(is_state_topic_of("a/b", "$SYS/broker/connection/a/b/state"));
        for topic in [
            "$SYS/broker/connection/edge2/state",
            "$SYS/broker/connection/edge1/states",
            "$SYS/broker/connection//state",
            "$SYS/broker/uptime",
            "edge1",
        ] {
            assert!(!is_state_topic_of("edge1", topic), "{topic}");
        }
    }
}
