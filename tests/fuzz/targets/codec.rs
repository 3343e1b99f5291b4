//! Packets, properties and topics.

use tidegate::wire::codec::{self, MAX_PACKET_SIZE};
use tidegate::wire::packet::Packet;
use tidegate::wire::property::{BlockKind, Properties, PropertiesBuf, Property};
use tidegate::wire::topic::{self, Filter};
use tidegate::wire::{Fault, ProtocolVersion};

use super::mqttbytes;

/// Frames of MQTT 3.1.
pub fn v31(data: &[u8]) {
    frames(data, ProtocolVersion::V31);
}

/// Frames of MQTT 3.1.1.
pub fn v311(data: &[u8]) {
    frames(data, ProtocolVersion::V311);
}

/// Frames of MQTT 5.
pub fn v5(data: &[u8]) {
    frames(data, ProtocolVersion::V5);
}

/// The bytes as they are, and as the body of one frame: its length would otherwise be wrong after
/// nearly every change.
fn frames(data: &[u8], version: ProtocolVersion) {
    stream(data, version);
    if let Some((first, rest)) = data.split_first() {
        let header = rest.iter().take(4).position(|byte| *byte < 0x80);
        let body = &rest[header.map_or(0, |header| header + 1)..];
        let mut whole = vec![*first];
        let mut length = body.len();
        while length > 0x7f {
            whole.push(length as u8 | 0x80);
            length >>= 7;
        }
        whole.push(length as u8);
        whole.extend_from_slice(body);
        stream(&whole, version);
    }
}

fn stream(mut data: &[u8], version: ProtocolVersion) {
    while !data.is_empty() {
        let len = codec::frame_len(data, MAX_PACKET_SIZE);
        splits_agree(data, &len);
        let Ok(Some(len)) = len else { return };
        assert!(len >= 2, "a frame has a header");
        frame(&data[..len], version);
        data = &data[len..];
    }
}

/// However the bytes are split, the same length comes of them, and as soon as it can: a length that
/// is known does not change.
fn splits_agree(data: &[u8], whole: &Result<Option<usize>, Fault>) {
    let known = match whole {
        Ok(Some(len)) => *len,
        _ => data.len(),
    };
    let ends = (0..known.min(8)).chain(known.saturating_sub(2)..known);
    for end in ends {
        match (codec::frame_len(&data[..end], MAX_PACKET_SIZE), whole) {
            (Ok(None), _) => {}
            (Err(early), Err(late)) => assert_eq!(early.reason, late.reason),
            (part, _) => panic!("{part:?} of {end} bytes, {whole:?} of all"),
        }
    }
    if let Ok(Some(len)) = whole {
        let limit = u32::try_from(*len).expect("within the largest packet");
        let limited = codec::frame_len(data, limit).expect("it just fits");
        assert_eq!(limited, Some(*len));
        let refused = codec::frame_len(data, limit - 1);
        assert!(refused.is_err(), "one byte too many");
    }
}

fn frame(bytes: &[u8], version: ProtocolVersion) {
    let _ = codec::version_of_connect(bytes);
    let Ok(packet) = codec::decode(bytes, version) else {
        return;
    };
    // A CONNECT says which version is spoken from then on.
    let version = match &packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let mut written = Vec::new();
    codec::encode(&packet, version, &mut written);
    assert!(
        written.len() <= bytes.len() + 2,
        "{packet:?} has grown from {} to {} bytes",
        bytes.len(),
        written.len()
    );
    let len = codec::frame_len(&written, MAX_PACKET_SIZE);
    assert_eq!(len, Ok(Some(written.len())), "{packet:?}");
    let again = codec::decode(&written, version);
    assert_eq!(again.as_ref(), Ok(&packet), "{written:02x?}");
    let mut twice = Vec::new();
    codec::encode(&packet, version, &mut twice);
    assert_eq!(twice, written);
    if let Packet::Publish(publish) = &packet {
        assert_eq!(codec::publish_len(publish, version), written.len());
    }
    second_opinion(&written, packet, version);
}

/// mqttbytes reads the same packet, wherever it is right.
fn second_opinion(frame: &[u8], mut packet: Packet<'_>, version: ProtocolVersion) {
    let prints = matches!(packet, Packet::Unsubscribe(_)) && version == ProtocolVersion::V5;
    if version == ProtocolVersion::V31
        || prints
        || !mqttbytes::is_right_there(&packet, version)
        || !mqttbytes::knows(&packet)
    {
        return;
    }
    let theirs = mqttbytes::through(frame, version)
        .unwrap_or_else(|error| panic!("mqttbytes cannot read {packet:?}: {error}"));
    let mut read = codec::decode(&theirs, version)
        .unwrap_or_else(|fault| panic!("mqttbytes made {theirs:02x?} of {packet:?}: {fault}"));
    assert_eq!(
        mqttbytes::take_properties(&mut read),
        mqttbytes::take_properties(&mut packet)
    );
    assert_eq!(read, packet);
}

/// A property block of every kind.
pub fn properties(data: &[u8]) {
    let unchecked: Vec<Property<'_>> = Properties::assume_valid(data).iter().collect();
    for kind in BlockKind::ALL {
        let Ok(block) = Properties::parse(data, kind) else {
            continue;
        };
        let listed: Vec<Property<'_>> = block.iter().collect();
        assert_eq!(listed, unchecked);
        let mut copy = PropertiesBuf::new();
        for property in &listed {
            copy.push(*property);
        }
        assert_eq!(copy.as_properties().as_bytes(), data);
        let explains = |property: &Property<'_>| {
            matches!(
                property,
                Property::UserProperty(..) | Property::ReasonString(_)
            )
        };
        let mut buffer = PropertiesBuf::new();
        let short: Vec<_> = block
            .without_problem_information(&mut buffer)
            .iter()
            .collect();
        let expected: Vec<_> = listed.iter().filter(|p| !explains(p)).copied().collect();
        assert_eq!(short, expected);
        let _ = block.forwardable(&mut buffer).iter().count();
    }
}

/// A filter and a name, with a line break between.
pub fn topics(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (text, name) = text.split_once('\n').unwrap_or((text, text));
    let filter = Filter::parse(text);
    if topic::is_valid_name(name) {
        assert!(topic::matches(name, name), "{name:?} is itself");
        assert_eq!(topic::matches("#", name), !name.starts_with('$'));
    }
    if let Some(filter) = filter {
        assert_eq!(filter.has_wildcard(), filter.filter.contains(['+', '#']));
        if topic::is_valid_name(name) {
            let matches = topic::matches(filter.filter, name);
            assert_eq!(
                matches,
                level_by_level(filter.filter, name),
                "{filter:?} {name:?}"
            );
        }
    } else if !text.starts_with("$share/") {
        assert!(
            text.contains(['+', '#', '\0']) || text.is_empty() || text.len() > 65_535,
            "{text:?} is a filter"
        );
    }
}

/// Section 4.7 in its own words.
fn level_by_level(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut wanted, mut levels) = (filter.split('/'), name.split('/'));
    loop {
        match (wanted.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}
