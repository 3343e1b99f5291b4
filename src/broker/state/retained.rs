//! The retained messages, sorted by topic.

use std::borrow::Borrow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::broker::model::message::Message;
use crate::broker::model::record::Source;
use crate::broker::model::topics::SYS_PREFIX;
use crate::broker::state::gate::Stamp;
use crate::broker::state::sources::{Sources, Verdict};

/// The retained messages, sorted by topic.
#[derive(Debug, Default)]
pub struct Retained {
    pub messages: BTreeSet<ByTopic>,
    /// Bytes of all of them.
    bytes: u64,
    /// Who published them.
    pub sources: Sources,
    /// How many the broker says of itself; they do not count against the limit.
    own: usize,
    /// Where looking for expired messages goes on.
    pub sweep_after: Option<Message>,
}

/// A message that is compared by its topic.
#[derive(Debug)]
pub struct ByTopic {
    pub message: Message,
    /// What deliveries of it wait for.
    pub stamp: Stamp,
    /// It has a row in the store, whatever the durability of its topic is now.
    stored: bool,
    /// Who published it, where that is known.
    pub source: Option<Arc<Source>>,
    /// Whether it may be shown, as far as its publisher is concerned.
    pub verdict: Cell<Verdict>,
}

impl Borrow<str> for ByTopic {
    fn borrow(&self) -> &str {
        self.message.topic()
    }
}

impl Ord for ByTopic {
    fn cmp(&self, other: &ByTopic) -> Ordering {
        self.message.topic().cmp(other.message.topic())
    }
}

impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &ByTopic) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &ByTopic) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ByTopic {}

impl Retained {
    /// How many clients have published.
    pub fn len(&self) -> usize {
        self.messages.len() - self.own
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What counts against `max_retained_bytes`.
    pub fn taken(&self) -> u64 {
        self.bytes + self.sources.bytes()
    }

    /// Keeps a message; deliveries of it wait for `stamp`, and `stored` says that it has a row in the store. Whether the one it replaces had one.
    pub fn insert(
        &mut self,
        message: Message,
        stamp: Stamp,
        stored: bool,
        source: Option<Arc<Source>>,
    ) -> bool {
        self.bytes += u64::from(message.size());
        let own = message.topic().starts_with(SYS_PREFIX);
        let new = ByTopic {
            message,
            stamp,
            stored,
            source: source.map(|source| self.sources.hold(source)),
            verdict: Cell::default(),
        };
        match self.messages.replace(new) {
            Some(old) => {
                self.bytes -= u64::from(old.message.size());
                self.sources.release(old.source);
                old.stored
            }
            None => {
                self.own += usize::from(own);
                false
            }
        }
    }

    /// Lets go of a topic's message; whether it had a row in the store.
    pub fn remove(&mut self, topic: &str) -> bool {
        let Some(old) = self.messages.take(topic) else {
            return false;
        };
        self.bytes -= u64::from(old.message.size());
        self.own -= usize::from(topic.starts_with(SYS_PREFIX));
        self.sources.release(old.source);
        old.stored
    }

    pub fn get(&self, topic: &str) -> Option<&Message> {
        self.messages.get(topic).map(|found| &found.message)
    }

    /// The rules have changed: who might publish may not any more, or may again.
    pub fn ask_sources_again(&mut self) {
        self.sources.ask_again();
    }

    /// The messages after a topic that may match a filter: those that begin with its levels before the first wildcard.
    pub fn candidates<'a>(
        &'a self,
        filter: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Message> {
        let wildcard = filter.find(['+', '#']);
        let prefix = wildcard.map_or(filter, |at| &filter[..at]);
        // A filter without wildcards names one topic, which is the first that begins with it.
        let most = if wildcard.is_none() { 1 } else { usize::MAX };
        // `a/#` matches `a` as well, which does not begin with `a/`, and sorts before all that do.
        let parent = filter
            .strip_suffix("/#")
            .filter(|parent| parent.len() < prefix.len() && after.is_none());
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let below = self
            .messages
            .range::<str, _>((start, Bound::Unbounded))
            .map(|found| &found.message);
        let below = below.take_while(move |message| message.topic().starts_with(prefix));
        let below = below.take(most);
        parent
            .and_then(|parent| self.get(parent))
            .into_iter()
            .chain(below)
    }
}
