//! What is decided: sessions, QoS flows, subscriptions, retained messages, wills, expiry, and the gate.
//!
//! [`Broker`] is a state machine without IO: it owns everything by `&mut`, never blocks, never fails, and is handed the time and [`Chance`]. A driver
//! feeds it and empties it:
//!
//! | the driver calls | when |
//! |---|---|
//! | [`Broker::accept`] | a connection was accepted |
//! | [`Broker::receive`], [`Broker::fault`] | a packet was decoded, or could not be |
//! | [`Broker::connect`] | a CONNECT was decoded whose user name and password the driver has looked at; again when it had to wait ([`Output::waits`]) |
//! | [`Broker::drained`] | what the peer of a yielding connection ([`Output::yields`]) had sent is handed over |
//! | [`Broker::heard`] | a part of a packet came, and it is a while since that was last said |
//! | [`Broker::looked`] | [`Output::look`] asked whether the peer takes what was written |
//! | [`Broker::lost`] | the connection is gone, whoever closed it; always, and last |
//! | [`Broker::written`], [`Broker::durable`] | the store has come so far with a batch |
//! | [`Broker::fetched`] | message bodies were read from the store |
//! | [`Broker::tick`] | the time of [`Broker::next_timeout`] has come |
//! | [`Broker::take_touched`] | after each of these: the connections to serve with [`Broker::take_output`] |
//! | [`Broker::set_acl`] | the configuration was read again |
//! | [`Broker::set_wall`] | now and then, about once a second |
//! | [`Broker::take_batch`], [`Broker::take_fetches`] | the store is free, or reads were asked for |
//!
//! A peer's faults are values with an MQTT 5 reason code; a panic here is a bug. The way of a PUBLISH: [`Broker::receive`], `receive_publish`
//! (publish.rs), `publish` and `offer` (route.rs), `send` (deliver.rs), `Gate::write` and `Outbox::push` (gate.rs), and, once the batch
//! is durable, [`Broker::take_output`].

pub mod access;
mod acknowledge;
pub mod acl;
#[cfg(test)]
pub(crate) mod audit;
pub mod bridge;
mod connect;
mod connection;
mod counters;
mod deliver;
mod delivery;
mod end;
mod fault;
mod gate;
mod hold;
mod inflight;
mod marks;
mod memory;
pub mod message;
mod notice;
mod origin;
mod outbox;
mod outgoing;
mod patience;
mod publish;
mod queue;
mod quota;
pub mod record;
mod release;
mod repetition;
mod restore;
mod retained;
mod route;
mod session;
mod shared;
mod source;
mod spread;
mod subscribe;
mod sys;
mod table;
mod takeover;
mod timer;
mod tree;
mod walk;
mod wall;
mod will;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use slab::Slab;

pub use access::{
    Access, Admission, Arrival, CertificateName, CertificateNames, Identity, IdentityKind, Peer,
};
pub use acl::{Acl, Acls, Permission, Rules, Subscribing};
pub use connection::Traffic;
pub use counters::Counters;
pub use message::Message;
pub use origin::Origin;
pub use outbox::{Segments, Taken};
#[cfg(test)]
pub(crate) use patience::NOTHING_TAKEN;
pub use restore::Restored;
pub use sys::Gauges;

use crate::clock::Now;
use crate::limits::Limits;
use crate::wire::packet::{Ack, Disconnect};
use crate::wire::{
    Fault, Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, ReasonCode,
    codec,
};
use connect::ClientIds;
pub use connection::Output;
use connection::{Connection, State};
pub(crate) use gate::Arrow;
use gate::{Gate, Stamp};
use outgoing::Account;
use quota::Tally;
use record::{Batch, BridgeRecord, Durability, DurabilityRules, QueueKey, Seq, Write};
use repetition::MessageIds;
use retained::Retained;
use route::Routes;
use session::Session;
use shared::Group;
use table::Table;
use timer::{Timer, Timers};
use tree::Tree;
use walk::Walk;

/// What a packet costs, in the measure of [`Broker::work`].
const PACKET: u64 = 64;
/// What a timer, or the removal of a row or a subscription, costs in that measure.
const OPERATION: u64 = 4;

/// Names a connection, from [`Broker::accept`] until [`Broker::lost`]; then another connection may get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct SessionIndex(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct GroupIndex(u32);

