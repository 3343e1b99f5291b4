//! Random packets decode to what was encoded, and random bytes never panic.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::codes::{self, CodeTable};
use super::super::*;
use crate::wire::field::put_varint;
use crate::wire::packet::*;
use crate::wire::property::{BlockKind, Properties, PropertiesBuf, Property};
use crate::wire::{PacketId, QoS, topic};

use ProtocolVersion::{V5, V31, V311};

/// The packet types of the fixed header.
pub(super) const KINDS: std::ops::RangeInclusive<u8> = 1..=15;

/// The random values that packets are built from.
#[derive(Clone, Debug)]
pub(super) struct Values {
    texts: [String; 3],
    topic: String,
    data: Vec<u8>,
    packet_id: PacketId,
    number: u32,
    flags: u8,
    filters: Vec<(String, u8)>,
    codes: Vec<Index>,
    picks: Vec<u8>,
}

pub(super) fn values() -> impl Strategy<Value = Values> {
    let text = "[a-zé日\u{1}\u{feff}\u{2a6d4}/+#$]{0,12}";
    let name = "[a-z/$é日]{1,12}|[a-z]{120,140}";
    let number = prop_oneof![any::<u32>(), 0..4_u32, Just(u32::MAX)];
    (
        [text, text, text],
        name,
        prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 16_370..16_400)],
        (1..=u16::MAX).prop_filter_map("not zero", PacketId::new),
        number,
        any::<u8>(),
        vec(("[a-z/+#$é]{0,9}|\\$share/g/[a-z]{1,3}", any::<u8>()), 1..5),
        vec(any::<Index>(), 1..40),
        vec(0..27_u8, 0..7),
    )
        .prop_map(
            |(texts, topic, data, packet_id, number, flags, filters, codes, picks)| Values {
                texts,
                topic,
                data,
                packet_id,
                number,
                flags,
                filters,
                codes,
                picks,
            },
        )
}

impl Values {
    fn flag(&self, bit: u8) -> bool {
        self.flags >> bit & 1 == 1
    }

