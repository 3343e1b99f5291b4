//! The broker without sockets and disk: `cargo bench --bench broker`.
//!
//! Commits succeed at once, so that only the work of the broker is measured: routing, the gate and
//! the outboxes.

#[path = "broker/longest/mod.rs"]
mod longest;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use tidegate::broker::{Access, Broker, Chance, ConnectionId, Settings};
use tidegate::clock::Now;
use tidegate::wire::packet::{Ack, Connect, Publish, Subscribe, SubscribeOptions};
use tidegate::wire::{
    Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, codec,
};

const NOW: Now = Now {
    uptime: 1,
    unix: 1_700_000_000_000,
};

/// A broker with connections, and the state of a driver.
struct Bench {
    broker: Broker,
    touched: Vec<ConnectionId>,
    out: Vec<u8>,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            broker: Broker::new(Settings::default(), Chance::fixed(7), NOW),
            touched: Vec::new(),
            out: Vec::new(),
        }
    }

    fn receive(&mut self, id: ConnectionId, packet: Packet<'_>) {
        self.broker.receive(id, packet, NOW);
    }

    /// Commits the open batch and takes the output of each connection. Returns how many bytes that
    /// was.
    fn serve(&mut self) -> usize {
        let mut bytes = 0;
        loop {
            if let Some(batch) = self.broker.take_batch(NOW) {
                self.broker.written(batch.id, NOW);
                self.broker.durable(batch.id, NOW);
            }
            self.broker.take_touched(&mut self.touched);
            if self.touched.is_empty() && !self.broker.wants_commit(NOW) {
                return bytes;
            }
            for id in self.touched.drain(..) {
                self.out.clear();
                self.broker.take_output(id, &mut self.out, NOW);
                bytes += self.out.len();
            }
        }
    }

    fn connect(&mut self, client_id: &str, durable: bool) -> ConnectionId {
        let access = Access {
            allow_anonymous: true,
            ..Access::default()
        };
        let id = self.broker.accept(access, NOW).expect("there is room");
        let mut properties = PropertiesBuf::new();
        if durable {
            properties.push(Property::SessionExpiryInterval(u32::MAX));
        }
        self.receive(
            id,
            Packet::Connect(Box::new(Connect {
                version: ProtocolVersion::V5,
                bridge: false,
                clean_start: true,
                keep_alive: 0,
                client_id,
                will: None,
                username: None,
                password: None,
                properties: properties.as_properties(),
            })),
        );
        self.serve();
        id
    }

    fn subscribe(&mut self, id: ConnectionId, filters: &[String], qos: QoS) {
        for chunk in filters.chunks(1000) {
            let filters = chunk
                .iter()
                .map(|filter| (filter.as_str(), SubscribeOptions::with_qos(qos)));
            let packet = Packet::Subscribe(Subscribe {
                packet_id: PacketId::FIRST,
                properties: Properties::EMPTY,
                filters: filters.collect(),
            });
            self.receive(id, packet);
            self.serve();
        }
    }
}

/// Builds a PUBLISH: QoS 1 with a packet identifier, QoS 0 without.
fn publish(topic: &str, packet_id: Option<PacketId>) -> Packet<'_> {
    Packet::Publish(Publish {
        dup: false,
        qos: packet_id.map_or(QoS::AtMostOnce, |_| QoS::AtLeastOnce),
        retain: false,
        topic,
        packet_id,
        properties: Properties::EMPTY,
        payload: &[7; 64],
    })
}

/// QoS 0 to a growing number of subscribers of one topic.
fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish at QoS 0 to subscribers");
    for sessions in [0, 1, 10, 200] {
        let mut bench = Bench::new();
        let publisher = bench.connect("publisher", false);
        for n in 0..sessions {
            let id = bench.connect(&format!("subscriber {n}"), false);
            bench.subscribe(id, &["plant/line/7".into()], QoS::AtMostOnce);
        }
        group.throughput(Throughput::Elements(sessions.max(1)));
        group.bench_function(BenchmarkId::from_parameter(sessions), |bencher| {
            bencher.iter(|| {
                bench.receive(publisher, publish("plant/line/7", None));
                black_box(bench.serve())
            });
        });
    }
    group.finish();
}

