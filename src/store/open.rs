//! Opening: who else has the file, whether it is ours and whole, how it ended, and whether it should be smaller.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, StorageError,
};

use super::apply::Sorted;
use super::backend::{Disk, FileDisk, Handle, PAGE};
use super::error::{Doing, StoreError};
use super::recover::Totals;
use super::room::Room;
use super::rows::Unused;
use super::rows::meta::{self, Fact, META};
use super::{Gauges, Ledger, Store, StoreOptions, tables};
use crate::broker::record::TopicKey;
use crate::clock::{Reading, Stopwatch, seed, wall_ms};

/// The layout that this program writes: tables, keys and records.
pub(super) const FORMAT: u64 = 4;
/// The oldest layout that this program reads; opening brings it up to [`FORMAT`].
pub(super) const OLDEST_FORMAT: u64 = 1;

/// A file is compacted when it is opened if more of it is free than this, and more than half of it.
const WORTH_COMPACTING: u64 = 64 << 20;

const COMPACT: &str = "compact its file";

/// How a store was opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// What was found.
    pub start: Start,
    /// How long it took, verification and compaction included.
    pub took: Duration,
    /// Length of the file now.
    pub file_bytes: u64,
    /// Length of the file before it was compacted, if it was.
    pub compacted_from: Option<u64>,
    /// Where the file that could not be used is now.
    pub moved_aside: Option<PathBuf>,
}

/// What was found where the store should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing: the store is new.
    Created,
    /// A store that was closed.
    Clean,
    /// A store that was not closed: the process or the machine ended before.
    Recovered,
}

impl Store {
    /// Opens the store, or makes it: the folder, and the file with mode 0600. The whole file is verified first. One of an older layout is brought up to
    /// date; older programs refuse it from then on.
    ///
    /// # Errors
    /// If another process has it, if the operating system refuses, or if the file is damaged, another program's or a newer version's and
    /// `move_corrupt_aside` is off.
    pub fn open(options: &StoreOptions) -> Result<(Store, Opened), StoreError> {
        let watch = Stopwatch::start();
        let path = &options.path;
        let folder = folder_of(path);
        fs::create_dir_all(folder).map_err(io_error("make the folder", folder))?;
        let file = lock(path)?;
        let (store, mut opened) = match start_file(file, options) {
            Err(error) if error.is_unusable_file() && options.move_corrupt_aside => {
                let aside = move_aside(path)?;
                let (store, mut opened) = start_file(lock(path)?, options)?;
                opened.moved_aside = Some(aside);
                (store, opened)
            }
            result => result?,
        };
        if opened.start == Start::Created {
            // The name of a new file is durable only once its folder is.
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(io_error("sync the folder", folder))?;
        }
        opened.took = watch.elapsed();
        Ok((store, opened))
    }

    /// Opens a store on a disk of the caller's. Its free space counts as endless, and it cannot be moved aside. `identity` becomes its
    /// [`Store::identity`] and its [`Store::topic_key`] if it has none; it must not be 0.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with_backend(
        backend: impl StorageBackend,
        options: &StoreOptions,
        identity: u64,
    ) -> Result<(Store, Opened), StoreError> {
        let watch = Stopwatch::start();
        let names = Names {
            identity,
            topic_key: identity,
        };
        let (store, mut opened) = start(Box::new(backend), None, options, names)?;
        opened.took = watch.elapsed();
        Ok((store, opened))
    }
}

impl Store {
    /// Writes a new identity, which holds from the next opening on. Returns it.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub fn renew_identity(&self) -> Result<u64, StoreError> {
        let identity = seed().max(1);
        let batch = self.own_batch(Vec::new());
        let mut sorted = Sorted::new(&batch);
        sorted.put_fact(meta::IDENTITY, Fact::Number(identity));
        self.apply_sorted(batch.id, sorted, &|| ())?;
        Ok(identity)
    }

    /// Gives the disk back what is free. Takes as long as moving the live rows of the file's end to its beginning.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let database = database.as_mut().ok_or(StoreError::Stopped)?;
        database.compact().doing(COMPACT)?;
        Ok(())
    }
}

fn start_file(file: File, options: &StoreOptions) -> Result<(Store, Opened), StoreError> {
    let second = file.try_clone().map_err(io_error("open", &options.path))?;
    start(
        Box::new(FileDisk(file)),
        Some(second),
        options,
        Names {
            identity: seed().max(1),
            topic_key: seed(),
        },
    )
}

/// What a store that has none gets.
#[derive(Clone, Copy)]
struct Names {
    identity: u64,
    topic_key: u64,
}

