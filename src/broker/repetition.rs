//! Messages that come again under a new packet identifier, because a session was lost or there is more than one way to this broker: they are known by
//! their identity ([`marks`](super::marks)).
//!
//! What is remembered of a message is one number made of its identity, topic and payload. So whatever identity a client gives its messages, it can keep
//! no other message from being published than one it has published itself.

use std::collections::{BTreeMap, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::marks::{Marks, digest};
use super::message::Parts;
use super::record::{MessageId, Seq, Write};
use super::route::Published;
use super::{Broker, SessionIndex};
use crate::limits::Limits;
use crate::wire::{QoS, ReasonCode};

/// What a client counts beside its messages in `max_message_ids_total`.
const WINDOW: usize = 16;
/// How often the log is told of messages that go in circles, in milliseconds.
const CIRCLES_MS: u64 = 60_000;

/// The messages that were accepted last of each client that tells their identities.
#[derive(Debug)]
pub(super) struct MessageIds {
    /// Each message, and the `Seq` under which its row is in the store; 0 if it has none.
    known: HashMap<u64, u64, FixedState>,
    windows: HashMap<u64, Window, FixedState>,
    /// The publishers, the one that is idle longest first.
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    circles: Circles,
}

/// Messages that go in circles, as far as the log goes.
#[derive(Debug, Default)]
struct Circles {
    /// When the log was told last, in milliseconds of uptime.
    said: Option<u64>,
    /// How many there were since.
    unsaid: u64,
}

/// The messages of one publisher, the oldest first.
#[derive(Debug)]
struct Window {
    ids: VecDeque<u64>,
    used: u64,
}

impl MessageIds {
    /// None yet; `seed` keeps peers from choosing what collides.
    pub fn new(seed: u64) -> MessageIds {
        MessageIds {
            known: HashMap::with_hasher(FixedState::with_seed(seed)),
            windows: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_use: BTreeMap::new(),
            uses: 0,
            circles: Circles::default(),
        }
    }

    /// The `Seq` of a message that is known, if it has a row.
    fn find(&self, id: u64) -> Option<Option<Seq>> {
        let seq = *self.known.get(&id)?;
        Some((seq != 0).then_some(Seq(seq)))
    }

    /// Remembers a message, as long as the limits allow; `forget` is told of the rows that are not needed any more.
    fn remember(
        &mut self,
        message: MessageId,
        seq: Option<Seq>,
        limits: &Limits,
        mut forget: impl FnMut(Seq),
    ) {
        let MessageId { publisher, id } = message;
        let replaced = self.known.insert(id, seq.map_or(0, |seq| seq.0));
        self.uses += 1;
        let window = self.windows.entry(publisher).or_insert(Window {
            ids: VecDeque::new(),
            used: self.uses,
        });
        match replaced {
            None => window.ids.push_back(id),
            // The process died before the row of before was removed.
            Some(0) => {}
            Some(row) => forget(Seq(row)),
        }
        self.by_use.remove(&window.used);
        window.used = self.uses;
        self.by_use.insert(self.uses, publisher);
        let most = limits.max_message_ids.min(limits.max_message_ids_total);
        while window.ids.len() > most
            && let Some(oldest) = window.ids.pop_front()
        {
            Self::forget(&mut self.known, oldest, &mut forget);
        }
        while self.weight() > limits.max_message_ids_total && self.windows.len() > 1 {
            let Some((_, idle)) = self.by_use.pop_first() else {
                break;
            };
            let ids = self.windows.remove(&idle).map(|window| window.ids);
            for id in ids.into_iter().flatten() {
                Self::forget(&mut self.known, id, &mut forget);
            }
        }
    }

    fn forget(known: &mut HashMap<u64, u64, FixedState>, id: u64, forget: &mut impl FnMut(Seq)) {
        if let Some(seq) = known.remove(&id).filter(|seq| *seq != 0) {
            forget(Seq(seq));
        }
    }

    /// What counts in `max_message_ids_total`.
    fn weight(&self) -> usize {
        self.known.len() + WINDOW * self.windows.len()
    }

    /// Messages that are known; each must be in one window.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        let windows = self.windows.values().map(|window| window.ids.len());
        assert_eq!(windows.sum::<usize>(), self.known.len());
        assert_eq!(self.by_use.len(), self.windows.len());
        self.known.len()
    }
}

impl Broker {
    /// Publishes a message of a client, unless it has come before or goes in a circle: then it is only acknowledged, in the first case when the one
    /// that came first would be.
    pub(super) fn publish_once(
        &mut self,
        parts: &Parts<'_>,
        from: SessionIndex,
        marks: &Marks,
    ) -> Published {
        if marks.is_circling() {
            self.drop_circling(parts.topic, from);
            return Published::nothing(ReasonCode::Success);
        }
        // At QoS 0 nothing is sent again.
        let Some(id) = marks.id.filter(|_| parts.qos != QoS::AtMostOnce) else {
            return self.publish_or_refuse(parts, Some(from));
        };
        let broker = self.settings.identity;
        let client_id = self.sessions[from.0 as usize].client_id.as_bytes();
        let publisher = digest(broker, &[client_id]);
        // Only a broker gives an identity that is one on every way.
        let scope = if marks.is_bridged() { 0 } else { publisher };
        let named = [
            &scope.to_le_bytes()[..],
            &id.get().to_le_bytes(),
            parts.topic.as_bytes(),
            parts.payload,
        ];
        let id = digest(broker, &named);
        if let Some(first) = self.message_ids.find(id) {
            self.counters.repetitions_suppressed += 1;
            let level = self.durability_of(parts.topic);
            let mut published = Published::nothing(ReasonCode::Success);
            published.stamp =
                first.map_or(published.stamp, |first| self.gate.stamp_of(first, level));
            return published;
        }
        let published = self.publish_or_refuse(parts, Some(from));
        if !published.refused && !published.reason.is_error() {
            if let Some(seq) = published.seq {
                self.write(Write::PutMessageId(seq, MessageId { publisher, id }));
            }
            self.remember_message(MessageId { publisher, id }, published.seq);
        }
        published
    }

    /// Counts a message that goes in a circle, and says so once a minute.
    fn drop_circling(&mut self, topic: &str, from: SessionIndex) {
        self.counters.bridge_loops_dropped += 1;
        let session = &mut self.sessions[from.0 as usize];
        if let Some(backlog) = &mut session.backlog {
            backlog.loops += 1;
        }
        let circles = &mut self.message_ids.circles;
        circles.unsaid += 1;
        if circles
            .said
            .is_some_and(|said| self.now.uptime < said + CIRCLES_MS)
        {
            return;
        }
        circles.said = Some(self.now.uptime);
        let count = std::mem::take(&mut circles.unsaid);
        tracing::warn!(
            client = &*session.client_id,
            topic,
            count,
            "a message that has come through this broker before is acknowledged and dropped: bridges lead in a circle, or another broker has this one's \
             identity; said once a minute, with how many there were"
        );
    }

    /// Remembers that a message was accepted: it has a row if it has a `Seq` here.
    pub(super) fn remember_message(&mut self, message: MessageId, seq: Option<Seq>) {
        let (gate, uptime) = (&mut self.gate, self.now.uptime);
        let limits = &self.settings.limits;
        self.message_ids.remember(message, seq, limits, |seq| {
            gate.write(Write::RemoveMessageId(seq), uptime)
        });
    }
}
