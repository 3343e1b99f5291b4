//! Malformed and illegal packets of MQTT 5 after CONNECT, each with the reason code that answers
//! it.
//!
//! Where the standard names the code, one code is accepted. Where it only says that a packet is not
//! allowed, and either 0x81 or 0x82 can be defended, both are.

use support::raw::{concat, frame, length, publish5, string, subscribe5};
use support::{Broker, Connect, Version};

/// Sends bytes on an established connection, which must end with a DISCONNECT that has one of these
/// reasons.
fn ends(broker: &Broker, what: &str, bytes: &[u8], reasons: &[u8]) {
    println!("{what}: {bytes:02x?}");
    let mut client = Connect::new(Version::V5, "illegal").open(broker.addr());
    client.send(bytes);
    client.expect_disconnect(reasons);
}

const MALFORMED: &[u8] = &[0x81];
const VIOLATION: &[u8] = &[0x82];
const EITHER: &[u8] = &[0x81, 0x82];

#[test]
fn a_second_connect_is_a_protocol_error() {
    // [MQTT-3.1.0-2]
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "illegal").bytes();
    ends(&broker, "second CONNECT", &connect, VIOLATION);
}

#[test]
fn packets_that_only_servers_send_are_protocol_errors() {
    let broker = Broker::start();
    for (what, bytes) in [
        ("CONNACK", &[0x20, 3, 0, 0, 0][..]),
        ("SUBACK", &[0x90, 4, 0, 1, 0, 0]),
        ("UNSUBACK", &[0xb0, 4, 0, 1, 0, 0]),
        ("PINGRESP", &[0xd0, 0]),
    ] {
        ends(&broker, what, bytes, VIOLATION);
    }
}

#[test]
fn packet_type_0_is_malformed() {
    let broker = Broker::start();
    ends(&broker, "type 0", &[0x00, 0], EITHER);
}

#[test]
fn reserved_header_bits_are_malformed() {
    // [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1]
    let broker = Broker::start();
    let id = &[0, 1][..];
    let topic = string("t");
    for (what, good, body) in [
        ("PUBACK", 0x40, id.to_vec()),
        ("PUBREC", 0x50, id.to_vec()),
        ("PUBREL", 0x62, id.to_vec()),
        ("PUBCOMP", 0x70, id.to_vec()),
        ("SUBSCRIBE", 0x82, concat(&[id, &[0], &topic, &[0]])),
        ("UNSUBSCRIBE", 0xa2, concat(&[id, &[0], &topic])),
        ("PINGREQ", 0xc0, vec![]),
        ("DISCONNECT", 0xe0, vec![]),
    ] {
        for flags in [0, 1, 2, 3, 4, 8, 15] {
            let first: u8 = (good & 0xf0) | flags;
            if first != good {
                let bytes = frame(first, &body);
                ends(&broker, &format!("{what} {flags}"), &bytes, MALFORMED);
            }
        }
    }
}

#[test]
fn a_remaining_length_of_more_than_four_bytes_is_malformed() {
    // [MQTT-1.5.5-1]
    let broker = Broker::start();
    let bytes = [0x30, 0x80, 0x80, 0x80, 0x80, 0x01];
    ends(&broker, "five bytes", &bytes, MALFORMED);
    let bytes = [0x30, 0xff, 0xff, 0xff, 0xff];
    ends(&broker, "four bytes and on", &bytes, MALFORMED);
}

#[test]
fn lengths_longer_than_they_need_to_be_are_malformed() {
    // [MQTT-1.5.5-1]: the minimum number of bytes.
    let broker = Broker::start();
    ends(&broker, "PINGREQ", &[0xc0, 0x80, 0x00], MALFORMED);
    let publish = frame(0x30, &concat(&[&string("t"), &[0x80, 0x00]]));
    ends(&broker, "property length", &publish, MALFORMED);
}

#[test]
fn a_body_where_there_is_none_is_malformed() {
    let broker = Broker::start();
    ends(&broker, "PINGREQ with a body", &[0xc0, 1, 0], MALFORMED);
}

