//! The queue of a session or of a shared group.
//!
//! In memory it is an index. Bodies are kept for connected clients only, within a limit over all queues, and
//! are read from the store when they are needed.
//!
//! A queue has three lanes:
//! - the backlog, where messages are inserted;
//! - the live lane, for a bridge with `live_first` while it is connected. It goes before the backlog, except for
//!   every [`LIVE_RUN`]th message, and joins the backlog when the connection ends;
//! - the held lane, for messages whose client lacks the rights at present (`broker/delivery/hold.rs`). They
//!   count in the queue's limits and expire, and hold nothing back.

use std::collections::VecDeque;

use crate::broker::model::message::Message;
use crate::broker::model::record::{Durability, QueueKey, Seq, SubscriptionIds};
use crate::broker::state::gate::Stamp;
use crate::broker::state::queued::{QueueSize, Queued};
use crate::wire::QoS;

/// At most this many live messages are sent before one of those that have waited longer.
pub const LIVE_RUN: u8 = 8;

/// Waiting messages.
#[derive(Debug)]
pub struct Queue {
    /// Its key in the store.
    pub key: QueueKey,
    backlog: Lane,
    /// All of them are younger than those of the backlog.
    live: Lane,
    /// Messages that wait for rights.
    held: Lane,
    /// Live messages sent since the last one of the backlog.
    run: u8,
    bytes: u64,
    hot_bytes: u64,
    /// A fetch of bodies is under way.
    pub fetching: bool,
}

/// Messages in their order.
///
/// A message that is taken out of the middle leaves a hole, so this costs the same in a long queue as in a short
/// one. The first entry is never a hole. When there are more holes than messages, all holes are removed.
#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<Queued>,
    holes: usize,
}

impl Lane {
    fn len(&self) -> usize {
        self.items.len() - self.holes
    }

    /// Adds a message at its place in the order, which mostly is the end.
    fn insert(&mut self, item: Queued) {
        match self.items.back() {
            Some(last) if last.seq > item.seq => {
                let at = self.items.partition_point(|other| other.seq < item.seq);
                self.items.insert(at, item);
            }
            _ => self.items.push_back(item),
        }
    }

    /// Where a message stands.
    fn find(&self, seq: Seq) -> Option<usize> {
        let at = self
            .items
            .binary_search_by_key(&seq, |item| item.seq)
            .ok()?;
        (!self.items[at].is_hole()).then_some(at)
    }

    /// Takes out a message and closes the place.
    fn take(&mut self, at: usize) -> Option<Queued> {
        let item = self.items.remove(at)?;
        self.tidy();
        Some(item)
    }

    /// Takes out a message and leaves a hole.
    fn hollow(&mut self, at: usize) -> Option<Queued> {
        let item = self.items.get_mut(at)?;
        let hole = Queued {
            seq: item.seq,
            body: None,
            ids: SubscriptionIds::NONE,
            expires: 0,
            size: 0,
            qos: item.qos,
            retain: false,
            level: Durability::Memory,
            reveals: Stamp::NONE,
            dup: false,
        };
        self.holes += 1;
        Some(std::mem::replace(item, hole))
    }

    /// Removes the holes before the first message, and all if they are many.
    fn tidy(&mut self) {
        while self.items.front().is_some_and(Queued::is_hole) {
            self.items.pop_front();
            self.holes -= 1;
        }
        if self.holes > self.len() + 32 {
            self.close_holes();
        }
        if self.items.is_empty() && self.items.capacity() > 64 {
            self.items = VecDeque::new();
        }
    }

    fn close_holes(&mut self) {
        if self.holes > 0 {
            self.items.retain(|item| !item.is_hole());
            self.holes = 0;
            if self.items.capacity() > 4 * self.items.len() + 64 {
                self.items.shrink_to(2 * self.items.len());
            }
        }
    }

    fn messages(&self) -> impl Iterator<Item = &Queued> {
        self.items.iter().filter(|item| !item.is_hole())
    }
}

impl Queue {
    pub fn new(key: QueueKey) -> Queue {
        Queue {
            key,
            backlog: Lane::default(),
            live: Lane::default(),
            held: Lane::default(),
            run: 0,
            bytes: 0,
            hot_bytes: 0,
            fetching: false,
        }
    }

