//! Connections from CONNECT to the last SUBACK, and their end.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use mio::Token;

use super::Generator;
use super::flow::SlotState;
use super::frame::PayloadHeader;
use super::link::Link;
use super::peer::{Client, PacketIdSet, Peer, State};
use super::sequence::Sequence;
use crate::cli::exit::{self, Failure};
use crate::wire::packet::{Connect, Subscribe, SubscribeOptions, Unsubscribe, Will};
use crate::wire::{
    Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, codec,
};

/// How many connections are opened at once.
const OPENING: usize = 100;
/// Filters in one SUBSCRIBE.
const FILTERS: usize = 500;
/// Time limit without progress while connections are opened.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

impl Generator {
    /// Connects and subscribes clients, several at once. Returns the number of the first; the
    /// others follow.
    ///
    /// # Errors
    /// Fails if one is refused or lost, or if nothing happens for 20 seconds.
    pub fn connect(&mut self, clients: impl IntoIterator<Item = Client>) -> Result<usize, Failure> {
        let first = self.peers.len();
        let mut waiting = first;
        for client in clients {
            while self.count_opening(&mut waiting) >= OPENING {
                self.poll_while_opening()?;
            }
            self.open(client)?;
        }
        self.finish(first)?;
        Ok(first)
    }

    /// Adds subscriptions to a connected client. The first SUBSCRIBE is sent at once, each other
    /// one after the answer to the previous.
    pub fn subscribe(&mut self, peer: usize, filters: Vec<String>, qos: QoS) {
        self.peers[peer].client.filters = filters;
        self.peers[peer].client.qos = qos;
        self.begin_to_subscribe(peer);
    }

    /// Removes subscriptions of a connected client. Does not wait for the answer.
    pub fn unsubscribe(&mut self, peer: usize, filters: &[String]) {
        let packet = Packet::Unsubscribe(Unsubscribe {
            packet_id: PacketId::FIRST,
            properties: Properties::EMPTY,
            filters: filters.iter().map(String::as_str).collect(),
        });
        let link = &mut self.peers[peer].link;
        codec::encode(&packet, self.version, link.out());
        self.peers[peer].mark_dirty(peer as u32, &mut self.dirty);
    }

    /// Waits until all subscriptions are acknowledged.
    ///
    /// # Errors
    /// As [`Generator::connect`].
    pub fn finish_connecting(&mut self) -> Result<(), Failure> {
        self.last_progress = self.now();
        self.finish(0)
    }

    /// Connects clients again that were disconnected, with their sessions. A publisher resends what
    /// was not acknowledged.
    ///
    /// # Errors
    /// As [`Generator::connect`].
    pub fn connect_again(&mut self, peers: Range<usize>) -> Result<(), Failure> {
        for index in peers.clone() {
            let now = self.now();
            let link = self.new_link(index)?;
            let peer = &mut self.peers[index];
            peer.client.clean_start = false;
            peer.client.filters.clear();
            peer.link = link;
            peer.state = State::Connecting;
            peer.began = now;
            self.write_connect(index);
        }
        self.finish(peers.start)
    }

    /// Disconnects clients with DISCONNECT.
    pub fn disconnect(&mut self, peers: Range<usize>) {
        for peer in self.peers[peers].iter_mut().filter(|peer| !peer.is_gone()) {
            peer.link.out().extend_from_slice(&[0xE0, 0]);
            // Errors do not matter: the connection may be closed already.
            let _ = peer.link.flush();
            peer.link.close();
            peer.state = State::Gone;
        }
    }

    /// Ends the durable sessions of disconnected clients: each connects once more, and its session
    /// ends with that connection.
    ///
    /// # Errors
    /// As [`Generator::connect`].
    pub fn end_sessions(&mut self, peers: Range<usize>) -> Result<(), Failure> {
        for peer in &mut self.peers[peers.clone()] {
            peer.client.durable = false;
            peer.publisher = None;
            peer.sequence = None;
        }
        self.connect_again(peers)
    }

    /// Closes the connection of a client without DISCONNECT.
    pub fn drop_connection(&mut self, peer: usize) {
        let peer = &mut self.peers[peer];
        peer.link.close();
        peer.state = State::Gone;
    }

