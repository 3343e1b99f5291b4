//! What is done when its time has come.

use crate::broker::Broker;
use crate::broker::model::ids::{GroupIndex, Owner, SessionIndex};
use crate::broker::model::work::OPERATION;
use crate::broker::state::timers::{LONGEST_MS, SWEEP_MS, Timer};
use crate::clock::Now;

/// The same while there are more messages or queues than are looked at in one go.
const LONG_SWEEP_MS: u64 = 250;

/// How many queues, messages in them, and retained messages are looked at in one go.
const SWEEP_STEP: usize = 4096;

/// How much one tick does, in the measure of [`Broker::work`]: about two milliseconds' work. The rest follows a millisecond later.
pub(in crate::broker) const TICK_WORK: u64 = OPERATION * if cfg!(test) { 16 } else { 2048 };

impl Broker {
    /// When [`Broker::tick`] should be called next, in milliseconds of uptime. It only changes to an earlier time after the broker was called.
    pub fn next_timeout(&self) -> u64 {
        let timer = self.timers.next().unwrap_or(u64::MAX);
        self.gate
            .deadline()
            .map_or(timer, |deadline| deadline.min(timer))
    }

    /// Does what is due. If that is very much, it does a part of it, and the next time-out comes at once.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        self.forgive_late_tick();
        let slice = self.pace.slice(TICK_WORK);
        while let Some(timer) = self.timers.take_due(now.uptime) {
            self.pace.spend(OPERATION);
            if timer.gives_up() && now.uptime < self.timers.grace_until {
                self.timers.set(self.timers.grace_until, timer);
                continue;
            }
            match timer {
                Timer::Connect(id) => self.check_connect(id),
                Timer::KeepAlive(id) => self.check_keep_alive(id),
                Timer::TakeOver(id) => self.check_take_over(id),
                Timer::WriteProgress(id) => self.check_progress(id),
                Timer::Credential(id) => self.end_credential(id),
                Timer::Quota(id) => self.check_quota(id),
                Timer::Session(session) => self.check_session(session),
                Timer::Replay(session) => self.check_replays(session),
                Timer::Topics(session) => self.check_topics(session),
                Timer::Removals => self.continue_removals(),
                Timer::Release => self.release(),
                Timer::Turn => self.check_turn(),
                Timer::Walk => self.walk(),
                Timer::Spread => self.spread_slice(),
                Timer::Notices => self.say_notices(),
                Timer::Origins => self.check_origins(),
                Timer::Sweep => {
                    let all = self.sweep();
                    let ms = if all { SWEEP_MS } else { LONG_SWEEP_MS };
                    self.timers.set(now.uptime + ms, Timer::Sweep);
                }
                Timer::Sys => {
                    self.publish_sys();
                    self.timers
                        .set(now.uptime + self.settings.sys_interval_ms, Timer::Sys);
                }
            }
            if self.pace.is_over(slice) {
                self.timers.rest_until = now.uptime + 1;
                break;
            }
        }
        self.check();
    }

    /// Sees to it that a session without a connection is looked at when its will is due or it expires.
    pub(in crate::broker) fn set_session_timer(&mut self, index: SessionIndex) {
        let session = &self.sessions[index];
        let due = session.will.as_ref().and_then(|will| will.due);
        let Some(unix) = [session.expires_at(), due].into_iter().flatten().min() else {
            return;
        };
        let at = self.now.uptime + unix.saturating_sub(self.now.unix).min(LONGEST_MS);
        self.timers.set(at, Timer::Session(index));
    }

    fn check_session(&mut self, index: SessionIndex) {
        let session = &self.sessions[index];
        if session.connection.is_some() {
            return;
        }
        let expired = self.has_expired(index);
        if self.now.uptime < self.timers.grace_until && !expired {
            let timer = Timer::Session(index);
            return self.timers.set(self.timers.grace_until, timer);
        }
        let session = &self.sessions[index];
        if session
            .will
            .as_ref()
            .is_some_and(|will| will.due.is_some_and(|due| due <= self.now.unix))
        {
            self.publish_will(index);
        }
        if expired {
            self.counters.sessions_expired += 1;
            self.end_session(index);
        } else {
            self.set_session_timer(index);
        }
    }

    /// Removes expired messages from queues and retained messages, a bounded number a call, where the last call left off; whether that was all.
    fn sweep(&mut self) -> bool {
        let (mut at, start) = self.upkeep.sweep;
        // Sessions and groups are looked at in the order of their places; a place past both begins again with the first.
        let sessions = self.sessions.places();
        let places = sessions.saturating_add(self.groups.places());
        let mut budget = SWEEP_STEP;
        let mut offset = start;
        let mut visited = 0;
        while budget > 0 && visited <= (places as usize).min(SWEEP_STEP) {
            visited += 1;
            let owner = match at.checked_sub(sessions) {
                None => Owner::Session(SessionIndex(at)),
                Some(group) => Owner::Group(GroupIndex(group)),
            };
            let unix = self.now.unix;
            let swept = self.change_queue(owner, |queue| {
                let looked = queue.len().saturating_sub(offset).min(budget);
                (queue.key, looked, queue.sweep(offset, budget, unix))
            });
            let mut next = None;
            if let Some((key, looked, (expired, rest))) = swept {
                next = rest;
                budget -= looked;
                self.pace.spend(looked as u64);
                for item in expired {
                    let session = match owner {
                        Owner::Session(index) => Some(index),
                        _ => None,
                    };
                    self.count_expired(session);
                    self.forget(&item, key);
                }
            }
            offset = next.unwrap_or(0);
            if next.is_none() {
                at = if at + 1 >= places { 0 } else { at + 1 };
            }
        }
        self.upkeep.sweep = (at, offset);
        self.sweep_retained(SWEEP_STEP) && budget > 0 && places as usize <= SWEEP_STEP
    }
}
