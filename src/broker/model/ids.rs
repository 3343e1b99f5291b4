//! How connections, sessions and groups are named within the broker.

/// A number that leads to a place in [`Slots`](crate::broker::state::slots::Slots).
pub trait Key: Copy {
    /// The key of a place.
    fn from_place(place: u32) -> Self;
    /// The place.
    fn place(self) -> u32;
}

/// Names a connection, from [`Broker::accept`](crate::broker::Broker::accept) until
/// [`Broker::lost`](crate::broker::Broker::lost); then another connection may get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

/// Names a session until it has ended and nothing of it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionIndex(pub u32);

/// Names a shared group while it has members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIndex(pub u32);

macro_rules! keys {
    ($($name:ident)*) => {$(
        impl Key for $name {
            fn from_place(place: u32) -> $name {
                $name(place)
            }

            fn place(self) -> u32 {
                self.0
            }
        }
    )*};
}

keys!(ConnectionId SessionIndex GroupIndex);

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
