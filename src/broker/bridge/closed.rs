//! Bridges that are configured no more: their queues are kept until they are dropped by name.

use crate::broker::Broker;
use crate::broker::model::ids::SessionIndex;
use crate::broker::model::topics::CLIENT_PREFIX;
use crate::broker::state::gate::{SESSION, Stamp};
use crate::clock::Now;

/// A queue that was dropped.
#[derive(Clone, Copy, Debug)]
pub struct Dropped {
    /// Messages that waited in it.
    pub messages: u64,
    /// When that is on disk.
    stamp: Stamp,
}

/// Why a queue was not dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDropped {
    /// The bridge is configured.
    #[error("the bridge {0:?} is configured; take it out of the configuration and reload first")]
    Configured(String),
    /// There is no such queue, but these, each with the messages that wait.
    #[error("no queue was left by a bridge {name:?}, {}", there_are(.left))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        left: Vec<(String, u64)>,
    },
}

fn there_are(left: &[(String, u64)]) -> String {
    if left.is_empty() {
        return "nor by any other".to_owned();
    }
    let names = left
        .iter()
        .map(|(name, waiting)| format!("{name:?} ({waiting} messages)"));
    format!("expected one of {}", names.collect::<Vec<_>>().join(", "))
}

impl Broker {
    /// Makes bridges that are not among these get nothing new; they must not be connected. Their
    /// queues are kept: each name, and the messages that wait.
    pub fn close_bridges_except(&mut self, names: &[&str], now: Now) -> Vec<(String, u64)> {
        self.now = now;
        let open = self.bridges.states.keys();
        let closed: Vec<Box<str>> = open
            .filter(|name| !names.contains(&&***name))
            .cloned()
            .collect();
        for name in closed {
            if let Some(state) = self.bridges.states.remove(&name) {
                self.withdraw_bridge_state(&name, &state);
            }
        }
        let left = self.left_by_bridges(|name| !names.contains(&name));
        let mut told = Vec::with_capacity(left.len());
        for (name, index) in left {
            self.sessions[index].backlog = None;
            for text in self.filters_of(index) {
                self.unsubscribe(index, &text);
            }
            told.push((name, self.waiting(index)));
        }
        told
    }

    /// Ends the session of a bridge that is configured no more, with all messages that wait in it.
    /// [`Broker::is_dropped`] says when that is on disk.
    ///
    /// # Errors
    /// The bridge is configured, or has left nothing.
    pub fn drop_bridge(&mut self, name: &str, now: Now) -> Result<Dropped, NotDropped> {
        self.now = now;
        if self.bridges.states.contains_key(name) {
            return Err(NotDropped::Configured(name.to_owned()));
        }
        let Some(index) = self.bridge_session(name) else {
            let left = self.left_by_bridges(|name| !self.bridges.states.contains_key(name));
            let left = left
                .into_iter()
                .map(|(name, index)| (name, self.waiting(index)));
            return Err(NotDropped::Unknown {
                name: name.to_owned(),
                left: left.collect(),
            });
        };
        let messages = self.waiting(index);
        self.end_session(index);
        let stamp = self.gate.require(SESSION);
        Ok(Dropped { messages, stamp })
    }

    /// Whether a drop is on disk: the queue will not be there at the next start.
    pub fn is_dropped(&self, dropped: &Dropped) -> bool {
        self.gate.is_open(dropped.stamp)
    }

    /// The sessions of the bridges with these names, in the order of the names.
    fn left_by_bridges(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<(String, SessionIndex)> {
        let sessions = self.sessions.client_ids();
        let named =
            sessions.filter_map(|(id, index)| Some((id.strip_prefix(CLIENT_PREFIX)?, index)));
        let wanted = named.filter(|(name, _)| is_wanted(name));
        let mut left: Vec<_> = wanted
            .map(|(name, index)| (name.to_owned(), index))
            .collect();
        left.sort_unstable();
        left
    }

    /// Messages that wait for the upstream of the bridge with this name, or that it has not
    /// acknowledged completely.
    pub fn bridge_queued(&self, name: &str) -> u64 {
        let session = self.bridge_session(name);
        session.map_or(0, |index| self.waiting(index))
    }

    /// The same of a bridge's session.
    pub(in crate::broker) fn waiting(&self, index: SessionIndex) -> u64 {
        let session = &self.sessions[index];
        session.queue.len() as u64 + session.inflight.len() as u64
    }
}
