//! The disk budget.

use std::path::PathBuf;
use std::process::Command;

use tidegate::broker::record::{BodyId, QueueKey, Seq, Write};
use tidegate::store::Store;

use crate::rows::{
    apply, assert_has_samples, bodies, delivery, message, options, samples, session,
};

/// Fills a store until it says that there is no room. Returns the next Seq.
fn fill(store: &Store, mut seq: u64, max: u64, payload: usize) -> u64 {
    while store.has_room() {
        let mut writes = Vec::new();
        for _ in 0..10 {
            let message = message("t", &vec![5; payload]);
            writes.push(Write::PutDelivery(
                Seq(seq),
                QueueKey(1),
                delivery(&message),
            ));
            writes.push(Write::PutMessage(BodyId(seq), message));
            seq += 1;
        }
        apply(store, writes);
        assert!(store.usage().file_bytes <= max, "{:?}", store.usage());
    }
    seq
}

fn remove(store: &Store, seqs: &[u64], max: u64) {
    for batch in seqs.chunks(23) {
        let writes = batch.iter().flat_map(|seq| {
            [
                Write::RemoveDelivery(Seq(*seq), QueueKey(1)),
                Write::RemoveMessage(BodyId(*seq)),
            ]
        });
        apply(store, writes.collect());
        assert!(store.usage().file_bytes <= max, "{:?}", store.usage());
    }
}

#[test]
fn room_ends_before_the_cap_and_returns_and_no_commit_fails() {
    for (max, payload) in [(4_000_000, 1000), (2 << 20, 100), (3 << 20, 9000)] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = options(folder.path());
        options.max_bytes = max;
        let (store, _) = Store::open(&options).expect("opens");
        assert!(store.has_room());
        apply(&store, vec![Write::PutSession(QueueKey(1), session("a"))]);
        let mut waiting: Vec<u64> = Vec::new();
        let mut next = 0;
        for round in 0..4u64 {
            let full = fill(&store, next, max, payload);
            assert!(full > next, "room came back for nothing");
            waiting.extend(next..full);
            next = full;
            let held = store.usage().live_bytes;
            // What is left of the rounds before is scattered over pages that are mostly empty.
            assert!(
                held > max * 9 / 20,
                "round {round}: full with only {held} bytes"
            );
            // What has been accepted already still commits: sessions, and messages of a twentieth of the file.
            let accepted = max / 20 / (payload as u64 + 100);
            let batch = |seq: u64| {
                let message = message("t", &vec![5; payload]);
                let put = Write::PutDelivery(Seq(seq), QueueKey(1), delivery(&message));
                [put, Write::PutMessage(BodyId(seq), message)]
            };
            apply(&store, (next..next + accepted).flat_map(batch).collect());
            assert!(store.usage().file_bytes <= max, "{:?}", store.usage());
            waiting.extend(next..next + accepted);
            next += accepted;
            apply(
                &store,
                vec![Write::PutSession(QueueKey(2 + round), session("b"))],
            );
            let (gone, kept): (Vec<u64>, Vec<u64>) = match round % 3 {
                0 => waiting.iter().partition(|seq| *seq % 3 != 0),
                1 => waiting.iter().partition(|seq| **seq < next - 100),
                _ => waiting.iter().partition(|_| true),
            };
            remove(&store, &gone, max);
            waiting = kept;
            assert!(store.has_room(), "round {round}: {:?}", store.usage());
        }
        drop(store);
        let (store, _) = Store::open(&options).expect("opens");
        assert_eq!(
            bodies(&store, &waiting).iter().flatten().count(),
            waiting.len()
        );
    }
}

#[test]
fn no_room_is_told_when_the_disk_is_nearly_full() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(folder.path());
    options.min_free_bytes = u64::MAX / 2;
    let (store, _) = Store::open(&options).expect("opens");
    assert!(store.usage().free_disk_bytes.is_some_and(|free| free > 0));
    assert!(!store.has_room());
    apply(&store, samples());
    assert_has_samples(&store);
}

