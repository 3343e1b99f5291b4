//! The store through its public face: what is put comes back, after a good end and a bad one, and within its disk budget.

mod disk;
mod fake_disk;
mod room;
mod rows;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use redb::{Database, TableDefinition};
use tidegate::broker::Message;
use tidegate::broker::record::{BridgeRecord, DeliveryRecord, QueueKey, Seq, Source, Write};
use tidegate::clock::Reading;
use tidegate::store::{Export, Start, Store, StoreError, StoreOptions, TableReport};
use tidegate::wire::PacketId;

use crate::rows::{
    Chance, apply, assert_has, assert_has_samples, bodies, delivery, later_samples, layout_of,
    message, options, rows, samples, session,
};

#[test]
fn every_row_comes_back_after_a_good_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let (store, opened) = Store::open(&options).expect("opens");
    assert_eq!(opened.start, Start::Created);
    apply(&store, samples());
    assert_has_samples(&store);
    drop(store);
    let (store, opened) = Store::open(&options).expect("opens");
    assert_eq!(opened.start, Start::Clean);
    assert_has_samples(&store);
}

#[test]
fn every_row_comes_back_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(folder.path());
    let (store, _) = Store::open(&options).expect("opens");
    apply(&store, samples());
    // What a killed process leaves is what a copy of an open file holds.
    let copy = folder.path().join("copy.redb");
    fs::copy(&options.path, &copy).expect("copies");
    options.path = copy;
    let (store, opened) = Store::open(&options).expect("opens");
    assert_eq!(opened.start, Start::Recovered);
    assert_has_samples(&store);
}

#[test]
fn every_row_can_be_removed_and_takes_its_parts_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(&options(folder.path())).expect("opens");
    let empty = store.usage().live_bytes;
    apply(&store, samples());
    assert!(store.usage().live_bytes > empty + 100_000);
    let removals = samples().into_iter().map(|put| match put {
        Write::PutSession(key, _) => Write::RemoveSession(key),
        Write::PutGroup(key, _) => Write::RemoveGroup(key),
        Write::PutSubscription(key, filter, _) => Write::RemoveSubscription(key, filter),
        Write::PutWill(key, _) => Write::RemoveWill(key),
        Write::PutReceived(key, id) => Write::RemoveReceived(key, id),
        Write::PutInflight(key, block, _) => Write::RemoveInflight(key, block),
        Write::PutBridge(key, _) => Write::RemoveBridge(key),
        Write::PutMessageId(seq, _) => Write::RemoveMessageId(seq),
        Write::PutRetained(message, _) => Write::RemoveRetained(message.topic().into()),
        Write::PutDelivery(seq, key, _) => Write::RemoveDelivery(seq, key),
        Write::PutMessage(seq, _) => Write::RemoveMessage(seq),
        Write::PutSpread(seq, part, _) => Write::RemoveSpread(seq, part),
        other => other,
    });
    apply(&store, removals.collect());
    assert_eq!(rows(&store), []);
    assert_eq!(bodies(&store, &[7, 300]), [None, None]);
    assert_eq!(store.usage().live_bytes, empty);
}

#[test]
fn the_last_write_of_a_row_wins_within_a_batch_and_across_batches() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(&options(folder.path())).expect("opens");
    let (small, large) = (message("t", b"small"), message("t", &[1; 9000]));
    let put = |client| Write::PutSession(QueueKey(1), session(client));
    let other = Write::PutSession(QueueKey(2), session("other"));
    apply(
        &store,
        vec![
            put("first"),
            Write::RemoveSession(QueueKey(1)),
            put("second"),
            other.clone(),
            Write::PutRetained(large, None),
            // Put and removed in one batch: as if it had never been.
            Write::PutMessage(Seq(1), small.clone()),
            Write::PutDelivery(Seq(1), QueueKey(1), delivery(&small)),
            Write::RemoveDelivery(Seq(1), QueueKey(1)),
            Write::RemoveMessage(Seq(1)),
        ],
    );
    apply(
        &store,
        vec![put("third"), Write::PutRetained(small.clone(), None)],
    );
    let expected = [
        put("third"),
        other.clone(),
        Write::PutRetained(small.clone(), None),
    ];
    assert_eq!(rows(&store), expected);
    assert_eq!(bodies(&store, &[1]), [None]);
    // With who published it, and as a message that needs several rows.
    for message in [small, message("t", &[2; 9000])] {
        let source = Some(Arc::new(Source {
            client_id: "pump-1".repeat(500).into(),
            user: Some("Zoë".into()),
            acl: None,
        }));
        let put_retained = Write::PutRetained(message, source);
        apply(&store, vec![put_retained.clone()]);
        assert_eq!(rows(&store), [put("third"), other.clone(), put_retained]);
    }
}

