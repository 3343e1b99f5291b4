//! Two brokers and a bridge between them, with a link that is cut and processes that die at random:
//! QoS 1 loses nothing, QoS 2 arrives exactly once, and both in order, both ways.

use std::sync::Arc;

use super::bridge::{bridge, rule};
use super::*;
use crate::broker::Origin;
use crate::broker::bridge::{Bridge, Direction, Login, Relay, Upstream, UpstreamProtocol};

/// Messages each way.
const MESSAGES: usize = 12;

pub(super) struct Random(pub u64);

impl Random {
    /// A number below this one.
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ (bits >> 31)) % most
    }
}

/// A connection between the two: what is on its way, and what stands for it on each side.
pub(super) struct Wire {
    pub relay: Relay,
    pub peer: Peer,
    pub up: Vec<u8>,
    pub down: Vec<u8>,
}

/// Which sessions are lost at random, beside connections and processes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    None,
    /// The bridge's session at the cloud.
    Cloud,
    /// That, and the one at the edge.
    Both,
}

struct Two {
    edge: World,
    cloud: World,
    bridge: Arc<Bridge>,
    protocol: UpstreamProtocol,
    wire: Option<Wire>,
    loss: Loss,
    qos: u8,
    random: Random,
}

impl Two {
    fn new(seed: u64, qos: u8, protocol: UpstreamProtocol, loss: Loss) -> Two {
        let rules = vec![
            rule("up/#", Direction::Out, qos),
            rule("down/#", Direction::In, qos),
        ];
        let mut two = Two {
            edge: World::named(1),
            cloud: World::named(2),
            bridge: Arc::new(bridge(rules)),
            protocol,
            wire: None,
            loss,
            qos,
            random: Random(seed),
        };
        for (world, filter) in [(&mut two.edge, "down/#"), (&mut two.cloud, "up/#")] {
            let consumer = world.connect(&durable("consumer"));
            world.subscribe(consumer, filter, qos);
            world.flush();
            world.leave(consumer);
        }
        two.edge.broker.open_bridge(&two.bridge, two.edge.now);
        two.edge.settle();
        two
    }

    /// Connects, as a driver would. Before this, nothing can have been subscribed to, so the
    /// messages of the cloud begin when it has been done once.
    fn connect(&mut self) {
        let mut anew = self.edge.broker.begins_anew(&self.bridge, "a:1883");
        if anew && self.protocol.version() != ProtocolVersion::V5 {
            // A clean session of MQTT 3 ends with its connection: the one that is kept is begun by
            // the next.
            self.lose_session_of_cloud();
            anew = false;
        }
        let peer = self.cloud.accept(self.protocol.version());
        let mut out = Vec::new();
        self.bridge.encode_connect(
            Origin::default(),
            self.protocol,
            Login::default(),
            anew,
            1 << 20,
            &mut out,
        );
        let connect = codec::decode(&out, self.protocol.version()).expect("a CONNECT");
        self.cloud.send(peer, connect);
        self.cloud.settle();
        let mut down = Vec::new();
        self.cloud
            .broker
            .take_output(peer.id, &mut down, self.cloud.now);
        let length = codec::frame_len(&down, u32::MAX)
            .expect("good")
            .expect("whole");
        let answer = codec::decode(&down[..length], self.protocol.version());
        let Ok(Packet::ConnAck(connack)) = answer else {
            panic!("{answer:?} is no CONNACK");
        };
        let upstream = Upstream::new(&connack, self.protocol.version(), &self.bridge);
        down.drain(..length);
        let bridge = Arc::clone(&self.bridge);
        let now = self.edge.now;
        let relay = Relay::open(
            bridge,
            upstream,
            "a:1883",
            false,
            &mut self.edge.broker,
            now,
        );
        self.wire = Some(Wire {
            relay: relay.expect("it does not shut down"),
            peer,
            up: Vec::new(),
            down,
        });
    }

