//! Places by number: a slab whose keys say what they lead to.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use slab::Slab;

use crate::broker::model::ids::Key;

/// Values by their keys. A key is given to another value once its own is removed.
#[derive(Debug)]
pub struct Slots<K, T> {
    slab: Slab<T>,
    key: PhantomData<K>,
}

impl<K, T> Default for Slots<K, T> {
    fn default() -> Slots<K, T> {
        Slots {
            slab: Slab::new(),
            key: PhantomData,
        }
    }
}

impl<K: Key, T> Slots<K, T> {
    /// Adds a value. Returns its key.
    pub fn insert(&mut self, value: T) -> K {
        K::from_place(self.slab.insert(value) as u32)
    }

    /// Removes a value.
    ///
    /// # Panics
    /// If there is none.
    pub fn remove(&mut self, key: K) -> T {
        self.slab.remove(key.place() as usize)
    }

    /// The value of a key, if it has one.
    pub fn get(&self, key: K) -> Option<&T> {
        self.slab.get(key.place() as usize)
    }

    /// The value of a key, if it has one.
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        self.slab.get_mut(key.place() as usize)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Places that have been made, with a value or without: every key is below it.
    pub fn places(&self) -> u32 {
        self.slab.capacity().min(u32::MAX as usize) as u32
    }

    /// All values in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        let all = self.slab.iter();
        all.map(|(place, value)| (K::from_place(place as u32), value))
    }
}

impl<K: Key, T> Index<K> for Slots<K, T> {
    type Output = T;

    #[inline]
    fn index(&self, key: K) -> &T {
        &self.slab[key.place() as usize]
    }
}

impl<K: Key, T> IndexMut<K> for Slots<K, T> {
    #[inline]
    fn index_mut(&mut self, key: K) -> &mut T {
        &mut self.slab[key.place() as usize]
    }
}
