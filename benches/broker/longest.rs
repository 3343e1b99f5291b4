//! The longest visit: whoever is in the broker keeps all others out, so what counts is not how long something takes but its longest call.
//!
//! Each case prepares a state that a user may really have, does one thing, and then drives the broker until nothing is left to do. The time
//! is that of the longest single call on the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};

use tidegate::broker::record::{Durability, DurabilityRules};
use tidegate::broker::{Access, Acl, Arrival, Broker, Chance, ConnectionId, Permission, Settings};
use tidegate::clock::Now;
use tidegate::limits::Limits;
use tidegate::wire::packet::{
    Ack, Connect, Disconnect, Publish, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe,
    Will,
};
use tidegate::wire::{
    Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode,
};

const MANY: u32 = 100_000;

/// A broker, its time, and its longest call.
struct Watched {
    broker: Broker,
    now: Now,
    arrival: Arrival,
    longest: (Duration, &'static str),
    out: Vec<u8>,
}

/// What a client says in its CONNECT.
struct Client<'a> {
    id: &'a str,
    clean: bool,
    /// Session expiry interval in seconds.
    expiry: u32,
    keep_alive: u16,
    /// Topic and delay in seconds of its will.
    will: Option<(&'a str, u32)>,
}

/// One whose session never ends by itself.
fn durable(id: &str) -> Client<'_> {
    Client {
        id,
        clean: false,
        expiry: u32::MAX,
        keep_alive: 0,
        will: None,
    }
}

/// Limits that a user may set and that keep nothing below the sizes measured here.
fn wide() -> Settings {
    Settings {
        limits: Limits {
            max_inflight_messages: u16::MAX,
            receive_maximum: u16::MAX,
            ..Limits::default()
        },
        ..Settings::default()
    }
}

/// Nothing is written.
fn in_memory() -> Settings {
    let durability = DurabilityRules {
        default: Durability::Memory,
        topics: Vec::new(),
    };
    Settings {
        durability,
        ..wide()
    }
}

