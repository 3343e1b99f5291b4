//! Malformed and forbidden frames of every kind, each with its reason code. Those of CONNECT and
//! CONNACK are in [`super::malformed_connect`].

use super::super::*;
use crate::wire::packet::*;
use crate::wire::property::Properties;

use ProtocolVersion::{V5, V31, V311};

pub(super) const ALL: &[ProtocolVersion] = &[V31, V311, V5];
pub(super) const V3: &[ProtocolVersion] = &[V31, V311];
pub(super) const LATER: &[ProtocolVersion] = &[V311, V5];
pub(super) const ONLY_31: &[ProtocolVersion] = &[V31];
pub(super) const ONLY_311: &[ProtocolVersion] = &[V311];
pub(super) const ONLY_5: &[ProtocolVersion] = &[V5];

/// Builds a frame from its first byte and body, with the right length between them.
pub(super) fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 0x80);
    [&[first, body.len() as u8], body].concat()
}

pub(super) fn code(frame: &[u8], version: ProtocolVersion) -> u8 {
    match decode(frame, version) {
        Ok(_) => 0,
        Err(fault) => fault.reason.as_u8(),
    }
}

pub(super) type Case = (
    &'static str,
    &'static [ProtocolVersion],
    u8,
    &'static [u8],
    u8,
);

/// Checks each case: its name, the versions, first byte, body, and the expected reason code (0 if
/// it decodes).
pub(super) fn check(cases: &[Case]) {
    for (name, versions, first, body, expected) in cases {
        for version in *versions {
            let got = code(&framed(*first, body), *version);
            assert_eq!(got, *expected, "{name} in {version:?}: {got:#04x}");
        }
    }
}

#[test]
fn publish() {
    check(&[
        ("QoS 0 with a payload", V3, 0x30, b"\0\x01ax", 0),
        ("QoS 0 with a payload", ONLY_5, 0x30, b"\0\x01a\0x", 0),
        ("QoS 3 [MQTT-3.3.1-4]", ALL, 0x36, b"\0\x01a\0\x01\0", 0x81),
        (
            "DUP with QoS 0 [MQTT-3.3.1-2]",
            LATER,
            0x38,
            b"\0\x01a\0",
            0x81,
        ),
        (
            "DUP with QoS 0 means nothing in MQTT 3.1",
            ONLY_31,
            0x38,
            b"\0\x01a\0",
            0,
        ),
        ("no topic", ALL, 0x30, b"", 0x81),
        ("half a topic length", ALL, 0x30, b"\0", 0x81),
        ("topic past the end", ALL, 0x30, b"\0\x05abc", 0x81),
        (
            "packet identifier 0 [MQTT-2.2.1-3]",
            ALL,
            0x32,
            b"\0\x01a\0\0\0",
            0x82,
        ),
        (
            "packet identifier 0 with QoS 2",
            ALL,
            0x34,
            b"\0\x01a\0\0\0",
            0x82,
        ),
        ("no packet identifier", ALL, 0x32, b"\0\x01a", 0x81),
        ("half a packet identifier", ALL, 0x32, b"\0\x01a\0", 0x81),
        (
            "topic with + [MQTT-3.3.2-2]",
            ALL,
            0x30,
            b"\0\x03a/+\0",
            0x81,
        ),
        ("topic with # [MQTT-3.3.2-2]", ALL, 0x30, b"\0\x01#\0", 0x81),
        (
            "topic with U+0000 [MQTT-1.5.4-2]",
            ALL,
            0x30,
            b"\0\x02a\0\0",
            0x81,
        ),
        (
            "topic with a surrogate [MQTT-1.5.4-1]",
            ALL,
            0x30,
            b"\0\x03\xed\xa0\x80\0",
            0x81,
        ),
        (
            "topic that is not UTF-8 [MQTT-3.3.2-1]",
            ALL,
            0x30,
            b"\0\x01\xff\0",
            0x81,
        ),
        (
            "topic with a control character",
            ALL,
            0x30,
            b"\0\x02a\x1f\0",
            0,
        ),
        ("empty topic [MQTT-4.7.3-1]", V3, 0x30, b"\0\0\0", 0x81),
        ("empty topic without alias", ONLY_5, 0x30, b"\0\0\0", 0x82),
        (
            "empty topic with an alias",
            ONLY_5,
            0x30,
            b"\0\0\x03\x23\0\x01",
            0,
        ),
        (
            "topic alias 0 [MQTT-3.3.2-8]",
            ONLY_5,
            0x30,
            b"\0\x01a\x03\x23\0\0",
            0x94,
        ),
        (
            "wildcards with an alias",
            ONLY_5,
            0x30,
            b"\0\x01#\x03\x23\0\x01",
            0x81,
        ),
        ("no property length", ONLY_5, 0x30, b"\0\x01a", 0x81),
        (
            "properties past the end",
            ONLY_5,
            0x30,
            b"\0\x01a\x05\x01",
            0x81,
        ),
        (
            "property length not minimal",
            ONLY_5,
            0x30,
            b"\0\x01a\x80\0",
            0x81,
        ),
        (
            "property of another packet",
            ONLY_5,
            0x30,
            b"\0\x01a\x03\x21\0\x01",
            0x81,
        ),
        ("unknown property", ONLY_5, 0x30, b"\0\x01a\x02\x04\0", 0x81),
        (
            "payload format 1 with a payload that is not UTF-8 is for the broker",
            ONLY_5,
            0x30,
            b"\0\x01a\x02\x01\x01\xff",
            0,
        ),
    ]);
}