#[test]
fn publish_flags_that_contradict_are_refused() {
    let broker = Broker::start();
    // [MQTT-3.3.1-4]
    let bytes = publish5(0x36, b"t", Some(1), &[], b"");
    ends(&broker, "QoS 3", &bytes, MALFORMED);
    // [MQTT-3.3.1-2]
    let bytes = publish5(0x38, b"t", None, &[], b"");
    ends(&broker, "DUP at QoS 0", &bytes, EITHER);
}

#[test]
fn packet_identifier_0_is_refused() {
    // [MQTT-2.2.1-3], [MQTT-2.2.1-4]
    let broker = Broker::start();
    for (what, bytes) in [
        ("PUBLISH QoS 1", publish5(0x32, b"t", Some(0), &[], b"")),
        ("PUBLISH QoS 2", publish5(0x34, b"t", Some(0), &[], b"")),
        ("PUBACK", vec![0x40, 2, 0, 0]),
        ("PUBREC", vec![0x50, 2, 0, 0]),
        ("PUBREL", vec![0x62, 2, 0, 0]),
        ("PUBCOMP", vec![0x70, 2, 0, 0]),
        ("SUBSCRIBE", subscribe5(0x82, 0, &[], b"t", 0)),
        (
            "UNSUBSCRIBE",
            frame(0xa2, &concat(&[&[0, 0, 0], &string("t")])),
        ),
    ] {
        ends(&broker, what, &bytes, EITHER);
    }
}

#[test]
fn topic_names_with_wildcards_are_refused() {
    // [MQTT-3.3.2-2], [MQTT-4.7.1-1]
    let broker = Broker::start();
    for topic in ["#", "+", "a/#", "a/+/b", "a+", "#a"] {
        let bytes = publish5(0x30, topic.as_bytes(), None, &[], b"");
        ends(&broker, topic, &bytes, &[0x81, 0x82, 0x90]);
    }
}

#[test]
fn text_that_is_not_utf_8_is_malformed() {
    // [MQTT-1.5.4-1] ill-formed, surrogates; [MQTT-1.5.4-2] U+0000
    let broker = Broker::start();
    let bad: [(&str, &[u8]); 7] = [
        ("lone continuation", &[0x80]),
        ("cut short", &[0xe2, 0x82]),
        ("overlong", &[0xc0, 0xaf]),
        ("surrogate", &[0xed, 0xa0, 0x80]),
        ("beyond U+10FFFF", &[0xf4, 0x90, 0x80, 0x80]),
        ("U+0000", &[b'a', 0, b'b']),
        ("0xFF", &[0xff]),
    ];
    for (what, text) in bad {
        let name = |place: &str| format!("{what} in {place}");
        let malformed =
            |place: &str, bytes: Vec<u8>| ends(&broker, &name(place), &bytes, MALFORMED);
        malformed("a topic name", publish5(0x30, text, None, &[], b""));
        malformed("a topic filter", subscribe5(0x82, 1, &[], text, 0));
        let unsubscribe = frame(0xa2, &concat(&[&[0, 1, 0], &string(text)]));
        malformed("an unsubscribed filter", unsubscribe);
        let property = |id: u8| concat(&[&[id], &string(text)]);
        malformed(
            "content type",
            publish5(0x30, b"t", None, &property(3), b""),
        );
        malformed(
            "response topic",
            publish5(0x30, b"t", None, &property(8), b""),
        );
        let user = concat(&[&[0x26], &string(text), &string("v")]);
        malformed(
            "a user property's name",
            publish5(0x30, b"t", None, &user, b""),
        );
        let user = concat(&[&[0x26], &string("k"), &string(text)]);
        malformed(
            "a user property's value",
            publish5(0x30, b"t", None, &user, b""),
        );
        let reason = property(0x1f);
        let disconnect = concat(&[&[0], &length(reason.len() as u32), &reason]);
        malformed("a reason string", frame(0xe0, &disconnect));
    }
}