impl Watched {
    fn new(settings: Settings) -> Watched {
        let now = Now {
            uptime: 1,
            unix: 1_700_000_000_000,
        };
        Watched {
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

    /// One call of the broker.
    fn visit<R>(&mut self, what: &'static str, call: impl FnOnce(&mut Broker, Now) -> R) -> R {
        let started = Instant::now();
        let result = call(&mut self.broker, self.now);
        let longest = (started.elapsed(), what);
        if longest.0 > self.longest.0 {
            self.longest = longest;
        }
        result
    }

    fn receive(&mut self, id: ConnectionId, packet: Packet<'_>) {
        self.visit("receive", |broker, now| broker.receive(id, packet, now));
    }

    /// Commits once, and gives each connection what there is for it; false if there was nothing to do. Acknowledges nothing.
    fn serve_once(&mut self) -> bool {
        let batch = self.visit("take_batch", |broker, now| broker.take_batch(now));
        let committed = batch.is_some();
        if let Some(batch) = batch {
            self.visit("written", |broker, now| broker.written(batch.id, now));
            self.visit("durable", |broker, now| broker.durable(batch.id, now));
        }
        let mut touched = Vec::new();
        self.visit("take_touched", |broker, _| {
            broker.take_touched(&mut touched)
        });
        self.visit("take_fetches", |broker, _| broker.take_fetches());
        for id in &touched {
            let mut out = std::mem::take(&mut self.out);
            out.clear();
            let output = self.visit("take_output", |broker, now| {
                broker.take_output(*id, &mut out, now)
            });
            self.out = out;
            if output.close {
                self.visit("lost", |broker, now| broker.lost(*id, now));
            }
        }
        committed || !touched.is_empty()
    }

    /// Serves until nothing is left to do now or in the next millisecond.
    fn serve(&mut self) {
        while self.serve_once() || self.tick_by(self.now.uptime + 1) {}
    }

    /// Does what is due at the next time-out, if that comes by then.
    fn tick_by(&mut self, end: u64) -> bool {
        let next = self.broker.next_timeout();
        let is_due = next <= end;
        if is_due {
            self.jump(next.saturating_sub(self.now.uptime));
            self.visit("tick", |broker, now| broker.tick(now));
        }
        is_due
    }

    /// Goes on for so long, in milliseconds, and does what is due.
    fn pass(&mut self, ms: u64) {
        let end = self.now.uptime + ms;
        self.serve();
        while self.tick_by(end) {
            self.serve();
        }
    }

    fn jump(&mut self, ms: u64) {
        self.now.uptime += ms;
        self.now.unix += ms;
    }

    fn connect(&mut self, client: &Client<'_>) -> ConnectionId {
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

    /// Many clients with names of their own.
    fn connect_many(
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

    fn lose(&mut self, id: ConnectionId) {
        self.visit("lost", |broker, now| broker.lost(id, now));
    }

    fn subscribe(&mut self, id: ConnectionId, filters: &[String], qos: QoS) {
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

    fn publish(&mut self, id: ConnectionId, qos: QoS, topic: &str, retain: bool, expiry: u32) {
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

    /// Publishes many messages that must be kept.
    fn publish_many(&mut self, count: u32, qos: QoS, expiry: u32, topic: impl Fn(u32) -> String) {
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

    fn leave(&mut self, id: ConnectionId, expiry: u32) {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(expiry));
        let disconnect = Disconnect {
            reason: ReasonCode::Success,
            properties: properties.as_properties(),
        };
        self.receive(id, Packet::Disconnect(disconnect));
    }
}

/// A broker in which something is about to happen, and what.
type Prepared = (Watched, Box<dyn FnOnce(&mut Watched)>);

fn prepared(watched: Watched, act: impl FnOnce(&mut Watched) + 'static) -> Prepared {
    (watched, Box::new(act))
}

fn t(_: u32) -> String {
    "t".into()
}

fn numbered(n: u32) -> String {
    format!("plant/{}/{n}", n % 100)
}

/// A session away from its broker for which many messages wait.
fn queued(settings: Settings, count: u32, expiry: u32) -> Watched {
    let mut watched = Watched::new(settings);
    let id = watched.connect(&durable("client"));
    watched.subscribe(id, &["t".into()], QoS::AtLeastOnce);
    watched.serve();
    watched.lose(id);
    watched.publish_many(count, QoS::AtLeastOnce, expiry, t);
    watched
}

fn clean_start(watched: &mut Watched) {
    watched.connect(&Client {
        clean: true,
        ..durable("client")
    });
}

fn end_queued(settings: Settings) -> Prepared {
    prepared(queued(settings, 10 * MANY, 0), clean_start)
}

fn end_subscriptions() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    let id = watched.connect(&durable("client"));
    for chunk in (0..2 * MANY).collect::<Vec<u32>>().chunks(1000) {
        let filters: Vec<String> = chunk.iter().map(|n| numbered(*n)).collect();
        watched.subscribe(id, &filters, QoS::AtLeastOnce);
        watched.serve();
    }
    watched.lose(id);
    prepared(watched, clean_start)
}

fn end_groups() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    let id = watched.connect(&durable("client"));
    for chunk in (0..MANY / 10).collect::<Vec<u32>>().chunks(1000) {
        let name = |n: &u32| format!("$share/group/{}", numbered(*n));
        let filters: Vec<String> = chunk.iter().map(name).collect();
        watched.subscribe(id, &filters, QoS::AtLeastOnce);
        watched.serve();
    }
    watched.lose(id);
    prepared(watched, clean_start)
}

/// A client that has been sent as much as there are packet identifiers, and is connected.
fn inflight(qos: QoS, filter: &str) -> (Watched, ConnectionId) {
    let mut watched = Watched::new(wide());
    let id = watched.connect(&durable("client"));
    watched.subscribe(id, &[filter.into()], qos);
    watched.serve();
    watched.publish_many(u16::MAX.into(), qos, 0, t);
    (watched, id)
}

fn end_inflight() -> Prepared {
    let (watched, id) = inflight(QoS::ExactlyOnce, "t");
    prepared(watched, move |watched| watched.leave(id, 0))
}

fn lose_inflight() -> Prepared {
    let (watched, id) = inflight(QoS::ExactlyOnce, "t");
    prepared(watched, move |watched| watched.lose(id))
}

fn resume_inflight() -> Prepared {
    let (mut watched, id) = inflight(QoS::ExactlyOnce, "t");
    watched.lose(id);
    watched.serve();
    prepared(watched, |watched| {
        watched.connect(&durable("client"));
    })
}

fn lose_member_inflight() -> Prepared {
    let (mut watched, id) = inflight(QoS::AtLeastOnce, "$share/g/t");
    let other = watched.connect(&durable("other"));
    watched.subscribe(other, &["$share/g/t".into()], QoS::AtLeastOnce);
    watched.serve();
    prepared(watched, move |watched| watched.lose(id))
}

fn expire_sessions() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    let ids = watched.connect_many(MANY, |id| Client {
        expiry: 1,
        ..durable(id)
    });
    for (n, id) in ids.iter().enumerate() {
        watched.subscribe(*id, &[numbered(n as u32), "all".into()], QoS::AtLeastOnce);
        watched.serve();
    }
    ids.into_iter().for_each(|id| watched.lose(id));
    prepared(watched, |_| ())
}

fn keep_alives() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    watched.connect_many(MANY, |id| Client {
        keep_alive: 1,
        ..durable(id)
    });
    prepared(watched, |_| ())
}

fn wills() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    for n in 0..10 {
        let id = watched.connect(&durable(&format!("watcher {n}")));
        watched.subscribe(id, &["will".into()], QoS::AtMostOnce);
    }
    let will = Some(("will", 1));
    for id in watched.connect_many(MANY, |id| Client {
        will,
        ..durable(id)
    }) {
        watched.lose(id);
    }
    watched.serve();
    prepared(watched, |_| ())
}

fn expire_queued() -> Prepared {
    prepared(queued(Settings::default(), 10 * MANY, 1), |watched| {
        watched.pass(30_000)
    })
}

fn come_back_for_expired() -> Prepared {
    let mut watched = queued(Settings::default(), 10 * MANY, 1);
    watched.jump(1000);
    prepared(watched, |watched| {
        watched.connect(&durable("client"));
    })
}

fn sys() -> Prepared {
    let mut watched = Watched::new(Settings {
        sys_interval_ms: 1000,
        ..Settings::default()
    });
    for (n, id) in { watched.connect_many(MANY, durable) }
        .into_iter()
        .enumerate()
    {
        watched.subscribe(id, &[numbered(n as u32)], QoS::AtLeastOnce);
    }
    watched.serve();
    prepared(watched, |_| ())
}

fn gauges() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    watched.connect_many(MANY, durable);
    prepared(watched, |watched| {
        watched.visit("gauges", |broker, _| broker.gauges());
    })
}

