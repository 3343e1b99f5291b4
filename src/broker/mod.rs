//! What is decided: a state machine without IO, clocks, chance or locks.

pub mod message;
pub mod record;

pub use message::Message;
