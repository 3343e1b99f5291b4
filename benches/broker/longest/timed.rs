//! A broker whose calls are timed, and the clients that prepare its state.

use std::time::{Duration, Instant};

use tidegate::broker::record::{Durability, DurabilityRules};
use tidegate::broker::{Access, Arrival, Broker, Chance, ConnectionId, Settings};
use tidegate::clock::Now;
use tidegate::limits::Limits;
use tidegate::wire::packet::{
    Ack, Connect, Disconnect, Publish, RetainHandling, Subscribe, SubscribeOptions, Will,
};
use tidegate::wire::{
    Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode,
};

/// A broker, the current time, and the longest call so far.
pub struct TimedBroker {
    pub broker: Broker,
    pub now: Now,
    pub arrival: Arrival,
    pub longest: (Duration, &'static str),
    pub out: Vec<u8>,
}

/// The fields of a CONNECT.
pub struct Client<'a> {
    pub id: &'a str,
    pub clean: bool,
    /// Session expiry interval in seconds.
    pub expiry: u32,
    pub keep_alive: u16,
    /// Topic and delay in seconds of its will.
    pub will: Option<(&'a str, u32)>,
}

/// A client whose session never expires.
pub fn durable(id: &str) -> Client<'_> {
    Client {
        id,
        clean: false,
        expiry: u32::MAX,
        keep_alive: 0,
        will: None,
    }
}

/// Limits above the sizes measured here.
pub fn wide_limits() -> Settings {
    Settings {
        limits: Limits {
            max_inflight_messages: u16::MAX,
            receive_maximum: u16::MAX,
            ..Limits::default()
        },
        ..Settings::default()
    }
}

/// Settings with which nothing is written.
pub fn in_memory() -> Settings {
    let durability = DurabilityRules {
        default: Durability::Memory,
        topics: Vec::new(),
    };
    Settings {
        durability,
        ..wide_limits()
    }
}

impl TimedBroker {
    pub fn new(settings: Settings) -> TimedBroker {
        let now = Now {
            uptime: 1,
            unix: 1_700_000_000_000,
        };
        TimedBroker {
            broker: Broker::new(settings, Chance::fixed(7), now),
            now,
            arrival: Arrival::from(Access {
                allow_anonymous: true,
                ..Access::default()
            }),
            longest: (Duration::ZERO, ""),
            out: Vec::new(),
        }
    }

    /// Makes one call and records its time.
    pub fn call<R>(
        &mut self,
        what: &'static str,
        operation: impl FnOnce(&mut Broker, Now) -> R,
    ) -> R {
        let started = Instant::now();
        let result = operation(&mut self.broker, self.now);
        let longest = (started.elapsed(), what);
        if longest.0 > self.longest.0 {
            self.longest = longest;
        }
        result
    }

    pub fn receive(&mut self, id: ConnectionId, packet: Packet<'_>) {
        self.call("receive", |broker, now| broker.receive(id, packet, now));
    }

    /// Commits once and takes the output of each connection. Acknowledges nothing. Returns false if
    /// there was nothing to do.
    pub fn serve_once(&mut self) -> bool {
        let batch = self.call("take_batch", |broker, now| broker.take_batch(now));
        let committed = batch.is_some();
        if let Some(batch) = batch {
            self.call("written", |broker, now| broker.written(batch.id, now));
            self.call("durable", |broker, now| broker.durable(batch.id, now));
        }
        let mut touched = Vec::new();
        self.call("take_touched", |broker, _| {
            broker.take_touched(&mut touched)
        });
        self.call("take_fetches", |broker, _| broker.take_fetches());
        for id in &touched {
            let mut out = std::mem::take(&mut self.out);
            out.clear();
            let output = self.call("take_output", |broker, now| {
                broker.take_output(*id, &mut out, now)
            });
            self.out = out;
            if output.close {
                self.call("lost", |broker, now| broker.lost(*id, now));
            }
        }
        committed || !touched.is_empty()
    }

    /// Serves until nothing is left to do now or in the next millisecond.
    pub fn serve(&mut self) {
        while self.serve_once() || self.tick_by(self.now.uptime + 1) {}
    }

    /// Advances the clock to the next time-out and handles it, if it is not after `end`.
    pub fn tick_by(&mut self, end: u64) -> bool {
        let next = self.broker.next_timeout();
        let is_due = next <= end;
        if is_due {
            self.advance_clock(next.saturating_sub(self.now.uptime));
            self.call("tick", |broker, now| broker.tick(now));
        }
        is_due
    }

