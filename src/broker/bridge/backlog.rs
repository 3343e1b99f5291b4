//! How messages wait for a bridge: up to a cap with a chosen answer, only the newest of each topic where a rule says so, and live ones first.
//!
//! The newest waiting message of each topic is kept in a map, from hashes of topics to places in the order. After a
//! restart, the rows of deliveries tell the hashes. Only topics of which several messages wait must be read, because
//! rules go by topics. If rules change while the broker runs, the topics of all that waits are read, once and in the
//! background, a run of bodies at a time. What the map says is the newest may have left the queue meanwhile; such
//! entries are harmless, and thinned.

use crate::broker::Broker;
use crate::broker::bridge::settings::Bridge;
use crate::broker::model::fetch::Fetch;
use crate::broker::model::ids::{Owner, SessionIndex};
use crate::broker::model::message::Message;
use crate::broker::model::record::Seq;
use crate::broker::state::backlog::{Backlog, Latest, Older, QueueFull, QueuePolicy, SPARE_TOPICS};
use crate::broker::state::notices::Notice;
use crate::broker::state::queue::Queue;
use crate::broker::state::queued::Queued;
use crate::broker::state::timers::Timer;

/// Most messages whose topics are read at once.
const RUN: usize = 512;

/// Most bytes of bodies read at once for their topics.
const RUN_BYTES: u64 = 512 * 1024;

/// How long to wait for what is not on disk yet, in milliseconds.
const RETRY_MS: u64 = 100;

impl Broker {
    /// Gives a bridge's session what the configuration says of its queue.
    pub(in crate::broker) fn set_queue_policy(&mut self, index: SessionIndex, bridge: &Bridge) {
        let rules = bridge.rules.iter().filter(|rule| rule.goes_out());
        let rules = rules.map(|rule| (Box::from(rule.local_filter()), rule.keeps_latest()));
        let mut rules: Vec<(Box<str>, bool)> = rules.collect();
        if !rules.iter().any(|(_, keep_latest)| *keep_latest) {
            rules.clear();
        }
        let (next_seq, seed) = (self.messages.next_seq(), self.connections.seed);
        let session = &mut self.sessions[index];
        let recovered = self.bridges.recovered_topics.remove(&session.key());
        let restored = session.backlog.is_none();
        let backlog = session.backlog.get_or_insert_with(|| {
            Box::new(Backlog {
                policy: QueuePolicy::default(),
                latest: Latest::new(seed),
                dropped: 0,
                refused: 0,
                superseded: 0,
                expired: 0,
                loops: 0,
                set_aside: 0,
            })
        });
        backlog.policy = bridge.queue.clone();
        session.inflight.as_sent = bridge.queue.live_first;
        if restored && bridge.queue.live_first {
            // The process before may have sent any of them.
            session.queue.mark_dup();
        }
        let latest = &mut backlog.latest;
        if latest.rules != rules {
            latest.restart(rules);
            match recovered {
                _ if latest.rules.is_empty() => {}
                Some(topics) => {
                    let after = topics.last().map_or(Seq(0), |(seq, _)| Seq(seq.0 + 1));
                    latest.recover(topics);
                    latest.unread_places = after..next_seq;
                }
                None => {
                    latest.unread = session.inflight.seqs();
                    latest.unread.sort_unstable();
                    latest.unread_places = Seq(0)..next_seq;
                }
            }
        }
        self.shorten(index);
        self.learn(index);
        let sessions = self.sessions.iter();
        let backlogs = sessions.filter_map(|(_, session)| session.backlog.as_ref());
        self.bridges.refusing = { backlogs }.any(|it| it.policy.queue_full == QueueFull::Refuse);
    }

