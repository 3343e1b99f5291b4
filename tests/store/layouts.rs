//! Stores that earlier versions wrote: the golden file of each layout is read, exported and
//! brought up to date.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use redb::{Database, TableDefinition};
use tidegate::broker::record::{Source, Write};
use tidegate::clock::Reading;
use tidegate::store::{Export, Start, Store, StoreOptions, TableReport};

use crate::rows::{
    apply, assert_has, assert_has_samples, later_samples, layout_4_samples, layout_of, options,
    samples,
};

/// A copy of the golden file of a layout, to open.
pub fn golden(folder: &Path, layout: impl Display) -> StoreOptions {
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
    let folder = tempfile::tempdir().expect("a folder");
    let (store, opened) = Store::open(&golden(folder.path(), 3)).expect("opens");
    assert_eq!(opened.start, Start::Clean);
    assert_has_samples(&store);
    assert_ne!(store.identity(), 0);
}

/// Rows of layout 3 have learned more in its life. This file is of the last program that wrote it.
#[test]
fn what_the_last_program_of_layout_3_wrote_is_read_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, opened) = Store::open(&golden(folder.path(), "3-late")).expect("opens");
    assert_eq!(opened.start, Start::Clean);
    let clock = Reading {
        unix: 1_800_000_000_000,
        wall: 1_800_000_000_007,
    };
    assert_eq!(store.clock(), Some(clock));
    let mut found = Vec::new();
    store.recover(&mut |row| found.push(row)).expect("recovers");
    let source = Source {
        client_id: "pump-1".into(),
        user: Some("ann".into()),
        acl: None,
    };
    let has_source = |row: &Write| matches!(row, Write::PutRetained(_, Some(it)) if **it == source);
    assert!(found.iter().any(has_source));
    for row in later_samples() {
        assert!(found.contains(&row), "{row:?}");
    }
    assert_eq!(
        found.len(),
        1 + samples().len() - 4 + 1,
        "the clock, a subscription, no bodies"
    );
}

#[test]
fn what_layout_4_has_brought_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(folder.path());
    let (store, _) = Store::open(&options).expect("opens");
    apply(&store, layout_4_samples());
    assert_has(&store, layout_4_samples());
    let key = store.topic_key();
    drop(store);
    let (store, _) = Store::open(&options).expect("opens");
    assert_has(&store, layout_4_samples());
    assert_eq!(store.topic_key(), key, "it is drawn by lot once");
    let other = tempfile::tempdir().expect("a folder");
    let (other, _) = Store::open(&crate::rows::options(other.path())).expect("opens");
    assert_ne!(other.topic_key(), key);
}

#[test]
fn a_database_of_layout_4_is_read_whole() {
    // Written once, by the program that introduced the layout: TIDEGATE_WRITE_GOLDEN=1 cargo test --test store layout_4
    if std::env::var_os("TIDEGATE_WRITE_GOLDEN").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/store-v4.redb");
        let options = StoreOptions {
            path,
            ..options(Path::new(""))
        };
        let (store, opened) = Store::open(&options).expect("opens");
        assert_eq!(opened.start, Start::Created);
        apply(&store, layout_4_samples());
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (store, opened) = Store::open(&golden(folder.path(), 4)).expect("opens");
    assert_eq!(opened.start, Start::Clean);
    assert_has(&store, layout_4_samples());
}

#[test]
fn a_database_of_a_newer_layout_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = golden(folder.path(), 3);
    let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");
    let database = Database::open(&options.path).expect("opens");
    let transaction = database.begin_write().expect("begins");
    let newer = [&[1][..], &5u64.to_le_bytes()].concat();
    let mut meta = transaction.open_table(table).expect("it is there");
    meta.insert(&b"format"[..], newer.as_slice())
        .expect("writes");
    drop(meta);
    transaction.commit().expect("commits");
    drop(database);
    let newer = "its layout is version 5, this program knows versions 1 to 4";
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
