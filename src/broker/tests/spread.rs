//! A message for very many is handed out in slices.

use super::*;
use crate::broker::delivery::spread::cost;

/// Clients that get a message in one go.
const SLICE: usize = 8;

/// Subscribers for a slice and a half more than one.
fn many(world: &mut World) -> Vec<Peer> {
    world.broker.set_slice(SLICE as u64);
    (0..2 * SLICE + SLICE / 2)
        .map(|n| {
            let peer = world.connect(&client(format!("sub{n:03}").leak()));
            world.subscribe(peer, "t", 0);
            peer
        })
        .collect()
}

fn have(world: &mut World, peers: &[Peer], what: &[&str]) -> usize {
    peers
        .iter()
        .filter(|peer| world.got(**peer) == what)
        .count()
}

#[test]
fn others_have_their_turn_between_slices_and_everybody_gets_it_once() {
    let mut world = World::new();
    let peers = many(&mut world);
    let publisher = world.connect(&client("pub"));
    world.publish(publisher, message(0, 0, "t", "a"));
    assert_eq!(have(&mut world, &peers, &["PUBLISH t=a"]), SLICE);
    world.wait(1);
    assert_eq!(have(&mut world, &peers, &["PUBLISH t=a"]), SLICE);
    world.wait(1);
    assert_eq!(have(&mut world, &peers, &["PUBLISH t=a"]), SLICE / 2);
    world.wait(10);
    assert_eq!(have(&mut world, &peers, &[]), peers.len());
}

#[test]
fn what_follows_overtakes_nothing() {
    let mut world = World::new();
    let peers = many(&mut world);
    let last = *peers.last().expect("some");
    world.subscribe(last, "u", 1);
    let publisher = world.connect(&client("pub"));
    world.publish(publisher, message(0, 0, "t", "a"));
    world.publish(publisher, message(0, 0, "t", "b"));
    world.publish(publisher, message(1, 1, "u", "c"));
    world.settle();
    assert_eq!(
        world.got(last),
        ["PUBLISH t=a", "PUBLISH t=b", "PUBLISH #1 q1 u=c"]
    );
    world.wait(1);
    world.wait(20);
    let both = ["PUBLISH t=a", "PUBLISH t=b"];
    assert_eq!(have(&mut world, &peers, &both), peers.len() - 1);
}

#[test]
fn who_unsubscribes_gets_what_was_published_before_and_who_takes_a_place_gets_nothing() {
    let mut world = World::new();
    let peers = many(&mut world);
    let publisher = world.connect(&client("pub"));
    let [.., goes, unsubscribes] = peers[..] else {
        panic!("there are many");
    };
    world.publish(publisher, message(0, 0, "t", "a"));
    world.unsubscribe(unsubscribes, "t");
    let got = world.got(unsubscribes);
    assert_eq!(got[0], "PUBLISH t=a");
    assert_eq!(got.len(), 2, "{got:?}");
    world.lose(goes);
    let comes = world.connect(&client("comes"));
    world.wait(1);
    world.wait(20);
    assert_eq!(world.got(comes), [""; 0]);
    assert_eq!(world.got(unsubscribes), [""; 0]);
}

/// Durable sessions for three slices at QoS 1 or 2, which subscribe to "t".
fn many_durable(world: &mut World, qos: u8) -> Vec<Peer> {
    world.broker.set_slice(SLICE as u64 * cost(level(qos)));
    (0..3 * SLICE)
        .map(|n| {
            let peer = world.connect(&durable(format!("sub{n:03}").leak()));
            world.subscribe(peer, "t", qos);
            peer
        })
        .collect()
}

#[test]
fn the_acknowledgement_does_not_wait_for_everybody_to_have_it() {
    let mut world = World::new();
    let peers = many_durable(&mut world, 1);
    let publisher = world.connect(&client("pub"));
    world.publish(publisher, message(1, 1, "t", "a"));
    assert_eq!(world.got(publisher), [""; 0], "nothing is on disk");
    world.writes();
    world.settle();
    let spread = world.writes();
    let rows = spread.iter().filter(|row| row.starts_with("PutSpread"));
    assert_eq!(rows.count(), (2 * SLICE).div_ceil(3), "{spread:?}");
    assert_eq!(world.got(publisher), ["PUBACK #1"]);
    let mut served = Vec::new();
    for _ in 0..3 {
        served.push(have(&mut world, &peers, &["PUBLISH #1 q1 t=a"]));
        world.wait(1);
        world.settle();
    }
    assert_eq!(served, [SLICE; 3]);
    for peer in &peers {
        world.puback(*peer, 1);
    }
    assert!(world.disk.spreads.is_empty(), "{:?}", world.disk.spreads);
    world.assert_nothing_left();
}