    /// A queue may be longer than a cap that was set just now: the oldest messages go, bit by bit, if that is the answer to a full queue.
    fn shorten(&mut self, index: SessionIndex) {
        let (most, most_bytes) = self.caps(index);
        let session = &mut self.sessions[index];
        let (queue, backlog) = (&mut session.queue, session.backlog.as_mut());
        let Some(backlog) = backlog.filter(|it| it.policy.queue_full == QueueFull::DropOldest)
        else {
            return;
        };
        let key = queue.key;
        let dropped = self.accounts.change(queue, |queue| {
            let mut dropped = std::collections::VecDeque::new();
            while queue.len() as u64 > most || queue.bytes() > most_bytes {
                dropped.extend(queue.take_oldest());
            }
            dropped
        });
        backlog.dropped += dropped.len() as u64;
        self.counters.dropped_queue_full += dropped.len() as u64;
        self.remove_queued(key, dropped);
    }

    /// The most messages and bytes that may wait for a session.
    fn caps(&self, index: SessionIndex) -> (u64, u64) {
        let limits = &self.settings.limits;
        let backlog = self.sessions[index].backlog.as_ref();
        let policy = backlog.map(|backlog| &backlog.policy);
        let most = policy.and_then(|policy| policy.max_queued_messages);
        let most_bytes = policy.and_then(|policy| policy.max_queued_bytes);
        (
            most.unwrap_or(limits.max_queued_messages),
            most_bytes.unwrap_or(limits.max_queued_bytes),
        )
    }

    /// Whether a session's queue has no room for a message, although an older one makes some.
    fn is_queue_full(
        &self,
        index: SessionIndex,
        size: u64,
        stored: bool,
        older: Option<Older>,
    ) -> bool {
        let queue = &self.sessions[index].queue;
        let freed = older.map_or(0, |older| older.size);
        let count = queue.len() as u64 - u64::from(older.is_some());
        let waiting = (count, queue.bytes() - freed);
        self.is_short(self.caps(index), waiting, size, freed)
            || !stored && self.is_memory_short(size)
    }

    /// As [`Broker::is_queue_full`], when those have gone that have waited longest and have expired.
    fn stays_full(
        &mut self,
        index: SessionIndex,
        size: u64,
        stored: bool,
        mut older: Option<Older>,
    ) -> bool {
        while self.is_queue_full(index, size, stored, older) {
            // What is held may never be allowed again.
            if !self.never_fits(index, size, stored) && self.drop_held(Owner::Session(index)) {
                continue;
            }
            let queue = &self.sessions[index].queue;
            let expired = queue.front().filter(|it| it.is_expired(self.now.unix));
            let Some(seq) = expired.map(|item| item.seq) else {
                return true;
            };
            older = older.filter(|older| older.seq != seq);
            if let Some(item) = self.take_oldest(index) {
                self.count_expired(Some(index));
                self.forget(&item, self.sessions[index].key());
            }
        }
        false
    }

    /// Whether a message is larger than what there would be room for if nothing waited in a session's queue.
    fn never_fits(&self, index: SessionIndex, size: u64, stored: bool) -> bool {
        let queue = &self.sessions[index].queue;
        let memory = self.settings.limits.max_queued_memory_bytes;
        self.is_short(self.caps(index), (0, 0), size, queue.bytes())
            || !stored && self.accounts.queued().hot_bytes - queue.hot_bytes() + size > memory
    }

    /// Whether a bridge refuses a message to its publisher; counted.
    pub(in crate::broker) fn is_refused_by(
        &mut self,
        index: SessionIndex,
        topic: &str,
        size: u64,
        stored: bool,
    ) -> bool {
        let backlog = self.sessions[index].backlog.as_ref();
        if backlog.is_none_or(|it| it.policy.queue_full != QueueFull::Refuse) {
            return false;
        }
        let older = self.older_waiting(index, topic, stored);
        // What can never fit is not worth coming again.
        if self.may_send_at_once(index, size as usize)
            || !self.stays_full(index, size, stored, older)
            || self.never_fits(index, size, stored)
        {
            return false;
        }
        self.counters.refused_queue_full += 1;
        if let Some(backlog) = &mut self.sessions[index].backlog {
            backlog.refused += 1;
        }
        true
    }