/// What the driver draws for a broker once, at its start: the broker itself has no source of chance.
#[derive(Clone, Copy)]
pub struct Chance {
    /// Decides how tables are hashed, so that peers cannot choose what collides.
    pub seed: u64,
    /// The key of assigned client identifiers: who does not know it cannot guess them. From the operating system's randomness.
    pub client_ids: [u8; 32],
}

impl Chance {
    /// For tests and measurements: the same each time, and known to everybody.
    pub fn fixed(seed: u64) -> Chance {
        Chance {
            seed,
            client_ids: [7; 32],
        }
    }
}

/// What a broker is told once, at its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What names this broker among those that bridges lead to: that of its store.
    pub identity: u64,
    /// All limits.
    pub limits: Limits,
    /// How far acknowledgements wait.
    pub durability: DurabilityRules,
    /// How often `$SYS` topics are published, in milliseconds; 0 for never.
    pub sys_interval_ms: u64,
    /// What clients may do. [`Broker::set_acl`] replaces it.
    pub acl: Acls,
    /// Clients may have sessions that other users have had, and connections with them. [`Broker::allow_other_users`] replaces it.
    pub allow_other_users: bool,
    /// Deliveries go out at the QoS that was granted, also those of messages that were published at a lower one. Against
    /// \[MQTT-3.8.4-8\]. [`Broker::upgrade_outgoing_qos`] replaces it.
    pub upgrade_outgoing_qos: bool,
}

/// Bodies to be read from the store: the answer goes to [`Broker::fetched`].
#[derive(Debug)]
pub struct Fetch {
    owner: Owner,
    key: QueueKey,
    serial: u64,
    /// The messages, in ascending order.
    pub seqs: Vec<Seq>,
}

/// Who asked for bodies.
#[derive(Clone, Copy, Debug)]
enum Owner {
    /// A session's queue.
    Session(SessionIndex),
    /// A session's messages that must be sent again.
    Resend(SessionIndex),
    /// A bridge's session, for the topics of its messages.
    Topics(SessionIndex),
    /// A shared group's queue.
    Group(GroupIndex),
}

/// The broker.
#[derive(Debug)]
pub struct Broker {
    settings: Settings,
    /// Sessions that outlast their connection are kept on disk: so are messages of some topic at least.
    keeps_sessions: bool,
    seed: u64,
    now: Now,
    connections: Slab<Connection>,
    sessions: Slab<Session>,
    by_client: Table<Box<str>, SessionIndex, FixedState>,
    /// Connections whose CONNECT waits for an older one.
    lines: takeover::Lines,
    /// Connections of each user.
    by_user: Tally<Box<str>>,
    /// Connections from each address.
    by_address: Tally<IpAddr>,
    groups: Slab<Group>,
    group_names: HashMap<Box<str>, GroupIndex, FixedState>,
    tree: Tree,
    retained: Retained,
    gate: Gate,
    /// How many deliveries need a stored message, where it is more than one.
    shares: Table<Seq, u32, FxBuildHasher>,
    next_seq: u64,
    next_key: u64,
    next_serial: u64,
    /// A tick came late: nobody is given up before this moment, in milliseconds of uptime.
    grace_until: u64,
    /// From when on nobody was served, in broker time: what had expired before is over all the same.
    grace_from: u64,
    client_ids: ClientIds,
    /// Clients connected.
    connected: u64,
    /// Subscriptions of all sessions, shared ones included.
    subscriptions: u64,
    /// Messages in all queues.
    queued: u64,
    queued_bytes: u64,
    hot_bytes: u64,
    /// Bytes that wait to be written to all connections, those included that are being written.
    outgoing: Account,
    /// Who waits until that is less.
    turns: outgoing::Turns,
    /// Bytes that sessions take, messages aside.
    session_bytes: u64,
    /// Bytes of messages the store can still take.
    room: u64,
    shutting_down: bool,
    timers: Timers,
    counters: Counters,
    touched: Vec<ConnectionId>,
    waiting: release::Waiting,
    fetches: Vec<Fetch>,
    /// Sessions whose rows of messages on their way have changed since the last batch was taken.
    changed: VecDeque<SessionIndex>,
    spreads: spread::Spreads,
    work: u64,
    graveyard: end::Graveyard,
    ends: end::Ends,
    walks: walk::Walks,
    wall: wall::Wall,
    sweep: (usize, usize),
    sys: sys::Sys,
    bridges: BTreeMap<Box<str>, bridge::BridgeState>,
    /// What is remembered of bridges, by their sessions.
    bridge_records: BTreeMap<QueueKey, BridgeRecord>,
    moments: bridge::Moments,
    message_ids: MessageIds,
    notices: notice::Notices,
    /// Where the bridges of this broker come from, and those of others.
    origin: Origin,
    origins: origin::Origins,
    /// There is, or was, a session that may not do everything: until then no delivery asks.
    restricted: bool,
    /// A bridge refuses messages when its queue is full: otherwise no message asks.
    refusing: bool,
    restoring: restore::Restoring,
    routes: Routes,
    scratch: PropertiesBuf,
    #[cfg(test)]
    open_arrow: Option<Arrow>,
}