    /// How many messages there are, those included that are held.
    pub fn len(&self) -> usize {
        self.backlog.len() + self.live.len() + self.held.len()
    }

    /// Whether no message waits for its turn.
    pub fn is_empty(&self) -> bool {
        self.backlog.items.is_empty() && self.live.items.is_empty()
    }

    /// What there is of messages, those included that are held.
    #[inline]
    pub fn size(&self) -> QueueSize {
        QueueSize {
            messages: self.len() as u64,
            bytes: self.bytes,
            hot_bytes: self.hot_bytes,
        }
    }

    /// Bytes of all waiting messages, in memory or not.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of messages whose bodies are in memory, whether the store has them as well or not.
    pub fn hot_bytes(&self) -> u64 {
        self.hot_bytes
    }

    /// The oldest message.
    pub fn front(&self) -> Option<&Queued> {
        let first = self.backlog.items.front();
        first.or_else(|| self.live.items.front())
    }

    /// How many places there are, holes included.
    pub fn places(&self) -> usize {
        self.backlog.items.len() + self.live.items.len()
    }

    /// The message at a place; 0 is the first. `None` for a hole.
    pub fn get(&self, at: usize) -> Option<&Queued> {
        let item = match at.checked_sub(self.backlog.items.len()) {
            None => self.backlog.items.get(at),
            Some(at) => self.live.items.get(at),
        };
        item.filter(|item| !item.is_hole())
    }

    /// All messages, the oldest first.
    pub fn messages(&self) -> impl Iterator<Item = &Queued> {
        let waiting = self.backlog.messages().chain(self.live.messages());
        waiting.chain(self.held.messages())
    }

    /// The messages from one on.
    pub fn messages_from(&self, seq: Seq) -> impl Iterator<Item = &Queued> {
        let tail = move |lane: &Lane| lane.items.partition_point(|item| item.seq < seq)..;
        let backlog = self.backlog.items.range(tail(&self.backlog));
        let all = backlog.chain(self.live.items.range(tail(&self.live)));
        all.filter(|item| !item.is_hole())
    }

    /// A message that waits.
    pub fn find(&self, seq: Seq) -> Option<&Queued> {
        let lanes = [&self.backlog, &self.live, &self.held].into_iter();
        lanes
            .filter_map(|lane| lane.items.get(lane.find(seq)?))
            .next()
    }

    /// Takes out a message, wherever it stands.
    pub fn remove(&mut self, seq: Seq) -> Option<Queued> {
        let lanes = [&mut self.backlog, &mut self.live, &mut self.held].into_iter();
        let taken = lanes.filter_map(|lane| {
            let item = lane.hollow(lane.find(seq)?);
            lane.tidy();
            item
        });
        let item = { taken }.next()?;
        self.discount(&item);
        Some(item)
    }

    /// How many messages wait in the lane of live ones, or in the other.
    pub fn lane_len(&self, live: bool) -> usize {
        if live {
            self.live.len()
        } else {
            self.backlog.len()
        }
    }

    /// Adds a message at its place in the order, which mostly is the end.
    pub fn insert(&mut self, item: Queued) {
        self.count(&item);
        self.backlog.insert(item);
    }

    /// Adds a message that goes before the backlog; the youngest of all.
    pub fn insert_live(&mut self, item: Queued) {
        self.count(&item);
        self.live.insert(item);
    }

    /// The connection has ended: what was live is backlog.
    pub fn end_live(&mut self) {
        self.backlog.items.append(&mut self.live.items);
        self.backlog.holes += std::mem::take(&mut self.live.holes);
        self.run = 0;
    }

    /// Whether a live message may be sent before all that waits.
    pub fn may_overtake(&self) -> bool {
        self.live.items.is_empty() && (self.run < LIVE_RUN || self.backlog.items.is_empty())
    }

    /// Notes that a live message was sent.
    pub fn sent_live(&mut self) {
        self.run = self.run.saturating_add(1);
    }

