//! CONNECTs that must be refused, and what may not come before one.

use support::raw::{concat, connect, frame, string};
use support::{Broker, Client, Packet, Version};

/// Sends bytes on a new connection of MQTT 5, which must be refused with one of these codes and
/// closed.
fn refused(broker: &Broker, what: &str, bytes: &[u8], codes: &[u8]) {
    println!("{what}");
    let mut client = Client::dial(broker.addr(), Version::V5);
    client.send(bytes);
    match client.receive() {
        Packet::ConnAck(connack) => assert!(
            codes.contains(&connack.code),
            "{what}: {:#04x} instead of {codes:02x?}",
            connack.code
        ),
        other => panic!("{what}: {other:?}"),
    }
    // [MQTT-3.1.4-2], [MQTT-3.2.2-7]
    client.expect_closed();
}

/// Sends bytes on a new connection, which must be closed without any answer.
fn closed(broker: &Broker, what: &str, version: Version, bytes: &[u8]) {
    println!("{what}");
    let mut client = Client::dial(broker.addr(), version);
    client.send(bytes);
    client.expect_closed();
}

/// Sends bytes on a new connection, which must be closed; a refusal may come first.
fn refused_or_closed(broker: &Broker, what: &str, version: Version, bytes: &[u8]) {
    println!("{what}");
    let mut client = Client::dial(broker.addr(), version);
    client.send(bytes);
    match client.try_receive(support::TIMEOUT) {
        Ok(None) => return,
        Ok(Some(Packet::ConnAck(connack))) => assert_ne!(connack.code, 0, "{what}"),
        other => panic!("{what}: {other:?}"),
    }
    client.expect_closed();
}

/// Whether these bytes are one CONNACK that says that the version is not supported, in the words of
/// MQTT 5 or of MQTT 3.
fn is_refusal(bytes: &[u8]) -> bool {
    match support::packet::parse(Version::V5, bytes) {
        Ok(Packet::ConnAck(connack)) => connack.code == 0x84,
        _ => bytes == [0x20, 2, 0, 1],
    }
}

/// A CONNECT of MQTT 5 with these properties.
fn with_properties(block: &[u8]) -> Vec<u8> {
    let len = support::raw::length(block.len() as u32);
    connect("MQTT", 5, 2, &concat(&[&len, block, &string("id")]))
}

