//! Messages that are handed out to very many receivers, a slice at a time.

use std::collections::VecDeque;

use crate::broker::model::ids::SessionIndex;
use crate::broker::model::message::Message;
use crate::broker::model::record::{Durability, Seq, SpreadReceiver, SpreadRecord, Write};
use crate::broker::state::gate::{Stamp, WRITE_WEIGHT};
use crate::broker::state::messages::Messages;
use crate::broker::state::offer::{Frames, Offer, Receiver};
use crate::broker::state::sessions::Sessions;
use crate::wire::QoS;

/// What is handed out in one go, in deliveries at QoS 0: one or two milliseconds' work.
const COST_AT_ONCE: u64 = 8192;

/// Receivers whose names share a row.
const PART: usize = if cfg!(test) { 3 } else { 256 };

/// The messages that are being handed out, the oldest first.
#[derive(Debug)]
pub struct Spreads {
    all: VecDeque<Spread>,
    /// Receivers that have not got their message, of all.
    waiting: usize,
    /// Those of messages that are stored: their deliveries will be, too.
    waiting_stored: usize,
    /// A row must be written anew.
    changed: bool,
    /// [`COST_AT_ONCE`], or less in tests.
    slice: u64,
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

/// A message that is being handed out.
#[derive(Debug)]
pub struct Spread {
    message: Message,
    seq: Seq,
    level: Durability,
    stamp: Stamp,
    admitted: bool,
    from: Option<SessionIndex>,
    /// In the order of their sessions.
    receivers: Vec<Receiver>,
    /// Which of them have the message.
    given: Vec<bool>,
    /// How many have not.
    left: usize,
    /// All before this one have it.
    next: usize,
    /// Encoded QoS 0 deliveries that several receivers share.
    frames: Frames,
    /// One for each part of the receivers; none if nobody is in the store.
    rows: Vec<Row>,
}

/// The row of a part of the receivers.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The store has it.
    stored: bool,
    /// It must be written anew.
    changed: bool,
}

/// What comes next in handing out.
#[derive(Debug)]
pub enum Next {
    /// A session, and where it is among the receivers of the oldest message.
    Session(SessionIndex, usize),
    /// Everybody has this message.
    Done(Box<Spread>),
}

impl Spreads {
    /// Whether no message is being handed out.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What is handed out in one go, in deliveries at QoS 0.
    pub fn slice(&self) -> u64 {
        self.slice
    }

    /// Receivers that have not got their message, of all messages.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes of rows that are still to be written for messages that were accepted, about.
    pub fn promised_bytes(&self) -> usize {
        self.waiting_stored * WRITE_WEIGHT
    }

    /// Whether `most` messages of one session, or more, are being handed out.
    pub fn has_many_from(&self, session: Option<SessionIndex>, most: usize) -> bool {
        let of_it = |spread: &&Spread| spread.from == session;
        session.is_some() && self.all.iter().filter(of_it).count() >= most
    }

    /// How many messages are being handed out.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Adds a message, after all others.
    pub fn add(&mut self, spread: Spread) {
        self.waiting += spread.left;
        self.waiting_stored += spread.left_stored();
        self.all.push_back(spread);
    }

    /// Drops encoded deliveries: what is left of an expiry interval is in them.
    pub fn forget_frames(&mut self) {
        for spread in &mut self.all {
            spread.frames.clear();
        }
    }

    /// Takes out the oldest message if everybody has it. Otherwise returns who is next to get it.
    pub fn take_next(&mut self) -> Option<Next> {
        let first = self.all.front_mut()?;
        if first.left == 0 {
            let done = self.all.pop_front()?;
            return Some(Next::Done(Box::new(done)));
        }
        let left = first.given[first.next..].iter();
        let at = first.next + left.take_while(|given| **given).count();
        first.next = at + 1;
        let session = first.receivers[at].subscriber.session;
        Some(Next::Session(session, at))
    }

