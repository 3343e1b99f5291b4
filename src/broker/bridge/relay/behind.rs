//! What waits behind a subscription that the upstream has not granted yet.

use crate::broker::model::record::Seq;
use crate::wire::packet::SubscribeOptions;

/// Subscriptions that follow the backlog.
#[derive(Debug, Default)]
pub(in crate::broker) struct Behind {
    pub filters: Vec<(String, SubscribeOptions)>,
    /// The first message that is not of the backlog.
    pub end: Seq,
}
