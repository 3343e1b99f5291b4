//! Spreads: messages for thousands of receivers, handed out in slices.
//!
//! A session's next message must not overtake a message on its way here. So whoever gives a session a
//! message first calls [`Broker::catch_up`].
//!
//! At QoS 1 and 2, the receivers that still have to get the message are stored with it. The rows are
//! rewritten in the batches that have the deliveries. So the acknowledgement does not wait for all
//! deliveries, and after a crash each receiver gets the message once.

use crate::broker::Broker;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::record::Durability;
use crate::broker::state::offer::{Frames, Offer, Receiver};
use crate::broker::state::spreads::{Next, Spread, Spreads};
use crate::broker::state::timers::Timer;
use crate::wire::QoS;

/// What a delivery at QoS 1 or 2 costs, compared with one at QoS 0.
const ACKNOWLEDGED: u64 = 3;

/// When the next slice follows, in milliseconds.
const PAUSE_MS: u64 = 1;

/// While so many messages of one client are being handed out, nothing more is read from it.
const EACH: usize = if cfg!(test) { 4 } else { 64 };

/// So many receivers may wait for their turn at once. Whoever publishes more has some of it done first.
const WAITING: usize = if cfg!(test) { 500 } else { 1 << 22 };

/// What a delivery costs, in deliveries at QoS 0.
pub(in crate::broker) fn cost(qos: QoS) -> u64 {
    match qos {
        QoS::AtMostOnce => 1,
        QoS::AtLeastOnce | QoS::ExactlyOnce => ACKNOWLEDGED,
    }
}

impl Broker {
    /// Takes off those who do not get a message of this QoS at once: nobody does, while another one is being handed out to very many.
    pub(in crate::broker) fn split_slice(
        &self,
        qos: QoS,
        receivers: &mut Vec<Receiver>,
    ) -> Vec<Receiver> {
        let mut left = self.upkeep.spreads.slice();
        if receivers.len() as u64 * ACKNOWLEDGED <= left {
            return Vec::new();
        }
        let end = receivers.iter().position(|receiver| {
            let is_over = left == 0;
            left = left.saturating_sub(cost(qos.min(receiver.subscriber.qos())));
            is_over
        });
        match end {
            Some(_) if !self.upkeep.spreads.is_empty() => std::mem::take(receivers),
            Some(end) => receivers.split_off(end),
            None => Vec::new(),
        }
    }

    /// Hands a message to these receivers bit by bit; they are in the order of their sessions.
    pub(in crate::broker) fn spread(&mut self, offer: &mut Offer<'_>, receivers: Vec<Receiver>) {
        let mut spread = Spread::new(offer, receivers);
        if offer.level != Durability::Memory {
            let (gate, uptime) = (&mut self.gate, self.now.uptime);
            spread.store(&self.sessions, &self.messages, |write| {
                gate.write(write, uptime)
            });
        }
        offer.stored += u32::from(spread.is_stored());
        self.upkeep.spreads.add(spread);
        if self.upkeep.spreads.len() == 1 {
            self.timers.set(self.now.uptime + PAUSE_MS, Timer::Spread);
        }
        while self.upkeep.spreads.waiting() > WAITING {
            self.spread_on(self.upkeep.spreads.slice());
        }
    }

    /// Whether so much of what a connection's client has published is being handed out that it should publish nothing more for now.
    #[inline]
    pub(in crate::broker) fn is_spreading_much(&self, id: ConnectionId) -> bool {
        if self.upkeep.spreads.len() < EACH {
            return false;
        }
        let connection = self.connections.get(id);
        let session = connection.and_then(|connection| connection.session());
        self.upkeep.spreads.has_many_from(session, EACH)
    }

    /// Hands out the next slice.
    pub(in crate::broker) fn spread_slice(&mut self) {
        self.upkeep.spreads.forget_frames();
        self.spread_on(self.upkeep.spreads.slice());
        if !self.upkeep.spreads.is_empty() {
            self.timers.set(self.now.uptime + PAUSE_MS, Timer::Spread);
        }
        self.resume_reading();
    }

    /// Gives a session all that is on its way to it here.
    #[inline]
    pub(in crate::broker) fn catch_up(&mut self, session: SessionIndex) {
        if !self.upkeep.spreads.is_empty() {
            self.catch_up_all(session);
        }
    }

    #[cold]
    fn catch_up_all(&mut self, session: SessionIndex) {
        let mut spreads = std::mem::take(&mut self.upkeep.spreads);
        self.give_all(&mut spreads, session, 0);
        self.upkeep.spreads = spreads;
    }

    /// Forgets what is on its way to a session that ends: another one may get its place.
    pub(in crate::broker) fn end_spreads(&mut self, session: SessionIndex) {
        self.upkeep.spreads.forget(session);
    }

    /// Goes on until that has cost `most`. Whoever has its turn is given all there is for it: so of many messages for the same very many, each of them
    /// is woken once.
    fn spread_on(&mut self, most: u64) {
        let mut spreads = std::mem::take(&mut self.upkeep.spreads);
        let slice = self.pace.slice(most);
        while !self.pace.is_over(slice)
            && let Some(next) = spreads.take_next()
        {
            match next {
                Next::Session(session, at) => self.give_all(&mut spreads, session, at),
                Next::Done(spread) => self.end_spread(&spread),
            }
        }
        self.upkeep.spreads = spreads;
    }

    /// Gives a session all there is for it, the oldest first. `guess` is where it may be among the receivers.
    fn give_all(&mut self, spreads: &mut Spreads, session: SessionIndex, guess: usize) {
        let before = self.pace.spent();
        spreads.give_all(session, guess, |receiver, offer, frames| {
            self.give_one(receiver, offer, frames);
        });
        if self.pace.spent() == before {
            self.pace.spend(1);
        }
    }

    fn give_one(&mut self, receiver: Receiver, offer: &mut Offer<'_>, frames: &mut Frames) {
        let session = receiver.subscriber.session;
        let parts = offer.parts;
        if parts.expires.is_some_and(|at| at <= self.now.unix) {
            return self.count_expired(Some(session)); // [MQTT-3.3.2-5]
        }
        // Rights may have changed meanwhile.
        match !self.sessions.restricted || self.is_readable(session, parts.topic) {
            true => self.hand_out(receiver, offer, frames),
            false => self.hold_offer(receiver, offer),
        }
        self.messages.share(offer.seq, offer.stored);
    }

    /// Everybody has a message.
    fn end_spread(&mut self, spread: &Spread) {
        for write in spread.removals() {
            self.write(write);
        }
        if spread.is_stored() {
            self.release_body(spread.seq());
        }
    }

    /// Whether [`Broker::write_spreads`] has something.
    pub(in crate::broker) fn spreads_changed(&self) -> bool {
        self.upkeep.spreads.have_changed()
    }

    /// Writes whom messages are still to be given to, where that has changed.
    pub(in crate::broker) fn write_spreads(&mut self) {
        let (gate, uptime) = (&mut self.gate, self.now.uptime);
        let spreads = &mut self.upkeep.spreads;
        spreads.write(&self.sessions, &self.messages, |write| {
            gate.write(write, uptime)
        });
    }

    /// Makes slices smaller, for tests.
    #[cfg(test)]
    pub(crate) fn set_slice(&mut self, slice: u64) {
        self.upkeep.spreads.set_slice(slice);
    }

    /// The stored messages that are being handed out.
    #[cfg(test)]
    pub(in crate::broker) fn spread_seqs(
        &self,
    ) -> impl Iterator<Item = crate::broker::model::record::Seq> {
        self.upkeep.spreads.stored()
    }
}
