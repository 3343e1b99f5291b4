//! Bridges: connections that dial out, each with an ordinary durable session of this broker.
//!
//! To the broker, a bridge is a MQTT 5 client ([`Arrival::bridge`](crate::broker::Arrival::bridge)) with the client identifier `$bridge/NAME`, subscribed to what goes out. To the
//! upstream it is a client, too, subscribed to what comes in. A [`Relay`] hands each packet of one side to the other under the same packet
//! identifier: a delivery of this broker is a publish at the upstream, a delivery of the upstream is a publish here, and the hand-shakes are the same.
//! So what a bridge must remember is what sessions remember anyway: this broker's for what it sends and what it has received, the upstream's for the rest.

mod addresses;
mod backlog;
mod closed;
mod figures;
mod notification;
mod notifications;
mod relay;
mod retained;
mod rules;
mod session;
mod settings;
mod tell;
mod upstream;

pub use super::model::leave::{Leave, hint};
pub use super::state::address_state::AddressState;
pub use super::state::backlog::{QueueFull, QueuePolicy};
pub use super::state::bridge::BridgeFigures;
pub use super::state::quota::Rates;
pub use super::state::suspicion::End;
pub use closed::{Dropped, NotDropped};
pub use notifications::Notifications;
pub use relay::Relay;
pub use rules::{Direction, Rule, SendRetained};
pub use settings::Bridge;
pub use upstream::{Login, Upstream, UpstreamProtocol, told};
