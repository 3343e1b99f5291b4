//! Local consumers: packets as values, gated and counted as those for sockets are.

use super::bridge::{Bridged, bridge, rule, upstream};
use super::*;
use crate::broker::bridge::{Direction, Upstream};
use crate::broker::{Arrival, LocalPacket, LocalPackets, Step};
use crate::wire::Fault;
use crate::wire::packet::SubAck;

/// A local consumer, connected and with its CONNACK taken.
fn consumer(world: &mut World) -> ConnectionId {
    let arrival = Arrival::bridge();
    let id = world.broker.accept_local(arrival, world.now);
    let id = id.expect("there is room");
    let connect = Connect {
        version: ProtocolVersion::V5,
        bridge: false,
        clean_start: false,
        keep_alive: 0,
        client_id: "$bridge/local",
        will: None,
        username: None,
        password: None,
        properties: Properties::EMPTY,
    };
    let connect = Packet::Connect(Box::new(connect));
    world.broker.receive(id, connect, world.now);
    world.settle();
    assert_eq!(took(world, id), ["CONNACK Success"]);
    id
}

fn take(world: &mut World, id: ConnectionId) -> LocalPackets {
    let mut packets = LocalPackets::default();
    world.broker.take_deliveries(id, &mut packets, world.now);
    packets
}

/// What a local consumer takes, one line a packet.
fn took(world: &mut World, id: ConnectionId) -> Vec<String> {
    let mut packets = take(world, id);
    let mut lines = Vec::new();
    while let Some(packet) = packets.pop() {
        lines.push(match packet {
            LocalPacket::ConnAck(reason) => format!("CONNACK {reason:?}"),
            LocalPacket::Disconnect(reason) => format!("DISCONNECT {reason:?}"),
            LocalPacket::Ack(ack) => {
                let id = ack.packet_id.get();
                format!("{:?} #{id} {:?}", ack.step, ack.reason)
            }
            LocalPacket::Publish(it) => {
                let id = it.packet_id.map_or(0, |id| id.get());
                let (topic, size) = (it.message.topic(), it.message.payload().len());
                format!("{topic} #{id} {:?} {size}", it.qos)
            }
        });
    }
    lines
}

fn subscribe(world: &mut World, id: ConnectionId, filter: &str, qos: u8) {
    let subscribe = Subscribe {
        packet_id: PacketId::FIRST,
        properties: Properties::EMPTY,
        filters: vec![(filter, SubscribeOptions::with_qos(level(qos)))],
    };
    world
        .broker
        .receive(id, Packet::Subscribe(subscribe), world.now);
    world.settle();
    assert_eq!(took(world, id), [""; 0], "it is not told of the SUBACK");
}

#[test]
fn both_exchanges_are_finished_by_packet_identifier() {
    let mut world = World::new();
    let id = consumer(&mut world);
    subscribe(&mut world, id, "#", 2);
    let device = world.connect(&publisher());
    world.publish(device, message(1, 1, "a", "one"));
    world.publish(device, message(2, 2, "b", "two"));
    assert_eq!(took(&mut world, id), [""; 0], "neither is on disk");
    world.settle();
    assert_eq!(
        took(&mut world, id),
        ["a #1 AtLeastOnce 3", "b #2 ExactlyOnce 3"]
    );
    let (first, second) = (PacketId::FIRST, PacketId::new(2).expect("not 0"));
    let now = world.now;
    let broker = &mut world.broker;
    broker.acknowledge(id, first, Step::Acknowledged, now);
    broker.acknowledge(id, second, Step::Received, now);
    assert_eq!(took(&mut world, id), [""; 0], "PUBREL waits for the disk");
    world.settle();
    assert_eq!(took(&mut world, id), ["Released #2 Success"]);
    world
        .broker
        .acknowledge(id, second, Step::Completed, world.now);
    world.settle();
    world.lose(Peer {
        id,
        version: ProtocolVersion::V5,
    });
    world.assert_nothing_left();
}

#[test]
fn its_own_messages_are_answered_when_they_are_on_disk() {
    let mut world = World::new();
    let id = consumer(&mut world);
    let device = world.connect(&durable("device"));
    world.subscribe(device, "#", 1);
    world.settle();
    world
        .broker
        .receive(id, Packet::Publish(message(1, 7, "a", "one")), world.now);
    assert_eq!(took(&mut world, id), [""; 0]);
    world.settle();
    assert_eq!(took(&mut world, id), ["Acknowledged #7 Success"]);
    // What waits for the disk when the connection ends is not said any more.
    world
        .broker
        .receive(id, Packet::Publish(message(1, 8, "a", "two")), world.now);
    world
        .broker
        .fault(id, Fault::protocol("a test"), None, world.now);
    assert_eq!(took(&mut world, id), ["DISCONNECT ProtocolError"]);
}

#[test]
fn a_large_payload_is_counted_once_while_a_local_consumer_has_it() {
    let mut world = World::new();
    let (a, b) = (world.connect(&client("a")), consumer(&mut world));
    world.subscribe(a, "#", 0);
    subscribe(&mut world, b, "#", 0);
    let device = world.connect(&publisher());
    let large = "x".repeat(100_000);
    let publish = Publish {
        payload: large.as_bytes(),
        ..message(0, 0, "a", "")
    };
    world.publish(device, publish);
    let total = world.broker.outgoing.total();
    assert!((100_000..101_000).contains(&total), "{total}");
    let mut packets = take(&mut world, b);
    assert_eq!((packets.count(), packets.own_len() < 100), (1, true));
    assert_eq!(world.got(a).len(), 1);
    assert_eq!(world.got(a).len(), 0, "it has been written");
    let total = world.broker.outgoing.total();
    assert!((100_000..101_000).contains(&total), "{total}: b has it");
    packets.pop();
    world.broker.take_deliveries(b, &mut packets, world.now);
    assert_eq!(world.broker.outgoing.total(), 0);
}

#[test]
fn the_expiry_of_a_message_for_a_bridge_is_counted_down_until_it_is_written() {
    let rules = vec![
        rule("up/#", Direction::Out, 1),
        rule("down/#", Direction::In, 1),
    ];
    let mut b = Bridged::of(bridge(rules));
    let device = b.world.connect(&client("device"));
    let expiry = Property::MessageExpiryInterval(100);
    let publish = message(1, 1, "up/a", "x");
    b.world.publish_with(device, publish, &[expiry]);
    b.world.settle();
    b.connect(Upstream {
        session_present: false,
        ..upstream(ProtocolVersion::V5)
    });
    let subscribe = b.got();
    assert_eq!(subscribe.len(), 1, "{subscribe:?}");
    assert!(
        subscribe[0].starts_with("SUBSCRIBE #65535"),
        "{subscribe:?}"
    );
    // The message has been taken from the broker, and waits for the SUBACK.
    b.world.jump(40_000);
    let suback = SubAck {
        packet_id: PacketId::new(65_535).expect("not 0"),
        properties: Properties::EMPTY,
        codes: vec![ReasonCode::GrantedQos1],
    };
    b.hears(Packet::SubAck(suback)).expect("taken");
    assert_eq!(b.got(), ["PUBLISH #1 q1 up/a=x expiry 60"]);
}