impl Broker {
    /// A broker without any state.
    pub fn new(settings: Settings, chance: Chance, now: Now) -> Broker {
        let seed = chance.seed;
        let levels = settings.durability.topics.iter().map(|(_, level)| *level);
        let strictest = levels.fold(settings.durability.default, Durability::max);
        let client_ids = ClientIds::new(&chance.client_ids);
        let run = client_ids.run();
        let mut broker = Broker {
            keeps_sessions: strictest != Durability::Memory,
            seed,
            now,
            connections: Slab::new(),
            sessions: Slab::new(),
            by_client: Table::with_hasher(FixedState::with_seed(seed)),
            lines: takeover::Lines::new(seed),
            by_user: Tally::new(seed),
            by_address: Tally::new(seed),
            groups: Slab::new(),
            group_names: HashMap::with_hasher(FixedState::with_seed(seed)),
            tree: Tree::new(seed),
            retained: Retained::default(),
            gate: Gate::new(settings.limits.max_pending_write_bytes),
            shares: Table::default(),
            next_seq: 1,
            next_key: 1,
            next_serial: 1,
            grace_until: 0,
            grace_from: 0,
            client_ids,
            connected: 0,
            subscriptions: 0,
            queued: 0,
            queued_bytes: 0,
            hot_bytes: 0,
            outgoing: Account::default(),
            turns: outgoing::Turns::default(),
            session_bytes: 0,
            room: u64::MAX,
            shutting_down: false,
            timers: Timers::default(),
            counters: Counters::default(),
            touched: Vec::new(),
            waiting: release::Waiting::default(),
            fetches: Vec::new(),
            changed: VecDeque::new(),
            spreads: spread::Spreads::default(),
            work: 0,
            graveyard: end::Graveyard::default(),
            ends: end::Ends::new(seed),
            walks: walk::Walks::default(),
            wall: wall::Wall::default(),
            sweep: (0, 0),
            sys: sys::Sys::new(now),
            bridges: BTreeMap::new(),
            bridge_records: BTreeMap::new(),
            moments: bridge::Moments::default(),
            message_ids: MessageIds::new(seed),
            notices: notice::Notices::default(),
            origin: Origin::new(settings.identity, run),
            origins: origin::Origins::default(),
            restricted: false,
            refusing: false,
            restoring: restore::Restoring::default(),
            routes: Routes::default(),
            scratch: PropertiesBuf::new(),
            #[cfg(test)]
            open_arrow: None,
            settings,
        };
        broker
            .timers
            .set(now.uptime + timer::SWEEP_MS, Timer::Sweep);
        if broker.settings.sys_interval_ms > 0 {
            broker.timers.set(now.uptime + 1, Timer::Sys);
        }
        broker
    }

    /// Handles a packet from a connection.
    pub fn receive(&mut self, id: ConnectionId, packet: Packet<'_>, now: Now) {
        self.now = now;
        let connection = &mut self.connections[id.0 as usize];
        connection.last_received = now.uptime;
        self.work += PACKET;
        let outcome = match (connection.state, connection.session) {
            (State::Closing, _) => return,
            (State::Open, Some(session)) => self.receive_in_session(id, session, packet),
            _ => match packet {
                Packet::Connect(connect) => {
                    self.receive_connect(id, &connect, Ok(Identity::default()))
                }
                _ => {
                    // [MQTT-3.1.0-1]: what is not a MQTT client gets no answer.
                    return self.fault(
                        id,
                        Fault::protocol("the first packet is not CONNECT"),
                        None,
                        now,
                    );
                }
            },
        };
        if let Err(fault) = outcome {
            let version = self.connections[id.0 as usize].version;
            self.fault(id, fault, Some(version), now);
        }
    }

