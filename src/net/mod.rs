//! What touches the world: sockets, and the driver that feeds the broker from them.
//!
//! - [`core`]: the broker behind one lock, entered in place by whoever has something for it.
//! - [`connection`]: one task a connection: read once, decode all, handle all under one lock, write once.
//! - [`bridge`]: tasks that dial out to upstream brokers.
//! - [`listener`]: takes connections in: who may come, and what comes before MQTT.
//! - [`socket`], [`proxy`], [`tls`], [`websocket`]: what lies under MQTT, from the bottom.
//! - [`admin`]: figures and health over HTTP.
//!
//! This floor makes no protocol decisions.

pub mod admin;
pub mod bridge;
pub mod connection;
pub mod core;
pub mod listener;
pub mod proxy;
pub mod socket;
pub mod tls;
pub mod websocket;
