//! What a bridge does on its link: topic aliases, properties of its own, retained messages, rates, and the terms of the upstream.

use std::sync::Arc;

use super::bridge::{Bridged, bridge, rule, upstream};
use super::*;
use crate::broker::bridge::{Bridge, Direction, Leave, Rates, Relay, Rule, SendRetained, Upstream};
use crate::wire::codec::PublishHeader;
use crate::wire::packet::{Disconnect, SubAck};

fn v5() -> Upstream {
    upstream(ProtocolVersion::V5)
}

/// A connected bridge that is not as all others.
fn bridged(rules: Vec<Rule>, change: impl FnOnce(&mut Bridge)) -> Bridged {
    let mut b = Bridged::new(rules);
    b.lose();
    change(Arc::make_mut(&mut b.bridge));
    b.connect(v5());
    b.got();
    b
}

fn retaining(direction: Direction, keeps: bool, send: SendRetained) -> Rule {
    let rule = rule("r/#", direction, 1);
    rule.with_retained(keeps, send).expect("a good rule")
}

/// What the upstream gets, as bytes.
fn bytes(b: &mut Bridged) -> Vec<u8> {
    b.world.settle();
    let mut out = Vec::new();
    let (relay, broker, now) = b.relay();
    relay.take_output(broker, &mut out, now).expect("connected");
    out
}