#[test]
fn a_delivery_of_an_earlier_batch_is_removed_though_this_batch_changes_it_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(&options(folder.path())).expect("opens");
    let message = message("t", b"x");
    let put = Write::PutDelivery(Seq(1), QueueKey(1), delivery(&message));
    apply(
        &store,
        vec![
            Write::PutSession(QueueKey(1), session("a")),
            Write::PutMessage(Seq(1), message),
            put.clone(),
        ],
    );
    let removals = [
        Write::RemoveDelivery(Seq(1), QueueKey(1)),
        Write::RemoveMessage(Seq(1)),
    ];
    apply(&store, [put].into_iter().chain(removals).collect());
    assert_eq!(rows(&store), [Write::PutSession(QueueKey(1), session("a"))]);
}

/// A copy of the golden file of a layout, to open.
fn golden(folder: &Path, layout: u32) -> StoreOptions {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = golden.join(format!("tests/golden/store-v{layout}.redb"));
    let options = options(folder);
    fs::create_dir_all(folder.join("data")).expect("a folder");
    fs::copy(golden, &options.path).expect("the golden file is there");
    options
}

/// The samples that a store of this layout can have.
fn of_layout(layout: u32) -> Vec<Write> {
    let known = |row: &Write| layout_of(row) <= layout;
    samples().into_iter().filter(known).collect()
}

#[test]
fn a_database_of_layout_1_is_read_whole_and_brought_up_to_date() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = golden(folder.path(), 1);
    let (store, opened) = Store::open(&options).expect("opens");
    assert_eq!(opened.start, Start::Clean);
    assert_has(&store, of_layout(1));
    let identity = store.identity();
    assert_ne!(identity, 0);
    let added = samples().into_iter().filter(|row| layout_of(row) > 1);
    apply(&store, added.collect());
    drop(store);
    let (store, _) = Store::open(&options).expect("opens");
    assert_has_samples(&store);
    assert_eq!(store.identity(), identity, "it is kept");
    drop(store);

    let other = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(&golden(other.path(), 1)).expect("opens");
    assert_ne!(store.identity(), identity, "it is drawn by lot");
}

#[test]
fn a_database_of_layout_2_keeps_its_identity_when_it_is_brought_up_to_date() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, opened) = Store::open(&golden(folder.path(), 2)).expect("opens");
    assert_eq!(opened.start, Start::Clean);
    assert_has(&store, of_layout(2));
    let other = tempfile::tempdir().expect("a folder");
    let (again, _) = Store::open(&golden(other.path(), 2)).expect("opens");
    assert_eq!(store.identity(), again.identity());
    assert_ne!(store.identity(), 0);
}

#[test]
fn a_database_of_layout_3_is_read_whole() {
    // Written once, by the program that introduced the layout: TIDEGATE_WRITE_GOLDEN=1 cargo test --test store layout_3
    if std::env::var_os("TIDEGATE_WRITE_GOLDEN").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/store-v3.redb");
        let options = StoreOptions {
            path,
            ..options(Path::new(""))
        };
        let (store, opened) = Store::open(&options).expect("opens");
        assert_eq!(opened.start, Start::Created);
        apply(&store, samples());
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (store, opened) = Store::open(&golden(folder.path(), 3)).expect("opens");
    assert_eq!(opened.start, Start::Clean);
    assert_has_samples(&store);
    assert_ne!(store.identity(), 0);
}

#[test]
fn what_rows_have_learned_since_their_layout_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(&options(folder.path())).expect("opens");
    apply(&store, later_samples());
    assert_has(&store, later_samples());
}

