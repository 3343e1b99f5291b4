//! The marks that messages to a bridge carry.

use std::num::NonZeroU64;

use crate::broker::Broker;
use crate::broker::model::ids::ConnectionId;
use crate::broker::model::marks::{Mark, digest, hop};
use crate::broker::model::message::Parts;
use crate::broker::model::record::Seq;

impl Broker {
    /// The mark of a message for a connection; `None` if its client is no bridge. `seq` is its
    /// place in the order, which one of QoS 0 has not.
    pub(in crate::broker) fn mark(
        &self,
        id: ConnectionId,
        parts: &Parts<'_>,
        seq: Option<Seq>,
    ) -> Option<Mark> {
        if !self.connections[id].options().marked {
            return None;
        }
        let broker = self.settings.identity;
        let id = seq.and_then(|seq| {
            let named = [
                &seq.0.to_le_bytes()[..],
                parts.topic.as_bytes(),
                parts.payload,
            ];
            parts.id.or_else(|| NonZeroU64::new(digest(broker, &named)))
        });
        let hop = hop(broker, parts.payload);
        Some(Mark { hop, id })
    }
}
