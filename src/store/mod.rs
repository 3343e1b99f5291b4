//! What is remembered: one redb database, the record layouts, the committer thread.
//!
//! A [`Store`] is opened, hands every row back once ([`Store::recover`]), and from then on is written by one thread ([`Committer`]) and read
//! by any ([`Store::fetch`]). A batch is one write transaction and one fsync ([`Store::apply`]).
//!
//! - `apply`: a batch sorted by table and key.
//! - `follow`: what else gets all that is committed.
//! - `rows`, `tables`: the layout, version 4; a file for each kind of row.
//! - `backend`: the disk beneath redb, which counts and holds back a commit's fsync until its writes have been announced.
//! - `room`: the disk budget.
//! - `open`, `recover`, `orphans`: starting, after a good or a bad end.
//! - `export`, `pages`: reading a file without opening it, also a damaged one.

mod apply;
mod backend;
mod committer;
mod error;
mod export;
mod follow;
mod open;
mod orphans;
mod pages;
mod recover;
mod room;
mod rows;
mod tables;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use redb::{Database, ReadableDatabase};

pub use committer::{Committer, Notifier, Progress};
pub use error::StoreError;
pub use export::{Age, Export, TableReport};
pub use follow::Follower;
pub use open::{Opened, Start};
pub use recover::{Recovery, read_row};

use self::apply::Sorted;
use self::backend::{Disk, Handle};
use self::error::Doing;
use self::orphans::Signs;
use self::room::{Advice, DiskSpace, Room, Space};
use self::rows::{Table, Unused, key_u64};
use self::tables::{PART, READ, bad, whole};
use crate::broker::Message;
use crate::broker::record::{Batch, BatchId, BodyId, TopicKey, Write};
use crate::clock::{Reading, Stopwatch};

/// Where the store is and how large it may get.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreOptions {
    /// The database file.
    pub path: PathBuf,
    /// Hard cap on the file, in bytes. Reached: [`Store::has_room`] turns false.
    pub max_bytes: u64,
    /// Bytes of free disk that are left alone. Reached: as `max_bytes`.
    pub min_free_bytes: u64,
    /// Page cache, in bytes.
    pub cache_bytes: usize,
    /// A file that cannot be read is moved aside and an empty one begun, instead of refusing to start.
    pub move_corrupt_aside: bool,
}

/// The database. Reading and writing take `&self`; writers wait for each other.
pub struct Store {
    path: PathBuf,
    identity: u64,
    topic_key: TopicKey,
    /// What the clocks showed last, before it was opened.
    clock: Option<Reading>,
    cache_bytes: usize,
    /// `None` after it was closed, or an attempt to reopen it has failed.
    database: RwLock<Option<Database>>,
    disk: Arc<Disk>,
    /// For the free space of its file system; a simulated disk has none.
    file: Option<File>,
    ledger: Mutex<Ledger>,
    gauges: Gauges,
}

/// What a commit changes besides rows.
struct Ledger {
    unused: Unused,
    followers: Vec<Box<dyn Follower>>,
    live: u64,
    room: Room,
    /// What opening has seen.
    signs: Signs,
    stopped: bool,
}

/// Figures that anybody may read without waiting.
#[derive(Default)]
struct Gauges {
    room: AtomicU64,
    /// Looking for room may find more.
    may_have_more: AtomicBool,
    live: AtomicU64,
    limited_by_disk: AtomicBool,
    commits: AtomicU64,
    last_commit: AtomicU64,
    longest_commit: AtomicU64,
}

/// What a batch cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Applied {
    /// Bytes written to the file.
    pub written_bytes: u64,
    /// Syncs: one, and one more when the file had to grow.
    pub syncs: u64,
    /// From the first write to the end of the sync.
    pub took: Duration,
}

/// Figures of a store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Length of the file.
    pub file_bytes: u64,
    /// Estimate of the bytes that rows take, keys and records.
    pub live_bytes: u64,
    /// Bytes that [`Store::has_room`] knows to be left for new messages; the true figure may be larger.
    pub room_bytes: u64,
    /// Free space of the file system; `None` if it cannot be told.
    pub free_disk_bytes: Option<u64>,
    /// It is the disk that limits how large the file can become, and not its cap.
    pub is_limited_by_disk: bool,
    /// Bytes written to the file since it was opened.
    pub written_bytes: u64,
    /// Syncs since it was opened.
    pub syncs: u64,
    /// Batches committed since it was opened.
    pub commits: u64,
    /// How long the last commit took.
    pub last_commit: Duration,
    /// How long the longest commit took.
    pub longest_commit: Duration,
}

