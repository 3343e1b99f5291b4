//! The disk beneath the database: counts what is written, and holds back the fsync of a commit
//! until the writes have been announced.
//!
//! redb writes all pages of a commit and then syncs, once. The store has something to say between
//! the two (`durability = os` waits only for the first), so within [`Disk::begin_commit`] the sync
//! that follows the database's header page is remembered instead of made, and [`Disk::settle`]
//! makes it. Until then nothing else may reach the disk, since redb believes that the commit is
//! durable and may write over pages of the commit before: whoever writes or shortens the file in
//! between makes the sync first.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::StorageBackend;

/// Bytes of a page of the database.
pub(super) const PAGE: u64 = 4096;

/// A storage backend with its counters; outlives a database that is closed to be opened again.
pub(super) struct Disk {
    inner: Box<dyn StorageBackend>,
    written: AtomicU64,
    syncs: AtomicU64,
    len: AtomicU64,
    mode: Mutex<Mode>,
    /// Whether `mode` has anything to say to a write, so that most writes need no lock.
    guarded: AtomicBool,
    header_written: AtomicBool,
    failed: AtomicBool,
}

/// What is special about the moment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Nothing.
    Plain,
    /// A commit is on its way: the sync after the header page is held back.
    Committing,
    /// A commit has been written and its sync is due.
    SyncDue,
    /// A transaction that will be undone tries how much room there is; growth reaches no disk.
    /// `len` is the file's real length.
    Probing { len: u64, grew: bool },
}

impl Disk {
    /// A disk over `inner`.
    ///
    /// # Errors
    /// If the length cannot be read.
    pub(super) fn new(inner: Box<dyn StorageBackend>) -> io::Result<Arc<Disk>> {
        let len = inner.len()?;
        Ok(Arc::new(Disk {
            inner,
            written: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            len: AtomicU64::new(len),
            mode: Mutex::new(Mode::Plain),
            guarded: AtomicBool::new(false),
            header_written: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }))
    }

    /// Bytes written since the start.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Syncs made since the start.
    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Bytes of the file.
    pub(super) fn file_len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// From here on the sync that ends a commit is held back.
    pub(super) fn begin_commit(&self) {
        self.header_written.store(false, Ordering::Relaxed);
        self.set_mode(Mode::Committing);
    }

    /// Makes the sync that was held back, if it has not been made; plain again.
    ///
    /// # Errors
    /// If it fails; the disk takes no write after that.
    pub(super) fn settle(&self) -> io::Result<()> {
        let mut mode = self.lock();
        let due = *mode == Mode::SyncDue;
        let result = if due { self.sync_now() } else { Ok(()) };
        self.put_mode(&mut mode, Mode::Plain);
        result.and_then(|()| self.check())
    }

    /// From here on growth and writes beyond the file's end reach no disk, until
    /// [`Disk::end_probe`].
    pub(super) fn begin_probe(&self) {
        let len = self.file_len();
        self.set_mode(Mode::Probing { len, grew: false });
    }

    /// Ends a probe; whether the database asked for a longer file.
    pub(super) fn end_probe(&self) -> bool {
        let mut mode = self.lock();
        let Mode::Probing { len, grew } = *mode else {
            return true;
        };
        self.len.store(len, Ordering::Relaxed);
        self.put_mode(&mut mode, Mode::Plain);
        grew
    }

    /// Sets the length while no database has the disk open.
    ///
    /// # Errors
    /// If the file cannot be that long, or not be synced.
    pub(super) fn resize(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)?;
        self.len.store(len, Ordering::Relaxed);
        self.sync_now()
    }

    /// Reads without counting, while no database has the disk open.
    ///
    /// # Errors
    /// If the bytes are not there.
    pub(super) fn peek(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    /// Takes no more writes: what is on disk is all there will be.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Whether the database has asked for a longer file since [`Disk::begin_probe`].
    pub(super) fn probe_grew(&self) -> bool {
        matches!(*self.lock(), Mode::Probing { grew: true, .. })
    }

    /// Fails if the disk takes no more writes.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(io::Error::other("an earlier write or sync failed"));
        }
        Ok(())
    }

    /// After a failed fsync nobody knows what is on disk, so it must not be followed by writes that
    /// call the file clean.
    fn sync_now(&self) -> io::Result<()> {
        self.check()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync_data().inspect_err(|_| self.fail())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_mode(&self, mode: Mode) {
        self.put_mode(&mut self.lock(), mode);
    }

    fn put_mode(&self, place: &mut Mode, mode: Mode) {
        *place = mode;
        let guarded = matches!(mode, Mode::SyncDue | Mode::Probing { .. });
        self.guarded.store(guarded, Ordering::SeqCst);
    }

    /// Makes a sync that is due before anything else is written. Whether a write of these bytes may
    /// reach the disk.
    fn before_write(&self, end: u64) -> io::Result<bool> {
        if !self.guarded.load(Ordering::SeqCst) {
            return Ok(true);
        }
        let mut mode = self.lock();
        match *mode {
            Mode::SyncDue => {
                let result = self.sync_now();
                self.put_mode(&mut mode, Mode::Plain);
                result.map(|()| true)
            }
            Mode::Probing { len, .. } => Ok(end <= len),
            Mode::Plain | Mode::Committing => Ok(true),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Only releases locks; there is nobody left to tell.
        let _ = self.inner.close();
    }
}

/// A database's hold on a [`Disk`].
pub(super) struct Handle(pub(super) Arc<Disk>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.0.inner).finish()
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.file_len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let disk = &*self.0;
        disk.check()?;
        let mut mode = disk.lock();
        match &mut *mode {
            Mode::Probing { len: real, grew } => {
                *grew |= len > *real;
                disk.len.store(len, Ordering::Relaxed);
                return Ok(());
            }
            Mode::SyncDue => {
                let result = disk.sync_now();
                disk.put_mode(&mut mode, Mode::Plain);
                result?;
            }
            Mode::Plain | Mode::Committing => (),
        }
        disk.inner.set_len(len).inspect_err(|_| disk.fail())?;
        disk.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let disk = &*self.0;
        let mut mode = disk.lock();
        match *mode {
            Mode::Probing { .. } => disk.check(),
            // Growing the file within a transaction syncs too, before the header is written: that
            // one is not held back.
            Mode::Committing if disk.header_written.load(Ordering::Relaxed) => {
                disk.put_mode(&mut mode, Mode::SyncDue);
                disk.check()
            }
            _ => disk.sync_now(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let disk = &*self.0;
        disk.check()?;
        let len = data.len() as u64;
        if !disk.before_write(offset.saturating_add(len))? {
            return Ok(());
        }
        disk.inner
            .write(offset, data)
            .inspect_err(|_| disk.fail())?;
        if offset == 0 {
            disk.header_written.store(true, Ordering::Relaxed);
        }
        disk.written.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }
}

/// A file, read and written in place.
#[derive(Debug)]
pub(super) struct FileDisk(pub(super) File);

impl StorageBackend for FileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
