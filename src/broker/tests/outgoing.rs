//! What waits to be written to all connections together has a limit, also where nothing waits yet,
//! and who takes what it is sent goes on.

use super::*;
use crate::broker::Segments;

/// What may wait for all.
const TOTAL: usize = 100_000;
/// A message ten of which are too much.
const LARGE: usize = 10_000;

fn world() -> World {
    World::with(limited(Limits {
        max_outgoing_bytes_total: TOTAL,
        ..Limits::default()
    }))
}

fn large() -> String {
    "x".repeat(LARGE)
}

fn subscribers(world: &mut World, name: &str, count: usize, qos: u8) -> Vec<Peer> {
    let peers = (0..count).map(|n| {
        let peer = world.connect(&client(format!("{name}{n:03}").leak()));
        world.subscribe(peer, "t", qos);
        assert_eq!(world.got(peer), [""; 0]);
        peer
    });
    peers.collect()
}

/// Lets those of some peers that are woken take what there is for them, until nobody is; how many
/// messages each has got.
fn serve(world: &mut World, peers: &[Peer]) -> Vec<usize> {
    let mut got = vec![0; peers.len()];
    loop {
        let mut touched = Vec::new();
        world.broker.take_touched(&mut touched);
        let mut quiet = true;
        for (n, peer) in peers.iter().enumerate() {
            if touched.contains(&peer.id) {
                let messages = world.drain(*peer).len();
                quiet &= messages == 0;
                got[n] += messages;
            }
        }
        let most = TOTAL + LARGE + 100 + peers.len() * 4096;
        assert!(world.broker.outgoing.total() <= most);
        if quiet && touched.is_empty() {
            return got;
        }
    }
}

#[test]
fn a_large_message_for_many_that_wait_for_nothing_takes_no_more_than_there_may_be() {
    let mut world = world();
    let peers = subscribers(&mut world, "sub", 50, 0);
    let peer = world.connect(&publisher());
    world.publish(peer, message(0, 0, "t", &large()));
    assert!(world.broker.outgoing.total() <= TOTAL);
    let dropped = world.broker.counters().dropped_outgoing_full;
    assert_eq!(dropped, 41, "QoS 0 waits for nobody");
    let got = serve(&mut world, &peers);
    assert_eq!(got.iter().sum::<usize>(), 9);
    world.broker.audit().expect("the accounts agree");
}

#[test]
fn what_waits_is_sent_to_one_after_the_other_as_there_is_room() {
    for durability in [u32::MAX, 0] {
        let mut world = world();
        let peers: Vec<Peer> = (0..50)
            .map(|n| {
                let expiry = Property::SessionExpiryInterval(durability);
                let peer = world.connect(&client(format!("sub{n:03}").leak()).with(expiry));
                world.subscribe(peer, "t", 1);
                world.got(peer);
                peer
            })
            .collect();
        let peer = world.connect(&publisher());
        for id in 1..=3 {
            world.publish(peer, message(1, id, "t", &large()));
        }
        assert!(world.broker.outgoing.total() <= TOTAL);
        world.settle();
        assert_eq!(serve(&mut world, &peers), [3; 50]);
        assert_eq!(world.broker.outgoing.turns.len(), 0);
        assert_eq!(world.broker.counters().dropped_outgoing_full, 0);
        world.got(peer);
        world.got(peer);
        assert_eq!(world.broker.outgoing.total(), 0);
        world.assert_nothing_left();
    }
}

#[test]
fn who_takes_nothing_keeps_nobody_from_what_is_large() {
    let mut world = world();
    let stuck = subscribers(&mut world, "sub", 20, 1);
    let peer = world.connect(&publisher());
    for id in 1..=20 {
        world.publish(peer, message(1, id, "t", &large()));
    }
    let full = world.broker.outgoing.total();
    assert!(full <= TOTAL && full + LARGE > TOTAL);
    // They are woken, and take nothing: those for which nothing waits have their turn, once.
    stuck.iter().for_each(|peer| world.broker.touch(peer.id));
    let readers = subscribers(&mut world, "reader", 5, 1);
    for id in 21..=24 {
        world.publish(peer, message(1, id, "t", &large()));
    }
    let mut got = [0; 5];
    for _ in 0..100 {
        let now = serve(&mut world, &readers);
        now.iter().zip(&mut got).for_each(|(now, all)| *all += now);
        world.wait(1000);
    }
    assert_eq!(got, [4; 5]);
    assert!(world.broker.outgoing.total() <= TOTAL + LARGE + 4096);
    // What is small is sent at once.
    world.publish(peer, message(1, 25, "t", "small"));
    let small = world.drain(readers[0]);
    assert_eq!(small, ["PUBLISH q1 t=small"]);
}

