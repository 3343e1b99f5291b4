//! The codec and topic matching: `cargo bench --bench wire`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use tidegate::wire::packet::{Publish, Subscribe, SubscribeOptions};
use tidegate::wire::{
    Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, codec, topic,
};

const TOPIC: &str = "plant/line/7/temperature";

fn publish<'a>(payload: &'a [u8], properties: Properties<'a>) -> Publish<'a> {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TOPIC,
        packet_id: Some(PacketId::FIRST),
        properties,
        payload,
    }
}

fn codecs(criterion: &mut Criterion) {
    let payload = [7; 64];
    let mut stamped = PropertiesBuf::new();
    stamped.push(Property::MessageExpiryInterval(3600));
    stamped.push(Property::UserProperty("site", "north"));
    let filters = (0..8).map(|_| {
        (
            "plant/+/temperature",
            SubscribeOptions::with_qos(QoS::AtLeastOnce),
        )
    });
    let packets = [
        (
            "PUBLISH of 64 bytes",
            ProtocolVersion::V311,
            Packet::Publish(publish(&payload, Properties::EMPTY)),
        ),
        (
            "PUBLISH of 64 bytes",
            ProtocolVersion::V5,
            Packet::Publish(publish(&payload, Properties::EMPTY)),
        ),
        (
            "PUBLISH with two properties",
            ProtocolVersion::V5,
            Packet::Publish(publish(&payload, stamped.as_properties())),
        ),
        (
            "SUBSCRIBE with eight filters",
            ProtocolVersion::V5,
            Packet::Subscribe(Subscribe {
                packet_id: PacketId::FIRST,
                properties: Properties::EMPTY,
                filters: filters.collect(),
            }),
        ),
    ];
    for (name, version, packet) in &packets {
        let mut bytes = Vec::new();
        codec::encode(packet, *version, &mut bytes);
        let name = format!("{name}, {version:?}");
        let mut group = criterion.benchmark_group(&name);
        group.throughput(Throughput::Elements(1));
        group.bench_function("decode", |bencher| {
            bencher.iter(|| {
                let frame = black_box(&bytes[..]);
                let len = codec::frame_len(frame, u32::MAX)
                    .expect("a frame")
                    .expect("a whole one");
                black_box(codec::decode(&frame[..len], *version).is_ok())
            });
        });
        let mut out = Vec::with_capacity(bytes.len());
        group.bench_function("encode", |bencher| {
            bencher.iter(|| {
                out.clear();
                codec::encode(black_box(packet), *version, &mut out);
                black_box(out.len())
            });
        });
        group.finish();
    }
}

fn topics(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one filter against one name");
    for filter in [
        TOPIC,
        "plant/+/7/temperature",
        "plant/#",
        "plant/line/8/temperature",
    ] {
        group.bench_with_input(
            BenchmarkId::from_parameter(filter),
            filter,
            |bencher, filter| {
                bencher.iter(|| topic::matches(black_box(filter), black_box(TOPIC)));
            },
        );
    }
    group.finish();
}

criterion_group!(benches, codecs, topics);
criterion_main!(benches);
