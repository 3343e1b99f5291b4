//! The bridges of a running broker: which are started, stopped and left alone.

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

/// The bridges that run.
#[derive(Debug, Default)]
pub(super) struct Bridges(Vec<BridgeTask>);

/// Bridges as they should be. Those that go or change have been stopped, and those that come or change have not been started.
#[derive(Debug, Default)]
pub(super) struct BridgeChange {
    /// All that are configured.
    names: Vec<Box<str>>,
    start: Vec<Start>,
    /// Those that are configured no more.
    removed: Vec<Box<str>>,
}

#[derive(Debug)]
struct Start {
    settings: BridgeSettings,
    what: &'static str,
}

impl Bridges {
    /// Stops what is configured no more or otherwise. Messages wait on disk as long as a bridge is stopped.
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

    /// Starts what [`BridgeChange::open`] has opened.
    pub fn start(&mut self, change: BridgeChange, broker: &Arc<SharedBroker>) {
        for Start { settings, .. } in change.start {
            self.0.push(BridgeTask::start(Arc::clone(broker), settings));
        }
    }
}

impl BridgeChange {
    /// The bridges of a broker that starts; what was left by others is named in the log.
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

    /// Makes messages wait for each bridge that will be started, and for none that is gone. What has changed, in a line each.
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

    /// The sessions that were left by bridges which are configured no more, with the messages that wait.
    fn open_sessions(&self, broker: &mut Broker, now: Now) -> Vec<(String, u64)> {
        let names: Vec<&str> = self.names.iter().map(|name| &**name).collect();
        let left = broker.close_bridges_except(&names, now);
        for Start { settings, .. } in &self.start {
            broker.open_bridge(&settings.bridge, now);
        }
        left
    }
}

/// Drops what a bridge has left that is configured no more, and answers when that is on disk.
pub(super) fn drop_queue(broker: &Arc<SharedBroker>, name: &str, reply: oneshot::Sender<Response>) {
    let dropped = {
        let mut guard = broker.lock(Purpose::Other, None);
        let now = guard.now();
        guard.broker().drop_bridge(name, now)
    };
    let dropped = match dropped {
        Ok(dropped) => dropped,
        Err(error) => {
            // Whoever asked may be gone.
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