#[test]
fn reserved_flags_of_the_fixed_header_are_0x81() {
    let bodies: [(u8, u8, &[u8]); 14] = [
        (1, 0, b"\0\x04MQTT\x05\x02\0\0\0\0\0"),
        (2, 0, b"\0\0\0"),
        (4, 0, b"\0\x01"),
        (5, 0, b"\0\x01"),
        (6, 2, b"\0\x01"),
        (7, 0, b"\0\x01"),
        (8, 2, b"\0\x01\0\0\x01a\0"),
        (9, 0, b"\0\x01\0\0"),
        (10, 2, b"\0\x01\0\0\x01a"),
        (11, 0, b"\0\x01\0\0"),
        (12, 0, b""),
        (13, 0, b""),
        (14, 0, b""),
        (15, 0, b""),
    ];
    for (kind, right, body) in bodies {
        for flags in 0..16 {
            let expected = if flags == right { 0 } else { 0x81 };
            let got = code(&framed(kind << 4 | flags, body), V5);
            assert_eq!(got, expected, "type {kind} with flags {flags:#b}");
        }
    }
}

#[test]
fn the_dup_flag_of_pubrel_subscribe_and_unsubscribe_exists_in_mqtt_3_1_only() {
    check(&[
        ("PUBREL", ONLY_31, 0x6a, b"\0\x01", 0),
        ("SUBSCRIBE", ONLY_31, 0x8a, b"\0\x01\0\x01a\0", 0),
        ("UNSUBSCRIBE", ONLY_31, 0xaa, b"\0\x01\0\x01a", 0),
        ("PUBREL", LATER, 0x6a, b"\0\x01", 0x81),
        ("SUBSCRIBE", ONLY_311, 0x8a, b"\0\x01\0\x01a\0", 0x81),
        ("UNSUBSCRIBE", ONLY_311, 0xaa, b"\0\x01\0\x01a", 0x81),
        ("SUBSCRIBE", ONLY_5, 0x8a, b"\0\x01\0\0\x01a\0", 0x81),
        ("UNSUBSCRIBE", ONLY_5, 0xaa, b"\0\x01\0\0\x01a", 0x81),
        ("PUBACK has none", ALL, 0x48, b"\0\x01", 0x81),
    ]);
}

#[test]
fn packet_types_that_do_not_exist() {
    check(&[
        ("type 0", ALL, 0x00, b"", 0x81),
        ("AUTH in MQTT 3", V3, 0xf0, b"", 0x81),
        ("AUTH in MQTT 5", ONLY_5, 0xf0, b"", 0),
    ]);
}

#[test]
fn a_frame_of_another_length_than_it_says_is_0x81_and_never_a_panic() {
    for version in ALL {
        for frame in [
            &b""[..],
            b"\x30",
            b"\xc0\x01",
            b"\xc0\x00\x00",
            b"\xc0\x80\x00",
            b"\xc0\x80\x80\x80\x80\x00",
        ] {
            assert_eq!(code(frame, *version), 0x81, "{frame:02x?}");
        }
    }
}