    /// Gives a session all messages that it has not got, the oldest first. `guess` is where it may be
    /// among the receivers.
    pub fn give_all(
        &mut self,
        session: SessionIndex,
        guess: usize,
        mut deliver: impl FnMut(Receiver, &mut Offer<'_>, &mut Frames),
    ) {
        for at in 0..self.all.len() {
            if let Some((spread, receiver)) = self.take(at, session, guess) {
                spread.give(receiver, &mut deliver);
            }
        }
    }

    /// Forgets a session that ends, as a receiver and as a publisher.
    pub fn forget(&mut self, session: SessionIndex) {
        for at in 0..self.all.len() {
            let from = &mut self.all[at].from;
            *from = from.filter(|from| *from != session);
            self.take(at, session, 0);
        }
    }

    /// Takes a session out of the receivers that have not got a message.
    fn take(
        &mut self,
        at: usize,
        session: SessionIndex,
        guess: usize,
    ) -> Option<(&mut Spread, Receiver)> {
        let spread = &mut self.all[at];
        let receiver = spread.take(session, guess)?;
        self.waiting -= 1;
        self.waiting_stored -= usize::from(spread.is_stored());
        self.changed |= spread.is_stored();
        Some((spread, receiver))
    }

    /// Whether rows must be written anew.
    pub fn have_changed(&self) -> bool {
        self.changed
    }

    /// Writes the rows that must be written anew.
    pub fn write(
        &mut self,
        sessions: &Sessions,
        messages: &Messages,
        mut write: impl FnMut(Write),
    ) {
        if std::mem::take(&mut self.changed) {
            for spread in &mut self.all {
                spread.write_changed(sessions, messages, &mut write);
            }
        }
    }

    /// Makes slices smaller, for tests.
    #[cfg(test)]
    pub fn set_slice(&mut self, slice: u64) {
        self.slice = slice;
    }

    /// The stored messages.
    #[cfg(test)]
    pub fn stored(&self) -> impl Iterator<Item = Seq> {
        let stored = self.all.iter().filter(|spread| spread.is_stored());
        stored.map(|spread| spread.seq)
    }
}

impl Spread {
    /// A message for these receivers, which are in the order of their sessions.
    pub fn new(offer: &mut Offer<'_>, receivers: Vec<Receiver>) -> Spread {
        debug_assert!(receivers.is_sorted_by_key(|receiver| receiver.subscriber.session));
        Spread {
            message: offer.body(),
            seq: offer.seq,
            level: offer.level,
            stamp: offer.stamp,
            admitted: offer.admitted,
            from: offer.from,
            given: vec![false; receivers.len()],
            left: receivers.len(),
            receivers,
            next: 0,
            frames: Frames::default(),
            rows: Vec::new(),
        }
    }

    /// Writes who of the receivers is in the store.
    pub fn store(&mut self, sessions: &Sessions, messages: &Messages, write: impl FnMut(Write)) {
        let row = Row {
            stored: false,
            changed: true,
        };
        self.rows = vec![row; self.receivers.len().div_ceil(PART)];
        self.write_changed(sessions, messages, write);
        if self.rows.iter().all(|row| !row.stored) {
            self.rows.clear();
        }
    }

    fn write_changed(
        &mut self,
        sessions: &Sessions,
        messages: &Messages,
        mut write: impl FnMut(Write),
    ) {
        for part in 0..self.rows.len() {
            if !std::mem::take(&mut self.rows[part].changed) {
                continue;
            }
            let record = self.record(part, sessions, messages);
            let stored = !record.receivers.is_empty();
            let was_stored = std::mem::replace(&mut self.rows[part].stored, stored);
            let (seq, part) = (self.seq, part as u16);
            if stored {
                write(Write::PutSpread(seq, part, record));
            } else if was_stored {
                write(Write::RemoveSpread(seq, part));
            }
        }
    }

    /// The writes that remove its rows.
    pub fn removals(&self) -> impl Iterator<Item = Write> {
        let rows = self.rows.iter().enumerate();
        let stored = rows.filter(|(_, row)| row.stored);
        stored.map(|(part, _)| Write::RemoveSpread(self.seq, part as u16))
    }

    /// The place of the message in the order in which messages were accepted.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Whether receivers are in the store.
    pub fn is_stored(&self) -> bool {
        !self.rows.is_empty()
    }

    /// How many have not got a message that is stored.
    fn left_stored(&self) -> usize {
        if self.is_stored() { self.left } else { 0 }
    }

    /// Where a receiver is, if it has not got the message; `guess` is where it may be.
    fn find(&self, session: SessionIndex, guess: usize) -> Option<usize> {
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

    /// Marks a receiver as served, if it is not yet; its row changes.
    fn take(&mut self, session: SessionIndex, guess: usize) -> Option<Receiver> {
        let at = self.find(session, guess)?;
        self.given[at] = true;
        self.left -= 1;
        if let Some(row) = self.rows.get_mut(at / PART) {
            row.changed = true;
        }
        let Receiver { subscriber, ids } = &mut self.receivers[at];
        Some(Receiver {
            subscriber: *subscriber,
            ids: std::mem::take(ids),
        })
    }

    /// Offers the message to a receiver.
    fn give(
        &mut self,
        receiver: Receiver,
        deliver: &mut impl FnMut(Receiver, &mut Offer<'_>, &mut Frames),
    ) {
        let parts = self.message.parts();
        let mut offer = Offer {
            parts: &parts,
            body: Some(self.message.clone()),
            seq: self.seq,
            level: self.level,
            stamp: self.stamp,
            stored: 0,
            admitted: self.admitted,
            taken: false,
            dropped: false,
            from: self.from,
            is_for_many: true,
        };
        deliver(receiver, &mut offer, &mut self.frames);
    }

    /// Who of a part of the receivers is in the store and has not got the message.
    fn record(&self, part: usize, sessions: &Sessions, messages: &Messages) -> SpreadRecord {
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
            message: messages.summary(&self.message),
            receivers: receivers.collect(),
        }
    }
}
