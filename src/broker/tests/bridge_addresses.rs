//! A bridge with two addresses, of two brokers that do not share its session or of one, and changes
//! over at random and as planned: nothing is lost either way; QoS 2 arrives exactly once, at each
//! broker for what went there, and over both together if every change was planned.

use std::sync::Arc;

use super::bridge::{Bridged, bridge, rule, upstream};
use super::bridge_random::{Random, Wire, arrived, disk};
use super::*;
use crate::broker::Origin;
use crate::broker::bridge::{
    AddressState, Bridge, Direction, Leave, Login, Relay, Upstream, UpstreamProtocol,
};

/// Messages from each broker.
const MESSAGES: usize = 12;
const NAMES: [&str; 2] = ["a:1883", "b:1883"];

/// An upstream that has accepted: who the bridge is there, the terms, and what has come behind the
/// CONNACK.
type Accepted = (Peer, Upstream, Vec<u8>);

struct Several {
    edge: World,
    clouds: Vec<World>,
    bridge: Arc<Bridge>,
    protocol: UpstreamProtocol,
    /// The connection, and to which address it is.
    wire: Option<(usize, Wire)>,
    /// The address that will be changed over to, and has accepted.
    next: Option<(usize, Accepted)>,
    qos: u8,
    random: Random,
}

impl Several {
    fn new(seed: u64, qos: u8, protocol: UpstreamProtocol, clouds: usize) -> Several {
        let rules = vec![
            rule("up/#", Direction::Out, qos),
            rule("down/#", Direction::In, qos),
        ];
        let mut all = Several {
            edge: World::named(1),
            clouds: (0..clouds).map(|n| World::named(2 + n as u64)).collect(),
            bridge: Arc::new(bridge(rules)),
            protocol,
            wire: None,
            next: None,
            qos,
            random: Random(seed),
        };
        let clouds = all.clouds.iter_mut().map(|cloud| (cloud, "up/#"));
        for (world, filter) in clouds.chain([(&mut all.edge, "down/#")]) {
            let consumer = world.connect(&durable("consumer"));
            world.subscribe(consumer, filter, qos);
            world.flush();
            world.leave(consumer);
        }
        all.edge.broker.open_bridge(&all.bridge, all.edge.now);
        all.edge.settle();
        all
    }

    /// The broker at an address.
    fn cloud(&mut self, at: usize) -> &mut World {
        let count = self.clouds.len();
        &mut self.clouds[at % count]
    }

    /// CONNECT and CONNACK, as a driver does it.
    fn call(&mut self, at: usize) -> Accepted {
        let version = self.protocol.version();
        let mut clean = self.edge.broker.begins_anew(&self.bridge, NAMES[at]);
        loop {
            let peer = self.cloud(at).accept(version);
            let mut out = Vec::new();
            self.bridge.encode_connect(
                Origin::default(),
                self.protocol,
                Login::default(),
                clean,
                1 << 20,
                &mut out,
            );
            let cloud = self.cloud(at);
            cloud.send(peer, codec::decode(&out, version).expect("a CONNECT"));
            while cloud.drain_older(peer) {
                cloud.send(peer, codec::decode(&out, version).expect("a CONNECT"));
            }
            cloud.settle();
            let mut down = Vec::new();
            cloud.broker.take_output(peer.id, &mut down, cloud.now);
            let length = codec::frame_len(&down, u32::MAX).expect("good");
            let length = length.expect("whole");
            let upstream = match codec::decode(&down[..length], version) {
                Ok(Packet::ConnAck(connack)) => Upstream::new(&connack, version, &self.bridge),
                answer => panic!("{answer:?} is no CONNACK"),
            };
            if clean && version != ProtocolVersion::V5 {
                clean = false;
                self.cloud(at).lose(peer);
                continue;
            }
            down.drain(..length);
            return (peer, upstream, down);
        }
    }