    fn qos(&self) -> QoS {
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(self.flags % 3)]
    }

    fn code(&self, at: usize, table: CodeTable) -> ReasonCode {
        let carried: Vec<_> = (0..=255)
            .filter_map(|value| codes::reason(value, table).ok())
            .collect();
        self.codes[at % self.codes.len()].get(&carried).to_owned()
    }

    fn property(&self, pick: u8) -> Property<'_> {
        use Property::*;
        let bit = u8::from(self.flag(3));
        let short = self.number as u16;
        match pick {
            0 => PayloadFormatIndicator(bit),
            1 => MessageExpiryInterval(self.number),
            2 => ContentType(&self.texts[0]),
            3 => ResponseTopic(&self.topic),
            4 => CorrelationData(&self.data),
            5 => SubscriptionIdentifier(self.number % MAX_VARINT as u32 + 1),
            6 => SessionExpiryInterval(self.number),
            7 => AssignedClientIdentifier(&self.texts[1]),
            8 => ServerKeepAlive(short),
            9 => AuthenticationMethod(&self.texts[2]),
            10 => AuthenticationData(&self.data),
            11 => RequestProblemInformation(bit),
            12 => WillDelayInterval(self.number),
            13 => RequestResponseInformation(bit),
            14 => ResponseInformation(&self.texts[0]),
            15 => ServerReference(&self.texts[1]),
            16 => ReasonString(&self.texts[2]),
            17 => ReceiveMaximum(short.max(1)),
            18 => TopicAliasMaximum(short),
            19 => TopicAlias(short.max(1)),
            20 => MaximumQos(bit),
            21 => RetainAvailable(bit),
            22 => MaximumPacketSize(self.number.max(1)),
            23 => WildcardSubscriptionAvailable(bit),
            24 => SubscriptionIdentifierAvailable(bit),
            25 => SharedSubscriptionAvailable(bit),
            _ => UserProperty(&self.texts[0], &self.texts[1]),
        }
    }

    /// Builds a block of the picked properties, without those that are not allowed there.
    pub(super) fn block(&self, version: ProtocolVersion, block_kind: BlockKind) -> PropertiesBuf {
        let mut block = PropertiesBuf::new();
        if version != V5 {
            return block;
        }
        for pick in &self.picks {
            let mut longer = block.clone();
            longer.push(self.property(*pick));
            if Properties::parse(longer.as_properties().as_bytes(), block_kind).is_ok() {
                block = longer;
            }
        }
        block
    }

    /// Builds a packet of this type. Returns `None` if the version does not have it.
    pub(super) fn packet<'a>(
        &'a self,
        kind: u8,
        version: ProtocolVersion,
        properties: Properties<'a>,
        will: Properties<'a>,
    ) -> Option<Packet<'a>> {
        let v5 = version == V5;
        let ack = |table| Ack {
            packet_id: self.packet_id,
            reason: if v5 {
                self.code(0, table)
            } else {
                ReasonCode::Success
            },
            properties,
        };
        Some(match kind {
            1 => Packet::Connect(Box::new(self.connect(version, properties, will))),
            2 => Packet::ConnAck(self.connack(version, properties)),
            3 => Packet::Publish(self.publish(properties)),
            4 => Packet::PubAck(ack(CodeTable::PubAck)),
            5 => Packet::PubRec(ack(CodeTable::PubAck)),
            6 => Packet::PubRel(ack(CodeTable::PubRel)),
            7 => Packet::PubComp(ack(CodeTable::PubRel)),
            8 => Packet::Subscribe(self.subscribe(v5, properties)),
            9 => Packet::SubAck(self.suback(version, properties)),
            10 => Packet::Unsubscribe(Unsubscribe {
                packet_id: self.packet_id,
                properties,
                filters: self
                    .filters
                    .iter()
                    .map(|(filter, _)| filter.as_str())
                    .collect(),
            }),
            11 => Packet::UnsubAck(SubAck {
                packet_id: self.packet_id,
                properties,
                codes: (0..if v5 { self.codes.len() } else { 0 })
                    .map(|at| self.code(at, CodeTable::UnsubAck))
                    .collect(),
            }),
            12 => Packet::PingReq,
            13 => Packet::PingResp,
            14 => Packet::Disconnect(Disconnect {
                reason: if v5 {
                    self.code(0, CodeTable::Disconnect)
                } else {
                    ReasonCode::Success
                },
                properties,
            }),
            _ if v5 && properties.authentication_method().is_some() => Packet::Auth(Disconnect {
                reason: self.code(0, CodeTable::Auth),
                properties,
            }),
            _ => return None,
        })
    }

    fn connect<'a>(
        &'a self,
        version: ProtocolVersion,
        properties: Properties<'a>,
        will: Properties<'a>,
    ) -> Connect<'a> {
        let username = self.flag(4).then_some(self.texts[1].as_str());
        let may_have_password = username.is_some() || version == V5;
        Connect {
            version,
            bridge: self.flag(5) && version != V5,
            clean_start: self.flag(6),
            keep_alive: self.number as u16,
            client_id: &self.texts[0],
            will: self.flag(7).then_some(Will {
                topic: &self.topic,
                payload: &self.data,
                qos: self.qos(),
                retain: self.flag(0),
                properties: will,
            }),
            username,
            password: (may_have_password && self.flag(1)).then_some(&self.data),
            properties,
        }
    }

    fn connack<'a>(&'a self, version: ProtocolVersion, properties: Properties<'a>) -> ConnAck<'a> {
        let reason = match version {
            V5 => self.code(0, CodeTable::ConnAck),
            _ => [0x00, 0x84, 0x85, 0x88, 0x86, 0x87]
                .map(ReasonCode::from_u8)
                .get(usize::from(self.flags >> 1) % 6)
                .copied()
                .flatten()
                .expect("six codes that exist"),
        };
        ConnAck {
            session_present: self.flag(0) && version != V31 && reason == ReasonCode::Success,
            reason,
            properties,
        }
    }

    fn publish<'a>(&'a self, properties: Properties<'a>) -> Publish<'a> {
        let qos = self.qos();
        let aliased = properties.topic_alias().is_some() && self.flag(2);
        Publish {
            dup: self.flag(1) && qos != QoS::AtMostOnce,
            qos,
            retain: self.flag(0),
            topic: if aliased { "" } else { &self.topic },
            packet_id: (qos != QoS::AtMostOnce).then_some(self.packet_id),
            properties,
            payload: &self.data,
        }
    }

    fn subscribe<'a>(&'a self, v5: bool, properties: Properties<'a>) -> Subscribe<'a> {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        let handling = [
            RetainHandling::OnSubscribe,
            RetainHandling::IfNew,
            RetainHandling::Never,
        ];
        let filter = |(filter, bits): &'a (String, u8)| {
            let mut options = SubscribeOptions::with_qos(qos[usize::from(bits % 3)]);
            if v5 {
                options.no_local = bits & 0x10 != 0 && !filter.starts_with("$share/");
                options.retain_as_published = bits & 0x20 != 0;
                options.retain_handling = handling[usize::from(bits >> 6) % 3];
            }
            (filter.as_str(), options)
        };
        Subscribe {
            packet_id: self.packet_id,
            properties,
            filters: self.filters.iter().map(filter).collect(),
        }
    }

    fn suback<'a>(&'a self, version: ProtocolVersion, properties: Properties<'a>) -> SubAck<'a> {
        let code = |at| match (version, self.code(at, CodeTable::SubAck)) {
            (V31 | V311, code) if code.is_error() => ReasonCode::UnspecifiedError,
            (_, code) => code,
        };
        SubAck {
            packet_id: self.packet_id,
            properties,
            codes: (0..self.codes.len()).map(code).collect(),
        }
    }
}