#[test]
fn acknowledgements() {
    for (first, error, wrong) in [
        (0x40, 0x97, 0x92),
        (0x50, 0x10, 0x8f),
        (0x62, 0x92, 0x80),
        (0x70, 0x92, 0x10),
    ] {
        let cases: &[(&str, &[ProtocolVersion], &[u8], u8)] = &[
            ("two bytes", ALL, b"\0\x01", 0),
            ("packet identifier 0", ALL, b"\0\0", 0x82),
            ("one byte", ALL, b"\x01", 0x81),
            ("nothing", ALL, b"", 0x81),
            ("a reason code in MQTT 3", V3, b"\0\x01\0", 0x81),
            ("a reason code", ONLY_5, &[0, 1, error], 0),
            (
                "a reason code of another packet",
                ONLY_5,
                &[0, 1, wrong],
                0x82,
            ),
            (
                "a reason code that does not exist",
                ONLY_5,
                b"\0\x01\x42",
                0x82,
            ),
            ("no properties, said", ONLY_5, &[0, 1, error, 0], 0),
            ("a reason string", ONLY_5, b"\0\x01\0\x04\x1f\0\x01r", 0),
            (
                "properties past the end",
                ONLY_5,
                b"\0\x01\0\x05\x1f\0\x01r",
                0x81,
            ),
            ("a byte after the properties", ONLY_5, b"\0\x01\0\0\0", 0x81),
            (
                "a property of another packet",
                ONLY_5,
                b"\0\x01\0\x03\x23\0\x01",
                0x81,
            ),
        ];
        for (name, versions, body, expected) in cases {
            for version in *versions {
                let got = code(&framed(first, body), *version);
                assert_eq!(got, *expected, "{first:#x} {name} in {version:?}");
            }
        }
    }
}

#[test]
fn subscribe() {
    check(&[
        ("no filter [MQTT-3.8.3-2]", V3, 0x82, b"\0\x01", 0x82),
        ("no filter [MQTT-3.8.3-2]", ONLY_5, 0x82, b"\0\x01\0", 0x82),
        ("packet identifier 0", ALL, 0x82, b"\0\0\0\0\x01a\0", 0x82),
        ("no options", V3, 0x82, b"\0\x01\0\x01a", 0x81),
        (
            "no options after the second",
            ONLY_5,
            0x82,
            b"\0\x01\0\0\x01a\0\0\x01b",
            0x81,
        ),
        ("filter past the end", V3, 0x82, b"\0\x01\0\x09a\0", 0x81),
        (
            "filter not UTF-8 [MQTT-3.8.3-1]",
            V3,
            0x82,
            b"\0\x01\0\x01\xff\0",
            0x81,
        ),
        (
            "filter with U+0000",
            ONLY_5,
            0x82,
            b"\0\x01\0\0\x01\0\0",
            0x81,
        ),
        (
            "a filter that is none is for the broker",
            ONLY_5,
            0x82,
            b"\0\x01\0\0\x02a#\0",
            0,
        ),
        ("QoS 3", V3, 0x82, b"\0\x01\0\x01a\x03", 0x81),
        ("QoS 3", ONLY_5, 0x82, b"\0\x01\0\0\x01a\x03", 0x82),
        ("reserved bits", ONLY_311, 0x82, b"\0\x01\0\x01a\x04", 0x81),
        (
            "MQTT 3.1 ignores the reserved bits",
            ONLY_31,
            0x82,
            b"\0\x01\0\x01a\xfd",
            0,
        ),
        (
            "reserved bit 6 [MQTT-3.8.3-5]",
            ONLY_5,
            0x82,
            b"\0\x01\0\0\x01a\x40",
            0x81,
        ),
        (
            "reserved bit 7 [MQTT-3.8.3-5]",
            ONLY_5,
            0x82,
            b"\0\x01\0\0\x01a\x80",
            0x81,
        ),
        (
            "retain handling 3",
            ONLY_5,
            0x82,
            b"\0\x01\0\0\x01a\x30",
            0x82,
        ),
        ("no local", ONLY_5, 0x82, b"\0\x01\0\0\x01a\x04", 0),
        (
            "no local, shared [MQTT-3.8.3-4]",
            ONLY_5,
            0x82,
            b"\0\x01\0\0\x0a$share/g/a\x04",
            0x82,
        ),
        ("shared", ONLY_5, 0x82, b"\0\x01\0\0\x0a$share/g/a\x2a", 0),
        (
            "subscription identifier 0",
            ONLY_5,
            0x82,
            b"\0\x01\x02\x0b\0\0\x01a\0",
            0x82,
        ),
        (
            "two identifiers",
            ONLY_5,
            0x82,
            b"\0\x01\x04\x0b\x01\x0b\x01\0\x01a\0",
            0x82,
        ),
        ("no property length", ONLY_5, 0x82, b"\0\x01", 0x81),
    ]);
}