#[test]
fn a_database_of_a_newer_layout_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = golden(folder.path(), 3);
    let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");
    let database = Database::open(&options.path).expect("opens");
    let transaction = database.begin_write().expect("begins");
    let newer = [&[1][..], &4u64.to_le_bytes()].concat();
    let mut meta = transaction.open_table(table).expect("it is there");
    meta.insert(&b"format"[..], newer.as_slice())
        .expect("writes");
    drop(meta);
    transaction.commit().expect("commits");
    drop(database);
    let newer = "its layout is version 4, this program knows versions 1 to 3";
    let error = Store::open(&options).err().expect("it is refused");
    assert!(error.is_unusable_file(), "{error}");
    assert!(error.to_string().contains(newer), "{error}");
    let error = Export::open(&options.path).err().expect("it is refused");
    assert!(error.to_string().contains(newer), "{error}");
}

#[test]
fn each_layout_is_exported_whole() {
    for layout in [1, 2, 3] {
        let folder = tempfile::tempdir().expect("a folder");
        let export = Export::open(&golden(folder.path(), layout).path).expect("opens");
        let mut found = Vec::new();
        let mut each = |row, _| {
            found.push(row);
            Ok(())
        };
        let reports = export.read(&mut each).expect("reads");
        assert!(
            reports.iter().all(TableReport::is_complete),
            "layout {layout}: {reports:?}"
        );
        // A message comes with its deliveries, and alone only if it has none.
        let mut expected = of_layout(layout);
        expected.retain(|row| match row {
            Write::PutMessage(..) => layout_of(row) == 3,
            _ => true,
        });
        assert_eq!(found.len(), expected.len());
        for row in &expected {
            assert!(found.contains(row), "layout {layout} has no {row:?}");
        }
    }
}

#[test]
fn numbers_are_never_used_twice_though_their_rows_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(folder.path());
    let (store, _) = Store::open(&options).expect("opens");
    let message = message("t", b"x");
    let (mut seq, mut queue) = (0, 0);
    for round in 0..5 {
        let recovery = store.recover(&mut |_| ()).expect("recovers");
        assert!(recovery.next_seq.0 >= seq && recovery.next_queue.0 >= queue);
        seq = recovery.next_seq.0 + 70_000 * round;
        queue = recovery.next_queue.0 + 2000 * round;
        apply(
            &store,
            vec![
                Write::PutMessage(Seq(seq), message.clone()),
                Write::RemoveMessage(Seq(seq)),
                Write::PutSession(QueueKey(queue), session("a")),
                Write::RemoveSession(QueueKey(queue)),
            ],
        );
        (seq, queue) = (seq + 1, queue + 1);
        let copy = folder.path().join("copy.redb");
        fs::copy(&options.path, &copy).expect("copies");
        let options = StoreOptions {
            path: copy,
            ..options.clone()
        };
        let (killed, _) = Store::open(&options).expect("opens");
        let recovery = killed.recover(&mut |_| ()).expect("recovers");
        assert!(recovery.next_seq.0 >= seq && recovery.next_queue.0 >= queue);
    }
    options.max_bytes += 1;
}

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
        Write::PutMessage(Seq(5), message.clone()),
        Write::PutMessage(Seq(4), message.clone()),
        Write::PutMessage(Seq(6), message.clone()),
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
        Write::PutMessage(Seq(0), body.clone()),
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
            [Write::PutMessage(Seq(seq), body.clone()), put]
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
fn the_last_reading_of_the_clocks_is_there_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let (store, _) = Store::open(&options).expect("opens");
    assert_eq!(store.clock(), None);
    let reading = |unix| Reading {
        unix,
        wall: u64::MAX,
    };
    apply(&store, vec![Write::PutClock(reading(0))]);
    let two = [1, 2].map(|unix| Write::PutClock(reading(unix)));
    apply(&store, two.to_vec());
    drop(store);
    let (store, _) = Store::open(&options).expect("opens");
    assert_eq!(store.clock(), Some(reading(2)));
    let mut found = Vec::new();
    store.recover(&mut |row| found.push(row)).expect("recovers");
    assert_eq!(found, [Write::PutClock(reading(2))]);
    drop(store);
    let export = Export::open(&options.path).expect("opens");
    assert_eq!(export.clock(), Some(reading(2)));
}

#[test]
fn a_body_that_nobody_waits_for_is_noticed_by_its_number_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let (store, _) = Store::open(&options).expect("opens");
    apply(
        &store,
        vec![Write::PutMessage(Seq(4), message("t", b"lost"))],
    );
    drop(store);
    let (store, _) = Store::open(&options).expect("opens");
    let recovery = store.recover(&mut |_| ()).expect("recovers");
    assert_eq!(recovery.orphans, 1);
    assert_eq!(bodies(&store, &[4]), [None]);
}

