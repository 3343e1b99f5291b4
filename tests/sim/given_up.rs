//! How long the broker waits for clients: what it is told of them, and whether it was right to give
//! one up.

use super::history::Violation;
use super::lie::Lie;
use super::plan::Role;
use super::world::World;
use crate::broker::{ConnectionId, NOTHING_TAKEN};

impl World {
    /// Tells the broker, if it asks, whether a client takes what it is sent.
    pub fn answer_look(&mut self, link: usize, id: ConnectionId) {
        let state = &mut self.links[link];
        let writing = state
            .server
            .as_ref()
            .is_some_and(|server| !server.writing.is_empty());
        let waits = writing || !state.down.is_empty();
        let moved = state.moved && self.lie() != Some(Lie::UnseenProgress);
        let Some((process, now)) = self.process() else {
            return;
        };
        if process.broker.asks_progress(id) {
            process.broker.progress(id, waits, moved, now);
            self.links[link].moved = false;
        }
    }

    /// The broker closes a connection: if it has given its client up, the client was silent, or has
    /// taken nothing, for that long.
    pub fn check_given_up(&mut self, link: usize, id: ConnectionId) -> Result<(), Violation> {
        let process = self.process.as_ref();
        let why = process.and_then(|process| process.broker.why_ended(id));
        let why = why.map(str::to_owned).unwrap_or_default();
        let state = &self.links[link];
        let plan = &self.clients[state.client].plan;
        if plan.role == Role::Breaker {
            return Ok(());
        }
        let keep_alive = u64::from(plan.keep_alive) * 1_500;
        let (promise, last, timeout) = if why.starts_with("KeepAliveTimeout") {
            let promise = "a client that says something in time is not given up";
            (promise, state.heard, keep_alive)
        } else if why == NOTHING_TAKEN {
            let promise = "a client that takes something in time is not given up";
            let timeout = match keep_alive {
                0 => self.plan.limits.write_timeout_ms,
                keep_alive => keep_alive,
            };
            (promise, state.took, timeout)
        } else {
            return Ok(());
        };
        self.stats.given_up += 1;
        let ms = self.time().saturating_sub(last) / 1000;
        // The broker's clock and this one are not rounded alike.
        if ms + 2 < timeout {
            let name = &self.clients[self.links[link].client].plan.name;
            let what = format!("{name}: link {link}: {why} after {ms} ms of {timeout}");
            return Err(Violation::new(promise, what));
        }
        Ok(())
    }
}