fn suback(id: u16, codes: Vec<ReasonCode>, properties: Properties<'_>) -> Packet<'_> {
    Packet::SubAck(SubAck {
        packet_id: packet_id(id),
        properties,
        codes,
    })
}

fn last_error(b: &Bridged) -> String {
    let message = b.world.broker.retained.get("$SYS/bridge/cloud/last_error");
    let payload = message.expect("published").payload();
    String::from_utf8_lossy(payload).into_owned()
}

/// All that the upstream gets, also what is on disk only once something before it is.
fn all(b: &mut Bridged) -> Vec<String> {
    (0..4).flat_map(|_| b.got()).collect()
}

#[test]
fn topics_get_aliases_as_they_come_and_on_each_connection_anew() {
    let to = || Upstream {
        topic_alias_maximum: 2,
        ..v5()
    };
    let mut b = Bridged::to(vec![rule("#", Direction::Out, 1)], to());
    for (id, topic) in (1..).zip(["site/a", "site/b", "site/c", "site/b", "abc"]) {
        b.publish(message(1, id, topic, "x"));
    }
    let got = b.got();
    let expected = [
        "PUBLISH #1 q1 site/a=x alias 1",
        "PUBLISH #2 q1 site/b=x alias 2",
        "PUBLISH #3 q1 site/c=x",
        "PUBLISH #4 q1 =x alias 2",
        "PUBLISH #5 q1 abc=x",
    ];
    assert_eq!(got, expected);
    for id in [1, 2, 3] {
        b.hears(Packet::PubAck(success(id))).expect("taken");
    }
    // What is sent again is sent with its topic: the new connection knows no alias.
    b.lose();
    b.connect(to());
    let again = [
        "PUBLISH #4 q1 dup site/b=x alias 1",
        "PUBLISH #5 q1 dup abc=x",
    ];
    assert_eq!(b.got(), again);
    // The limit of the bridge counts as well, and MQTT 3 has none of it.
    let rules = || vec![rule("#", Direction::Out, 1)];
    let mut none = bridged(rules(), |bridge| bridge.max_topic_alias_out = 0);
    none.lose();
    none.connect(to());
    none.publish(message(1, 1, "site/a", "x"));
    assert_eq!(none.got(), ["PUBLISH #1 q1 site/a=x"]);
    let old = Upstream {
        version: ProtocolVersion::V311,
        ..to()
    };
    let mut old = Bridged::to(rules(), old);
    for id in [1, 2] {
        old.publish(message(1, id, "site/a", "x"));
    }
    let got = old.got();
    assert_eq!(got, ["PUBLISH #1 q1 site/a=x", "PUBLISH #2 q1 site/a=x"]);
}

#[test]
fn an_alias_does_not_make_a_packet_larger_than_the_upstream_takes() {
    // Fixed header 2, topic 2 + 6, packet identifier 2, property length 1, payload 1.
    for (maximum_packet_size, expected) in [
        (18, "PUBLISH #1 q1 site/a=x"),
        (19, "PUBLISH #1 q1 site/a=x alias 1"),
    ] {
        let to = Upstream {
            topic_alias_maximum: 2,
            maximum_packet_size,
            ..v5()
        };
        let mut b = Bridged::to(vec![rule("#", Direction::Out, 1)], to);
        b.publish(message(1, 1, "site/a", "x"));
        let out = bytes(&mut b);
        assert!(out.len() <= maximum_packet_size as usize);
        assert_eq!(super::show::show(&out, ProtocolVersion::V5), [expected]);
    }
}

#[test]
fn aliases_and_doing_without_marks_save_most_of_the_bytes_of_small_messages() {
    let sent = |marks, topic_alias_maximum| {
        let rules = vec![rule("#", Direction::Out, 0)];
        let mut b = Bridged::of(Bridge {
            marks,
            ..bridge(rules)
        });
        b.connect(Upstream {
            topic_alias_maximum,
            ..v5()
        });
        for n in 0..1000 {
            let topic = format!("plant7/line3/machine{:02}/temperature", n % 20);
            b.publish(message(0, 0, &topic, "21.5"));
        }
        bytes(&mut b).len()
    };
    // A topic of 34 bytes, a payload of 4 and a path of 34: 77 bytes a message become 46, and the first of each topic has 3 more.
    assert_eq!(sent(true, 0), 77_000);
    assert_eq!(sent(true, 65_535), 20 * 80 + 980 * 46);
    assert_eq!(sent(false, 65_535), 20 * 46 + 980 * 12);
}

#[test]
fn user_properties_of_the_bridge_are_added_to_what_goes_out() {
    let rules = || vec![rule("a/#", Direction::Both, 1)];
    let stamped = |bridge: &mut Bridge| {
        bridge.user_properties = vec![
            ("line".into(), "3".into()),
            ("site".into(), "plant7".into()),
        ];
    };
    let mut b = bridged(rules(), stamped);
    let own = block(&[
        Property::UserProperty("unit", "C"),
        Property::ContentType("text"),
    ]);
    let publish = Publish {
        properties: own.as_properties(),
        ..message(1, 1, "a/b", "x")
    };
    let device = b.world.connect(&client("device"));
    b.world.publish(device, publish);
    let out = bytes(&mut b);
    let Ok(Packet::Publish(sent)) = codec::decode(&out, ProtocolVersion::V5) else {
        panic!("{out:?}");
    };
    // The marks of the broker stand between both.
    let all = sent.properties.user_properties();
    let others = all.filter(|(name, _)| !name.starts_with("tidegate-"));
    let properties: Vec<(&str, &str)> = others.collect();
    assert_eq!(
        properties,
        [("unit", "C"), ("line", "3"), ("site", "plant7")]
    );
    assert_eq!(sent.properties.content_type(), Some("text"));
    // They count: 2 + 5 + 2 + 1 + 10 + 15 + 1 bytes.
    b.hears(Packet::PubAck(success(1))).expect("taken");
    for (maximum_packet_size, packets) in [(35, 0), (36, 1)] {
        b.lose();
        b.connect(Upstream {
            maximum_packet_size,
            ..v5()
        });
        b.got();
        b.publish(message(1, 2, "a/b", "x"));
        assert_eq!(b.got().len(), packets, "{maximum_packet_size}");
    }
    // In MQTT 3 there are none.
    let mut old = bridged(rules(), stamped);
    old.lose();
    old.connect(upstream(ProtocolVersion::V311));
    old.publish(message(1, 1, "a/b", "x"));
    assert_eq!(old.got(), ["PUBLISH #1 q1 a/b=x"]);
}

#[test]
fn a_rule_keeps_the_retain_flag_or_clears_it_both_ways() {
    for keeps in [true, false] {
        let mut b = Bridged::new(vec![retaining(Direction::Both, keeps, SendRetained::IfNew)]);
        b.publish(retained(1, 1, "r/out", "x"));
        let flag = if keeps { " retain" } else { "" };
        assert_eq!(b.got(), [format!("PUBLISH #1 q1{flag} r/out=x")]);
        let incoming = retained(1, 1, "r/in", "x");
        b.hears(Packet::Publish(incoming)).expect("taken");
        b.got();
        let late = b.world.connect(&client("late"));
        let got = b.world.subscribe(late, "r/in", 0);
        let shown = got.iter().filter(|line| line.starts_with("PUBLISH"));
        assert_eq!(shown.count(), usize::from(keeps));
    }
}

#[test]
fn retained_messages_go_out_when_a_rule_is_new_always_or_never() {
    let cases = [
        (SendRetained::IfNew, [1, 0]),
        (SendRetained::Always, [1, 1]),
        (SendRetained::Never, [0, 0]),
    ];
    for (send, expected) in cases {
        let mut b = Bridged::of(bridge(vec![rule("other", Direction::Out, 1)]));
        b.publish(retained(1, 1, "r/a", "x"));
        Arc::make_mut(&mut b.bridge).rules = vec![retaining(Direction::Out, true, send)];
        let now = b.world.now;
        b.world.broker.open_bridge(&b.bridge, now);
        b.world.settle();
        for (round, expected) in expected.into_iter().enumerate() {
            b.connect(v5());
            let got = all(&mut b);
            assert_eq!(got.len(), expected, "{send:?}, connection {round}: {got:?}");
            for id in 1..=expected as u16 {
                b.hears(Packet::PubAck(success(id))).expect("taken");
            }
            b.got();
            b.world.flush();
            // A restart is no new subscription.
            b.crash();
        }
        // What is retained while the rule holds goes out in any case.
        b.connect(v5());
        for id in 1..=all(&mut b).len() as u16 {
            b.hears(Packet::PubAck(success(id))).expect("taken");
        }
        b.publish(retained(1, 1, "r/b", "y"));
        assert_eq!(b.got().len(), 1, "{send:?}");
    }
}

#[test]
fn what_is_always_sent_does_not_pile_up_when_the_link_fails() {
    let mut b = bridged(vec![rule("other", Direction::Out, 1)], |_| {});
    for n in 0..5 {
        b.publish(retained(1, 1, &format!("r/{n}"), "x"));
    }
    b.lose();
    let always = retaining(Direction::Out, true, SendRetained::Always);
    Arc::make_mut(&mut b.bridge).rules = vec![always];
    let now = b.world.now;
    b.world.broker.open_bridge(&b.bridge, now);
    b.world.settle();
    for _ in 0..10 {
        b.connect(Upstream {
            receive_maximum: 2,
            ..v5()
        });
        assert_eq!(all(&mut b).len(), 2);
        b.lose();
        b.world.wait(1000);
    }
    let queued = b.world.broker.bridge_figures()[0].queued;
    assert_eq!(queued, 2, "only what is under way");
}

#[test]
fn the_upstream_is_asked_for_its_retained_messages_as_the_rules_say() {
    let rules = ["new", "always", "never"].into_iter().zip([
        SendRetained::IfNew,
        SendRetained::Always,
        SendRetained::Never,
    ]);
    let rules = rules.map(|(name, send)| {
        let rule = rule(name, Direction::In, 1);
        rule.with_retained(true, send).expect("a good rule")
    });
    let mut b = Bridged::new(rules.collect());
    // It has been subscribed to: what always sends is asked again.
    let how = "q1 no_local=true retain_as_published=true";
    assert_eq!(
        b.got(),
        [format!("SUBSCRIBE #65535 always {how} OnSubscribe")]
    );
    b.lose();
    let (broker, now) = (&mut b.world.broker, b.world.now);
    b.relay = Relay::open(Arc::clone(&b.bridge), v5(), "a:1883", false, broker, now);
    let all =
        format!("SUBSCRIBE #65535 new {how} IfNew always {how} OnSubscribe never {how} Never");
    assert_eq!(b.got(), [all]);
}

#[test]
fn a_rule_for_both_directions_cannot_always_send_what_is_retained() {
    let both = rule("#", Direction::Both, 1);
    let refused = both.with_retained(true, SendRetained::Always);
    assert!(refused.expect_err("refused").contains("older"));
}

#[test]
fn a_bridge_has_rates_of_its_own_out() {
    let rates = |bridge: &mut Bridge| {
        bridge.rates_out = Rates {
            messages: 10,
            bytes: 0,
        }
    };
    let mut b = bridged(vec![rule("#", Direction::Out, 1)], rates);
    b.world.jump(100_000);
    // Those of clients do not hold for it.
    b.world.broker.settings.limits.max_message_rate_out = 1;
    for id in 1..=30 {
        b.publish(message(1, id, "a", "x"));
    }
    let mut sent = 0;
    for _ in 0..100 {
        sent += b.got().len();
        b.world.wait(10);
    }
    // A second's worth at once, and then one each 100 ms.
    assert!((19..=21).contains(&sent), "{sent}");
    for _ in 0..2 {
        b.world.wait(1000);
        sent += b.got().len();
    }
    assert_eq!(sent, 30, "the others have waited");
}

#[test]
fn a_bridge_has_rates_of_its_own_in() {
    let rates = |bridge: &mut Bridge| {
        bridge.rates_in = Rates {
            messages: 0,
            bytes: 100,
        }
    };
    let mut b = bridged(vec![rule("#", Direction::In, 1)], rates);
    b.world.jump(100_000);
    b.world.broker.settings.limits.max_message_rate_in = 1;
    let is_ahead = |b: &mut Bridged| {
        let (relay, broker, now) = b.relay();
        assert_eq!(
            relay.is_ahead(broker, now),
            broker.should_pause(relay.connection())
        );
        relay.is_ahead(broker, now)
    };
    let payload = "x".repeat(49);
    for id in [1, 2] {
        b.hears(Packet::Publish(message(1, id, "a", &payload)))
            .expect("taken");
        assert!(!is_ahead(&mut b), "100 bytes are allowed at once");
    }
    b.hears(Packet::Publish(message(1, 3, "a", &payload)))
        .expect("taken");
    assert!(is_ahead(&mut b));
    b.world.wait(499);
    assert!(is_ahead(&mut b));
    b.world.wait(1);
    assert!(!is_ahead(&mut b));
}

#[test]
fn a_bridge_without_rates_has_none() {
    let mut b = Bridged::new(vec![rule("#", Direction::Both, 1)]);
    b.world.broker.settings.limits.max_message_rate_in = 1;
    b.world.broker.settings.limits.max_message_rate_out = 1;
    for id in 1..=10 {
        b.hears(Packet::Publish(message(1, id, "in", "x")))
            .expect("taken");
        b.publish(message(1, id, "out", "x"));
    }
    let (relay, broker, now) = b.relay();
    assert!(!relay.is_ahead(broker, now));
    let got = b.got();
    assert_eq!(
        got.iter()
            .filter(|line| line.starts_with("PUBLISH"))
            .count(),
        10
    );
}

#[test]
fn an_upstream_that_is_not_listened_to_is_not_silent() {
    let mut b = Bridged::new(vec![rule("#", Direction::Out, 1)]);
    b.publish(message(1, 1, "a", "x"));
    b.got();
    let mut out = Vec::new();
    for _ in 0..10 {
        b.world.wait(20_000);
        let (relay, _, now) = b.relay();
        relay.heard(now);
        assert_eq!(relay.tick(&mut out, now), Ok(()));
    }
    assert!(!out.is_empty(), "it still gets its PINGREQ");
    b.world.wait(30_000);
    let (relay, _, now) = b.relay();
    assert!(relay.tick(&mut out, now).is_err());
}

#[test]
fn a_message_that_is_too_large_is_acknowledged_and_told_of() {
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        let mut b = Bridged::to(vec![rule("#", Direction::In, 2)], upstream(version));
        let mut refuse = |qos, id| {
            let head = PublishHeader {
                qos: level(qos),
                topic: "big/one",
                packet_id: PacketId::new(id),
                length: 5_000_000,
            };
            let mut out = Vec::new();
            let (relay, broker, now) = b.relay();
            relay.refuse_too_large(&head, broker, &mut out, now);
            super::show::show(&out, version)
        };
        assert_eq!(refuse(0, 0), [""; 0]);
        let why = match version {
            ProtocolVersion::V5 => " ImplementationSpecificError",
            _ => "",
        };
        assert_eq!(refuse(1, 7), [format!("PUBACK #7{why}")]);
        assert_eq!(refuse(2, 8), [format!("PUBREC #8{why}")]);
        if version == ProtocolVersion::V311 {
            b.hears(Packet::PubRel(success(8))).expect("taken");
            assert_eq!(b.got(), ["PUBCOMP #8"]);
        }
        assert_eq!(b.world.broker.counters.bridge_messages_refused, 3);
        let error = last_error(&b);
        assert!(
            error.contains("\"big/one\"") && error.contains("5000000 bytes"),
            "{error}"
        );
    }
}

