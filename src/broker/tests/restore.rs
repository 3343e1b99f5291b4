//! What is on disk becomes the same broker again.

use super::super::record::{BodyId, BridgeRecord, DurabilityRules};
use super::*;

/// Rows that survive a restart without change.
fn rows(world: &World) -> Vec<String> {
    world
        .disk
        .rows()
        .iter()
        .map(|row| format!("{row:?}"))
        .collect()
}

#[test]
fn a_restart_changes_nothing_on_disk() {
    let mut world = World::new();
    let sub = world.connect(&durable("sub").with(Property::ReceiveMaximum(4)));
    let no_local = SubscribeOptions {
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::IfNew,
        ..options(2)
    };
    world.subscribe_as(sub, "t/#", no_local, 12);
    world.subscribe(sub, "$share/g/s", 1);
    let peer = world.connect(&durable("pub"));
    for id in 1..=10 {
        world.publish(peer, message(1 + (id % 2) as u8, id, "t/x", "m"));
        world.publish(peer, message(1, id + 100, "s", "m"));
    }
    world.publish(peer, retained(1, 50, "t/r", "kept"));
    world.settle();
    assert!(!world.got(sub).is_empty());
    world.pubrec(sub, 1);
    world.lose(sub);
    world.leave(peer);
    world.flush();
    let before = rows(&world);
    assert!(before.len() > 20);
    world.crash();
    world.flush();
    assert_eq!(rows(&world), before);
    world.crash();
    let sub = world.connect(&durable("sub"));
    assert_eq!(world.drain(sub).len(), 20);
    let peer = world.connect(&durable("pub"));
    for id in (1..=10).step_by(2) {
        world.pubrel(peer, id);
    }
    world.assert_nothing_left();
}

#[test]
fn messages_keep_their_packet_identifiers_and_their_order() {
    let mut world = World::new();
    let sub = world.connect(&durable("sub").with(Property::ReceiveMaximum(4)));
    world.subscribe(sub, "t", 2);
    let peer = world.connect(&publisher());
    for number in 0..8_u16 {
        let qos = 1 + (number % 2) as u8;
        world.publish(peer, message(qos, number + 1, "t", &number.to_string()));
    }
    world.settle();
    assert_eq!(world.got(sub).len(), 4);
    world.pubrec(sub, 2);
    world.settle();
    world.crash();
    let sub = world.connect(&durable("sub").with(Property::ReceiveMaximum(100)));
    assert_eq!(
        world.all(sub),
        [
            "PUBLISH #1 q1 dup t=0",
            "PUBREL #2",
            "PUBLISH #3 q1 dup t=2",
            "PUBLISH #4 q2 dup t=3",
            "PUBLISH #5 q1 dup t=4",
            "PUBLISH #6 q2 t=5",
            "PUBLISH #7 q1 dup t=6",
            "PUBLISH #8 q2 t=7",
        ]
    );
}

#[test]
fn numbers_are_never_used_twice() {
    let mut world = World::new();
    let sub = world.connect(&durable("sub"));
    world.subscribe(sub, "t", 1);
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", "m"));
    world.settle();
    world.crash();
    world.writes();
    let other = world.connect(&durable("other"));
    world.subscribe(other, "t", 1);
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", "n"));
    world.settle();
    let writes = world.writes();
    assert!(writes.contains(&"PutSession k2 other connected".to_owned()));
    assert!(writes.contains(&"PutMessage s2".to_owned()));
    let sub = world.connect(&durable("sub"));
    assert_eq!(world.drain(sub), ["PUBLISH q1 dup t=m", "PUBLISH q1 t=n"]);
    assert_eq!(world.drain(other), ["PUBLISH q1 t=n"]);
    world.assert_nothing_left();
}

#[test]
fn a_packet_identifier_two_rows_have_loses_no_message() {
    let mut world = World::new();
    let one = durable("sub").with(Property::ReceiveMaximum(2));
    let sub = world.connect(&one);
    world.subscribe(sub, "t", 2);
    let peer = world.connect(&publisher());
    world.lose(sub);
    world.publish(peer, message(1, 1, "t", "queued"));
    world.flush();
    // The row of this one says #2; there is a message without an identifier before it.
    let sub = world.connect(&one);
    assert_eq!(world.all(sub), ["PUBLISH #1 q1 t=queued"]);
    world.publish(peer, message(1, 1, "t", "live"));
    world.settle();
    assert_eq!(world.got(sub), ["PUBLISH #2 q1 t=live"]);
    world.crash();
    // Now it has lost it, and a QoS 2 message gets it.
    let sub = world.connect(&durable("sub"));
    let peer = world.connect(&publisher());
    assert_eq!(
        world.all(sub),
        ["PUBLISH #1 q1 dup t=queued", "PUBLISH #2 q1 dup t=live"]
    );
    world.puback(sub, 1);
    world.lose(sub);
    world.flush();
    world.crash();
    let sub = world.connect(&durable("sub"));
    assert_eq!(world.all(sub), ["PUBLISH #2 q1 dup t=live"]);
    let _ = peer;
}

