//! What is counted of each client between two lines in the log.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::broker::model::record::QueueKey;

/// The least time between two lines of a client, in milliseconds.
const MINUTE_MS: u64 = 60_000;

/// Clients, and shared groups, that are named at a time: so many lines a minute there are at most,
/// and one.
pub const MOST: usize = if cfg!(test) { 4 } else { 256 };

/// Bytes of a topic that are shown.
const TOPIC_BYTES: usize = 200;

/// What happened to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
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
pub struct Notices {
    named: HashMap<QueueKey, Named, FixedState>,
    /// Of clients that are not named.
    others: Counts,
    /// When that was said last, in milliseconds of uptime.
    others_said: u64,
}

#[derive(Debug)]
struct Named {
    name: Box<str>,
    /// When something was said last, in milliseconds of uptime.
    said: u64,
    counts: Counts,
}

impl Notices {
    /// Says what has gathered in a minute. Returns whether there is something left to be said
    /// later.
    pub fn say(&mut self, uptime: u64) -> bool {
        self.named.retain(|_, named| {
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
        let is_due = uptime >= self.others_said + MINUTE_MS;
        if is_due && let Some(counted) = describe(&mut self.others) {
            tracing::warn!("of other clients, which are too many to name: {counted}");
            self.others_said = uptime;
        }
        !self.named.is_empty() || self.others != Counts::default()
    }

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