#[test]
fn who_does_not_use_its_turn_loses_it() {
    let mut world = world();
    let stuck = subscribers(&mut world, "sub", 12, 1);
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", &large()));
    // Nine have it, three wait.
    assert!(world.broker.outgoing.total() <= TOTAL);
    let takes = |world: &mut World, n: usize| {
        let mut out = Vec::new();
        world.broker.take_output(stuck[n].id, &mut out, world.now);
        out.len() / LARGE
    };
    assert_eq!(takes(&mut world, 9), 1, "it is its turn");
    assert_eq!(takes(&mut world, 10), 0);
    assert_eq!(takes(&mut world, 11), 0);
    assert!(world.broker.outgoing.total() > TOTAL);
    world.wait(900);
    assert_eq!(takes(&mut world, 10), 0);
    world.wait(200);
    assert_eq!(
        takes(&mut world, 10),
        1,
        "the other has not taken it in time"
    );
    assert_eq!(takes(&mut world, 11), 0);
    // One that is lost leaves its turn, and its place, to others.
    world.lose(stuck[10]);
    assert_eq!(takes(&mut world, 11), 1);
    for n in (0..12).filter(|n| *n != 10) {
        world.lose(stuck[n]);
    }
    world.broker.audit().expect("the accounts agree");
    assert_eq!(world.broker.outgoing.turns.len(), 0);
}

#[test]
fn what_is_retained_is_not_dropped_for_those_that_read() {
    let mut world = world();
    let peer = world.connect(&publisher());
    for n in 0..4 {
        world.publish(peer, retained(0, 0, &format!("t/{n}"), &large()));
    }
    let readers: Vec<Peer> = (0..10)
        .map(|n| {
            let peer = world.connect(&client(format!("sub{n:03}").leak()));
            world.ask(peer, 1, &[("t/+", options(0))]);
            peer
        })
        .collect();
    let stuck = subscribers(&mut world, "stuck", 9, 0);
    world.publish(peer, message(0, 0, "t", &large()));
    assert!(world.broker.outgoing.total() + LARGE > TOTAL);
    world.broker.take_touched(&mut Vec::new());
    readers.iter().for_each(|peer| world.broker.touch(peer.id));
    let got = serve(&mut world, &readers);
    assert_eq!(got, [4; 10]);
    stuck.into_iter().for_each(|peer| world.lose(peer));
}

#[test]
fn a_message_larger_than_all_that_may_wait_comes_through_alone() {
    let mut world = World::with(limited(Limits {
        max_outgoing_bytes_total: 5_000,
        ..Limits::default()
    }));
    let peers = subscribers(&mut world, "sub", 3, 1);
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", &large()));
    world.settle();
    world.got(peer);
    world.got(peer);
    let mut got = vec![0; 3];
    for _ in 0..5 {
        let now = serve(&mut world, &peers);
        now.iter().zip(&mut got).for_each(|(now, all)| *all += now);
        world.wait(1500);
    }
    assert_eq!(got, [1; 3]);
}

/// A message whose payload is shared: some of them are too much.
fn shared() -> String {
    "y".repeat(TOTAL / 2)
}

