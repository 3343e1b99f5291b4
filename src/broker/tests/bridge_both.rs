//! Rules for both directions: which of two retained values wins, and an upstream that returns what
//! it gets.

use super::bridge::{Bridged, bridge, rule, upstream};
use super::*;
use crate::broker::bridge::{Direction, Upstream};
use crate::wire::packet::SubAck;

fn both() -> Bridged {
    Bridged::of(bridge(vec![rule("r/#", Direction::Both, 1)]))
}

fn suback(b: &mut Bridged, line: &str) {
    let id = line
        .split_once('#')
        .and_then(|(_, rest)| rest.split(' ').next());
    let id = id.and_then(|id| id.parse().ok()).expect("an identifier");
    b.hears(Packet::SubAck(SubAck {
        packet_id: packet_id(id),
        properties: Properties::EMPTY,
        codes: vec![ReasonCode::GrantedQos1],
    }))
    .expect("taken");
}

fn retained_here(b: &Bridged) -> String {
    let message = b.world.broker.retained.get("r/a").expect("retained");
    String::from_utf8_lossy(message.payload()).into_owned()
}

#[test]
fn in_3_1_1_what_the_upstream_retains_is_asked_for_behind_what_waits() {
    let mut b = both();
    b.publish(retained(1, 1, "r/a", "new"));
    // The process may have been another one.
    b.world.flush();
    b.crash();
    b.connect_anew(upstream(ProtocolVersion::V311));
    assert_eq!(b.got(), ["PUBLISH #1 q1 retain r/a=new"]);
    assert!(!b.relay().0.has_all_subscriptions());
    // What is published meanwhile does not put it off.
    b.publish(message(1, 2, "r/b", "x"));
    assert_eq!(b.got(), ["PUBLISH #2 q1 r/b=x"]);
    b.hears(Packet::PubAck(success(1))).expect("taken");
    let got = b.got();
    assert!(got.len() == 1 && got[0].starts_with("SUBSCRIBE"), "{got:?}");
    suback(&mut b, &got[0]);
    assert!(b.relay().0.has_all_subscriptions());
    b.hears(Packet::Publish(retained(1, 7, "r/a", "new")))
        .expect("taken");
    assert_eq!(retained_here(&b), "new");
    // Nothing waits: it is asked for at once.
    b.hears(Packet::PubAck(success(2))).expect("taken");
    b.lose();
    b.connect_anew(upstream(ProtocolVersion::V311));
    assert!(b.got()[0].starts_with("SUBSCRIBE"));
}

#[test]
fn in_mqtt_5_a_session_that_is_new_is_subscribed_to_twice() {
    let mut b = both();
    b.publish(retained(1, 1, "r/a", "new"));
    b.connect_anew(Upstream {
        session_present: false,
        ..upstream(ProtocolVersion::V5)
    });
    let got = b.got();
    assert!(got.len() == 1 && got[0].ends_with("Never"), "{got:?}");
    suback(&mut b, &got[0]);
    assert_eq!(b.got(), ["PUBLISH #1 q1 retain r/a=new"]);
    b.hears(Packet::PubAck(success(1))).expect("taken");
    let got = b.got();
    assert!(got.len() == 1 && got[0].ends_with("OnSubscribe"), "{got:?}");
    suback(&mut b, &got[0]);
    assert!(b.relay().0.has_all_subscriptions());
    assert_eq!(b.got(), [""; 0]);
}

#[test]
fn a_retained_message_that_comes_in_while_one_waits_to_go_out_is_not_taken() {
    let mut b = both();
    b.connect_anew(upstream(ProtocolVersion::V5));
    let got = b.got();
    suback(&mut b, &got[0]);
    b.publish(retained(1, 1, "r/a", "newer"));
    assert_eq!(b.got(), ["PUBLISH #1 q1 retain r/a=newer"]);
    let old = retained(1, 7, "r/a", "older");
    assert_eq!(
        b.hears(Packet::Publish(old)),
        Ok(vec!["PUBACK #7".to_owned()])
    );
    assert_eq!(retained_here(&b), "newer");
    // Another topic, one that is not retained, and later ones are.
    b.hears(Packet::Publish(retained(1, 8, "r/b", "x")))
        .expect("taken");
    b.hears(Packet::PubAck(success(1))).expect("taken");
    b.hears(Packet::Publish(retained(1, 9, "r/a", "newest")))
        .expect("taken");
    assert_eq!(retained_here(&b), "newest");
    assert!(b.world.broker.retained.get("r/b").is_some());
}
