//! The load itself: any number of connections in one thread, driven by readiness, with all that is sent and received counted.
//!
//! It runs beside the broker it measures, so it takes little: one buffer to read into, packets written by copying a template, no allocation a
//! message, one read and one write a connection and turn.

mod alarm;
mod channel;
mod connect;
mod flow;
mod frame;
mod link;
mod peer;
mod publish;
mod schedule;
mod tally;

use std::net::SocketAddr;
use std::time::Duration;

use mio::{Events, Poll, Token};

pub use flow::Shape;
pub use frame::STAMP_BYTES;
pub use peer::Client;

use super::histogram::Histogram;
use super::model::{Load, Target};
use super::outcome::Faults;
use crate::cli::exit::{self, Failure};
use crate::cli::transport::Layers;
use crate::clock::{self, Stopwatch};
use crate::wire::packet::Publish;
use crate::wire::{Properties, ProtocolVersion, QoS, codec};
use alarm::Alarm;
use flow::{Flow, Publisher};
use frame::{Frame, Stamp};
use peer::Peer;
use schedule::Schedule;
use tally::{GroupTally, Seen};

/// Bytes that may wait for one connection before its publisher makes no more.
const MAX_WAITING: usize = 256 * 1024;
const ALARM: Token = Token(usize::MAX);

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Messages published.
    pub published: u64,
    /// Messages acknowledged by PUBACK or PUBCOMP.
    pub acknowledged: u64,
    /// Messages that arrived, repetitions included.
    pub delivered: u64,
    /// Messages that arrived for the first time.
    pub arrived: u64,
    /// Messages the broker refused with a reason code.
    pub refused: u64,
    /// Packets that nobody should have got: foreign messages, acknowledgements of nothing.
    pub strange: u64,
    /// Messages given up, because nothing arrived for long.
    pub written_off: u64,
}

/// All connections of a run.
#[derive(Debug)]
pub struct Rig {
    addr: SocketAddr,
    layers: Option<Layers>,
    version: ProtocolVersion,
    username: Option<String>,
    password: Option<String>,
    run: u32,
    poll: Poll,
    events: Option<Events>,
    alarm: Alarm,
    clock: Stopwatch,
    peers: Vec<Peer>,
    publishers: Vec<Publisher>,
    flows: Vec<Flow>,
    hungry: Vec<u32>,
    dirty: Vec<u32>,
    scratch: Vec<u8>,
    schedule: Option<Schedule>,
    publishing: bool,
    group: Option<GroupTally>,
    late_in_group: u64,
    tolerant: bool,
    anything: bool,
    last_progress: u64,
    counts: Counts,
    /// From the time a message was to be sent, or was sent in the closed loop, to its arrival; in nanoseconds.
    pub latency: Histogram,
    /// From the beginning of a connection to its CONNACK.
    pub connect_latency: Histogram,
}

impl Rig {
    /// A run against this broker, without any connection.
    ///
    /// # Errors
    /// The operating system cannot poll, or a file of TLS cannot be used.
    pub fn new(target: &Target, load: &Load) -> Result<Rig, Failure> {
        let failed = |error: std::io::Error| Failure::new(exit::FAILED, error.to_string());
        super::process::raise_open_files();
        let poll = Poll::new().map_err(failed)?;
        let alarm = Alarm::new(poll.registry(), ALARM).map_err(failed)?;
        let Target { addr, host, .. } = target;
        Ok(Rig {
            addr: *addr,
            layers: load.transport.layers(host, addr.port(), load.version)?,
            version: load.version,
            username: load.username.clone(),
            password: load.password.clone(),
            run: clock::seed() as u32,
            poll,
            events: Some(Events::with_capacity(1024)),
            alarm,
            clock: Stopwatch::start(),
            peers: Vec::new(),
            publishers: Vec::new(),
            flows: Vec::new(),
            hungry: Vec::new(),
            dirty: Vec::new(),
            scratch: Vec::new(),
            schedule: None,
            publishing: false,
            group: None,
            late_in_group: 0,
            tolerant: false,
            anything: false,
            last_progress: 0,
            counts: Counts::default(),
            latency: Histogram::new(),
            connect_latency: Histogram::new(),
        })
    }

