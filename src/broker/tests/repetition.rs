//! Messages that come over bridges: their marks, and what is known when they come again.

use super::*;
use crate::broker::model::marks::hop;

/// This broker, and others that it hears of.
const OWN: u64 = 0xA;
const PATH_OF_B: &str = "000000000000000b";
const ID: &str = "00000000000000ff";

/// A client that is a bridge.
fn bridge_client(id: &'static str) -> Client {
    durable(id).with(Property::UserProperty("tidegate-bridge", "1"))
}

/// The same, with a session that ends with its connection.
fn said_bridge(id: &'static str) -> Client {
    client(id).with(Property::UserProperty("tidegate-bridge", "1"))
}

/// What stands for this broker in the path of a message with this payload.
fn own_hop(payload: &str) -> String {
    hex(hop(OWN, payload.as_bytes()))
}

fn id_property(id: &str) -> Property<'_> {
    Property::UserProperty("tidegate-id", id)
}

fn path_property(path: &str) -> Property<'_> {
    Property::UserProperty("tidegate-path", path)
}

/// A world of this name in which a durable session waits for everything.
fn listening() -> World {
    listening_with(Limits::default())
}

fn listening_with(limits: Limits) -> World {
    let mut world = World::with(Settings {
        identity: OWN,
        limits,
        ..Settings::default()
    });
    let consumer = world.connect(&durable("consumer"));
    world.subscribe(consumer, "#", 2);
    world.lose(consumer);
    world.flush();
    world
}

impl World {
    /// What waits for the consumer: topics and payloads.
    fn consumed(&mut self) -> Vec<String> {
        let consumer = self.connect(&durable("consumer"));
        let got = self.drain(consumer);
        self.lose(consumer);
        let last = |line: &String| line.rsplit(' ').next().map(str::to_owned);
        got.iter().filter_map(last).collect()
    }