#[test]
fn a_receive_maximum_below_what_is_under_way_is_kept_to() {
    let mut b = Bridged::new(vec![rule("#", Direction::Out, 2)]);
    for id in 1..=5 {
        b.publish(message(
            if id == 2 { 2 } else { 1 },
            id,
            "a",
            &id.to_string(),
        ));
    }
    assert_eq!(b.got().len(), 5);
    b.lose();
    b.connect(Upstream {
        receive_maximum: 2,
        ..v5()
    });
    let got = b.got();
    assert_eq!(got, ["PUBLISH #1 q1 dup a=1", "PUBLISH #2 q2 dup a=2"]);
    b.hears(Packet::PubAck(success(1))).expect("taken");
    assert_eq!(b.got(), ["PUBLISH #3 q1 dup a=3"]);
    // PUBREC frees nothing, PUBCOMP does.
    b.hears(Packet::PubRec(success(2))).expect("taken");
    assert_eq!(b.got(), ["PUBREL #2"]);
    b.hears(Packet::PubComp(success(2))).expect("taken");
    assert_eq!(b.got(), ["PUBLISH #4 q1 dup a=4"]);
    b.hears(Packet::PubAck(success(3))).expect("taken");
    assert_eq!(b.got(), ["PUBLISH #5 q1 dup a=5"]);
}

