//! All shared groups, by their places and by their names.

use std::ops::{Index, IndexMut};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::broker::model::ids::GroupIndex;
use crate::broker::state::group::Group;
use crate::broker::state::slots::Slots;

/// All shared groups.
#[derive(Debug)]
pub struct Groups {
    slots: Slots<GroupIndex, Group>,
    by_name: HashMap<Box<str>, GroupIndex, FixedState>,
}

impl Groups {
    /// None yet; `seed` keeps clients from choosing names that collide.
    pub fn new(seed: u64) -> Groups {
        Groups {
            slots: Slots::default(),
            by_name: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// Adds a group under its name, which no other one has.
    pub fn add(&mut self, group: Group) -> GroupIndex {
        let name = group.name().into();
        let index = self.slots.insert(group);
        self.by_name.insert(name, index);
        index
    }

    /// Removes a group that is there.
    pub fn remove(&mut self, index: GroupIndex) -> Group {
        let group = self.slots.remove(index);
        self.by_name.remove(group.name());
        group
    }

    /// The group of this name: as in a SUBSCRIBE, `$share/name/filter`.
    pub fn find(&self, name: &str) -> Option<GroupIndex> {
        self.by_name.get(name).copied()
    }

    /// A group, if there is one in this place.
    pub fn get(&self, index: GroupIndex) -> Option<&Group> {
        self.slots.get(index)
    }

    /// A group, if there is one in this place.
    pub fn get_mut(&mut self, index: GroupIndex) -> Option<&mut Group> {
        self.slots.get_mut(index)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Every place is below this number.
    pub fn places(&self) -> u32 {
        self.slots.places()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (GroupIndex, &Group)> {
        self.slots.iter()
    }
}

impl Index<GroupIndex> for Groups {
    type Output = Group;

    #[inline]
    fn index(&self, index: GroupIndex) -> &Group {
        &self.slots[index]
    }
}

impl IndexMut<GroupIndex> for Groups {
    #[inline]
    fn index_mut(&mut self, index: GroupIndex) -> &mut Group {
        &mut self.slots[index]
    }
}
