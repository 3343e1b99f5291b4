//! Records survive, and what is none is refused.

use proptest::prelude::*;

use super::*;

/// Decodes as everything; only a panic is wrong.
fn decode_all(bytes: &[u8]) {
    let _ = message(bytes);
    let _ = retained(bytes, "topic");
    let _ = session(bytes);
    let _ = subscription(bytes);
    let _ = group(bytes);
    let _ = will(bytes);
    let _ = delivery(bytes);
    let _ = delivery_size(bytes);
    let _ = received(bytes);
    let _ = inflight(bytes);
    let _ = bridge(bytes);
    let _ = message_id(bytes);
    let _ = spread(bytes);
    let _ = spread_size(bytes);
    let _ = number(bytes);
    let _ = reading(bytes);
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80), version in any::<bool>()) {
        if version && !bytes.is_empty() {
            bytes[0] = VERSION;
        }
        decode_all(&bytes);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(mut bytes in prop::collection::vec(any::<u8>(), 2..60), flags in 0u8..128) {
        (bytes[0], bytes[1]) = (VERSION, flags);
        let mut again = Vec::new();
        if let Ok(session) = session(&bytes) {
            put_session(&mut again, &session);
            prop_assert_eq!(&again, &bytes);
        }
        again.clear();
        if let Ok(subscription) = subscription(&bytes[..bytes.len().min(6)]) {
            put_subscription(&mut again, &subscription);
            prop_assert_eq!(&again, &bytes[..6]);
        }
        again.clear();
        if let Ok(number) = number(&bytes) {
            put_number(&mut again, number);
            prop_assert_eq!(&again, &bytes);
        }
        again.clear();
        if let Ok(reading) = reading(&bytes) {
            put_reading(&mut again, reading);
            prop_assert_eq!(&again, &bytes);
        }
    }

    #[test]
    fn messages_on_their_way_survive_their_record(records in prop::collection::vec((1u16.., any::<bool>(), any::<u64>()), 0..9)) {
        let record = |(id, released, seq)| InflightRecord {
            packet_id: PacketId::new(id).expect("not zero"),
            seq: Seq(seq),
            released,
        };
        let written: Vec<InflightRecord> = records.into_iter().map(record).collect();
        let mut bytes = Vec::new();
        put_inflight(&mut bytes, &written);
        prop_assert_eq!(inflight(&bytes), Ok(written));
        bytes.push(0);
        prop_assert!(inflight(&bytes).is_err());
    }

    #[test]
    fn a_bridge_survives_its_record(
        (remote_clientid, home, apart) in (".{0,9}", ".{0,9}", any::<bool>()),
        left in prop::collection::vec((".{0,5}", prop::collection::vec(1u16.., 0..4), prop::collection::vec(1u16.., 0..4)), 0..3),
    ) {
        let ids = |ids: Vec<u16>| ids.into_iter().filter_map(PacketId::new).collect();
        let written = BridgeRecord {
            remote_clientid: remote_clientid.into(),
            home: home.into(),
            apart,
            left: left
                .into_iter()
                .map(|(address, dirty, received)| LeftAddress {
                    address: address.into(),
                    dirty: ids(dirty),
                    received: ids(received),
                })
                .collect(),
        };
        let mut bytes = Vec::new();
        put_bridge(&mut bytes, &written);
        prop_assert_eq!(bridge(&bytes), Ok(written));
        for len in 0..bytes.len() {
            prop_assert!(bridge(&bytes[..len]).is_err());
        }
        bytes.push(0);
        prop_assert!(bridge(&bytes).is_err());
    }

    #[test]
    fn a_spread_survives_its_record(
        size in any::<u32>(),
        expires in any::<Option<u64>>(),
        receivers in prop::collection::vec((any::<u64>(), 1u8..3, any::<bool>(), prop::collection::vec(any::<u32>(), 0..3)), 0..5),
    ) {
        let receivers = receivers.into_iter().map(|(queue, qos, retain, ids)| SpreadReceiver {
            queue: QueueKey(queue),
            qos: super::qos(qos).expect("a QoS"),
            retain,
            subscription_ids: ids.into_iter().collect(),
        });
        let written = SpreadRecord {
            size,
            expires: expires.filter(|at| *at != 0),
            receivers: receivers.collect(),
        };
        let mut bytes = Vec::new();
        put_spread(&mut bytes, &written);
        prop_assert_eq!(spread_size(&bytes), Ok(size));
        prop_assert_eq!(spread(&bytes), Ok(written));
        bytes.push(0);
        prop_assert!(spread(&bytes).is_err());
    }

    #[test]
    fn a_delivery_survives_its_record(
        (qos, retain, released) in (0u8..3, any::<bool>(), any::<bool>()),
        packet_id in any::<u16>(),
        size in any::<u32>(),
        expires in any::<Option<u64>>(),
        ids in prop::collection::vec(any::<u32>(), 0..5),
    ) {
        let written = DeliveryRecord {
            qos: super::qos(qos).expect("a QoS"),
            retain,
            released,
            packet_id: PacketId::new(packet_id),
            size,
            expires,
            subscription_ids: ids.into_iter().collect(),
        };
        let mut bytes = Vec::new();
        put_delivery(&mut bytes, &written);
        prop_assert_eq!(delivery_size(&bytes), Ok(size));
        prop_assert_eq!(delivery(&bytes), Ok(written));
        bytes.push(0);
        prop_assert!(delivery(&bytes).is_err());
    }
}