fn start(
    backend: Box<dyn StorageBackend>,
    file: Option<File>,
    options: &StoreOptions,
    names: Names,
) -> Result<(Store, Opened), StoreError> {
    let path = &options.path;
    let disk = Disk::new(backend).map_err(io_error("read", path))?;
    let mut start = look(&disk).map_err(io_error("read", path))?;
    let mut database = Database::builder()
        .set_cache_size(options.cache_bytes)
        .set_check_integrity_on_open(true)
        .create_with_backend(Handle(disk.clone()))
        .map_err(|error| cannot_open(error, path))?;
    if prepare(&database, path, names)? {
        start = Start::Created;
    }
    let facts = Facts::of(&database).map_err(|error| unusable(error, path))?;
    let totals = Totals::of(&database).map_err(|error| unusable(error, path))?;
    let compacted_from = compact(&mut database, &disk, totals.live)?;
    let opened = Opened {
        start,
        took: Duration::ZERO,
        file_bytes: disk.file_len(),
        compacted_from,
        moved_aside: None,
    };
    let room = Room::new(
        options.max_bytes,
        options.min_free_bytes,
        options.cache_bytes as u64,
    );
    let store = Store {
        path: path.clone(),
        identity: facts.identity,
        topic_key: facts.topic_key,
        clock: facts.clock,
        cache_bytes: options.cache_bytes,
        database: RwLock::new(Some(database)),
        disk,
        file,
        ledger: Mutex::new(Ledger {
            unused: facts.unused,
            followers: Vec::new(),
            live: totals.live,
            room,
            signs: totals.signs,
            stopped: false,
        }),
        gauges: Gauges::default(),
    };
    store.look_at_room()?;
    Ok((store, opened))
}

/// Opens and locks the file.
fn lock(path: &Path) -> Result<File, StoreError> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io_error("open", path))?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.into() }),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", path)(error)),
        }
        // Another process may have moved the file aside between opening and locking.
        let ours = file.metadata().map_err(io_error("read", path))?;
        match fs::metadata(path) {
            Ok(there) if there.ino() == ours.ino() && there.dev() == ours.dev() => return Ok(file),
            Ok(_) => (),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(io_error("read", path)(error)),
        }
    }
}

/// Renames the file; the time keeps names apart.
fn move_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".unusable-{}", wall_ms()));
    let aside = path.with_file_name(name);
    fs::rename(path, &aside).map_err(io_error("move aside", path))?;
    Ok(aside)
}

/// Bytes of the header that tell how the database ended: a magic number, and then flags of which this one says that it is open.
const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
const STILL_OPEN: u8 = 2;

/// How the database ended, as its header says. A file whose making was cut short, which has never held anything, is emptied.
fn look(disk: &Disk) -> io::Result<Start> {
    let len = disk.file_len();
    let mut head = [0; MAGIC.len() + 1];
    if len < PAGE {
        if len > 0 {
            // The magic number is written last, after a sync of a whole page: so short a file has none, or is cut.
            disk.peek(0, &mut head[..(len as usize).min(MAGIC.len() + 1)])?;
            if head[..MAGIC.len()] == [0; MAGIC.len()] {
                disk.resize(0)?;
            }
        }
        return Ok(Start::Created);
    }
    disk.peek(0, &mut head)?;
    if head[..MAGIC.len()] == [0; MAGIC.len()] && is_blank(disk, len)? {
        disk.resize(0)?;
        return Ok(Start::Created);
    }
    Ok(match head[MAGIC.len()] & STILL_OPEN {
        0 => Start::Clean,
        _ => Start::Recovered,
    })
}

/// Whether a file without a magic number is one that was never finished: nothing after its first page.
fn is_blank(disk: &Disk, len: u64) -> io::Result<bool> {
    if len > 1 << 20 {
        return Ok(false);
    }
    let mut rest = vec![0; (len - PAGE) as usize];
    disk.peek(PAGE, &mut rest)?;
    Ok(rest.iter().all(|byte| *byte == 0))
}

/// Makes the tables of a new database, and those that an old one lacks, and checks the others. Whether it is new. `names` are for one that has none.
fn prepare(database: &Database, path: &Path, names: Names) -> Result<bool, StoreError> {
    const PREPARE: &str = "read its tables";
    let unusable = |why: String| StoreError::Unusable {
        path: path.into(),
        why,
    };
    let transaction = database.begin_read().doing(PREPARE)?;
    if transaction.list_tables().doing(PREPARE)?.next().is_none() {
        drop(transaction);
        make(database, names)?;
        return Ok(true);
    }
    let facts = transaction.open_table(META);
    let facts = facts.map_err(|_| unusable("it is a database of another program".to_owned()))?;
    let format = facts.get(meta::FORMAT).doing(PREPARE)?;
    let format = format.map(|row| meta::number(row.value()));
    match format {
        Some(Ok(FORMAT)) => (),
        Some(Ok(OLDEST_FORMAT..FORMAT)) => {
            drop((facts, transaction));
            make(database, names)?;
            return Ok(false);
        }
        Some(Ok(other)) => return Err(unusable(unknown_format(other))),
        Some(Err(what)) => {
            return Err(unusable(format!("its version cannot be read: {what}")));
        }
        None => return Err(unusable("it has no version".to_owned())),
    }
    tables::check(&transaction).map_err(unusable)?;
    Ok(false)
}

