//! A disk that can lose its power.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::rows::Chance;

/// A disk in memory that remembers what has been synced and what has only been written.
#[derive(Clone, Debug, Default)]
pub struct FakeDisk(Arc<Mutex<Image>>);

#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What a read sees.
    pub live: Vec<u8>,
    /// What was there at the last sync.
    pub durable: Vec<u8>,
    /// Writes since then.
    pub unsynced: Vec<(usize, Vec<u8>)>,
    /// Syncs made.
    pub syncs: u64,
    /// Whether syncs fail.
    pub fail_syncs: bool,
    /// Writes while syncs failed.
    pub writes_after_failure: u64,
    /// Take a power cut now and then, before a write or a sync.
    pub cut_with: Option<Chance>,
    /// What the test knows to be durable.
    pub durable_mark: u64,
    /// The power cuts taken, each with the mark of its moment.
    pub cuts: Vec<(u64, FakeDisk)>,
}

impl FakeDisk {
    /// The disk's state.
    pub fn image(&self) -> MutexGuard<'_, Image> {
        self.0
            .lock()
            .expect("no test panics while it holds the disk")
    }

    /// What a power cut leaves: all that was synced, and of the rest whatever the disk had got
    /// round to, sector by sector.
    pub fn power_cut(&self, chance: &mut Chance) -> FakeDisk {
        self.image().after_power_cut(chance)
    }
}

impl Image {
    fn after_power_cut(&self, chance: &mut Chance) -> FakeDisk {
        let mut bytes = self.durable.clone();
        if chance.below(2) == 0 {
            bytes.resize(self.live.len(), 0);
        }
        let keep = chance.below(101);
        for (offset, data) in &self.unsynced {
            for (number, sector) in data.chunks(512).enumerate() {
                let at = offset + number * 512;
                if chance.below(100) < keep && at + sector.len() <= bytes.len() {
                    bytes[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        FakeDisk(Arc::new(Mutex::new(Image {
            live: bytes.clone(),
            durable: bytes,
            ..Image::default()
        })))
    }
}

impl Image {
    fn maybe_cut(&mut self) {
        let Some(mut chance) = self.cut_with.take() else {
            return;
        };
        // The first moments, when the database is made, are few: take them all.
        if self.cuts.len() < 12 || chance.below(60) == 0 {
            let left = self.after_power_cut(&mut chance);
            self.cuts.push((self.durable_mark, left));
        }
        self.cut_with = Some(chance);
    }
}

impl redb::StorageBackend for FakeDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.image().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let image = self.image();
        let range = offset as usize..offset as usize + out.len();
        let bytes = image.live.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut image = self.image();
        image.live.resize(len as usize, 0);
        image.maybe_cut();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let image = &mut *self.image();
        image.maybe_cut();
        if image.fail_syncs {
            return Err(io::Error::other("no sync"));
        }
        image.syncs += 1;
        image.durable.clone_from(&image.live);
        image.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let image = &mut *self.image();
        image.maybe_cut();
        image.writes_after_failure += u64::from(image.fail_syncs);
        let offset = offset as usize;
        image.live[offset..offset + data.len()].copy_from_slice(data);
        image.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}
