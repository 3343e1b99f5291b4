//! The wire protocol: the packets of MQTT 3.1, 3.1.1 and 5.0 in one model with MQTT 5 names.
//!
//! - [`packet`]: the fifteen packets. They borrow from the bytes they were decoded from.
//! - [`property`]: property blocks. They are validated once and then read by an iterator.
//! - [`reason`]: reason codes, and [`Fault`], an error of the peer.
//! - [`topic`]: topic names, topic filters and matching.
//! - [`text`]: characters that texts from clients must not contain.
//! - [`codec`]: decodes and encodes packets for each version.
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