#[test]
fn packets_that_end_too_early_are_malformed() {
    let broker = Broker::start();
    for (what, bytes) in [
        ("PUBLISH without a topic", &[0x30, 0][..]),
        ("PUBLISH with half a length", &[0x30, 1, 0]),
        ("PUBLISH with a topic cut short", &[0x30, 3, 0, 5, b'a']),
        ("PUBLISH without properties", &[0x30, 3, 0, 1, b'a']),
        ("PUBLISH without identifier", &[0x32, 4, 0, 1, b'a', 0]),
        (
            "PUBLISH with properties cut short",
            &[0x30, 6, 0, 1, b'a', 5, 1, 0],
        ),
        (
            "PUBLISH with a property cut short",
            &[0x30, 6, 0, 1, b'a', 2, 2, 0],
        ),
        ("PUBACK without identifier", &[0x40, 0]),
        ("PUBACK with half an identifier", &[0x40, 1, 0]),
        ("PUBREC without identifier", &[0x50, 0]),
        ("PUBREL without identifier", &[0x62, 0]),
        ("PUBCOMP without identifier", &[0x70, 0]),
        ("PUBACK with properties cut short", &[0x40, 4, 0, 1, 0, 9]),
        ("SUBSCRIBE without identifier", &[0x82, 0]),
        ("SUBSCRIBE without properties", &[0x82, 2, 0, 1]),
        ("SUBSCRIBE without options", &[0x82, 6, 0, 1, 0, 0, 1, b'a']),
        (
            "SUBSCRIBE with a filter cut short",
            &[0x82, 6, 0, 1, 0, 0, 9, b'a'],
        ),
        (
            "UNSUBSCRIBE with a filter cut short",
            &[0xa2, 6, 0, 1, 0, 0, 9, b'a'],
        ),
        (
            "DISCONNECT with properties cut short",
            &[0xe0, 3, 0, 9, 0x1f],
        ),
    ] {
        ends(&broker, what, bytes, MALFORMED);
    }
}

#[test]
fn bytes_behind_the_end_of_a_packet_are_malformed() {
    let broker = Broker::start();
    for (what, bytes) in [
        ("PUBACK", &[0x40, 5, 0, 1, 0, 0, 0][..]),
        ("PUBREL", &[0x62, 5, 0, 1, 0, 0, 0]),
        ("DISCONNECT", &[0xe0, 3, 0, 0, 0]),
    ] {
        ends(&broker, what, bytes, MALFORMED);
    }
}

#[test]
fn properties_in_the_wrong_packet_are_malformed() {
    // Section 2.2.2.2: an identifier that is not valid for its packet type is a malformed packet,
    // 0x81.
    let broker = Broker::start();
    let expiry = [0x11, 0, 0, 0, 1];
    let alias = [0x23, 0, 1];
    let publish = |block: &[u8]| publish5(0x30, b"t", None, block, b"");
    let ack =
        |first: u8, block: &[u8]| frame(first, &concat(&[&[0, 1, 0, block.len() as u8], block]));
    for (what, bytes) in [
        ("session expiry in PUBLISH", publish(&expiry)),
        ("will delay in PUBLISH", publish(&[0x18, 0, 0, 0, 1])),
        ("reason string in PUBLISH", publish(&[0x1f, 0, 1, b'r'])),
        ("maximum QoS in PUBLISH", publish(&[0x24, 1])),
        ("topic alias in PUBACK", ack(0x40, &alias)),
        ("topic alias in PUBREC", ack(0x50, &alias)),
        ("topic alias in PUBREL", ack(0x62, &alias)),
        ("topic alias in PUBCOMP", ack(0x70, &alias)),
        (
            "topic alias in SUBSCRIBE",
            subscribe5(0x82, 1, &alias, b"t", 0),
        ),
        (
            "reason string in SUBSCRIBE",
            subscribe5(0x82, 1, &[0x1f, 0, 1, b'r'], b"t", 0),
        ),
        (
            "subscription identifier in UNSUBSCRIBE",
            frame(0xa2, &concat(&[&[0, 1, 2, 0x0b, 1], &string("t")])),
        ),
        (
            "topic alias in DISCONNECT",
            frame(0xe0, &[0, 3, 0x23, 0, 1]),
        ),
    ] {
        ends(&broker, what, &bytes, MALFORMED);
    }
}

