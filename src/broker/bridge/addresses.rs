//! A bridge with several addresses: what must be remembered of those it has left, so that no packet
//! identifier is ever taken for another message's.
//!
//! A broker takes a QoS 2 message under an identifier it has received and not seen released for a
//! repetition. So when a bridge leaves an address, what is under way there is remembered: those
//! identifiers are not given to new messages until the bridge has been back, or has found that the
//! session is gone there; and if the addresses do not share sessions, what had been received from
//! each is kept apart. The record is in the batch that the CONNACK of this broker waits for, and
//! nothing is said to the upstream before that: what is on disk is never behind what an upstream
//! has seen.

use crate::broker::Broker;
use crate::broker::bridge::settings::Bridge;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::record::{BridgeRecord, LeftAddress, Write};
use crate::broker::state::gate::SESSION;
use crate::broker::state::session::Received;
use crate::wire::PacketId;

impl Broker {
    /// Whether the session at this address must be begun anew (a clean start): what an upstream may
    /// remember of before means nothing to this bridge.
    pub fn begins_anew(&self, bridge: &Bridge, address: &str) -> bool {
        let Some(record) = self.bridge_record(&bridge.name) else {
            // The store was written by a broker that did not remember.
            return false;
        };
        let is_known = |left: &LeftAddress| *left.address == *address;
        let known = *record.address == *address || record.left.iter().any(is_known);
        record.address.is_empty() || (record.separate_sessions && !known)
    }

    /// Notes whether the addresses of a bridge share its session, which was seen when it changed
    /// over.
    pub fn set_separate_sessions(&mut self, bridge: &Bridge, separate: bool) {
        let mut record = self.record_of(bridge);
        record.separate_sessions = separate;
        self.remember_bridge(&bridge.name, record);
    }

    /// Forgets what is remembered of addresses that are not among these.
    pub fn keep_bridge_addresses(&mut self, bridge: &Bridge, addresses: &[String]) {
        let Some(mut record) = self.bridge_record(&bridge.name).cloned() else {
            return;
        };
        record
            .left
            .retain(|left| addresses.iter().any(|address| *address == *left.address));
        self.remember_bridge(&bridge.name, record);
        self.reserve_identifiers(bridge);
    }

    /// Lets a bridge finish what is under way, and begin nothing, or no more so.
    pub(in crate::broker) fn set_finishing(&mut self, id: ConnectionId, finishing: bool) {
        self.connections[id].set_finishing(finishing);
        self.touch(id);
    }

    /// Whether everything that was sent to a bridge is acknowledged completely.
    pub(in crate::broker) fn has_finished(&self, id: ConnectionId) -> bool {
        let session = self.connections[id].session();
        session.is_none_or(|session| self.sessions[session].inflight.len() == 0)
    }

    /// Whether nothing waits to be taken for this connection.
    pub(in crate::broker) fn is_taken(&self, id: ConnectionId) -> bool {
        self.connections[id].outbox().len() == 0
    }

