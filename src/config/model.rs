//! The typed values that a configuration is.

use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::Targets;

use super::acl::AclSettings;
use super::value::Bind;
use crate::broker::record::DurabilityRules;
use crate::limits::Limits;
use crate::net::auth::ThrottleSettings;
use crate::net::bridge::BridgeSettings;
use crate::net::listener::ListenerSettings;
use crate::net::socket::SocketFile;
use crate::store::StoreOptions;

/// MQTT's own port.
pub const DEFAULT_PORT: u16 = 1883;

/// A broker's configuration. `Default` is what a broker has that was given none.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The directory of the data, as written: relative to where the broker was started. Created if
    /// it is not there.
    pub data_dir: PathBuf,
    /// Limits of the broker.
    pub limits: Limits,
    /// Where to listen; never empty.
    pub listeners: Vec<Listener>,
    /// What clients may do.
    pub acl: AclSettings,
    /// Clients may have sessions that other users have had.
    pub allow_other_users: bool,
    /// Deliveries go out at the QoS that was granted, also those of messages that were published at
    /// a lower one.
    pub upgrade_outgoing_qos: bool,
    /// How many logins may fail from an address; how clients log in is in the settings of each
    /// listener.
    pub throttle: ThrottleSettings,
    /// How far acknowledgements wait.
    pub durability: DurabilityRules,
    /// The database file in `data_dir`, and its limits.
    pub store: StoreOptions,
    /// How long a batch of writes gathers before it is committed; zero commits as soon as the disk
    /// is free.
    pub commit_delay: Duration,
    /// Threads that serve connections; `None` is one a core.
    pub worker_threads: Option<usize>,
    /// How often the broker publishes its figures under `$SYS`; `None` is never.
    pub sys_interval: Option<Duration>,
    /// Where figures and health are served over HTTP; empty is nowhere.
    pub metrics: Vec<Bind>,
    /// What is logged, by module.
    pub log: Targets,
    /// Bridges to upstream brokers.
    pub bridges: Vec<BridgeSettings>,
}

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its addresses; empty only if there is a socket.
    pub bind: Vec<Bind>,
    /// The network interface connections through its addresses must come in by; `None` for all.
    pub interface: Option<String>,
    /// Its Unix socket.
    pub socket: Option<SocketFile>,
    /// How it takes connections in.
    pub settings: ListenerSettings,
    /// A bind that fails is logged and left out, instead of ending the start: IPv6 loopback, on a
    /// machine without IPv6.
    pub optional: bool,
}

/// What `tidegate run` was told on its command line; it overrides the environment and the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Addresses to listen on, instead of all configured listeners.
    pub bind: Vec<String>,
    /// The directory of the data.
    pub data_dir: Option<PathBuf>,
    /// What is logged.
    pub log: Option<String>,
}
