//! From a message that was accepted to the outboxes of those who get it.

mod fetch;
mod hold;
mod mark;
mod outgoing;
mod push;
mod repetition;
mod route;
mod send;
mod share;
pub mod spread;
