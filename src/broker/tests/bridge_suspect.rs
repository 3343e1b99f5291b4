//! Bridges whose upstream closes the connection on one message or one filter.

use super::bridge::{Bridged, rule};
use super::*;
use crate::broker::bridge::Direction;

#[test]
fn a_topic_with_a_control_character_is_refused_to_the_upstream_and_goes_out_if_it_is_stored() {
    let mut b = Bridged::new(vec![rule("#", Direction::Both, 2)]);
    let bad = "a\u{1}";
    b.hears(Packet::Publish(message(1, 1, bad, "x")))
        .expect("taken");
    assert_eq!(b.got(), ["PUBACK #1 TopicNameInvalid"]);
    let parts = crate::broker::message::Parts {
        topic: bad,
        properties: Properties::EMPTY,
        payload: b"old",
        qos: QoS::AtLeastOnce,
        retain: false,
        expires: None,
        id: None,
    };
    b.world.broker.publish(&parts, None);
    assert_eq!(b.got(), ["PUBLISH #1 q1 a\u{1}=old"]);
}