#[test]
fn a_file_that_is_mostly_free_is_compacted_when_it_is_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(folder.path());
    options.max_bytes = 1 << 30;
    let (store, _) = Store::open(&options).expect("opens");
    apply(&store, vec![Write::PutSession(QueueKey(1), session("a"))]);
    let body = message("t", &vec![3; 1 << 20]);
    for seq in 0..150 {
        let put = Write::PutDelivery(Seq(seq), QueueKey(1), delivery(&body));
        apply(
            &store,
            vec![Write::PutMessage(BodyId(seq), body.clone()), put],
        );
    }
    // The last one stays, at the end of the file, so that the file cannot simply be cut.
    remove(&store, &(0..149).collect::<Vec<_>>(), 1 << 30);
    drop(store);
    let (store, opened) = Store::open(&options).expect("opens");
    let before = opened.compacted_from.expect("it was compacted");
    assert!(
        before > 100 << 20 && opened.file_bytes < before / 4,
        "{opened:?}"
    );
    assert_eq!(bodies(&store, &[148, 149]), [None, Some(body)]);
    drop(store);
    let (_, opened) = Store::open(&options).expect("opens");
    assert_eq!(opened.compacted_from, None);
}

/// Where the small disk is, in the process that has one.
const SMALL_DISK: &str = "TIDEGATE_TEST_SMALL_DISK";

/// Runs a test of this file once more in a process with a file system of its own, of 24 MB. Returns where it is in that process, and `None` in
/// this one, and where that cannot be done.
fn on_a_small_disk(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(SMALL_DISK) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().expect("a folder");
    let script = "mount -t tmpfs -o size=24M tidegate-test \"$0\" && echo mounted && exec \"$@\" --nocapture";
    let own = std::env::current_exe().expect("a process knows its binary");
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(folder.path())
        .arg(own)
        .args(["--exact", test])
        .env(SMALL_DISK, folder.path())
        .output();
    let output = output.ok().filter(|it| it.stdout.starts_with(b"mounted"));
    let Some(output) = output else {
        println!("skipped: this process may not mount a file system in a namespace of its own");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{errors}");
    println!("{text}");
    None
}

#[test]
fn a_disk_that_was_full_takes_the_same_again_each_time_it_was_emptied() {
    let Some(folder) =
        on_a_small_disk("room::a_disk_that_was_full_takes_the_same_again_each_time_it_was_emptied")
    else {
        return;
    };
    let mut options = options(&folder);
    options.max_bytes = 1 << 30;
    options.min_free_bytes = 2 << 20;
    let (store, _) = Store::open(&options).expect("opens");
    apply(&store, vec![Write::PutSession(QueueKey(1), session("a"))]);
    let (mut next, mut taken) = (0, Vec::new());
    for _ in 0..10 {
        let full = fill(&store, next, options.max_bytes, 2000);
        let usage = store.usage();
        assert!(usage.is_limited_by_disk, "{usage:?}");
        taken.push(full - next);
        remove(&store, &(next..full).collect::<Vec<_>>(), options.max_bytes);
        next = full;
    }
    println!("{taken:?}");
    let (least, most) = (taken.iter().min(), taken.iter().max());
    let (Some(least), Some(most)) = (least, most) else {
        return;
    };
    assert!(*least > 3000 && least * 10 >= most * 8, "{taken:?}");
}

#[test]
fn half_of_a_full_disk_that_is_emptied_can_be_filled_again() {
    let Some(folder) =
        on_a_small_disk("room::half_of_a_full_disk_that_is_emptied_can_be_filled_again")
    else {
        return;
    };
    let mut options = options(&folder);
    options.max_bytes = 1 << 30;
    options.min_free_bytes = 2 << 20;
    let (store, _) = Store::open(&options).expect("opens");
    apply(&store, vec![Write::PutSession(QueueKey(1), session("a"))]);
    let mut waiting: Vec<u64> = Vec::new();
    let (mut next, mut taken) = (0, Vec::new());
    for _ in 0..10 {
        let full = fill(&store, next, options.max_bytes, 2000);
        taken.push(full - next);
        waiting.extend(next..full);
        next = full;
        let gone: Vec<u64> = waiting.drain(..waiting.len() / 2).collect();
        remove(&store, &gone, options.max_bytes);
    }
    println!("{taken:?}");
    assert!(
        taken[1..].iter().all(|count| *count > taken[0] / 4),
        "{taken:?}"
    );
}
