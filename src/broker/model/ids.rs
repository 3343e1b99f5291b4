//! How connections, sessions and groups are named within the broker.

/// Names a connection, from [`Broker::accept`] until [`Broker::lost`]; then another connection may get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionIndex(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIndex(pub u32);

/// Who asked for bodies.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// A session's queue.
    Session(SessionIndex),
    /// A session's messages that must be sent again.
    Resend(SessionIndex),
    /// A bridge's session, for the topics of its messages.
    Topics(SessionIndex),
    /// A shared group's queue.
    Group(GroupIndex),
}