    fn cut(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.relay.close(&mut self.edge.broker, self.edge.now);
            self.cloud.lose(wire.peer);
        }
    }

    /// The process of the edge dies.
    fn crash_edge(&mut self) {
        if let Some(wire) = self.wire.take() {
            self.cloud.lose(wire.peer);
        }
        self.edge.crash();
        self.edge.broker.open_bridge(&self.bridge, self.edge.now);
    }

    fn crash_cloud(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.relay.close(&mut self.edge.broker, self.edge.now);
        }
        self.cloud.crash();
    }

    /// The cloud ends the bridge's session, and what waits in it is gone.
    fn lose_session_of_cloud(&mut self) {
        self.cut();
        let peer = self.cloud.connect(&client("edge1").clean());
        self.cloud.leave(peer);
    }

    fn lose_session_of_edge(&mut self) {
        self.cut();
        let (broker, now) = (&mut self.edge.broker, self.edge.now);
        broker.close_bridges_except(&[], now);
        broker.drop_bridge("cloud", now).expect("it is there");
        broker.open_bridge(&self.bridge, now);
    }

    /// Moves some packets one way or the other, or lets a disk do something.
    fn step(&mut self) {
        let what = self.random.below(8);
        let Some(wire) = &mut self.wire else {
            return self.connect();
        };
        let version = self.protocol.version();
        match what {
            0 if wire.up.is_empty() => {
                let broker = &mut self.edge.broker;
                wire.relay
                    .take_output(broker, &mut wire.up, self.edge.now)
                    .expect("no reason to leave");
            }
            1 => {
                let broker = &mut self.cloud.broker;
                broker.take_output(wire.peer.id, &mut wire.down, self.cloud.now);
            }
            2 | 3 => {
                if let Some(length) = codec::frame_len(&wire.up, u32::MAX).expect("good") {
                    let frame: Vec<u8> = wire.up.drain(..length).collect();
                    let packet = codec::decode(&frame, version).expect("good");
                    self.cloud
                        .broker
                        .receive(wire.peer.id, packet, self.cloud.now);
                }
            }
            4 | 5 => {
                if let Some(length) = codec::frame_len(&wire.down, u32::MAX).expect("good") {
                    let frame: Vec<u8> = wire.down.drain(..length).collect();
                    let packet = codec::decode(&frame, version).expect("good");
                    let broker = &mut self.edge.broker;
                    wire.relay
                        .receive(packet, broker, &mut wire.up, self.edge.now)
                        .expect("no reason to leave");
                }
            }
            6 => disk(&mut self.edge),
            _ => disk(&mut self.cloud),
        }
    }

    fn send(&mut self, n: usize, upwards: bool) {
        let (world, topic) = if upwards {
            (&mut self.edge, "up/x")
        } else {
            (&mut self.cloud, "down/x")
        };
        let device = world.connect(&publisher());
        let payload = n.to_string();
        world.publish(device, message(self.qos, 1, topic, &payload));
        world.settle_disk();
        world.leave(device);
    }

    fn run(&mut self) {
        self.connect();
        // Until the cloud knows what to keep for the bridge.
        for _ in 0..500 {
            self.step();
        }
        self.edge.settle();
        self.cloud.settle();
        let mut sent = [0, 0];
        while sent != [MESSAGES, MESSAGES] {
            match self.random.below(60) {
                0 => self.cut(),
                1 => self.crash_edge(),
                2 => self.crash_cloud(),
                9 if self.loss != Loss::None => self.lose_session_of_cloud(),
                10 if self.loss == Loss::Both => self.lose_session_of_edge(),
                3..=8 => {
                    let way = self.random.below(2) as usize;
                    if sent[way] < MESSAGES {
                        self.send(sent[way], way == 0);
                        sent[way] += 1;
                    }
                }
                _ => self.step(),
            }
        }
        self.cut();
        for _ in 0..6000 {
            self.step();
        }
        self.cut();
    }
}

pub(super) fn disk(world: &mut World) {
    if world.committing.is_some() {
        world.written();
        world.durable();
    } else {
        world.take();
    }
    world.take_fetches();
    world.answer_fetches();
}

pub(super) fn arrived(world: &mut World) -> Vec<usize> {
    if world.committing.is_some() {
        world.durable();
    }
    let consumer = world.connect(&durable("consumer"));
    let got = world.drain(consumer);
    let number = |line: &String| {
        let last = line.rsplit('=').next().unwrap_or_default();
        last.parse().unwrap_or_else(|_| panic!("{line}"))
    };
    got.iter().map(number).collect()
}

fn try_schedules(qos: u8, protocol: UpstreamProtocol) {
    let all: Vec<usize> = (0..MESSAGES).collect();
    for seed in 0..150 {
        let mut two = Two::new(seed, qos, protocol, Loss::None);
        two.run();
        for world in [&mut two.cloud, &mut two.edge] {
            let mut got = arrived(world);
            if qos == 1 && protocol != UpstreamProtocol::V5 {
                // What is repeated is repeated from somewhere on, so the first of each are in
                // order.
                let mut seen = std::collections::BTreeSet::new();
                got.retain(|n| seen.insert(*n));
            }
            assert_eq!(got, all, "seed {seed}, QoS {qos}, {protocol:?}");
        }
    }
}

#[test]
fn qos_1_loses_nothing_and_keeps_the_order_and_repeats_nothing_over_mqtt_5() {
    try_schedules(1, UpstreamProtocol::V5);
    try_schedules(1, UpstreamProtocol::V311Bridge);
}

#[test]
fn qos_2_arrives_exactly_once_in_order() {
    try_schedules(2, UpstreamProtocol::V5);
    try_schedules(2, UpstreamProtocol::V311);
}

/// What waits in a session that is lost is gone. What waits in the other one arrives all the same,
/// and nothing arrives twice.
fn try_losses(qos: u8, loss: Loss) {
    let all: Vec<usize> = (0..MESSAGES).collect();
    let (mut lost, mut suppressed) = (0, 0);
    for seed in 0..150 {
        let mut two = Two::new(seed, qos, UpstreamProtocol::V5, loss);
        two.run();
        let up = arrived(&mut two.cloud);
        if loss == Loss::Cloud {
            assert_eq!(up, all, "seed {seed}, QoS {qos}, {loss:?}");
        }
        for got in [up, arrived(&mut two.edge)] {
            let once = got.windows(2).all(|two| two[0] < two[1]);
            assert!(once, "seed {seed}, QoS {qos}, {loss:?}: {got:?}");
            lost += all.len() - got.len();
        }
        suppressed += two.cloud.broker.counters().repetitions_suppressed;
    }
    assert!(lost > 0 && suppressed > 0, "{lost} {suppressed}");
}

#[test]
fn nothing_arrives_twice_though_the_upstream_loses_its_session() {
    try_losses(1, Loss::Cloud);
    try_losses(2, Loss::Cloud);
}

#[test]
fn nothing_arrives_twice_though_both_lose_their_sessions() {
    try_losses(1, Loss::Both);
    try_losses(2, Loss::Both);
}
