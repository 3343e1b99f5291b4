//! Bridges: tasks that dial out, each for ever, and move bytes between an upstream and the [`crate::broker::bridge::Relay`] that knows what they mean.

mod addresses;
mod backoff;
mod call;
mod dial;
mod exchange;
mod input;
mod link;
mod through;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::core::Core;
use crate::broker::bridge::Bridge;
use crate::wire::ProtocolVersion;

pub use dial::{Address, Transport};
pub use through::{Proxy, ProxyKind};

use addresses::Addresses;
use call::Caller;

/// How long the upstream has to take a DISCONNECT.
const FAREWELL: Duration = Duration::from_secs(1);

/// A bridge as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct BridgeSettings {
    /// What it does once it is connected.
    pub bridge: Arc<Bridge>,
    /// Where the upstream is; never empty.
    pub addresses: Vec<Address>,
    /// Each attempt begins with the address after the one that was connected last; if not, with the first.
    pub round_robin: bool,
    /// How often addresses that are not connected are tried; 0 for never.
    pub probe_interval: Duration,
    /// How long an address before the connected one must have answered before the bridge goes back to it.
    pub hold_down: Duration,
    /// When it connects.
    pub start: StartType,
    /// What lies under MQTT.
    pub transport: Transport,
    /// The protocol version; `None` for MQTT 5, and MQTT 3.1.1 if the upstream does not speak it.
    pub version: Option<ProtocolVersion>,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Password>,
    /// For connecting, TLS, WebSocket and CONNACK, each.
    pub connect_timeout: Duration,
    /// The shortest wait between attempts.
    pub restart_timeout_base: Duration,
    /// The longest.
    pub restart_timeout_cap: Duration,
    /// The largest packet that is taken from the upstream, in bytes.
    pub max_packet_size: u32,
}

/// When a bridge connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartType {
    /// Always, and again whenever the connection has ended.
    #[default]
    Automatic,
    /// When so many messages wait for the upstream, until there has been nothing to do for so long.
    Lazy {
        /// Messages.
        threshold: u64,
        /// Without messages either way.
        idle_timeout: Duration,
    },
    /// When it is started, and not again.
    Once,
}

/// A password, which is not shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// This one.
    Is(String),
    /// The first line of this file, which is read at each attempt.
    In(PathBuf),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Password::Is(_) => f.write_str("Is(..)"),
            Password::In(path) => write!(f, "In({path:?})"),
        }
    }
}

impl Password {
    /// The password.
    ///
    /// # Errors
    /// Its file cannot be read; it is named.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Password::Is(password) => Ok(password.clone().into_bytes()),
            Password::In(path) => {
                let named =
                    |error: io::Error| io::Error::new(error.kind(), format!("{path:?}: {error}"));
                let bytes = std::fs::read(path).map_err(named)?;
                let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                Ok(bytes[..end.unwrap_or(bytes.len())].to_vec())
            }
        }
    }
}

/// A bridge's task.
#[derive(Debug)]
pub struct Running {
    settings: BridgeSettings,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Running {
    /// Keeps a bridge connected, in a task of its own, until it is stopped or the broker shuts down. [`crate::broker::Broker::open_bridge`] comes before.
    pub fn start(core: Arc<Core>, settings: BridgeSettings) -> Running {
        let stop = Arc::new(Notify::new());
        let addresses = Addresses::new(Arc::clone(&core), settings.clone());
        let mut caller = Caller::new(core, settings.clone());
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            tokio::select! {
                () = caller.stay_connected(&addresses) => {}
                () = addresses.probe() => {}
                () = stopped.notified() => {}
            }
        });
        Running {
            settings,
            stop,
            task,
        }
    }

    /// What it was started with.
    pub fn settings(&self) -> &BridgeSettings {
        &self.settings
    }

    /// Cuts its connection and waits until it is gone at this broker, too.
    pub async fn stop(self) {
        self.stop.notify_one();
        // A task that has panicked is gone as well.
        let _ = self.task.await;
    }
}
