//! The measure of work: what a packet and a removal cost.

/// What a packet costs, in the measure of [`Broker::work`](crate::broker::Broker::work).
pub const PACKET: u64 = 64;

/// What a timer, or the removal of a row or a subscription, costs in that measure.
pub const OPERATION: u64 = 4;