#[test]
fn removing_a_run_of_rows_leaves_those_between_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(&options(folder.path())).expect("opens");
    let body = |seq: u64| message("t", &vec![1; if seq % 10 == 1 { 9000 } else { 10 }]);
    apply(
        &store,
        (0..500)
            .map(|seq| Write::PutMessage(Seq(seq), body(seq)))
            .collect(),
    );
    apply(
        &store,
        (0..500)
            .filter(|seq| seq % 5 != 0)
            .map(|seq| Write::RemoveMessage(Seq(seq)))
            .collect(),
    );
    let all: Vec<u64> = (0..500).collect();
    let left: Vec<_> = all
        .iter()
        .map(|seq| (seq % 5 == 0).then(|| body(*seq)))
        .collect();
    assert_eq!(bodies(&store, &all), left);
    let live = store.usage().live_bytes;
    assert!(live < 100 * 60, "the parts are still there: {live}");
}

#[test]
fn bodies_are_fetched_in_runs_and_alone_and_missing_ones_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(&options(folder.path())).expect("opens");
    let seqs: Vec<u64> = (0..100).chain([1000, 1016, 1033, 5000]).collect();
    let body = |seq: u64| message("t", &seq.to_le_bytes().repeat(1 + seq as usize % 700));
    apply(
        &store,
        seqs.iter()
            .filter(|seq| *seq % 3 != 0)
            .map(|seq| Write::PutMessage(Seq(*seq), body(*seq)))
            .collect(),
    );
    let expected: Vec<_> = seqs
        .iter()
        .map(|seq| (seq % 3 != 0).then(|| body(*seq)))
        .collect();
    assert_eq!(bodies(&store, &seqs), expected);
    let unsorted = [50, 4, 4, 5000, 1];
    let expected = [50, 4, 4, 5000, 1].map(|seq| Some(body(seq)));
    assert_eq!(bodies(&store, &unsorted), expected);
}

#[test]
fn random_batches_leave_what_a_plain_map_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(&options(folder.path())).expect("opens");
    let mut chance = Chance(7);
    let mut expected: BTreeMap<(u64, u64), DeliveryRecord> = BTreeMap::new();
    let mut bodies_expected: BTreeMap<u64, Message> = BTreeMap::new();
    apply(
        &store,
        (0..5)
            .map(|key| Write::PutSession(QueueKey(key), session("c")))
            .collect(),
    );
    let mut next = 0;
    for _ in 0..60 {
        let mut writes = Vec::new();
        for _ in 0..chance.below(300) {
            if chance.below(2) == 0 || expected.is_empty() {
                let body = message("t", &vec![next as u8; chance.below(600) as usize]);
                bodies_expected.insert(next, body.clone());
                writes.push(Write::PutMessage(Seq(next), body.clone()));
                for queue in 0..=chance.below(4) {
                    expected.insert((next, queue), delivery(&body));
                    writes.push(Write::PutDelivery(
                        Seq(next),
                        QueueKey(queue),
                        delivery(&body),
                    ));
                }
                next += 1;
                continue;
            }
            let at = chance.below(expected.len() as u64) as usize;
            let at = if chance.below(2) == 0 { at } else { at.min(3) };
            let (&(seq, queue), _) = expected.iter().nth(at).expect("in range");
            if chance.below(4) == 0 {
                let record = expected.get_mut(&(seq, queue)).expect("it is there");
                record.packet_id = PacketId::new(1 + chance.below(9) as u16);
                writes.push(Write::PutDelivery(
                    Seq(seq),
                    QueueKey(queue),
                    record.clone(),
                ));
                continue;
            }
            expected.remove(&(seq, queue));
            writes.push(Write::RemoveDelivery(Seq(seq), QueueKey(queue)));
            if expected.range((seq, 0)..=(seq, u64::MAX)).next().is_none() {
                bodies_expected.remove(&seq);
                writes.push(Write::RemoveMessage(Seq(seq)));
            }
        }
        apply(&store, writes);
    }
    let found: Vec<Write> = rows(&store).split_off(5);
    let expected: Vec<Write> = expected
        .into_iter()
        .map(|((seq, queue), record)| Write::PutDelivery(Seq(seq), QueueKey(queue), record))
        .collect();
    assert_eq!(found, expected);
    let all: Vec<u64> = (0..next).collect();
    let bodies_expected: Vec<_> = all.iter().map(|seq| bodies_expected.remove(seq)).collect();
    assert_eq!(bodies(&store, &all), bodies_expected);
}