    /// Makes room for a message that is to wait for a session, in the way its bridge has chosen; `admitted` says that no bridge has refused it. False
    /// if there is none: then the message is dropped, and counted.
    pub(in crate::broker) fn make_room(
        &mut self,
        index: SessionIndex,
        item: &Queued,
        older: Option<Older>,
        admitted: bool,
    ) -> bool {
        let (size, stored) = (u64::from(item.size), item.is_stored());
        if self.stays_full(index, size, stored, older) {
            let backlog = self.sessions[index].backlog.as_mut();
            let answer = backlog.map_or(QueueFull::DropNewest, |it| it.policy.queue_full);
            let takes = answer == QueueFull::DropOldest || answer == QueueFull::Refuse && admitted;
            if !takes || self.never_fits(index, size, stored) {
                self.count_dropped(index);
                return false;
            }
            self.supersede(index, older);
            // What was admitted is taken even if deliveries to others have used up the last of the room since.
            while answer == QueueFull::DropOldest && self.is_queue_full(index, size, stored, None) {
                let Some(item) = self.take_oldest(index) else {
                    break;
                };
                self.count_dropped(index);
                self.forget(&item, self.sessions[index].key());
            }
            return true;
        }
        self.supersede(index, older);
        true
    }

    fn count_dropped(&mut self, index: SessionIndex) {
        self.counters.dropped_queue_full += 1;
        self.notice(index, Notice::QueueFull, "");
        if let Some(backlog) = &mut self.sessions[index].backlog {
            backlog.dropped += 1;
        }
    }

    /// Counts a message that has expired in a session's queue, or in that of a group.
    pub(in crate::broker) fn count_expired(&mut self, session: Option<SessionIndex>) {
        self.counters.dropped_expired += 1;
        let session = session.map(|index| &mut self.sessions[index]);
        if let Some(backlog) = session.and_then(|session| session.backlog.as_mut()) {
            backlog.expired += 1;
        }
    }

    fn take_oldest(&mut self, index: SessionIndex) -> Option<Queued> {
        self.change_queue(Owner::Session(index), Queue::take_oldest)?
    }

    /// The message of the same topic that waits for a bridge which keeps only the newest. One on disk does not make room for one that is not.
    pub(in crate::broker) fn older_waiting(
        &self,
        index: SessionIndex,
        topic: &str,
        stored: bool,
    ) -> Option<Older> {
        let session = &self.sessions[index];
        let latest = &session.backlog.as_ref()?.latest;
        if latest.newest.is_empty() {
            return None;
        }
        let newest = latest.newest.get(&self.messages.hash_topic(topic))?;
        let item = session.queue.find(*newest)?;
        // Others are known since a restart.
        if !latest.keeps(topic) {
            return None;
        }
        let (seq, size) = (item.seq, u64::from(item.size));
        (stored || !item.is_stored()).then_some(Older { seq, size })
    }

    /// A newer message takes the place of one that waits.
    pub(in crate::broker) fn supersede(&mut self, index: SessionIndex, older: Option<Older>) {
        let Some(older) = older else { return };
        let owner = Owner::Session(index);
        let removed = self.change_queue(owner, |queue| queue.remove(older.seq));
        let Some(item) = removed.flatten() else {
            return;
        };
        let session = &mut self.sessions[index];
        if let Some(backlog) = &mut session.backlog {
            backlog.superseded += 1;
        }
        self.counters.superseded += 1;
        let key = session.key();
        self.forget(&item, key);
    }

    /// Notes a message that is about to wait for a session, the newest of its topic.
    pub(in crate::broker) fn note_newest(&mut self, index: SessionIndex, topic: &str, seq: Seq) {
        let session = &mut self.sessions[index];
        let Some(latest) = session.backlog.as_mut().map(|backlog| &mut backlog.latest) else {
            return;
        };
        if !latest.keeps(topic) {
            return;
        }
        let queue = &session.queue;
        if latest.newest.len() > 2 * queue.len() + SPARE_TOPICS && !latest.is_learning() {
            latest.newest.retain(|_, seq| queue.find(*seq).is_some());
            latest.newest.shrink_to(2 * queue.len());
        }
        latest.newest.insert(self.messages.hash_topic(topic), seq);
    }

