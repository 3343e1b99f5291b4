//! The throughput of the store: `cargo bench --bench store [-- FOLDER] [--steady]`. The folder
//! should be on the disk of interest. `--steady` omits the restart with a million messages.
//!
//! Steady state: each batch adds new messages and removes those of an earlier batch, as with
//! subscribers that keep up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::broker::Message;
use tidegate::broker::message::Parts;
use tidegate::broker::record::{
    Batch, BatchId, BodyId, DeliveryRecord, QueueKey, Seq, SessionRecord, SubscriptionIds, Summary,
    TopicKey, Write,
};
use tidegate::store::{Store, StoreOptions};
use tidegate::wire::{Properties, ProtocolVersion, QoS};

/// Messages that stay in the store while others are written.
const WAITING: u64 = 10_000;

fn main() {
    let folder = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .map_or_else(std::env::temp_dir, PathBuf::from)
        .join(format!("tidegate-bench-{}", std::process::id()));
    println!("steady state, 256-byte messages, one delivery each, one fsync a batch");
    println!(
        "{:>8} {:>12} {:>14} {:>12} {:>12}",
        "batch", "messages/s", "bytes/message", "syncs/batch", "us/batch"
    );
    for batch in [1, 10, 100, 1000] {
        steady(&folder, batch);
    }
    if std::env::args().all(|argument| argument != "--steady") {
        restart(&folder, 1_000_000, 1024);
    }
    std::fs::remove_dir_all(&folder).expect("the folder was made here");
}

fn options(folder: &Path) -> StoreOptions {
    StoreOptions {
        path: folder.join("store.redb"),
        max_bytes: 8 << 30,
        min_free_bytes: 0,
        cache_bytes: 32 << 20,
        move_corrupt_aside: false,
    }
}

fn message(payload: &[u8]) -> Message {
    Message::new(&Parts {
        topic: "plant/line/7/temperature",
        properties: Properties::EMPTY,
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        expires: None,
        id: None,
    })
}

fn put(writes: &mut Vec<Write>, seq: u64, message: &Message) {
    let delivery = DeliveryRecord {
        qos: QoS::AtLeastOnce,
        retain: false,
        released: false,
        packet_id: None,
        message: Summary {
            size: message.size(),
            expires: None,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: Some(TopicKey(1).hash(message.topic_bytes())),
            body: None,
        },
        subscription_ids: SubscriptionIds::NONE,
    };
    writes.push(Write::PutMessage(BodyId(seq), message.clone()));
    writes.push(Write::PutDelivery(Seq(seq), QueueKey(seq % 10), delivery));
}

fn sessions() -> Batch {
    let session = |key| SessionRecord {
        client_id: format!("client-{key}").into(),
        version: ProtocolVersion::V5,
        expiry: 3600,
        disconnected_at: Some(1),
        user: None,
    };
    Batch {
        id: BatchId(0),
        writes: (0..10)
            .map(|key| Write::PutSession(QueueKey(key), session(key)))
            .collect(),
    }
}

fn steady(folder: &Path, batch: u64) {
    let _ = std::fs::remove_dir_all(folder);
    let (store, _) = Store::open(&options(folder)).expect("opens");
    let message = message(&[7; 256]);
    store.apply(&sessions(), &|| ()).expect("commits");
    let mut fill = Vec::new();
    for seq in 0..WAITING {
        put(&mut fill, seq, &message);
    }
    let fill = Batch {
        id: BatchId(1),
        writes: fill,
    };
    store.apply(&fill, &|| ()).expect("commits");

    let (before, cpu_before) = (store.usage(), cpu());
    let started = Instant::now();
    let (mut next, mut batches) = (WAITING, 0u32);
    while started.elapsed() < Duration::from_secs(3) {
        let mut writes = Vec::new();
        for seq in next..next + batch {
            put(&mut writes, seq, &message);
            let old = seq - WAITING;
            writes.push(Write::RemoveDelivery(Seq(old), QueueKey(old % 10)));
            writes.push(Write::RemoveMessage(BodyId(old)));
        }
        next += batch;
        batches += 1;
        let id = BatchId(u64::from(batches));
        store.apply(&Batch { id, writes }, &|| ()).expect("commits");
    }
    let (took, after) = (started.elapsed(), store.usage());
    let messages = (next - WAITING) as f64;
    println!(
        "{batch:>8} {:>12.0} {:>14.0} {:>12.3} {:>12.0} {:>12.0}",
        messages / took.as_secs_f64(),
        (after.written_bytes - before.written_bytes) as f64 / messages,
        (after.syncs - before.syncs) as f64 / f64::from(batches),
        took.as_micros() as f64 / f64::from(batches),
        (cpu() - cpu_before) * 1e6 / f64::from(batches),
    );
}

fn restart(folder: &Path, messages: u64, payload: usize) {
    let _ = std::fs::remove_dir_all(folder);
    let (store, _) = Store::open(&options(folder)).expect("opens");
    let message = message(&vec![7; payload]);
    store.apply(&sessions(), &|| ()).expect("commits");
    let started = Instant::now();
    for batch in 0..messages / 1000 {
        let mut writes = Vec::new();
        for seq in batch * 1000..(batch + 1) * 1000 {
            put(&mut writes, seq, &message);
        }
        let id = BatchId(batch);
        store.apply(&Batch { id, writes }, &|| ()).expect("commits");
    }
    println!(
        "\n{messages} messages of {payload} bytes queued in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    for kill in [true, false] {
        if kill {
            let copy = folder.join("copy.redb");
            std::fs::copy(folder.join("store.redb"), &copy).expect("copies");
            reopen(&StoreOptions {
                path: copy.clone(),
                ..options(folder)
            });
            std::fs::remove_file(copy).expect("removes");
        }
    }
    drop(store);
    reopen(&options(folder));
}

fn reopen(options: &StoreOptions) {
    let started = Instant::now();
    let (store, opened) = Store::open(options).expect("opens");
    let open = started.elapsed();
    let mut rows = 0u64;
    store.recover(&mut |_| rows += 1).expect("recovers");
    println!(
        "{:?}: opened in {:.2} s, {rows} rows handed back in {:.2} s, file {} MB, resident {} MB",
        opened.start,
        open.as_secs_f64(),
        (started.elapsed() - open).as_secs_f64(),
        opened.file_bytes >> 20,
        resident() >> 20,
    );
    let store = Arc::new(store);
    let seqs: Vec<BodyId> = (0..100_000).map(BodyId).collect();
    let started = Instant::now();
    let mut found = 0;
    store
        .fetch(&seqs, &mut |_, message| {
            found += u32::from(message.is_some())
        })
        .expect("reads");
    println!(
        "    fetched {found} bodies in {:.3} s",
        started.elapsed().as_secs_f64()
    );
}

/// Returns the resident memory of this process, if known.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Returns the processor time of this process in seconds, if known.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}
