//! Sockets, and the tasks that drive the broker from them.
//!
//! - [`shared_broker`]: the broker behind one lock, for all tasks.
//! - [`lock_stats`]: how long that lock is held and waited for, by purpose.
//! - [`connection`]: one task a connection: read once, decode all, handle all under one lock, write once.
//! - [`unfinished`]: the memory of packets that have begun and not ended, of all connections together.
//! - [`bridge`]: tasks that dial out to upstream brokers.
//! - [`listener`]: takes connections in: who may come, and what comes before MQTT.
//! - [`socket`], [`proxy`], [`tls`], [`websocket`]: what lies under MQTT, from the bottom; [`spoken`]: names what does not belong there.
//! - [`auth`]: what the user name and the password of a CONNECT prove.
//! - [`log`]: log lines on their way to standard error; [`seldom`]: how often a line may come.
//! - [`admin`]: figures and health over HTTP; [`control`]: commands through a socket in the data directory.
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
pub mod proxy;
pub mod seldom;
pub mod shared_broker;
pub mod socket;
pub mod spoken;
pub mod tls;
pub mod unfinished;
pub mod websocket;