/// Returns the kind of property block that a packet type has.
pub(super) fn block_kind(kind: u8) -> BlockKind {
    match kind {
        1 => BlockKind::Connect,
        2 => BlockKind::ConnAck,
        3 => BlockKind::Publish,
        8 => BlockKind::Subscribe,
        10 => BlockKind::Unsubscribe,
        14 => BlockKind::Disconnect,
        15 => BlockKind::Auth,
        _ => BlockKind::Ack,
    }
}

fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, version, &mut out);
    out
}

proptest! {
    #[test]
    fn every_packet_decodes_to_what_was_encoded_in_every_version(values in values()) {
        for version in [V31, V311, V5] {
            for kind in KINDS {
                let block = values.block(version, block_kind(kind));
                let will = values.block(version, BlockKind::Will);
                let Some(packet) = values.packet(kind, version, block.as_properties(), will.as_properties()) else {
                    continue;
                };
                let mut out = b"before".to_vec();
                encode(&packet, version, &mut out);
                prop_assert!(out.starts_with(b"before"));
                let frame = &out[6..];
                prop_assert_eq!(frame_len(frame, MAX_PACKET_SIZE), Ok(Some(frame.len())));
                prop_assert_eq!(frame[0] >> 4, kind);
                prop_assert_eq!(decode(frame, version), Ok(packet.clone()));
                if let Packet::Publish(publish) = &packet {
                    prop_assert_eq!(publish_len(publish, version), frame.len());
                }
            }
        }
    }

    #[test]
    fn encode_within_keeps_to_the_limit_and_drops_only_what_explains(values in values(), limit in 0..200_u32) {
        for version in [V311, V5] {
            for kind in KINDS {
                let block = values.block(version, block_kind(kind));
                let Some(packet) = values.packet(kind, version, block.as_properties(), Properties::EMPTY) else {
                    continue;
                };
                let whole = encoded(&packet, version);
                let mut out = b"before".to_vec();
                let fits = encode_within(&packet, version, limit, &mut out);
                prop_assert_eq!(fits, out.len() > 6);
                prop_assert!(out.len() - 6 <= limit as usize);
                if whole.len() <= limit as usize {
                    prop_assert_eq!(&out[6..], &whole[..]);
                } else if fits {
                    let shortened = decode(&out[6..], version);
                    prop_assert!(shortened.is_ok() && out.len() - 6 < whole.len());
                    prop_assert!(!matches!(packet, Packet::Publish(_) | Packet::Connect(_)));
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic_and_what_decodes_encodes_to_the_same_packet(
        values in values(),
        kind in KINDS,
        flips in vec((any::<Index>(), any::<u8>()), 0..4),
        cut in prop_oneof![Just(None), any::<Index>().prop_map(Some)],
        random in vec(any::<u8>(), 0..80),
    ) {
        for version in [V31, V311, V5] {
            let block = values.block(version, block_kind(kind));
            let packet = values.packet(kind, version, block.as_properties(), Properties::EMPTY);
            let whole = packet.map_or_else(Vec::new, |packet| encoded(&packet, version));
            for mut bytes in [whole, random.clone()] {
                for (at, byte) in &flips {
                    if !bytes.is_empty() {
                        let at = at.index(bytes.len());
                        bytes[at] = *byte;
                    }
                }
                check_any(&bytes, version)?;
                // The same bytes with the right length, so that the body is decoded too.
                let Some((first, body)) = bytes.split_first() else { continue };
                let body = body.get(body.iter().take_while(|byte| **byte > 0x7f).count() + 1..).unwrap_or(&[]);
                let body = &body[..cut.map_or(body.len(), |cut| cut.index(body.len() + 1))];
                let mut framed = vec![*first];
                put_varint(&mut framed, body.len());
                framed.extend_from_slice(body);
                check_any(&framed, version)?;
            }
        }
    }
}

/// Checks that a packet decoded from any bytes is valid in the model and survives encoding.
fn check_any(bytes: &[u8], version: ProtocolVersion) -> Result<(), TestCaseError> {
    if let Ok(Some(len)) = frame_len(bytes, MAX_PACKET_SIZE) {
        prop_assert!(len <= bytes.len());
    }
    let Ok(packet) = decode(bytes, version) else {
        return Ok(());
    };
    if let Packet::Publish(publish) = &packet {
        let named = topic::is_valid_name(publish.topic);
        prop_assert!(named || publish.properties.topic_alias().is_some());
    }
    let again = encoded(&packet, version);
    prop_assert_eq!(decode(&again, version), Ok(packet));
    Ok(())
}

#[test]
fn acknowledgements_are_as_short_as_their_version_allows() {
    let id = PacketId::FIRST;
    let mut block = PropertiesBuf::new();
    block.push(Property::ReasonString("r"));
    let ack = |reason, properties| {
        Packet::PubAck(Ack {
            packet_id: id,
            reason,
            properties,
        })
    };
    let (success, full) = (ReasonCode::Success, ReasonCode::QuotaExceeded);
    let with = block.as_properties();
    let none = Properties::EMPTY;
    assert_eq!(encoded(&ack(success, none), V5), b"\x40\x02\0\x01");
    assert_eq!(encoded(&ack(full, none), V5), b"\x40\x03\0\x01\x97");
    assert_eq!(
        encoded(&ack(success, with), V5),
        b"\x40\x08\0\x01\0\x04\x1f\0\x01r"
    );
    assert_eq!(encoded(&ack(full, with), V311), b"\x40\x02\0\x01");
    let end = |reason, properties| Packet::Disconnect(Disconnect { reason, properties });
    assert_eq!(encoded(&end(success, none), V5), b"\xe0\0");
    assert_eq!(encoded(&end(full, none), V5), b"\xe0\x01\x97");
    assert_eq!(
        encoded(&end(full, with), V5),
        b"\xe0\x06\x97\x04\x1f\0\x01r"
    );
    assert_eq!(encoded(&end(full, with), V31), b"\xe0\0");
}

#[test]
fn what_mqtt_3_cannot_say_is_mapped_or_left_out() {
    let mut block = PropertiesBuf::new();
    block.push(Property::ReasonString("r"));
    let properties = block.as_properties();
    let connack = |session_present, reason| {
        Packet::ConnAck(ConnAck {
            session_present,
            reason,
            properties,
        })
    };
    let banned = connack(false, ReasonCode::Banned);
    assert_eq!(encoded(&banned, V311), b"\x20\x02\0\x05");
    let present = connack(true, ReasonCode::Success);
    assert_eq!(encoded(&present, V311), b"\x20\x02\x01\0");
    assert_eq!(encoded(&present, V31), b"\x20\x02\0\0");
    let codes = vec![ReasonCode::GrantedQos2, ReasonCode::NotAuthorized];
    let suback = SubAck {
        packet_id: PacketId::FIRST,
        properties,
        codes,
    };
    let unsuback = Packet::UnsubAck(suback.clone());
    assert_eq!(
        encoded(&Packet::SubAck(suback), V311),
        b"\x90\x04\0\x01\x02\x80"
    );
    assert_eq!(encoded(&unsuback, V311), b"\xb0\x02\0\x01");
    let auth = Packet::Auth(Disconnect {
        reason: ReasonCode::Success,
        properties,
    });
    assert_eq!(encoded(&auth, V311), b"");
    assert!(!encode_within(&auth, V311, 100, &mut Vec::new()));
}

#[test]
fn a_packet_too_long_for_mqtt_is_not_appended() {
    let payload = vec![0; MAX_VARINT - 2];
    let mut publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties: Properties::EMPTY,
        payload: &payload,
    };
    let mut out = Vec::new();
    encode_publish(&publish, V311, &mut out);
    assert_eq!(out, b"", "one byte too long");
    assert!(publish_len(&publish, V311) > MAX_PACKET_SIZE as usize);
    publish.payload = &payload[1..];
    assert_eq!(publish_len(&publish, V311), MAX_PACKET_SIZE as usize);
}
