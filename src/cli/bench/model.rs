//! What is to be measured: a scenario, the broker, and how to load it.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

use crate::cli::transport::Transport;
use crate::wire::{ProtocolVersion, QoS};

/// How long nothing may arrive before what is missing counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Clients that connect
    Conn,
    /// Publishers that nobody listens to
    Pub,
    /// Subscribers to what others publish (--topic)
    Sub,
    /// Pairs of a publisher and a subscriber, each with topics of its own
    Pairs,
    /// Many publishers, one subscriber
    FanIn,
    /// One publisher, many subscribers
    FanOut,
    /// Publishers, and a shared subscription with many members
    Shared,
    /// Many pairs and a fixed rate in all: what a message costs that comes alone
    Sparse,
    /// Retained messages (--messages): set, then replayed to a new subscriber
    Retained,
    /// Many wildcard filters (--messages), then messages through them
    Subscribe,
    /// Clients with a subscription each that do nothing: memory, if the broker has just been started
    Idle,
    /// Acknowledged to durable sessions that are offline, then drained
    Durable,
    /// A broker (--spawn) is killed with a backlog (--messages) and started again
    Restart,
    /// A bridge whose upstream is killed and comes back: what an edge broker has kept (--messages) is replayed. Starts both brokers itself
    Outage,
    /// How long others wait during commits, retained replays, a storm of reconnections, fan-outs, the end of sessions (--disturb)
    Stall,
    /// A bit of everything for hours (--duration), with reconnections: fails unless memory, file, descriptors and latency stay flat
    Soak,
}

/// The broker to measure.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name, as TLS and WebSocket say it.
    pub host: String,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its process, if it is on this machine and known.
    pub pid: Option<u32>,
    /// Where it tells its figures, if it is a Tidegate and does.
    pub metrics: Option<SocketAddr>,
}

/// How to load it. What is `None` is for the scenario to say.
#[derive(Clone, Debug)]
pub struct Load {
    /// What lies between TCP and MQTT.
    pub transport: Transport,
    /// Protocol version.
    pub version: ProtocolVersion,
    /// User name of all clients.
    pub username: Option<String>,
    /// Their password.
    pub password: Option<String>,
    /// QoS of messages and subscriptions.
    pub qos: Option<QoS>,
    /// Bytes of payload.
    pub size: Option<usize>,
    /// Clients: pairs, publishers of a fan-in, subscribers of a fan-out.
    pub clients: Option<usize>,
    /// Messages on their way at once, from each publisher.
    pub window: u32,
    /// Messages a second in all; `None` for the closed loop.
    pub rate: Option<f64>,
    /// How long to measure.
    pub duration: Duration,
    /// How often to tell figures in `soak`.
    pub interval: Option<Duration>,
    /// How long to load before.
    pub warm_up: Duration,
    /// Topics of each publisher.
    pub topics: usize,
    /// Messages of a backlog, retained messages, filters.
    pub messages: Option<u64>,
    /// What to subscribe to in `sub`.
    pub topic: String,
    /// What to look at in `stall`; everything if there is none.
    pub disturb: Vec<Disturbance>,
    /// What starts the broker in `restart`.
    pub spawn: Option<String>,
}

impl Load {
    /// QoS 0 unless told.
    pub fn qos(&self) -> QoS {
        self.qos.unwrap_or(QoS::AtMostOnce)
    }
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What is going on while others exchange messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Disturbance {
    /// Nothing: the base line
    Nothing,
    /// Every 100 ms, 1,000 messages for durable sessions that are offline
    Commits,
    /// New subscribers, one after the other, to all retained messages (--messages)
    Retained,
    /// Durable clients (--clients) with messages waiting for them connect, 100 at once, take what waits, and leave
    Storm,
    /// A message to many connected subscribers (--clients)
    FanOut,
    /// Durable sessions, for each of which many messages wait (--messages), are ended by a clean start
    End,
}
