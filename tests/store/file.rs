//! The file of a store: one process at a time, readable by its owner alone, and refused with a
//! reason if it is damaged or foreign.

use std::fs;

use tidegate::store::{Start, Store, StoreError, StoreOptions};

use crate::rows::{Chance, apply, assert_has_samples, options, rows, samples};

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

/// Opens a file of these bytes; it must be refused with an error that names it and the way out,
/// stay as it is, and be moved aside if so configured.
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