    /// The place of the message to be sent next: where there are both, one whose body is in memory before one whose is not.
    pub fn next(&self) -> Option<usize> {
        let (first, live) = (self.backlog.items.front(), self.live.items.front());
        let place_of_live = self.backlog.items.len();
        match (first, live) {
            (None, None) => None,
            (Some(_), None) => Some(0),
            (None, Some(_)) => Some(place_of_live),
            (Some(first), Some(live)) => {
                let is_its_turn = self.run >= LIVE_RUN;
                let takes_first = match (first.body.is_some(), live.body.is_some()) {
                    (true, true) => is_its_turn,
                    (is_there, _) => is_there,
                };
                Some(if takes_first { 0 } else { place_of_live })
            }
        }
    }

    /// The message to be sent next.
    pub fn next_item(&self) -> Option<&Queued> {
        self.get(self.next()?)
    }

    /// Takes out a message; 0 is the first.
    pub fn take(&mut self, at: usize) -> Option<Queued> {
        let item = match at.checked_sub(self.backlog.items.len()) {
            None => {
                self.run = 0;
                self.backlog.take(at)
            }
            Some(at) => {
                self.sent_live();
                self.live.take(at)
            }
        }?;
        self.discount(&item);
        Some(item)
    }

    /// Sets a message aside until [`Queue::release_held`].
    pub fn hold(&mut self, item: Queued) {
        self.count(&item);
        self.held.insert(item);
    }

    /// Messages that were held wait for their turn again, each at its place in the order; whether there were any.
    pub fn release_held(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        let Some(last) = held.items.back().map(|item| item.seq) else {
            return false;
        };
        let backlog = &mut self.backlog;
        let messages = held.items.into_iter().filter(|item| !item.is_hole());
        // What was held was first in the queue, so mostly all of it goes before the others.
        if backlog.items.front().is_none_or(|first| last < first.seq) {
            messages
                .rev()
                .for_each(|item| backlog.items.push_front(item));
            return true;
        }
        backlog.items.extend(messages);
        backlog.close_holes();
        // Two runs, each of them in order: that is sorted in one pass.
        let items = backlog.items.make_contiguous();
        items.sort_by_key(|item| item.seq);
        true
    }

    /// Takes out the oldest of the messages that are held.
    pub fn take_oldest_held(&mut self) -> Option<Queued> {
        let item = self.held.take(0)?;
        self.discount(&item);
        Some(item)
    }

    /// Takes out the oldest message.
    pub fn take_oldest(&mut self) -> Option<Queued> {
        let lanes = [&mut self.backlog, &mut self.live, &mut self.held].into_iter();
        let item = lanes.filter_map(|lane| lane.take(0)).next()?;
        self.discount(&item);
        Some(item)
    }

    /// Takes out all messages, and holes between them: nothing is stored of one.
    pub fn drain(&mut self) -> VecDeque<Queued> {
        self.bytes = 0;
        self.hot_bytes = 0;
        self.end_live();
        self.backlog.holes = 0;
        let held = std::mem::take(&mut self.held);
        self.backlog.items.extend(held.items);
        std::mem::take(&mut self.backlog.items)
    }

    /// Takes out the expired messages among `count` places from `start` on. Beside them, the place to go on from; `None` if that was the end.
    pub fn sweep(&mut self, start: usize, count: usize, unix: u64) -> (Vec<Queued>, Option<usize>) {
        let mut expired = Vec::new();
        let mut offset = 0;
        let end = start.saturating_add(count);
        for lane in [&mut self.backlog, &mut self.live, &mut self.held] {
            let places = lane.items.len();
            for at in start.saturating_sub(offset)..places.min(end.saturating_sub(offset)) {
                if !lane.items[at].is_hole() && lane.items[at].is_expired(unix) {
                    expired.extend(lane.hollow(at));
                }
            }
            offset += places;
        }
        let next = self.get_from(end);
        self.backlog.tidy();
        self.live.tidy();
        self.held.tidy();
        expired.iter().for_each(|item| self.discount(item));
        (expired, next.map(|seq| self.place_of(seq)))
    }

