//! The broker driven directly: packets in, packets out, a disk that commits when the test says so, and a clock that stands still unless moved.
//!
//! A [`World`] is a broker with a [`Disk`]. What clients get is compared as text, one line a packet ([`World::got`]); so is what is written
//! ([`World::writes`]).

mod accounting;
mod acl;
mod bridge;
mod bridge_addresses;
mod bridge_both;
mod bridge_link;
mod bridge_odd;
mod bridge_queue;
mod bridge_queue_random;
mod bridge_random;
mod bridge_start;
mod bridge_suspect;
mod clock;
mod connect;
mod crash;
mod disk;
mod ends;
mod fetch;
mod gate;
mod levels;
mod limits;
mod local;
mod malice;
mod memory;
mod mount;
mod notice;
mod notification;
mod origin;
mod outgoing;
mod publish;
mod quota;
mod repetition;
mod restore;
mod retained;
mod retained_source;
mod rights;
mod shared;
mod shared_durable;
mod show;
mod slices;
mod spread;
mod subscribe;
mod takeover;
mod upgrade_qos;
mod wills;
mod window;
mod write_timeout;
mod writes;

use super::record::{Batch, Durability, InflightRecord, QueueKey, Seq, SubscriptionRecord, Write};
use super::{
    Access, Arrival, Broker, CertificateNames, Chance, ConnectionId, Fetch, Message, Settings,
};
use crate::clock::Now;
use crate::limits::Limits;
use crate::wire::packet::{
    Ack, Connect, Disconnect, Publish, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe,
    Will,
};
use crate::wire::{
    Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, codec,
};
use disk::Disk;
use show::{show, show_write};

/// When a world begins, in milliseconds since 1970.
const EPOCH: u64 = 1_700_000_000_000;

/// A broker, its disk and its time.
struct World {
    broker: Broker,
    disk: Disk,
    now: Now,
    settings: Settings,
    /// How connections come in from now on: without a user name, at first.
    arrival: Arrival,
    /// The batch that the disk is working on.
    committing: Option<Batch>,
    /// What was taken for the disk, as text, since [`World::writes`] was last asked.
    taken: Vec<String>,
    /// Fetches that wait for an answer; answered by [`World::settle`].
    fetches: Vec<Fetch>,
}

/// A client's connection.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Peer {
    id: ConnectionId,
    version: ProtocolVersion,
}

/// What a client says in its CONNECT.
#[derive(Clone)]
struct Client {
    id: &'static str,
    version: ProtocolVersion,
    clean: bool,
    keep_alive: u16,
    properties: Vec<Property<'static>>,
    will: Option<TestWill>,
}

#[derive(Clone)]
struct TestWill {
    topic: &'static str,
    payload: &'static str,
    qos: QoS,
    retain: bool,
    properties: Vec<Property<'static>>,
}

/// A MQTT 5 client whose session ends with its connection.
fn client(id: &'static str) -> Client {
    Client {
        id,
        version: ProtocolVersion::V5,
        clean: false,
        keep_alive: 0,
        properties: Vec::new(),
        will: None,
    }
}

/// A client of a version that does not limit what it may have under way.
fn publisher() -> Client {
    client("pub").version(ProtocolVersion::V311).clean()
}

/// A MQTT 5 client whose session does not expire.
fn durable(id: &'static str) -> Client {
    client(id).with(Property::SessionExpiryInterval(u32::MAX))
}

impl Client {
    fn with(mut self, property: Property<'static>) -> Client {
        self.properties.push(property);
        self
    }

    fn clean(mut self) -> Client {
        self.clean = true;
        self
    }

    fn version(mut self, version: ProtocolVersion) -> Client {
        self.version = version;
        self
    }

    fn keep_alive(mut self, seconds: u16) -> Client {
        self.keep_alive = seconds;
        self
    }

    fn will(mut self, qos: u8, topic: &'static str, payload: &'static str) -> Client {
        self.will = Some(TestWill {
            topic,
            payload,
            qos: level(qos),
            retain: false,
            properties: Vec::new(),
        });
        self
    }

    fn will_with(mut self, property: Property<'static>) -> Client {
        self.will
            .as_mut()
            .expect("a will was given")
            .properties
            .push(property);
        self
    }

    fn retained_will(mut self) -> Client {
        self.will.as_mut().expect("a will was given").retain = true;
        self
    }
}

fn level(qos: u8) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)]
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("not zero")
}

fn block(properties: &[Property<'_>]) -> PropertiesBuf {
    let mut block = PropertiesBuf::new();
    properties.iter().for_each(|property| block.push(*property));
    block
}

/// A PUBLISH; `id` counts only with QoS 1 and 2.
fn message<'a>(qos: u8, id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish {
        dup: false,
        qos: level(qos),
        retain: false,
        topic,
        packet_id: (qos > 0).then(|| packet_id(id)),
        properties: Properties::EMPTY,
        payload: payload.as_bytes(),
    }
}

