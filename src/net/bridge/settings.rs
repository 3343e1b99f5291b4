//! A bridge as it is configured: where it calls, when, and what it says of itself.

use std::sync::Arc;
use std::time::Duration;

use super::address::Address;
use super::dial::Transport;
use super::password::Password;
use crate::broker::bridge::Bridge;
use crate::wire::ProtocolVersion;

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
