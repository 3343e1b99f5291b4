//! Sessions that expire, connections that are silent, and the end of the process.

use super::*;

#[test]
fn a_session_expires_after_its_interval() {
    let mut world = World::new();
    let peer = world.connect(&client("a").with(Property::SessionExpiryInterval(100)));
    world.subscribe(peer, "t", 1);
    world.wait(1_000_000);
    assert_eq!(
        world.broker.gauges().sessions,
        1,
        "not while it is connected"
    );
    world.lose(peer);
    world.wait(99_999);
    assert_eq!(world.broker.gauges().sessions, 1);
    world.wait(1);
    assert_eq!(world.broker.gauges().sessions, 0);
    assert_eq!(world.broker.counters().sessions_expired, 1);
    world.flush();
    assert!(world.disk.rows().is_empty());
}

#[test]
fn a_session_that_has_expired_is_not_resumed_though_no_tick_has_ended_it() {
    // [MQTT-3.1.2-23]; a broker that has just started has had none, and the first may come late.
    let short = client("a").with(Property::SessionExpiryInterval(100));
    for (crashes, late_ms) in [(false, 0), (true, 0), (true, 500)] {
        let mut world = World::new();
        let peer = world.connect(&short);
        world.subscribe(peer, "t", 1);
        world.lose(peer);
        world.flush();
        world.jump(100_000);
        if crashes {
            world.crash();
            world.jump(late_ms);
            world.broker.tick(world.now);
        }
        let peer = world.open(&short);
        world.settle();
        assert_eq!(world.got(peer), ["CONNACK Success"]);
        assert_eq!(world.broker.counters().sessions_expired, 1);
    }
}

#[test]
fn a_reconnection_begins_the_interval_anew() {
    let mut world = World::new();
    let short = client("a").with(Property::SessionExpiryInterval(100));
    for _ in 0..5 {
        let peer = world.connect(&short);
        world.lose(peer);
        world.wait(90_000);
    }
    let peer = world.open(&short);
    world.settle();
    assert_eq!(world.got(peer), ["CONNACK present Success"]);
}

#[test]
fn a_disconnect_may_change_the_interval_but_not_from_nothing() {
    let mut world = World::new();
    let peer = world.connect(&client("a").with(Property::SessionExpiryInterval(100)));
    let longer = [Property::SessionExpiryInterval(200)];
    world.leave_with(peer, ReasonCode::Success, &longer);
    world.lose(peer);
    world.wait(199_000);
    assert_eq!(world.broker.gauges().sessions, 1);
    world.wait(1_000);
    assert_eq!(world.broker.gauges().sessions, 0);

    let peer = world.connect(&client("b"));
    world.leave_with(peer, ReasonCode::Success, &longer);
    assert_eq!(world.got(peer), ["DISCONNECT ProtocolError"]); // [MQTT-3.14.2-2]

    let peer = world.connect(&durable("c"));
    let never = [Property::SessionExpiryInterval(0)];
    world.leave_with(peer, ReasonCode::Success, &never);
    world.lose(peer);
    assert_eq!(world.broker.gauges().sessions, 0);
    world.flush();
    assert!(world.disk.rows().is_empty());
}

#[test]
fn an_expiry_goes_on_counting_across_a_restart() {
    let mut world = World::new();
    for id in ["a", "b", "c"] {
        let peer = world.connect(&client(id).with(Property::SessionExpiryInterval(100)));
        if id != "c" {
            world.lose(peer);
        }
        if id == "a" {
            world.wait(50_000);
        }
    }
    world.flush();
    world.jump(50_000);
    world.crash();
    world.broker.tick(world.now);
    assert_eq!(world.broker.gauges().sessions, 2, "that of a has expired");
    world.wait(50_000);
    assert_eq!(world.broker.gauges().sessions, 1, "that of b too");
    // c was connected when the process died: its time begins with the new one.
    world.wait(49_999);
    assert_eq!(world.broker.gauges().sessions, 1);
    world.wait(1);
    assert_eq!(world.broker.gauges().sessions, 0);
    world.flush();
    assert!(world.disk.rows().is_empty());
}

