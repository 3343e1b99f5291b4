//! `$SYS` topics: retained, in memory only. Their names are Mosquitto's where it has them.

use crate::broker::Broker;
use crate::broker::model::gauges::Gauges;
use crate::broker::model::message::Parts;
use crate::wire::{Properties, QoS};

impl Broker {
    /// What is measured now.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            connected: self.sessions.connected(),
            sessions: self.session_count() as u64,
            subscriptions: self.accounts.subscriptions(),
            retained: self.retained.len() as u64,
            retained_bytes: self.retained.bytes(),
            queued: self.accounts.queued().messages,
            queued_bytes: self.accounts.queued().bytes,
            pending_write_bytes: self.gate.pending_bytes() as u64,
        }
    }

    /// Sessions, connected or not.
    pub(in crate::broker) fn session_count(&self) -> usize {
        self.sessions.len() - self.upkeep.removals.placeholders()
    }

    /// Publishes what has changed.
    pub(in crate::broker) fn publish_sys(&mut self) {
        let gauges = self.gauges();
        let uptime = (self.now.uptime - self.observed.sys.started) / 1000;
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

    pub(in crate::broker) fn publish_sys_topic(&mut self, topic: &str, payload: &str) {
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
