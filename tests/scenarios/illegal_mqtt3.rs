//! Malformed and illegal packets of MQTT 3 after CONNECT: the connection is closed, 3.1.1:
//! [MQTT-4.8.0-1].

use support::raw::{concat, frame, string, subscribe3};
use support::{Broker, Connect, Version};

fn closes(what: &str, bytes: &[u8]) {
    closes_in(&Version::V3, what, bytes);
}

fn closes_in(versions: &[Version], what: &str, bytes: &[u8]) {
    BROKER.with(|broker| {
        for &v in versions {
            println!("{what} in MQTT {v}: {bytes:02x?}");
            let mut client = Connect::new(v, "illegal").open(broker.addr());
            client.send(bytes);
            client.expect_closed();
        }
    });
}

thread_local! {
    static BROKER: Broker = Broker::start();
}

#[test]
fn a_second_connect_closes() {
    // [MQTT-3.1.0-2]
    for v in Version::V3 {
        let connect = Connect::new(v, "illegal").bytes();
        closes_in(&[v], "second CONNECT", &connect);
    }
}

#[test]
fn packets_that_only_servers_send_close() {
    closes("CONNACK", &[0x20, 2, 0, 0]);
    closes("SUBACK", &[0x90, 3, 0, 1, 0]);
    closes("UNSUBACK", &[0xb0, 2, 0, 1]);
    closes("PINGRESP", &[0xd0, 0]);
    closes("type 0", &[0x00, 0]);
    closes("type 15", &[0xf0, 0]);
}

#[test]
fn reserved_header_bits_close() {
    // 3.1.1: [MQTT-2.2.2-2], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1]. In
    // MQTT 3.1 the bits of these packets were DUP and QoS, and receivers were not told to check
    // them.
    let only = |what: &str, bytes: &[u8]| closes_in(&[Version::V311], what, bytes);
    only("PUBREL", &[0x60, 2, 0, 1]);
    only("SUBSCRIBE", &subscribe3(0x80, 1, b"t", 0));
    only(
        "UNSUBSCRIBE",
        &frame(0xa0, &concat(&[&[0, 1], &string("t")])),
    );
    only("PUBACK", &[0x41, 2, 0, 1]);
    only("PINGREQ", &[0xc1, 0]);
    only("DISCONNECT", &[0xe1, 0]);
}

#[test]
fn a_remaining_length_of_more_than_four_bytes_closes() {
    closes("five bytes", &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]);
}

#[test]
fn publishes_that_contradict_themselves_close() {
    // 3.1.1: [MQTT-3.3.1-4], [MQTT-2.3.1-1], [MQTT-3.3.2-2], [MQTT-4.7.3-1]
    closes("QoS 3", &frame(0x36, &concat(&[&string("t"), &[0, 1]])));
    closes(
        "identifier 0",
        &frame(0x32, &concat(&[&string("t"), &[0, 0]])),
    );
    closes("wildcard", &frame(0x30, &string("t/#")));
    closes("wildcard", &frame(0x30, &string("+")));
    closes("no topic", &frame(0x30, &string("")));
    closes("no identifier", &frame(0x32, &string("t")));
    closes("topic cut short", &[0x30, 3, 0, 5, b'a']);
    // 3.1.1: [MQTT-3.3.1-2]
    closes_in(&[Version::V311], "DUP at QoS 0", &frame(0x38, &string("t")));
}

#[test]
fn text_that_is_not_utf_8_closes() {
    // 3.1.1: [MQTT-1.5.3-1], [MQTT-1.5.3-2]
    for text in [&[0xff][..], &[0xed, 0xa0, 0x80], &[b'a', 0], &[0xc0, 0xaf]] {
        closes("topic name", &frame(0x30, &string(text)));
        closes("topic filter", &subscribe3(0x82, 1, text, 0));
        closes(
            "unsubscribed filter",
            &frame(0xa2, &concat(&[&[0, 1], &string(text)])),
        );
    }
}

#[test]
fn subscribes_that_are_illegal_close() {
    // 3.1.1: [MQTT-3.8.3-3], [MQTT-3-8.3-4], [MQTT-2.3.1-1]
    closes("no filters", &[0x82, 2, 0, 1]);
    closes("QoS 3", &subscribe3(0x82, 1, b"t", 3));
    closes("identifier 0", &subscribe3(0x82, 0, b"t", 0));
    closes("no QoS", &[0x82, 5, 0, 1, 0, 1, b'a']);
    closes("cut short", &[0x82, 5, 0, 1, 0, 9, b'a']);
    closes_in(
        &[Version::V311],
        "reserved bits",
        &subscribe3(0x82, 1, b"t", 4),
    );
}

#[test]
fn unsubscribes_that_are_illegal_close() {
    // 3.1.1: [MQTT-3.10.3-2]
    closes("no filters", &[0xa2, 2, 0, 1]);
    closes(
        "identifier 0",
        &frame(0xa2, &concat(&[&[0, 0], &string("t")])),
    );
    closes("cut short", &[0xa2, 5, 0, 1, 0, 9, b'a']);
}

#[test]
fn acknowledgements_that_are_illegal_close() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        closes("identifier 0", &[first, 2, 0, 0]);
        closes("no identifier", &[first, 0]);
        closes("bytes behind", &[first, 3, 0, 1, 0]);
    }
    closes("PINGREQ with a body", &[0xc0, 1, 0]);
    closes("DISCONNECT with a body", &[0xe0, 1, 0]);
}

#[test]
fn a_packet_that_is_too_large_closes() {
    let Some(broker) = Broker::with("[limits]\nmax_packet_size = \"1KB\"\n") else {
        return;
    };
    for v in Version::V3 {
        let mut client = Connect::new(v, "large").open(broker.addr());
        client.send(&[0x30, 0xff, 0xff, 0x7f]);
        client.expect_closed();
    }
}