/// Says why a layout cannot be read.
pub(super) fn unknown_format(format: u64) -> String {
    format!(
        "its layout is version {format}, this program knows versions {OLDEST_FORMAT} to {FORMAT}: it was written by a newer tidegate"
    )
}

/// Makes what a database of this layout has and this one has not, in one transaction.
fn make(database: &Database, names: Names) -> Result<(), StoreError> {
    const MAKE: &str = "make its tables";
    let transaction = database.begin_write().doing(MAKE)?;
    tables::create(&transaction)?;
    {
        let mut facts = transaction.open_table(META).doing(MAKE)?;
        for (key, number) in [
            (meta::IDENTITY, names.identity),
            (meta::TOPIC_KEY, names.topic_key),
            (meta::FORMAT, FORMAT),
        ] {
            if key == meta::FORMAT || facts.get(key).doing(MAKE)?.is_none() {
                let record = meta::number_record(number);
                facts.insert(key, record.as_slice()).doing(MAKE)?;
            }
        }
    }
    transaction.commit().doing(MAKE)
}

/// What the store says of itself.
struct Facts {
    identity: u64,
    topic_key: TopicKey,
    clock: Option<Reading>,
    unused: Unused,
}

impl Facts {
    fn of(database: &Database) -> Result<Facts, StoreError> {
        let transaction = database.begin_read().doing(tables::READ)?;
        let facts = transaction.open_table(META).doing(tables::READ)?;
        let number = |key: &'static [u8]| -> Result<Option<u64>, StoreError> {
            let row = facts.get(key).doing(tables::READ)?;
            let number = row.map(|row| meta::number(row.value())).transpose();
            number.map_err(|what| tables::bad(META, key)(what))
        };
        let name = |key| {
            let missing = || tables::bad(META, key)("it is not there");
            number(key)?.ok_or_else(missing)
        };
        let identity = match name(meta::IDENTITY)? {
            0 => return Err(tables::bad(META, meta::IDENTITY)("it is 0")),
            identity => identity,
        };
        let clock = facts.get(meta::CLOCK).doing(tables::READ)?;
        let clock = clock.map(|row| meta::reading(row.value())).transpose();
        Ok(Facts {
            identity,
            topic_key: TopicKey(name(meta::TOPIC_KEY)?),
            clock: clock.map_err(|what| tables::bad(META, meta::CLOCK)(what))?,
            unused: Unused {
                seq: number(meta::SEQ)?.unwrap_or(0),
                queue: number(meta::QUEUE)?.unwrap_or(0),
                batch: number(meta::BATCH)?.unwrap_or(0),
            },
        })
    }
}

/// Makes the file smaller if that pays. Returns how long it was.
fn compact(
    database: &mut Database,
    disk: &Arc<Disk>,
    live: u64,
) -> Result<Option<u64>, StoreError> {
    let before = disk.file_len();
    let worth = |free: u64| free > WORTH_COMPACTING && free > before / 2;
    if !worth(before.saturating_sub(live)) {
        return Ok(None);
    }
    // The exact figure takes a walk through the whole file.
    let transaction = database.begin_write().doing(COMPACT)?;
    let used = transaction.stats().doing(COMPACT)?.allocated_pages() * PAGE;
    transaction.abort().doing(COMPACT)?;
    if !worth(before.saturating_sub(used)) {
        return Ok(None);
    }
    database.compact().doing(COMPACT)?;
    Ok(Some(before))
}

/// Tells a file that is not ours or not whole from a disk that fails.
fn cannot_open(error: DatabaseError, path: &Path) -> StoreError {
    let why = match error {
        DatabaseError::Storage(StorageError::Io(error)) => match error.kind() {
            io::ErrorKind::InvalidData => "it is not a tidegate store".to_owned(),
            io::ErrorKind::UnexpectedEof => "it is cut short".to_owned(),
            _ => return io_error("read", path)(error),
        },
        DatabaseError::Storage(StorageError::Corrupted(what)) => format!("it is damaged ({what})"),
        DatabaseError::UpgradeRequired(version) => {
            format!("its database format {version} is not known")
        }
        other => {
            return StoreError::Database {
                doing: "open its database",
                source: Box::new(other.into()),
            };
        }
    };
    StoreError::Unusable {
        path: path.into(),
        why,
    }
}

/// A bad record found while opening condemns the file.
fn unusable(error: StoreError, path: &Path) -> StoreError {
    let why = match error {
        StoreError::Record { table, key, what } => {
            format!("its table {table} has a bad record at {key}: {what}")
        }
        other => return other,
    };
    StoreError::Unusable {
        path: path.into(),
        why,
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

pub(super) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io {
        doing,
        path: path.into(),
        source,
    }
}
