//! Two brokers with one identity are found out by the bridges they send.

use super::*;
use crate::broker::Origin;

/// A bridge with this client identifier, of a broker with identity 7 in this run.
fn from(id: &'static str, run: u64) -> Client {
    let origin = Origin::new(7, run).to_string();
    durable(id).with(Property::UserProperty("tidegate-bridge", origin.leak()))
}

fn found(world: &World) -> u64 {
    world.broker.counters().copied_identities
}

#[test]
fn a_broker_that_is_started_again_is_not_two() {
    let mut world = World::new();
    for run in 1..20 {
        let a = world.connect(&from("edge-a", run));
        let b = world.connect(&from("edge-b", run));
        world.send(a, Packet::PingReq);
        world.wait(5_000);
        world.send(b, Packet::PingReq);
        // It crashes: one connection is taken over by the next run, the other one says nothing
        // more.
        if run % 2 == 0 {
            world.lose(a);
        }
        world.wait(70_000);
    }
    assert_eq!(found(&world), 0);
}

#[test]
fn two_that_take_each_others_place_are_found_out() {
    let mut world = World::new();
    world.connect(&from("edge", 1));
    world.connect(&from("edge", 2));
    assert_eq!(found(&world), 0, "it may have been started again");
    world.connect(&from("edge", 1));
    assert_eq!(found(&world), 1);
    world.connect(&from("edge", 2));
    assert_eq!(found(&world), 2);
}

#[test]
fn two_that_are_connected_under_names_of_their_own_are_found_out() {
    let mut world = World::new();
    let first = world.connect(&from("edge-1", 1));
    world.wait(10_000);
    let second = world.connect(&from("edge-2", 2));
    for _ in 0..5 {
        world.send(second, Packet::PingReq);
        world.wait(500);
    }
    assert_eq!(found(&world), 0, "nothing was heard of the first");
    world.send(first, Packet::PingReq);
    world.wait(2_000);
    assert!(found(&world) > 0);
    world.lose(first);
    world.wait(2_000);
    let after = found(&world);
    world.wait(600_000);
    assert_eq!(found(&world), after);
}

#[test]
fn others_and_bridges_of_other_brokers_are_nobodys_copy() {
    let mut world = World::new();
    let other = Origin::new(8, 1).to_string();
    for _ in 0..3 {
        world.connect(&from("edge", 1));
        world.connect(&durable("edge").with(Property::UserProperty("tidegate-bridge", "1")));
        world.connect(&durable("edge").with(Property::UserProperty(
            "tidegate-bridge",
            other.clone().leak(),
        )));
    }
    // Not more brokers are remembered than there is room for.
    for n in 0..5_000 {
        let origin = Origin::new(n, n).to_string();
        let client = client("many").with(Property::UserProperty("tidegate-bridge", origin.leak()));
        world.connect(&client);
    }
    assert_eq!(found(&world), 0);
}
