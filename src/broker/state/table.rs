//! Hash maps that grow bit by bit. An ordinary one moves all entries when it is full, which with a
//! million of them takes tens of milliseconds, and everybody waits.

use std::borrow::Borrow;
use std::fmt::{self, Debug, Formatter};
use std::hash::{BuildHasher, Hash};

use hashbrown::HashMap;

/// Parts of a table, a power of two; each grows by itself.
pub const PARTS: usize = 64;

/// The part of an entry with this hash: by bits that the part itself makes the least use of.
pub fn part_of(hash: u64) -> usize {
    (hash >> 50) as usize % PARTS
}

/// A hash map none of whose insertions takes long.
pub struct Table<K, V, S> {
    parts: Box<[HashMap<K, V, S>]>,
    hasher: S,
}

impl<K: Debug, V: Debug, S> Debug for Table<K, V, S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.parts.iter().flatten()).finish()
    }
}

impl<K, V, S: BuildHasher + Clone + Default> Default for Table<K, V, S> {
    fn default() -> Table<K, V, S> {
        Table::with_hasher(S::default())
    }
}

impl<K, V, S: BuildHasher + Clone> Table<K, V, S> {
    /// An empty table with this hasher.
    pub fn with_hasher(hasher: S) -> Table<K, V, S> {
        let part = || HashMap::with_hasher(hasher.clone());
        Table {
            parts: std::iter::repeat_with(part).take(PARTS).collect(),
            hasher,
        }
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Table<K, V, S> {
    /// How many entries there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.parts.iter().map(HashMap::len).sum()
    }

    /// What stands under a key.
    #[inline]
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.parts[part_of(self.hasher.hash_one(key))].get(key)
    }

    /// The part that has a key, or would have it.
    #[inline]
    pub fn part<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> &mut HashMap<K, V, S>
    where
        K: Borrow<Q>,
    {
        &mut self.parts[part_of(self.hasher.hash_one(key))]
    }

    /// Puts something under a key; what was there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.part(&key).insert(key, value)
    }

    /// Removes what is under a key.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.part(key).remove(key)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use rustc_hash::FxBuildHasher;

    use super::*;

    #[test]
    fn entries_are_found_wherever_they_are_and_the_parts_are_alike() {
        let mut table: Table<u64, u64, FxBuildHasher> = Table::default();
        let many = 100 * PARTS as u64;
        for key in 0..many {
            assert_eq!(table.insert(key, key + 1), None);
        }
        assert_eq!(table.insert(7, 7), Some(8));
        *table.part(&7).get_mut(&7).expect("it is there") += 1;
        assert_eq!(table.len(), many as usize);
        for key in 0..many {
            assert_eq!(table.get(&key), Some(&(key + 1)));
        }
        let largest = table.parts.iter().map(HashMap::len).max();
        assert!(largest.is_some_and(|most| most < 200), "{largest:?} of 100");
        assert_eq!(table.iter().count(), many as usize);
        for key in 0..many {
            assert_eq!(table.remove(&key), Some(key + 1));
        }
        assert_eq!(table.get(&7), None);
        assert_eq!(table.len(), 0);
    }
}