#[test]
fn a_packet_before_connect_closes_the_connection() {
    // [MQTT-3.1.0-1]; and no DISCONNECT before a CONNACK [MQTT-3.14.0-1].
    let broker = Broker::start();
    let topic = string("t");
    for (what, bytes) in [
        ("PUBLISH", frame(0x30, &concat(&[&topic, &[0]]))),
        ("PINGREQ", vec![0xc0, 0]),
        ("DISCONNECT", vec![0xe0, 0]),
        (
            "SUBSCRIBE",
            frame(0x82, &concat(&[&[0, 1, 0], &topic, &[0]])),
        ),
        ("AUTH", vec![0xf0, 0]),
        ("CONNACK", vec![0x20, 3, 0, 0, 0]),
        ("PUBREL", vec![0x62, 2, 0, 1]),
        ("an unknown type", vec![0x00, 0]),
        ("not MQTT", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("noise", vec![0xff; 64]),
    ] {
        closed(&broker, what, Version::V5, &bytes);
    }
}

#[test]
fn an_unknown_protocol_level_is_told_so() {
    // [MQTT-3.1.2-2], 3.1.1: [MQTT-3.1.2-2] return code 1.
    let broker = Broker::start();
    for level in [0, 1, 2, 6, 7, 0x7f] {
        let mut client = Client::dial(broker.addr(), Version::V5);
        client.send(&connect("MQTT", level, 2, &concat(&[&[0], &string("id")])));
        let bytes = client.receive_bytes_until_closed();
        assert!(is_refusal(&bytes), "level {level}: {bytes:02x?}");
    }
}

#[test]
fn an_unknown_protocol_name_is_refused() {
    // [MQTT-3.1.2-1]: 0x84 may be said, the connection must be closed.
    let broker = Broker::start();
    for name in ["mqtt", "MQTT ", "", "HTTP", "MQIsdpx"] {
        let mut client = Client::dial(broker.addr(), Version::V5);
        client.send(&connect(name, 5, 2, &concat(&[&[0], &string("id")])));
        let bytes = client.receive_bytes_until_closed();
        let refused = bytes.is_empty() || is_refusal(&bytes);
        assert!(refused, "{name:?}: {bytes:02x?}");
    }
}

#[test]
fn a_malformed_connect_is_refused_with_0x81() {
    let broker = Broker::start();
    let id = string("id");
    let rest = concat(&[&[0], &id]);
    let will = concat(&[&[0], &id, &[0], &string("t"), &string("p")]);
    let malformed = |what, bytes: Vec<u8>| refused(&broker, what, &bytes, &[0x81]);
    // [MQTT-3.1.2-3]
    malformed("reserved connect flag", connect("MQTT", 5, 3, &rest));
    // [MQTT-3.1.2-12]
    malformed("will QoS 3", connect("MQTT", 5, 0x1e, &will));
    malformed(
        "bytes behind the payload",
        connect("MQTT", 5, 2, &concat(&[&rest, &[0]])),
    );
    malformed(
        "client id cut short",
        connect("MQTT", 5, 2, &[0, 0, 9, b'a']),
    );
    malformed("no client id", connect("MQTT", 5, 2, &[0]));
    malformed("user name missing", connect("MQTT", 5, 0x82, &rest));
    malformed("will missing", connect("MQTT", 5, 0x06, &rest));
    // [MQTT-1.5.4-1], [MQTT-3.1.3-4]
    malformed(
        "client id that is not UTF-8",
        connect("MQTT", 5, 2, &[0, 0, 2, 0xc3, 0x28]),
    );
    malformed(
        "client id with a surrogate",
        connect("MQTT", 5, 2, &[0, 0, 3, 0xed, 0xa0, 0x80]),
    );
    // [MQTT-1.5.4-2]
    malformed(
        "client id with U+0000",
        connect("MQTT", 5, 2, &[0, 0, 3, b'a', 0, b'b']),
    );
    malformed(
        "user name that is not UTF-8",
        connect("MQTT", 5, 0x82, &concat(&[&rest, &[0, 1, 0xff]])),
    );
    malformed(
        "property block longer than the packet",
        connect("MQTT", 5, 2, &concat(&[&[50], &id])),
    );
    malformed(
        "property length of five bytes",
        connect("MQTT", 5, 2, &concat(&[&[0x80, 0x80, 0x80, 0x80, 1], &id])),
    );
    malformed("unknown property", with_properties(&[0x04, 0]));
    malformed("property cut short", with_properties(&[0x11, 0, 0]));
    // MQTT 5 section 2.2.2.2: an identifier that is not valid for its packet type is malformed.
    malformed("topic alias in CONNECT", with_properties(&[0x23, 0, 1]));
    malformed(
        "subscription identifier in CONNECT",
        with_properties(&[0x0b, 1]),
    );
    malformed(
        "will delay among the CONNECT properties",
        with_properties(&[0x18, 0, 0, 0, 1]),
    );
}

#[test]
fn a_connect_that_breaks_the_protocol_is_refused_with_0x82() {
    let broker = Broker::start();
    let violation = |what: &str, block: &[u8]| {
        refused(&broker, what, &with_properties(block), &[0x82]);
    };
    // Sections 3.1.2.11.2 to 3.1.2.11.10
    let twice: [(&str, &[u8]); 8] = [
        ("session expiry", &[0x11, 0, 0, 0, 1]),
        ("receive maximum", &[0x21, 0, 1]),
        ("maximum packet size", &[0x27, 0, 0, 1, 0]),
        ("topic alias maximum", &[0x22, 0, 1]),
        ("request response information", &[0x19, 1]),
        ("request problem information", &[0x17, 1]),
        ("authentication method", &[0x15, 0, 1, b'a']),
        ("authentication data", &[0x16, 0, 1, b'a']),
    ];
    for (what, block) in twice {
        violation(&format!("{what} twice"), &concat(&[block, block]));
    }
    violation("receive maximum 0", &[0x21, 0, 0]);
    violation("maximum packet size 0", &[0x27, 0, 0, 0, 0]);
    violation("request response information 2", &[0x19, 2]);
    violation("request problem information 2", &[0x17, 2]);
    violation("authentication data without method", &[0x16, 0, 1, 0]);
}

#[test]
fn flags_of_a_will_that_is_not_there_are_refused() {
    // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    let broker = Broker::start();
    let rest = concat(&[&[0], &string("id")]);
    for (what, flags) in [
        ("will QoS 1", 0x0a),
        ("will QoS 2", 0x12),
        ("will retain", 0x22),
    ] {
        refused(
            &broker,
            what,
            &connect("MQTT", 5, flags, &rest),
            &[0x81, 0x82],
        );
        let mqtt3 = connect("MQTT", 4, flags, &string("id"));
        closed(&broker, what, Version::V311, &mqtt3);
    }
}

#[test]
fn a_will_with_an_illegal_topic_or_property_is_refused() {
    let broker = Broker::start();
    let will = |block: &[u8], topic: &str, payload: &[u8]| {
        let len = [block.len() as u8];
        let rest = concat(&[
            &[0],
            &string("id"),
            &len,
            block,
            &string(topic),
            &string(payload),
        ]);
        connect("MQTT", 5, 6, &rest)
    };
    for topic in ["a/+", "#", "a/#", ""] {
        refused(&broker, topic, &will(&[], topic, b"p"), &[0x81, 0x82, 0x90]);
    }
    refused(
        &broker,
        "topic alias in a will",
        &will(&[0x23, 0, 1], "t", b"p"),
        &[0x81],
    );
    refused(
        &broker,
        "will delay twice",
        &will(&[0x18, 0, 0, 0, 1, 0x18, 0, 0, 0, 1], "t", b"p"),
        &[0x82],
    );
    refused(
        &broker,
        "payload that is not the UTF-8 it says it is",
        &will(&[0x01, 1], "t", &[0xff]),
        &[0x99],
    );
}

#[test]
fn a_connect_of_mqtt_3_that_is_malformed_is_closed() {
    let broker = Broker::start();
    for (name, level, version) in [("MQIsdp", 3, Version::V31), ("MQTT", 4, Version::V311)] {
        let id = string("id");
        let close = |what: &str, bytes: Vec<u8>| refused_or_closed(&broker, what, version, &bytes);
        close("bytes behind", connect(name, level, 2, b"\0\x02idx"));
        close(
            "client id cut short",
            connect(name, level, 2, &[0, 9, b'a']),
        );
        close(
            "client id that is not UTF-8",
            connect(name, level, 2, &[0, 2, 0xc3, 0x28]),
        );
        close(
            "client id with U+0000",
            connect(name, level, 2, &[0, 2, b'a', 0]),
        );
        close("will missing", connect(name, level, 6, &id));
        close(
            "will QoS 3",
            connect(
                name,
                level,
                0x1e,
                &concat(&[&id, &string("t"), &string("p")]),
            ),
        );
        close(
            "will topic with a wildcard",
            connect(
                name,
                level,
                6,
                &concat(&[&id, &string("t/#"), &string("p")]),
            ),
        );
        close("nothing behind the flags", connect(name, level, 2, &[]));
    }
    // 3.1.1: [MQTT-3.1.2-3] the reserved flag, [MQTT-3.1.2-22] a password without a user name.
    let id = string("id");
    let close = |what, bytes: Vec<u8>| closed(&broker, what, Version::V311, &bytes);
    close("reserved connect flag", connect("MQTT", 4, 3, &id));
    close(
        "password without user name",
        connect("MQTT", 4, 0x42, &concat(&[&id, &string("p")])),
    );
}

#[test]
fn a_connect_with_reserved_header_bits_is_closed() {
    // [MQTT-2.1.3-1], 3.1.1: [MQTT-2.2.2-2]
    let broker = Broker::start();
    let mut bytes = connect("MQTT", 5, 2, &concat(&[&[0], &string("id")]));
    for flags in [1, 2, 4, 8] {
        bytes[0] = 0x10 | flags;
        refused_or_closed(&broker, "CONNECT flags", Version::V5, &bytes);
    }
}

#[test]
fn a_length_that_never_ends_is_closed() {
    // [MQTT-1.5.5-1]: four bytes at most.
    let broker = Broker::start();
    refused_or_closed(
        &broker,
        "remaining length of five bytes",
        Version::V5,
        &[0x10, 0xff, 0xff, 0xff, 0xff, 0x01],
    );
}

#[test]
fn a_giant_connect_is_closed_when_its_length_is_known() {
    let broker = Broker::with("");
    let Some(broker) = broker else { return };
    // 268,435,455 bytes are announced; the default limit is 2 MB.
    refused_or_closed(
        &broker,
        "giant",
        Version::V5,
        &[
            0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4, b'M', b'Q', b'T', b'T', 5,
        ],
    );
}
