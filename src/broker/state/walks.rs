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
    pub all: VecDeque<(Walk, u32)>,
}
