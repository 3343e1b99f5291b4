//! What is decided: sessions, QoS flows, subscriptions, retained messages, wills, expiry, and the gate.
//!
//! [`Broker`] is a state machine without IO: it owns everything by `&mut`, never blocks, never fails, and is handed the time and [`Chance`]. A driver
//! feeds it and empties it:
//!
//! | the driver calls | when |
//! |---|---|
//! | [`Broker::accept`] | a connection was accepted |
//! | [`Broker::accept_local`], [`Broker::take_deliveries`], [`Broker::acknowledge`] | in place of [`Broker::accept`] and [`Broker::take_output`], for a consumer in this process: packets are values |
//! | [`Broker::receive`], [`Broker::fault`] | a packet was decoded, or could not be |
//! | [`Broker::connect`] | a CONNECT was decoded whose user name and password the driver has looked at; again when it had to wait ([`Output::waits`]) |
//! | [`Broker::drained`] | what the peer of a yielding connection ([`Output::yields`]) had sent is handed over |
//! | [`Broker::heard`] | a part of a packet came, and it is a while since that was last said |
//! | [`Broker::progress`] | [`Output::ask_progress`] asked whether the peer takes what was written |
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
//! (flows/publish.rs), `publish` and `offer` (delivery/route.rs), `send` (delivery/send.rs), `Gate::write` (state/gate.rs), `Outbox::push`
//! (state/outbox.rs), and, once the batch is durable, [`Broker::take_output`].

mod access;
pub mod bridge;
mod delivery;
mod driver;
mod flows;
mod model;
pub(crate) mod observe;
mod state;
mod upkeep;

#[cfg(test)]
pub(crate) use flows::keep_alive::NOTHING_TAKEN;
#[cfg(test)]
pub(crate) use flows::take_over::WAIT_MS;
pub use model::access::{
    Access, Admission, Arrival, CertificateName, CertificateNames, Identity, IdentityKind, Peer,
};
pub use model::acl::{Acl, Acls, Permission, Rules, Subscribing};
pub use model::counters::Counters;
pub use model::fetch::Fetch;
pub use model::gauges::Gauges;
pub use model::ids::ConnectionId;
pub use model::local::{LocalAck, LocalDelivery, LocalPacket, LocalPackets, Step};
pub use model::message::Message;
pub use model::output::Output;
pub use model::restored::Restored;
#[cfg(test)]
pub(crate) use model::segments::SHARED_FROM;
pub use model::segments::{Segments, Taken};
pub use model::settings::{Chance, Settings};
pub use model::traffic::Traffic;
pub use model::{message, record};

#[cfg(test)]
pub(crate) use state::gate::Arrow;
pub use state::origins::Origin;

use crate::clock::Now;
use crate::wire::{Fault, Packet};
use model::ids::SessionIndex;
use model::record::Durability;
use model::work::PACKET;
use state::accounts::Accounts;
use state::bridges::Bridges;
use state::client_ids::ClientIds;
use state::connection::State;
use state::connections::Connections;
use state::gate::{Gate, Stamp};
use state::groups::Groups;
use state::messages::Messages;
use state::observed::Observed;
use state::offer::Scratch;
use state::outgoing::OutgoingAccount;
use state::pace::Pace;
use state::retained::Retained;
use state::sessions::Sessions;
use state::timers::{Timer, Timers};
use state::tree::Tree;
use state::upkeep::Upkeep;
use state::wall::Wall;

/// The broker.
#[derive(Debug)]
pub struct Broker {
    settings: Settings,
    /// The time of the call that is being handled.
    now: Now,
    connections: Connections,
    sessions: Sessions,
    groups: Groups,
    /// Who subscribes to what.
    tree: Tree,
    retained: Retained,
    messages: Messages,
    /// What is to be written, and which packets wait for it.
    gate: Gate,
    accounts: Accounts,
    /// Bytes that wait to be written to all connections, those included that are being written.
    outgoing: OutgoingAccount,
    timers: Timers,
    wall: Wall,
    pace: Pace,
    upkeep: Upkeep,
    bridges: Bridges,
    counters: Counters,
    observed: Observed,
    scratch: Scratch,
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
            now,
            connections: Connections::new(seed),
            sessions: Sessions::new(client_ids, strictest != Durability::Memory, seed),
            groups: Groups::new(seed),
            tree: Tree::new(seed),
            retained: Retained::default(),
            messages: Messages::default(),
            gate: Gate::new(settings.limits.max_pending_write_bytes),
            accounts: Accounts::default(),
            outgoing: OutgoingAccount::default(),
            timers: Timers::default(),
            wall: Wall::default(),
            pace: Pace::default(),
            upkeep: Upkeep::new(seed),
            bridges: Bridges::new(Origin::new(settings.identity, run), seed),
            counters: Counters::default(),
            observed: Observed::new(now),
            scratch: Scratch::default(),
            settings,
        };
        broker
            .timers
            .set(now.uptime + state::timers::SWEEP_MS, Timer::Sweep);
        if broker.settings.sys_interval_ms > 0 {
            broker.timers.set(now.uptime + 1, Timer::Sys);
        }
        broker
    }

    /// Handles a packet from a connection.
    pub fn receive(&mut self, id: ConnectionId, packet: Packet<'_>, now: Now) {
        self.now = now;
        let connection = &mut self.connections[id];
        connection.heard(now.uptime);
        self.pace.spend(PACKET);
        let outcome = match (connection.state(), connection.session()) {
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
            let version = self.connections[id].version();
            self.fault(id, fault, Some(version), now);
        }
        self.check_connection(id);
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
}

#[cfg(test)]
mod tests;
