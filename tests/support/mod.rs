//! Shared by the test suites: runs the built broker, and has a client that does not use the code of
//! the broker.
//!
//! - [`Broker`]: starts, stops, kills and restarts the binary on one data directory, or another
//!   broker, see `peers`.
//! - [`Client`]: a blocking client over a plain socket, which sends raw bytes and receives packets.
//! - [`packet`]: the packets of a server, decoded strictly and compared with what mqttbytes
//!   decodes.
//! - [`raw`]: packets as bytes, for illegal ones and for those that mqttbytes cannot encode.
//! - [`tidegate`], [`is_installed`], [`wait_until`]: run the built program and other programs, and
//!   wait.
//! - [`Random`]: a seeded generator for load tests.
//!
//! It is a crate, so that each suite may use only a part of it.
#![forbid(unsafe_code)]

mod agree;
mod broker;
mod client;
mod encode;
pub mod packet;
mod peers;
mod program;
mod random;
pub mod raw;
mod request;

pub use broker::Broker;
pub use client::{Client, Connect};
pub use packet::{Packet, Properties, Version, property};
pub use program::{is_installed, number, tidegate, wait_until};
pub use random::Random;
pub use request::{Message, Subscription, Will};

use std::time::Duration;

/// How long a test waits for an event. Only a failing test waits so long.
pub const TIMEOUT: Duration = Duration::from_secs(15);
