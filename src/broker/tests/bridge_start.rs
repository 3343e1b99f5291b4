//! Bridges that are not always connected, and bridges whose sessions end with their connections.

use super::bridge::{Bridged, bridge, rule, upstream};
use super::*;
use crate::broker::Origin;
use crate::broker::bridge::{Bridge, Direction, Login, UpstreamProtocol};

fn clean() -> Bridge {
    Bridge {
        clean_session: true,
        ..bridge(vec![rule("up/#", Direction::Out, 2)])
    }
}

#[test]
fn a_clean_session_lasts_as_long_as_its_connection_on_both_sides() {
    let mut b = Bridged::of(clean());
    b.publish(message(1, 1, "up/a", "before"));
    assert_eq!(b.world.broker.bridge_queued("cloud"), 0, "nobody waits");
    for round in 0..3 {
        b.connect(upstream(ProtocolVersion::V5));
        b.publish(message(1, 1, "up/a", "now"));
        b.publish(message(2, 2, "up/a", "two"));
        let got = b.got();
        assert_eq!(got, ["PUBLISH #1 q1 up/a=now", "PUBLISH #2 q2 up/a=two"]);
        b.world.settle();
        match round {
            0 => b.lose(),
            1 => b.crash(),
            _ => {
                b.hears(Packet::PubAck(success(1))).expect("taken");
                b.lose();
            }
        }
        b.world.settle();
        assert_eq!(b.world.broker.bridge_queued("cloud"), 0);
        b.publish(message(1, 1, "up/a", "while it is away"));
    }
    b.world.flush();
    b.world.assert_nothing_left();
}

#[test]
fn a_clean_session_is_asked_for_at_the_upstream() {
    for protocol in [UpstreamProtocol::V5, UpstreamProtocol::V311Bridge] {
        let asked = |bridge: &Bridge| {
            let mut out = Vec::new();
            let (origin, login) = (Origin::default(), Login::default());
            bridge.encode_connect(origin, protocol, login, false, 1 << 20, &mut out);
            let packet = codec::decode(&out, protocol.version()).expect("a CONNECT");
            let Packet::Connect(connect) = packet else {
                panic!("{packet:?}");
            };
            let expiry = connect.properties.session_expiry();
            (connect.clean_start, expiry.unwrap_or(0))
        };
        assert_eq!(asked(&clean()), (true, 0));
        let kept = asked(&bridge(Vec::new()));
        assert!(!kept.0);
        assert_eq!(kept.1 > 0, protocol == UpstreamProtocol::V5);
    }
}

#[test]
fn a_bridge_is_idle_when_nothing_waits_and_nothing_is_under_way() {
    let mut b = Bridged::new(vec![rule("up/#", Direction::Out, 1)]);
    b.got();
    let since = |b: &Bridged| {
        let relay = b.relay.as_ref().expect("connected");
        relay.idle_since(&b.world.broker)
    };
    assert_eq!(since(&b), Some(b.world.now.uptime));
    b.world.jump(5_000);
    b.publish(message(1, 1, "up/a", "x"));
    assert_eq!(since(&b), None, "it waits");
    assert_eq!(b.world.broker.bridge_queued("cloud"), 1);
    b.got();
    assert_eq!(since(&b), None, "it is under way");
    b.world.jump(1_000);
    b.hears(Packet::PubAck(success(1))).expect("taken");
    let answered = b.world.now.uptime;
    b.world.jump(70_000);
    b.hears(Packet::PingResp).expect("taken");
    assert_eq!(since(&b), Some(answered), "pings do not count");
}