#[test]
fn properties_that_do_not_exist_are_malformed() {
    let broker = Broker::start();
    for id in [
        0x00, 0x04, 0x0a, 0x0c, 0x10, 0x14, 0x1b, 0x1d, 0x20, 0x2b, 0x7f,
    ] {
        let bytes = publish5(0x30, b"t", None, &[id, 0], b"");
        ends(&broker, &format!("property {id:#04x}"), &bytes, MALFORMED);
    }
}

#[test]
fn properties_that_come_twice_are_protocol_errors() {
    // Sections 3.3.2.3.2 to 3.3.2.3.9, 3.8.2.1.2, 3.14.2.2
    let broker = Broker::start();
    let properties: [(&str, &[u8]); 6] = [
        ("payload format", &[1, 0]),
        ("message expiry", &[2, 0, 0, 0, 9]),
        ("topic alias", &[0x23, 0, 1]),
        ("response topic", &[8, 0, 1, b'r']),
        ("correlation data", &[9, 0, 1, 0]),
        ("content type", &[3, 0, 1, b'c']),
    ];
    for (what, block) in properties {
        let bytes = publish5(0x30, b"t", None, &concat(&[block, block]), b"");
        ends(&broker, what, &bytes, VIOLATION);
    }
    let bytes = subscribe5(0x82, 1, &[0x0b, 1, 0x0b, 2], b"t", 0);
    ends(&broker, "subscription identifier", &bytes, VIOLATION);
    let twice = [0x1f, 0, 1, b'r', 0x1f, 0, 1, b'r'];
    let bytes = frame(0x40, &concat(&[&[0, 1, 0, 8], &twice]));
    ends(&broker, "reason string in PUBACK", &bytes, VIOLATION);
    let twice = [0x11, 0, 0, 0, 0, 0x11, 0, 0, 0, 0];
    let bytes = frame(0xe0, &concat(&[&[0, 10], &twice]));
    ends(&broker, "session expiry in DISCONNECT", &bytes, VIOLATION);
}

#[test]
fn values_that_are_not_allowed_are_refused() {
    let broker = Broker::start();
    // Section 3.3.2.3.2 names 0 and 1.
    let bytes = publish5(0x30, b"t", None, &[1, 2], b"");
    ends(&broker, "payload format 2", &bytes, EITHER);
    // [MQTT-3.3.2-14]
    for topic in ["a/+", "#"] {
        let block = concat(&[&[8], &string(topic)]);
        let bytes = publish5(0x30, b"t", None, &block, b"");
        ends(&broker, "response topic", &bytes, &[0x81, 0x82, 0x90]);
    }
    // [MQTT-3.3.4-6]: only a server sends it.
    let bytes = publish5(0x30, b"t", None, &[0x0b, 1], b"");
    ends(&broker, "subscription identifier", &bytes, VIOLATION);
    // Section 3.3.2.1
    let bytes = publish5(0x30, b"", None, &[], b"");
    ends(&broker, "neither topic nor alias", &bytes, VIOLATION);
}

#[test]
fn a_subscribe_with_illegal_contents_is_refused() {
    let broker = Broker::start();
    // [MQTT-3.8.3-2]
    let bytes = [0x82, 3, 0, 1, 0];
    ends(&broker, "no filters", &bytes, VIOLATION);
    // [MQTT-3.8.3-5]
    for options in [0x40, 0x80, 0xc0] {
        let bytes = subscribe5(0x82, 1, &[], b"t", options);
        ends(&broker, "reserved option bits", &bytes, MALFORMED);
    }
    // Section 3.8.3.1
    let bytes = subscribe5(0x82, 1, &[], b"t", 3);
    ends(&broker, "QoS 3", &bytes, VIOLATION);
    let bytes = subscribe5(0x82, 1, &[], b"t", 0x30);
    ends(&broker, "retain handling 3", &bytes, VIOLATION);
    // [MQTT-3.8.3-4]
    let bytes = subscribe5(0x82, 1, &[], b"$share/g/t", 4);
    ends(
        &broker,
        "no local on a shared subscription",
        &bytes,
        VIOLATION,
    );
    // Section 3.8.2.1.2
    let bytes = subscribe5(0x82, 1, &[0x0b, 0], b"t", 0);
    ends(&broker, "subscription identifier 0", &bytes, VIOLATION);
    let bytes = subscribe5(0x82, 1, &[0x0b, 0x80, 0x80, 0x80, 0x80, 1], b"t", 0);
    ends(
        &broker,
        "subscription identifier too large",
        &bytes,
        MALFORMED,
    );
}