#[test]
fn a_second_broker_is_told_that_the_folder_is_in_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let (_store, _) = Store::open(&options).expect("opens");
    let moving = StoreOptions {
        move_corrupt_aside: true,
        ..options.clone()
    };
    for options in [&options, &moving] {
        let error = Store::open(options).err().expect("it is locked");
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("is in use by another process"), "{text}");
        assert!(text.contains("data"), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let (_store, _) = Store::open(&options).expect("opens");
    let mode = fs::metadata(&options.path).expect("is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

/// Opens a file of these bytes; it must be refused with an error that names it and the way out, stay as it is, and be moved aside if so configured.
fn assert_refused(bytes: &[u8], why: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(folder.path());
    fs::create_dir_all(folder.path().join("data")).expect("a folder");
    fs::write(&options.path, bytes).expect("writes");
    let error = Store::open(&options).err().expect("it is refused");
    let text = error.to_string();
    assert!(error.is_unusable_file(), "{text}");
    for part in ["store.redb", "STORE__MOVE_CORRUPT_ASIDE=true", why] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }

    options.move_corrupt_aside = true;
    let (store, opened) = Store::open(&options).expect("begins anew");
    assert_eq!(opened.start, Start::Created);
    let aside = opened.moved_aside.expect("it has been moved");
    assert!(fs::metadata(&aside).expect("it is kept").len() >= bytes.len() as u64);
    assert_eq!(rows(&store), []);
}

fn good_file() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let (store, _) = Store::open(&options).expect("opens");
    apply(&store, samples());
    drop(store);
    fs::read(&options.path).expect("reads")
}

#[test]
fn a_file_of_another_program_is_refused() {
    assert_refused(b"SQLite format 3\0", "not a tidegate store");
    assert_refused(&[b'x'; 100_000], "not a tidegate store");
}

#[test]
fn a_truncated_file_is_refused() {
    let good = good_file();
    for len in [10, 100, 4095, 4096, 8192, good.len() / 2, good.len() - 4096] {
        assert_refused(&good[..len], "cannot be used");
    }
}

#[test]
fn a_damaged_file_is_refused_or_whole_but_never_silently_empty() {
    let good = good_file();
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    fs::create_dir_all(folder.path().join("data")).expect("a folder");
    let mut refused = 0;
    for seed in 1..=60 {
        let mut chance = Chance(seed);
        let mut bytes = good.clone();
        for _ in 0..=chance.below(20) {
            let at = chance.below(bytes.len() as u64) as usize;
            let len = (1 + chance.below(600) as usize).min(bytes.len() - at);
            bytes[at..at + len].fill_with(|| chance.below(256) as u8);
        }
        fs::write(&options.path, &bytes).expect("writes");
        match Store::open(&options) {
            Ok((store, _)) => assert_has_samples(&store),
            Err(error) => {
                assert!(error.is_unusable_file(), "seed {seed}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 20, "only {refused} were noticed");
}

#[test]
fn a_file_whose_making_was_cut_short_is_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    fs::create_dir_all(folder.path().join("data")).expect("a folder");
    for len in [0, 1, 4096, 70_000, 1 << 20] {
        fs::write(&options.path, vec![0; len]).expect("writes");
        let (store, opened) = Store::open(&options).expect("opens");
        assert_eq!(opened.start, Start::Created, "{len}");
        assert_eq!(rows(&store), []);
    }
}

#[test]
fn a_store_that_was_closed_is_found_closed_though_somebody_still_holds_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let (store, _) = Store::open(&options).expect("opens");
    let held = std::sync::Arc::new(store);
    let other = std::sync::Arc::clone(&held);
    apply(&held, samples());
    held.close().expect("closes");
    let refused = other.recover(&mut |_| ());
    assert!(matches!(refused, Err(StoreError::Stopped)), "{refused:?}");
    let copy = StoreOptions {
        path: folder.path().join("copy.redb"),
        ..options.clone()
    };
    fs::copy(&options.path, &copy.path).expect("copies");
    let (store, opened) = Store::open(&copy).expect("opens");
    assert_eq!(opened.start, Start::Clean);
    assert_has_samples(&store);
}
