//! Memory of partial packets: those that have begun and not ended, of all connections.
//!
//! A packet may come byte by byte, or never end. A CONNECT whose client is being authenticated
//! counts as well.

use std::collections::BTreeMap;

use crate::broker::ConnectionId;

/// All partial packets, in the order in which they must make room: first those of connections that
/// have not sent CONNECT, then the oldest.
#[derive(Debug)]
pub struct PartialPackets {
    max: usize,
    total: usize,
    packets: BTreeMap<Key, (ConnectionId, usize)>,
    next_number: u64,
}

/// Whether the connection has sent CONNECT; then a number that grows with each packet.
type Key = (bool, u64);

/// The entry of one connection in [`PartialPackets`].
#[derive(Debug, Default)]
pub struct PartialEntry {
    key: Option<Key>,
    bytes: usize,
}

impl PartialEntry {
    /// Returns the bytes that were counted last.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PartialPackets {
    /// Creates an empty set with a limit of `max` bytes.
    pub fn new(max: usize) -> PartialPackets {
        PartialPackets {
            max,
            total: 0,
            packets: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// Sets how many bytes of a partial packet a connection holds. `is_new` says that it is another
    /// packet than before.
    ///
    /// Returns the connections to close so that all fit. The last one is never returned: a packet
    /// that is alone always fits.
    pub fn set_size(
        &mut self,
        entry: &mut PartialEntry,
        id: ConnectionId,
        bytes: usize,
        connected: bool,
        is_new: bool,
    ) -> Vec<ConnectionId> {
        if bytes == 0 && entry.key.is_none() {
            return Vec::new();
        }
        let before = entry.key.take().filter(|key| {
            let known = self.packets.remove(key);
            self.total -= known.map_or(0, |(_, bytes)| bytes);
            known.is_some()
        });
        entry.bytes = bytes;
        if bytes == 0 {
            return Vec::new();
        }
        let key = match before {
            Some(key) if !is_new => key,
            _ => {
                self.next_number += 1;
                (connected, self.next_number)
            }
        };
        entry.key = Some(key);
        self.packets.insert(key, (id, bytes));
        self.total += bytes;
        let mut close = Vec::new();
        while self.total > self.max
            && self.packets.len() > 1
            && let Some((_, (id, bytes))) = self.packets.pop_first()
        {
            self.total -= bytes;
            close.push(id);
        }
        close
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);
    const C: ConnectionId = ConnectionId(3);

    #[test]
    fn the_packet_that_has_been_unfinished_longest_makes_room() {
        let mut all = PartialPackets::new(100);
        let (mut a, mut b, mut c) = (
            PartialEntry::default(),
            PartialEntry::default(),
            PartialEntry::default(),
        );
        assert_eq!(all.set_size(&mut a, A, 40, true, false), []);
        assert_eq!(all.set_size(&mut b, B, 40, true, false), []);
        assert_eq!(all.set_size(&mut a, A, 60, true, false), []);
        assert_eq!(all.set_size(&mut c, C, 30, true, false), [A]);
        assert_eq!(all.total, 70);
        // A closed connection that reports its size gives nothing back twice.
        assert_eq!(all.set_size(&mut a, A, 0, true, false), []);
        assert_eq!(all.total, 70);
        // B ends its packet and begins another. Now C is the oldest.
        assert_eq!(all.set_size(&mut b, B, 80, true, true), [C]);
        assert_eq!(all.set_size(&mut b, B, 0, true, true), []);
        assert_eq!((all.total, all.packets.len()), (0, 0));
    }

    #[test]
    fn a_connection_without_connect_makes_room_for_one_with() {
        let mut all = PartialPackets::new(100);
        let (mut a, mut b, mut c) = (
            PartialEntry::default(),
            PartialEntry::default(),
            PartialEntry::default(),
        );
        all.set_size(&mut a, A, 60, true, false);
        all.set_size(&mut b, B, 30, false, false);
        assert_eq!(all.set_size(&mut c, C, 30, false, false), [B]);
        assert_eq!(all.set_size(&mut a, A, 90, true, false), [C]);
    }

    #[test]
    fn a_packet_that_is_alone_always_comes_in() {
        let mut all = PartialPackets::new(100);
        let mut a = PartialEntry::default();
        assert_eq!(all.set_size(&mut a, A, 1000, false, false), []);
        let mut b = PartialEntry::default();
        assert_eq!(all.set_size(&mut b, B, 10, false, false), [A]);
    }
}
