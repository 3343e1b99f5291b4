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
    messages: BTreeSet<ByTopic>,
    /// Bytes of all of them.
    bytes: u64,
    /// Who published them.
    sources: Sources,
    /// How many the broker says of itself; they do not count against the limit.
    own: usize,
    /// Where looking for expired messages goes on.
    sweep_after: Option<Message>,
}

/// A message that is compared by its topic.
#[derive(Debug)]
struct ByTopic {
    message: Message,
    /// What deliveries of it wait for.
    stamp: Stamp,
    /// It has a row in the store, whatever the durability of its topic is now.
    stored: bool,
    /// Who published it, where that is known.
    source: Option<Arc<Source>>,
    /// Whether it may be shown, as far as its publisher is concerned.
    verdict: Cell<Verdict>,
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

    /// Whether there is none, of clients or of the broker.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes of all messages.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that a message of this size takes, with its publisher if that is new.
    pub fn bytes_for(&self, size: u64, source: Option<&Source>) -> u64 {
        size + source.map_or(0, |source| self.sources.more(source))
    }

    /// Whether a message of a topic that takes `more` bytes would exceed `most_messages` or `most_bytes`.
    pub fn is_full(&self, topic: &str, more: u64, most_messages: u64, most_bytes: u64) -> bool {
        let old = self.get(topic).map(|old| u64::from(old.size()));
        let taken = self.bytes + self.sources.bytes();
        old.is_none() && self.len() as u64 >= most_messages
            || taken - old.unwrap_or(0) + more > most_bytes
    }

    /// The publisher with these names. It is shared with the other messages of it.
    pub fn source(
        &self,
        topic: &str,
        client_id: &str,
        user: Option<&str>,
        acl: Option<&str>,
    ) -> Arc<Source> {
        let before = self.messages.get(topic);
        let before = before.and_then(|before| before.source.as_ref());
        let is_same = |it: &Source| {
            *it.client_id == *client_id && it.user.as_deref() == user && it.acl.as_deref() == acl
        };
        match before.filter(|before| is_same(before)) {
            Some(same) => same.clone(),
            None => self.sources.find(Source {
                client_id: client_id.into(),
                user: user.map(Into::into),
                acl: acl.map(Into::into),
            }),
        }
    }

    /// Whether the publisher of a topic's message lets it be shown. `ask` finds that out; it is asked
    /// again only after the rules have changed.
    pub fn lets_show(&self, topic: &str, ask: impl FnOnce(&Source) -> bool) -> bool {
        let Some(found) = self.messages.get(topic) else {
            return true;
        };
        let Some(source) = &found.source else {
            return true;
        };
        let mut verdict = found.verdict.get();
        let may = self.sources.ask(&mut verdict, || ask(source));
        found.verdict.set(verdict);
        may
    }

    /// What deliveries of a topic's message wait for.
    pub fn stamp(&self, topic: &str) -> Stamp {
        self.messages
            .get(topic)
            .map_or(Stamp::NONE, |found| found.stamp)
    }

    /// Removes the expired messages among the next `count`. Returns them, and whether each had a row in
    /// the store. The second value says that the last of all messages has been looked at.
    pub fn sweep(&mut self, count: usize, unix: u64) -> (Vec<(Message, bool)>, bool) {
        let after = self.sweep_after.take();
        let start = after
            .as_ref()
            .map_or(Bound::Unbounded, |message| Bound::Excluded(message.topic()));
        let mut last = None;
        let mut expired = Vec::new();
        let mut looked = 0;
        let next = self.messages.range::<str, _>((start, Bound::Unbounded));
        for ByTopic { message, .. } in next.take(count) {
            looked += 1;
            last = Some(message.clone());
            if message.expires().is_some_and(|expires| expires <= unix) {
                expired.push(message.clone());
            }
        }
        self.sweep_after = last.filter(|_| looked == count);
        let removed = expired.into_iter().map(|message| {
            let had_row = self.remove(message.topic());
            (message, had_row)
        });
        (removed.collect(), looked < count)
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

    /// The message of a topic.
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