/// All acknowledgements wait for one commit.
fn release() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    for id in watched.connect_many(MANY, durable) {
        watched.subscribe(id, &["t".into()], QoS::AtLeastOnce);
    }
    prepared(watched, |_| ())
}

fn changed() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    let ids = watched.connect_many(MANY / 2, durable);
    for (n, id) in ids.iter().enumerate() {
        watched.subscribe(*id, &[numbered(n as u32)], QoS::ExactlyOnce);
    }
    watched.serve();
    watched.publish_many(MANY / 2, QoS::ExactlyOnce, 0, numbered);
    watched.serve();
    for id in ids {
        let packet_id = PacketId::FIRST;
        let (reason, properties) = (ReasonCode::Success, Properties::EMPTY);
        watched.receive(
            id,
            Packet::PubRec(Ack {
                packet_id,
                reason,
                properties,
            }),
        );
    }
    prepared(watched, |_| ())
}

fn subscribe_many() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    let id = watched.connect(&durable("client"));
    watched.serve();
    prepared(watched, move |watched| {
        let filters: Vec<String> = (0..MANY / 10).map(numbered).collect();
        watched.subscribe(id, &filters, QoS::AtLeastOnce);
    })
}

fn unsubscribe_many() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    let id = watched.connect(&durable("client"));
    let filters: Vec<String> = (0..MANY / 10).map(numbered).collect();
    watched.subscribe(id, &filters, QoS::AtLeastOnce);
    watched.serve();
    prepared(watched, move |watched| {
        let packet = Packet::Unsubscribe(Unsubscribe {
            packet_id: PacketId::FIRST,
            properties: Properties::EMPTY,
            filters: filters.iter().map(String::as_str).collect(),
        });
        watched.receive(id, packet);
    })
}

/// A group whose members are away, with messages that wait.
fn group(members: u32, messages: u32, qos: QoS, settings: Settings) -> Watched {
    let mut watched = Watched::new(settings);
    for id in watched.connect_many(members, durable) {
        watched.subscribe(id, &["$share/g/t".into()], qos);
        watched.serve();
        watched.lose(id);
    }
    watched.serve();
    watched.publish_many(messages, QoS::AtLeastOnce, 0, t);
    watched
}

