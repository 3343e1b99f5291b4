//! The load generator: any number of connections in one thread, driven by readiness. Counts
//! everything sent and received.
//!
//! It runs next to the broker that it measures, so it must use few resources: one read buffer,
//! packets copied from a template, no allocation for each message, and one read and one write for
//! each connection and poll.

mod channel;
mod connect;
mod flow;
mod frame;
mod link;
mod peer;
mod publish;
mod schedule;
mod sequence;
mod timer;

use std::net::SocketAddr;
use std::time::Duration;

use mio::{Events, Poll, Token};

pub use flow::Shape;
pub use frame::PAYLOAD_HEADER_BYTES;
pub use peer::Client;

use super::histogram::Histogram;
use super::model::{Load, Target};
use super::outcome::Faults;
use crate::cli::exit::{self, Failure};
use crate::cli::transport::Layers;
use crate::clock::{self, Stopwatch};
use crate::wire::packet::Publish;
use crate::wire::{Properties, ProtocolVersion, QoS, codec};
use flow::{Flow, Publisher};
use frame::{Frame, PayloadHeader};
use peer::Peer;
use schedule::Schedule;
use sequence::{Arrival, GroupSequence};
use timer::Timer;

/// The most bytes queued for one connection. Its publisher pauses when it is reached.
const MAX_PENDING_BYTES: usize = 256 * 1024;
const TIMER: Token = Token(usize::MAX);

/// Counts since the start of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Messages published.
    pub published: u64,
    /// Messages acknowledged by PUBACK or PUBCOMP.
    pub acknowledged: u64,
    /// Messages that arrived, including repetitions.
    pub delivered: u64,
    /// Messages that arrived for the first time.
    pub arrived: u64,
    /// Messages that the broker refused with a reason code.
    pub refused: u64,
    /// Packets that the broker must not send: foreign messages, acknowledgements of nothing.
    pub unexpected: u64,
    /// Messages given up because nothing arrived for a long time.
    pub given_up: u64,
}

/// All connections of a run.
#[derive(Debug)]
pub struct Generator {
    addr: SocketAddr,
    layers: Option<Layers>,
    version: ProtocolVersion,
    username: Option<String>,
    password: Option<String>,
    run: u32,
    poll: Poll,
    events: Option<Events>,
    timer: Timer,
    clock: Stopwatch,
    peers: Vec<Peer>,
    publishers: Vec<Publisher>,
    flows: Vec<Flow>,
    ready: Vec<u32>,
    dirty: Vec<u32>,
    scratch: Vec<u8>,
    schedule: Option<Schedule>,
    publishing: bool,
    group: Option<GroupSequence>,
    late_in_group: u64,
    tolerates_loss: bool,
    accept_all: bool,
    last_progress: u64,
    counts: Counts,
    /// Time from when a message was scheduled, or sent in the closed loop, to its arrival, in
    /// nanoseconds.
    pub latency: Histogram,
    /// Time from the start of a connection to its CONNACK, in nanoseconds.
    pub connect_latency: Histogram,
}

impl Generator {
    /// Starts a run against this broker, without any connection.
    ///
    /// # Errors
    /// Fails if the operating system cannot poll, or a TLS file cannot be used.
    pub fn new(target: &Target, load: &Load) -> Result<Generator, Failure> {
        let failed = |error: std::io::Error| Failure::new(exit::FAILED, error.to_string());
        super::process::raise_open_files();
        let poll = Poll::new().map_err(failed)?;
        let timer = Timer::new(poll.registry(), TIMER).map_err(failed)?;
        let Target { addr, host, .. } = target;
        Ok(Generator {
            addr: *addr,
            layers: load.transport.layers(host, addr.port(), load.version)?,
            version: load.version,
            username: load.username.clone(),
            password: load.password.clone(),
            run: clock::seed() as u32,
            poll,
            events: Some(Events::with_capacity(1024)),
            timer,
            clock: Stopwatch::start(),
            peers: Vec::new(),
            publishers: Vec::new(),
            flows: Vec::new(),
            ready: Vec::new(),
            dirty: Vec::new(),
            scratch: Vec::new(),
            schedule: None,
            publishing: false,
            group: None,
            late_in_group: 0,
            tolerates_loss: false,
            accept_all: false,
            last_progress: 0,
            counts: Counts::default(),
            latency: Histogram::new(),
            connect_latency: Histogram::new(),
        })
    }