#[test]
fn a_row_whose_packet_identifier_is_taken_gets_another() {
    let mut world = World::new();
    let sub = world.connect(&durable("sub"));
    world.subscribe(sub, "t", 2);
    let peer = world.connect(&publisher());
    for (qos, payload) in [(1, "a"), (2, "b"), (1, "c")] {
        world.publish(peer, message(qos, 5, "t", payload));
    }
    world.settle();
    // As an identifier that was given anew while the old row was still there leaves it.
    for record in world.disk.deliveries.values_mut() {
        record.packet_id = Some(packet_id(1));
    }
    world.crash();
    let sub = world.connect(&durable("sub"));
    // That of the QoS 2 message must stay, or it would arrive twice.
    let got = world.all(sub);
    assert_eq!(got.len(), 3, "{got:?}");
    assert!(got.contains(&"PUBLISH #1 q2 dup t=b".to_owned()), "{got:?}");
    let payloads: Vec<char> = got.iter().filter_map(|line| line.chars().last()).collect();
    assert_eq!(payloads, ['a', 'b', 'c']);
}

fn with_durability(default: Durability) -> Settings {
    Settings {
        durability: DurabilityRules {
            default,
            topics: Vec::new(),
        },
        ..Settings::default()
    }
}

#[test]
fn what_is_on_disk_is_delivered_and_removed_even_if_nothing_is_written_any_more() {
    let mut world = World::new();
    let sub = world.connect(&durable("sub"));
    world.subscribe(sub, "t", 2);
    let peer = world.connect(&durable("pub"));
    world.publish(peer, message(1, 1, "t", "a"));
    world.settle();
    world.lose(sub);
    world.publish(peer, message(2, 2, "t", "b"));
    world.flush();
    world.crash_with(with_durability(Durability::Memory));
    let sub = world.connect(&durable("sub"));
    assert_eq!(world.drain(sub), ["PUBLISH q1 dup t=a", "PUBLISH q2 t=b"]);
    let peer = world.connect(&durable("pub"));
    world.pubrel(peer, 2);
    world.assert_nothing_left();
}

#[test]
fn a_retained_message_on_disk_does_not_come_back_once_it_was_cleared_or_replaced_in_memory() {
    let mut world = World::new();
    let peer = world.connect(&publisher());
    for topic in ["cleared", "kept", "replaced"] {
        world.publish(peer, retained(1, 1, topic, "old"));
        world.settle();
    }
    world.crash_with(with_durability(Durability::Memory));
    let peer = world.connect(&publisher());
    world.publish(peer, retained(1, 1, "cleared", "")); // [MQTT-3.3.1-6]
    world.publish(peer, retained(1, 1, "replaced", "new"));
    world.flush();
    world.crash();
    let sub = world.connect(&client("sub"));
    assert_eq!(
        world.subscribe(sub, "#", 1),
        ["SUBACK [GrantedQos1]", "PUBLISH #1 q1 retain kept=old"]
    );
}

#[test]
fn a_durable_session_that_was_to_end_with_its_connection_leaves_no_rows() {
    let mut world = World::new();
    let sub = world.connect(&durable("sub"));
    world.subscribe(sub, "t", 1);
    world.subscribe(sub, "$share/g/t", 1);
    world.lose(sub);
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", "m"));
    world.flush();
    world.connect(&client("sub"));
    world.flush();
    world.crash();
    world.assert_nothing_left();
    assert!(world.disk.rows().is_empty(), "{:?}", world.disk.rows());
}

#[test]
fn a_session_that_is_only_there_for_its_will_is_gone_after_a_restart() {
    let mut world = World::new();
    world.connect(&client("a").will(0, "w", "gone"));
    world.crash();
    world.flush();
    assert!(world.disk.rows().is_empty());
    assert_eq!(world.broker.gauges().sessions, 0);
}

#[test]
fn groups_are_there_again_with_their_members_and_queue() {
    let mut world = World::new();
    for id in ["a", "b"] {
        let peer = world.connect(&durable(id));
        world.subscribe_as(peer, "$share/g/t", options(1), 7);
        world.lose(peer);
    }
    let peer = world.connect(&publisher());
    for number in 0..4 {
        world.publish(peer, message(1, 1, "t", &number.to_string()));
    }
    world.flush();
    world.crash();
    let restored = world.broker.gauges();
    assert_eq!((restored.subscriptions, restored.queued), (2, 4));
    let b = world.connect(&durable("b"));
    assert_eq!(world.drain(b).len(), 4);
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", "live"));
    assert_eq!(world.drain(b), ["PUBLISH q1 t=live id 7"]);
    world.assert_nothing_left();
}

#[test]
fn a_group_whose_members_are_gone_is_removed() {
    let mut world = World::new();
    let a = world.connect(&durable("a"));
    world.subscribe(a, "$share/g/t", 1);
    world.lose(a);
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", "m"));
    world.flush();
    world.disk.subscriptions.clear();
    world.crash();
    world.assert_nothing_left();
    assert!(world.disk.groups.is_empty());
}