fn end_group() -> Prepared {
    let watched = group(1, 10 * MANY, QoS::AtLeastOnce, in_memory());
    prepared(watched, |watched| {
        watched.connect(&Client {
            clean: true,
            ..durable("client 0")
        });
    })
}

fn group_to_member() -> Prepared {
    let watched = group(1, MANY, QoS::AtLeastOnce, in_memory());
    prepared(watched, |watched| {
        let id = watched.connect(&durable("client 0"));
        watched.subscribe(id, &["$share/g/t".into()], QoS::AtMostOnce);
    })
}

fn member_of_many() -> Prepared {
    let watched = group(MANY / 10, 1, QoS::AtLeastOnce, Settings::default());
    prepared(watched, |watched| {
        let id = watched.connect(&durable("client 7"));
        watched.serve();
        watched.lose(id);
    })
}

fn retained(expiry: u32) -> Watched {
    let mut watched = Watched::new(Settings::default());
    let publisher = watched.connect(&durable("publisher"));
    for n in 0..MANY {
        watched.publish(publisher, QoS::AtLeastOnce, &numbered(n), true, expiry);
        if n % 1000 == 0 {
            watched.serve();
        }
    }
    watched.serve();
    watched
}

fn expire_retained() -> Prepared {
    prepared(retained(1), |watched| watched.pass(20_000))
}

fn replay() -> Prepared {
    prepared(retained(0), |watched| {
        let id = watched.connect(&durable("client"));
        watched.subscribe(id, &["#".into()], QoS::AtMostOnce);
    })
}

fn set_acl() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    for (n, id) in { watched.connect_many(MANY, durable) }
        .into_iter()
        .enumerate()
    {
        watched.subscribe(id, &[numbered(n as u32)], QoS::AtLeastOnce);
        watched.serve();
    }
    prepared(watched, |watched| {
        let mut acl = Acl::default();
        for n in 0..10 {
            let filter = format!("plant/{n}/#");
            let added = acl.patterns().add_topic(Permission::ReadWrite, &filter);
            added.expect("a filter");
        }
        let acl = Arc::new(acl);
        watched.visit("set_acl", |broker, now| broker.set_acl(Some(acl), now));
    })
}

fn send_away() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    watched.connect_many(MANY, durable);
    prepared(watched, |watched| {
        let access = watched.arrival.access.clone();
        watched.visit("send_away", |broker, now| broker.send_away(&access, now));
    })
}

/// The tables of sessions, names and subscriptions double on the way.
fn grow() -> Prepared {
    prepared(Watched::new(in_memory()), |watched| {
        for n in 0..10 * MANY {
            let id = watched.connect(&durable(&format!("client {n}")));
            watched.subscribe(id, &[numbered(n)], QoS::AtMostOnce);
            watched.serve_once();
            watched.lose(id);
        }
    })
}

/// A client with all filters of `a` and `+` over 16 levels, each with an identifier of its own.
fn wildcards() -> (Watched, ConnectionId) {
    let mut watched = Watched::new(in_memory());
    let id = watched.connect(&durable("client"));
    for bits in 0..1_u32 << 16 {
        let level = |at: u32| if bits >> at & 1 == 0 { "a" } else { "+" };
        let filter = (0..16).map(level).collect::<Vec<&str>>().join("/");
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SubscriptionIdentifier(bits + 1));
        let packet = Packet::Subscribe(Subscribe {
            packet_id: PacketId::FIRST,
            properties: properties.as_properties(),
            filters: vec![(&filter, SubscribeOptions::with_qos(QoS::AtMostOnce))],
        });
        watched.receive(id, packet);
        watched.serve_once();
    }
    watched.serve();
    let publisher = watched.connect(&durable("publisher"));
    (watched, publisher)
}

/// A message that walks past all of them.
fn walk_past(levels: usize) -> Prepared {
    let (watched, publisher) = wildcards();
    prepared(watched, move |watched| {
        let topic = vec!["a"; levels].join("/");
        watched.publish(publisher, QoS::AtMostOnce, &topic, false, 0);
    })
}