    /// The upstream at this address has accepted, and has the session of before or not: remembers
    /// what the address that was left may hold, and makes what was received what this one has sent.
    /// The identifiers it must be made to release are returned; [`Broker::released`] says that it
    /// has.
    pub(in crate::broker) fn arrive(
        &mut self,
        bridge: &Bridge,
        address: &str,
        present: bool,
    ) -> Vec<PacketId> {
        let Some(at) = self.bridge_session(&bridge.name) else {
            return Vec::new();
        };
        let mut record = self.record_of(bridge);
        let elsewhere = !record.address.is_empty() && *record.address != *address;
        let under_way = self.sessions[at].inflight.exact();
        if elsewhere {
            record.separate_sessions |= !present;
            let mut unreleased =
                take(&mut record, None).map_or_else(Vec::new, |left| left.unreleased);
            unreleased.extend(&under_way);
            unreleased.sort_unstable();
            unreleased.dedup();
            let mut received: Vec<PacketId> = self.sessions[at].received.keys().copied().collect();
            received.sort_unstable();
            record.left.push(LeftAddress {
                address: record.address.clone(),
                unreleased,
                received,
            });
        }
        let back = take(&mut record, Some(address)).filter(|_| present);
        if !present {
            self.replace_received(at, &[]);
        } else if elsewhere && record.separate_sessions {
            let received = back.as_ref().map_or(&[][..], |left| &left.received);
            self.replace_received(at, received);
        }
        // What is still under way is the same message, because nothing else has been given its
        // identifier: its exchange goes on.
        let mut unreleased = back.map_or_else(Vec::new, |left| left.unreleased);
        unreleased.retain(|id| under_way.binary_search(id).is_err());
        if !unreleased.is_empty() {
            record.left.push(LeftAddress {
                address: address.into(),
                unreleased: unreleased.clone(),
                received: Vec::new(),
            });
        }
        record.address = address.into();
        self.remember_bridge(&bridge.name, record);
        self.reserve_identifiers(bridge);
        unreleased
    }

    /// The upstream the bridge is connected to holds none of the identifiers any more that
    /// [`Broker::arrive`] returned. New messages may have them: their rows are in no earlier batch
    /// than this.
    pub(in crate::broker) fn released(&mut self, bridge: &Bridge) {
        let mut record = self.record_of(bridge);
        take(&mut record, None);
        self.remember_bridge(&bridge.name, record);
        self.reserve_identifiers(bridge);
    }

    /// Begins the record of a bridge whose session is new, or that is somebody else to the upstream
    /// now; for any other, sees to it that what must not be used is not.
    pub(in crate::broker) fn open_record(&mut self, bridge: &Bridge, new: bool) {
        let record = self.bridge_record(&bridge.name);
        let other = record.is_some_and(|it| it.remote_clientid != bridge.remote_clientid);
        if new || other {
            let record = BridgeRecord {
                remote_clientid: bridge.remote_clientid.clone(),
                ..BridgeRecord::default()
            };
            self.remember_bridge(&bridge.name, record);
        }
        self.reserve_identifiers(bridge);
    }

    fn record_of(&self, bridge: &Bridge) -> BridgeRecord {
        let record = self.bridge_record(&bridge.name).cloned();
        record.unwrap_or_else(|| BridgeRecord {
            remote_clientid: bridge.remote_clientid.clone(),
            ..BridgeRecord::default()
        })
    }

    fn reserve_identifiers(&mut self, bridge: &Bridge) {
        let Some(at) = self.bridge_session(&bridge.name) else {
            return;
        };
        let key = self.sessions[at].key();
        let left = self
            .bridges
            .records
            .get(&key)
            .map(|record| &record.left[..]);
        let unreleased = left
            .unwrap_or_default()
            .iter()
            .flat_map(|left| &left.unreleased);
        let unreleased = unreleased.copied().collect();
        self.sessions[at].inflight.reserve(unreleased);
    }

    /// Makes these the QoS 2 messages the upstream has sent and not released.
    fn replace_received(&mut self, at: SessionIndex, ids: &[PacketId]) {
        let key = self.sessions[at].key();
        for (packet_id, received) in std::mem::take(&mut self.sessions[at].received) {
            if received.stored && !ids.contains(&packet_id) {
                self.write(Write::RemoveReceived(key, packet_id));
            }
        }
        for packet_id in ids {
            self.write(Write::PutReceived(key, *packet_id));
            let received = Received {
                stamp: self.gate.require(SESSION),
                stored: true,
                counted: false,
            };
            self.sessions[at].received.insert(*packet_id, received);
        }
    }
}

/// Takes what is remembered of an address out of the record; without one, of the address that is
/// connected.
fn take(record: &mut BridgeRecord, address: Option<&str>) -> Option<LeftAddress> {
    let address = address.unwrap_or(&record.address);
    let at = record
        .left
        .iter()
        .position(|left| *left.address == *address)?;
    Some(record.left.swap_remove(at))
}