fn retained<'a>(qos: u8, id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish {
        retain: true,
        ..message(qos, id, topic, payload)
    }
}

fn options(qos: u8) -> SubscribeOptions {
    SubscribeOptions::with_qos(level(qos))
}

/// A connection through a listener that lets in everybody.
fn anonymous() -> Arrival {
    Arrival::from(Access {
        allow_anonymous: true,
        ..Access::default()
    })
}

/// A connection whose certificate proves a user name.
fn user(name: &str) -> Arrival {
    let mut arrival = Arrival::from(Access {
        use_identity_as_username: true,
        ..Access::default()
    });
    arrival.peer.certificate = Some(Box::new(CertificateNames {
        common_name: Some(name.into()),
        ..CertificateNames::default()
    }));
    arrival
}

/// Settings with these limits, and no `$SYS` topics.
fn limited(limits: Limits) -> Settings {
    Settings {
        limits,
        ..Settings::default()
    }
}

impl World {
    fn new() -> World {
        World::with(Settings::default())
    }

    /// One of several brokers.
    fn named(identity: u64) -> World {
        World::with(Settings {
            identity,
            ..Settings::default()
        })
    }

    fn with(settings: Settings) -> World {
        let now = Now {
            uptime: 0,
            unix: EPOCH,
        };
        World {
            broker: Broker::new(settings.clone(), Chance::fixed(7), now),
            disk: Disk::default(),
            now,
            settings,
            arrival: anonymous(),
            committing: None,
            taken: Vec::new(),
            fetches: Vec::new(),
        }
    }

    /// Moves the clock and lets the broker do what is due on the way.
    fn wait(&mut self, ms: u64) {
        let end = self.now.uptime + ms;
        while self.broker.next_timeout() <= end {
            let next = self.broker.next_timeout().max(self.now.uptime);
            self.jump(next - self.now.uptime);
            self.broker.tick(self.now);
            self.settle();
        }
        self.jump(end - self.now.uptime);
        self.broker.tick(self.now);
    }

    /// Moves the clock; nobody is told.
    fn jump(&mut self, ms: u64) {
        self.now.uptime += ms;
        self.now.unix += ms;
    }

    fn accept(&mut self, version: ProtocolVersion) -> Peer {
        let id = self.broker.accept(self.arrival.clone(), self.now);
        Peer {
            id: id.expect("the broker takes connections"),
            version,
        }
    }

    /// Sends a CONNECT; the answer may have to wait for the disk. Who had its client identifier has nothing more to say.
    fn open(&mut self, client: &Client) -> Peer {
        let peer = self.accept(client.version);
        self.present(peer, client);
        while self.drain_older(peer) {
            self.present(peer, client);
        }
        peer
    }

    /// Ends a connection that holds up a CONNECT, if there is one.
    fn drain_older(&mut self, peer: Peer) -> bool {
        if !self.broker.is_waiting(peer.id) {
            return false;
        }
        let mut all = self.broker.connections.iter();
        let (older, _) = all.find(|(_, it)| it.yields()).expect("it waits for one");
        drop(all);
        self.broker.drained(older, self.now);
        true
    }

    /// Hands over a client's CONNECT, which may have to wait for an older connection.
    fn present(&mut self, peer: Peer, client: &Client) {
        let properties = block(&client.properties);
        let will_properties = client.will.as_ref().map(|will| block(&will.properties));
        let will = client.will.as_ref().zip(will_properties.as_ref());
        let connect = Connect {
            version: client.version,
            bridge: false,
            clean_start: client.clean,
            keep_alive: client.keep_alive,
            client_id: client.id,
            will: will.map(|(will, properties)| Will {
                topic: will.topic,
                payload: will.payload.as_bytes(),
                qos: will.qos,
                retain: will.retain,
                properties: properties.as_properties(),
            }),
            username: None,
            password: None,
            properties: properties.as_properties(),
        };
        self.send(peer, Packet::Connect(Box::new(connect)));
    }

    /// Connects a client and takes the CONNACK; what was to be written is durable then. What comes after the CONNACK waits for [`World::got`].
    fn connect(&mut self, client: &Client) -> Peer {
        let peer = self.open(client);
        self.settle_disk();
        let mut out = Vec::new();
        // Not through the session's pump: only what stands in the outbox.
        self.broker.take_released(peer.id, false, |outbox| {
            outbox.take(&mut out);
            out.len()
        });
        self.broker.count_written(peer.id, 0);
        let got = show(&out, peer.version);
        assert!(
            got.len() == 1 && got[0].starts_with("CONNACK") && got[0].contains("Success"),
            "{got:?}"
        );
        peer
    }

