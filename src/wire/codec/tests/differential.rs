//! Compares our codec with the packet types of mqttbytes, except where those are wrong: mqttbytes
//! decodes what we encode and encodes it again, and we decode that.

use bytes::BytesMut;
use mqttbytes::{v4, v5};
use proptest::prelude::*;

use super::super::*;
use super::round_trip::{KINDS, Values, block_kind, values};
use crate::wire::PacketId;
use crate::wire::packet::*;
use crate::wire::property::{BlockKind, PropertiesBuf, Property};

#[path = "../../../../tests/fuzz/mqttbytes.rs"]
mod mqttbytes_opinion;

use mqttbytes_opinion::{is_right_there, take_properties, through};

use ProtocolVersion::{V5, V311};

fn without_identifiers(block: &PropertiesBuf) -> PropertiesBuf {
    let mut kept = PropertiesBuf::new();
    for property in block.as_properties().iter() {
        if !matches!(property, Property::SubscriptionIdentifier(_)) {
            kept.push(property);
        }
    }
    kept
}

fn compare(values: &Values, kind: u8, version: ProtocolVersion) -> Result<bool, TestCaseError> {
    let block = without_identifiers(&values.block(version, block_kind(kind)));
    let will = values.block(version, BlockKind::Will);
    let (block, will) = (block.as_properties(), will.as_properties());
    let packet = values.packet(kind, version, block, will);
    let Some(mut packet) = packet.filter(|packet| is_right_there(packet, version)) else {
        return Ok(false);
    };
    let mut frame = Vec::new();
    encode(&packet, version, &mut frame);
    let theirs = through(&frame, version)
        .map_err(|error| TestCaseError::fail(format!("{packet:?}: {error}")))?;
    if block.is_empty() && will.is_empty() {
        prop_assert_eq!(&theirs[..], &frame[..], "{:?}", packet);
    }
    let mut read = decode(&theirs, version)
        .map_err(|fault| TestCaseError::fail(format!("{packet:?}: {fault}")))?;
    prop_assert_eq!(take_properties(&mut read), take_properties(&mut packet));
    prop_assert_eq!(read, packet);
    Ok(true)
}

proptest! {
    #[test]
    fn mqttbytes_reads_what_we_write_and_writes_what_we_read(values in values()) {
        for kind in KINDS.filter(|kind| *kind != 15) {
            compare(&values, kind, V311)?;
            compare(&values, kind, V5)?;
        }
    }
}

#[test]
fn every_kind_of_packet_is_compared() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    for version in [V311, V5] {
        for kind in KINDS.filter(|kind| *kind != 15) {
            let compared = (0..200).any(|_| {
                let tree = values().new_tree(&mut runner).expect("values can be made");
                compare(&tree.current(), kind, version).is_ok_and(|compared| compared)
            });
            assert!(compared, "type {kind} in {version:?}");
        }
    }
}

/// Decodes frames that mqttbytes encoded, and checks each field.
#[test]
fn what_mqttbytes_builds_reads_field_by_field() {
    let mut out = BytesMut::new();
    let mut connect = v4::Connect::new("c1");
    connect.set_login("me", "secret");
    connect.keep_alive = 30;
    connect.last_will = Some(v4::LastWill::new(
        "w/t",
        "bye",
        mqttbytes::QoS::AtLeastOnce,
        true,
    ));
    connect.write(&mut out).expect("mqttbytes writes a CONNECT");
    let Ok(Packet::Connect(read)) = decode(&out, V5) else {
        panic!("a CONNECT of MQTT 3.1.1");
    };
    assert_eq!(read.version, V311);
    assert_eq!((read.client_id, read.keep_alive), ("c1", 30));
    assert_eq!(read.username, Some("me"));
    assert_eq!(read.password, Some(&b"secret"[..]));
    let will = read.will.expect("a will");
    assert_eq!((will.topic, will.payload), ("w/t", &b"bye"[..]));
    assert!(will.retain && read.clean_start && !read.bridge);

    let mut out = BytesMut::new();
    let mut publish = v5::Publish::new("a/b", mqttbytes::QoS::ExactlyOnce, "hello");
    publish.pkid = 77;
    publish.dup = true;
    publish.write(&mut out).expect("mqttbytes writes a PUBLISH");
    let Ok(Packet::Publish(read)) = decode(&out, V5) else {
        panic!("a PUBLISH");
    };
    assert_eq!((read.topic, read.payload), ("a/b", &b"hello"[..]));
    assert_eq!(read.packet_id, PacketId::new(77));
    assert!(read.dup && !read.retain);
}
