//! Bodies to be read from the store.

use crate::broker::model::ids::Owner;
use crate::broker::model::record::{BodyId, QueueKey, Seq};

/// Bodies to be read from the store: the answer goes to [`Broker::fetched`](crate::broker::Broker::fetched).
#[derive(Debug)]
pub struct Fetch {
    /// The bodies, mostly in ascending order.
    pub bodies: Vec<BodyId>,
    pub(in crate::broker) owner: Owner,
    pub(in crate::broker) key: QueueKey,
    pub(in crate::broker) serial: u64,
    /// The places of their messages, in ascending order.
    pub(in crate::broker) seqs: Vec<Seq>,
}
