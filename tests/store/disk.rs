//! What is on disk when: the order of writes and syncs, power cuts, disks that fail.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tidegate::broker::record::{Batch, BatchId, BodyId, QueueKey, Seq, Write};
use tidegate::store::{Committer, Progress, Start, Store, StoreError};

use crate::fake_disk::{FakeDisk, Image};
use crate::layouts::golden;
use crate::rows::{
    Chance, apply, assert_has, assert_has_samples, bodies, delivery, layout_of, message, options,
    rows, samples, session,
};

#[test]
fn written_is_said_once_and_before_the_one_sync() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = FakeDisk::default();
    let options = options(folder.path());
    let (store, _) = Store::open_with_backend(disk.clone(), &options, 1).expect("opens");
    for round in 0..60u64 {
        let said = Cell::new(0);
        let Image { syncs, live, .. } = disk.image().clone();
        let (before, length) = (syncs, live.len());
        let message = message("t", &[round as u8; 700]);
        let writes = vec![Write::PutMessage(BodyId(round), message.clone())];
        let applied = store.apply(
            &Batch {
                id: BatchId(round),
                writes,
            },
            &|| {
                said.set(said.get() + 1);
                // Everything is with the operating system, and the last of it is not synced.
                assert!(!disk.image().unsynced.is_empty());
                let seen = FakeDisk::default();
                seen.image().live = disk.image().live.clone();
                let (fresh, _) = Store::open_with_backend(seen, &options, 1).expect("opens");
                assert_eq!(bodies(&fresh, &[round]), [Some(message.clone())]);
            },
        );
        let applied = applied.expect("commits");
        assert_eq!(said.get(), 1);
        assert!(disk.image().unsynced.is_empty());
        let grew = u64::from(disk.image().live.len() > length);
        assert_eq!(disk.image().syncs - before, 1 + grew);
        assert_eq!(applied.syncs, 1 + grew);
    }
}

#[test]
fn what_was_durable_survives_any_power_cut_and_batches_are_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    for seed in 0..40 {
        let mut chance = Chance(seed);
        let mut disk = FakeDisk::default();
        let mut durable = 0;
        for _life in 0..3 {
            let (store, _) = Store::open_with_backend(disk.clone(), &options, 1).expect("opens");
            if durable == 0 {
                apply(&store, vec![Write::PutSession(QueueKey(1), session("a"))]);
                durable = 1;
            }
            let batches = |store: &Store| -> Vec<u64> {
                let rows = rows(store).split_off(1);
                let seqs: Vec<u64> = rows
                    .iter()
                    .map(|row| match row {
                        Write::PutDelivery(seq, ..) => seq.0,
                        other => panic!("{other:?}"),
                    })
                    .collect();
                assert!(bodies(store, &seqs).iter().all(Option::is_some));
                assert_eq!(seqs.len() % 10, 0, "seed {seed}: half a batch");
                seqs.chunks(10).map(|batch| batch[0] / 10).collect()
            };
            let there = batches(&store);
            let newest = there.last().copied().unwrap_or(0);
            assert!(
                newest + 1 >= durable,
                "seed {seed}: {there:?}, {durable} were durable"
            );
            durable = newest + 1;
            let cut_at = durable + chance.below(8);
            loop {
                let left = Cell::new(None);
                let cut = durable >= cut_at;
                let id = BatchId(durable);
                let writes = ten_in_ten_out(durable);
                let written = || {
                    if cut {
                        left.set(Some(disk.power_cut(&mut Chance(seed * 1000 + durable))));
                    }
                };
                let result = store.apply(&Batch { id, writes }, &written);
                result.expect("commits");
                if let Some(left) = left.into_inner() {
                    drop(store);
                    disk = left;
                    break;
                }
                durable += 1;
            }
        }
    }
}

/// Batch `n` puts the messages 10 n to 10 n + 9 and removes those of batch n - 3.
fn ten_in_ten_out(batch: u64) -> Vec<Write> {
    let mut writes = Vec::new();
    for seq in batch * 10..batch * 10 + 10 {
        let message = message("t", &[9; 900]);
        let put = delivery(&message);
        writes.push(Write::PutDelivery(Seq(seq), QueueKey(1), put));
        writes.push(Write::PutMessage(BodyId(seq), message));
        if let Some(old) = seq.checked_sub(30) {
            writes.push(Write::RemoveDelivery(Seq(old), QueueKey(1)));
            writes.push(Write::RemoveMessage(BodyId(old)));
        }
    }
    writes
}

#[test]
fn a_power_cut_at_any_moment_of_a_life_loses_nothing_durable() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(folder.path());
    // So small that the file grows, reaches its cap and is extended by reopening.
    options.max_bytes = 900_000;
    let mut cuts = 0;
    for seed in 0..6 {
        let disk = FakeDisk::default();
        disk.image().cut_with = Some(Chance(seed));
        let (store, _) = Store::open_with_backend(disk.clone(), &options, 1).expect("opens");
        apply(&store, vec![Write::PutSession(QueueKey(1), session("a"))]);
        let mut puts = 0;
        while store.has_room() || puts < 10 {
            let message = message("t", &[puts as u8; 3000]);
            let put = Write::PutDelivery(Seq(puts), QueueKey(1), delivery(&message));
            apply(&store, vec![Write::PutMessage(BodyId(puts), message), put]);
            puts += 1;
            disk.image().durable_mark = puts;
        }
        assert!(puts > 100 && store.usage().file_bytes > 800_000, "{puts}");
        drop(store);
        let taken = std::mem::take(&mut disk.image().cuts);
        for (durable, left) in taken {
            let (store, _) = Store::open_with_backend(left, &options, 1).expect("opens");
            let there = rows(&store).len().saturating_sub(1) as u64;
            assert!(
                durable <= there && there <= durable + 1,
                "seed {seed}: {there}, {durable} were durable"
            );
            let seqs: Vec<u64> = (0..there).collect();
            assert!(bodies(&store, &seqs).iter().all(Option::is_some));
            cuts += 1;
        }
    }
    assert!(cuts > 100, "only {cuts} power cuts");
}

