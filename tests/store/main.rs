//! The store through its public interface: rows come back after a clean stop and after a kill, and
//! the last write of a row wins.

mod disk;
mod fake_disk;
mod file;
mod follow;
mod layouts;
mod moved;
mod orphans;
mod room;
mod rows;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use tidegate::broker::Message;
use tidegate::broker::record::{BodyId, DeliveryRecord, QueueKey, Seq, Source, Write};
use tidegate::clock::Reading;
use tidegate::store::{Export, Start, Store, StoreOptions};
use tidegate::wire::PacketId;

use crate::rows::{
    Chance, apply, assert_has_samples, bodies, delivery, message, options, rows, samples, session,
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
            Write::PutMessage(BodyId(1), small.clone()),
            Write::PutDelivery(Seq(1), QueueKey(1), delivery(&small)),
            Write::RemoveDelivery(Seq(1), QueueKey(1)),
            Write::RemoveMessage(BodyId(1)),
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
            Write::PutMessage(BodyId(1), message),
            put.clone(),
        ],
    );
    let removals = [
        Write::RemoveDelivery(Seq(1), QueueKey(1)),
        Write::RemoveMessage(BodyId(1)),
    ];
    apply(&store, [put].into_iter().chain(removals).collect());
    assert_eq!(rows(&store), [Write::PutSession(QueueKey(1), session("a"))]);
}

#[test]
fn numbers_are_never_used_twice_though_their_rows_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let (store, _) = Store::open(&options).expect("opens");
    let message = message("t", b"x");
    let (mut seq, mut queue) = (0, 0);
    for round in 0..5 {
        let recovery = store.recover(&mut |_| ()).expect("recovers");
        let resume = recovery.resume;
        assert!(resume.seq.0 >= seq && resume.queue.0 >= queue);
        seq = resume.seq.0 + 70_000 * round;
        queue = resume.queue.0 + 2000 * round;
        apply(
            &store,
            vec![
                Write::PutMessage(BodyId(seq), message.clone()),
                Write::RemoveMessage(BodyId(seq)),
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
        let resume = recovery.resume;
        assert!(resume.seq.0 >= seq && resume.queue.0 >= queue);
    }
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
fn removing_a_run_of_rows_leaves_those_between_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(&options(folder.path())).expect("opens");
    let body = |seq: u64| message("t", &vec![1; if seq % 10 == 1 { 9000 } else { 10 }]);
    apply(
        &store,
        (0..500)
            .map(|seq| Write::PutMessage(BodyId(seq), body(seq)))
            .collect(),
    );
    apply(
        &store,
        (0..500)
            .filter(|seq| seq % 5 != 0)
            .map(|seq| Write::RemoveMessage(BodyId(seq)))
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
            .map(|seq| Write::PutMessage(BodyId(*seq), body(*seq)))
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
                writes.push(Write::PutMessage(BodyId(next), body.clone()));
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
                writes.push(Write::RemoveMessage(BodyId(seq)));
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
