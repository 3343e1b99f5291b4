//! Messages that are handed out to very many receivers, a slice at a time.

use std::collections::VecDeque;

use crate::broker::model::ids::SessionIndex;
use crate::broker::model::message::Message;
use crate::broker::model::record::{Durability, Seq, SpreadReceiver, SpreadRecord};
use crate::broker::state::gate::{Stamp, WRITE_WEIGHT};
use crate::broker::state::offer::{Frames, Receiver};
use crate::broker::state::sessions::Sessions;
use crate::wire::QoS;

/// What is handed out in one go, in deliveries at QoS 0: one or two milliseconds' work.
const COST_AT_ONCE: u64 = 8192;

/// Receivers whose names share a row.
pub const PART: usize = if cfg!(test) { 3 } else { 256 };

/// The messages that are being handed out, the oldest first.
#[derive(Debug)]
pub struct Spreads {
    pub all: VecDeque<Spread>,
    /// Receivers that have not got their message, of all.
    pub waiting: usize,
    /// Those of messages that are stored: their deliveries will be, too.
    pub waiting_stored: usize,
    /// A row must be written anew.
    pub changed: bool,
    /// [`COST_AT_ONCE`], or less in tests.
    pub slice: u64,
}

impl Default for Spreads {
    fn default() -> Spreads {
        Spreads {
            all: VecDeque::new(),
            waiting: 0,
            waiting_stored: 0,
            changed: false,
            slice: COST_AT_ONCE,
        }
    }
}

#[derive(Debug)]
pub struct Spread {
    pub message: Message,
    pub seq: Seq,
    pub level: Durability,
    pub stamp: Stamp,
    pub admitted: bool,
    pub from: Option<SessionIndex>,
    /// By session, and who of them has it.
    pub receivers: Vec<Receiver>,
    pub given: Vec<bool>,
    /// How many have not.
    pub left: usize,
    /// All before this one have it.
    pub next: usize,
    /// Encoded QoS 0 deliveries that several receivers share.
    pub frames: Frames,
    /// Of each part of the receivers, what the store has; none if nobody is in the store.
    pub rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub stored: bool,
    pub changed: bool,
}

impl Spreads {
    /// Bytes of rows that are still to be written for messages that were accepted, about.
    pub fn promised_bytes(&self) -> usize {
        self.waiting_stored * WRITE_WEIGHT
    }
}

impl Spread {
    pub fn is_stored(&self) -> bool {
        !self.rows.is_empty()
    }

    /// How many have not got a message that is stored.
    pub fn left_stored(&self) -> usize {
        if self.is_stored() { self.left } else { 0 }
    }

    /// Where a receiver is, if it has not got the message; `guess` is where it may be.
    pub fn find(&self, session: SessionIndex, guess: usize) -> Option<usize> {
        let by_session = |receiver: &Receiver| receiver.subscriber.session;
        let at = match self.receivers.get(guess).map(by_session) {
            Some(found) if found == session => guess,
            _ => {
                let found = self.receivers.binary_search_by_key(&session, by_session);
                found.ok()?
            }
        };
        (!self.given[at]).then_some(at)
    }

    /// Marks a receiver as served; its row changes.
    pub fn take(&mut self, at: usize) -> Receiver {
        self.given[at] = true;
        self.left -= 1;
        if let Some(row) = self.rows.get_mut(at / PART) {
            row.changed = true;
        }
        let Receiver { subscriber, ids } = &mut self.receivers[at];
        Receiver {
            subscriber: *subscriber,
            ids: std::mem::take(ids),
        }
    }

    /// Who of a part of the receivers is in the store and has not got the message.
    pub fn record(&self, part: usize, sessions: &Sessions) -> SpreadRecord {
        let parts = self.message.parts();
        let some = part * PART..self.receivers.len().min((part + 1) * PART);
        let left = some.filter(|at| !self.given[*at]);
        let receivers = left.filter_map(|at| {
            let Receiver { subscriber, ids } = &self.receivers[at];
            let qos = parts.qos.min(subscriber.qos());
            if qos == QoS::AtMostOnce {
                return None;
            }
            let session = &sessions[subscriber.session];
            session.durable.then(|| SpreadReceiver {
                queue: session.key(),
                qos,
                retain: parts.retain && subscriber.retain_as_published() && session.has_options,
                subscription_ids: ids.clone(),
            })
        });
        SpreadRecord {
            size: self.message.size(),
            expires: parts.expires,
            receivers: receivers.collect(),
        }
    }
}
