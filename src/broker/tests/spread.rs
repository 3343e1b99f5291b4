//! A message of QoS 0 for very many is handed out in slices.

use super::super::spread::SLICE;
use super::*;

/// Subscribers for a slice and a half more than one.
fn many(world: &mut World) -> Vec<Peer> {
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
