//! Mount points: clients of a listener live below a topic, and do not see it.

use super::*;

/// A connection through a listener with this mount point.
fn tenant(mount_point: &str) -> Arrival {
    Arrival::from(Access {
        allow_anonymous: true,
        mount_point: mount_point.into(),
        ..Access::default()
    })
}

fn connect_at(world: &mut World, mount_point: &str, client: &Client) -> Peer {
    world.arrival = tenant(mount_point);
    world.connect(client)
}

#[test]
fn clients_of_a_mount_point_see_each_other_and_nobody_else() {
    let mut world = World::new();
    let one = connect_at(&mut world, "one/", &client("1"));
    let two = connect_at(&mut world, "two/", &client("2"));
    let all = connect_at(&mut world, "", &client("0"));
    for peer in [one, two, all] {
        world.subscribe(peer, "#", 2);
    }
    let publisher = connect_at(&mut world, "one/", &publisher());
    for qos in 0..3 {
        world.publish(publisher, message(qos, 5, "a/b", "x"));
    }
    world.settle();
    assert_eq!(
        world.drain(one),
        ["PUBLISH a/b=x", "PUBLISH q1 a/b=x", "PUBLISH q2 a/b=x"]
    );
    assert_eq!(
        world.drain(all),
        [
            "PUBLISH one/a/b=x",
            "PUBLISH q1 one/a/b=x",
            "PUBLISH q2 one/a/b=x"
        ]
    );
    assert_eq!(world.drain(two), [""; 0]);
    world.publish(all, message(0, 0, "two/c", "y"));
    assert_eq!(world.got(two), ["PUBLISH c=y"]);
    assert_eq!(world.got(one), [""; 0]);
    // The topic that the mount point itself would be is above it.
    world.publish(all, message(0, 0, "two", "y"));
    assert_eq!(world.got(two), [""; 0]);
}

#[test]
fn a_frame_made_for_one_client_is_not_sent_to_another_who_calls_the_topic_otherwise() {
    let mut world = World::new();
    let mut peers = Vec::new();
    for (mount_point, id) in [("", "a"), ("m/", "b"), ("", "c"), ("m/n/", "d")] {
        let peer = connect_at(
            &mut world,
            mount_point,
            &client(id).version(ProtocolVersion::V311).clean(),
        );
        world.subscribe(peer, "#", 0);
        peers.push(peer);
    }
    world.publish(peers[0], message(0, 0, "m/n/t", "x"));
    let got: Vec<Vec<String>> = peers.iter().map(|peer| world.got(*peer)).collect();
    assert_eq!(
        got.concat(),
        [
            "PUBLISH m/n/t=x",
            "PUBLISH n/t=x",
            "PUBLISH m/n/t=x",
            "PUBLISH t=x"
        ]
    );
}

#[test]
fn retained_messages_wills_aliases_and_shared_subscriptions_stay_below_it() {
    let mut world = World::new();
    let all = connect_at(&mut world, "", &client("all"));
    world.subscribe(all, "#", 1);
    let heir = connect_at(
        &mut world,
        "m/",
        &client("heir").with(Property::TopicAliasMaximum(2)),
    );
    world.subscribe(heir, "w", 1);
    let peer = connect_at(&mut world, "m/", &client("a").will(1, "w", "gone"));
    world.publish_with(peer, retained(1, 1, "r", "x"), &[Property::TopicAlias(1)]);
    world.publish_with(peer, retained(1, 1, "", "y"), &[Property::TopicAlias(1)]);
    world.all(peer);
    assert_eq!(world.drain(all), ["PUBLISH q1 m/r=x", "PUBLISH q1 m/r=y"]);
    assert_eq!(
        world.subscribe(peer, "r", 0),
        ["SUBACK [Success]", "PUBLISH retain r=y"]
    );
    assert_eq!(
        world.subscribe(peer, "$share/g/s/#", 0),
        ["SUBACK [Success]"]
    );
    world.publish(all, message(0, 0, "m/s/1", "x"));
    world.publish(all, message(0, 0, "s/1", "x"));
    assert_eq!(world.got(peer), ["PUBLISH s/1=x"]);
    world.unsubscribe(peer, "$share/g/s/#");
    world.unsubscribe(peer, "r");
    world.unsubscribe(peer, "m/r");
    assert_eq!(
        world.got(peer),
        [
            "UNSUBACK [Success]",
            "UNSUBACK [Success]",
            "UNSUBACK [NoSubscriptionExisted]"
        ]
    );
    world.lose(peer);
    assert_eq!(world.drain(heir), ["PUBLISH q1 w=gone alias 1"]);
}

#[test]
fn the_brokers_own_topics_are_above_it() {
    let mut world = World::with(Settings {
        sys_interval_ms: 1000,
        ..Settings::default()
    });
    world.wait(2000);
    let peer = connect_at(&mut world, "m/", &client("a"));
    assert_eq!(world.subscribe(peer, "$SYS/#", 0), ["SUBACK [Success]"]);
    world.publish(peer, message(1, 1, "$SYS/x", "x"));
    assert_eq!(world.all(peer), ["PUBACK #1 NotAuthorized"]);
}

#[test]
fn rules_see_the_whole_topic() {
    let mut world = World::new();
    let mut list = super::super::Acl::default();
    list.user(None)
        .add_topic(super::super::Permission::ReadWrite, "m/ok/#")
        .expect("a filter");
    world
        .broker
        .set_acl(Some(std::sync::Arc::new(list)), world.now);
    let peer = connect_at(&mut world, "m/", &client("a"));
    assert_eq!(world.subscribe(peer, "ok/#", 0), ["SUBACK [Success]"]);
    assert_eq!(world.subscribe(peer, "#", 0), ["SUBACK [NotAuthorized]"]);
    world.publish(peer, message(1, 1, "m/ok/1", "x"));
    world.publish(peer, message(1, 2, "ok/1", "x"));
    assert_eq!(
        world.all(peer),
        ["PUBACK #1 NotAuthorized", "PUBLISH ok/1=x", "PUBACK #2"]
    );
}

#[test]
fn a_sessions_subscriptions_wait_for_their_own_mount_point() {
    let mut world = World::new();
    let peer = connect_at(&mut world, "one/", &durable("a"));
    world.subscribe(peer, "#", 1);
    world.lose(peer);
    let all = connect_at(&mut world, "", &publisher());
    world.publish(all, message(1, 1, "one/t", "before"));
    world.settle();
    let peer = connect_at(&mut world, "two/", &durable("a"));
    world.publish(all, message(1, 1, "one/t", "after"));
    assert_eq!(world.drain(peer), [""; 0]);
    world.lose(peer);
    let peer = connect_at(&mut world, "one/", &durable("a"));
    world.publish(all, message(1, 1, "one/t", "again"));
    let expected = ["PUBLISH q1 t=before", "PUBLISH q1 t=again"];
    assert_eq!(world.drain(peer), expected);
    world.assert_nothing_left();
}

#[test]
fn a_topic_must_fit_with_its_mount_point() {
    let mut world = World::with(limited(Limits {
        max_topic_length: 8,
        ..Limits::default()
    }));
    let peer = connect_at(&mut world, "mount/", &client("a"));
    assert_eq!(world.subscribe(peer, "ab", 0), ["SUBACK [Success]"]);
    assert_eq!(
        world.subscribe(peer, "abc", 0),
        ["SUBACK [TopicFilterInvalid]"]
    );
    world.publish(peer, message(0, 0, "abc", "x"));
    assert_eq!(world.got(peer), ["DISCONNECT TopicNameInvalid"]);
}