    fn open(&mut self, at: usize, (peer, upstream, down): Accepted) {
        let new = !upstream.session_present;
        let (bridge, now) = (Arc::clone(&self.bridge), self.edge.now);
        let broker = &mut self.edge.broker;
        let relay = Relay::open(bridge, upstream, NAMES[at], false, broker, now);
        let wire = Wire {
            relay: relay.expect("it does not shut down"),
            peer,
            up: Vec::new(),
            down,
        };
        self.wire = Some((at, wire));
        if new {
            // A crash between the CONNACK of a new session and the commit that notes it is the one
            // that is not made good.
            self.edge.settle_disk();
        }
    }

    fn connect(&mut self, at: usize) {
        let accepted = self.call(at);
        self.open(at, accepted);
    }

    fn drop_next(&mut self) {
        if let Some((at, (peer, ..))) = self.next.take() {
            self.cloud(at).lose(peer);
        }
    }

    fn cut(&mut self) {
        self.drop_next();
        if let Some((at, wire)) = self.wire.take() {
            wire.relay.close(&mut self.edge.broker, self.edge.now);
            self.cloud(at).lose(wire.peer);
        }
    }

    fn crash_edge(&mut self) {
        self.drop_next();
        if let Some((at, wire)) = self.wire.take() {
            self.cloud(at).lose(wire.peer);
        }
        self.edge.crash();
        self.edge.broker.open_bridge(&self.bridge, self.edge.now);
    }

    fn crash_cloud(&mut self, at: usize) {
        self.cut();
        self.cloud(at).crash();
    }

    /// Makes before it breaks: the other address accepts while this one goes on.
    fn plan(&mut self) {
        let at = match &self.wire {
            Some((at, _)) if self.next.is_none() => *at,
            _ => return,
        };
        let accepted = self.call(1 - at);
        self.next = Some((1 - at, accepted));
        let now = self.edge.now;
        if let Some((_, wire)) = &mut self.wire {
            wire.relay.finish(&mut self.edge.broker, &mut wire.up, now);
        }
    }

    /// The old connection has ended.
    fn ended(&mut self, leave: &Leave) {
        let taken_over = matches!(leave, Leave::Disconnected(ReasonCode::SessionTakenOver, _));
        assert!(*leave == Leave::Finished || taken_over, "{leave:?}");
        let separate = *leave == Leave::Finished;
        assert_eq!(separate, self.clouds.len() == 2, "{leave:?}");
        let (Some((at, wire)), Some((next, accepted))) = (self.wire.take(), self.next.take())
        else {
            panic!("{leave:?} without a change-over");
        };
        wire.relay.close(&mut self.edge.broker, self.edge.now);
        self.cloud(at).lose(wire.peer);
        self.edge
            .broker
            .set_separate_sessions(&self.bridge, separate);
        self.open(next, accepted);
    }

