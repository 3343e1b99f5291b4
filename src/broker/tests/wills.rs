//! Wills: when they are published, when not, and only once (MQTT 5 section 3.1.2.5).

use super::*;

fn world_with_heir() -> (World, Peer) {
    let mut world = World::new();
    let heir = world.connect(&durable("heir"));
    world.subscribe(heir, "w", 2);
    (world, heir)
}

fn delayed(seconds: u32) -> Client {
    durable("a")
        .will(1, "w", "gone")
        .will_with(Property::WillDelayInterval(seconds))
}

#[test]
fn a_connection_that_is_lost_publishes_its_will() {
    let (mut world, heir) = world_with_heir();
    for qos in 0..3 {
        let peer = world.connect(&client("a").will(qos, "w", "gone"));
        world.lose(peer);
    }
    assert_eq!(
        world.drain(heir),
        ["PUBLISH w=gone", "PUBLISH q1 w=gone", "PUBLISH q2 w=gone"]
    );
    assert_eq!(world.broker.counters().wills_published, 3);
    world.assert_nothing_left();
    assert!(world.disk.wills.is_empty());
}

#[test]
fn a_client_that_takes_its_leave_has_no_will() {
    let (mut world, heir) = world_with_heir();
    let peer = world.connect(&durable("a").will(1, "w", "gone"));
    world.leave(peer);
    world.wait(100_000);
    world.flush();
    world.crash();
    let heir_again = world.connect(&durable("heir"));
    assert_eq!(world.drain(heir_again), [""; 0]); // [MQTT-3.14.4-3]
    let _ = heir;
}

#[test]
fn a_disconnect_with_will_and_one_with_an_error_publish_it() {
    let (mut world, heir) = world_with_heir();
    let reasons = [ReasonCode::DisconnectWithWill, ReasonCode::UnspecifiedError];
    for reason in reasons {
        let peer = world.connect(&client("a").will(1, "w", "gone"));
        world.leave_with(peer, reason, &[]);
        world.lose(peer);
        assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone"]);
    }
}

#[test]
fn a_protocol_error_and_a_keep_alive_timeout_publish_it() {
    let (mut world, heir) = world_with_heir();
    let peer = world.connect(&client("a").will(1, "w", "gone"));
    world.send(peer, Packet::PingResp);
    world.lose(peer);
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone"]);
    let peer = world.connect(&client("a").will(1, "w", "gone").keep_alive(10));
    world.wait(14_999);
    assert_eq!(world.drain(heir), [""; 0]);
    world.wait(1);
    assert_eq!(world.got(peer), ["DISCONNECT KeepAliveTimeout"]);
    world.lose(peer);
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone"]);
}

#[test]
fn a_delayed_will_waits_and_is_published_once() {
    let (mut world, heir) = world_with_heir();
    let peer = world.connect(&delayed(10));
    world.lose(peer);
    world.wait(9_999);
    assert_eq!(world.drain(heir), [""; 0]);
    world.wait(1);
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone"]);
    world.wait(100_000);
    assert_eq!(world.drain(heir), [""; 0]);
}

#[test]
fn a_client_that_comes_back_in_time_has_not_gone() {
    let (mut world, heir) = world_with_heir();
    let peer = world.connect(&delayed(10));
    world.lose(peer);
    world.wait(9_000);
    let peer = world.connect(&durable("a")); // [MQTT-3.1.3-9]
    world.wait(100_000);
    assert_eq!(world.drain(heir), [""; 0]);
    world.flush();
    assert!(world.disk.wills.is_empty());
    world.lose(peer);
    world.wait(100_000);
    assert_eq!(world.drain(heir), [""; 0], "its new connection had no will");
}

#[test]
fn a_will_does_not_outlast_its_session() {
    let (mut world, heir) = world_with_heir();
    let short = client("a")
        .with(Property::SessionExpiryInterval(5))
        .will(1, "w", "gone")
        .will_with(Property::WillDelayInterval(10));
    let peer = world.connect(&short);
    world.lose(peer);
    world.wait(4_999);
    assert_eq!(world.drain(heir), [""; 0]);
    world.wait(1);
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone"]);
    // A session that ends with its connection, or by a clean start, does not wait.
    let at_once = client("a")
        .will(1, "w", "gone")
        .will_with(Property::WillDelayInterval(10));
    let peer = world.connect(&at_once);
    world.lose(peer);
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone"]);
    let peer = world.connect(&delayed(10));
    world.lose(peer);
    world.connect(&durable("a").clean());
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone"]);
}