    fn receive_in_session(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        packet: Packet<'_>,
    ) -> Result<(), Fault> {
        match packet {
            Packet::Publish(publish) => self
                .receive_publish(id, session, &publish)
                .or_else(|fault| self.refuse_bridged(id, &publish, fault)),
            Packet::PubAck(ack) => self.receive_puback(id, session, &ack),
            Packet::PubRec(ack) => self.receive_pubrec(id, session, &ack),
            Packet::PubRel(ack) => self.receive_pubrel(id, session, &ack),
            Packet::PubComp(ack) => self.receive_pubcomp(id, session, &ack),
            Packet::Subscribe(subscribe) => self.receive_subscribe(id, session, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.receive_unsubscribe(id, session, &unsubscribe),
            Packet::PingReq => {
                self.push(id, Stamp::NONE, &Packet::PingResp); // [MQTT-3.12.4-1]
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.receive_disconnect(id, session, &disconnect),
            // Enhanced authentication begins in CONNECT, and no method is offered there.
            Packet::Auth(_) => Err(Fault::protocol(
                "AUTH without an authentication method in CONNECT",
            )),
            Packet::Connect(_) => Err(Fault::protocol("a second CONNECT")), // [MQTT-3.1.0-2]
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(Fault::protocol("a packet that only servers send"))
            }
        }
    }

    /// Says how many bytes of messages the store can still take, those included that wait to be committed. Beyond it, messages that must be
    /// stored are refused.
    pub fn set_room(&mut self, bytes: u64) {
        self.room = bytes;
    }

    /// The batch that should be committed now, if there is one. The one taken before must be durable.
    pub fn take_batch(&mut self, now: Now) -> Option<Batch> {
        if self.gate.wants_commit(now.uptime) {
            self.now = now;
            self.write_changed();
            self.write_reading_if_due();
        }
        let batch = self.gate.take_batch(now.uptime)?;
        self.ends.taken();
        Some(batch)
    }

    /// Whether [`Broker::take_batch`] has something.
    pub fn wants_commit(&self, now: Now) -> bool {
        self.gate.wants_commit(now.uptime)
    }

    /// The bodies to be read from the store.
    pub fn take_fetches(&mut self) -> Vec<Fetch> {
        std::mem::take(&mut self.fetches)
    }

    /// Moves the connections that should be served to the end of `into`.
    pub fn take_touched(&mut self, into: &mut Vec<ConnectionId>) {
        for id in &self.touched {
            if let Some(connection) = self.connections.get_mut(id.0 as usize) {
                connection.touched = false;
            }
        }
        into.append(&mut self.touched);
    }

    /// Moves what may be written to a connection to the end of `out`, filling up from the session's queue. Call it again when all of that has
    /// been written, until it adds nothing.
    pub fn take_output(&mut self, id: ConnectionId, out: &mut impl Taken, now: Now) -> Output {
        self.now = now;
        let connection = &mut self.connections[id.0 as usize];
        connection.goes_on = false;
        let session = connection.session;
        self.count_written(id, out.own_len());
        if let Some(session) = session {
            self.pump(id, session);
        }
        self.take_released(id, out);
        if !out.is_empty() {
            self.sent(id);
        }
        self.output(id)
    }

    /// Tells all clients that the server shuts down, and lets no new ones in. When their connections are lost, [`Broker::flush`] and
    /// [`Broker::is_settled`] say when the store can be closed.
    pub fn shut_down(&mut self, now: Now) {
        self.now = now;
        self.shutting_down = true;
        self.begin_walk(Walk::ShutDown);
    }

    /// Whether [`Broker::shut_down`] was called.
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What packets and their deliveries have cost so far, about, in deliveries at QoS 0: a measure of the work of a visit.
    pub fn work(&self) -> u64 {
        self.work
    }

    /// Whether a connection is to be closed as soon as what waits for it has been written.
    pub fn is_closing(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id.0 as usize);
        connection.is_some_and(|connection| connection.state == State::Closing)
    }