#[test]
fn a_payload_that_is_shared_counts_once_however_many_are_sent_it() {
    for qos in [0, 1, 2] {
        let mut world = world();
        let peers = subscribers(&mut world, "sub", 500, qos);
        let peer = world.connect(&publisher());
        world.publish(peer, message(qos, 1, "t", &shared()));
        let total = world.broker.outgoing.total();
        assert!(total < TOTAL / 2 + 500 * 20, "QoS {qos}: {total}");
        world.broker.audit().expect("the accounts agree");
        // Taken without a copy, it counts until it has been written.
        let mut segments = Segments::default();
        world
            .broker
            .take_output(peers[0].id, &mut segments, world.now);
        assert!(segments.len() > TOTAL / 2);
        assert_eq!(world.broker.outgoing.total(), total);
        segments.advance(segments.len());
        world
            .broker
            .take_output(peers[0].id, &mut segments, world.now);
        assert!(segments.is_empty());
        assert!(world.broker.outgoing.total() < total);
        world.broker.audit().expect("the accounts agree");
        // Some are lost, one in the middle of a write, and the others read it.
        let mut segments = Segments::default();
        world
            .broker
            .take_output(peers[1].id, &mut segments, world.now);
        peers[1..10].iter().for_each(|peer| world.lose(*peer));
        world.settle();
        assert_eq!(serve(&mut world, &peers[10..]), [1; 490]);
        assert_eq!(world.broker.counters().dropped_outgoing_full, 0);
        world.got(peer);
        world.got(peer);
        assert_eq!(world.broker.outgoing.total(), 0);
        world.broker.audit().expect("the accounts agree");
    }
}

#[test]
fn shared_payloads_are_limited_together() {
    let mut world = world();
    let peers = subscribers(&mut world, "sub", 5, 0);
    let peer = world.connect(&publisher());
    for _ in 0..4 {
        world.publish(peer, message(0, 0, "t", &shared()));
    }
    assert!(world.broker.outgoing.total() <= TOTAL);
    let dropped = world.broker.counters().dropped_outgoing_full;
    assert_eq!(
        dropped,
        3 * 5,
        "the second does not fit beside the first's heads"
    );
    assert_eq!(serve(&mut world, &peers), [1; 5]);
    assert_eq!(world.broker.outgoing.total(), 0);
}

#[test]
fn a_shared_payload_is_the_same_for_clients_of_all_kinds() {
    let mut world = world();
    let payload = shared();
    let v4 = Client {
        version: ProtocolVersion::V311,
        ..client("v4")
    };
    let aliases = client("aliases").with(Property::TopicAliasMaximum(5));
    let small = client("small").with(Property::MaximumPacketSize(40_000));
    let clients = [v4, client("v5"), aliases, small];
    let peers = clients.map(|client| {
        let peer = world.connect(&client);
        world.subscribe(peer, "t", 0);
        world.got(peer);
        peer
    });
    let peer = world.connect(&publisher());
    for _ in 0..2 {
        world.publish(peer, message(0, 0, "t", &payload));
        for (n, peer) in peers.into_iter().enumerate() {
            let mut out = Vec::new();
            world.broker.take_output(peer.id, &mut out, world.now);
            let packets = show(&out, peer.version).len();
            // The last takes no packets so large.
            assert_eq!(packets, usize::from(n < 3));
            assert_eq!(out.ends_with(payload.as_bytes()), n < 3);
            world
                .broker
                .take_output(peer.id, &mut Vec::new(), world.now);
        }
        assert_eq!(world.broker.outgoing.total(), 0);
    }
}

/// No member has anything to do, so nothing but the message itself lets one of them look at the
/// queue of their group.
#[test]
fn a_message_for_a_group_whose_members_are_idle_goes_to_one_of_them_when_there_is_room() {
    let mut world = world();
    let members = ["a", "b"].map(|id| {
        let peer = world.connect(&client(id));
        world.subscribe(peer, "$share/group/s", 1);
        assert_eq!(world.got(peer), [""; 0]);
        peer
    });
    subscribers(&mut world, "stuck", 20, 0);
    let peer = world.connect(&publisher());
    for _ in 0..TOTAL / LARGE / 20 + 1 {
        world.publish(peer, message(0, 0, "t", &large()));
    }
    assert!(world.broker.outgoing.total() + LARGE > TOTAL);
    let mut touched = Vec::new();
    world.broker.take_touched(&mut touched);
    touched.clear();
    world.publish(peer, message(1, 1, "s", &large()));
    // A driver serves who is touched, and again when all has been written.
    let mut got = 0;
    for _ in 0..10 {
        world.broker.take_touched(&mut touched);
        for id in std::mem::take(&mut touched) {
            let mut out = Vec::new();
            world.broker.take_output(id, &mut out, world.now);
            if members.iter().any(|member| member.id == id) {
                got += show(&out, ProtocolVersion::V5).len();
            }
            world.broker.take_output(id, &mut Vec::new(), world.now);
        }
    }
    assert_eq!(got, 1);
    world.broker.audit().expect("the accounts agree");
}
