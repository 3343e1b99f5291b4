//! The settings of a bridge.

use std::sync::Arc;
use std::time::Duration;

use super::address::Address;
use super::dial::Transport;
use super::password::Password;
use crate::broker::bridge::Bridge;
use crate::wire::ProtocolVersion;

/// The settings of a bridge.
#[derive(Clone, Debug, PartialEq)]
pub struct BridgeSettings {
    /// What the bridge does when it is connected.
    pub bridge: Arc<Bridge>,
    /// The addresses of the upstream. Never empty.
    pub addresses: Vec<Address>,
    /// Each attempt starts with the address after the last connected one. Otherwise with the first.
    pub round_robin: bool,
    /// How often addresses that are not connected are probed. 0 for never.
    pub probe_interval: Duration,
    /// How long a preferred address must have answered all probes before failback.
    pub hold_down: Duration,
    /// When it connects.
    pub start: StartType,
    /// The layers below MQTT.
    pub transport: Transport,
    /// The protocol version. `None` for MQTT 5, with MQTT 3.1.1 if the upstream does not know it.
    pub version: Option<ProtocolVersion>,
    /// The user name.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Password>,
    /// The time limit for connecting with TLS and WebSocket, and again for CONNACK.
    pub connect_timeout: Duration,
    /// The shortest wait between attempts.
    pub restart_timeout_base: Duration,
    /// The longest wait between attempts.
    pub restart_timeout_cap: Duration,
    /// The largest packet from the upstream, in bytes.
    pub max_packet_size: u32,
}

/// When a bridge connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartType {
    /// Always, and again when the connection has ended.
    #[default]
    Automatic,
    /// When `threshold` messages wait for the upstream, until there was nothing to do for
    /// `idle_timeout`.
    Lazy {
        /// Messages that wait.
        threshold: u64,
        /// Time without messages in either direction.
        idle_timeout: Duration,
    },
    /// Once, when the bridge is started.
    Once,
}
