//! What packets do, and what the end of a connection does.

mod acknowledge;
mod connect;
mod disconnect;
mod fault;
pub mod keep_alive;
mod lost;
mod publish;
mod retain;
mod subscribe;
pub mod take_over;
mod will;
