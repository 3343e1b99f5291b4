//! Malformed and forbidden CONNECT and CONNACK packets, each with its reason code.

use super::malformed::*;
use crate::wire::packet::ProtocolVersion::V5;

/// Decodes a CONNECT with this name, level, flags and the bytes after the keep alive. Returns the
/// reason code.
fn connect(name: &str, level: u8, flags: u8, rest: &[u8]) -> u8 {
    let mut body = vec![0, name.len() as u8];
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(&[level, flags, 0, 10]);
    body.extend_from_slice(rest);
    code(&framed(0x10, &body), V5)
}

#[test]
fn connect_name_and_level() {
    for (name, level, rest, expected) in [
        ("MQIsdp", 3, &b"\0\x01c"[..], 0),
        ("MQIsdp", 0x83, b"\0\x01c", 0),
        ("MQTT", 4, b"\0\x01c", 0),
        ("MQTT", 0x84, b"\0\x01c", 0),
        ("MQTT", 5, b"\0\0\x01c", 0),
        ("MQTT", 0x85, b"\0\0\x01c", 0x84),
        ("MQTT", 3, b"\0\x01c", 0x84),
        ("MQTT", 6, b"\0\0\x01c", 0x84),
        ("MQTT", 0, b"\0\x01c", 0x84),
        ("MQIsdp", 4, b"\0\x01c", 0x84),
        ("MQIsdp", 5, b"\0\0\x01c", 0x84),
        ("mqtt", 4, b"\0\x01c", 0x84),
        ("", 4, b"\0\x01c", 0x84),
        ("HTTP", 5, b"\0\0\x01c", 0x84),
    ] {
        let got = connect(name, level, 0x02, rest);
        assert_eq!(
            got, expected,
            "{name} {level:#x} [MQTT-3.1.2-1, MQTT-3.1.2-2]"
        );
    }
    assert_eq!(code(b"\x10\x04\0\x02\xff\xfe", V5), 0x81, "not UTF-8");
    assert_eq!(code(b"\x10\x03\0\x04M", V5), 0x81, "past the end");
    assert_eq!(code(b"\x10\x06\0\x04MQTT", V5), 0x81, "no level");
    assert_eq!(code(b"\x10\x00", V5), 0x81, "nothing");
}

