//! Walks over all sessions or connections, a slice at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::model::access::{Access, Admission};

/// What is done on a walk.
#[derive(Debug)]
pub enum Walk {
    /// Sessions get the rights they have by the present rules.
    Rights,
    /// Connections that have come through a listener are ended.
    SendAway(Arc<Access>),
    /// Connections that have come through a listener are ended, but for those it would take in now.
    Admit(Arc<Access>, Admission),
    /// All connections are ended.
    ShutDown,
}

/// The walks that are not finished, the oldest first, and how far they have come.
#[derive(Debug, Default)]
pub struct Walks {
    all: VecDeque<(Walk, u32)>,
}

impl Walks {
    /// Begins a walk. One that gives all sessions their rights takes the place of one that has not
    /// finished.
    pub fn begin(&mut self, walk: Walk) {
        if matches!(walk, Walk::Rights) {
            let is_other = |(other, _): &(Walk, u32)| !matches!(other, Walk::Rights);
            self.all.retain(is_other);
        }
        self.all.push_back((walk, 0));
    }

    /// Takes the oldest walk, and the place where it goes on.
    pub fn take(&mut self) -> Option<(Walk, u32)> {
        self.all.pop_front()
    }

    /// Puts back a walk that goes on at this place.
    pub fn put_back(&mut self, walk: Walk, at: u32) {
        self.all.push_front((walk, at));
    }

    /// Whether all have finished.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