    /// Returns how many clients are connected or connecting.
    pub fn connected(&self) -> usize {
        self.peers.iter().filter(|peer| !peer.is_gone()).count()
    }

    /// Returns how many clients were ever connected.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Handles a lost connection. Fails unless the loss is tolerated.
    pub(super) fn connection_lost(&mut self, index: usize, why: &str) -> Result<(), Failure> {
        let peer = &mut self.peers[index];
        peer.link.close();
        let state = std::mem::replace(&mut peer.state, State::Gone);
        if self.tolerates_loss {
            return Ok(());
        }
        let when = match state {
            State::Connecting => "before its CONNACK",
            State::Subscribing => "before its SUBACK",
            State::Open | State::Gone => "while it was in use",
        };
        let id = &peer.client.id;
        let message = format!("the connection of {id} was lost {when}: {why}");
        Err(Failure::new(exit::LOST, message))
    }

    pub(super) fn receive_other(
        &mut self,
        index: usize,
        frame: &[u8],
        now: u64,
    ) -> Result<(), Failure> {
        let packet = codec::decode(frame, self.version);
        let packet = packet
            .map_err(|fault| Failure::new(exit::WRONG, format!("the broker sent {fault}")))?;
        self.last_progress = now;
        match packet {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => {
                let maximum = ack.properties.receive_maximum();
                self.peers[index].receive_maximum = maximum.unwrap_or(u16::MAX);
                self.connect_latency.record(now - self.peers[index].began);
                self.begin_to_subscribe(index);
                self.resend(index);
                Ok(())
            }
            Packet::ConnAck(ack) => {
                let explained = ack.properties.reason_string();
                Err(Failure::not_connected(self.version, ack.reason, explained))
            }
            Packet::SubAck(ack) => match ack.codes.iter().find(|code| code.is_error()) {
                Some(code) => Err(Failure::refused("a subscription", *code, None)),
                None => {
                    self.subscribe_next(index);
                    Ok(())
                }
            },
            Packet::Disconnect(disconnect) => {
                let words = exit::words(disconnect.reason);
                self.connection_lost(index, &format!("DISCONNECT, {words}"))
            }
            Packet::PingResp | Packet::UnsubAck(_) => Ok(()),
            _ => Err(Failure::new(
                exit::WRONG,
                "the broker sent a packet that only clients send",
            )),
        }
    }

    fn finish(&mut self, mut from: usize) -> Result<(), Failure> {
        while self.count_opening(&mut from) > 0 {
            self.poll_while_opening()?;
        }
        Ok(())
    }

    fn poll_while_opening(&mut self) -> Result<(), Failure> {
        self.poll_once(Duration::from_millis(20))?;
        if self.now().saturating_sub(self.last_progress) > IDLE_TIMEOUT.as_nanos() as u64 {
            return Err(Failure::new(
                exit::TIMEOUT,
                "the broker has not answered for 20 seconds",
            ));
        }
        Ok(())
    }

    /// Counts the connections that are not open yet. All before `from` are known to be open.
    fn count_opening(&mut self, from: &mut usize) -> usize {
        let settled = |peer: &Peer| matches!(peer.state, State::Open | State::Gone);
        while self.peers.get(*from).is_some_and(settled) {
            *from += 1;
        }
        self.peers[*from..]
            .iter()
            .filter(|peer| !settled(peer))
            .count()
    }

    fn open(&mut self, client: Client) -> Result<(), Failure> {
        let index = self.peers.len();
        let link = self.new_link(index)?;
        let receives = client.receives.clone();
        let sent = |flow: u32| match client.from_first {
            true => 0,
            false => self.sent(flow),
        };
        let sequence = (!receives.is_empty()).then(|| match &self.group {
            Some(_) => Sequence::of_member(receives.clone()),
            None => Sequence::new(receives.clone(), sent),
        });
        let now = self.now();
        self.last_progress = self.last_progress.max(now);
        self.peers.push(Peer {
            link,
            state: State::Connecting,
            began: now,
            client,
            subscribe: VecDeque::new(),
            sequence,
            publisher: None,
            receive_maximum: u16::MAX,
            unreleased: PacketIdSet::default(),
            dirty: false,
        });
        self.write_connect(index);
        Ok(())
    }