/// How long the broker is busy with one message for a large number of subscribers, and all others
/// wait. Writing to the subscribers is not included.
fn one_to_many(criterion: &mut Criterion) {
    const MANY: u64 = 100_000;
    let mut group = criterion.benchmark_group("one publish to 100,000");
    group.sample_size(10).throughput(Throughput::Elements(MANY));
    for (name, qos, durable, away) in [
        ("QoS 0", QoS::AtMostOnce, false, false),
        ("QoS 1", QoS::AtLeastOnce, false, false),
        ("QoS 1, durable", QoS::AtLeastOnce, true, false),
        ("QoS 1, durable and offline", QoS::AtLeastOnce, true, true),
    ] {
        let mut bench = Bench::new();
        let publisher = bench.connect("publisher", false);
        for n in 0..MANY {
            let id = bench.connect(&format!("subscriber {n}"), durable);
            bench.subscribe(id, &["plant/line/7".into()], qos);
            if away {
                bench.broker.lost(id, NOW);
            }
        }
        bench.serve();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut held = std::time::Duration::ZERO;
                for _ in 0..rounds {
                    let id = (qos != QoS::AtMostOnce).then_some(PacketId::FIRST);
                    let started = std::time::Instant::now();
                    bench.receive(publisher, publish("plant/line/7", id));
                    held += started.elapsed();
                    black_box(bench.serve());
                }
                held
            });
        });
    }
    group.finish();
}

/// One message with a growing number of wildcard subscriptions that do not match it. The time must
/// not grow.
fn filters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish at QoS 0 past wildcard filters");
    for count in [0, 1_000, 10_000, 100_000, 1_000_000] {
        let mut bench = Bench::new();
        let publisher = bench.connect("publisher", false);
        let subscriber = bench.connect("subscriber", false);
        bench.subscribe(
            subscriber,
            &["plant/line/7/temperature".into()],
            QoS::AtMostOnce,
        );
        for n in 0..count / 1000 {
            let other = bench.connect(&format!("other {n}"), false);
            let filters: Vec<String> = (0..1000)
                .map(|m| format!("plant/+/{}/{n}/{m}/#", n * 1000 + m))
                .collect();
            bench.subscribe(other, &filters, QoS::AtMostOnce);
        }
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                bench.receive(publisher, publish("plant/line/7/temperature", None));
                black_box(bench.serve())
            });
        });
    }
    group.finish();
}

/// QoS 1 through the gate to a connected durable session, including its acknowledgement.
fn gate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish at QoS 1 to a durable session");
    for window in [1_u16, 100] {
        let mut bench = Bench::new();
        let publisher = bench.connect("publisher", false);
        let subscriber = bench.connect("subscriber", true);
        bench.subscribe(subscriber, &["plant/line/7".into()], QoS::AtLeastOnce);
        group.throughput(Throughput::Elements(window.into()));
        group.bench_function(format!("{window} a commit"), |bencher| {
            let mut out = Vec::new();
            bencher.iter(|| {
                for n in 1..=window {
                    bench.receive(publisher, publish("plant/line/7", PacketId::new(n)));
                }
                let batch = bench
                    .broker
                    .take_batch(NOW)
                    .expect("a batch with the messages");
                bench.broker.written(batch.id, NOW);
                bench.broker.durable(batch.id, NOW);
                out.clear();
                bench.broker.take_output(subscriber, &mut out, NOW);
                let mut rest = &out[..];
                while let Ok(Some(len)) = codec::frame_len(rest, u32::MAX) {
                    let (frame, after) = rest.split_at(len);
                    rest = after;
                    if let Ok(Packet::Publish(Publish {
                        packet_id: Some(packet_id),
                        ..
                    })) = codec::decode(frame, ProtocolVersion::V5)
                    {
                        let ack = Ack {
                            packet_id,
                            reason: ReasonCode::Success,
                            properties: Properties::EMPTY,
                        };
                        bench.broker.receive(subscriber, Packet::PubAck(ack), NOW);
                    }
                }
                black_box(bench.serve())
            });
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    fan_out,
    one_to_many,
    longest::longest,
    filters,
    gate
);
criterion_main!(benches);