    /// Clients that connect from now on, or again, do so to this broker, on TCP.
    pub fn turn_to(&mut self, target: &Target) {
        self.addr = target.addr;
    }

    /// What distinguishes this run's topics and client identifiers from those of others.
    pub fn name(&self) -> String {
        format!("{:08x}", self.run)
    }

    /// Nanoseconds since the run began.
    #[inline]
    pub fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Receivers check each message for the whole group: any member may get it, but only one.
    pub fn share(&mut self) {
        self.group = Some(GroupTally::default());
    }

    /// Takes messages of other runs, and whatever else comes: they are counted, not checked.
    pub fn take_anything(&mut self) {
        self.anything = true;
    }

    /// Connections may be lost from now on, or not.
    pub fn tolerate_loss(&mut self, tolerant: bool) {
        self.tolerant = tolerant;
    }

    /// Takes back what is retained under these topics.
    ///
    /// # Errors
    /// As [`Rig::run_for`].
    pub fn clear_retained(&mut self, peer: usize, topics: &[String]) -> Result<(), Failure> {
        for topic in topics {
            let publish = Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: true,
                topic,
                packet_id: None,
                properties: Properties::EMPTY,
                payload: &[],
            };
            let link = &mut self.peers[peer].link;
            codec::encode_publish(&publish, self.version, link.out());
            while self.peers[peer].link.waiting() > MAX_WAITING {
                self.peers[peer].mark_dirty(peer as u32, &mut self.dirty);
                self.turn(Duration::from_millis(20))?;
            }
        }
        self.peers[peer].mark_dirty(peer as u32, &mut self.dirty);
        self.flush_dirty()
    }

    /// Goes on for some time.
    ///
    /// # Errors
    /// A connection is lost, or the broker breaks the protocol.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        let end = self.now() + time.as_nanos() as u64;
        loop {
            let now = self.now();
            if now >= end {
                return Ok(());
            }
            self.turn(Duration::from_nanos(end - now))?;
        }
    }

    /// Goes on until `done`, or until nothing has arrived for `patience`. Returns whether it was done.
    ///
    /// # Errors
    /// As [`Rig::run_for`].
    pub fn run_until(
        &mut self,
        patience: Duration,
        done: impl Fn(&Rig) -> bool,
    ) -> Result<bool, Failure> {
        self.last_progress = self.now();
        while !done(self) {
            let now = self.now();
            if now.saturating_sub(self.last_progress) > patience.as_nanos() as u64 {
                return Ok(false);
            }
            self.turn(Duration::from_millis(20))?;
        }
        Ok(true)
    }

    /// Stops publishing, and goes on until everything has arrived and is acknowledged, or nothing more comes.
    ///
    /// # Errors
    /// As [`Rig::run_for`].
    pub fn drain(&mut self, patience: Duration) -> Result<bool, Failure> {
        self.stop_publishing();
        self.run_until(patience, |rig| {
            rig.is_acknowledged() && rig.counts.arrived >= rig.expected()
        })
    }

    /// Whether all that was published is acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.publishers
            .iter()
            .all(|publisher| publisher.unacknowledged == 0)
    }

    /// Whether all publishers have sent all they may.
    pub fn has_sent_all(&self) -> bool {
        self.publishers
            .iter()
            .all(|publisher| publisher.sent >= publisher.allowed)
    }

    /// How many messages should have arrived, by those published so far and by those who receive.
    pub fn expected(&self) -> u64 {
        if self.group.is_some() {
            return self.flows.iter().map(|flow| flow.next_seq).sum();
        }
        let tallies = self.peers.iter().filter_map(|peer| peer.tally.as_ref());
        tallies
            .map(|tally| tally.expected(|flow| self.sent(flow)))
            .sum()
    }

    /// What was wrong so far, with all that has not arrived counted as lost.
    pub fn faults(&self) -> Faults {
        let mut faults = Faults {
            refused: self.counts.refused,
            strange: self.counts.strange,
            ..Faults::default()
        };
        if let Some(group) = &self.group {
            faults.lost = self.expected().saturating_sub(group.arrived);
            faults.duplicates = group.repeated;
            faults.disordered = self.late_in_group;
            return faults;
        }
        for tally in self.peers.iter().filter_map(|peer| peer.tally.as_ref()) {
            faults.lost += tally.lost(|flow| self.sent(flow));
            faults.duplicates += tally.faults().repeated;
            faults.disordered += tally.faults().late;
        }
        faults
    }

    /// One turn: waits for something to do, at most so long, and does all there is.
    ///
    /// # Errors
    /// As [`Rig::run_for`].
    pub fn turn(&mut self, wait: Duration) -> Result<(), Failure> {
        let wait = self.wait_for_due(wait)?;
        let mut events = self
            .events
            .take()
            .unwrap_or_else(|| Events::with_capacity(1024));
        let polled = self.poll.poll(&mut events, Some(wait));
        match polled {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(Failure::new(exit::FAILED, error.to_string()));
            }
            _ => {}
        }
        for event in &events {
            if event.token() != ALARM {
                let (readable, writable) = (event.is_readable(), event.is_writable());
                self.serve(event.token().0, readable, writable)?;
            }
        }
        self.events = Some(events);
        self.hand_out_due();
        self.feed_hungry();
        self.flush_dirty()?;
        self.check_stall()
    }

    fn flush_dirty(&mut self) -> Result<(), Failure> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let peer = &mut self.peers[index as usize];
            peer.dirty = false;
            if let Err(error) = peer.link.flush() {
                self.lose(index as usize, &error.to_string())?;
                continue;
            }
            // What nobody answers is held back by the socket alone.
            if let Some(publisher) = peer.publisher
                && peer.link.waiting() == 0
            {
                self.make_hungry(publisher);
            }
        }
        self.dirty = dirty;
        Ok(())
    }

    fn serve(&mut self, index: usize, readable: bool, writable: bool) -> Result<(), Failure> {
        let Some(peer) = self.peers.get_mut(index).filter(|peer| !peer.is_gone()) else {
            return Ok(());
        };
        if writable {
            if let Err(error) = peer.link.writable() {
                return self.lose(index, &error.to_string());
            }
            if peer.link.wants_flush() {
                peer.mark_dirty(index as u32, &mut self.dirty);
                if let Some(publisher) = peer.publisher {
                    self.make_hungry(publisher);
                }
            }
        }
        if !readable {
            return Ok(());
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = self.read_all(index, &mut scratch);
        self.scratch = scratch;
        // A handshake that has ended with what was read lets CONNECT go.
        let peer = &mut self.peers[index];
        if peer.link.has_layers() && peer.link.wants_flush() && !peer.is_gone() {
            peer.link.try_again();
            peer.mark_dirty(index as u32, &mut self.dirty);
        }
        outcome
    }

    fn read_all(&mut self, index: usize, scratch: &mut Vec<u8>) -> Result<(), Failure> {
        loop {
            let (filled, more) = match self.peers[index].link.read(scratch) {
                Ok(read) => read,
                Err(error) => return self.lose(index, &error.to_string()),
            };
            let now = self.now();
            let mut used = 0;
            let whole = &scratch[..filled];
            while used < filled {
                match frame::first(&whole[used..], self.version) {
                    Ok(Some((frame, len))) => {
                        used += len;
                        self.receive(index, frame, now)?;
                    }
                    Ok(None) => break,
                    Err(what) => {
                        return Err(Failure::new(exit::WRONG, format!("the broker sent {what}")));
                    }
                }
            }
            if self.peers[index].is_gone() {
                return Ok(());
            }
            self.peers[index].link.keep(&whole[used..]);
            if !more {
                return Ok(());
            }
        }
    }

    fn receive(&mut self, index: usize, frame: Frame<'_>, now: u64) -> Result<(), Failure> {
        match frame {
            Frame::Publish { qos, id, payload } => {
                self.receive_publish(index, qos, id, payload, now);
                Ok(())
            }
            Frame::Ack { kind: 6, id, .. } => {
                let peer = &mut self.peers[index];
                peer.held.remove(id);
                peer.reply(0x70, id);
                peer.mark_dirty(index as u32, &mut self.dirty);
                Ok(())
            }
            Frame::Ack { kind, id, reason } => {
                self.receive_ack(index, kind, id, reason, now);
                Ok(())
            }
            Frame::Other(frame) => self.receive_other(index, frame, now),
        }
    }

    #[inline]
    fn receive_publish(&mut self, index: usize, qos: u8, id: u16, payload: &[u8], now: u64) {
        let peer = &mut self.peers[index];
        let mut repeated_part = false;
        if qos > 0 {
            if qos == 2 {
                repeated_part = !peer.held.insert(id);
            }
            peer.reply(if qos == 1 { 0x40 } else { 0x50 }, id);
            peer.mark_dirty(index as u32, &mut self.dirty);
        }
        if repeated_part {
            // The standard's own repetition of a QoS 2 message: it is not a second message.
            return;
        }
        if self.anything {
            self.counts.delivered += 1;
            return;
        }
        let Some(stamp) = Stamp::of(payload).filter(|stamp| stamp.run == self.run) else {
            self.counts.strange += 1;
            return;
        };
        let Some(tally) = &mut peer.tally else {
            self.counts.strange += 1;
            return;
        };
        self.counts.delivered += 1;
        self.last_progress = now;
        self.latency.record(now.saturating_sub(stamp.at));
        let seen = tally.see(stamp.flow, stamp.seq);
        if let Some(group) = &mut self.group {
            let fresh = group.see(stamp.flow, stamp.seq);
            self.counts.arrived += u64::from(fresh);
            self.late_in_group += u64::from(fresh && seen == Seen::Again);
            if fresh {
                self.credit(stamp.flow, stamp.seq);
            }
            return;
        }
        match seen {
            Seen::Next => self.credit(stamp.flow, stamp.seq),
            Seen::After(gap) => {
                // What was left out will not come, so nobody waits for it.
                for seq in gap.start..=gap.end {
                    self.credit(stamp.flow, seq);
                }
            }
            Seen::Late => {}
            Seen::Again => return,
            Seen::Foreign => {
                self.counts.strange += 1;
                return;
            }
        }
        self.counts.arrived += 1;
    }

    /// A message has reached one of its receivers.
    #[inline]
    fn credit(&mut self, flow: u32, seq: u64) {
        let flow = &mut self.flows[flow as usize];
        let reached = flow.reach(seq);
        if reached > 0 {
            let index = flow.publisher;
            let publisher = &mut self.publishers[index as usize];
            publisher.unreached = publisher.unreached.saturating_sub(reached);
            self.make_hungry(index);
        }
    }

    fn receive_ack(&mut self, index: usize, kind: u8, id: u16, reason: u8, now: u64) {
        let peer = &mut self.peers[index];
        let refused = reason >= 0x80;
        let Some(publisher) = peer.publisher else {
            self.counts.strange += 1;
            return;
        };
        let Some(ended) = self.publishers[publisher as usize].acknowledge(kind, id, refused) else {
            self.counts.strange += 1;
            return;
        };
        self.last_progress = now;
        // A PUBCOMP that says it knows nothing of the message ends it as well.
        let refused = refused && kind != 7;
        self.counts.refused += u64::from(refused);
        if ended {
            self.counts.acknowledged += u64::from(!refused);
            self.make_hungry(publisher);
        } else {
            peer.reply(0x62, id);
            peer.mark_dirty(index as u32, &mut self.dirty);
        }
    }
}