    fn new_link(&self, index: usize) -> Result<Link, Failure> {
        let (layers, registry) = (self.layers.as_ref(), self.poll.registry());
        Link::open(self.addr, layers, registry, Token(index)).map_err(|error| {
            Failure::new(exit::FAILED, format!("connection {}: {error}", index + 1))
        })
    }

    fn write_connect(&mut self, index: usize) {
        let version = self.version;
        let peer = &mut self.peers[index];
        let mut properties = PropertiesBuf::new();
        if version == ProtocolVersion::V5 && peer.client.durable {
            properties.push(Property::SessionExpiryInterval(u32::MAX));
        }
        let connect = Connect {
            version,
            bridge: false,
            clean_start: match version {
                ProtocolVersion::V5 => peer.client.clean_start,
                _ => !peer.client.durable,
            },
            // The maximum, so that no PINGREQ is needed. Some brokers refuse 0.
            keep_alive: u16::MAX,
            client_id: &peer.client.id,
            will: peer.client.will.as_deref().map(|topic| Will {
                qos: QoS::AtLeastOnce,
                retain: false,
                properties: Properties::EMPTY,
                topic,
                payload: b"gone",
            }),
            username: self.username.as_deref(),
            password: self.password.as_deref().map(str::as_bytes),
            properties: properties.as_properties(),
        };
        codec::encode(
            &Packet::Connect(Box::new(connect)),
            version,
            peer.link.out(),
        );
    }

    fn begin_to_subscribe(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let options = SubscribeOptions::with_qos(peer.client.qos);
        peer.subscribe = peer
            .client
            .filters
            .chunks(FILTERS)
            .map(|filters| {
                let subscribe = Subscribe {
                    packet_id: PacketId::FIRST,
                    properties: Properties::EMPTY,
                    filters: filters
                        .iter()
                        .map(|filter| (filter.as_str(), options))
                        .collect(),
                };
                let mut packet = Vec::new();
                codec::encode(&Packet::Subscribe(subscribe), self.version, &mut packet);
                packet
            })
            .collect();
        peer.client.filters = Vec::new();
        self.subscribe_next(index);
    }

    fn subscribe_next(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        peer.state = match peer.subscribe.pop_front() {
            Some(packet) => {
                peer.link.out().extend_from_slice(&packet);
                peer.mark_dirty(index as u32, &mut self.dirty);
                State::Subscribing
            }
            None => State::Open,
        };
        if peer.is_open()
            && let Some(publisher) = peer.publisher
        {
            self.mark_ready(publisher);
        }
    }

    /// Resends what the broker has not acknowledged on the previous connection [MQTT-4.4.0-1].
    fn resend(&mut self, index: usize) {
        let Some(publisher) = self.peers[index].publisher else {
            return;
        };
        let publisher = &mut self.publishers[publisher as usize];
        let peer = &mut self.peers[index];
        let mut open: Vec<usize> = (1..publisher.slots.len())
            .filter(|id| publisher.slots[*id].state != SlotState::Free)
            .collect();
        open.sort_by_key(|id| {
            let slot = &publisher.slots[*id];
            (slot.at, slot.seq, slot.flow)
        });
        for id in open {
            let slot = publisher.slots[id];
            match slot.state {
                SlotState::Released => peer.reply(0x62, id as u16),
                _ => {
                    let header = PayloadHeader {
                        run: self.run,
                        flow: slot.flow,
                        seq: slot.seq,
                        at: slot.at,
                    };
                    let flow = &mut self.flows[slot.flow as usize];
                    flow.write(id as u16, &header, true, peer.link.out());
                }
            }
        }
        peer.mark_dirty(index as u32, &mut self.dirty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_identifiers_are_remembered_until_released() {
        let mut unreleased = PacketIdSet::default();
        assert!(unreleased.insert(65_535));
        assert!(!unreleased.insert(65_535));
        assert!(unreleased.insert(1));
        unreleased.remove(65_535);
        unreleased.remove(30_000);
        assert!(unreleased.insert(65_535));
        assert!(!unreleased.insert(1));
    }
}
