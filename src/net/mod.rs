//! Sockets, and the tasks that drive the broker from them.
//!
//! - [`shared_broker`]: the broker behind one lock, for all tasks.
//! - [`lock_stats`]: how long that lock is held and waited for, by purpose.
//! - [`listener`]: accepts connections and does what comes before MQTT.
//! - [`connection`]: one task per connection: reads, decodes, handles, writes.
//! - [`partial_packets`]: the memory of packets that have begun and not ended.
//! - [`bridge`]: connections to upstream brokers.
//! - [`socket`], [`proxy_protocol`], [`tls`], [`websocket`]: the transports below MQTT.
//! - [`sniff`]: detects a client that uses the wrong port.
//! - [`auth`]: authenticates clients by user name and password.
//! - [`log`]: writes log lines to standard error.
//! - [`log_limit`]: limits log lines per minute.
//! - [`admin`]: metrics and health over HTTP.
//! - [`control`]: commands through a socket in the data directory.
//!
//! This floor makes no protocol decisions.

pub mod admin;
pub mod auth;
pub mod bridge;
pub mod connection;
pub mod control;
pub mod listener;
pub mod lock_stats;
pub mod log;
pub mod log_limit;
pub mod partial_packets;
pub mod proxy_protocol;
pub mod shared_broker;
pub mod sniff;
pub mod socket;
pub mod tls;
pub mod websocket;
