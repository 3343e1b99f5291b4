//! What to measure: a scenario, the broker and the load.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

use crate::cli::transport::Transport;
use crate::wire::{ProtocolVersion, QoS};

/// Missing messages count as lost if nothing arrives for this long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Clients with a subscription each that do nothing: memory, if the broker has just been
    /// started
    Idle,
    /// Acknowledged to durable sessions that are offline, then drained
    Durable,
    /// A broker (--spawn) is killed with a backlog (--messages) and started again
    Restart,
    /// A bridge whose upstream is killed and comes back: what an edge broker has kept (--messages)
    /// is replayed. Starts both brokers itself
    Outage,
    /// How long others wait during commits, retained replays, a storm of reconnections, fan-outs,
    /// the end of sessions (--disturb)
    Stall,
    /// A bit of everything for hours (--duration), with reconnections: fails unless memory, file,
    /// descriptors and latency stay flat
    Soak,
}

/// The broker to measure.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host name, for TLS and WebSocket.
    pub host: String,
    /// Address of the listener.
    pub addr: SocketAddr,
    /// Process, if it runs on this machine and is known.
    pub pid: Option<u32>,
    /// Address of the metrics, if it is a Tidegate and provides them.
    pub metrics: Option<SocketAddr>,
}

/// The load. Where a value is `None`, the scenario has a default.
#[derive(Clone, Debug)]
pub struct Load {
    /// Transport.
    pub transport: Transport,
    /// Protocol version.
    pub version: ProtocolVersion,
    /// User name of all clients.
    pub username: Option<String>,
    /// Password of all clients.
    pub password: Option<String>,
    /// QoS of messages and subscriptions.
    pub qos: Option<QoS>,
    /// Bytes of payload.
    pub size: Option<usize>,
    /// Clients: pairs, publishers of a fan-in, subscribers of a fan-out.
    pub clients: Option<usize>,
    /// Messages in flight from each publisher.
    pub window: u32,
    /// Total messages per second; `None` for the closed loop.
    pub rate: Option<f64>,
    /// How long to measure.
    pub duration: Duration,
    /// Interval between figures in `soak`.
    pub interval: Option<Duration>,
    /// Time of load before the measurement.
    pub warm_up: Duration,
    /// Topics of each publisher.
    pub topics: usize,
    /// Messages of a backlog, retained messages, filters.
    pub messages: Option<u64>,
    /// Topic filter of `sub`.
    pub topic: String,
    /// Disturbances of `stall`; all if empty.
    pub disturb: Vec<Disturbance>,
    /// Command that starts the broker in `restart`.
    pub spawn: Option<String>,
}

impl Load {
    /// Returns the QoS, by default 0.
    pub fn qos(&self) -> QoS {
        self.qos.unwrap_or(QoS::AtMostOnce)
    }
}

impl Scenario {
    /// Returns the name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What the broker does while others exchange messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Disturbance {
    /// Nothing: the base line
    Nothing,
    /// Every 100 ms, 1,000 messages for durable sessions that are offline
    Commits,
    /// New subscribers, one after the other, to all retained messages (--messages)
    Retained,
    /// Durable clients (--clients) with messages waiting for them connect, 100 at once, take what
    /// waits, and leave
    Storm,
    /// A message to many connected subscribers (--clients)
    FanOut,
    /// Durable sessions, for each of which many messages wait (--messages), are ended by a clean
    /// start
    End,
}