impl Store {
    /// Commits a batch with one fsync. `written` is called once, when everything has been handed to the operating system and the fsync is still
    /// to come.
    ///
    /// # Errors
    /// If the database or the disk fails. The batch may or may not be on disk, so the store then takes no other batch until it is opened again.
    pub fn apply(&self, batch: &Batch, written: &dyn Fn()) -> Result<Applied, StoreError> {
        self.apply_sorted(batch.id, Sorted::new(batch), written)
    }

    /// Has all that is committed from now on handed to `follower`, too.
    pub fn follow(&self, follower: Box<dyn Follower>) {
        self.ledger().followers.push(follower);
    }

    /// Reads message bodies. They are best in ascending order: neighbours are then read in one go. `each` is called once for each of them, in
    /// their order, with `None` for a body that is not there.
    ///
    /// # Errors
    /// If the database fails, or a record is not what this program writes; `each` has been called for those before it.
    pub fn fetch(
        &self,
        ids: &[BodyId],
        each: &mut dyn FnMut(BodyId, Option<Message>),
    ) -> Result<(), StoreError> {
        let database = self.database();
        let database = database.as_ref().ok_or(StoreError::Stopped)?;
        let transaction = database.begin_read().doing(READ)?;
        let table = transaction.open_table(rows::Message::TABLE).doing(READ)?;
        let mut bytes = Vec::new();
        for run in ids.chunk_by(|a, b| a < b && b.0 - a.0 <= NEIGHBOURS) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else {
                continue;
            };
            let (from, to) = (first.0.to_be_bytes(), last.0.to_be_bytes());
            if from == to {
                // A look-up is cheaper than a walk over one row.
                let row = table.get(&from[..]).doing(READ)?;
                let read = |first: redb::AccessGuard<'_, &[u8]>| {
                    let first = first.value();
                    let record =
                        whole(&transaction, rows::Message::TABLE, &from, first, &mut bytes)?;
                    rows::Message::of(record).map_err(|what| bad(rows::Message::TABLE, &from)(what))
                };
                each(*first, row.map(read).transpose()?);
                continue;
            }
            let mut rows = table.range(&from[..]..=&to[..]).doing(READ)?;
            let mut row = rows.next().transpose().doing(READ)?;
            for &id in run {
                let mut message = None;
                while let Some((key, first)) = &row {
                    let key = key.value();
                    let at = key_u64(key).map_err(|what| bad(rows::Message::TABLE, key)(what))?;
                    if at > id.0 {
                        break;
                    }
                    if at == id.0 {
                        let first = first.value();
                        let record =
                            whole(&transaction, rows::Message::TABLE, key, first, &mut bytes)?;
                        message = Some(
                            rows::Message::of(record)
                                .map_err(|what| bad(rows::Message::TABLE, key)(what))?,
                        );
                    }
                    row = rows.next().transpose().doing(READ)?;
                }
                each(id, message);
            }
        }
        Ok(())
    }

    /// Whether new durable messages may be accepted: [`Store::room`] is above 0.
    pub fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// Bytes of messages that may still be accepted, those included that wait to be committed. It is 0 before a commit could fail for lack of
    /// room, and grows again when enough has been removed; updated after each commit and by [`Store::look_at_room`]. Removals, session changes and what has been accepted
    /// already commit in any case.
    pub fn room(&self) -> u64 {
        // A row in a page that is not full takes up to twice its size.
        self.gauges.room.load(Ordering::Relaxed) / 2
    }

    /// Whether [`Store::room`] may become more when it is used up, though no row is removed: it is a bound from below, and looked for anew after commits.
    pub fn may_have_more_room(&self) -> bool {
        self.gauges.may_have_more.load(Ordering::Relaxed)
    }

    /// The store's figures.
    pub fn usage(&self) -> Usage {
        let gauges = &self.gauges;
        let micros = |gauge: &AtomicU64| Duration::from_micros(gauge.load(Ordering::Relaxed));
        Usage {
            file_bytes: self.disk.file_len(),
            live_bytes: gauges.live.load(Ordering::Relaxed),
            room_bytes: gauges.room.load(Ordering::Relaxed),
            free_disk_bytes: self.disk_space().map(|disk| disk.free),
            is_limited_by_disk: gauges.limited_by_disk.load(Ordering::Relaxed),
            written_bytes: self.disk.written(),
            syncs: self.disk.syncs(),
            commits: gauges.commits.load(Ordering::Relaxed),
            last_commit: micros(&gauges.last_commit),
            longest_commit: micros(&gauges.longest_commit),
        }
    }

    /// Closes the database, so that the next start finds it closed and not cut off, whoever still holds this store. Nothing can be read or written
    /// any more.
    ///
    /// # Errors
    /// The disk failed; what was committed is there all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        let ledger = self.ledger();
        let database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(database);
        drop(ledger);
        self.disk.check().doing("close the database")
    }

    /// What names this store among all that there are: drawn by lot when it was made, and never 0. A copy of a store has the same.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// The key of topic hashes.
    pub fn topic_key(&self) -> TopicKey {
        self.topic_key
    }

    /// What the clocks showed last before the store was opened; `None` if nobody has written that.
    pub fn clock(&self) -> Option<Reading> {
        self.clock
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn apply_sorted(
        &self,
        id: BatchId,
        batch: Sorted<'_>,
        written: &dyn Fn(),
    ) -> Result<Applied, StoreError> {
        let mut ledger = self.ledger();
        if ledger.stopped {
            return Err(StoreError::Stopped);
        }
        let applied = self.commit(&mut ledger, id, batch, written);
        if applied.is_err() {
            self.stop(&mut ledger);
        }
        applied
    }

    /// Returns a batch of the store's own, while no broker makes any.
    fn own_batch(&self, writes: Vec<Write>) -> Batch {
        let id = BatchId(self.unused().batch);
        Batch { id, writes }
    }

    fn commit(
        &self,
        ledger: &mut Ledger,
        id: BatchId,
        batch: Sorted<'_>,
        written: &dyn Fn(),
    ) -> Result<Applied, StoreError> {
        let watch = Stopwatch::start();
        let (bytes, syncs) = (self.disk.written(), self.disk.syncs());
        let file = self.disk.file_len();
        let grown = self.write_rows(ledger, id, batch)?;
        written();
        self.disk.settle().doing("sync a batch")?;
        let applied = Applied {
            written_bytes: self.disk.written() - bytes,
            syncs: self.disk.syncs() - syncs,
            took: watch.elapsed(),
        };
        ledger.live = ledger.live.saturating_add_signed(grown);
        ledger.room.wrote(applied.written_bytes);
        ledger.room.resized(file, self.disk.file_len());
        self.keep_room(ledger)?;
        let micros = u64::try_from(applied.took.as_micros()).unwrap_or(u64::MAX);
        self.gauges.last_commit.store(micros, Ordering::Relaxed);
        self.gauges
            .longest_commit
            .fetch_max(micros, Ordering::Relaxed);
        self.gauges.commits.fetch_add(1, Ordering::Relaxed);
        Ok(applied)
    }

    /// Everything of a commit but its sync. Returns by how many bytes the live rows have grown.
    fn write_rows(
        &self,
        ledger: &mut Ledger,
        id: BatchId,
        batch: Sorted<'_>,
    ) -> Result<i64, StoreError> {
        let database = self.database();
        let database = database.as_ref().ok_or(StoreError::Stopped)?;
        let transaction = database.begin_write().doing("begin a batch")?;
        let followers = &mut ledger.followers;
        for follower in followers.iter_mut() {
            follower.begin(id);
        }
        let (grown, unused) = batch.write(&transaction, ledger.unused, followers)?;
        for follower in followers.iter_mut() {
            follower.end();
        }
        self.disk.begin_commit();
        transaction.commit().doing("commit a batch")?;
        ledger.unused = unused;
        Ok(grown)
    }

    /// Looks after room once a commit is over.
    fn keep_room(&self, ledger: &mut Ledger) -> Result<(), StoreError> {
        let space = self.space(ledger.live);
        match ledger.room.advice(&space) {
            Advice::Nothing => {}
            Advice::Prove(bytes) => {
                let mut proved = self.prove(bytes)?;
                if !proved && ledger.room.can_extend(&space) {
                    self.extend(ledger.room.cap(&space))?;
                    ledger.room.resized(space.file, self.disk.file_len());
                    proved = self.prove(bytes)?;
                }
                ledger.room.proved(bytes, proved, ledger.live);
            }
            Advice::Compact => {
                self.compact()?;
                ledger.room.resized(space.file, self.disk.file_len());
                let given = self.space(ledger.live).disk.map_or(0, |disk| disk.given);
                ledger.room.compacted(given);
            }
        }
        let space = self.space(ledger.live);
        let limited = ledger.room.cap(&space) < ledger.room.max();
        self.gauges
            .room
            .store(ledger.room.left(&space), Ordering::Relaxed);
        let more = ledger.room.may_have_more(&space);
        self.gauges.may_have_more.store(more, Ordering::Relaxed);
        self.gauges.live.store(ledger.live, Ordering::Relaxed);
        self.gauges
            .limited_by_disk
            .store(limited, Ordering::Relaxed);
        Ok(())
    }

    fn space(&self, live: u64) -> Space {
        Space {
            file: self.disk.file_len(),
            live,
            disk: self.disk_space(),
        }
    }

    /// Whether `bytes` are free within the file: allocates them a page at a time in a transaction that is undone.
    fn prove(&self, bytes: u64) -> Result<bool, StoreError> {
        const PROVE: &str = "measure its free space";
        let database = self.database();
        let database = database.as_ref().ok_or(StoreError::Stopped)?;
        let transaction = database.begin_write().doing(PROVE)?;
        self.disk.begin_probe();
        let allocated = (|| {
            let mut table = transaction.open_table(PROOF).doing(PROVE)?;
            let mut key = 0u64;
            while key < bytes / backend::PAGE && !self.disk.probe_grew() {
                table.insert_reserve(key, PART).doing(PROVE)?;
                key += 1;
            }
            Ok(())
        })();
        let aborted = transaction.abort().doing(PROVE);
        let grew = self.disk.end_probe();
        allocated.and(aborted).map(|()| !grew)
    }

    /// Closes the database and opens it over a file of `len` bytes; redb takes a longer file as its own.
    fn extend(&self, len: u64) -> Result<(), StoreError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *database = None;
        self.disk.check().doing("close the database")?;
        // A file system that has no room for a longer file leaves it as it is.
        let _ = self.disk.resize(len);
        *database = Some(
            Database::builder()
                .set_cache_size(self.cache_bytes)
                .create_with_backend(Handle(self.disk.clone()))
                .doing("reopen the database")?,
        );
        Ok(())
    }

    /// Finds out again how much room there is: the disk may have got some since the last commit, which a store that is full does not make. Takes as
    /// long as a commit, or as a compaction.
    ///
    /// # Errors
    /// If the database or the disk fails; the store then takes no batch until it is opened again.
    pub fn look_at_room(&self) -> Result<(), StoreError> {
        let mut ledger = self.ledger();
        if ledger.stopped {
            return Err(StoreError::Stopped);
        }
        let looked = self.keep_room(&mut ledger);
        if looked.is_err() {
            self.stop(&mut ledger);
        }
        looked
    }

    fn unused(&self) -> Unused {
        self.ledger().unused
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, ledger: &mut Ledger) {
        ledger.stopped = true;
        // The database must not be closed as if all were well.
        self.disk.fail();
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk_space(&self) -> Option<DiskSpace> {
        /// What a block of [`rustix::fs::Stat`] is, whatever the file system's are.
        const BLOCK: u64 = 512;
        let file = self.file.as_ref()?;
        let space = rustix::fs::fstatvfs(file).ok()?;
        let stat = rustix::fs::fstat(file).ok()?;
        Some(DiskSpace {
            free: space.f_bavail.saturating_mul(space.f_frsize),
            given: (stat.st_blocks as u64).saturating_mul(BLOCK),
        })
    }
}

const PROOF: redb::TableDefinition<u64, &[u8]> = redb::TableDefinition::new("proof");

/// Bodies whose identifiers are at most this far apart are read in one go.
const NEIGHBOURS: u64 = 16;
