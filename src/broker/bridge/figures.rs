//! What a bridge tells of itself: under `$SYS`, and as figures.

use crate::broker::Broker;
use crate::broker::bridge::settings::Bridge;
use crate::broker::bridge::tell::address_topic;
use crate::broker::model::topics::CLIENT_PREFIX;
use crate::broker::state::backlog::Backlog;
use crate::broker::state::bridge::{BridgeFigures, State, at};
use crate::clock::Now;

/// What is published of each bridge's figures, in this order.
const FIGURES: [&str; 10] = [
    "queued",
    "queued_bytes",
    "oldest_seconds",
    "connects",
    "dropped",
    "refused",
    "superseded",
    "expired",
    "loops_dropped",
    "set_aside",
];

impl Broker {
    /// Notes that a bridge is connected, or why it is not, and publishes that at once.
    pub fn set_bridge_state(&mut self, bridge: &Bridge, error: Option<&str>, now: Now) {
        self.now = now;
        let state = self.bridges.states.entry(bridge.name.clone()).or_default();
        state.connected = error.is_none();
        state.connects += u64::from(error.is_none());
        // What is over is not the present state.
        state.last_error = error.map_or_else(String::new, |error| at(now, error));
        let state = state.clone();
        self.publish_bridge_state(&bridge.name, &state);
    }

    /// Notes that a bridge is not connected and need not be, and publishes that at once.
    pub fn set_bridge_idle(&mut self, bridge: &Bridge, now: Now) {
        self.now = now;
        let state = self.bridges.states.entry(bridge.name.clone()).or_default();
        state.connected = false;
        state.last_error = String::new();
        let state = state.clone();
        self.publish_bridge_state(&bridge.name, &state);
    }

    /// Notes what is wrong with a bridge that stays connected all the same, and publishes that at
    /// once.
    pub(in crate::broker) fn set_bridge_error(&mut self, name: &str, error: &str) {
        let error = at(self.now, error);
        let state = self.bridges.states.entry(name.into()).or_default();
        state.last_error = error;
        let state = state.clone();
        self.publish_bridge_state(name, &state);
    }

    /// Publishes nothing of this bridge any more.
    pub(in crate::broker) fn withdraw_bridge_state(&mut self, name: &str, state: &State) {
        let own = ["state", "last_error", "address"]
            .into_iter()
            .chain(FIGURES);
        let own = own.map(|key| format!("$SYS/bridge/{name}/{key}"));
        let topics = own.chain([format!("$SYS/broker/connection/{name}/state")]);
        let addresses = (0..state.addresses.len()).map(|place| address_topic(name, place));
        let told = state.notification_topic.iter().map(ToString::to_string);
        for topic in topics.chain(addresses).chain(told).collect::<Vec<_>>() {
            self.publish_or_withdraw(&topic, "");
        }
    }

    pub(in crate::broker) fn publish_bridge_state(&mut self, name: &str, state: &State) {
        let (word, digit) = if state.connected {
            ("connected", "1")
        } else {
            ("disconnected", "0")
        };
        self.publish_sys_topic(&format!("$SYS/bridge/{name}/state"), word);
        self.publish_sys_topic(&format!("$SYS/broker/connection/{name}/state"), digit);
        if let Some(topic) = &state.notification_topic {
            self.publish_sys_topic(topic, digit);
        }
        let topic = format!("$SYS/bridge/{name}/last_error");
        self.publish_or_withdraw(&topic, &state.last_error);
    }

    /// How the bridges are doing. Looks at every message under way.
    pub fn bridge_figures(&self) -> Vec<BridgeFigures> {
        let figures = self.bridges.states.iter().map(|(name, state)| {
            let client_id = format!("{CLIENT_PREFIX}{name}");
            let session = self.sessions.find(&client_id);
            let backlog = session.and_then(|index| self.sessions[index].backlog.as_ref());
            let counted = |count: fn(&Backlog) -> u64| backlog.map_or(0, |it| count(it));
            let (queued, queued_bytes, oldest) = match session {
                None => (0, 0, None),
                Some(index) => {
                    let session = &self.sessions[index];
                    let queued = self.waiting(index);
                    let waiting = session.queue.front().map(|item| item.seq);
                    let oldest = session.inflight.oldest().into_iter().chain(waiting).min();
                    (queued, session.queue.bytes(), oldest)
                }
            };
            let since = |seq| {
                self.now
                    .uptime
                    .saturating_sub(self.bridges.accept_times.before(seq))
            };
            BridgeFigures {
                name: name.clone(),
                connected: state.connected,
                connects: state.connects,
                queued,
                queued_bytes,
                addresses: state.addresses.clone(),
                oldest_seconds: oldest.map_or(0, |seq| since(seq) / 1000),
                dropped: counted(|it| it.dropped),
                refused: counted(|it| it.refused),
                superseded: counted(|it| it.superseded),
                expired: counted(|it| it.expired),
                loops_dropped: counted(|it| it.loops),
                set_aside: counted(|it| it.set_aside),
            }
        });
        figures.collect()
    }

    /// Publishes what has changed of all bridges.
    pub(in crate::broker) fn publish_bridges(&mut self) {
        if self.bridges.states.is_empty() {
            return;
        }
        for figures in self.bridge_figures() {
            let values = [
                figures.queued,
                figures.queued_bytes,
                figures.oldest_seconds,
                figures.connects,
                figures.dropped,
                figures.refused,
                figures.superseded,
                figures.expired,
                figures.loops_dropped,
                figures.set_aside,
            ];
            for (key, value) in FIGURES.into_iter().zip(values) {
                let topic = format!("$SYS/bridge/{}/{key}", figures.name);
                self.publish_sys_topic(&topic, &value.to_string());
            }
        }
        self.bridges
            .accept_times
            .note(self.messages.next_seq(), self.now.uptime);
    }
}
