//! Rows to put in a store, and what to ask of it.

use std::num::NonZeroU64;
use std::path::Path;

use tidegate::broker::Message;
use tidegate::broker::message::Parts;
use tidegate::broker::record::{
    Batch, BatchId, Block, BodyId, BridgeRecord, DeliveryRecord, InflightRecord, LeftAddress,
    MessageId, NEVER_EXPIRES, QueueKey, Seq, SessionRecord, SpreadReceiver, SpreadRecord,
    SubscriptionIds, SubscriptionRecord, Summary, TopicKey, WillRecord, Write,
};
use tidegate::store::{Store, StoreOptions};
use tidegate::wire::packet::{RetainHandling, SubscribeOptions};
use tidegate::wire::{PacketId, Properties, ProtocolVersion, QoS};

/// The sample message that has an identity.
const BRIDGED: Seq = Seq(301);
/// The one that nobody has been given yet.
const SPREAD: Seq = Seq(302);

pub fn options(folder: &Path) -> StoreOptions {
    StoreOptions {
        path: folder.join("data/store.redb"),
        max_bytes: 64 << 20,
        min_free_bytes: 0,
        cache_bytes: 8 << 20,
        move_corrupt_aside: false,
    }
}

pub fn message(topic: &str, payload: &[u8]) -> Message {
    Message::new(&Parts {
        topic,
        properties: Properties::EMPTY,
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        expires: None,
        id: None,
    })
}

/// A delivery as layouts before 4 had it: nothing is known of the topic.
pub fn delivery(message: &Message) -> DeliveryRecord {
    DeliveryRecord {
        qos: QoS::AtLeastOnce,
        retain: false,
        released: false,
        packet_id: None,
        message: Summary {
            size: message.size(),
            expires: None,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: None,
            body: None,
        },
        subscription_ids: SubscriptionIds::NONE,
    }
}

/// A delivery of a message whose body is that of another place.
pub fn moved(message: &Message, body: u64) -> DeliveryRecord {
    let mut delivery = delivery(message);
    delivery.message.body = Some(BodyId(body));
    delivery
}

pub fn session(client_id: &str) -> SessionRecord {
    SessionRecord {
        client_id: client_id.into(),
        version: ProtocolVersion::V311,
        expiry: NEVER_EXPIRES,
        disconnected_at: None,
        user: None,
    }
}

