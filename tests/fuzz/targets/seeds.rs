//! Inputs to begin with: what good peers send.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tidegate::net::websocket::frame::{encode_binary, encode_close, encode_pong};
use tidegate::wire::packet::*;
use tidegate::wire::{
    Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, codec,
};

use super::store::TABLES;

/// Frames of MQTT 3.1.
pub fn v31() -> Vec<Vec<u8>> {
    frames(ProtocolVersion::V31)
}

/// Frames of MQTT 3.1.1.
pub fn v311() -> Vec<Vec<u8>> {
    frames(ProtocolVersion::V311)
}

/// Frames of MQTT 5.
pub fn v5() -> Vec<Vec<u8>> {
    frames(ProtocolVersion::V5)
}

fn block(v5: bool, properties: &[Property<'_>]) -> PropertiesBuf {
    let mut block = PropertiesBuf::new();
    for property in properties.iter().filter(|_| v5) {
        block.push(*property);
    }
    block
}

/// One frame of each kind, and all of them in a row.
fn frames(version: ProtocolVersion) -> Vec<Vec<u8>> {
    use Property::*;
    let v5 = version == ProtocolVersion::V5;
    let user = UserProperty("name", "value");
    let connect_block = block(
        v5,
        &[
            SessionExpiryInterval(60),
            ReceiveMaximum(9),
            TopicAliasMaximum(3),
            user,
        ],
    );
    let will_block = block(v5, &[WillDelayInterval(5), ContentType("text/plain"), user]);
    let message_block = block(
        v5,
        &[
            MessageExpiryInterval(7),
            TopicAlias(2),
            CorrelationData(b"\x00\xff"),
            user,
            user,
        ],
    );
    let explained = block(v5, &[ReasonString("why"), user]);
    let subscribe_block = block(v5, &[SubscriptionIdentifier(300), user]);
    let unsubscribe_block = block(v5, &[user]);
    let answer_block = block(
        v5,
        &[AssignedClientIdentifier("id"), ServerKeepAlive(9), user],
    );
    let auth_block = block(v5, &[AuthenticationMethod("m"), AuthenticationData(b"d")]);
    let id = PacketId::new(513).expect("not zero");
    let ack = |reason| Ack {
        packet_id: id,
        reason,
        properties: explained.as_properties(),
    };
    let end = |reason, properties| Disconnect { reason, properties };
    let publish = |qos: QoS, properties| Publish {
        dup: qos != QoS::AtMostOnce,
        qos,
        retain: true,
        topic: "a/é/c",
        packet_id: (qos != QoS::AtMostOnce).then_some(id),
        properties,
        payload: b"payload",
    };
    let options = SubscribeOptions {
        qos: QoS::ExactlyOnce,
        no_local: v5,
        retain_as_published: v5,
        retain_handling: if v5 {
            RetainHandling::IfNew
        } else {
            RetainHandling::OnSubscribe
        },
    };
    let codes = [ReasonCode::Success, ReasonCode::UnspecifiedError];
    let suback = |codes| SubAck {
        packet_id: id,
        properties: explained.as_properties(),
        codes,
    };
    let mut packets = vec![
        Packet::Connect(Box::new(Connect {
            version,
            bridge: false,
            clean_start: true,
            keep_alive: 60,
            properties: connect_block.as_properties(),
            client_id: "client",
            will: Some(Will {
                qos: QoS::AtLeastOnce,
                retain: true,
                properties: will_block.as_properties(),
                topic: "will/topic",
                payload: b"gone",
            }),
            username: Some("me"),
            password: Some(b"secret"),
        })),
        Packet::ConnAck(ConnAck {
            session_present: version != ProtocolVersion::V31,
            reason: ReasonCode::Success,
            properties: answer_block.as_properties(),
        }),
        Packet::Publish(publish(QoS::AtMostOnce, Properties::EMPTY)),
        Packet::Publish(publish(QoS::AtLeastOnce, message_block.as_properties())),
        Packet::Publish(publish(QoS::ExactlyOnce, message_block.as_properties())),
        Packet::PubAck(ack(ReasonCode::Success)),
        Packet::PubRec(ack(ReasonCode::Success)),
        Packet::PubRel(ack(ReasonCode::Success)),
        Packet::PubComp(ack(ReasonCode::Success)),
        Packet::Subscribe(Subscribe {
            packet_id: id,
            properties: subscribe_block.as_properties(),
            filters: vec![("a/+/#", options), ("$share/g/t", options)],
        }),
        Packet::SubAck(suback(codes.to_vec())),
        Packet::Unsubscribe(Unsubscribe {
            packet_id: id,
            properties: unsubscribe_block.as_properties(),
            filters: vec!["a/+/#", "b"],
        }),
        Packet::PingReq,
        Packet::PingResp,
        Packet::Disconnect(end(ReasonCode::Success, Properties::EMPTY)),
    ];
    if v5 {
        packets.push(Packet::UnsubAck(suback(codes.to_vec())));
        packets.push(Packet::Disconnect(end(
            ReasonCode::ServerBusy,
            explained.as_properties(),
        )));
        packets.push(Packet::Auth(end(
            ReasonCode::ContinueAuthentication,
            auth_block.as_properties(),
        )));
    }
    let mut seeds: Vec<Vec<u8>> = packets
        .iter()
        .map(|packet| {
            let mut frame = Vec::new();
            codec::encode(packet, version, &mut frame);
            frame
        })
        .collect();
    seeds.push(seeds.concat());
    seeds
}

/// The blocks of the frames.
pub fn properties() -> Vec<Vec<u8>> {
    use Property::*;
    let blocks: [&[Property<'_>]; 4] = [
        &[
            SessionExpiryInterval(60),
            MaximumPacketSize(900),
            RequestProblemInformation(1),
        ],
        &[
            PayloadFormatIndicator(1),
            ResponseTopic("r"),
            SubscriptionIdentifier(200),
            TopicAlias(1),
        ],
        &[
            ReasonString("why"),
            UserProperty("a", "b"),
            UserProperty("a", "c"),
        ],
        &[
            AuthenticationMethod("m"),
            AuthenticationData(b"d"),
            MaximumQos(1),
            ServerReference("s"),
        ],
    ];
    let blocks = blocks.iter().map(|properties| block(true, properties));
    blocks
        .map(|block| block.as_properties().as_bytes().to_vec())
        .collect()
}

/// Filters and names.
pub fn topics() -> Vec<Vec<u8>> {
    let pairs = [
        "a/+/#\na/b/c/d",
        "$share/g/a/#\na",
        "+/+\n/é",
        "#\n$SYS/x",
        "$SYS/#\n$SYS/x/y",
        "a//b\na//b",
    ];
    pairs.map(|pair| pair.as_bytes().to_vec()).to_vec()
}

/// A file with all kinds of hashes.
pub fn password_file() -> Vec<Vec<u8>> {
    let hash = |bytes: usize| "A".repeat(bytes.div_ceil(3) * 4 - 2) + "==";
    let text = format!(
        "# who\n\nann:$6$AAAAAAAAAAAAAAAA${}\nbob:$7$101$AAAAAAAAAAAAAAAA${}\r\ncid:$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4\n",
        hash(64),
        hash(64)
    );
    vec![text.into_bytes(), b"ann:plain\n".to_vec(), Vec::new()]
}

/// The configuration that explains all keys, as it is and with its comments taken off, and some short ones.
pub fn config() -> Vec<Vec<u8>> {
    let full = include_str!("../../../config/tidegate.toml");
    let keys: Vec<&str> = full
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line))
        .filter(|line| line.contains(" = ") || line.starts_with('['))
        .filter(|line| !line.starts_with(' '))
        .collect();
    let mut seeds = vec![
        full.to_owned(),
        keys.join("\n"),
        "[[listeners]]\nbind = [\"127.0.0.1\", \"[::1]:1\"]\nallow_anonymous = true\n[limits]\nmax_packet_size = \"1KiB\"\n".to_owned(),
        "listeners = [{ bind = \"[::]:0\" }]\nlimits.max_keepalive = \"1h30m\"\nlog = { level = \"a=b\" }".to_owned(),
    ];
    seeds.extend(keys.chunks(8).map(|keys| keys.join("\n")));
    seeds.into_iter().map(String::into_bytes).collect()
}

