//! Tidegate: an MQTT broker for the edge whose acknowledgements mean "on disk".
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod broker;
pub mod clock;
pub mod limits;
pub mod store;
pub mod wire;
