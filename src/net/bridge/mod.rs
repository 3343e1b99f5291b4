//! Bridges: tasks that connect to upstream brokers.
//!
//! They move bytes between an upstream and the [`crate::broker::bridge::Relay`], which handles
//! them.

mod address;
mod addresses;
mod backoff;
mod client;
mod dial;
mod exchange;
mod input;
mod link;
mod password;
mod proxy;
mod settings;

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::shared_broker::SharedBroker;

pub use address::Address;
pub use dial::Transport;
pub use password::Password;
pub use proxy::{Proxy, ProxyKind};
pub use settings::{BridgeSettings, StartType};

use addresses::Addresses;
use client::BridgeClient;

/// The task of a bridge.
#[derive(Debug)]
pub struct BridgeTask {
    settings: BridgeSettings,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl BridgeTask {
    /// Starts a task that keeps a bridge connected until it is stopped or the broker shuts down.
    /// Call [`crate::broker::Broker::open_bridge`] before.
    pub fn start(broker: Arc<SharedBroker>, settings: BridgeSettings) -> BridgeTask {
        let stop = Arc::new(Notify::new());
        let addresses = Addresses::new(Arc::clone(&broker), settings.clone());
        let mut client = BridgeClient::new(broker, settings.clone());
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            tokio::select! {
                () = client.stay_connected(&addresses) => {}
                () = addresses.probe() => {}
                () = stopped.notified() => {}
            }
        });
        BridgeTask {
            settings,
            stop,
            task,
        }
    }

    /// Returns the settings.
    pub fn settings(&self) -> &BridgeSettings {
        &self.settings
    }

    /// Cuts the connection, and waits until it is gone at this broker, too.
    pub async fn stop(self) {
        self.stop.notify_one();
        // A task that panicked is gone, too.
        let _ = self.task.await;
    }
}
