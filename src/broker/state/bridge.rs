//! What is known of a bridge while it is configured.

use std::collections::VecDeque;

use crate::broker::model::record::Seq;
use crate::broker::state::address_state::AddressState;
use crate::broker::state::suspicion::Suspicion;
use crate::clock::Now;

/// Times remembered to tell the age of messages; when there are more, every second one of the older
/// half is forgotten.
pub const ACCEPT_TIMES: usize = 1024;

/// A bridge's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub connected: bool,
    pub last_error: String,
    pub connects: u64,
    pub addresses: Vec<(String, AddressState)>,
    /// Where what it sets aside goes.
    pub dead_letter_topic: Option<Box<str>>,
    /// Where it is told as well whether the bridge is connected.
    pub notification_topic: Option<Box<str>>,
    pub suspicion: Suspicion,
}

impl State {
    /// Notes that the bridge is not connected, for no fault of anybody's.
    pub fn disconnect(&mut self) {
        self.connected = false;
    }
}

/// Which messages had been accepted at which time, in milliseconds of uptime: messages themselves
/// do not know.
#[derive(Debug, Default)]
pub struct AcceptTimes(VecDeque<(Seq, u64)>);

impl AcceptTimes {
    /// Notes that the next message will have this number.
    pub fn note(&mut self, next: Seq, uptime: u64) {
        if self.0.back().is_some_and(|(seq, _)| *seq == next) {
            // Nothing has been accepted since: what comes now is younger.
            self.0.pop_back();
        }
        self.0.push_back((next, uptime));
        if self.0.len() > ACCEPT_TIMES {
            let mut place = 0;
            self.0.retain(|_| {
                place += 1;
                place > ACCEPT_TIMES / 2 || place % 2 == 1
            });
        }
    }

    /// The last moment at which a message had not been accepted; 0, the start, for those of before.
    pub fn before(&self, seq: Seq) -> u64 {
        let earlier = self.0.partition_point(|(next, _)| *next <= seq);
        earlier.checked_sub(1).map_or(0, |at| self.0[at].1)
    }
}

/// How a bridge is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeFigures {
    /// Its name.
    pub name: Box<str>,
    /// It is connected.
    pub connected: bool,
    /// Connections so far.
    pub connects: u64,
    /// Messages that wait for the upstream, or that it has not acknowledged completely.
    pub queued: u64,
    /// Bytes of the messages that wait.
    pub queued_bytes: u64,
    /// What is known of each of its addresses, in the order of the configuration.
    pub addresses: Vec<(String, AddressState)>,
    /// The most seconds the oldest of these messages has waited in this process, as exactly as
    /// `$SYS` is published; 0 if there is none.
    pub oldest_seconds: u64,
    /// Messages dropped because the queue was full, since the process started; as the following.
    pub dropped: u64,
    /// Messages refused to their publishers because the queue was full.
    pub refused: u64,
    /// Messages that waited and were replaced by a newer one of their topic.
    pub superseded: u64,
    /// Messages that have expired while they waited.
    pub expired: u64,
    /// Messages of the upstream that went in a circle.
    pub loops_dropped: u64,
    /// Messages the upstream will never take, that were set aside.
    pub set_aside: u64,
}

/// An error behind the time at which it happened, as in RFC 3339.
pub fn at(now: Now, error: &str) -> String {
    let seconds = now.unix / 1000;
    let (mut year, mut days) = (1970, seconds / 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let days_of = |year| 365 + u64::from(is_leap(year));
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z {error}",
        days + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_message_is_that_of_the_time_before_it() {
        let mut times = AcceptTimes::default();
        assert_eq!(times.before(Seq(5)), 0);
        times.note(Seq(10), 1000);
        times.note(Seq(10), 2000);
        times.note(Seq(20), 3000);
        assert_eq!(times.before(Seq(9)), 0);
        assert_eq!(times.before(Seq(10)), 2000);
        assert_eq!(times.before(Seq(19)), 2000);
        assert_eq!(times.before(Seq(20)), 3000);
    }

    #[test]
    fn an_error_tells_its_time() {
        for (unix, expected) in [
            (0, "1970-01-01T00:00:00Z x"),
            (951_782_400_000, "2000-02-29T00:00:00Z x"),
            (1_735_689_599_999, "2024-12-31T23:59:59Z x"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z x"),
        ] {
            assert_eq!(at(Now { uptime: 0, unix }, "x"), expected);
        }
    }

    #[test]
    fn times_are_thinned_the_older_ones_first() {
        let mut times = AcceptTimes::default();
        for n in 0..100_000_u64 {
            times.note(Seq(n * 10), n * 1000);
        }
        assert!(times.0.len() <= ACCEPT_TIMES + 1);
        let told = times.before(Seq(999_995));
        assert!(told >= 99_990_000, "{told}");
        assert_eq!(times.before(Seq(0)), 0);
    }
}