    /// Whether [`Broker::take_output`] did not do all there was to do: who has called it is to come again, when others have had their turn.
    pub fn goes_on(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id.0 as usize);
        connection.is_some_and(|connection| connection.goes_on)
    }

    /// The limits it keeps.
    pub fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// Connections at present.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    fn client_name(&self, id: ConnectionId) -> &str {
        let session = self.connections[id.0 as usize].session;
        session.map_or("", |session| &self.sessions[session.0 as usize].client_id)
    }

    /// Lets packets of a kind leave before what they promise is on disk: the simulator shows that it finds out.
    #[cfg(test)]
    pub(crate) fn open_arrow(&mut self, arrow: Arrow) {
        self.open_arrow = Some(arrow);
    }

    /// What a packet that is an arrow of the gate waits for: its stamp, unless a test has opened the arrow.
    #[inline]
    fn gated(&self, arrow: Arrow, stamp: Stamp) -> Stamp {
        #[cfg(test)]
        if self.open_arrow == Some(arrow) {
            return Stamp::NONE;
        }
        let _ = arrow;
        stamp
    }

    fn write(&mut self, write: Write) {
        self.gate.write(write, self.now.uptime);
    }

    fn touch(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id.0 as usize];
        if !connection.touched {
            connection.touched = true;
            self.touched.push(id);
        }
    }

    /// There is more for a connection than was done at once: its own task has to come back as well.
    fn go_on(&mut self, id: ConnectionId) {
        self.connections[id.0 as usize].goes_on = true;
        self.touch(id);
    }

    fn touch_session(&mut self, session: SessionIndex) {
        if let Some(id) = self
            .sessions
            .get(session.0 as usize)
            .and_then(|session| session.connection)
        {
            self.touch(id);
        }
    }

    /// Appends a packet to a connection's outbox.
    fn push(&mut self, id: ConnectionId, stamp: Stamp, packet: &Packet<'_>) {
        let connection = &mut self.connections[id.0 as usize];
        let (version, largest) = (connection.version, connection.maximum_packet_size);
        // A packet the client cannot take, even without what explains it, is not sent [MQTT-3.1.2-24].
        connection.outbox.push(stamp, &self.gate, |out| {
            _ = codec::encode_within(packet, version, largest, out)
        });
        self.pushed(id);
    }

    /// Appends a packet that ends an incoming message's exchange: until it leaves, it counts against the receive maximum.
    fn push_final_ack(&mut self, id: ConnectionId, stamp: Stamp, packet: &Packet<'_>) {
        self.push(id, stamp, packet);
        self.connections[id.0 as usize].outbox.count_ack();
    }

    fn pushed(&mut self, id: ConnectionId) {
        self.count_outgoing(id);
        let connection = &mut self.connections[id.0 as usize];
        if !connection.holding
            && let Some(stamp) = connection.outbox.holds_for()
        {
            connection.holding = true;
            self.waiting.hold(id, stamp);
        }
        self.touch(id);
    }

    /// Ends a connection from this side: says why to a client that can be told, and closes once that has been written. What still waits for the
    /// disk is not sent.
    fn disconnect(&mut self, id: ConnectionId, reason: ReasonCode, what: Option<&str>) {
        match what {
            Some(what) => self.say_end(id, what),
            None => self.say_end(id, reason),
        }
        self.detach(id);
        self.connections[id.0 as usize].state = State::Closing;
        self.drop_gated(id);
        let connection = &self.connections[id.0 as usize];
        // A CONNACK that still waits for the disk is not sent, and nothing goes before it [MQTT-3.14.0-1].
        if connection.version == ProtocolVersion::V5 && connection.outbox.has_begun() {
            let mut properties = PropertiesBuf::new();
            if let Some(what) = what {
                properties.push(Property::ReasonString(what));
            }
            let packet = Packet::Disconnect(Disconnect {
                reason,
                properties: properties.as_properties(),
            });
            self.push(id, Stamp::NONE, &packet);
        }
        self.touch(id);
    }
}

/// An acknowledgement without properties.
fn ack(packet_id: PacketId, reason: ReasonCode) -> Ack<'static> {
    Ack {
        packet_id,
        reason,
        properties: Properties::EMPTY,
    }
}

#[cfg(test)]
mod tests;
