//! All connections: how many come from each address, and which of them a driver should serve.

use core::net::IpAddr;
use std::ops::{Index, IndexMut};

use crate::broker::model::access::Arrival;
use crate::broker::model::ids::ConnectionId;
use crate::broker::state::connection::Connection;
use crate::broker::state::outbox::Outbox;
use crate::broker::state::slots::Slots;
use crate::broker::state::take_overs::TakeOvers;
use crate::broker::state::tally::Tally;

/// All connections.
#[derive(Debug)]
pub struct Connections {
    slots: Slots<ConnectionId, Connection>,
    /// Connections from each address.
    by_address: Tally<IpAddr>,
    next_serial: u64,
    /// Those that a driver should serve; each of them says so itself, too.
    touched: Vec<ConnectionId>,
    /// Those whose CONNECT waits for an older one.
    pub take_overs: TakeOvers,
    /// Keeps peers from choosing topics that collide in tables of aliases.
    pub seed: u64,
    /// No new ones are let in: the broker shuts down.
    closed: bool,
}

impl Connections {
    /// None yet; `seed` keeps peers from choosing addresses that collide.
    pub fn new(seed: u64) -> Connections {
        Connections {
            slots: Slots::default(),
            by_address: Tally::new(seed),
            next_serial: 1,
            touched: Vec::new(),
            take_overs: TakeOvers::new(seed),
            seed,
            closed: false,
        }
    }

    /// Adds a connection.
    pub fn add(&mut self, arrival: Arrival, outbox: Outbox, uptime: u64) -> ConnectionId {
        if let Some(address) = arrival.peer.ip() {
            self.by_address.add(address);
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        self.slots
            .insert(Connection::new(serial, arrival, outbox, uptime))
    }

    /// Removes a connection that is there.
    pub fn remove(&mut self, id: ConnectionId) -> Connection {
        let gone = self.slots.remove(id);
        if let Some(address) = gone.arrival().peer.ip() {
            self.by_address.remove(&address);
        }
        gone
    }

    /// How many come from an address.
    pub fn count_from(&self, address: &IpAddr) -> usize {
        self.by_address.count(address)
    }

    /// Lets in no new ones from now on.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether no new ones are let in.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Has the driver serve a connection.
    #[inline]
    pub fn touch(&mut self, id: ConnectionId) {
        if self.slots[id].touch() {
            self.touched.push(id);
        }
    }

    /// Moves those that should be served to the end of `into`.
    pub fn take_touched(&mut self, into: &mut Vec<ConnectionId>) {
        for id in &self.touched {
            if let Some(connection) = self.slots.get_mut(*id) {
                connection.untouch();
            }
        }
        into.append(&mut self.touched);
    }

    /// A connection, if there is one with this name.
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id)
    }

    /// A connection, if there is one with this name.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Every name is below this number.
    pub fn places(&self) -> u32 {
        self.slots.places()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.slots.iter()
    }
}

impl Index<ConnectionId> for Connections {
    type Output = Connection;

    #[inline]
    fn index(&self, id: ConnectionId) -> &Connection {
        &self.slots[id]
    }
}

impl IndexMut<ConnectionId> for Connections {
    #[inline]
    fn index_mut(&mut self, id: ConnectionId) -> &mut Connection {
        &mut self.slots[id]
    }
}