    /// The first message at a place or behind it.
    fn get_from(&self, at: usize) -> Option<Seq> {
        let mut before = 0;
        for lane in [&self.backlog, &self.live, &self.held] {
            let mut items = lane.items.iter().skip(at.saturating_sub(before));
            if let Some(item) = items.find(|item| !item.is_hole()) {
                return Some(item.seq);
            }
            before += lane.items.len();
        }
        None
    }

    fn place_of(&self, seq: Seq) -> usize {
        let mut before = 0;
        for lane in [&self.backlog, &self.live, &self.held] {
            if let Some(at) = lane.find(seq) {
                return before + at;
            }
            before += lane.items.len();
        }
        0
    }

    /// The stored messages without a body among the first ones of each lane, up to a number and a sum of bytes (always one).
    pub fn cold(&self, most: usize, most_bytes: u64, readable: impl Fn(Seq) -> bool) -> Vec<Seq> {
        let mut seqs = Vec::new();
        let lanes = [&self.backlog, &self.live];
        let waiting = lanes.iter().filter(|lane| !lane.items.is_empty());
        let shares = waiting.count().max(1);
        for lane in lanes {
            let (mut bytes, before) = (0, seqs.len());
            let first = lane.messages().take(most / shares);
            for item in first.filter(|item| item.body.is_none() && readable(item.seq)) {
                bytes += u64::from(item.size);
                if bytes > most_bytes / shares as u64 && seqs.len() > before {
                    break;
                }
                seqs.push(item.seq);
            }
        }
        seqs
    }

    /// Whether one of the lanes will soon run out of bodies, when a message has just been sent: that behind `ahead` others has none, or the first of
    /// the lane whose turn it was not.
    pub fn is_running_cold(&self, ahead: usize) -> bool {
        let has_none = |lane: &Lane, at| {
            let item = lane.items.get(at);
            item.is_some_and(|item: &Queued| item.body.is_none() && !item.is_hole())
        };
        has_none(&self.backlog, ahead)
            || has_none(&self.live, ahead)
            || has_none(&self.live, 0)
            || self.run > 0 && has_none(&self.backlog, 0)
    }

    /// Puts bodies that were read from the store into their messages. Returns the messages whose body is not in the store; they are taken out.
    pub fn warm(&mut self, bodies: &[(Seq, Option<Message>)]) -> Vec<Queued> {
        let mut missing = Vec::new();
        for lane in [&mut self.backlog, &mut self.live] {
            for (seq, body) in bodies {
                let Some(at) = lane.find(*seq) else { continue };
                let item = &mut lane.items[at];
                if item.body.is_some() {
                    continue;
                }
                if body.is_some() {
                    item.body.clone_from(body);
                    self.hot_bytes += hot(item);
                } else {
                    missing.extend(lane.hollow(at));
                }
            }
            lane.tidy();
        }
        for item in &missing {
            self.discount(item);
        }
        missing
    }

    /// Says of all messages of QoS 1 that they may have been sent before.
    pub fn mark_dup(&mut self) {
        for item in &mut self.backlog.items {
            item.dup |= item.qos == QoS::AtLeastOnce;
        }
    }

    /// Drops the bodies that the store has as well.
    pub fn cool(&mut self) {
        let waiting = self.backlog.items.iter_mut().chain(&mut self.live.items);
        for item in waiting.chain(&mut self.held.items) {
            if self.hot_bytes == 0 {
                break;
            }
            if item.is_stored() {
                self.hot_bytes -= hot(item);
                item.body = None;
            }
        }
    }

    fn count(&mut self, item: &Queued) {
        self.bytes += u64::from(item.size);
        self.hot_bytes += hot(item);
    }

    fn discount(&mut self, item: &Queued) {
        self.bytes -= u64::from(item.size);
        self.hot_bytes -= hot(item);
    }
}

