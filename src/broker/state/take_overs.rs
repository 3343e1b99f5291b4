//! Connections whose CONNECT waits for an older connection of the same client.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::broker::model::ids::ConnectionId;

/// The connections whose CONNECT waits, by client identifier, in the order in which they came. No
/// line is empty.
#[derive(Debug)]
pub struct TakeOvers(HashMap<Box<str>, VecDeque<ConnectionId>, FixedState>);

impl TakeOvers {
    /// Nobody waits yet; `seed` keeps peers from choosing client identifiers that collide.
    pub fn new(seed: u64) -> TakeOvers {
        TakeOvers(HashMap::with_hasher(FixedState::with_seed(seed)))
    }

    /// Who is next to have a client identifier.
    pub fn first(&self, client_id: &str) -> Option<ConnectionId> {
        // Mostly nobody waits at all.
        let line = (!self.0.is_empty()).then(|| self.0.get(client_id))?;
        line?.front().copied()
    }

    /// Appends a connection to its line.
    pub fn join(&mut self, client_id: &str, id: ConnectionId) {
        self.0.entry(client_id.into()).or_default().push_back(id);
    }

    /// Takes a connection out of its line.
    pub fn leave(&mut self, client_id: &str, id: ConnectionId) {
        if let Some(line) = self.0.get_mut(client_id) {
            line.retain(|other| *other != id);
            if line.is_empty() {
                self.0.remove(client_id);
            }
        }
    }
}
