//! Counts by key: connections of a user, or from an address.

use std::hash::Hash;

use foldhash::fast::FixedState;
use hashbrown::{Equivalent, HashMap};

/// How many connections there are, by what tells them apart.
#[derive(Debug)]
pub struct Tally<K>(HashMap<K, usize, FixedState>);

impl<K: Eq + Hash> Tally<K> {
    /// Nobody yet; `seed` keeps peers from choosing what collides.
    pub fn new(seed: u64) -> Tally<K> {
        Tally(HashMap::with_hasher(FixedState::with_seed(seed)))
    }

    pub fn count<Q: Hash + Equivalent<K> + ?Sized>(&self, of: &Q) -> usize {
        self.0.get(of).copied().unwrap_or(0)
    }

    pub fn add(&mut self, one: K) {
        *self.0.entry(one).or_insert(0) += 1;
    }

    pub fn remove<Q: Hash + Equivalent<K> + ?Sized>(&mut self, of: &Q) {
        if let Some(count) = self.0.get_mut(of) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(of);
            }
        }
    }
}