#[test]
fn a_message_that_is_not_one_is_refused() {
    let message_of = |parts: Parts<'_>| {
        let mut bytes = Vec::new();
        put_message(&mut bytes, &Message::new(&parts));
        bytes
    };
    let parts = Parts {
        topic: "a",
        properties: Properties::EMPTY,
        payload: b"x",
        qos: QoS::AtLeastOnce,
        retain: false,
        expires: None,
        id: None,
    };
    let good = message_of(parts);
    assert_eq!(message(&good), Ok(Message::new(&parts)));
    assert_eq!(good.len(), MESSAGE_HEAD + 2);
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        message(&bytes)
    };
    assert_eq!(changed(0, 2), Err("its version is not 1"));
    assert_eq!(changed(1, 3), Err("no such QoS"));
    assert_eq!(changed(1, 128), Err("a flag without a meaning"));
    assert_eq!(changed(2, 1), Err("a value that is said not to be there"));
    assert_eq!(changed(1, 1 | ID), Err(SHORT));
    let named = Parts {
        id: NonZeroU64::new(7),
        ..parts
    };
    let mut named_bytes = message_of(named);
    assert_eq!(message(&named_bytes), Ok(Message::new(&named)));
    named_bytes[MESSAGE_HEAD] = 0;
    assert_eq!(message(&named_bytes), Err("identity 0"));
    assert_eq!(changed(10, 3), Err(SHORT));
    assert_eq!(changed(12, 2), Err(SHORT));
    assert_eq!(changed(16, 0xff), Err("a text that is not UTF-8"));
    assert!(retained(&good, "b").is_err(), "two topics");
    for len in 0..good.len() - 1 {
        assert!(message(&good[..len]).is_err(), "{len}");
    }
}

/// A retained message of an older program does not say who published it.
#[test]
fn a_retained_message_names_its_publisher_where_that_is_known() {
    let parts = Parts {
        topic: "a/b",
        properties: Properties::EMPTY,
        payload: b"x",
        qos: QoS::ExactlyOnce,
        retain: true,
        expires: Some(7),
        id: None,
    };
    let expected = Message::new(&parts);
    let named = |user: Option<&str>, acl: Option<&str>| Source {
        client_id: "pump-1".into(),
        user: user.map(Into::into),
        acl: acl.map(Into::into),
    };
    for source in [
        None,
        Some(named(None, None)),
        Some(named(Some("Zoë"), None)),
        Some(named(None, Some("acl/own"))),
        Some(named(Some(""), Some("acl/own"))),
    ] {
        let mut bytes = Vec::new();
        put_retained(&mut bytes, &expected, source.as_ref());
        assert_eq!(
            retained(&bytes, "a/b"),
            Ok((expected.clone(), source.clone()))
        );
        if source.is_some() {
            assert_eq!(message(&bytes), Err("a flag without a meaning"));
            for len in 0..bytes.len() - 1 {
                let cut = retained(&bytes[..len], "a/b");
                assert!(cut != Ok((expected.clone(), source.clone())), "{len}");
            }
        }
    }
}

/// A session of an older program has no user; one with a user names it before its client.
#[test]
fn a_session_names_its_user_if_it_has_one() {
    for user in [None, Some("Zoë"), Some("")] {
        let record = SessionRecord {
            client_id: "pump-1".into(),
            version: ProtocolVersion::V311,
            expiry: 7,
            disconnected_at: Some(1_800_000_000_000),
            user: user.map(Into::into),
        };
        let mut bytes = Vec::new();
        put_session(&mut bytes, &record);
        assert_eq!(bytes.len(), 21 + user.map_or(0, |user| 4 + user.len()));
        assert_eq!(session(&bytes), Ok(record));
        assert_eq!(session(&bytes[..14]), Err("it is cut short"));
    }
}
