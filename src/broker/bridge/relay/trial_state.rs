//! What is known of messages and subscriptions that connections die on.

use std::collections::VecDeque;

use crate::broker::model::local::LocalDelivery;
use crate::broker::state::suspicion::Suspect;
use crate::wire::packet::SubscribeOptions;

/// What a connection tries alone.
#[derive(Debug, Default)]
pub(in crate::broker) struct Trial {
    /// Messages go out one at a time.
    pub careful: bool,
    /// What is on trial, and since when, in milliseconds of uptime.
    pub on: Option<(Suspect, u64)>,
    /// The PUBLISH that is to be tried next.
    pub held: Option<LocalDelivery>,
    /// Filters to be tried, as the upstream knows them.
    pub filters: VecDeque<(String, SubscribeOptions)>,
    /// The connection has to stay up until then before what is next is tried; `None` if there is nothing.
    pub until: Option<u64>,
    /// When a filter that is set aside is to be tried again.
    pub retry: Option<u64>,
}