#[test]
fn a_crash_between_slices_loses_and_repeats_nothing() {
    for qos in [1, 2] {
        for ticks in 0..4 {
            for durable_before in [false, true] {
                let mut world = World::new();
                let peers = many_durable(&mut world, qos);
                let away = peers[peers.len() / 2];
                world.lose(away);
                let publisher = world.connect(&publisher());
                world.publish(publisher, message(2, 1, "t", "a"));
                world.settle();
                assert_eq!(world.got(publisher), ["PUBREC #1"]);
                let mut got = vec![0; peers.len()];
                for tick in 0..ticks {
                    world.wait(1);
                    if tick + 1 < ticks || durable_before {
                        world.settle();
                    }
                }
                for (n, peer) in peers.iter().enumerate().filter(|(_, peer)| **peer != away) {
                    got[n] += take_one(&mut world, *peer, durable_before);
                }
                world.crash();
                world.broker.audit().expect("the accounts agree");
                for (n, got) in got.iter_mut().enumerate() {
                    let peer = world.connect(&durable(format!("sub{n:03}").leak()));
                    *got += world.drain(peer).len();
                }
                if durable_before {
                    assert_eq!(got, vec![1; peers.len()], "QoS {qos}, {ticks} ticks");
                } else {
                    assert!(
                        got.iter().all(|got| *got >= 1),
                        "QoS {qos}, {ticks} ticks: {got:?}"
                    );
                }
                assert!(world.disk.spreads.is_empty(), "{:?}", world.disk.spreads);
                world.disk.received.clear();
                world.assert_nothing_left();
            }
        }
    }
}

/// What a client gets and, if the disk works, acknowledges to the end.
fn take_one(world: &mut World, peer: Peer, disk_works: bool) -> usize {
    let messages = match disk_works {
        true => world.drain(peer),
        false => world.got(peer),
    };
    world.got(peer);
    if disk_works {
        world.flush();
    }
    messages.len()
}

#[test]
fn who_got_it_out_of_turn_does_not_get_it_again_after_a_crash() {
    let mut world = World::new();
    let peers = many_durable(&mut world, 2);
    let last = peers.len() - 1;
    world.subscribe(peers[last], "u", 2);
    let publisher = world.connect(&publisher());
    world.publish(publisher, message(2, 1, "t", "a"));
    world.publish(publisher, message(2, 2, "t", "b"));
    world.publish(publisher, message(2, 3, "u", "c"));
    let all = ["PUBLISH q2 t=a", "PUBLISH q2 t=b", "PUBLISH q2 u=c"];
    assert_eq!(world.drain(peers[last]), all);
    world.flush();
    world.crash();
    for n in 0..peers.len() {
        let peer = world.connect(&durable(format!("sub{n:03}").leak()));
        let expected = if n == last { &all[..0] } else { &all[..2] };
        let got = world.drain(peer);
        let got: Vec<String> = got.iter().map(|line| line.replace(" dup", "")).collect();
        assert_eq!(got, expected, "{n}");
    }
    world.disk.received.clear();
    world.assert_nothing_left();
}

#[test]
fn sessions_that_end_before_their_turn_leave_nothing_behind() {
    for crashes in [false, true] {
        let mut world = World::new();
        let peers = many_durable(&mut world, 1);
        let publisher = world.connect(&client("pub"));
        world.publish(publisher, message(1, 1, "t", "a"));
        world.settle();
        for peer in &peers {
            world.leave_with(
                *peer,
                ReasonCode::Success,
                &[Property::SessionExpiryInterval(0)],
            );
            world.lose(*peer);
        }
        world.flush();
        if crashes {
            world.crash();
        }
        let comes = world.connect(&durable("comes"));
        world.wait(20);
        world.settle();
        assert_eq!(world.got(comes), [""; 0]);
        world.assert_nothing_left();
        assert!(world.disk.spreads.is_empty(), "{:?}", world.disk.spreads);
        world.broker.audit().expect("the accounts agree");
    }
}

#[test]
fn who_publishes_faster_than_that_is_read_from_more_slowly() {
    let mut world = World::new();
    let peers = many(&mut world);
    let publisher = world.connect(&client("pub"));
    for n in 0..4 {
        assert!(!world.broker.should_pause(publisher.id), "{n}");
        world.publish(publisher, message(0, 0, "t", "a"));
    }
    assert!(world.broker.should_pause(publisher.id));
    assert!(!world.broker.should_pause(peers[0].id), "others go on");
    world.broker.take_touched(&mut Vec::new());
    world.wait(10);
    assert!(!world.broker.should_pause(publisher.id));
    let mut touched = Vec::new();
    world.broker.take_touched(&mut touched);
    assert!(touched.contains(&publisher.id), "it hears of that");
    world.wait(20);
    assert_eq!(have(&mut world, &peers, &["PUBLISH t=a"; 4]), peers.len());
}
