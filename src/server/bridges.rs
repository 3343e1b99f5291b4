//! The bridges of a running broker, and how a reload changes them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::broker::Broker;
use crate::clock::Now;
use crate::net::bridge::{BridgeSettings, BridgeTask};
use crate::net::control::{Outcome, Response};
use crate::net::lock_stats::Purpose;
use crate::net::shared_broker::SharedBroker;

/// The running bridges.
#[derive(Debug, Default)]
pub(super) struct Bridges(Vec<BridgeTask>);

/// A change of the bridges. Those that are removed or changed are stopped already. Those that are
/// added or changed are not started yet.
#[derive(Debug, Default)]
pub(super) struct BridgeChange {
    /// All configured bridges.
    names: Vec<Box<str>>,
    start: Vec<Start>,
    /// Bridges that are not configured any more.
    removed: Vec<Box<str>>,
}

#[derive(Debug)]
struct Start {
    settings: BridgeSettings,
    what: &'static str,
}

impl Bridges {
    /// Stops bridges that are removed or changed. Their messages wait on disk meanwhile.
    pub async fn stop(&mut self, wanted: &[BridgeSettings]) -> BridgeChange {
        let name = |settings: &BridgeSettings| settings.bridge.name.clone();
        let mut change = BridgeChange {
            names: wanted.iter().map(name).collect(),
            ..BridgeChange::default()
        };
        let mut stopped = Vec::new();
        for running in std::mem::take(&mut self.0) {
            if wanted.contains(running.settings()) {
                self.0.push(running);
                continue;
            }
            let name = name(running.settings());
            running.stop().await;
            if change.names.contains(&name) {
                stopped.push(name);
            } else {
                change.removed.push(name);
            }
        }
        for settings in wanted {
            if self.0.iter().any(|running| running.settings() == settings) {
                continue;
            }
            let what = if stopped.contains(&settings.bridge.name) {
                "changed; connects again"
            } else {
                "started"
            };
            change.start.push(Start {
                settings: settings.clone(),
                what,
            });
        }
        change
    }

    /// Starts the bridges that [`BridgeChange::open`] has opened.
    pub fn start(&mut self, change: BridgeChange, broker: &Arc<SharedBroker>) {
        for Start { settings, .. } in change.start {
            self.0.push(BridgeTask::start(Arc::clone(broker), settings));
        }
    }
}

impl BridgeChange {
    /// Opens the bridges at a start. Logs those that an earlier configuration has left.
    pub fn at_start(wanted: &[BridgeSettings], broker: &mut Broker, now: Now) -> BridgeChange {
        let start = wanted.iter().map(|settings| Start {
            settings: settings.clone(),
            what: "started",
        });
        let change = BridgeChange {
            names: wanted.iter().map(|it| it.bridge.name.clone()).collect(),
            start: start.collect(),
            removed: Vec::new(),
        };
        for (name, waiting) in change.open_sessions(broker, now) {
            tracing::warn!(
                bridge = name,
                waiting,
                "this bridge is not configured any more; the messages that wait for it are kept until `tidegate drop-bridge`"
            );
        }
        change
    }

    /// Opens a session for each bridge that will be started, and closes those of removed bridges.
    /// Returns a line per change.
    pub fn open(&self, broker: &mut Broker, now: Now) -> Vec<String> {
        let left = self.open_sessions(broker, now);
        let removed = left
            .iter()
            .filter(|(name, _)| self.removed.iter().any(|removed| **removed == **name));
        let mut changes: Vec<String> = removed
            .map(|(name, waiting)| {
                format!("bridge {name}: stopped; {waiting} messages wait for it and are kept until `tidegate drop-bridge {name}`")
            })
            .collect();
        let started = self.start.iter();
        changes
            .extend(started.map(|it| format!("bridge {}: {}", it.settings.bridge.name, it.what)));
        changes
    }

    /// Opens and closes the sessions. Returns the bridges that are not configured any more, with
    /// the number of their waiting messages.
    fn open_sessions(&self, broker: &mut Broker, now: Now) -> Vec<(String, u64)> {
        let names: Vec<&str> = self.names.iter().map(|name| &**name).collect();
        let left = broker.close_bridges_except(&names, now);
        for Start { settings, .. } in &self.start {
            broker.open_bridge(&settings.bridge, now);
        }
        left
    }
}

/// Drops the session of a bridge that is not configured any more. Answers when that is on disk.
pub(super) fn drop_queue(broker: &Arc<SharedBroker>, name: &str, reply: oneshot::Sender<Response>) {
    let dropped = {
        let mut guard = broker.lock(Purpose::Other, None);
        let now = guard.now();
        guard.broker().drop_bridge(name, now)
    };
    let dropped = match dropped {
        Ok(dropped) => dropped,
        Err(error) => {
            // The client may be gone.
            let _ = reply.send(Response {
                outcome: Outcome::Failed,
                text: format!("{error}\n"),
            });
            return;
        }
    };
    let text = format!(
        "the queue of bridge {name} and its {} messages were dropped",
        dropped.messages
    );
    let broker = Arc::clone(broker);
    tokio::spawn(async move {
        while !broker
            .lock(Purpose::Other, None)
            .broker()
            .is_dropped(&dropped)
        {
            sleep(Duration::from_millis(2)).await;
        }
        tracing::warn!("{text}");
        let _ = reply.send(Response {
            outcome: Outcome::Done,
            text: text + "\n",
        });
    });
}