    /// Moves some packets one way or the other, or lets a disk do something.
    fn step(&mut self) {
        let what = self.random.below(8);
        let Some((at, _)) = &self.wire else {
            let at = self.random.below(2) as usize;
            return self.connect(at);
        };
        let at = *at % self.clouds.len();
        match what {
            6 => return disk(&mut self.edge),
            7 => {
                let at = self.random.below(self.clouds.len() as u64) as usize;
                return disk(&mut self.clouds[at]);
            }
            _ => {}
        }
        let (cloud, edge) = (&mut self.clouds[at], &mut self.edge);
        let Some((_, wire)) = &mut self.wire else {
            return;
        };
        let version = self.protocol.version();
        let moved = match what {
            0 if wire.up.is_empty() => wire
                .relay
                .take_output(&mut edge.broker, &mut wire.up, edge.now)
                .map(|_| ()),
            1 => {
                cloud
                    .broker
                    .take_output(wire.peer.id, &mut wire.down, cloud.now);
                Ok(())
            }
            2 | 3 => {
                if let Some(length) = codec::frame_len(&wire.up, u32::MAX).expect("good") {
                    let frame: Vec<u8> = wire.up.drain(..length).collect();
                    let packet = codec::decode(&frame, version).expect("good");
                    cloud.broker.receive(wire.peer.id, packet, cloud.now);
                }
                Ok(())
            }
            4 | 5 => match codec::frame_len(&wire.down, u32::MAX).expect("good") {
                Some(length) if !wire.relay.has_heard_all(&edge.broker) => {
                    let frame: Vec<u8> = wire.down.drain(..length).collect();
                    let packet = codec::decode(&frame, version).expect("good");
                    wire.relay
                        .receive(packet, &mut edge.broker, &mut wire.up, edge.now)
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        };
        if let Err(leave) = moved {
            self.ended(&leave);
        }
    }

    /// Publishes a message at the edge, or at a cloud.
    fn send(&mut self, from: usize, n: usize) {
        let payload = (from * 1000 + n).to_string();
        let (world, topic) = match from.checked_sub(1) {
            None => (&mut self.edge, "up/x"),
            Some(at) => (&mut self.clouds[at], "down/x"),
        };
        let device = world.connect(&publisher());
        world.publish(device, message(self.qos, 1, topic, &payload));
        world.settle_disk();
        world.leave(device);
    }

    /// Runs a schedule; with `planned`, there are no changes but planned ones.
    fn run(&mut self, planned: bool) {
        // Until each cloud knows what to keep for the bridge.
        for at in [0, 1] {
            self.cut();
            self.connect(at);
            for _ in 0..500 {
                self.step();
            }
        }
        self.edge.settle();
        let mut sent = vec![0; 1 + self.clouds.len()];
        while sent.iter().any(|sent| *sent < MESSAGES) {
            match self.random.below(80) {
                0 if !planned => self.cut(),
                1 if !planned => self.crash_edge(),
                2 if !planned => {
                    let at = self.random.below(2) as usize;
                    self.crash_cloud(at);
                }
                3 | 4 if self.protocol == UpstreamProtocol::V5 => self.plan(),
                5..=10 => {
                    let from = self.random.below(sent.len() as u64) as usize;
                    if sent[from] < MESSAGES {
                        self.send(from, sent[from]);
                        sent[from] += 1;
                    }
                }
                _ => self.step(),
            }
        }
        for at in [0, 1, 0] {
            if !planned {
                self.cut();
                self.connect(at);
            } else {
                self.plan();
            }
            for _ in 0..4000 {
                self.step();
            }
        }
        self.cut();
    }

    /// What has arrived at the edge and at each cloud.
    fn arrived(&mut self) -> (Vec<usize>, Vec<Vec<usize>>) {
        let up = self.clouds.iter_mut().map(arrived).collect();
        (arrived(&mut self.edge), up)
    }
}

/// Each is once in it, in order.
#[track_caller]
fn assert_rising(got: &[usize], what: &str) {
    assert!(got.windows(2).all(|two| two[0] < two[1]), "{what}: {got:?}");
}

fn try_schedules(qos: u8, protocol: UpstreamProtocol, clouds: usize, planned: bool) {
    for seed in 0..150 {
        let mut all = Several::new(seed, qos, protocol, clouds);
        all.run(planned);
        let what = format!("seed {seed}, QoS {qos}, {protocol:?}, {clouds} clouds, {planned}");
        let (down, up) = all.arrived();
        for cloud in 1..=clouds {
            let of = down.iter().filter(|n| **n / 1000 == cloud);
            let mut got: Vec<usize> = of.map(|n| n % 1000).collect();
            if qos == 1 {
                got.sort_unstable();
                got.dedup();
            }
            assert_eq!(got, (0..MESSAGES).collect::<Vec<_>>(), "down, {what}");
        }
        if qos == 2 {
            up.iter().for_each(|got| assert_rising(got, &what));
        }
        let mut got = up.concat();
        got.sort_unstable();
        if qos == 1 || (clouds == 2 && !planned) {
            got.dedup();
        }
        assert_eq!(got, (0..MESSAGES).collect::<Vec<_>>(), "up, {what}");
    }
}

#[test]
fn apart_nothing_is_lost_and_each_gets_it_once() {
    for protocol in [UpstreamProtocol::V5, UpstreamProtocol::V311] {
        try_schedules(1, protocol, 2, false);
        try_schedules(2, protocol, 2, false);
    }
}

#[test]
fn apart_and_planned_it_arrives_once_at_one_of_them() {
    try_schedules(2, UpstreamProtocol::V5, 2, true);
}

#[test]
fn sharing_it_arrives_once_whatever_happens() {
    try_schedules(1, UpstreamProtocol::V5, 1, false);
    try_schedules(2, UpstreamProtocol::V5, 1, false);
    try_schedules(2, UpstreamProtocol::V311, 1, false);
    try_schedules(2, UpstreamProtocol::V5, 1, true);
}

/// A new session at the upstream.
fn new_session() -> Upstream {
    Upstream {
        session_present: false,
        ..upstream(ProtocolVersion::V5)
    }
}

#[test]
fn identifiers_left_behind_are_nobody_elses_until_they_are_released() {
    let mut b = Bridged::new(vec![rule("up/#", Direction::Out, 2)]);
    b.publish(message(2, 1, "up/a", "one"));
    assert_eq!(b.got(), ["PUBLISH #1 q2 up/a=one"]);
    b.lose();
    b.connect_to("b:1883", new_session());
    assert_eq!(b.got(), ["PUBLISH #1 q2 up/a=one"]);
    b.hears(Packet::PubRec(success(1))).expect("taken");
    assert_eq!(b.got(), ["PUBREL #1"]);
    b.hears(Packet::PubComp(success(1))).expect("taken");
    b.world.flush();
    // A new process begins to count anew, and knows it all the same.
    b.crash();
    b.connect_to("b:1883", upstream(ProtocolVersion::V5));
    b.publish(message(2, 1, "up/a", "two"));
    assert_eq!(b.got(), ["PUBLISH #2 q2 up/a=two"]);
    b.lose();
    // The first one may have received it.
    b.connect_to("a:1883", upstream(ProtocolVersion::V5));
    let mut got = b.got();
    got.sort();
    assert_eq!(got, ["PUBLISH #2 q2 dup up/a=two", "PUBREL #1"]);
    b.crash();
    b.connect_to("a:1883", upstream(ProtocolVersion::V5));
    assert!(b.got().contains(&"PUBREL #1".to_owned()));
    b.hears(Packet::PubComp(answer_not_found(1)))
        .expect("taken");
    let record = b.world.broker.bridge_record("cloud").expect("remembered");
    let left: Vec<_> = record.left.iter().map(|left| &*left.address).collect();
    assert_eq!(left, ["b:1883"]);
    b.hears(Packet::PubRec(success(2))).expect("taken");
    b.hears(Packet::PubComp(success(2))).expect("taken");
}

fn answer_not_found(id: u16) -> Ack<'static> {
    Ack {
        reason: ReasonCode::PacketIdentifierNotFound,
        ..success(id)
    }
}

#[test]
fn what_is_under_way_is_finished_and_nothing_more_begun() {
    let mut b = Bridged::new(vec![rule("up/#", Direction::Out, 2)]);
    b.publish(message(2, 1, "up/a", "one"));
    assert_eq!(b.got(), ["PUBLISH #1 q2 up/a=one"]);
    let mut out = Vec::new();
    let (relay, broker, now) = b.relay();
    relay.finish(broker, &mut out, now);
    assert_eq!(show(&out, ProtocolVersion::V5), ["PINGREQ"]);
    b.publish(message(2, 1, "up/a", "two"));
    b.hears(Packet::PubRec(success(1))).expect("taken");
    assert_eq!(b.got(), ["PUBREL #1"]);
    b.hears(Packet::PubComp(success(1))).expect("taken");
    assert_eq!(b.got(), [""; 0], "the PINGREQ is not answered");
    b.hears(Packet::PingResp).expect("taken");
    let (relay, broker, now) = b.relay();
    let ended = relay.take_output(broker, &mut Vec::new(), now);
    assert_eq!(ended, Err(Leave::Finished));
    // What is new waits for the next connection.
    b.lose();
    b.connect_to("b:1883", new_session());
    assert_eq!(
        b.got(),
        [""; 0],
        "its body is read, and its identifier written"
    );
    assert_eq!(b.got(), ["PUBLISH #2 q2 up/a=two"]);
}

#[test]
fn what_is_said_to_the_next_address_waits_for_what_is_remembered_of_the_last() {
    let mut b = Bridged::new(vec![rule("down/#", Direction::In, 2)]);
    b.hears(Packet::Publish(message(2, 7, "down/x", "a")))
        .expect("taken");
    b.got();
    b.lose();
    b.connect_to("b:1883", new_session());
    assert_eq!(b.got_now(), [""; 0]);
    assert_eq!(b.got().len(), 1, "SUBSCRIBE");
    // The same identifier is another message there; and here again the one that was received.
    b.hears(Packet::Publish(message(2, 7, "down/x", "b")))
        .expect("taken");
    assert_eq!(b.world.broker.counters.duplicates_suppressed, 0);
    b.crash();
    b.connect_to("a:1883", upstream(ProtocolVersion::V5));
    b.hears(Packet::Publish(message(2, 7, "down/x", "a")))
        .expect("taken");
    assert_eq!(b.world.broker.counters.duplicates_suppressed, 1);
}

#[test]
fn a_session_of_which_nothing_is_known_is_begun_anew() {
    let mut b = Bridged::new(vec![rule("up/#", Direction::Out, 2)]);
    let mut bridge = bridge(Vec::new());
    let anew = |b: &Bridged, bridge: &Bridge| {
        ["a:1883", "b:1883", "c:1883"].map(|at| b.world.broker.begins_anew(bridge, at))
    };
    assert_eq!(anew(&b, &bridge), [false; 3], "they may share sessions");
    b.lose();
    b.connect_to("b:1883", new_session());
    assert_eq!(anew(&b, &bridge), [false, false, true]);
    b.world.settle();
    b.crash();
    assert_eq!(anew(&b, &bridge), [false, false, true]);
    // An address that was taken out of the configuration is forgotten.
    let kept = [String::from("b:1883")];
    b.world.broker.keep_bridge_addresses(&bridge, &kept);
    assert_eq!(anew(&b, &bridge), [true, false, true]);
    // To the upstream it is somebody else.
    bridge.remote_clientid = "other".into();
    let now = b.world.now;
    b.world.broker.open_bridge(&bridge, now);
    assert_eq!(anew(&b, &bridge), [true; 3]);
}

#[test]
fn addresses_are_published_with_what_is_known_of_them() {
    let mut b = Bridged::new(vec![rule("up/#", Direction::Out, 2)]);
    let watcher = b.world.connect(&client("watcher"));
    b.world.subscribe(watcher, "$SYS/bridge/cloud/address/#", 0);
    b.world
        .subscribe(watcher, "$SYS/bridge/cloud/addresses/+", 0);
    let (bridge, now) = (bridge(Vec::new()), b.world.now);
    let tell = |b: &mut Bridged, standings: &[(&str, AddressState)]| {
        let all = standings.iter().cloned();
        let all = all.map(|(name, standing)| (name.to_owned(), standing));
        let broker = &mut b.world.broker;
        broker.set_bridge_addresses(&bridge, all.collect(), now);
        b.world.got(watcher)
    };
    let down = AddressState::Unreachable("refused".to_owned());
    let first = [("a:1", down), ("b:1", AddressState::Connected)];
    assert_eq!(
        tell(&mut b, &first),
        [
            "PUBLISH $SYS/bridge/cloud/address=b:1",
            "PUBLISH $SYS/bridge/cloud/addresses/1=a:1 unreachable: refused",
            "PUBLISH $SYS/bridge/cloud/addresses/2=b:1 connected",
        ]
    );
    // Only what has changed; what is no more is taken away.
    assert_eq!(
        tell(&mut b, &[("a:1", AddressState::Reachable)]),
        [
            "PUBLISH $SYS/bridge/cloud/address=",
            "PUBLISH $SYS/bridge/cloud/addresses/1=a:1 reachable",
            "PUBLISH $SYS/bridge/cloud/addresses/2=",
        ]
    );
}
