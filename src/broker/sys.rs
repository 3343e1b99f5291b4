//! `$SYS` topics: what the broker tells of itself, retained, in memory only. Names are Mosquitto's where it has them.

use super::Broker;
use super::message::Parts;
use crate::clock::Now;
use crate::wire::{Properties, QoS};

/// What the `$SYS` topics need to remember.
#[derive(Debug)]
pub(super) struct Sys {
    started: u64,
}

impl Sys {
    pub fn new(now: Now) -> Sys {
        Sys {
            started: now.uptime,
        }
    }
}

/// What is measured at a moment, rather than counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Clients connected.
    pub connected: u64,
    /// Sessions, connected or not.
    pub sessions: u64,
    /// Subscriptions, shared ones included.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Bytes of retained messages.
    pub retained_bytes: u64,
    /// Messages waiting in queues.
    pub queued: u64,
    /// Bytes of messages waiting in queues.
    pub queued_bytes: u64,
    /// Bytes of writes that are not durable yet.
    pub pending_write_bytes: u64,
}

impl Broker {
    /// What is measured now.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            connected: self.connected,
            sessions: self.session_count() as u64,
            subscriptions: self.subscriptions,
            retained: self.retained.len() as u64,
            retained_bytes: self.retained.bytes(),
            queued: self.queued,
            queued_bytes: self.queued_bytes,
            pending_write_bytes: self.gate.pending_bytes() as u64,
        }
    }

    /// Sessions, connected or not.
    pub(super) fn session_count(&self) -> usize {
        self.sessions.len() - self.graveyard.ghosts()
    }

    /// Publishes what has changed.
    pub(super) fn publish_sys(&mut self) {
        let gauges = self.gauges();
        let uptime = (self.now.uptime - self.sys.started) / 1000;
        self.publish_sys_topic(
            "$SYS/broker/version",
            concat!("tidegate ", env!("CARGO_PKG_VERSION")),
        );
        self.publish_sys_topic("$SYS/broker/uptime", &format!("{uptime} seconds"));
        let counters = self.counters.clone();
        let values = [
            ("clients/connected", gauges.connected),
            ("clients/disconnected", gauges.sessions - gauges.connected),
            ("clients/total", gauges.sessions),
            ("clients/expired", counters.sessions_expired),
            ("subscriptions/count", gauges.subscriptions),
            ("retained messages/count", gauges.retained),
            ("store/messages/count", gauges.queued),
            ("store/messages/bytes", gauges.queued_bytes),
            ("messages/received", counters.publishes_received),
            ("messages/sent", counters.publishes_sent),
            ("publish/bytes/received", counters.payload_bytes_received),
            ("publish/bytes/sent", counters.payload_bytes_sent),
        ];
        for (name, value) in values {
            self.publish_sys_topic(&format!("$SYS/broker/{name}"), &value.to_string());
        }
        self.publish_bridges();
        for (name, _, value) in counters.iter() {
            self.publish_sys_topic(&format!("$SYS/broker/counters/{name}"), &value.to_string());
        }
    }

    pub(super) fn publish_sys_topic(&mut self, topic: &str, payload: &str) {
        if self
            .retained
            .get(topic)
            .is_some_and(|old| old.payload() == payload.as_bytes())
        {
            return;
        }
        let payload = payload.as_bytes();
        let parts = Parts {
            topic,
            properties: Properties::EMPTY,
            payload,
            qos: QoS::AtMostOnce,
            retain: true,
            expires: None,
            id: None,
        };
        let unmatched = self.counters.publishes_unmatched;
        self.publish(&parts, None);
        self.counters.publishes_unmatched = unmatched;
    }
}
