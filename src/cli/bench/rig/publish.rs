//! When each publisher sends: in the closed loop as soon as its window allows, or at a rate, each message at its time.

use std::time::Duration;

use super::flow::{Flow, Publisher, Shape, Slot, SlotState};
use super::frame::Stamp;
use super::schedule::Schedule;
use super::{MAX_WAITING, Rig};
use crate::cli::exit::{self, Failure};

/// How long nothing may arrive, with messages on their way, before they count as lost.
const STALL_NS: u64 = 5_000_000_000;

impl Rig {
    /// Makes a connection a publisher to these topics, in turn. Returns the number of the first flow; the others follow.
    pub fn publish_from(&mut self, peer: usize, topics: &[String], shape: &Shape) -> u32 {
        let index = self.publishers.len() as u32;
        let first = self.flows.len() as u32;
        let flow = |topic: &String| Flow::new(index, topic, shape, self.version);
        self.flows.extend(topics.iter().map(flow));
        let mut shape = *shape;
        shape.window = shape.window.min(self.peers[peer].receive_maximum.into());
        let flows = first..self.flows.len() as u32;
        let publisher = Publisher::new(peer as u32, flows, &shape);
        self.publishers.push(publisher);
        self.peers[peer].publisher = Some(index);
        first
    }

    /// Publishes from now on as fast as the windows allow.
    pub fn publish_freely(&mut self) {
        self.schedule = None;
        self.publishing = true;
        for publisher in &mut self.publishers {
            publisher.allowed = u64::MAX;
        }
        self.all_hungry();
    }

    /// Publishes this many messages from each publisher, beside those it has sent.
    pub fn publish_each(&mut self, count: u64) {
        self.schedule = None;
        self.publishing = true;
        for publisher in &mut self.publishers {
            publisher.allowed = publisher.sent + count;
        }
        self.all_hungry();
    }

    /// Publishes from now on so many messages a second in all, each at its time, whether earlier ones have arrived or not. Windows of QoS 1
    /// and 2 still hold; what they delay counts from the time it was to be sent.
    pub fn publish_at(&mut self, per_second: f64) {
        for publisher in &mut self.publishers {
            publisher.allowed = publisher.sent;
        }
        for flow in &mut self.flows {
            flow.write_off();
        }
        self.schedule = Some(Schedule {
            start: self.now(),
            period_ns: 1e9 / per_second,
            due: 0,
        });
        self.publishing = true;
    }

    /// Publishes nothing more.
    pub fn stop_publishing(&mut self) {
        self.publishing = false;
    }

    /// Sets the alarm to the next message that is due; how long the poll may wait.
    pub(super) fn wait_for_due(&mut self, wait: Duration) -> Result<Duration, Failure> {
        if self.publishing && !self.hungry.is_empty() {
            return Ok(Duration::ZERO);
        }
        let Some(schedule) = self.schedule.as_ref().filter(|_| self.publishing) else {
            return Ok(wait);
        };
        let due = schedule.start + (schedule.due as f64 * schedule.period_ns) as u64;
        let until = Duration::from_nanos(due.saturating_sub(self.now()));
        if until.is_zero() {
            return Ok(until);
        }
        let most = self.alarm.set(until);
        let most = most.map_err(|error| Failure::new(exit::FAILED, error.to_string()))?;
        Ok(most.map_or(wait, |most| wait.min(most)))
    }

    /// Allows the publishers what is due by now.
    pub(super) fn hand_out_due(&mut self) {
        let now = self.now();
        let Some(schedule) = self.schedule.as_mut().filter(|_| self.publishing) else {
            return;
        };
        let passed = now.saturating_sub(schedule.start) as f64 / schedule.period_ns;
        let count = self.publishers.len() as u64;
        while schedule.due as f64 <= passed && count > 0 {
            let publisher = (schedule.due % count) as usize;
            schedule.due += 1;
            self.publishers[publisher].allowed += 1;
            if !self.publishers[publisher].hungry {
                self.publishers[publisher].hungry = true;
                self.hungry.push(publisher as u32);
            }
        }
    }

    /// How many messages of a flow were published.
    pub(super) fn sent(&self, flow: u32) -> u64 {
        let flow = self.flows.get(flow as usize);
        flow.map_or(0, |flow| flow.next_seq)
    }

    fn all_hungry(&mut self) {
        for (index, publisher) in self.publishers.iter_mut().enumerate() {
            if !publisher.hungry {
                publisher.hungry = true;
                self.hungry.push(index as u32);
            }
        }
    }

    pub(super) fn feed_hungry(&mut self) {
        let mut hungry = std::mem::take(&mut self.hungry);
        let now = self.now();
        for index in hungry.drain(..) {
            self.publishers[index as usize].hungry = false;
            if self.publishing {
                self.feed(index, now);
            }
        }
        self.hungry = hungry;
    }

    /// Publishes as much as one publisher may.
    fn feed(&mut self, index: u32, now: u64) {
        let count = self.publishers.len() as u64;
        let publisher = &mut self.publishers[index as usize];
        let peer = &mut self.peers[publisher.peer as usize];
        if !peer.is_open() {
            return;
        }
        while publisher.may_send() && peer.link.waiting() < MAX_WAITING {
            let flow_index = publisher.take_turn();
            let flow = &mut self.flows[flow_index as usize];
            let at = match &self.schedule {
                // What was due in this publisher's turn, so many before the last that is allowed.
                Some(schedule) => {
                    let open = publisher.allowed - publisher.sent;
                    let last = (schedule.due - 1 - u64::from(index)) / count;
                    let number = (last + 1 - open) * count + u64::from(index);
                    schedule.start + (number as f64 * schedule.period_ns) as u64
                }
                None => now,
            };
            let seq = flow.next_seq;
            let id = publisher.take_id(Slot {
                state: SlotState::Sent,
                flow: flow_index,
                seq,
                at,
            });
            let stamp = Stamp {
                run: self.run,
                flow: flow_index,
                seq,
                at,
            };
            flow.next_seq += 1;
            publisher.sent += 1;
            publisher.unreached += u32::from(flow.is_awaited() && self.schedule.is_none());
            self.counts.published += 1;
            flow.write(id, &stamp, false, peer.link.out());
        }
        peer.mark_dirty(publisher.peer, &mut self.dirty);
    }

    #[inline]
    pub(super) fn make_hungry(&mut self, index: u32) {
        let publisher = &mut self.publishers[index as usize];
        if !publisher.hungry && publisher.may_send() {
            publisher.hungry = true;
            self.hungry.push(index);
        }
    }

    /// In the closed loop a lost message would keep its publisher waiting for ever.
    pub(super) fn check_stall(&mut self) -> Result<(), Failure> {
        if !self.publishing || self.schedule.is_some() {
            return Ok(());
        }
        let now = self.now();
        let waits =
            |publisher: &Publisher| !publisher.may_send() && publisher.sent < publisher.allowed;
        if now.saturating_sub(self.last_progress) < STALL_NS || !self.publishers.iter().all(waits) {
            return Ok(());
        }
        if !self.is_acknowledged() {
            return Err(Failure::new(
                exit::TIMEOUT,
                "the broker has acknowledged nothing for 5 seconds",
            ));
        }
        for publisher in &mut self.publishers {
            self.counts.written_off += u64::from(std::mem::take(&mut publisher.unreached));
        }
        self.flows.iter_mut().for_each(Flow::write_off);
        self.last_progress = now;
        self.all_hungry();
        Ok(())
    }
}