#[test]
fn what_the_upstream_says_when_it_leaves_or_refuses_is_told() {
    let said = block(&[
        Property::ReasonString("maintenance until nine"),
        Property::ServerReference("b.example:1883"),
    ]);
    let mut b = Bridged::new(vec![rule("#", Direction::Out, 1)]);
    let disconnect = Packet::Disconnect(Disconnect {
        reason: ReasonCode::UseAnotherServer,
        properties: said.as_properties(),
    });
    let left = b.hears(disconnect).expect_err("it leaves").to_string();
    let expected = "the upstream has disconnected: UseAnotherServer (0x9C): maintenance until nine (it refers to the server b.example:1883)";
    assert_eq!(left, expected);
    let text = block(&[Property::ReasonString("not yours")]);
    let refusal = Ack {
        reason: ReasonCode::QuotaExceeded,
        properties: text.as_properties(),
        ..success(1)
    };
    let left = b.hears(Packet::PubAck(refusal)).expect_err("not now");
    assert_eq!(
        left,
        Leave::Refused("QuotaExceeded (0x97): not yours".to_owned())
    );
    let (broker, now) = (&mut b.world.broker, b.world.now);
    let rules = vec![rule("in/a", Direction::In, 1)];
    Arc::make_mut(&mut b.bridge).rules = rules;
    b.relay = Relay::open(Arc::clone(&b.bridge), v5(), "a:1883", false, broker, now);
    b.got();
    let codes = vec![ReasonCode::NotAuthorized];
    b.hears(suback(65_535, codes, text.as_properties()))
        .expect("it stays");
    let error = last_error(&b);
    assert!(
        error.contains("\"in/a\" (NotAuthorized (0x87): not yours)"),
        "{error}"
    );
}

#[test]
fn an_upstream_without_wildcards_is_not_asked_for_any() {
    let rules = vec![
        rule("in/#", Direction::In, 1),
        rule("in/a", Direction::In, 1),
    ];
    let mut b = Bridged::new(rules);
    b.lose();
    let to = Upstream {
        wildcards: false,
        ..v5()
    };
    let (broker, now) = (&mut b.world.broker, b.world.now);
    b.relay = Relay::open(Arc::clone(&b.bridge), to, "a:1883", false, broker, now);
    let how = "q1 no_local=true retain_as_published=true IfNew";
    assert_eq!(b.got(), [format!("SUBSCRIBE #65535 in/a {how}")]);
    let error = last_error(&b);
    assert!(
        error.contains("\"in/#\" (it takes no wildcards)"),
        "{error}"
    );
}
