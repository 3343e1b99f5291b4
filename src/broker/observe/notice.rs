//! Warnings about clients, at a bounded rate.
//!
//! Messages dropped, publishes and subscriptions denied: the first one of a client is a WARN at
//! once. From then on they are counted, and the counts are logged once a minute. A bounded number
//! of clients is named.

use crate::broker::Broker;
use crate::broker::model::ids::SessionIndex;
use crate::broker::state::notices::Notice;
use crate::broker::state::timers::Timer;

/// How often it is looked for what is to be said, in milliseconds.
const LOOK_MS: u64 = 10_000;

impl Broker {
    /// Notes what happened to a session's client, and with which topic or filter.
    pub(in crate::broker) fn notice(&mut self, index: SessionIndex, what: Notice, topic: &str) {
        let session = &self.sessions[index];
        let (key, uptime) = (session.key(), self.now.uptime);
        let name = &session.client_id;
        self.observed.notices.note(key, name, what, topic, uptime);
        self.watch_notices();
    }

    /// Sees to it that what was noted is said.
    pub(in crate::broker) fn watch_notices(&mut self) {
        self.timers.set(self.now.uptime + LOOK_MS, Timer::Notices);
    }

    /// Says what has gathered in a minute.
    pub(in crate::broker) fn say_notices(&mut self) {
        if self.observed.notices.say(self.now.uptime) {
            self.watch_notices();
        }
    }
}