/// As many nodes as one client may make a message walk past by default: filters of `a` and `+` that go on for as many levels as
/// there may be, until `max_session_bytes` is reached.
fn walk_deep() -> Prepared {
    let mut watched = Watched::new(in_memory());
    let id = watched.connect(&durable("client"));
    for bits in 0..1_u32 << 13 {
        let level = |at: u32| if bits >> at & 1 == 0 { "a" } else { "+" };
        let wild = (0..13).map(level);
        let tail = std::iter::repeat_n("a", 186);
        let filter = wild.chain(tail).collect::<Vec<&str>>().join("/");
        watched.subscribe(id, &[filter], QoS::AtMostOnce);
        watched.serve_once();
    }
    watched.serve();
    let publisher = watched.connect(&durable("publisher"));
    prepared(watched, move |watched| {
        let topic = ["a"; 199].join("/");
        watched.publish(publisher, QoS::AtMostOnce, &topic, false, 0);
    })
}

fn offer_to_groups() -> Prepared {
    let mut watched = Watched::new(Settings::default());
    let id = watched.connect(&durable("client"));
    for n in 0..MANY / 10 {
        watched.subscribe(id, &[format!("$share/{n}/t")], QoS::AtLeastOnce);
        watched.serve_once();
    }
    watched.lose(id);
    watched.serve();
    let publisher = watched.connect(&durable("publisher"));
    prepared(watched, move |watched| {
        watched.publish(publisher, QoS::AtLeastOnce, "t", false, 0);
    })
}

/// A name, and what prepares it.
type Case = (&'static str, fn() -> Prepared);

const CASES: [Case; 31] = [
    ("end of a session, 1,000,000 queued", || {
        end_queued(Settings::default())
    }),
    ("end of a session, 1,000,000 queued in memory", || {
        end_queued(in_memory())
    }),
    ("end of a session, 200,000 subscriptions", end_subscriptions),
    ("end of a session, member of 10,000 groups", end_groups),
    ("end of a session, 65,535 in flight", end_inflight),
    ("connection lost, 65,535 in flight", lose_inflight),
    ("connection resumed, 65,535 in flight", resume_inflight),
    ("member lost, 65,535 in flight", lose_member_inflight),
    ("100,000 sessions expire", expire_sessions),
    ("100,000 keep alives", keep_alives),
    ("100,000 wills are due", wills),
    ("1,000,000 queued messages expire", expire_queued),
    (
        "client comes back for 1,000,000 expired messages",
        come_back_for_expired,
    ),
    ("$SYS with 100,000 sessions", sys),
    ("gauges with 100,000 sessions", gauges),
    ("a commit releases 100,000 connections", release),
    ("a batch with 50,000 changed sessions", changed),
    ("SUBSCRIBE with 10,000 filters", subscribe_many),
    ("UNSUBSCRIBE with 10,000 filters", unsubscribe_many),
    ("end of a group, 1,000,000 queued in memory", end_group),
    ("a member takes 100,000 at QoS 0", group_to_member),
    (
        "a member of a group of 10,000 comes and goes",
        member_of_many,
    ),
    ("100,000 retained messages expire", expire_retained),
    ("replay of 100,000 retained messages", replay),
    ("new rights for 100,000 sessions", set_acl),
    ("100,000 connections sent away", send_away),
    ("1,000,000 sessions are made", grow),
    ("PUBLISH past 65,536 filters of a and +", || walk_past(15)),
    ("PUBLISH that 65,536 filters of one client match", || {
        walk_past(16)
    }),
    (
        "PUBLISH past 1,500,000 nodes, as many as one client may make",
        walk_deep,
    ),
    ("PUBLISH to 10,000 shared groups", offer_to_groups),
];

/// The longest call in each case.
pub fn longest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("longest visits");
    group.sample_size(10);
    // Preparing takes far longer than what is measured.
    group.sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_nanos(1));
    group.measurement_time(Duration::from_nanos(1));
    for (name, prepare) in CASES {
        let mut worst = (Duration::ZERO, "");
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut sum = Duration::ZERO;
                for _ in 0..rounds {
                    let (mut watched, act) = prepare();
                    watched.longest = (Duration::ZERO, "");
                    act(&mut watched);
                    watched.pass(1600);
                    sum += watched.longest.0;
                    worst = worst.max(watched.longest);
                }
                sum
            });
        });
        if worst.0 > Duration::ZERO {
            println!("{name}: {:?} in {}", worst.0, worst.1);
        }
    }
    group.finish();
}
