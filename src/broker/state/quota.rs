//! Rates of a connection, kept by token buckets.

use crate::limits::Limits;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of a millisecond, in which the broker's time is.
const MILLISECOND: u64 = 1_000_000;

/// How far a client is ahead of its rates.
#[derive(Debug, Default)]
pub struct Quota {
    pub received: Bucket,
    pub sent: Bucket,
    /// A bridge's rates, in and out: it has its own in place of those of all clients.
    pub own: Option<(Rates, Rates)>,
}

/// When what was taken would have been taken at the allowed rates, in nanoseconds of uptime: by number, and by bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    messages: u64,
    bytes: u64,
}

/// What a client or a bridge may do in a second; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Messages.
    pub messages: u64,
    /// Bytes of topic, properties and payload.
    pub bytes: u64,
}

impl Bucket {
    /// Takes a message out. With the message that empties the bucket it is not level any more; bytes may go beyond it once.
    pub fn take(&mut self, rates: Rates, bytes: usize, uptime: u64) {
        let now = uptime * MILLISECOND;
        if let Some(cost) = SECOND.checked_div(rates.messages) {
            self.messages = self.messages.max((now + cost).saturating_sub(SECOND)) + cost;
        }
        if let Some(cost) = (bytes as u64 * SECOND).checked_div(rates.bytes) {
            self.bytes = self.bytes.max(now.saturating_sub(SECOND)) + cost;
        }
    }

    /// When it is level again, in milliseconds of uptime; 0 if nothing was ever taken.
    pub fn level_at(&self) -> u64 {
        self.messages.max(self.bytes).div_ceil(MILLISECOND)
    }

    /// Whether something was taken, and it is level again.
    pub fn has_recovered(&self, uptime: u64) -> bool {
        (1..=uptime).contains(&self.level_at())
    }
}

impl Limits {
    pub(in crate::broker) fn rates_in(&self) -> Rates {
        Rates {
            messages: self.max_message_rate_in,
            bytes: self.max_byte_rate_in,
        }
    }

    pub(in crate::broker) fn rates_out(&self) -> Rates {
        Rates {
            messages: self.max_message_rate_out,
            bytes: self.max_byte_rate_out,
        }
    }
}