#[test]
fn an_unsubscribe_without_filters_is_a_protocol_error() {
    // [MQTT-3.10.3-2]
    let broker = Broker::start();
    ends(&broker, "no filters", &[0xa2, 3, 0, 1, 0], VIOLATION);
}

#[test]
fn reason_codes_that_do_not_exist_are_refused() {
    // [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1], [MQTT-3.14.2-1]: one of those
    // of the packet.
    let broker = Broker::start();
    for (what, bytes) in [
        ("PUBACK 0x05", &[0x40, 3, 0, 1, 0x05][..]),
        ("PUBREC 0x01", &[0x50, 3, 0, 1, 0x01]),
        ("PUBREL 0x10", &[0x62, 3, 0, 1, 0x10]),
        ("PUBCOMP 0xff", &[0x70, 3, 0, 1, 0xff]),
        ("DISCONNECT 0x01", &[0xe0, 1, 0x01]),
        ("DISCONNECT 0xff", &[0xe0, 1, 0xff]),
    ] {
        ends(&broker, what, bytes, EITHER);
    }
}

#[test]
fn a_packet_that_is_too_large_is_told_so() {
    // [MQTT-3.2.2-15] and 0x95, as soon as its length is known.
    let Some(broker) = Broker::with("[limits]\nmax_packet_size = \"1KB\"\n") else {
        return;
    };
    let announced = concat(&[&[0x30], &length(200_000_000)]);
    ends(&broker, "announced", &announced, &[0x95]);
    let mut client = Connect::new(Version::V5, "fits").open(broker.addr());
    client.subscribe("t", 0);
    // 3 bytes of header, 3 of topic name, 1 of property length: 1000 bytes in all.
    let largest = publish5(0x30, b"t", None, &[], &[b'x'; 1000 - 3 - 3 - 1]);
    assert_eq!(largest.len(), 1000);
    client.send(&largest);
    client.expect("t", [b'x'; 993], 0);
    let larger = publish5(0x30, b"t", None, &[], &[b'x'; 994]);
    client.send(&larger);
    client.expect_disconnect(&[0x95]);
}

#[test]
fn nothing_of_an_illegal_packet_is_used() {
    let broker = Broker::start();
    let mut watcher = Connect::new(Version::V5, "watcher").open(broker.addr());
    watcher.subscribe("t", 0);
    // The subscription is fine, its identifier comes twice.
    let twice = subscribe5(0x82, 1, &[0x0b, 1, 0x0b, 2], b"#", 0);
    ends(&broker, "SUBSCRIBE", &twice, VIOLATION);
    let publish = publish5(0x31, b"t", None, &[1, 0, 1, 0], b"x");
    ends(&broker, "PUBLISH", &publish, VIOLATION);
    watcher.expect_nothing();
    watcher.subscribe("t", 0);
    watcher.expect_nothing();
}

#[test]
fn noise_on_many_connections_harms_nobody() {
    let broker = Broker::start();
    let mut random = support::Random::new(20_240_601);
    let mut watcher = Connect::new(Version::V5, "watcher").open(broker.addr());
    for round in 0..300 {
        let version = Version::ALL[round % 3];
        let mut client = Connect::new(version, "noise").open(broker.addr());
        let len = 1 + random.below(200) as usize;
        let mut noise: Vec<u8> = (0..len).map(|_| random.bits() as u8).collect();
        // A valid length now and then, so that the packet's body is looked at too.
        if round % 2 == 0 && len > 2 {
            noise[1] = ((len - 2).min(127)) as u8;
        }
        client.send(&noise);
        client.drop_connection();
        watcher.ping();
    }
}
