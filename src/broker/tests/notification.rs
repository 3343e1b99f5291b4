//! A bridge tells its state, here and at the upstream, and a client that is a bridge may tell its
//! own.

use super::bridge::{Bridged, bridge, rule};
use super::*;
use crate::broker::Origin;
use crate::broker::bridge::{Bridge, Direction, Login, Notifications, UpstreamProtocol};

const TOPIC: &str = "$SYS/broker/connection/edge1/state";

fn told(local_only: bool) -> Bridge {
    let notifications = Some(Notifications {
        topic: TOPIC.into(),
        local_only,
    });
    Bridge {
        notifications,
        ..bridge(vec![rule("#", Direction::Out, 1)])
    }
}

fn connect_of(bridge: &Bridge) -> Vec<String> {
    let mut out = Vec::new();
    let (origin, login) = (Origin::default(), Login::default());
    bridge.encode_connect(
        origin,
        UpstreamProtocol::V5,
        login,
        false,
        1 << 20,
        &mut out,
    );
    let packet = codec::decode(&out, ProtocolVersion::V5).expect("a CONNECT");
    let Packet::Connect(connect) = packet else {
        panic!("{packet:?}");
    };
    let will = connect.will.iter();
    will.map(|will| {
        let payload = String::from_utf8_lossy(will.payload);
        format!(
            "{}={payload} q{} {}",
            will.topic, will.qos as u8, will.retain
        )
    })
    .collect()
}

#[test]
fn the_upstream_has_a_will_and_is_told_of_both_ends() {
    assert_eq!(connect_of(&told(false)), [format!("{TOPIC}=0 q1 true")]);
    assert_eq!(connect_of(&told(true)), [""; 0]);
    assert_eq!(connect_of(&bridge(Vec::new())), [""; 0]);
    let mut b = Bridged::of(told(false));
    b.connect(super::bridge::upstream(ProtocolVersion::V5));
    let mut out = Vec::new();
    b.relay().0.notify(true, &mut out);
    b.relay().0.notify(false, &mut out);
    let shown = show(&out, ProtocolVersion::V5);
    assert_eq!(
        shown,
        [
            format!("PUBLISH retain {TOPIC}=1"),
            format!("PUBLISH retain {TOPIC}=0")
        ]
    );
}

#[test]
fn it_is_told_here_as_well_until_the_bridge_is_gone() {
    let mut b = Bridged::of(told(true));
    let watcher = b.world.connect(&client("watcher"));
    let got = b.world.subscribe(watcher, TOPIC, 0);
    assert_eq!(got.last(), Some(&format!("PUBLISH retain {TOPIC}=0")));
    let bridge = std::sync::Arc::clone(&b.bridge);
    let now = b.world.now;
    b.world.broker.set_bridge_state(&bridge, None, now);
    assert_eq!(b.world.got(watcher), [format!("PUBLISH {TOPIC}=1")]);
    b.world.broker.set_bridge_state(&bridge, Some("cut"), now);
    assert_eq!(b.world.got(watcher), [format!("PUBLISH {TOPIC}=0")]);
    b.world.broker.close_bridges_except(&[], now);
    let late = b.world.connect(&client("late"));
    let got = b.world.subscribe(late, TOPIC, 0);
    assert!(!got.iter().any(|line| line.contains("PUBLISH")), "{got:?}");
}

#[test]
fn a_client_may_tell_its_own_state_under_sys_and_nothing_else() {
    let mut world = World::new();
    let watcher = world.connect(&client("watcher"));
    world.subscribe(watcher, "$SYS/#", 0);
    world.got(watcher);
    let site = world.connect(&client("edge1").will(1, TOPIC, "0"));
    world.publish(site, retained(1, 1, TOPIC, "1"));
    world.publish(
        site,
        message(1, 2, "$SYS/broker/connection/edge2/state", "1"),
    );
    world.publish(site, message(1, 3, "$SYS/broker/uptime", "1"));
    world.settle();
    let answers = world.got(site);
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert!(
        answers[0].contains("PUBACK #1") && !answers[0].contains("Not"),
        "{answers:?}"
    );
    assert!(
        answers[1..].iter().all(|it| it.contains("NotAuthorized")),
        "{answers:?}"
    );
    assert_eq!(world.got(watcher), [format!("PUBLISH {TOPIC}=1")]);
    world.lose(site);
    world.settle();
    assert_eq!(world.got(watcher), [format!("PUBLISH {TOPIC}=0")]);
}

#[test]
fn what_an_acl_forbids_stays_forbidden() {
    let mut world = super::acl::world(&["- readwrite t"]);
    let site = world.connect(&client("edge1"));
    world.publish(site, message(1, 1, TOPIC, "1"));
    world.settle();
    let answers = world.got(site);
    assert!(answers[0].contains("NotAuthorized"), "{answers:?}");
}
