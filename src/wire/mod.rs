//! What is said: the packets of MQTT 3.1, 3.1.1 and 5.0 in one model, in MQTT 5 vocabulary.
//!
//! - [`packet`]: the fifteen packets, borrowed from the bytes they were read from.
//! - [`property`]: property blocks, validated once and then read by iterator.
//! - [`reason`]: reason codes and [`Fault`], what a peer did wrong.
//! - [`topic`]: topic names, topic filters and how one matches the other.
//! - [`text`]: characters that texts from clients must not have.
//! - [`codec`]: bytes to packets and back, for each version.
//!
//! This floor knows nothing of sessions, IO or time.

pub mod codec;
mod field;
pub mod packet;
mod packet_id;
pub mod property;
mod qos;
pub mod reason;
pub mod text;
pub mod topic;

pub use packet::{Packet, ProtocolVersion};
pub use packet_id::PacketId;
pub use property::{Properties, PropertiesBuf, Property};
pub use qos::QoS;
pub use reason::{Fault, ReasonCode};