    /// The user properties of each PUBLISH that a client gets now.
    pub(super) fn marks(&mut self, peer: Peer) -> Vec<Vec<(String, String)>> {
        let mut out = Vec::new();
        loop {
            self.settle();
            let before = out.len();
            self.broker.take_output(peer.id, &mut out, self.now);
            if out.len() == before && self.is_quiet() {
                break;
            }
        }
        let (mut all, mut used) = (Vec::new(), 0);
        while let Some(len) = codec::frame_len(&out[used..], u32::MAX).expect("good") {
            let frame = codec::decode(&out[used..used + len], peer.version);
            if let Packet::Publish(publish) = frame.expect("good") {
                let user = publish.properties.user_properties();
                all.push(user.map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
            }
            used += len;
        }
        all
    }

    /// The identity and the path of the one PUBLISH that a bridge gets now.
    fn mark(&mut self, peer: Peer) -> (Option<String>, String) {
        let mut all = self.marks(peer);
        assert_eq!(all.len(), 1, "{all:?}");
        let mut mark = (None, String::new());
        for (name, value) in all.remove(0) {
            match name.as_str() {
                "tidegate-id" => mark.0 = Some(value),
                "tidegate-path" => mark.1 = value,
                _ => {}
            }
        }
        mark
    }
}

#[test]
fn a_bridge_is_told_the_identity_and_the_path_of_each_message_and_nobody_else_is() {
    let mut world = listening();
    let bridge = world.connect(&bridge_client("bridge"));
    world.subscribe(bridge, "#", 2);
    let other = world.connect(&client("other"));
    world.subscribe(other, "#", 2);
    let device = world.connect(&publisher());
    world.publish(device, message(0, 0, "t", "zero"));
    assert_eq!(world.mark(bridge), (None, own_hop("zero")));
    let mut ids = Vec::new();
    for qos in [1, 1, 2] {
        // The same topic and payload, and yet another message.
        world.publish(device, message(qos, 7, "t", "same"));
        let (id, path) = world.mark(bridge);
        assert_eq!(path, own_hop("same"));
        let id = id.expect("an identity");
        assert!(id.len() == 16 && !ids.contains(&id), "{id} {ids:?}");
        ids.push(id);
    }
    assert_eq!(world.marks(other), [[(); 0]; 4].map(|_| Vec::new()));

    // However often they are sent: on another connection, after a crash, to a session that is new.
    let identities = |marks: Vec<Vec<(String, String)>>| {
        let ids = marks.into_iter().map(|mark| mark[0].1.clone());
        ids.collect::<Vec<_>>()
    };
    world.lose(bridge);
    let bridge = world.connect(&bridge_client("bridge"));
    assert_eq!(identities(world.marks(bridge)), ids);
    world.crash();
    let bridge = world.connect(&bridge_client("bridge"));
    assert_eq!(identities(world.marks(bridge)), ids);
    // What a client calls itself does not matter.
    let consumer = world.connect(&bridge_client("consumer"));
    assert_eq!(identities(world.marks(consumer)), ids);
}

#[test]
fn a_message_that_has_come_over_a_bridge_goes_on_under_its_identity() {
    let mut world = listening();
    let bridge = world.connect(&bridge_client("bridge"));
    world.subscribe(bridge, "#", 2);
    let other = world.connect(&client("other"));
    world.subscribe(other, "#", 2);
    let up = world.connect(&said_bridge("up"));
    let user = Property::UserProperty("k", "v");
    let marks = [id_property(ID), user, path_property(PATH_OF_B)];
    world.publish_with(up, message(1, 1, "t", "x"), &marks);
    let path = format!("{PATH_OF_B} {}", own_hop("x"));
    assert_eq!(world.mark(bridge), (Some(ID.to_owned()), path.clone()));
    let seen = world.marks(other).remove(0);
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(seen, [pair("k", "v")], "marks are for bridges");
    world.crash();
    let bridge = world.connect(&bridge_client("bridge"));
    assert_eq!(world.mark(bridge), (Some(ID.to_owned()), path));
}

#[test]
fn a_mark_that_would_make_a_message_too_large_is_left_out() {
    let mut world = listening();
    let small = bridge_client("small").with(Property::MaximumPacketSize(60));
    let bridge = world.connect(&small);
    world.subscribe(bridge, "#", 2);
    let device = world.connect(&publisher());
    world.publish(device, message(1, 1, "t", "0123456789"));
    world.publish(device, message(1, 2, "t", &"x".repeat(60)));
    assert_eq!(world.marks(bridge), [vec![]]);
    assert_eq!(world.broker.counters().dropped_too_large, 1);
}

/// Publishes with this identity, on a connection and a session of its own.
fn publish_marked(world: &mut World, client: &'static str, publish: Publish<'_>, id: &str) -> Peer {
    let peer = world.connect(&said_bridge(client).clean());
    world.publish_with(peer, publish, &[id_property(id)]);
    peer
}

#[test]
fn a_repetition_under_another_packet_identifier_is_acknowledged_and_not_published() {
    let mut world = listening();
    let peer = publish_marked(&mut world, "up", message(1, 1, "t", "one"), ID);
    world.settle();
    assert_eq!(world.got(peer), ["PUBACK #1"]);
    world.lose(peer);
    // The session is new, the process is new: whatever happens in between.
    for (round, qos) in [1, 2, 1, 2].into_iter().enumerate() {
        if round == 2 {
            world.crash();
        }
        let id = 10 + round as u16;
        let peer = publish_marked(&mut world, "up", message(qos, id, "t", "one"), ID);
        world.settle();
        if qos == 1 {
            assert_eq!(world.got(peer), [format!("PUBACK #{id}")]);
        } else {
            assert_eq!(world.got(peer), [format!("PUBREC #{id}")]);
            world.pubrel(peer, id);
            world.settle();
            assert_eq!(world.got(peer), [format!("PUBCOMP #{id}")]);
        }
        world.lose(peer);
    }
    assert_eq!(world.broker.counters().repetitions_suppressed, 2);
    assert_eq!(world.disk.message_ids.len(), 1);
    assert_eq!(world.consumed(), ["t=one"]);
}

#[test]
fn the_acknowledgement_of_a_repetition_waits_for_the_first_one_to_be_durable() {
    let mut world = listening();
    let first = publish_marked(&mut world, "up", message(1, 1, "t", "one"), ID);
    assert!(world.take());
    // The next batch is open; the repetition must not wait for that one, but it must wait.
    let again = world.connect_now(&said_bridge("up").clean());
    world.publish_with(again, message(1, 2, "t", "one"), &[id_property(ID)]);
    assert_eq!(world.got(again), [""; 0]);
    world.written();
    assert_eq!(world.got(again), [""; 0]);
    world.durable();
    assert_eq!(world.got(again), ["PUBACK #2"]);
    world.lose(first);
    assert_eq!(world.consumed(), ["t=one"]);
}

impl World {
    /// As [`World::connect`], for a session that is not kept; the disk does nothing meanwhile.
    fn connect_now(&mut self, client: &Client) -> Peer {
        let peer = self.open(client);
        assert!(self.got(peer)[0].starts_with("CONNACK"));
        peer
    }
}

#[test]
fn what_dies_with_the_process_before_it_is_durable_is_published_when_it_comes_again() {
    let mut world = listening();
    publish_marked(&mut world, "up", message(2, 1, "t", "one"), ID);
    assert!(world.take());
    world.written();
    world.crash();
    assert!(world.disk.message_ids.is_empty());
    publish_marked(&mut world, "up", message(2, 2, "t", "one"), ID);
    world.settle();
    assert_eq!(world.consumed(), ["t=one"]);
}

#[test]
fn an_identity_keeps_only_the_same_message_of_the_same_client_back() {
    let mut world = listening();
    publish_marked(&mut world, "up", message(1, 1, "t", "one"), ID);
    // Another message under a stolen identity, and the message itself from elsewhere.
    publish_marked(&mut world, "up", message(1, 2, "t", "two"), ID);
    publish_marked(&mut world, "up", message(1, 3, "u", "one"), ID);
    publish_marked(&mut world, "thief", message(1, 4, "t", "one"), ID);
    let expected = ["t=one", "t=two", "u=one", "t=one"];
    assert_eq!(world.consumed(), expected);
    assert_eq!(world.broker.counters().repetitions_suppressed, 0);
}

#[test]
fn a_message_that_comes_on_two_ways_is_published_once() {
    let mut world = listening();
    let ways = [
        ("direct", PATH_OF_B),
        ("around", "000000000000000b 000000000000000c"),
    ];
    for (client, path) in ways {
        let peer = world.connect(&said_bridge(client));
        let marks = [id_property(ID), path_property(path)];
        world.publish_with(peer, message(2, 1, "t", "one"), &marks);
        world.publish_with(peer, message(2, 2, "t", "other"), &marks);
        world.settle();
        assert_eq!(world.got(peer), ["PUBREC #1", "PUBREC #2"]);
    }
    assert_eq!(world.consumed(), ["t=one", "t=other"]);
    assert_eq!(world.broker.counters().repetitions_suppressed, 2);
}

#[test]
fn what_needs_no_disk_is_known_in_memory_only() {
    let mut world = World::named(OWN);
    let live = world.connect(&client("live"));
    world.subscribe(live, "#", 1);
    for id in [1, 2] {
        publish_marked(&mut world, "up", message(1, id, "t", "one"), ID);
    }
    world.flush();
    assert_eq!(world.got(live), ["PUBLISH #1 q1 t=one"]);
    assert!(world.disk.message_ids.is_empty());
}

#[test]
fn a_refused_message_is_not_remembered() {
    let mut world = listening();
    world.broker.set_room(0, false);
    let peer = publish_marked(&mut world, "up", message(1, 1, "t", "one"), ID);
    assert_eq!(world.got(peer), ["PUBACK #1 QuotaExceeded"]);
    world.broker.set_room(u64::MAX, false);
    world.publish_with(peer, message(1, 1, "t", "one"), &[id_property(ID)]);
    world.settle();
    assert_eq!(world.got(peer), ["PUBACK #1"]);
    assert_eq!(world.consumed(), ["t=one"]);
}

fn hex(n: u64) -> String {
    format!("{n:016x}")
}

#[test]
fn the_oldest_of_a_client_is_forgotten_and_its_row_removed() {
    let mut world = listening_with(Limits {
        max_message_ids: 3,
        ..Limits::default()
    });
    for n in 1..=10 {
        publish_marked(&mut world, "up", message(1, 1, "t", "x"), &hex(n));
    }
    world.flush();
    assert_eq!(world.disk.message_ids.len(), 3);
    world.crash();
    assert_eq!(world.broker.bridges.message_ids.len(), 3);
    for n in [10, 9, 8, 7] {
        publish_marked(&mut world, "up", message(1, 1, "t", "x"), &hex(n));
    }
    assert_eq!(world.broker.counters().repetitions_suppressed, 3);
    assert_eq!(world.broker.bridges.message_ids.len(), 3);
    // None are allowed now.
    world.flush();
    world.settings.limits.max_message_ids = 0;
    world.crash();
    assert_eq!(world.broker.bridges.message_ids.len(), 0);
    publish_marked(&mut world, "up", message(1, 1, "t", "x"), &hex(10));
    world.flush();
    assert!(world.disk.message_ids.is_empty());
    assert_eq!(world.consumed().len(), 12);
}

#[test]
fn the_client_that_is_idle_longest_is_forgotten_when_there_are_too_many() {
    // Each client counts 16, and each of its messages 1.
    let mut world = listening_with(Limits {
        max_message_ids_total: 55,
        ..Limits::default()
    });
    for (n, client) in ["a", "b", "a", "c", "a"].into_iter().enumerate() {
        publish_marked(
            &mut world,
            client,
            message(1, 1, "t", "x"),
            &hex(1 + n as u64),
        );
    }
    world.flush();
    assert_eq!(world.disk.message_ids.len(), 5);
    for n in 6..=9 {
        publish_marked(&mut world, "c", message(1, 1, "t", "x"), &hex(n));
    }
    world.flush();
    assert_eq!(world.disk.message_ids.len(), 8, "those of b have gone");
    publish_marked(&mut world, "a", message(1, 1, "t", "x"), &hex(1));
    assert_eq!(world.broker.counters().repetitions_suppressed, 1);
    publish_marked(&mut world, "b", message(1, 1, "t", "x"), &hex(2));
    assert_eq!(world.broker.counters().repetitions_suppressed, 1);
    // A client alone fills the whole, and no more.
    for n in 100..300 {
        publish_marked(&mut world, "b", message(1, 1, "t", "x"), &hex(n));
    }
    world.flush();
    assert_eq!(world.disk.message_ids.len(), 55);
}

#[test]
fn what_goes_in_a_circle_is_acknowledged_and_not_published() {
    let mut world = listening();
    let peer = world.connect(&said_bridge("up"));
    for (qos, payload) in [(0, "zero"), (1, "one"), (2, "two")] {
        let path = format!("{PATH_OF_B},{}", own_hop(payload).to_uppercase());
        let circle = [path_property(&path)];
        world.publish_with(peer, message(qos, qos.into(), "t", payload), &circle);
    }
    assert_eq!(world.got(peer), ["PUBACK #1", "PUBREC #2"]);
    world.pubrel(peer, 2);
    assert_eq!(world.got(peer), ["PUBCOMP #2"]);
    assert_eq!(world.broker.counters().bridge_loops_dropped, 3);
    assert!(world.disk.received.is_empty());
    // A path that is none is no reason to lose a message.
    let nonsense = [path_property("over the hills")];
    world.publish_with(peer, message(1, 3, "t", "three"), &nonsense);
    world.settle();
    assert_eq!(world.consumed(), ["t=three"]);
}

#[test]
fn an_answer_with_the_user_properties_of_the_request_is_not_lost() {
    let mut world = listening();
    let up = world.connect(&said_bridge("up"));
    let path: &str = format!("{PATH_OF_B} {}", own_hop("request")).leak();
    let marks = [
        id_property(ID),
        path_property(path),
        Property::UserProperty("tidegate-dead-letter", "1"),
    ];
    // A client that is no bridge copies what it has seen elsewhere, also in its will: it means
    // nothing.
    let app = world.connect(
        &client("app")
            .will(1, "t/will", "request")
            .will_with(marks[1]),
    );
    let bridge = world.connect(&bridge_client("bridge"));
    world.subscribe(bridge, "t/#", 1);
    for id in 1..=20 {
        world.publish_with(app, message(1, id, "t", "request"), &marks);
    }
    world.settle();
    assert_eq!(world.got(app).len(), 20);
    let mine = |user: &Vec<(String, String)>| user[1].1 == own_hop("request");
    let told = world.marks(bridge);
    assert!(told.len() == 20 && told.iter().all(mine), "{told:?}");
    world.lose(app);
    assert_eq!(world.marks(bridge)[0][1].1, own_hop("request"), "the will");
    // One that does so at a broker of another make, behind a bridge: the path is that of another
    // payload.
    world.publish_with(up, message(1, 1, "u", "answer"), &marks);
    world.publish_with(up, message(1, 2, "u", "request"), &marks);
    world.settle();
    assert_eq!(world.broker.counters().bridge_loops_dropped, 1);
    assert_eq!(world.consumed()[21..], ["u=answer"]);
}