#[test]
fn suback_unsubscribe_and_unsuback() {
    check(&[
        ("SUBACK: no code", V3, 0x90, b"\0\x01", 0x82),
        ("SUBACK: no code", ONLY_5, 0x90, b"\0\x01\0", 0x82),
        ("SUBACK: failure", V3, 0x90, b"\0\x01\x80", 0),
        ("SUBACK: a code of MQTT 5", V3, 0x90, b"\0\x01\x87", 0x82),
        (
            "SUBACK: QoS 3 [MQTT-3.9.3-2]",
            ALL,
            0x90,
            b"\0\x01\0\x03",
            0x82,
        ),
        ("SUBACK: packet identifier 0", ALL, 0x90, b"\0\0\0\0", 0x82),
        (
            "UNSUBSCRIBE: no filter [MQTT-3.10.3-2]",
            V3,
            0xa2,
            b"\0\x01",
            0x82,
        ),
        (
            "UNSUBSCRIBE: no filter [MQTT-3.10.3-2]",
            ONLY_5,
            0xa2,
            b"\0\x01\0",
            0x82,
        ),
        (
            "UNSUBSCRIBE: packet identifier 0",
            ALL,
            0xa2,
            b"\0\0\0\0\x01a",
            0x82,
        ),
        (
            "UNSUBSCRIBE: not UTF-8 [MQTT-3.10.3-1]",
            V3,
            0xa2,
            b"\0\x01\0\x01\xff",
            0x81,
        ),
        (
            "UNSUBSCRIBE: filter past the end",
            V3,
            0xa2,
            b"\0\x01\0\x02a",
            0x81,
        ),
        (
            "UNSUBSCRIBE: half a length",
            ONLY_5,
            0xa2,
            b"\0\x01\0\0\x01a\0",
            0x81,
        ),
        (
            "UNSUBSCRIBE: reason string",
            ONLY_5,
            0xa2,
            b"\0\x01\x04\x1f\0\x01r\0\x01a",
            0x81,
        ),
        ("UNSUBACK: codes in MQTT 3", V3, 0xb0, b"\0\x01\0", 0x81),
        ("UNSUBACK: no code", ONLY_5, 0xb0, b"\0\x01\0", 0x82),
        (
            "UNSUBACK: a code of SUBACK",
            ONLY_5,
            0xb0,
            b"\0\x01\0\x01",
            0x82,
        ),
        ("UNSUBACK: packet identifier 0", ALL, 0xb0, b"\0\0", 0x82),
    ]);
}

