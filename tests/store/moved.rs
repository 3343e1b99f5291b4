//! Messages at other places than the first: the body stays where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tidegate::broker::record::{BodyId, QueueKey, Seq, SpreadRecord, Write};
use tidegate::store::Store;

use crate::rows::{Chance, apply, bodies, message, moved, options, session};

/// After any end, a body is there exactly if somebody waits for it, wherever its message stands now.
#[test]
fn a_body_stays_while_a_delivery_at_any_place_needs_it() {
    for seed in 0..60 {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(folder.path());
        let (store, _) = Store::open(&options).expect("opens");
        let mut chance = Chance(seed);
        let body = message("t", b"x");
        let stored: BTreeSet<u64> = (1..40).filter(|_| chance.below(4) > 0).collect();
        let mut writes = vec![
            Write::PutSession(QueueKey(1), session("a")),
            Write::PutSession(QueueKey(2), session("b")),
        ];
        writes.extend(
            stored
                .iter()
                .map(|id| Write::PutMessage(BodyId(*id), body.clone())),
        );
        let (mut kept, mut needed) = (BTreeMap::new(), BTreeSet::new());
        for _ in 0..chance.below(60) {
            let of = 1 + chance.below(40);
            // At its own place, or at a later one. A queue 9 does not exist.
            let seq = of + chance.below(2) * (40 + chance.below(20));
            let queue = [1, 2, 9][chance.below(3) as usize];
            if kept.contains_key(&(seq, queue)) {
                continue;
            }
            let record = moved(&body, of);
            let spreads = chance.below(8) == 0 && queue != 9;
            let there = stored.contains(&of);
            if spreads {
                let record = SpreadRecord {
                    message: record.message,
                    receivers: Vec::new(),
                };
                let write = Write::PutSpread(Seq(seq), queue as u16, record);
                if kept
                    .insert((seq, queue), there.then(|| write.clone()))
                    .is_none()
                {
                    writes.push(write);
                }
            } else {
                let write = Write::PutDelivery(Seq(seq), QueueKey(queue), record);
                let stays = there && queue != 9;
                kept.insert((seq, queue), stays.then(|| write.clone()));
                writes.push(write);
            }
            if there && queue != 9 {
                needed.insert(of);
            }
        }
        apply(&store, writes);
        let copy = folder.path().join("copy.redb");
        fs::copy(&options.path, &copy).expect("copies");
        drop(store);
        let options = tidegate::store::StoreOptions {
            path: copy,
            ..options
        };
        for _ in 0..2 {
            let (store, _) = Store::open(&options).expect("opens");
            let mut found = Vec::new();
            store.recover(&mut |row| found.push(row)).expect("recovers");
            let expected: Vec<Write> = kept.values().flatten().cloned().collect();
            assert_eq!(found.len(), 2 + expected.len(), "seed {seed}");
            for row in &expected {
                assert!(found.contains(row), "seed {seed}: {row:?}");
            }
            let ids: Vec<u64> = (1..41).collect();
            for (id, found) in ids.iter().zip(bodies(&store, &ids)) {
                assert_eq!(
                    found.is_some(),
                    needed.contains(id),
                    "seed {seed}: body {id}"
                );
            }
            // What belongs to nothing is gone: nothing is left for the second time.
            let again = store.recover(&mut |_| ()).expect("recovers");
            assert_eq!(again.rows as usize, found.len());
        }
        // What opening reckons is what a store that has only these rows counts.
        let (store, _) = Store::open(&options).expect("opens");
        let mut rows = Vec::new();
        store.recover(&mut |row| rows.push(row)).expect("recovers");
        rows.extend(
            needed
                .iter()
                .map(|id| Write::PutMessage(BodyId(*id), body.clone())),
        );
        let folder = tempfile::tempdir().expect("a folder");
        let (fresh, _) = Store::open(&crate::rows::options(folder.path())).expect("opens");
        apply(&fresh, rows);
        let live = |store: &Store| store.usage().live_bytes;
        assert_eq!(live(&store), live(&fresh), "seed {seed}");
    }
}