/// One row of every kind, and the large and odd ones, in the order of recovery; bodies are last.
pub fn samples() -> Vec<Write> {
    let full = Message::new(&Parts {
        topic: "plant/Ö/temperature",
        properties: Properties::assume_valid(b"\x03\x00\x04text\x26\x00\x01k\x00\x01v"),
        payload: &[0, 255, 7],
        qos: QoS::ExactlyOnce,
        retain: true,
        expires: Some(1_900_000_000_123),
        id: None,
    });
    let bridged = Message::new(&Parts {
        id: NonZeroU64::new(u64::MAX - 1),
        ..full.parts()
    });
    let spread_only = message("everywhere", b"x");
    let large: Vec<u8> = (0..3000u32).flat_map(u32::to_le_bytes).collect();
    let large = message("large", &large);
    let will = |message: &Message| WillRecord {
        message: message.clone(),
        expiry: Some(60),
        delay: 5,
        due: Some(1_900_000_000_000),
    };
    let options = SubscribeOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::Never,
    };
    let id = |id| PacketId::new(id).expect("not zero");
    vec![
        Write::PutSession(QueueKey(1), session("pump-1")),
        Write::PutSession(
            QueueKey(2),
            SessionRecord {
                client_id: "x".repeat(65_535).into(),
                version: ProtocolVersion::V5,
                expiry: 3600,
                disconnected_at: Some(1_800_000_000_000),
                user: None,
            },
        ),
        Write::PutGroup(QueueKey(3), "$share/workers/jobs/#".into()),
        Write::PutSubscription(
            QueueKey(1),
            "#".into(),
            SubscriptionRecord {
                options: SubscribeOptions::with_qos(QoS::AtMostOnce),
                id: None,
                replaying: None,
            },
        ),
        Write::PutSubscription(
            QueueKey(2),
            "$share/workers/jobs/#".into(),
            SubscriptionRecord {
                options,
                id: Some(268_435_455),
                replaying: None,
            },
        ),
        Write::PutWill(QueueKey(1), will(&full)),
        Write::PutWill(QueueKey(2), will(&large)),
        Write::PutReceived(QueueKey(1), id(1)),
        Write::PutReceived(QueueKey(1), id(65_535)),
        Write::PutBridge(QueueKey(1), BridgeRecord::default()),
        Write::PutBridge(QueueKey(2), bridge()),
        Write::PutRetained(large.clone(), None),
        Write::PutRetained(full.clone(), None),
        Write::PutMessageId(Seq(7), message_id(1, u64::MAX)),
        Write::PutMessageId(Seq(299), message_id(u64::MAX, 0)),
        Write::PutInflight(QueueKey(1), Block(0), inflight(1..=1)),
        Write::PutInflight(QueueKey(2), Block(511), inflight(65_408..=65_535)),
        Write::PutSpread(Seq(7), 0, spread(&full, 1..=2)),
        Write::PutSpread(Seq(7), u16::MAX, spread(&full, 2..=3000)),
        Write::PutSpread(SPREAD, 1, spread(&spread_only, 1..=1)),
        Write::PutDelivery(Seq(7), QueueKey(1), delivery(&full)),
        Write::PutDelivery(
            Seq(7),
            QueueKey(3),
            DeliveryRecord {
                qos: QoS::ExactlyOnce,
                retain: true,
                released: true,
                packet_id: Some(id(65_535)),
                message: Summary {
                    size: full.size(),
                    expires: Some(1_900_000_000_123),
                    qos: QoS::ExactlyOnce,
                    retain: true,
                    topic: None,
                    body: None,
                },
                subscription_ids: [1, 268_435_455, 3].into_iter().collect(),
            },
        ),
        Write::PutDelivery(Seq(300), QueueKey(2), delivery(&large)),
        Write::PutDelivery(BRIDGED, QueueKey(1), delivery(&bridged)),
        Write::PutMessage(BodyId(7), full),
        Write::PutMessage(BodyId(300), large),
        Write::PutMessage(BRIDGED.into(), bridged),
        Write::PutMessage(SPREAD.into(), spread_only),
    ]
}

/// A bridge whose record takes several rows.
fn bridge() -> BridgeRecord {
    let ids = |ids: std::ops::RangeInclusive<u16>| ids.filter_map(PacketId::new).collect();
    let left = |address: &str, most| LeftAddress {
        address: address.into(),
        unreleased: ids(1..=most),
        received: ids(65_535..=65_535),
    };
    BridgeRecord {
        remote_clientid: "edge-7".into(),
        address: "ä.example:1883".into(),
        separate_sessions: true,
        left: vec![left("a:1", 0), left("b:2", 3000)],
    }
}

fn spread(message: &Message, queues: std::ops::RangeInclusive<u64>) -> SpreadRecord {
    let receiver = |queue| SpreadReceiver {
        queue: QueueKey(queue),
        qos: if queue % 2 == 0 {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        },
        retain: queue % 3 == 0,
        subscription_ids: (0..queue % 3).map(|id| id as u32 + 1).collect(),
    };
    let receivers: Vec<SpreadReceiver> = queues.map(receiver).collect();
    SpreadRecord {
        message: Summary {
            size: message.size(),
            expires: message.expires(),
            qos: receivers.iter().map(|it| it.qos).max().expect("some"),
            retain: receivers.iter().any(|it| it.retain),
            topic: None,
            body: None,
        },
        receivers,
    }
}

fn inflight(ids: std::ops::RangeInclusive<u16>) -> Vec<InflightRecord> {
    let record = |id| InflightRecord {
        packet_id: id,
        seq: Seq(u64::from(id.get()) << 40),
        released: id.get() % 2 == 0,
    };
    ids.filter_map(PacketId::new).map(record).collect()
}

fn message_id(publisher: u64, id: u64) -> MessageId {
    MessageId { publisher, id }
}