/// The rows of golden databases: one has rows of all kinds, the other what layout 4 has brought.
pub fn store_rows() -> Vec<Vec<u8>> {
    ["3-late", "4"].into_iter().flat_map(rows_of).collect()
}

fn rows_of(layout: &str) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = format!("golden/store-v{layout}.redb");
    let golden = match here.join("..").join(&name) {
        beside if beside.exists() => beside,
        _ => here.join("tests").join(&name),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy.redb");
    std::fs::copy(golden, &copy).expect("the golden file is there");
    let database = Database::open(&copy).expect("it opens");
    let transaction = database.begin_read().expect("it can be read");
    let mut seeds = Vec::new();
    for (number, name) in TABLES.iter().enumerate() {
        let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(name);
        let table = transaction.open_table(definition).expect("it is there");
        for row in table.iter().expect("it can be read") {
            let (key, record) = row.expect("a row");
            let (key, record) = (key.value(), record.value());
            seeds.push([&[number as u8, key.len() as u8], key, record].concat());
        }
    }
    seeds
}

/// Frames of a client and of a server.
pub fn websocket() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (role, mask) in [(0, Some([1, 2, 3, 4])), (1, None)] {
        let mut frames = vec![role];
        encode_binary(b"payload", mask, &mut frames);
        encode_binary(&[7; 300], mask, &mut frames);
        encode_pong(b"pong", mask, &mut frames);
        seeds.push(frames.clone());
        // A Ping is a Pong with another opcode; the last frame closes.
        let mut ping = vec![role];
        encode_pong(b"ping", mask, &mut ping);
        ping[1] = 0x89;
        encode_close(1000, mask, &mut ping);
        seeds.push(ping);
    }
    seeds
}

/// PROXY protocol headers and an HTTP request.
pub fn before_mqtt() -> Vec<Vec<u8>> {
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    second.extend([192, 0, 2, 1, 192, 0, 2, 2, 0x1f, 0x90, 7, 0x5b]);
    let mut named = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x17".to_vec();
    named.extend([192, 0, 2, 1, 192, 0, 2, 2, 0x1f, 0x90, 7, 0x5b]);
    named.extend([0x20, 0, 8, 7, 0, 0, 0, 0, 0x22, 0, 0]);
    vec![
        b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 1883\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::1 ::1 5000 1883\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        second,
        named,
        b"GET /mqtt?x=1 HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\
          Origin: https://example.org\r\n\r\n\x82\x80\x01\x02\x03\x04"
            .to_vec(),
    ]
}