    fn send(&mut self, peer: Peer, packet: Packet<'_>) {
        self.broker.receive(peer.id, packet, self.now);
    }

    fn publish(&mut self, peer: Peer, publish: Publish<'_>) {
        self.send(peer, Packet::Publish(publish));
    }

    /// Publishes with these properties.
    fn publish_with(&mut self, peer: Peer, publish: Publish<'_>, properties: &[Property<'_>]) {
        let properties = block(properties);
        let properties = properties.as_properties();
        self.publish(
            peer,
            Publish {
                properties,
                ..publish
            },
        );
    }

    fn puback(&mut self, peer: Peer, id: u16) {
        self.send(peer, Packet::PubAck(success(id)));
    }

    fn pubrec(&mut self, peer: Peer, id: u16) {
        self.send(peer, Packet::PubRec(success(id)));
    }

    fn pubrel(&mut self, peer: Peer, id: u16) {
        self.send(peer, Packet::PubRel(success(id)));
    }

    fn pubcomp(&mut self, peer: Peer, id: u16) {
        self.send(peer, Packet::PubComp(success(id)));
    }

    fn ping(&mut self, peer: Peer) {
        self.send(peer, Packet::PingReq);
    }

    /// Sends a SUBSCRIBE; the answer may have to wait for the disk.
    fn ask(&mut self, peer: Peer, id: u16, filters: &[(&str, SubscribeOptions)]) {
        let subscribe = Subscribe {
            packet_id: packet_id(id),
            properties: Properties::EMPTY,
            filters: filters.to_vec(),
        };
        self.send(peer, Packet::Subscribe(subscribe));
    }

    /// Subscribes and takes the SUBACK and whatever else there is.
    fn subscribe(&mut self, peer: Peer, filter: &str, qos: u8) -> Vec<String> {
        self.ask(peer, 900, &[(filter, options(qos))]);
        self.settle();
        self.got(peer)
    }

    /// Subscribes with a subscription identifier, and takes what there is.
    fn subscribe_as(
        &mut self,
        peer: Peer,
        filter: &str,
        options: SubscribeOptions,
        id: u32,
    ) -> Vec<String> {
        let properties = block(&[Property::SubscriptionIdentifier(id)]);
        let subscribe = Subscribe {
            packet_id: packet_id(900),
            properties: properties.as_properties(),
            filters: vec![(filter, options)],
        };
        self.send(peer, Packet::Subscribe(subscribe));
        self.settle();
        self.got(peer)
    }

    /// Sends an UNSUBSCRIBE; the answer may have to wait for the disk.
    fn unsubscribe(&mut self, peer: Peer, filter: &str) {
        let unsubscribe = Unsubscribe {
            packet_id: packet_id(901),
            properties: Properties::EMPTY,
            filters: vec![filter],
        };
        self.send(peer, Packet::Unsubscribe(unsubscribe));
    }

    /// The client takes its leave.
    fn leave(&mut self, peer: Peer) {
        self.leave_with(peer, ReasonCode::Success, &[]);
        self.broker.lost(peer.id, self.now);
    }

    fn leave_with(&mut self, peer: Peer, reason: ReasonCode, properties: &[Property<'_>]) {
        let properties = block(properties);
        let disconnect = Disconnect {
            reason,
            properties: properties.as_properties(),
        };
        self.send(peer, Packet::Disconnect(disconnect));
    }

    /// The session of a connected client.
    fn session(&self, peer: Peer) -> &super::state::session::Session {
        let session = self.broker.connections[peer.id].session();
        &self.broker.sessions[session.expect("it is connected")]
    }

    /// The connection is gone.
    fn lose(&mut self, peer: Peer) {
        self.broker.lost(peer.id, self.now);
    }

    /// All that a client gets now, one line a packet.
    fn got(&mut self, peer: Peer) -> Vec<String> {
        let mut out = Vec::new();
        loop {
            let before = out.len();
            self.broker.take_output(peer.id, &mut out, self.now);
            if out.len() == before {
                return show(&out, peer.version);
            }
        }
    }

    /// Whether the broker closes the connection.
    fn closes(&mut self, peer: Peer) -> bool {
        let mut out = Vec::new();
        let output = self.broker.take_output(peer.id, &mut out, self.now);
        output.close
    }

    /// The disk begins with the next batch, if there is one.
    fn take(&mut self) -> bool {
        assert!(self.committing.is_none(), "one batch at a time");
        self.committing = self.broker.take_batch(self.now);
        if let Some(batch) = &self.committing {
            self.taken.extend(batch.writes.iter().map(show_write));
        }
        self.committing.is_some()
    }

    /// The operating system has the batch.
    fn written(&mut self) {
        let batch = self.committing.as_ref().expect("a batch is taken");
        self.broker.written(batch.id, self.now);
    }

    /// The batch is on disk.
    fn durable(&mut self) {
        let batch = self.committing.take().expect("a batch is taken");
        for write in batch.writes {
            self.disk.apply(write);
        }
        self.broker.set_room(self.disk.room, false);
        self.broker.durable(batch.id, self.now);
    }

    /// Commits what somebody waits for.
    fn settle_disk(&mut self) {
        if self.committing.is_some() {
            self.durable();
        }
        while self.take() {
            self.written();
            self.durable();
        }
    }

    /// Commits what somebody waits for, and answers fetches, until there is nothing to do.
    fn settle(&mut self) {
        loop {
            self.settle_disk();
            self.take_fetches();
            if self.fetches.is_empty() {
                return;
            }
            self.answer_fetches();
        }
    }

    fn take_fetches(&mut self) {
        self.fetches.extend(self.broker.take_fetches());
    }

    fn answer_fetches(&mut self) {
        for fetch in std::mem::take(&mut self.fetches) {
            let bodies = fetch.bodies.iter().map(|id| self.disk.body(*id)).collect();
            self.broker.fetched(fetch, bodies, self.now);
        }
    }

    /// Commits everything, lazy removals included.
    fn flush(&mut self) {
        self.broker.flush();
        self.settle();
    }

    /// What was taken for the disk since this was last asked, one line a write.
    fn writes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.taken)
    }

    /// Takes what a client gets until nothing more comes; it acknowledges nothing.
    fn all(&mut self, peer: Peer) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            self.settle();
            let got = self.got(peer);
            if got.is_empty() && self.is_quiet() && !self.broker.has_more(peer.id) {
                return all;
            }
            all.extend(got);
        }
    }

    /// Whether neither the disk has anything to do that somebody waits for, nor anybody waits for a body.
    fn is_quiet(&mut self) -> bool {
        self.take_fetches();
        self.fetches.is_empty() && !self.broker.wants_commit(self.now)
    }

    /// Takes what a client gets, and acknowledges it to the end, until nothing more comes. The PUBLISHes, without their packet identifiers.
    fn drain(&mut self, peer: Peer) -> Vec<String> {
        let mut messages = Vec::new();
        loop {
            self.settle();
            let got = self.got(peer);
            if got.is_empty() && self.is_quiet() && !self.broker.has_more(peer.id) {
                return messages;
            }
            for line in got {
                let mut words = line.split(' ');
                let (kind, id) = (words.next(), words.next().unwrap_or_default());
                let number = id.trim_start_matches('#').parse::<u16>();
                match (kind, &number) {
                    (Some("PUBLISH"), &Ok(number)) => {
                        if line.contains(" q2") {
                            self.pubrec(peer, number);
                        } else {
                            self.puback(peer, number);
                        }
                    }
                    (Some("PUBREL"), &Ok(number)) => self.pubcomp(peer, number),
                    _ => {}
                }
                match (kind, number) {
                    (Some("PUBLISH"), Ok(_)) => {
                        messages.push(line.replacen(&format!(" {id}"), "", 1));
                    }
                    (Some("PUBLISH"), Err(_)) => messages.push(line),
                    _ => {}
                }
            }
        }
    }

    /// The process dies and another one begins with what is on disk.
    fn crash(&mut self) {
        self.crash_with(self.settings.clone());
    }

    /// As [`World::crash`]; the new process has other settings.
    fn crash_with(&mut self, settings: Settings) {
        self.committing = None;
        self.fetches.clear();
        self.now.uptime = 0;
        self.settings = settings.clone();
        self.broker = Broker::new(settings, Chance::fixed(7), self.now);
        self.disk.remove_orphans();
        for row in self.disk.rows() {
            self.broker.restore(row);
        }
        self.broker.finish_restore(&self.disk.resume(), self.now);
    }

    /// Nothing waits for anybody: not in memory, not on disk.
    fn assert_nothing_left(&mut self) {
        self.flush();
        for _ in 0..100 {
            self.wait(20);
            self.flush();
        }
        assert_eq!(self.broker.accounts.queued().bytes, 0, "queued bytes");
        assert_eq!(self.broker.accounts.queued().hot_bytes, 0, "hot bytes");
        self.broker.audit().expect("the accounts agree");
        let shares: Vec<_> = self.broker.messages.shares().collect();
        assert_eq!(shares, [], "bodies that several deliveries need");
        assert_eq!(self.disk.deliveries.len(), 0, "{:?}", self.disk.deliveries);
        assert_eq!(self.disk.messages.len(), 0, "{:?}", self.disk.messages);
        assert!(self.disk.received.is_empty(), "{:?}", self.disk.received);
    }
}

fn success(id: u16) -> Ack<'static> {
    Ack {
        packet_id: packet_id(id),
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    }
}