    /// Makes clients that connect from now on connect to this broker, over TCP.
    pub fn set_target(&mut self, target: &Target) {
        self.addr = target.addr;
    }

    /// Returns a name that distinguishes the topics and client identifiers of this run from those
    /// of others.
    pub fn name(&self) -> String {
        format!("{:08x}", self.run)
    }

    /// Returns nanoseconds since the start of the run.
    #[inline]
    pub fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Makes all receivers one shared group: each message must reach exactly one member.
    pub fn check_as_group(&mut self) {
        self.group = Some(GroupSequence::default());
    }

    /// Accepts messages of other runs and others without a header. They are counted, not checked.
    pub fn accept_all(&mut self) {
        self.accept_all = true;
    }

    /// Sets whether connections may be lost from now on.
    pub fn tolerate_loss(&mut self, tolerates_loss: bool) {
        self.tolerates_loss = tolerates_loss;
    }

    /// Removes the retained messages of these topics.
    ///
    /// # Errors
    /// As [`Generator::run_for`].
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
            while self.peers[peer].link.waiting() > MAX_PENDING_BYTES {
                self.peers[peer].mark_dirty(peer as u32, &mut self.dirty);
                self.poll_once(Duration::from_millis(20))?;
            }
        }
        self.peers[peer].mark_dirty(peer as u32, &mut self.dirty);
        self.flush_dirty()
    }

    /// Runs for some time.
    ///
    /// # Errors
    /// Fails if a connection is lost, or the broker violates the protocol.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        let end = self.now() + time.as_nanos() as u64;
        loop {
            let now = self.now();
            if now >= end {
                return Ok(());
            }
            self.poll_once(Duration::from_nanos(end - now))?;
        }
    }

    /// Runs until `done`, or until nothing has arrived for `idle_timeout`. Returns whether it was
    /// done.
    ///
    /// # Errors
    /// As [`Generator::run_for`].
    pub fn run_until(
        &mut self,
        idle_timeout: Duration,
        done: impl Fn(&Generator) -> bool,
    ) -> Result<bool, Failure> {
        self.last_progress = self.now();
        while !done(self) {
            let now = self.now();
            if now.saturating_sub(self.last_progress) > idle_timeout.as_nanos() as u64 {
                return Ok(false);
            }
            self.poll_once(Duration::from_millis(20))?;
        }
        Ok(true)
    }

    /// Stops publishing, and runs until everything has arrived and is acknowledged, or nothing
    /// arrives for `idle_timeout`.
    ///
    /// # Errors
    /// As [`Generator::run_for`].
    pub fn drain(&mut self, idle_timeout: Duration) -> Result<bool, Failure> {
        self.stop_publishing();
        self.run_until(idle_timeout, |generator| {
            generator.is_acknowledged() && generator.counts.arrived >= generator.expected()
        })
    }

    /// Returns whether all published messages are acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.publishers
            .iter()
            .all(|publisher| publisher.unacknowledged == 0)
    }

    /// Returns whether all publishers have sent all they may.
    pub fn has_sent_all(&self) -> bool {
        self.publishers
            .iter()
            .all(|publisher| publisher.sent >= publisher.allowed)
    }

    /// Returns how many messages should have arrived, by those published and their receivers.
    pub fn expected(&self) -> u64 {
        if self.group.is_some() {
            return self.flows.iter().map(|flow| flow.next_seq).sum();
        }
        let sequences = self.peers.iter().filter_map(|peer| peer.sequence.as_ref());
        sequences
            .map(|sequence| sequence.expected(|flow| self.sent(flow)))
            .sum()
    }

    /// Returns the errors so far. Everything that has not arrived counts as lost.
    pub fn faults(&self) -> Faults {
        let mut faults = Faults {
            refused: self.counts.refused,
            unexpected: self.counts.unexpected,
            ..Faults::default()
        };
        if let Some(group) = &self.group {
            faults.lost = self.expected().saturating_sub(group.arrived);
            faults.duplicates = group.repeated;
            faults.disordered = self.late_in_group;
            return faults;
        }
        for sequence in self.peers.iter().filter_map(|peer| peer.sequence.as_ref()) {
            faults.lost += sequence.lost(|flow| self.sent(flow));
            faults.duplicates += sequence.faults().repeated;
            faults.disordered += sequence.faults().late;
        }
        faults
    }

    /// Polls once: waits for events, at most `wait`, and handles them.
    ///
    /// # Errors
    /// As [`Generator::run_for`].
    pub fn poll_once(&mut self, wait: Duration) -> Result<(), Failure> {
        let wait = self.timeout_until_due(wait)?;
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
            if event.token() != TIMER {
                let (readable, writable) = (event.is_readable(), event.is_writable());
                self.serve(event.token().0, readable, writable)?;
            }
        }
        self.events = Some(events);
        self.allow_due();
        self.publish_ready();
        self.flush_dirty()?;
        self.check_stall()
    }

    fn flush_dirty(&mut self) -> Result<(), Failure> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let peer = &mut self.peers[index as usize];
            peer.dirty = false;
            if let Err(error) = peer.link.flush() {
                self.connection_lost(index as usize, &error.to_string())?;
                continue;
            }
            // QoS 0 is limited by the socket alone, because nobody acknowledges it.
            if let Some(publisher) = peer.publisher
                && peer.link.waiting() == 0
            {
                self.mark_ready(publisher);
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
                return self.connection_lost(index, &error.to_string());
            }
            if peer.link.wants_flush() {
                peer.mark_dirty(index as u32, &mut self.dirty);
                if let Some(publisher) = peer.publisher {
                    self.mark_ready(publisher);
                }
            }
        }
        if !readable {
            return Ok(());
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = self.read_all(index, &mut scratch);
        self.scratch = scratch;
        // The CONNECT can be written after a handshake that ended with this read.
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
                Err(error) => return self.connection_lost(index, &error.to_string()),
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
                peer.unreleased.remove(id);
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
        let mut is_resent = false;
        if qos > 0 {
            if qos == 2 {
                is_resent = !peer.unreleased.insert(id);
            }
            peer.reply(if qos == 1 { 0x40 } else { 0x50 }, id);
            peer.mark_dirty(index as u32, &mut self.dirty);
        }
        if is_resent {
            // A QoS 2 message that the broker resent, as the standard demands. Not a second
            // message.
            return;
        }
        if self.accept_all {
            self.counts.delivered += 1;
            return;
        }
        let Some(header) = PayloadHeader::of(payload).filter(|header| header.run == self.run)
        else {
            self.counts.unexpected += 1;
            return;
        };
        let Some(sequence) = &mut peer.sequence else {
            self.counts.unexpected += 1;
            return;
        };
        self.counts.delivered += 1;
        self.last_progress = now;
        self.latency.record(now.saturating_sub(header.at));
        let arrival = sequence.record(header.flow, header.seq);
        if let Some(group) = &mut self.group {
            let fresh = group.record(header.flow, header.seq);
            self.counts.arrived += u64::from(fresh);
            self.late_in_group += u64::from(fresh && arrival == Arrival::Again);
            if fresh {
                self.count_reached(header.flow, header.seq);
            }
            return;
        }
        match arrival {
            Arrival::Next => self.count_reached(header.flow, header.seq),
            Arrival::After(gap) => {
                // Skipped messages will not arrive, so nobody waits for them.
                for seq in gap.start..=gap.end {
                    self.count_reached(header.flow, seq);
                }
            }
            Arrival::Late => {}
            Arrival::Again => return,
            Arrival::Foreign => {
                self.counts.unexpected += 1;
                return;
            }
        }
        self.counts.arrived += 1;
    }

    /// Counts that a message has reached one of its receivers.
    #[inline]
    fn count_reached(&mut self, flow: u32, seq: u64) {
        let flow = &mut self.flows[flow as usize];
        let reached = flow.record_reached(seq);
        if reached > 0 {
            let index = flow.publisher;
            let publisher = &mut self.publishers[index as usize];
            publisher.unreached = publisher.unreached.saturating_sub(reached);
            self.mark_ready(index);
        }
    }

    fn receive_ack(&mut self, index: usize, kind: u8, id: u16, reason: u8, now: u64) {
        let peer = &mut self.peers[index];
        let refused = reason >= 0x80;
        let Some(publisher) = peer.publisher else {
            self.counts.unexpected += 1;
            return;
        };
        let Some(ended) = self.publishers[publisher as usize].acknowledge(kind, id, refused) else {
            self.counts.unexpected += 1;
            return;
        };
        self.last_progress = now;
        // A PUBCOMP with an error, for an unknown identifier, ends the message as well.
        let refused = refused && kind != 7;
        self.counts.refused += u64::from(refused);
        if ended {
            self.counts.acknowledged += u64::from(!refused);
            self.mark_ready(publisher);
        } else {
            peer.reply(0x62, id);
            peer.mark_dirty(index as u32, &mut self.dirty);
        }
    }
}
