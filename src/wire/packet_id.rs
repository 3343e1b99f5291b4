//! Packet identifiers.

use std::fmt;
use std::num::NonZeroU16;

/// A packet identifier: 1 to 65,535. Zero cannot be built \[MQTT-2.2.1-3\].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The smallest packet identifier, 1.
    pub const FIRST: PacketId = PacketId(NonZeroU16::MIN);

    /// Returns the identifier with this value, `None` for zero.
    pub const fn new(value: u16) -> Option<PacketId> {
        match NonZeroU16::new(value) {
            Some(value) => Some(PacketId(value)),
            None => None,
        }
    }

    /// Returns the number as it is encoded.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// Returns the identifier after this one; 1 comes after 65,535.
    pub const fn next(self) -> PacketId {
        match self.0.checked_add(1) {
            Some(value) => PacketId(value),
            None => PacketId::FIRST,
        }
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
