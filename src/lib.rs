//! Tidegate: an MQTT broker for the edge whose acknowledgements mean "on disk".
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod limits;
pub mod net;
pub mod server;
pub mod store;
pub mod wire;

#[cfg(test)]
#[path = "../tests/sim/mod.rs"]
mod sim;
