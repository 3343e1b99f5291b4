use proptest::prelude::*;

use super::*;

/// One of each property, with the blocks that it is allowed in by table 2-4 of the standard.
fn all() -> Vec<(Property<'static>, Vec<BlockKind>)> {
    use BlockKind::{Ack, Auth, ConnAck, Connect, Disconnect, Publish, Subscribe, Will};
    use Property::*;
    vec![
        (PayloadFormatIndicator(1), vec![Publish, Will]),
        (MessageExpiryInterval(7), vec![Publish, Will]),
        (ContentType("text/é"), vec![Publish, Will]),
        (ResponseTopic("a/b"), vec![Publish, Will]),
        (CorrelationData(b"\0\xff"), vec![Publish, Will]),
        (
            SubscriptionIdentifier(268_435_455),
            vec![Publish, Subscribe],
        ),
        (
            SessionExpiryInterval(u32::MAX),
            vec![Connect, ConnAck, Disconnect],
        ),
        (AssignedClientIdentifier("me"), vec![ConnAck]),
        (ServerKeepAlive(0), vec![ConnAck]),
        (AuthenticationMethod("m"), vec![Connect, ConnAck, Auth]),
        (AuthenticationData(b""), vec![Connect, ConnAck, Auth]),
        (RequestProblemInformation(0), vec![Connect]),
        (WillDelayInterval(1), vec![Will]),
        (RequestResponseInformation(1), vec![Connect]),
        (ResponseInformation("r"), vec![ConnAck]),
        (ServerReference("other:1883"), vec![ConnAck, Disconnect]),
        (ReasonString(""), vec![ConnAck, Ack, Disconnect, Auth]),
        (ReceiveMaximum(1), vec![Connect, ConnAck]),
        (TopicAliasMaximum(0), vec![Connect, ConnAck]),
        (TopicAlias(65_535), vec![Publish]),
        (MaximumQos(1), vec![ConnAck]),
        (RetainAvailable(0), vec![ConnAck]),
        (UserProperty("k", ""), BlockKind::ALL.to_vec()),
        (MaximumPacketSize(1), vec![Connect, ConnAck]),
        (WildcardSubscriptionAvailable(0), vec![ConnAck]),
        (SubscriptionIdentifierAvailable(0), vec![ConnAck]),
        (SharedSubscriptionAvailable(0), vec![ConnAck]),
    ]
}

