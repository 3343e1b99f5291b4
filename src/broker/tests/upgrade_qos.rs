//! `upgrade_outgoing_qos`: deliveries at the QoS that was granted, whatever they were published
//! with.

use super::*;

fn upgrading() -> World {
    World::with(Settings {
        upgrade_outgoing_qos: true,
        ..Settings::default()
    })
}

#[test]
fn each_subscriber_gets_what_it_was_granted() {
    let mut world = upgrading();
    let publisher = world.connect(&publisher());
    let subscribers: Vec<Peer> = ["zero", "one", "two"]
        .into_iter()
        .enumerate()
        .map(|(qos, id)| {
            let peer = world.connect(&client(id));
            world.subscribe(peer, "t", qos as u8);
            peer
        })
        .collect();
    let member = world.connect(&client("member"));
    world.subscribe(member, "$share/g/t", 2);
    for published in 0..3 {
        world.publish(publisher, message(published, 1, "t", "m"));
        world.pubrel(publisher, 1);
        let expected = ["PUBLISH t=m", "PUBLISH q1 t=m", "PUBLISH q2 t=m"];
        for (peer, line) in subscribers.iter().zip(expected) {
            assert_eq!(world.drain(*peer), [line], "published at QoS {published}");
        }
        assert_eq!(world.drain(member), ["PUBLISH q2 t=m"]);
    }
    world.assert_nothing_left();
    // Without it, and at once: no more than it was published with [MQTT-3.8.4-8].
    world.broker.upgrade_outgoing_qos(false);
    world.publish(publisher, message(0, 1, "t", "m"));
    for peer in subscribers {
        assert_eq!(world.drain(peer), ["PUBLISH t=m"]);
    }
}

#[test]
fn what_was_published_at_qos_0_waits_and_survives_for_those_who_were_granted_more() {
    let mut world = upgrading();
    let away = world.connect(&durable("away"));
    world.subscribe(away, "t", 1);
    world.subscribe(away, "$share/g/s", 1);
    world.lose(away);
    let publisher = world.connect(&publisher());
    world.publish(publisher, message(0, 1, "t", "m"));
    world.publish(publisher, message(0, 1, "s", "m"));
    world.flush();
    world.crash_with(Settings::default());
    let away = world.connect(&durable("away"));
    assert_eq!(world.drain(away), ["PUBLISH q1 t=m", "PUBLISH q1 s=m"]);
    world.assert_nothing_left();
}

#[test]
fn what_is_retained_is_shown_as_it_was_granted_and_stays_as_it_was_published() {
    let mut world = upgrading();
    let publisher = world.connect(&publisher());
    world.publish(publisher, retained(0, 1, "t", "m"));
    world.flush();
    let shown = |world: &mut World| {
        let peer = world.connect(&client("sub").clean());
        let mut got = world.subscribe(peer, "t", 2);
        got.extend(world.drain(peer));
        world.leave(peer);
        got.last().cloned()
    };
    assert_eq!(
        shown(&mut world).as_deref(),
        Some("PUBLISH #1 q2 retain t=m")
    );
    world.crash_with(Settings::default());
    assert_eq!(shown(&mut world).as_deref(), Some("PUBLISH retain t=m"));
}

#[test]
fn without_room_for_more_it_goes_out_as_it_was_published() {
    let mut world = upgrading();
    let there = world.connect(&client("there"));
    world.subscribe(there, "t", 0);
    let away = world.connect(&durable("away"));
    world.subscribe(away, "t", 1);
    world.lose(away);
    world.flush();
    let publisher = world.connect(&publisher());
    world.broker.set_room(0, false);
    world.publish(publisher, message(0, 1, "t", "m"));
    assert_eq!(world.drain(there), ["PUBLISH t=m"]);
    let away = world.connect(&durable("away"));
    assert_eq!(world.drain(away), [""; 0]);
    world.assert_nothing_left();
}

#[test]
fn what_the_broker_says_of_itself_stays_at_qos_0() {
    let mut world = World::with(Settings {
        upgrade_outgoing_qos: true,
        sys_interval_ms: 1000,
        ..Settings::default()
    });
    let peer = world.connect(&client("sub"));
    world.subscribe(peer, "$SYS/broker/version", 2);
    world.wait(3000);
    let got = world.drain(peer);
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(got[0].starts_with("PUBLISH $SYS") || got[0].starts_with("PUBLISH retain $SYS"));
}
