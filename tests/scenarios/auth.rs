//! Enhanced authentication: the packets are understood, the methods are not offered.

use support::raw::{concat, frame, string};
use support::{Broker, Connect, Packet, Version, property};

#[test]
fn an_authentication_method_that_is_not_offered_is_refused_with_0x8c() {
    // [MQTT-4.12.0-1]
    let broker = Broker::start();
    for data in [None, Some(&[1, 2, 3][..])] {
        let connect = Connect::new(Version::V5, "auth").with(|p| {
            let p = p.text(property::AUTH_METHOD, "SCRAM-SHA-256");
            match data {
                Some(data) => p.binary(property::AUTH_DATA, data),
                None => p,
            }
        });
        let (mut client, connack) = connect.try_open(broker.addr());
        assert_eq!(connack.code, 0x8c);
        client.expect_closed();
    }
}

#[test]
fn an_auth_packet_without_a_method_in_connect_is_a_protocol_error() {
    // [MQTT-4.12.0-6], section 4.12.1
    let broker = Broker::start();
    let method = concat(&[&[0x15], &string("SCRAM")]);
    let len = [method.len() as u8];
    for (what, bytes) in [
        ("without anything", vec![0xf0, 0]),
        ("re-authenticate", vec![0xf0, 2, 0x19, 0]),
        (
            "with a method",
            frame(0xf0, &concat(&[&[0x19], &len, &method])),
        ),
    ] {
        println!("{what}");
        let mut client = Connect::new(Version::V5, "auth").open(broker.addr());
        client.send(&bytes);
        client.expect_disconnect(&[0x82]);
    }
}

#[test]
fn a_malformed_auth_packet_is_malformed() {
    // [MQTT-3.15.1-1] the reserved bits; reason codes other than 0x00, 0x18 and 0x19; cut short.
    let broker = Broker::start();
    for (bytes, reasons) in [
        (&[0xf1, 0][..], &[0x81][..]),
        (&[0xf0, 2, 0x42, 0], &[0x81, 0x82]),
        (&[0xf0, 3, 0x18, 5, 0x15], &[0x81]),
        (&[0xf0, 5, 0x18, 3, 0x21, 0, 1], &[0x81]),
    ] {
        let mut client = Connect::new(Version::V5, "auth").open(broker.addr());
        client.send(bytes);
        client.expect_disconnect(reasons);
    }
}

#[test]
fn an_auth_packet_closes_a_connection_of_mqtt_3() {
    // Type 15 is reserved there: [MQTT-2.2.1] and 3.1.1 section 4.8.
    let broker = Broker::start();
    for v in Version::V3 {
        let mut client = Connect::new(v, "auth").open(broker.addr());
        client.send(&[0xf0, 0]);
        client.expect_closed();
    }
}

#[test]
fn a_server_without_enhanced_authentication_sends_no_auth_properties() {
    // [MQTT-4.12.0-6]
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "plain").open(broker.addr());
    client.send(&[0xc0, 0]);
    assert_eq!(client.receive(), Packet::PingResp);
}