/// What a message takes of the memory for bodies.
fn hot(item: &Queued) -> u64 {
    if item.body.is_some() {
        u64::from(item.size)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(seq: u64, expires: u64) -> Queued {
        Queued {
            seq: Seq(seq),
            body: None,
            ids: SubscriptionIds::NONE,
            expires,
            size: (seq % 7) as u32,
            qos: QoS::AtLeastOnce,
            retain: false,
            level: Durability::Fsync,
            reveals: Stamp::NONE,
            dup: false,
        }
    }

    #[test]
    fn a_message_takes_48_bytes() {
        assert_eq!(size_of::<Queued>(), 48);
    }

    /// Whatever is put in and taken out, anywhere: the queue is what a plain list would be.
    #[test]
    fn holes_are_not_seen() {
        let mut state = 1_u64;
        let mut below = |most: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % most
        };
        let mut queue = Queue::new(QueueKey(1));
        let mut model: Vec<Seq> = Vec::new();
        let mut live: Vec<Seq> = Vec::new();
        let mut held: Vec<Seq> = Vec::new();
        let mut swept = 0;
        for seq in 0..50_000 {
            let grows = (seq / 5000) % 2 == 0;
            for _ in 0..if grows { 1 } else { 2 } {
                let all: Vec<Seq> = model.iter().chain(&live).chain(&held).copied().collect();
                match below(16) {
                    0..=2 if !all.is_empty() => {
                        let gone = all[below(all.len() as u64) as usize];
                        assert_eq!(queue.remove(gone).map(|item| item.seq), Some(gone));
                        assert!(queue.find(gone).is_none() && queue.remove(gone).is_none());
                        model.retain(|seq| *seq != gone);
                        live.retain(|seq| *seq != gone);
                        held.retain(|seq| *seq != gone);
                    }
                    12..=13 => {
                        if let Some(item) = queue.next().and_then(|at| queue.take(at)) {
                            model.retain(|seq| *seq != item.seq);
                            live.retain(|seq| *seq != item.seq);
                            held.push(item.seq);
                            held.sort_unstable();
                            queue.hold(item);
                        }
                    }
                    14 if below(200) == 0 => {
                        assert_eq!(queue.release_held(), !held.is_empty());
                        model.append(&mut held);
                        model.sort_unstable();
                    }
                    15 => {
                        let oldest = (!held.is_empty()).then(|| held.remove(0));
                        assert_eq!(queue.take_oldest_held().map(|item| item.seq), oldest);
                    }
                    3..=5 => {
                        let next = queue.next().and_then(|at| queue.take(at));
                        if let Some(item) = next {
                            let lane = if live.first() == Some(&item.seq) {
                                &mut live
                            } else {
                                &mut model
                            };
                            assert_eq!(lane.remove(0), item.seq);
                        }
                    }
                    6 => assert_eq!(
                        queue.take_oldest().map(|item| item.seq),
                        if model.is_empty() {
                            let lane = if live.is_empty() {
                                &mut held
                            } else {
                                &mut live
                            };
                            (!lane.is_empty()).then(|| lane.remove(0))
                        } else {
                            Some(model.remove(0))
                        }
                    ),
                    7 if below(50) == 0 => {
                        queue.end_live();
                        model.append(&mut live);
                    }
                    8 if below(20) == 0 => {
                        let (expired, next) = queue.sweep(swept, 50, seq);
                        swept = next.unwrap_or(0);
                        for item in expired {
                            assert!(item.is_expired(seq));
                            model.retain(|seq| *seq != item.seq);
                            live.retain(|seq| *seq != item.seq);
                            held.retain(|seq| *seq != item.seq);
                        }
                    }
                    _ => {}
                }
            }
            let expires = if seq % 3 == 0 { seq + 100 } else { 0 };
            if live.is_empty() && below(10) > 0 {
                queue.insert(item(seq, expires));
                model.push(Seq(seq));
            } else {
                queue.insert_live(item(seq, expires));
                live.push(Seq(seq));
            }
            let all = model.iter().chain(&live).chain(&held);
            assert_eq!(queue.len(), model.len() + live.len() + held.len());
            assert_eq!(queue.bytes(), all.clone().map(|seq| seq.0 % 7).sum::<u64>());
            let first = model.first().or_else(|| live.first());
            assert_eq!(queue.front().map(|item| item.seq), first.copied());
            assert_eq!(queue.is_empty(), first.is_none());
            if seq % 100 == 0 {
                assert!(queue.messages().map(|item| item.seq).eq(all.copied()));
                let holes = queue.backlog.holes + queue.live.holes + queue.held.holes;
                assert!(holes <= queue.len() + 96, "{holes}");
            }
        }
    }
}
