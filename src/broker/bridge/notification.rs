//! Notifications: a retained message that tells whether a bridge is connected, as Mosquitto's
//! bridges send it.

use crate::broker::bridge::relay::Relay;
use crate::broker::bridge::settings::Bridge;
use crate::wire::packet::{Publish, Will};
use crate::wire::{Properties, QoS, codec};

/// What a notification says.
const UP: &[u8] = b"1";

const DOWN: &[u8] = b"0";

impl Bridge {
    /// The topic of notifications at the upstream.
    fn told_upstream(&self) -> Option<&str> {
        let notifications = self.notifications.as_ref();
        notifications.and_then(|it| (!it.local_only).then_some(&*it.topic))
    }

    /// The will that tells the upstream that the bridge is gone.
    pub(in crate::broker) fn will(&self) -> Option<Will<'_>> {
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
    /// Appends what tells the upstream that the bridge is connected, or is about to leave, if it
    /// wants to be told.
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
