//! Rows of the store, as they lie in its file.

use std::cell::RefCell;
use std::path::PathBuf;

use redb::backends::InMemoryBackend;
use tidegate::broker::record::{Batch, BatchId, Write};
use tidegate::store::{Store, StoreOptions, read_row};

/// Tables with rows, in the order of the first byte of an input.
pub const TABLES: [&str; 12] = [
    "sessions",
    "groups",
    "subscriptions",
    "wills",
    "received",
    "retained",
    "deliveries",
    "messages",
    "bridges",
    "message_ids",
    "inflight",
    "spreads",
];

thread_local! {
    static STORE: RefCell<Option<Store>> = const { RefCell::new(None) };
}

/// A row: which table, the length of its key, the key, the record. What can be read is written as
/// it was read.
pub fn rows(data: &[u8]) {
    let [table, length, row @ ..] = data else {
        return;
    };
    let table = TABLES[usize::from(*table) % TABLES.len()];
    let Some((key, record)) = row.split_at_checked(usize::from(*length)) else {
        return;
    };
    if let Ok(write) = read_row(table, key, record) {
        STORE.with_borrow_mut(|store| round_trip(store.get_or_insert_with(new_store), write));
    }
}

fn new_store() -> Store {
    let options = StoreOptions {
        path: PathBuf::from("in memory"),
        cache_bytes: 1 << 20,
        max_bytes: 1 << 30,
        min_free_bytes: 0,
        move_corrupt_aside: false,
    };
    let opened = Store::open_with_backend(InMemoryBackend::new(), &options, 1);
    opened.expect("an empty store opens").0
}

fn round_trip(store: &Store, write: Write) {
    let Some(removal) = removal(&write) else {
        return;
    };
    apply(store, write.clone());
    let mut found = Vec::new();
    match &write {
        Write::PutMessage(seq, _) => store
            .fetch(&[*seq], &mut |seq, message| {
                found.extend(message.map(|message| Write::PutMessage(seq, message)));
            })
            .expect("what was written is read"),
        _ => {
            let read = store.recover(&mut |row| found.push(row));
            assert_eq!(read.expect("what was written is read").rows, 1);
        }
    }
    assert_eq!(found, [write]);
    apply(store, removal);
}

fn apply(store: &Store, write: Write) {
    let batch = Batch {
        id: BatchId(1),
        writes: vec![write],
    };
    store.apply(&batch, &|| ()).expect("memory takes it");
}

/// What takes a row away. Numbers near their end are left out: no broker counts so far.
fn removal(write: &Write) -> Option<Write> {
    const FAR: u64 = 1 << 62;
    Some(match write {
        Write::PutSession(key, _) if key.0 < FAR => Write::RemoveSession(*key),
        Write::PutGroup(key, _) if key.0 < FAR => Write::RemoveGroup(*key),
        Write::PutSubscription(key, filter, _) => Write::RemoveSubscription(*key, filter.clone()),
        Write::PutWill(key, _) => Write::RemoveWill(*key),
        Write::PutReceived(key, id) => Write::RemoveReceived(*key, *id),
        Write::PutInflight(key, block, _) => Write::RemoveInflight(*key, *block),
        Write::PutBridge(key, _) => Write::RemoveBridge(*key),
        Write::PutMessageId(seq, _) if seq.0 < FAR => Write::RemoveMessageId(*seq),
        Write::PutSpread(seq, part, _) if seq.0 < FAR => Write::RemoveSpread(*seq, *part),
        Write::PutRetained(message, _) => Write::RemoveRetained(message.topic().into()),
        Write::PutDelivery(seq, key, _) if seq.0 < FAR => Write::RemoveDelivery(*seq, *key),
        Write::PutMessage(seq, _) if seq.0 < FAR => Write::RemoveMessage(*seq),
        _ => return None,
    })
}
