//! What an operator should know of a client, and would hear far too often: messages dropped, publishes and subscriptions denied. The first time it is a
//! WARN at once; from then on it is counted, and said once a minute with how many. So many clients are named and no more; of the others it is said how
//! many times.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::record::QueueKey;
use super::timer::Timer;
use super::{Broker, SessionIndex};

/// The least time between two lines of a client, in milliseconds.
const MINUTE_MS: u64 = 60_000;
/// How often it is looked for what is to be said, in milliseconds.
const LOOK_MS: u64 = 10_000;
/// Clients, and shared groups, that are named at a time: so many lines a minute there are at most, and one.
const MOST: usize = if cfg!(test) { 4 } else { 256 };
/// Bytes of a topic that are shown.
const TOPIC_BYTES: usize = 200;

/// What happened to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    PublishDenied,
    SubscribeDenied,
    WillDenied,
    QueueFull,
    OutgoingFull,
    TooFast,
}

/// All of them, with what is said the first time and what stands behind their number.
const KINDS: [(Notice, &str, &str); 6] = [
    (
        Notice::PublishDenied,
        "a message is refused: the client may not publish to its topic",
        "publishes denied",
    ),
    (
        Notice::SubscribeDenied,
        "a subscription is refused: the client may not subscribe to its filter",
        "subscriptions denied",
    ),
    (
        Notice::WillDenied,
        "a will is not taken, or not published: the client may not publish to its topic",
        "wills denied",
    ),
    (
        Notice::QueueFull,
        "a message is dropped: the queue is full",
        "messages dropped because the queue is full",
    ),
    (
        Notice::OutgoingFull,
        "a message of QoS 0 is dropped: the client does not take what is sent to it fast enough",
        "messages of QoS 0 dropped because the client is too slow",
    ),
    (
        Notice::TooFast,
        "a message of QoS 0 is dropped: the client has been sent as much as it may be in a second",
        "messages of QoS 0 dropped because of the client's rates",
    ),
];

/// What was not said yet, by kind.
type Counts = [u64; KINDS.len()];

/// What was said of clients, and what is to be said.
#[derive(Debug, Default)]
pub(super) struct Notices {
    named: HashMap<QueueKey, Named, FixedState>,
    /// Of clients that are not named.
    others: Counts,
    /// When that was said last, in milliseconds of uptime.
    others_said: u64,
    /// A timer will look at it.
    is_watched: bool,
}

#[derive(Debug)]
struct Named {
    name: Box<str>,
    /// When something was said last, in milliseconds of uptime.
    said: u64,
    counts: Counts,
}

impl Broker {
    /// Notes what happened to a session's client, and with which topic or filter.
    pub(super) fn notice(&mut self, index: SessionIndex, what: Notice, topic: &str) {
        let session = &self.sessions[index.0 as usize];
        let (key, uptime) = (session.key(), self.now.uptime);
        let name = &session.client_id;
        self.notices.note(key, name, what, topic, uptime);
        self.watch_notices();
    }

    /// Sees to it that what was noted is said.
    pub(super) fn watch_notices(&mut self) {
        if !std::mem::replace(&mut self.notices.is_watched, true) {
            self.timers.set(self.now.uptime + LOOK_MS, Timer::Notices);
        }
    }

    /// Says what has gathered in a minute.
    pub(super) fn say_notices(&mut self) {
        let uptime = self.now.uptime;
        let notices = &mut self.notices;
        notices.is_watched = false;
        notices.named.retain(|_, named| {
            if uptime < named.said + MINUTE_MS {
                return true;
            }
            let Some(counted) = describe(&mut named.counts) else {
                return false;
            };
            tracing::warn!(client = &*named.name, "since it was said last: {counted}");
            named.said = uptime;
            true
        });
        let is_due = uptime >= notices.others_said + MINUTE_MS;
        if is_due && let Some(counted) = describe(&mut notices.others) {
            tracing::warn!("of other clients, which are too many to name: {counted}");
            notices.others_said = uptime;
        }
        if !notices.named.is_empty() || notices.others != Counts::default() {
            self.watch_notices();
        }
    }
}

impl Notices {
    /// Notes what happened to whom this key stands for; the first time, says it.
    pub fn note(&mut self, key: QueueKey, name: &str, what: Notice, topic: &str, uptime: u64) {
        let kind = KINDS.iter().position(|(kind, ..)| *kind == what);
        let kind = kind.expect("every kind is listed");
        if let Some(named) = self.named.get_mut(&key) {
            named.counts[kind] += 1;
            return;
        }
        if self.named.len() >= MOST {
            self.others[kind] += 1;
            return;
        }
        let mut end = topic.len().min(TOPIC_BYTES);
        while !topic.is_char_boundary(end) {
            end -= 1;
        }
        let topic = Some(&topic[..end]).filter(|topic| !topic.is_empty());
        tracing::warn!(client = name, topic, "{}", KINDS[kind].1);
        let named = Named {
            name: name.into(),
            said: uptime,
            counts: Counts::default(),
        };
        self.named.insert(key, named);
    }
}

/// Says how many of each there were, and begins to count anew; `None` if there was nothing.
fn describe(counts: &mut Counts) -> Option<String> {
    let counts = std::mem::take(counts);
    let kinds = KINDS.iter().zip(counts).filter(|(_, count)| *count > 0);
    let parts: Vec<String> = kinds
        .map(|((.., what), count)| format!("{count} {what}"))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