    /// Advances the clock by this many milliseconds and handles all time-outs.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now.uptime + ms;
        self.serve();
        while self.tick_by(end) {
            self.serve();
        }
    }

    pub fn advance_clock(&mut self, ms: u64) {
        self.now.uptime += ms;
        self.now.unix += ms;
    }

    pub fn connect(&mut self, client: &Client<'_>) -> ConnectionId {
        let (arrival, now) = (self.arrival.clone(), self.now);
        let id = self.broker.accept(arrival, now).expect("there is room");
        let mut properties = PropertiesBuf::new();
        if client.expiry > 0 {
            properties.push(Property::SessionExpiryInterval(client.expiry));
        }
        let mut delay = PropertiesBuf::new();
        if let Some((_, seconds)) = client.will {
            delay.push(Property::WillDelayInterval(seconds));
        }
        let connect = Connect {
            version: ProtocolVersion::V5,
            bridge: false,
            clean_start: client.clean,
            keep_alive: client.keep_alive,
            client_id: client.id,
            will: client.will.map(|(topic, _)| Will {
                topic,
                payload: &[7; 64],
                qos: QoS::AtLeastOnce,
                retain: false,
                properties: delay.as_properties(),
            }),
            username: None,
            password: None,
            properties: properties.as_properties(),
        };
        self.receive(id, Packet::Connect(Box::new(connect)));
        id
    }

    /// Connects many clients with different names.
    pub fn connect_many(
        &mut self,
        count: u32,
        client: impl Fn(&str) -> Client<'_>,
    ) -> Vec<ConnectionId> {
        let ids = (0..count).map(|n| {
            let id = self.connect(&client(&format!("client {n}")));
            if n % 1000 == 0 {
                self.serve();
            }
            id
        });
        let ids = ids.collect();
        self.serve();
        ids
    }

    pub fn close(&mut self, id: ConnectionId) {
        self.call("lost", |broker, now| broker.lost(id, now));
    }

    pub fn subscribe(&mut self, id: ConnectionId, filters: &[String], qos: QoS) {
        let filters = filters.iter().map(|filter| {
            let options = SubscribeOptions {
                retain_handling: RetainHandling::OnSubscribe,
                ..SubscribeOptions::with_qos(qos)
            };
            (filter.as_str(), options)
        });
        let packet = Packet::Subscribe(Subscribe {
            packet_id: PacketId::FIRST,
            properties: Properties::EMPTY,
            filters: filters.collect(),
        });
        self.receive(id, packet);
    }

    pub fn publish(&mut self, id: ConnectionId, qos: QoS, topic: &str, retain: bool, expiry: u32) {
        let mut properties = PropertiesBuf::new();
        if expiry > 0 {
            properties.push(Property::MessageExpiryInterval(expiry));
        }
        let packet = Packet::Publish(Publish {
            dup: false,
            qos,
            retain,
            topic,
            packet_id: (qos != QoS::AtMostOnce).then_some(PacketId::FIRST),
            properties: properties.as_properties(),
            payload: &[7; 8],
        });
        self.receive(id, packet);
        if qos == QoS::ExactlyOnce {
            let packet_id = PacketId::FIRST;
            let (reason, properties) = (ReasonCode::Success, Properties::EMPTY);
            let ack = Ack {
                packet_id,
                reason,
                properties,
            };
            self.receive(id, Packet::PubRel(ack));
        }
    }

    /// Publishes many messages that must be queued.
    pub fn publish_many(
        &mut self,
        count: u32,
        qos: QoS,
        expiry: u32,
        topic: impl Fn(u32) -> String,
    ) {
        let publisher = self.connect(&Client {
            expiry: 0,
            ..durable("publisher")
        });
        for n in 0..count {
            self.publish(publisher, qos, &topic(n), false, expiry);
            if n % 1000 == 0 {
                self.serve();
            }
        }
        self.serve();
    }

    pub fn disconnect(&mut self, id: ConnectionId, expiry: u32) {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(expiry));
        let disconnect = Disconnect {
            reason: ReasonCode::Success,
            properties: properties.as_properties(),
        };
        self.receive(id, Packet::Disconnect(disconnect));
    }
}

/// A broker with a prepared state, and the operation to measure.
pub type Prepared = (TimedBroker, Box<dyn FnOnce(&mut TimedBroker)>);

pub fn prepared(timed: TimedBroker, action: impl FnOnce(&mut TimedBroker) + 'static) -> Prepared {
    (timed, Box::new(action))
}