#[test]
fn after_a_failed_sync_nothing_more_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = FakeDisk::default();
    let options = options(folder.path());
    let (store, _) = Store::open_with_backend(disk.clone(), &options, 1).expect("opens");
    apply(&store, samples());
    let kept = disk.power_cut(&mut Chance(1));
    disk.image().fail_syncs = true;
    let id = BatchId(2);
    let writes = vec![Write::RemoveSession(QueueKey(1))];
    let batch = Batch { id, writes };
    let error = store.apply(&batch, &|| ()).expect_err("the sync fails");
    assert!(error.to_string().contains("no sync"), "{error}");
    let written = disk.image().writes_after_failure;
    disk.image().fail_syncs = false;
    let error = store.apply(&batch, &|| ()).expect_err("it has stopped");
    assert!(matches!(error, StoreError::Stopped), "{error}");
    disk.image().fail_syncs = true;
    drop(store);
    assert_eq!(disk.image().writes_after_failure, written);
    let (store, opened) = Store::open_with_backend(kept, &options, 1).expect("opens");
    assert_eq!(opened.start, Start::Recovered);
    assert_has_samples(&store);
}

#[test]
fn the_committer_commits_every_batch_in_order_and_drains_when_it_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    for delay in [Duration::ZERO, Duration::from_millis(1)] {
        let mut options = options(folder.path());
        options.path = folder.path().join(format!("{}.redb", delay.as_millis()));
        let store = Arc::new(Store::open(&options).expect("opens").0);
        let open: Arc<Mutex<Vec<Write>>> = Arc::default();
        let (tell, told) = mpsc::channel();
        let (gather, mut id) = (open.clone(), 0);
        let next = move || {
            let writes = std::mem::take(&mut *gather.lock().expect("unpoisoned"));
            id += 1;
            (!writes.is_empty()).then_some(Batch {
                id: BatchId(id),
                writes,
            })
        };
        let done = move |progress| tell.send(progress).expect("the test listens");
        let committer = Committer::spawn(store.clone(), next, done, delay).expect("a thread");
        let put = |key| {
            open.lock()
                .expect("unpoisoned")
                .push(Write::PutGroup(QueueKey(key), "g".into()))
        };
        for key in 0..100 {
            put(key);
            committer.notify();
            if key % 10 == 0 {
                // No wake-up is lost: each notify is answered without another.
                let first = told.recv().expect("it answers");
                let Progress::Written(written) = first else {
                    panic!("{first:?}")
                };
                let second = told.recv().expect("it answers");
                assert!(matches!(second, Progress::Durable(durable) if durable == written));
            }
        }
        put(100);
        committer.stop();
        assert_eq!(rows(&store).len(), 101);
        let rest: Vec<Progress> = told.try_iter().collect();
        assert_eq!(rest.len() % 2, 0, "{rest:?}");
    }
}

#[test]
fn the_committer_reports_a_failure_and_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = FakeDisk::default();
    let (store, _) =
        Store::open_with_backend(disk.clone(), &options(folder.path()), 1).expect("opens");
    disk.image().fail_syncs = true;
    let (tell, told) = mpsc::channel();
    let next = || {
        let id = BatchId(1);
        Some(Batch {
            id,
            writes: samples(),
        })
    };
    let done = move |progress| tell.send(progress).expect("the test listens");
    let committer =
        Committer::spawn(Arc::new(store), next, done, Duration::ZERO).expect("a thread");
    committer.notify();
    let reports: Vec<Progress> = told.iter().collect();
    assert!(
        matches!(reports.last(), Some(Progress::Failed(_))),
        "{reports:?}"
    );
    assert!(
        !reports
            .iter()
            .any(|report| matches!(report, Progress::Durable(_)))
    );
    committer.stop();
}

#[test]
fn a_power_cut_while_a_store_is_brought_up_to_date_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = golden(folder.path(), 1);
    let old = fs::read(&options.path).expect("reads");
    let mut identities = BTreeSet::new();
    for seed in 0..20 {
        let disk = FakeDisk::default();
        {
            let mut image = disk.image();
            image.live.clone_from(&old);
            image.durable.clone_from(&old);
            image.cut_with = Some(Chance(seed));
        }
        Store::open_with_backend(disk.clone(), &options, 7).expect("opens");
        let cuts = std::mem::take(&mut disk.image().cuts);
        for (_, left) in cuts {
            let (store, _) = Store::open_with_backend(left, &options, 8).expect("opens");
            assert_has(
                &store,
                samples()
                    .into_iter()
                    .filter(|row| layout_of(row) == 1)
                    .collect(),
            );
            identities.insert(store.identity());
        }
    }
    assert_eq!(identities, [7, 8].into(), "before and after it was done");
}