#[test]
fn persistent_client_expiration_bounds_every_session() {
    let mut world = World::with(limited(Limits {
        persistent_client_expiration: 60,
        ..Limits::default()
    }));
    let old = client("old").version(ProtocolVersion::V311);
    for client in [durable("new"), old] {
        let peer = world.connect(&client);
        world.lose(peer);
    }
    world.wait(60_000);
    assert_eq!(world.broker.gauges().sessions, 0);
    // A DISCONNECT cannot set a longer one.
    let peer = world.connect(&durable("new"));
    let longer = [Property::SessionExpiryInterval(u32::MAX)];
    world.leave_with(peer, ReasonCode::Success, &longer);
    world.lose(peer);
    world.wait(60_000);
    assert_eq!(world.broker.gauges().sessions, 0);
}

#[test]
fn a_silent_client_is_disconnected_after_one_and_a_half_times_its_keep_alive() {
    let mut world = World::new();
    let peer = world.connect(&client("a").keep_alive(100));
    world.wait(149_999);
    world.ping(peer);
    assert_eq!(world.got(peer), ["PINGRESP"]);
    world.wait(149_999);
    assert_eq!(world.got(peer), [""; 0]);
    world.wait(1);
    assert_eq!(world.got(peer), ["DISCONNECT KeepAliveTimeout"]); // [MQTT-3.1.2-22]
    assert_eq!(world.broker.counters().keep_alive_timeouts, 1);
    let patient = world.connect(&client("b"));
    world.wait(100_000_000);
    world.ping(patient);
    assert_eq!(world.got(patient), ["PINGRESP"]);
}

#[test]
fn a_connection_without_connect_is_closed_in_time() {
    let mut world = World::new();
    let peer = world.accept(ProtocolVersion::V5);
    world.wait(9_999);
    assert!(!world.closes(peer));
    world.wait(1);
    assert!(world.closes(peer));
    assert_eq!(world.broker.counters().connect_timeouts, 1);
    // The timer of a connection that is gone does nothing to the next one in its place.
    world.lose(peer);
    let early = world.accept(ProtocolVersion::V5);
    world.wait(5_000);
    world.lose(early);
    let late = world.accept(ProtocolVersion::V5);
    assert_eq!(late, early);
    world.wait(5_000);
    assert!(!world.closes(late));
}

#[test]
fn shutting_down_tells_all_clients_and_keeps_what_it_must() {
    let mut world = World::new();
    let keeper = world.connect(&durable("keeper"));
    world.subscribe(keeper, "t", 1);
    let new = world.accept(ProtocolVersion::V5);
    let old = world.connect(&publisher());
    world.publish(old, message(1, 1, "t", "m"));
    world.broker.shut_down(world.now);
    assert_eq!(world.got(keeper), ["DISCONNECT ServerShuttingDown"]);
    assert_eq!(world.got(old), [""; 0]);
    for peer in [keeper, new, old] {
        assert!(world.closes(peer));
        world.lose(peer);
    }
    let access = Access {
        allow_anonymous: true,
        ..Access::default()
    };
    assert!(world.broker.accept(access, world.now).is_none());
    assert_eq!(world.broker.counters().connections_refused, 1);
    world.flush();
    assert!(world.broker.is_settled());
    world.crash();
    let keeper = world.connect(&durable("keeper"));
    assert_eq!(world.drain(keeper), ["PUBLISH q1 dup t=m"]);
    world.assert_nothing_left();
}

#[test]
fn a_connect_that_comes_while_shutting_down_is_refused() {
    let mut world = World::new();
    let peer = world.connect(&client("a"));
    let _ = peer;
    let late = world.accept(ProtocolVersion::V5);
    world.broker.shut_down(world.now);
    world.send(late, Packet::PingReq);
    assert_eq!(world.got(late), [""; 0]);
    assert!(world.closes(late));
}