#[test]
fn pings_disconnect_and_auth() {
    check(&[
        ("PINGREQ with a body", ALL, 0xc0, b"\0", 0x81),
        ("PINGRESP with a body", ALL, 0xd0, b"\0", 0x81),
        ("DISCONNECT without a body", ALL, 0xe0, b"", 0),
        ("DISCONNECT with a body in MQTT 3", V3, 0xe0, b"\0", 0x81),
        ("DISCONNECT with a reason", ONLY_5, 0xe0, b"\x04", 0),
        (
            "DISCONNECT with a reason and no properties",
            ONLY_5,
            0xe0,
            b"\x04\0",
            0,
        ),
        (
            "DISCONNECT with a session expiry",
            ONLY_5,
            0xe0,
            b"\0\x05\x11\0\0\0\x01",
            0,
        ),
        (
            "DISCONNECT with a code of CONNACK [MQTT-3.14.2-1]",
            ONLY_5,
            0xe0,
            b"\x86",
            0x82,
        ),
        (
            "DISCONNECT with a code of SUBACK",
            ONLY_5,
            0xe0,
            b"\x01",
            0x82,
        ),
        (
            "DISCONNECT with a trailing byte",
            ONLY_5,
            0xe0,
            b"\0\0\0",
            0x81,
        ),
        (
            "DISCONNECT with a property of CONNECT",
            ONLY_5,
            0xe0,
            b"\0\x03\x21\0\x01",
            0x81,
        ),
        ("AUTH without a body", ONLY_5, 0xf0, b"", 0),
        ("AUTH that is only a success", ONLY_5, 0xf0, b"\0", 0),
        ("AUTH without a method", ONLY_5, 0xf0, b"\x18", 0x82),
        (
            "AUTH without a method, no properties",
            ONLY_5,
            0xf0,
            b"\x19\0",
            0x82,
        ),
        (
            "AUTH with a method",
            ONLY_5,
            0xf0,
            b"\x18\x04\x15\0\x01m",
            0,
        ),
        (
            "AUTH with data without a method",
            ONLY_5,
            0xf0,
            b"\x18\x04\x16\0\x01m",
            0x82,
        ),
        (
            "AUTH with a code of DISCONNECT [MQTT-3.15.2-1]",
            ONLY_5,
            0xf0,
            b"\x80\x04\x15\0\x01m",
            0x82,
        ),
    ]);
}

#[test]
fn what_is_left_out_reads_as_success() {
    let disconnect = Disconnect {
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    };
    assert_eq!(decode(b"\xe0\x00", V5), Ok(Packet::Disconnect(disconnect)));
    assert_eq!(decode(b"\xf0\x00", V5), Ok(Packet::Auth(disconnect)));
    let Ok(Packet::PubRec(ack)) = decode(b"\x50\x02\x00\x07", V5) else {
        panic!("a PUBREC of two bytes");
    };
    assert_eq!(ack.reason, ReasonCode::Success);
}

#[test]
fn frames_end_where_they_say() {
    const LIMIT: u32 = 1000;
    for (bytes, expected) in [
        (&b""[..], Ok(None)),
        (b"\x30", Ok(None)),
        (b"\x30\x80", Ok(None)),
        (b"\x30\xe5\x07", Ok(None)),
        (b"\x30\xe6\x07", Err(0x95)),
        (b"\x30\xe6", Ok(None)),
        (b"\x30\x03ab", Ok(None)),
        (b"\x30\x03abc", Ok(Some(5))),
        (b"\x30\x03abcd", Ok(Some(5))),
        (b"\xc0\x00\xc0\x00", Ok(Some(2))),
        (b"\x30\xff\xff\xff\x7f", Err(0x95)),
        (b"\x30\xff\xff\xff\xff", Err(0x81)),
        (b"\x30\x80\x80\x80\x80\x01", Err(0x81)),
        (b"\x30\x80\x00", Err(0x81)),
        (b"\x30\x83\x00abc", Err(0x81)),
        (b"\x30\xff\x80\x00", Err(0x81)),
        (b"\x30\xff\xff\x80\x00", Err(0x81)),
        // The payload looks like a length but is none.
        (b"\x30\x02\x80\x00", Ok(Some(4))),
    ] {
        let got = frame_len(bytes, LIMIT).map_err(|fault| fault.reason.as_u8());
        assert_eq!(got, expected, "{bytes:02x?}");
    }
}

#[test]
fn the_packet_size_limit_counts_the_whole_packet() {
    // Remaining length 997 and three bytes of header are 1000 bytes.
    assert_eq!(frame_len(b"\x30\xe5\x07", 1000), Ok(None));
    assert_eq!(
        frame_len(b"\x30\xe5\x07", 999).map_err(|fault| fault.reason),
        Err(ReasonCode::PacketTooLarge)
    );
    let mut whole = vec![0x30, 0xe5, 0x07];
    whole.resize(1000, 0);
    assert_eq!(frame_len(&whole, 1000), Ok(Some(1000)));
    assert_eq!(
        frame_len(b"\x30\xff\xff\xff\x7f", MAX_PACKET_SIZE),
        Ok(None)
    );
}