#[test]
fn rows_without_an_owner_are_passed_over() {
    let mut world = World::new();
    let a = world.connect(&durable("a"));
    world.subscribe(a, "t", 1);
    world.subscribe(a, "$share/g/t", 1);
    world.publish(a, message(2, 1, "t", "m"));
    world.settle();
    let mut broker = Broker::new(Settings::default(), Chance::fixed(7), world.now);
    for row in world.disk.rows() {
        if !matches!(row, Write::PutSession(..) | Write::PutGroup(..)) {
            broker.restore(row);
        }
    }
    let restored = broker.finish_restore(&world.disk.resume(), world.now);
    assert_eq!((restored.sessions, restored.messages), (0, 0));
    assert!(broker.groups.len() == 0);
}

#[test]
fn the_restored_say_how_many_they_are() {
    let mut world = World::new();
    let a = world.connect(&durable("a"));
    world.subscribe(a, "t", 1);
    let b = world.connect(&durable("b"));
    world.subscribe(b, "t", 1);
    world.publish(a, message(1, 1, "t", "m"));
    world.publish(a, retained(1, 2, "r", "m"));
    world.settle();
    let mut broker = Broker::new(Settings::default(), Chance::fixed(7), world.now);
    world
        .disk
        .rows()
        .into_iter()
        .for_each(|row| broker.restore(row));
    let restored = broker.finish_restore(&world.disk.resume(), world.now);
    assert_eq!(
        restored,
        super::super::Restored {
            sessions: 2,
            messages: 2,
            retained: 1,
        }
    );
}

#[test]
fn an_empty_disk_is_a_new_broker() {
    let mut world = World::new();
    world.crash();
    let peer = world.connect(&durable("a"));
    world.subscribe(peer, "t", 1);
    assert_eq!(world.writes()[0], "PutSession k1 a connected");
}

#[test]
fn a_body_two_sessions_wait_for_stays_until_both_have_it() {
    let mut world = World::new();
    for id in ["a", "b", "c"] {
        let peer = world.connect(&durable(id));
        world.subscribe(peer, "t", 1);
        world.lose(peer);
    }
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", "m"));
    world.flush();
    world.crash();
    for id in ["a", "b", "c"] {
        let peer = world.connect(&durable(id));
        assert_eq!(world.drain(peer), ["PUBLISH q1 t=m"]);
        world.flush();
    }
    world.assert_nothing_left();
}

#[test]
fn what_is_remembered_of_a_bridge_lasts_as_long_as_its_session() {
    let bridge = super::bridge::bridge(Vec::new());
    let record = BridgeRecord {
        remote_clientid: bridge.remote_clientid.clone(),
        address: "a:1883".into(),
        separate_sessions: true,
        left: Vec::new(),
    };
    let mut world = World::new();
    world.broker.remember_bridge("cloud", record.clone());
    assert_eq!(world.broker.bridge_record("cloud"), None, "no such bridge");
    world.broker.open_bridge(&bridge, world.now);
    world.broker.remember_bridge("cloud", record.clone());
    world.flush();
    world.crash();
    world.broker.open_bridge(&bridge, world.now);
    assert_eq!(world.broker.bridge_record("cloud"), Some(&record));
    assert_eq!(world.disk.bridges.len(), 1);
    world.broker.close_bridges_except(&[], world.now);
    world.broker.drop_bridge("cloud", world.now).expect("left");
    assert_eq!(world.broker.bridge_record("cloud"), None);
    world.flush();
    assert!(world.disk.bridges.is_empty());
}

/// A message that stands at another place has the body of its first one, which stays until the last delivery at
/// any place is over.
#[test]
fn a_message_at_another_place_is_sent_with_its_body() {
    let mut world = World::new();
    let a = world.connect(&durable("a"));
    world.subscribe(a, "#", 1);
    let b = world.connect(&durable("b"));
    world.subscribe(b, "#", 1);
    world.lose(a);
    world.lose(b);
    let publisher = world.connect(&publisher());
    for at in 1..=3 {
        world.publish(publisher, message(1, at, "t", &format!("m{at}")));
    }
    world.flush();
    // The first message of b goes behind the others, and so does the third one of a.
    let deliveries = &mut world.disk.deliveries;
    let keys: Vec<(u64, u64)> = deliveries.keys().copied().collect();
    let (of_a, of_b) = (keys[0].1, keys[1].1);
    for (from, to, queue) in [(keys[0].0, 90, of_b), (keys[4].0, 91, of_a)] {
        let mut record = deliveries.remove(&(from, queue)).expect("it is there");
        record.message.body = Some(BodyId(from));
        deliveries.insert((to, queue), record);
    }
    world.crash();
    let b = world.connect(&durable("b"));
    let lines = |of: [&str; 3]| of.map(|it| format!("PUBLISH q1 t={it}"));
    assert_eq!(world.drain(b), lines(["m2", "m3", "m1"]));
    world.flush();
    assert_eq!(world.disk.messages.len(), 3, "a still needs all of them");
    let a = world.connect(&durable("a"));
    assert_eq!(world.drain(a), lines(["m1", "m2", "m3"]));
    world.assert_nothing_left();
}