fn block(properties: &[Property<'_>]) -> Vec<u8> {
    let mut buf = PropertiesBuf::new();
    for property in properties {
        buf.push(*property);
    }
    buf.block
}

fn code(block: &[u8], kind: BlockKind) -> Option<u8> {
    Properties::parse(block, kind)
        .err()
        .map(|fault| fault.reason.as_u8())
}

#[test]
fn every_property_is_taken_where_it_belongs_and_is_0x81_elsewhere() {
    for (property, kinds) in all() {
        for kind in BlockKind::ALL {
            let needs_method = matches!(property, Property::AuthenticationData(_));
            let mut properties = vec![property];
            if needs_method {
                properties.push(Property::AuthenticationMethod("m"));
            }
            let block = block(&properties);
            let expected = if kinds.contains(&kind) {
                None
            } else {
                Some(0x81)
            };
            assert_eq!(code(&block, kind), expected, "{property:?} in {kind:?}");
            let read: Vec<_> = Properties::assume_valid(&block).iter().collect();
            assert_eq!(read, properties);
        }
    }
}

#[test]
fn a_property_that_comes_twice_is_0x82_but_for_user_properties_and_the_identifiers_of_a_publish() {
    for (property, kinds) in all() {
        for kind in kinds {
            let repeats = matches!(property, Property::UserProperty(..))
                || (matches!(property, Property::SubscriptionIdentifier(_))
                    && kind == BlockKind::Publish);
            let block = block(&[Property::UserProperty("a", "b"), property, property]);
            let expected = if repeats { None } else { Some(0x82) };
            assert_eq!(code(&block, kind), expected, "{property:?} in {kind:?}");
        }
    }
}

#[test]
fn a_property_cut_short_anywhere_is_0x81() {
    for (property, _) in all() {
        let whole = block(&[property]);
        for end in 1..whole.len() {
            for kind in BlockKind::ALL {
                assert_eq!(
                    code(&whole[..end], kind),
                    Some(0x81),
                    "{property:?} cut to {end} bytes"
                );
            }
        }
    }
}

#[test]
fn an_unknown_identifier_is_0x81() {
    let known: Vec<u8> = all().iter().map(|(p, _)| block(&[*p])[0]).collect();
    for id in (0..=255).filter(|id| !known.contains(id)) {
        for kind in BlockKind::ALL {
            assert_eq!(code(&[id, 1, 1, 1, 1, 1], kind), Some(0x81), "{id:#x}");
        }
    }
    assert_eq!(known.len(), 27);
}

#[test]
fn forbidden_values_have_their_reason_code() {
    use Property::*;
    for (property, kind, expected) in [
        (PayloadFormatIndicator(2), BlockKind::Publish, 0x82),
        (PayloadFormatIndicator(2), BlockKind::Will, 0x82),
        (ResponseTopic("a/+"), BlockKind::Publish, 0x82),
        (ResponseTopic("#"), BlockKind::Will, 0x82),
        (ResponseTopic(""), BlockKind::Publish, 0x82),
        (SubscriptionIdentifier(0), BlockKind::Subscribe, 0x82),
        (SubscriptionIdentifier(0), BlockKind::Publish, 0x82),
        (RequestProblemInformation(2), BlockKind::Connect, 0x82),
        (RequestResponseInformation(255), BlockKind::Connect, 0x82),
        (ReceiveMaximum(0), BlockKind::Connect, 0x82),
        (MaximumPacketSize(0), BlockKind::Connect, 0x82),
        (MaximumQos(2), BlockKind::ConnAck, 0x82),
        (RetainAvailable(2), BlockKind::ConnAck, 0x82),
        (WildcardSubscriptionAvailable(2), BlockKind::ConnAck, 0x82),
        (SubscriptionIdentifierAvailable(2), BlockKind::ConnAck, 0x82),
        (SharedSubscriptionAvailable(2), BlockKind::ConnAck, 0x82),
        (TopicAlias(0), BlockKind::Publish, 0x94),
        (AuthenticationData(b"x"), BlockKind::Connect, 0x82),
        (AuthenticationData(b"x"), BlockKind::Auth, 0x82),
    ] {
        assert_eq!(
            code(&block(&[property]), kind),
            Some(expected),
            "{property:?}"
        );
    }
}

#[test]
fn text_that_is_none_and_numbers_that_are_not_minimal_are_0x81() {
    for (block, kind) in [
        (&b"\x03\x00\x01\xff"[..], BlockKind::Publish),
        (b"\x03\x00\x03\xed\xa0\x80", BlockKind::Publish),
        (b"\x03\x00\x02a\x00", BlockKind::Publish),
        (b"\x26\x00\x01\xff\x00\x00", BlockKind::Ack),
        (b"\x26\x00\x00\x00\x01\x00", BlockKind::Ack),
        (b"\x0b\x80\x00", BlockKind::Subscribe),
        (b"\x0b\x80\x80\x80\x80\x01", BlockKind::Subscribe),
        (b"\x0b", BlockKind::Subscribe),
    ] {
        assert_eq!(code(block, kind), Some(0x81), "{block:02x?}");
    }
}

#[test]
fn reading_a_block_that_was_never_valid_stops_where_it_makes_no_sense_and_stays_there() {
    for block in [
        &b"\x01\x01\x03\x00\x01\xff\x01\x01"[..],
        b"\x01\x01\x00\x01\x01\x01\x01",
        b"\x01\x01\x03\x00\x09\x01\x01",
    ] {
        let mut read = Properties::assume_valid(block).iter();
        assert_eq!(read.next(), Some(Property::PayloadFormatIndicator(1)));
        assert_eq!((read.next(), read.next(), read.next()), (None, None, None));
    }
}

#[test]
fn getters_find_their_property_behind_all_others() {
    let block = block(&all().iter().map(|(p, _)| *p).collect::<Vec<_>>());
    let properties = Properties::assume_valid(&block);
    assert_eq!(properties.payload_format(), Some(1));
    assert_eq!(properties.message_expiry(), Some(7));
    assert_eq!(properties.content_type(), Some("text/é"));
    assert_eq!(properties.response_topic(), Some("a/b"));
    assert_eq!(properties.correlation_data(), Some(&b"\0\xff"[..]));
    assert_eq!(properties.subscription_identifier(), Some(268_435_455));
    assert_eq!(properties.session_expiry(), Some(u32::MAX));
    assert_eq!(properties.assigned_client_identifier(), Some("me"));
    assert_eq!(properties.server_keep_alive(), Some(0));
    assert_eq!(properties.authentication_method(), Some("m"));
    assert_eq!(properties.authentication_data(), Some(&b""[..]));
    assert_eq!(properties.request_problem_information(), Some(0));
    assert_eq!(properties.will_delay(), Some(1));
    assert_eq!(properties.request_response_information(), Some(1));
    assert_eq!(properties.response_information(), Some("r"));
    assert_eq!(properties.server_reference(), Some("other:1883"));
    assert_eq!(properties.reason_string(), Some(""));
    assert_eq!(properties.receive_maximum(), Some(1));
    assert_eq!(properties.topic_alias_maximum(), Some(0));
    assert_eq!(properties.topic_alias(), Some(65_535));
    assert_eq!(properties.maximum_qos(), Some(1));
    assert_eq!(properties.retain_available(), Some(0));
    assert_eq!(properties.maximum_packet_size(), Some(1));
    assert_eq!(properties.wildcard_subscription_available(), Some(0));
    assert_eq!(properties.subscription_identifier_available(), Some(0));
    assert_eq!(properties.shared_subscription_available(), Some(0));
    assert_eq!(
        properties.user_properties().collect::<Vec<_>>(),
        [("k", "")]
    );
    assert_eq!(Properties::EMPTY.topic_alias(), None);
}

#[test]
fn what_is_forwarded_is_the_same_block_or_a_copy_without_what_the_broker_says_anew() {
    use Property::*;
    let mut copy = PropertiesBuf::new();
    let kept = block(&[
        UserProperty("a", "b"),
        ContentType("c"),
        UserProperty("a", "b"),
    ]);
    let same = Properties::assume_valid(&kept).forwardable(&mut copy);
    assert_eq!(same.as_bytes().as_ptr(), kept.as_ptr());

    let sent = block(&[
        UserProperty("a", "b"),
        TopicAlias(1),
        MessageExpiryInterval(2),
        ContentType("c"),
        SubscriptionIdentifier(3),
        SubscriptionIdentifier(300),
        UserProperty("a", "b"),
        WillDelayInterval(4),
    ]);
    let sent = Properties::assume_valid(&sent);
    assert_eq!(
        sent.subscription_identifiers().collect::<Vec<_>>(),
        [3, 300]
    );
    copy.push(ReasonString("left over"));
    assert_eq!(sent.forwardable(&mut copy).as_bytes(), kept);
}

#[test]
fn what_explains_can_be_taken_out() {
    use Property::*;
    let block = block(&[
        ReasonString("why"),
        ServerKeepAlive(3),
        UserProperty("a", "b"),
    ]);
    let mut copy = PropertiesBuf::new();
    let left = Properties::assume_valid(&block).without_problem_information(&mut copy);
    assert_eq!(left.iter().collect::<Vec<_>>(), [ServerKeepAlive(3)]);
}

proptest! {
    #[test]
    fn no_block_makes_reading_panic_and_a_valid_one_reads_to_its_end(
        random in proptest::collection::vec(any::<u8>(), 0..60),
        picks in proptest::collection::vec(0..27_usize, 0..8),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let all = all();
        let mut near = block(&picks.iter().map(|pick| all[*pick].0).collect::<Vec<_>>());
        for (at, byte) in flips {
            if !near.is_empty() {
                let at = at.index(near.len());
                near[at] = byte;
            }
        }
        for block in [random, near] {
            let unchecked = Properties::assume_valid(&block);
            unchecked.iter().for_each(drop);
            unchecked.topic_alias();
            let mut copy = PropertiesBuf::new();
            unchecked.forwardable(&mut copy);
            for kind in BlockKind::ALL {
                let Ok(valid) = Properties::parse(&block, kind) else { continue };
                let mut again = PropertiesBuf::new();
                valid.iter().for_each(|property| again.push(property));
                prop_assert_eq!(again.as_properties().as_bytes(), &block[..]);
            }
        }
    }
}