#[test]
fn a_take_over_publishes_a_will_without_delay_and_not_one_with() {
    let (mut world, heir) = world_with_heir();
    let first = world.connect(&durable("a").will(1, "w", "first"));
    let second = world.connect(&delayed(10));
    world.lose(first);
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=first"]);
    let third = world.connect(&durable("a"));
    world.lose(second);
    world.wait(100_000);
    assert_eq!(world.drain(heir), [""; 0]);
    assert_eq!(world.broker.counters().takeovers, 2);
    let _ = third;
}

#[test]
fn a_wills_expiry_begins_when_it_is_published() {
    let (mut world, heir) = world_with_heir();
    let client = delayed(10).will_with(Property::MessageExpiryInterval(5));
    let peer = world.connect(&client);
    world.wait(60_000);
    world.lose(peer);
    world.wait(10_000);
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone expiry 5"]);
}

#[test]
fn a_retained_will_is_retained() {
    let (mut world, _) = world_with_heir();
    let peer = world.connect(&client("a").will(1, "w", "gone").retained_will());
    world.lose(peer);
    let late = world.connect(&client("late"));
    assert_eq!(
        world.subscribe(late, "w", 0),
        ["SUBACK [Success]", "PUBLISH retain w=gone"]
    );
}

#[test]
fn a_process_that_dies_publishes_the_wills_of_those_who_were_connected() {
    let (mut world, heir) = world_with_heir();
    world.lose(heir);
    world.connect(&client("transient").will(1, "w", "transient"));
    world.connect(&durable("b").will(1, "w", "durable"));
    let peer = world.connect(&durable("c").will(1, "w", "left"));
    world.leave(peer);
    world.connect(&delayed(10));
    world.flush();
    world.crash();
    let heir = world.connect(&durable("heir"));
    let mut got = world.drain(heir);
    got.sort();
    assert_eq!(got, ["PUBLISH q1 w=durable", "PUBLISH q1 w=transient"]);
    world.wait(10_000);
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone"]);
    world.flush();
    assert!(world.disk.wills.is_empty());
    world.crash();
    let heir = world.connect(&durable("heir"));
    world.wait(100_000);
    assert_eq!(world.drain(heir), [""; 0], "once");
    world.assert_nothing_left();
}

#[test]
fn a_delay_goes_on_counting_across_a_restart() {
    let (mut world, heir) = world_with_heir();
    let peer = world.connect(&delayed(10));
    world.lose(peer);
    world.lose(heir);
    world.flush();
    world.jump(4_000);
    world.crash();
    let heir = world.connect(&durable("heir"));
    world.wait(5_999);
    assert_eq!(world.drain(heir), [""; 0]);
    world.wait(1);
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone"]);
}

#[test]
fn a_delay_that_ended_while_no_process_ran_is_over() {
    let (mut world, heir) = world_with_heir();
    let peer = world.connect(&delayed(10));
    world.lose(peer);
    world.lose(heir);
    world.flush();
    world.jump(40_000);
    world.crash();
    world.broker.tick(world.now);
    let heir = world.connect(&durable("heir"));
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone"]);
}

#[test]
fn a_will_on_a_topic_of_the_brokers_own_is_refused() {
    let mut world = World::new();
    let peer = world.open(
        &client("a")
            .will(0, "$SYS/broker/version", "mine")
            .retained_will(),
    );
    world.settle();
    assert_eq!(world.got(peer), ["CONNACK NotAuthorized"]);
    world.lose(peer);
    assert!(world.broker.retained.get("$SYS/broker/version").is_none());
}

#[test]
fn a_will_is_checked_as_a_publish_is() {
    let settings = limited(Limits {
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        max_topic_levels: 2,
        ..Limits::default()
    });
    let mut world = World::with(settings);
    let refused = [
        (client("a").will(2, "w", ""), "QosNotSupported"),
        (
            client("a").will(1, "w", "").retained_will(),
            "RetainNotSupported",
        ),
        (client("a").will(1, "a/b/c", ""), "TopicNameInvalid"),
    ];
    for (client, reason) in refused {
        let peer = world.open(&client);
        assert_eq!(world.got(peer), [format!("CONNACK {reason}")]);
        assert!(world.closes(peer));
    }
}
