//! What the test suites share: a harness that runs the built broker, and a client that is not made of the broker's own code.
//!
//! - [`Broker`]: starts, stops, kills and restarts the binary on one data directory; or another broker, see `peers`.
//! - [`Client`]: a blocking client over a plain socket; raw bytes below, packets above.
//! - [`packet`]: what a server may send, read strictly and compared with mqttbytes' reading of the same bytes.
//! - [`raw`]: bytes by hand, for everything that is illegal and for what mqttbytes cannot say.
//! - [`tidegate`], [`is_there`], [`wait_until`]: the built program, other people's programs, and waiting for them.
//! - [`Random`]: seeded chance for load tests.
//!
//! It is a crate of its own, so that each suite may use the part of it that it needs.
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
pub use program::{is_there, number, tidegate, wait_until};
pub use random::Random;
pub use request::{Message, Subscription, Will};

use std::time::Duration;

/// How long a test waits for something that must come. Long, because it is only ever waited out by a failure.
pub const PATIENCE: Duration = Duration::from_secs(15);