/// The first layout that has this row.
pub fn layout_of(write: &Write) -> u32 {
    match write {
        Write::PutSpread(..) => 3,
        Write::PutBridge(..) | Write::PutMessageId(..) | Write::PutInflight(..) => 2,
        Write::PutMessage(id, _) if *id == SPREAD.into() => 3,
        Write::PutMessage(id, _) if *id == BRIDGED.into() => 2,
        Write::PutDelivery(BRIDGED, ..) => 2,
        _ => 1,
    }
}

pub fn is_body(write: &Write) -> bool {
    matches!(write, Write::PutMessage(..))
}

pub fn apply(store: &Store, writes: Vec<Write>) {
    let id = BatchId(1);
    store.apply(&Batch { id, writes }, &|| ()).expect("commits");
}

pub fn rows(store: &Store) -> Vec<Write> {
    let mut rows = Vec::new();
    let recovery = store.recover(&mut |row| rows.push(row)).expect("recovers");
    assert_eq!(recovery.orphans, 0);
    assert_eq!(recovery.rows, rows.len() as u64);
    rows
}

pub fn bodies(store: &Store, seqs: &[u64]) -> Vec<Option<Message>> {
    let ids: Vec<BodyId> = seqs.iter().copied().map(BodyId).collect();
    let mut found = Vec::new();
    let mut each = |id, message| found.push((id, message));
    store.fetch(&ids, &mut each).expect("reads");
    assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    found.into_iter().map(|(_, message)| message).collect()
}

/// Rows with what the first program of layout 3 did not write, but the last one did.
pub fn later_samples() -> Vec<Write> {
    let key = QueueKey(1);
    vec![
        Write::PutSession(
            key,
            SessionRecord {
                user: Some("ann".into()),
                ..session("pump-1")
            },
        ),
        Write::PutSubscription(
            key,
            "a/#".into(),
            SubscriptionRecord {
                options: SubscribeOptions::with_qos(QoS::AtLeastOnce),
                id: None,
                replaying: Some("r/5".into()),
            },
        ),
    ]
}

/// Rows with what layout 4 has brought, in the order of recovery. Of three deliveries of a body, one is at
/// another place. A spread is, too.
pub fn layout_4_samples() -> Vec<Write> {
    let full = message("plant/Ö/temperature", b"full");
    let lowered = DeliveryRecord {
        qos: QoS::AtLeastOnce,
        retain: false,
        message: Summary {
            size: full.size(),
            expires: Some(1_900_000_000_123),
            qos: QoS::ExactlyOnce,
            retain: true,
            topic: Some(TopicKey(5).hash("plant/Ö/temperature".as_bytes())),
            body: None,
        },
        ..delivery(&full)
    };
    let mut elsewhere = lowered.clone();
    elsewhere.message.body = Some(BodyId(10));
    let spread = SpreadRecord {
        message: Summary {
            body: Some(BodyId(11)),
            ..lowered.message
        },
        ..spread(&full, 1..=2)
    };
    vec![
        Write::PutSession(QueueKey(1), session("pump-1")),
        Write::PutSession(QueueKey(2), session("pump-2")),
        Write::PutSpread(Seq(40), 0, spread),
        Write::PutDelivery(Seq(10), QueueKey(1), lowered.clone()),
        Write::PutDelivery(Seq(10), QueueKey(2), lowered),
        Write::PutDelivery(Seq(30), QueueKey(1), elsewhere),
        Write::PutMessage(BodyId(10), full.clone()),
        Write::PutMessage(BodyId(11), full),
    ]
}

pub fn assert_has_samples(store: &Store) {
    assert_has(store, samples());
}

pub fn assert_has(store: &Store, samples: Vec<Write>) {
    let (there, expected): (Vec<_>, Vec<_>) = samples.into_iter().partition(is_body);
    assert_eq!(rows(store), expected);
    for body in there {
        let Write::PutMessage(id, message) = body else {
            unreachable!("only bodies are there");
        };
        assert_eq!(bodies(store, &[id.0]), [Some(message)]);
    }
}

/// A small and repeatable source of chance.
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit
    }
}
