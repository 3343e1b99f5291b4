//! Rows that belong to no session and no message: they are removed, counted, and found in linear
//! time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate::broker::record::{BodyId, BridgeRecord, QueueKey, Seq, Write};
use tidegate::store::Store;
use tidegate::wire::PacketId;

use crate::rows::{apply, bodies, delivery, message, options, session};

#[test]
fn rows_that_belong_to_nothing_are_removed_and_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let (store, _) = Store::open(&options).expect("opens");
    let message = message("t", &[1; 5000]);
    let id = PacketId::FIRST;
    let kept = [
        Write::PutSession(QueueKey(1), session("a")),
        Write::PutDelivery(Seq(5), QueueKey(1), delivery(&message)),
    ];
    let mut writes = kept.to_vec();
    writes.extend([
        Write::PutMessage(BodyId(5), message.clone()),
        Write::PutMessage(BodyId(4), message.clone()),
        Write::PutMessage(BodyId(6), message.clone()),
        Write::PutDelivery(Seq(6), QueueKey(9), delivery(&message)),
        Write::PutDelivery(Seq(7), QueueKey(1), delivery(&message)),
        Write::PutReceived(QueueKey(9), id),
        Write::PutBridge(QueueKey(9), BridgeRecord::default()),
    ]);
    apply(&store, writes);
    drop(store);
    let (store, _) = Store::open(&options).expect("opens");
    let mut found = Vec::new();
    let recovery = store.recover(&mut |row| found.push(row)).expect("recovers");
    assert_eq!(recovery.orphans, 6);
    assert_eq!(found, kept);
    assert_eq!(bodies(&store, &[4, 5, 6]), [None, Some(message), None]);
}

/// A disk in memory that counts what is read.
#[derive(Debug, Default)]
struct Counting(redb::backends::InMemoryBackend, Arc<AtomicU64>);

impl redb::StorageBackend for Counting {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.1.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// How many bytes it takes to read to find and remove what a session with so many messages has left, whose own row is gone.
fn read_for_orphans(count: u64) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(folder.path());
    options.max_bytes = 1 << 30;
    options.cache_bytes = 64 << 10;
    let disk = Counting::default();
    let read = disk.1.clone();
    // A store looks for orphans if opening has seen one; the others may come later.
    let body = message("t", &[1; 100]);
    let one = vec![
        Write::PutMessage(BodyId(0), body.clone()),
        Write::PutReceived(QueueKey(9), PacketId::FIRST),
    ];
    let disk = Arc::new(disk);
    let (store, _) = Store::open_with_backend(Shared(disk.clone()), &options, 1).expect("opens");
    apply(&store, one);
    drop(store);
    let (store, _) = Store::open_with_backend(Shared(disk), &options, 1).expect("opens");
    for from in (1..count).step_by(10_000) {
        let rows = (from..count.min(from + 10_000)).flat_map(|seq| {
            let put = Write::PutDelivery(Seq(seq), QueueKey(9), delivery(&body));
            [Write::PutMessage(BodyId(seq), body.clone()), put]
        });
        apply(&store, rows.collect());
    }
    read.store(0, Ordering::Relaxed);
    let recovery = store.recover(&mut |_| ()).expect("recovers");
    assert_eq!(recovery.orphans, 2 * count);
    let all = read.load(Ordering::Relaxed);
    assert_eq!(store.recover(&mut |_| ()).expect("recovers").rows, 0);
    all
}

/// A disk that survives its store.
#[derive(Debug)]
struct Shared(Arc<Counting>);

impl redb::StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

#[test]
fn finding_orphans_takes_as_long_as_there_are_many() {
    let (few, many) = (read_for_orphans(20_000), read_for_orphans(160_000));
    println!("{few} bytes for 20,000, {many} for 160,000");
    assert!(
        many < 12 * few,
        "{few} bytes for 20,000, {many} for 160,000"
    );
}

#[test]
fn a_body_that_nobody_waits_for_is_noticed_by_its_number_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let (store, _) = Store::open(&options).expect("opens");
    apply(
        &store,
        vec![Write::PutMessage(BodyId(4), message("t", b"lost"))],
    );
    drop(store);
    let (store, _) = Store::open(&options).expect("opens");
    let recovery = store.recover(&mut |_| ()).expect("recovers");
    assert_eq!(recovery.orphans, 1);
    assert_eq!(bodies(&store, &[4]), [None]);
}