    /// Reads the next run of messages whose topics are not known, unless one is being read.
    pub(in crate::broker) fn learn(&mut self, index: SessionIndex) {
        let mut known = Vec::new();
        let (key, is_on_disk) = (self.sessions[index].key(), &self.gate);
        let session = &mut self.sessions[index];
        let Some(latest) = session.backlog.as_mut().map(|backlog| &mut backlog.latest) else {
            return;
        };
        if latest.is_reading || !latest.is_learning() {
            return;
        }
        let mut seqs: Vec<Seq> = Vec::new();
        let mut waits = false;
        if !latest.unread.is_empty() {
            let run = latest.unread.len().min(RUN / 8);
            seqs = latest.unread.drain(..run).collect();
        } else {
            let (mut bytes, mut last) = (0, None);
            let items = session.queue.messages_from(latest.unread_places.start);
            for item in items.take_while(|item| item.seq < latest.unread_places.end) {
                if let Some(body) = &item.body {
                    known.push((item.seq, Some(body.clone())));
                } else if !is_on_disk.is_durable(item.seq) {
                    waits = true;
                    break;
                } else {
                    bytes += u64::from(item.size);
                    seqs.push(item.seq);
                }
                last = Some(item.seq);
                if seqs.len() + known.len() >= RUN || bytes >= RUN_BYTES {
                    break;
                }
            }
            match last {
                Some(Seq(last)) => latest.unread_places.start = Seq(last + 1),
                None if !waits => latest.unread_places.start = latest.unread_places.end,
                None => {}
            }
        }
        latest.is_reading = !seqs.is_empty();
        let (serial, has_more) = (latest.round, latest.is_learning());
        if !seqs.is_empty() {
            let owner = Owner::Topics(index);
            self.counters.bodies_fetched += seqs.len() as u64;
            self.messages.ask(owner, key, serial, seqs);
        } else if has_more {
            let at = self.now.uptime + if waits { RETRY_MS } else { 0 };
            self.timers.set(at, Timer::Topics(index));
        }
        self.note_topics(index, &known);
    }

    /// Goes on reading topics.
    pub(in crate::broker) fn check_topics(&mut self, index: SessionIndex) {
        self.learn(index);
        self.touch_session(index);
    }

    /// Takes bodies that were read for their topics.
    pub(in crate::broker) fn learned(
        &mut self,
        index: SessionIndex,
        fetch: &Fetch,
        bodies: &[(Seq, Option<Message>)],
    ) {
        let session = self.sessions.get_mut(index);
        let session = session.filter(|session| session.key() == fetch.key);
        let backlog = session.and_then(|session| session.backlog.as_mut());
        let Some(backlog) = backlog.filter(|it| it.latest.round == fetch.serial) else {
            return;
        };
        backlog.latest.is_reading = false;
        self.note_topics(index, bodies);
        self.learn(index);
        self.touch_session(index);
    }

    /// Of messages whose topics have become known, only the newest stays.
    fn note_topics(&mut self, index: SessionIndex, bodies: &[(Seq, Option<Message>)]) {
        for (seq, body) in bodies {
            let session = &mut self.sessions[index];
            let latest = session.backlog.as_mut().map(|backlog| &mut backlog.latest);
            let (Some(latest), Some(body)) = (latest, body) else {
                continue;
            };
            let topic = body.topic();
            if !latest.keeps(topic) {
                continue;
            }
            let hash = self.messages.hash_topic(topic);
            let known = latest.newest.get(&hash).copied().unwrap_or(*seq);
            let (older, newer) = (known.min(*seq), known.max(*seq));
            latest.newest.insert(hash, newer);
            let replaces = session.queue.find(newer).is_none_or(Queued::is_stored);
            let older = session
                .queue
                .find(older)
                .filter(|item| item.seq != newer && (replaces || !item.is_stored()));
            let older = older.map(|item| Older {
                seq: item.seq,
                size: u64::from(item.size),
            });
            self.supersede(index, older);
        }
    }
}
