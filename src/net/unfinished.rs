//! Memory of packets that have begun and not ended, of all connections: what a peer sends byte by byte, or never ends, and CONNECTs whose login is being checked.

use std::collections::BTreeMap;

use crate::broker::ConnectionId;

/// The packets that have begun and not ended. Those of connections that have not sent CONNECT come first, then the oldest.
#[derive(Debug)]
pub struct Unfinished {
    max: usize,
    total: usize,
    held: BTreeMap<Key, (ConnectionId, usize)>,
    next: u64,
}

/// Whether its connection has sent CONNECT, and a number that is higher for a packet that began later.
type Key = (bool, u64);

/// What a connection holds of a packet: its place among the others.
#[derive(Debug, Default)]
pub struct Held {
    key: Option<Key>,
    bytes: usize,
}

impl Held {
    /// Bytes that were counted last.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Unfinished {
    /// None yet, and at most `max` bytes.
    pub fn new(max: usize) -> Unfinished {
        Unfinished {
            max,
            total: 0,
            held: BTreeMap::new(),
            next: 0,
        }
    }

    /// A connection now holds this many bytes of a packet; `began` if the packet is another one than it held before. Returns the connections
    /// to be closed so that all fit: never the last one left, so that a packet that is alone always comes in.
    pub fn hold(
        &mut self,
        held: &mut Held,
        id: ConnectionId,
        bytes: usize,
        connected: bool,
        began: bool,
    ) -> Vec<ConnectionId> {
        if bytes == 0 && held.key.is_none() {
            return Vec::new();
        }
        let before = held.key.take().filter(|key| {
            let known = self.held.remove(key);
            self.total -= known.map_or(0, |(_, bytes)| bytes);
            known.is_some()
        });
        held.bytes = bytes;
        if bytes == 0 {
            return Vec::new();
        }
        let key = match before {
            Some(key) if !began => key,
            _ => {
                self.next += 1;
                (connected, self.next)
            }
        };
        held.key = Some(key);
        self.held.insert(key, (id, bytes));
        self.total += bytes;
        let mut close = Vec::new();
        while self.total > self.max
            && self.held.len() > 1
            && let Some((_, (id, bytes))) = self.held.pop_first()
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
        let mut all = Unfinished::new(100);
        let (mut a, mut b, mut c) = (Held::default(), Held::default(), Held::default());
        assert_eq!(all.hold(&mut a, A, 40, true, false), []);
        assert_eq!(all.hold(&mut b, B, 40, true, false), []);
        assert_eq!(all.hold(&mut a, A, 60, true, false), []);
        assert_eq!(all.hold(&mut c, C, 30, true, false), [A]);
        assert_eq!(all.total, 70);
        // What is closed and then says what it holds gives it back.
        assert_eq!(all.hold(&mut a, A, 0, true, false), []);
        assert_eq!(all.total, 70);
        // B ends its packet and begins another: now C is the oldest.
        assert_eq!(all.hold(&mut b, B, 80, true, true), [C]);
        assert_eq!(all.hold(&mut b, B, 0, true, true), []);
        assert_eq!((all.total, all.held.len()), (0, 0));
    }

    #[test]
    fn a_connection_without_connect_makes_room_for_one_with() {
        let mut all = Unfinished::new(100);
        let (mut a, mut b, mut c) = (Held::default(), Held::default(), Held::default());
        all.hold(&mut a, A, 60, true, false);
        all.hold(&mut b, B, 30, false, false);
        assert_eq!(all.hold(&mut c, C, 30, false, false), [B]);
        assert_eq!(all.hold(&mut a, A, 90, true, false), [C]);
    }

    #[test]
    fn a_packet_that_is_alone_always_comes_in() {
        let mut all = Unfinished::new(100);
        let mut a = Held::default();
        assert_eq!(all.hold(&mut a, A, 1000, false, false), []);
        let mut b = Held::default();
        assert_eq!(all.hold(&mut b, B, 10, false, false), [A]);
    }
}
