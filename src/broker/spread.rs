//! A message of QoS 0 for very many: it is handed out in slices, and others get their turn in between.
//!
//! What a session is to be given next must not overtake what is on its way to it here, so whoever gives it something calls [`Broker::catch_up`]
//! first. Messages of QoS 1 and 2 are handed out at once, since their acknowledgement waits for all of their rows.

use std::collections::VecDeque;

use super::gate::Stamp;
use super::message::Message;
use super::record::{Durability, Seq};
use super::route::{Frames, Offer, Receiver};
use super::timer::Timer;
use super::{Broker, SessionIndex};

/// Receivers that are given a message in one go: about a millisecond's work.
pub(super) const SLICE: usize = if cfg!(test) { 8 } else { 4096 };
/// When the next slice follows, in milliseconds.
const SLICE_MS: u64 = 1;
/// Messages that may be on their way here at once. One more, and the oldest is handed out whole.
const MOST: usize = 64;

/// The messages that are being handed out, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Spreads {
    all: VecDeque<Spread>,
    frames: Frames,
}

#[derive(Debug)]
struct Spread {
    message: Message,
    stamp: Stamp,
    /// By session. `None` for those who have it.
    receivers: Vec<(SessionIndex, Option<Receiver>)>,
    /// All before this one have it.
    next: usize,
}

impl Spread {
    fn take(&mut self, session: SessionIndex) -> Option<Receiver> {
        let at = self.receivers.binary_search_by_key(&session, |it| it.0);
        self.receivers[at.ok()?].1.take()
    }
}

impl Broker {
    /// Hands a message to these receivers bit by bit.
    pub(super) fn spread(&mut self, offer: &mut Offer<'_>, receivers: Vec<Receiver>) {
        let mut receivers: Vec<(SessionIndex, Option<Receiver>)> = receivers
            .into_iter()
            .map(|receiver| (receiver.subscriber.session, Some(receiver)))
            .collect();
        receivers.sort_by_key(|it| it.0);
        self.spreads.all.push_back(Spread {
            message: offer.body(),
            stamp: offer.stamp,
            receivers,
            next: 0,
        });
        match self.spreads.all.len() {
            1 => self.timers.set(self.now.uptime + SLICE_MS, Timer::Spread),
            more if more > MOST => self.spread_on(usize::MAX),
            _ => {}
        }
    }

    /// Hands out the next slice.
    pub(super) fn spread_slice(&mut self) {
        self.spread_on(SLICE);
        if !self.spreads.all.is_empty() {
            self.timers.set(self.now.uptime + SLICE_MS, Timer::Spread);
        }
    }

    /// Gives a session all that is on its way to it here.
    #[inline]
    pub(super) fn catch_up(&mut self, session: SessionIndex) {
        if !self.spreads.all.is_empty() {
            self.catch_up_all(session);
        }
    }

    #[cold]
    fn catch_up_all(&mut self, session: SessionIndex) {
        let mut spreads = std::mem::take(&mut self.spreads);
        for spread in &mut spreads.all {
            if let Some(receiver) = spread.take(session) {
                spreads.frames.clear();
                self.hand_out(&spread.message, spread.stamp, receiver, &mut spreads.frames);
            }
        }
        self.spreads = spreads;
    }

    /// Forgets what is on its way to a session that ends: another one may get its place.
    pub(super) fn end_spreads(&mut self, session: SessionIndex) {
        for spread in &mut self.spreads.all {
            spread.take(session);
        }
    }

    /// Gives the oldest message to the next receivers, at most so many.
    fn spread_on(&mut self, most: usize) {
        let mut spreads = std::mem::take(&mut self.spreads);
        if let Some(spread) = spreads.all.front_mut() {
            spreads.frames.clear();
            let end = spread.receivers.len().min(spread.next.saturating_add(most));
            for at in spread.next..end {
                if let Some(receiver) = spread.receivers[at].1.take() {
                    self.hand_out(&spread.message, spread.stamp, receiver, &mut spreads.frames);
                }
            }
            spread.next = end;
            if end == spread.receivers.len() {
                spreads.all.pop_front();
            }
        }
        self.spreads = spreads;
    }

    fn hand_out(
        &mut self,
        message: &Message,
        stamp: Stamp,
        receiver: Receiver,
        frames: &mut Frames,
    ) {
        let (parts, session) = (message.parts(), receiver.subscriber.session);
        // Rights may have changed meanwhile.
        if self.restricted && !self.may_read(session, parts.topic) {
            return;
        }
        let offer = Offer {
            parts: &parts,
            body: None,
            seq: Seq::default(),
            level: Durability::Memory,
            stamp,
            stored: 0,
            admitted: false,
        };
        let retain = parts.retain && receiver.subscriber.retain_as_published();
        self.deliver_qos0(session, &offer, retain, receiver.ids.as_slice(), frames);
    }
}
