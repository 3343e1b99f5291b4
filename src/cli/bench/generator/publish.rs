//! When publishers send: in the closed loop as soon as the window allows, or at a fixed rate at
//! scheduled times.

use std::time::Duration;

use super::flow::{Flow, Publisher, Shape, Slot, SlotState};
use super::frame::PayloadHeader;
use super::schedule::Schedule;
use super::{Generator, MAX_PENDING_BYTES};
use crate::cli::exit::{self, Failure};

/// Messages in flight count as lost if nothing arrives for this long.
const IDLE_TIMEOUT_NS: u64 = 5_000_000_000;

impl Generator {
    /// Makes a connection a publisher to these topics in turn. Returns the number of the first
    /// flow; the others follow.
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
        self.mark_all_ready();
    }

    /// Publishes this many more messages from each publisher.
    pub fn publish_each(&mut self, count: u64) {
        self.schedule = None;
        self.publishing = true;
        for publisher in &mut self.publishers {
            publisher.allowed = publisher.sent + count;
        }
        self.mark_all_ready();
    }

    /// Publishes from now on this many messages per second in all, each at its scheduled time, even
    /// if earlier ones have not arrived. Windows of QoS 1 and 2 still apply. Latency is measured
    /// from the scheduled time.
    pub fn publish_at(&mut self, per_second: f64) {
        for publisher in &mut self.publishers {
            publisher.allowed = publisher.sent;
        }
        for flow in &mut self.flows {
            flow.give_up();
        }
        self.schedule = Some(Schedule {
            start: self.now(),
            period_ns: 1e9 / per_second,
            due: 0,
        });
        self.publishing = true;
    }

    /// Stops publishing.
    pub fn stop_publishing(&mut self) {
        self.publishing = false;
    }

    /// Sets the timer to the next scheduled message. Returns the time-out of the poll.
    pub(super) fn timeout_until_due(&mut self, wait: Duration) -> Result<Duration, Failure> {
        if self.publishing && !self.ready.is_empty() {
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
        let most = self.timer.set(until);
        let most = most.map_err(|error| Failure::new(exit::FAILED, error.to_string()))?;
        Ok(most.map_or(wait, |most| wait.min(most)))
    }

    /// Allows the publishers to send what is due by now.
    pub(super) fn allow_due(&mut self) {
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
            if !self.publishers[publisher].ready {
                self.publishers[publisher].ready = true;
                self.ready.push(publisher as u32);
            }
        }
    }

    /// Returns how many messages of a flow were published.
    pub(super) fn sent(&self, flow: u32) -> u64 {
        let flow = self.flows.get(flow as usize);
        flow.map_or(0, |flow| flow.next_seq)
    }

    fn mark_all_ready(&mut self) {
        for (index, publisher) in self.publishers.iter_mut().enumerate() {
            if !publisher.ready {
                publisher.ready = true;
                self.ready.push(index as u32);
            }
        }
    }

    pub(super) fn publish_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        let now = self.now();
        for index in ready.drain(..) {
            self.publishers[index as usize].ready = false;
            if self.publishing {
                self.publish_allowed(index, now);
            }
        }
        self.ready = ready;
    }

    /// Publishes as much as a publisher may.
    fn publish_allowed(&mut self, index: u32, now: u64) {
        let count = self.publishers.len() as u64;
        let publisher = &mut self.publishers[index as usize];
        let peer = &mut self.peers[publisher.peer as usize];
        if !peer.is_open() {
            return;
        }
        while publisher.may_send() && peer.link.waiting() < MAX_PENDING_BYTES {
            let flow_index = publisher.take_flow();
            let flow = &mut self.flows[flow_index as usize];
            let at = match &self.schedule {
                // The scheduled time: that of the last allowed message minus the ones between.
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
            let header = PayloadHeader {
                run: self.run,
                flow: flow_index,
                seq,
                at,
            };
            flow.next_seq += 1;
            publisher.sent += 1;
            publisher.unreached += u32::from(flow.is_awaited() && self.schedule.is_none());
            self.counts.published += 1;
            flow.write(id, &header, false, peer.link.out());
        }
        peer.mark_dirty(publisher.peer, &mut self.dirty);
    }

    #[inline]
    pub(super) fn mark_ready(&mut self, index: u32) {
        let publisher = &mut self.publishers[index as usize];
        if !publisher.ready && publisher.may_send() {
            publisher.ready = true;
            self.ready.push(index);
        }
    }

    /// Gives up messages in the closed loop if nothing arrives: a lost message would block its
    /// publisher for ever.
    pub(super) fn check_stall(&mut self) -> Result<(), Failure> {
        if !self.publishing || self.schedule.is_some() {
            return Ok(());
        }
        let now = self.now();
        let waits =
            |publisher: &Publisher| !publisher.may_send() && publisher.sent < publisher.allowed;
        if now.saturating_sub(self.last_progress) < IDLE_TIMEOUT_NS
            || !self.publishers.iter().all(waits)
        {
            return Ok(());
        }
        if !self.is_acknowledged() {
            return Err(Failure::new(
                exit::TIMEOUT,
                "the broker has acknowledged nothing for 5 seconds",
            ));
        }
        for publisher in &mut self.publishers {
            self.counts.given_up += u64::from(std::mem::take(&mut publisher.unreached));
        }
        self.flows.iter_mut().for_each(Flow::give_up);
        self.last_progress = now;
        self.mark_all_ready();
        Ok(())
    }
}
