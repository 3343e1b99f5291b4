//! What follows the store: it gets all that is committed, before anybody is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tidegate::broker::record::{Batch, BatchId, BodyId, QueueKey, Seq, Write};
use tidegate::store::{Follower, Store, read_row};

use crate::rows::{Chance, bodies, delivery, is_body, message, options, rows, samples, session};

/// A copy of the rows.
#[derive(Clone, Default)]
struct Copy(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rows: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    batches: Vec<BatchId>,
    /// A batch has begun, and where it is.
    open: Option<(String, Vec<u8>)>,
    is_open: bool,
}

impl Copy {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panicked")
    }

    /// All rows but the store's own, as the writes that put them there.
    fn writes(&self) -> Vec<Write> {
        let state = self.state();
        let rows = state.rows.iter().filter(|((table, _), _)| table != "meta");
        rows.map(|((table, key), record)| read_row(table, key, record).expect("a row"))
            .collect()
    }
}

impl State {
    /// Rows come in order within their table, each once.
    fn comes(&mut self, table: &str, key: &[u8]) {
        assert!(self.is_open, "a row outside of a batch");
        let at = (table.to_owned(), key.to_vec());
        let before = self.open.replace(at.clone());
        if let Some(before) = before.filter(|before| before.0 == table) {
            assert_ne!(before, at, "a row comes twice");
        }
    }
}

impl Follower for Copy {
    fn begin(&mut self, batch: BatchId) {
        let mut state = self.state();
        assert!(state.batches.last().is_none_or(|last| *last < batch));
        state.batches.push(batch);
        state.is_open = true;
    }

    fn put(&mut self, table: &str, key: &[u8], record: &[u8]) {
        let mut state = self.state();
        state.comes(table, key);
        state
            .rows
            .insert((table.to_owned(), key.to_vec()), record.to_vec());
    }

    fn remove(&mut self, table: &str, key: &[u8]) {
        let mut state = self.state();
        state.comes(table, key);
        state.rows.remove(&(table.to_owned(), key.to_vec()));
    }

    fn end(&mut self) {
        let mut state = self.state();
        state.is_open = false;
        state.open = None;
    }
}

fn commit(store: &Store, id: u64, writes: Vec<Write>, copy: &Copy) {
    let batch = Batch {
        id: BatchId(id),
        writes,
    };
    let told = || {
        let state = copy.state();
        assert_eq!(state.batches.last(), Some(&batch.id));
        assert!(!state.is_open, "told before the follower had all of it");
    };
    store.apply(&batch, &told).expect("commits");
}

/// What is the same in both, whatever the order.
fn assert_same(store: &Store, copy: &Copy) {
    let (bodies_copied, copied): (Vec<Write>, Vec<Write>) =
        copy.writes().into_iter().partition(is_body);
    let there = rows(store);
    assert_eq!(there.len(), copied.len());
    for row in &there {
        assert!(copied.contains(row), "{row:?}");
    }
    for body in bodies_copied {
        let Write::PutMessage(id, message) = body else {
            unreachable!("only bodies are there");
        };
        assert_eq!(bodies(store, &[id.0]), [Some(message)]);
    }
}

#[test]
fn a_follower_has_all_rows_in_batches_that_go_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let copy = Copy::default();
    let mut chance = Chance(11);
    let mut next = 1_000;
    let mut waiting: Vec<u64> = Vec::new();
    for round in 0..4 {
        let (store, _) = Store::open(&options).expect("opens");
        store.follow(Box::new(copy.clone()));
        let resume = store.recover(&mut |_| ()).expect("recovers").resume;
        let mut id = resume.batch.0.max(1);
        if round == 0 {
            commit(&store, id, samples(), &copy);
            id += 1;
        }
        for _ in 0..20 {
            let mut writes = vec![Write::PutSession(QueueKey(50), session("busy"))];
            for _ in 0..chance.below(120) {
                if chance.below(5) < 3 || waiting.is_empty() {
                    let body = message("t", &vec![7; chance.below(9_000) as usize]);
                    let record = delivery(&body);
                    writes.push(Write::PutDelivery(Seq(next), QueueKey(50), record));
                    writes.push(Write::PutMessage(BodyId(next), body));
                    waiting.push(next);
                    next += 1;
                } else {
                    let at = chance.below(waiting.len() as u64) as usize;
                    let seq = waiting.swap_remove(at);
                    writes.push(Write::RemoveDelivery(Seq(seq), QueueKey(50)));
                    writes.push(Write::RemoveMessage(BodyId(seq)));
                }
            }
            commit(&store, id, writes, &copy);
            id += 1;
        }
        assert_same(&store, &copy);
    }
    assert_eq!(copy.state().batches.len(), 81);
}

#[test]
fn a_follower_is_told_what_the_store_removes_and_changes_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let copy = Copy::default();
    let (store, _) = Store::open(&options).expect("opens");
    store.follow(Box::new(copy.clone()));
    let writes = vec![
        Write::PutSession(QueueKey(1), session("a")),
        Write::PutMessage(BodyId(4), message("t", b"nobody waits for it")),
    ];
    commit(&store, 1, writes, &copy);
    drop(store);
    let (store, _) = Store::open(&options).expect("opens");
    store.follow(Box::new(copy.clone()));
    let recovery = store.recover(&mut |_| ()).expect("recovers");
    assert_eq!(recovery.orphans, 1);
    assert_same(&store, &copy);
    let identity = store.renew_identity().expect("renews");
    let state = copy.state();
    let key = ("meta".to_owned(), b"identity".to_vec());
    let expected = [&[1][..], &identity.to_le_bytes()].concat();
    assert_eq!(state.rows.get(&key), Some(&expected));
    assert_eq!(state.batches.len(), 3);
    assert!(recovery.resume.batch > state.batches[1]);
}