#[test]
fn connect_flags_and_payload() {
    let will = b"\0\x01c\0\x01w\0\x02hi";
    let will_5 = b"\0\0\x01c\0\0\x01w\0\x02hi";
    let cases: &[(&str, u8, u8, &[u8], u8)] = &[
        ("reserved flag [MQTT-3.1.2-3]", 4, 0x03, b"\0\x01c", 0x81),
        ("reserved flag [MQTT-3.1.2-3]", 5, 0x03, b"\0\0\x01c", 0x81),
        ("bit 0 is not used in MQTT 3.1", 3, 0x03, b"\0\x01c", 0),
        ("will", 4, 0x2e, will, 0),
        ("will", 5, 0x2e, will_5, 0),
        ("will QoS 3 [MQTT-3.1.2-12]", 3, 0x1e, will, 0x81),
        ("will QoS 3 [MQTT-3.1.2-12]", 4, 0x1e, will, 0x81),
        ("will QoS 3 [MQTT-3.1.2-12]", 5, 0x1e, will_5, 0x81),
        (
            "will QoS without will [MQTT-3.1.2-11]",
            4,
            0x0a,
            b"\0\x01c",
            0x81,
        ),
        (
            "will QoS without will [MQTT-3.1.2-11]",
            5,
            0x0a,
            b"\0\0\x01c",
            0x81,
        ),
        (
            "will retain without will [MQTT-3.1.2-13]",
            4,
            0x22,
            b"\0\x01c",
            0x81,
        ),
        (
            "will retain without will [MQTT-3.1.2-13]",
            5,
            0x22,
            b"\0\0\x01c",
            0x81,
        ),
        (
            "MQTT 3.1 uses these bits only with a will",
            3,
            0x3a,
            b"\0\x01c",
            0,
        ),
        ("will flag without a will", 4, 0x06, b"\0\x01c", 0x81),
        (
            "will flag without a payload",
            4,
            0x06,
            b"\0\x01c\0\x01w",
            0x81,
        ),
        (
            "will topic with a wildcard",
            5,
            0x06,
            b"\0\0\x01c\0\0\x01#\0\0",
            0x81,
        ),
        (
            "will topic with a wildcard",
            4,
            0x06,
            b"\0\x01c\0\x01+\0\0",
            0x81,
        ),
        ("empty will topic", 4, 0x06, b"\0\x01c\0\0\0\0", 0x81),
        (
            "will topic not UTF-8 [MQTT-3.1.3-11]",
            5,
            0x06,
            b"\0\0\x01c\0\0\x01\xff\0\0",
            0x81,
        ),
        (
            "will with a property of CONNECT",
            5,
            0x06,
            b"\0\0\x01c\x03\x21\0\x01\0\x01w\0\0",
            0x81,
        ),
        (
            "password without user name",
            3,
            0x42,
            b"\0\x01c\0\x01p",
            0x81,
        ),
        (
            "password without user name",
            4,
            0x42,
            b"\0\x01c\0\x01p",
            0x81,
        ),
        (
            "password without user name is allowed",
            5,
            0x42,
            b"\0\0\x01c\0\x01p",
            0,
        ),
        ("binary password", 4, 0xc2, b"\0\x01c\0\x01u\0\x02\xff\0", 0),
        (
            "user name not UTF-8 [MQTT-3.1.3-12]",
            5,
            0x82,
            b"\0\0\x01c\0\x01\xff",
            0x81,
        ),
        ("no user name [MQTT-3.1.2-17]", 4, 0x82, b"\0\x01c", 0x81),
        ("no user name [MQTT-3.1.2-17]", 5, 0x82, b"\0\0\x01c", 0x81),
        (
            "MQTT 3.1 does not miss the user name",
            3,
            0x82,
            b"\0\x01c",
            0,
        ),
        (
            "MQTT 3.1 does not miss the password",
            3,
            0xc2,
            b"\0\x01c\0\x01u",
            0,
        ),
        (
            "no password [MQTT-3.1.2-19]",
            4,
            0xc2,
            b"\0\x01c\0\x01u",
            0x81,
        ),
        (
            "a password too many [MQTT-3.1.2-18]",
            4,
            0x82,
            b"\0\x01c\0\x01u\0\x01p",
            0x81,
        ),
        ("bytes after the last field", 3, 0x02, b"\0\x01cx", 0x81),
        ("bytes after the last field", 4, 0x02, b"\0\x01cx", 0x81),
        ("bytes after the last field", 5, 0x02, b"\0\0\x01cx", 0x81),
        ("no client identifier", 4, 0x02, b"", 0x81),
        ("client identifier past the end", 4, 0x02, b"\0\x09c", 0x81),
        (
            "client identifier not UTF-8 [MQTT-3.1.3-4]",
            4,
            0x02,
            b"\0\x01\xff",
            0x81,
        ),
        (
            "client identifier with U+0000",
            5,
            0x02,
            b"\0\0\x02c\0",
            0x81,
        ),
        (
            "empty client identifier is for the broker",
            4,
            0x00,
            b"\0\0",
            0,
        ),
        ("receive maximum 0", 5, 0x02, b"\x03\x21\0\0\0\x01c", 0x82),
        (
            "receive maximum twice",
            5,
            0x02,
            b"\x06\x21\0\x01\x21\0\x01\0\x01c",
            0x82,
        ),
        (
            "topic alias in CONNECT",
            5,
            0x02,
            b"\x03\x23\0\x01\0\x01c",
            0x81,
        ),
        (
            "authentication data without method",
            5,
            0x02,
            b"\x03\x16\0\0\0\x01c",
            0x82,
        ),
        ("properties past the end", 5, 0x02, b"\x7f\0\x01c", 0x81),
    ];
    for (name, level, flags, rest, expected) in cases {
        let protocol = if *level == 3 { "MQIsdp" } else { "MQTT" };
        let got = connect(protocol, *level, *flags, rest);
        assert_eq!(got, *expected, "{name} at level {level}: {got:#04x}");
    }
}

#[test]
fn connack() {
    check(&[
        ("refused", V3, 0x20, b"\0\x05", 0),
        ("unknown return code", V3, 0x20, b"\0\x06", 0x82),
        (
            "reserved flags [MQTT-3.2.2-1]",
            ONLY_311,
            0x20,
            b"\x02\0",
            0x81,
        ),
        (
            "reserved flags [MQTT-3.2.2-1]",
            ONLY_5,
            0x20,
            b"\x03\0\0",
            0x81,
        ),
        (
            "flags are not used in MQTT 3.1",
            ONLY_31,
            0x20,
            b"\xff\0",
            0,
        ),
        (
            "refused with a session [MQTT-3.2.2-6]",
            ONLY_311,
            0x20,
            b"\x01\x02",
            0x82,
        ),
        (
            "refused with a session [MQTT-3.2.2-6]",
            ONLY_5,
            0x20,
            b"\x01\x80\0",
            0x82,
        ),
        ("no properties", ONLY_5, 0x20, b"\0\0", 0x81),
        (
            "a code of DISCONNECT [MQTT-3.2.2-8]",
            ONLY_5,
            0x20,
            b"\0\x8e\0",
            0x82,
        ),
        ("no reason code", ALL, 0x20, b"\0", 0x81),
        ("trailing byte", V3, 0x20, b"\0\0\0", 0x81),
        ("trailing byte", ONLY_5, 0x20, b"\0\0\0\0", 0x81),
    ]);
}
