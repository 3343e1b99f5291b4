//! A disk that can be killed. What is written stands in the live image, and in the durable one only
//! once it was synced. A process that is killed leaves the live image; a power cut leaves what was
//! synced, and of the rest any part in any order, torn at sectors.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::rng::Rng;

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// The disk itself, which outlives every process that has it open.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

/// A process's hold on the disk. Once that process is dead, it can do nothing more.
#[derive(Clone)]
pub struct Mounted {
    disk: SimDisk,
    process: u64,
}

/// What goes wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write fails.
    Write,
    /// A sync fails, and makes nothing durable.
    Sync,
    /// Everything stops after this many operations: the machine is about to lose its power.
    StopAfter(u64),
}

#[derive(Default)]
struct State {
    process: u64,
    live: Vec<u8>,
    durable: Vec<u8>,
    /// What sectors were given since the last sync, in order.
    unsynced: Vec<(usize, [u8; SECTOR])>,
    /// Lengths the file has been given since the last sync.
    unsynced_lens: Vec<usize>,
    /// Syncs take their time: what they are about is here until [`SimDisk::settle`].
    slow: bool,
    under_way: Vec<Synced>,
    /// The largest length the file may be given; none if 0.
    capacity: usize,
    fault: Option<Fault>,
    stopped: bool,
    /// Says that it has synced and has not.
    lies: bool,
}

/// What a sync is about: sectors in order, lengths, and the length of the file then.
struct Synced {
    sectors: Vec<(usize, [u8; SECTOR])>,
    lens: Vec<usize>,
    len: usize,
}

impl State {
    /// The first of the syncs under way is done.
    fn finish_sync(&mut self) {
        let synced = self.under_way.remove(0);
        self.durable.resize(synced.len, 0);
        for (sector, bytes) in &synced.sectors {
            let start = sector * SECTOR;
            if let Some(place) = self.durable.get_mut(start..start + SECTOR) {
                place.copy_from_slice(bytes);
            }
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.live.len())
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.process)
    }
}

impl SimDisk {
    /// Gives the disk to a new process; the one before it is dead.
    pub fn mount(&self) -> Mounted {
        let mut state = self.lock();
        state.process += 1;
        state.stopped = false;
        state.slow = false;
        state.fault = None;
        Mounted {
            disk: self.clone(),
            process: state.process,
        }
    }

    /// The process dies; what it has written is there. The sync it waited for has not been made,
    /// and those before it have.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.process += 1;
        state.fault = None;
        while state.under_way.len() > 1 {
            state.finish_sync();
        }
        if let Some(mut last) = state.under_way.pop() {
            last.sectors.append(&mut state.unsynced);
            last.lens.append(&mut state.unsynced_lens);
            (state.unsynced, state.unsynced_lens) = (last.sectors, last.lens);
        }
    }

    /// Syncs from now on are under way until [`SimDisk::settle`].
    pub fn slow_down(&self) {
        self.lock().slow = true;
    }

    /// The syncs that are under way are done.
    pub fn settle(&self) {
        let mut state = self.lock();
        state.slow = false;
        while !state.under_way.is_empty() {
            state.finish_sync();
        }
    }

    /// The power is cut. Returns how many unsynced sectors there were, and how many of them are
    /// there.
    pub fn cut_power(&self, rng: &mut Rng) -> (usize, usize) {
        self.kill();
        let mut state = self.lock();
        let State {
            durable,
            unsynced,
            unsynced_lens,
            ..
        } = &mut *state;
        // Nothing of it, all of it, or any part of it.
        let percent = match rng.below(4) {
            0 => 0,
            1 => 100,
            _ => rng.between(5, 95),
        };
        let mut image = std::mem::take(durable);
        if let Some(last) = unsynced_lens.last().copied() {
            let len = match percent {
                0 => image.len(),
                100 => last,
                _ if rng.chance(30) => image.len(),
                _ => *rng.pick(unsynced_lens),
            };
            image.resize(len, 0);
        }
        let mut kept = 0;
        let mut sectors: BTreeMap<usize, Vec<&[u8; SECTOR]>> = BTreeMap::new();
        for (sector, bytes) in unsynced.iter() {
            sectors.entry(*sector).or_default().push(bytes);
        }
        for (sector, versions) in &sectors {
            let start = sector * SECTOR;
            if start + SECTOR > image.len() || !rng.chance(percent) {
                continue;
            }
            let version = match percent {
                100 => versions.len() - 1,
                _ => rng.below(versions.len() as u64) as usize,
            };
            image[start..start + SECTOR].copy_from_slice(versions[version]);
            kept += 1;
        }
        let all = sectors.len();
        unsynced.clear();
        unsynced_lens.clear();
        state.live.clone_from(&image);
        state.durable = image;
        (all, kept)
    }

    pub fn inject(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// Says from now on that it has synced what it has not.
    pub fn lie(&self) {
        self.lock().lies = true;
    }

    /// Takes back a fault that has not happened.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.fault = None;
        state.capacity = 0;
    }

    /// Lets the file not become longer than it is.
    pub fn fill(&self) {
        let mut state = self.lock();
        state.capacity = state.live.len().max(1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mounted {
    /// The state, if this process is alive and the disk does what it is told.
    fn operate(&self, write: bool, sync: bool) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.disk.lock();
        if state.process != self.process || state.stopped {
            return Err(io::Error::other("this process is dead"));
        }
        match state.fault {
            Some(Fault::Write) if write => {
                state.fault = None;
                return Err(io::Error::other("injected write error"));
            }
            Some(Fault::Sync) if sync => {
                state.fault = None;
                return Err(io::Error::other("injected sync error"));
            }
            Some(Fault::StopAfter(0)) if write || sync => {
                state.stopped = true;
                return Err(io::Error::other("the power is going"));
            }
            Some(Fault::StopAfter(left)) if write || sync => {
                state.fault = Some(Fault::StopAfter(left - 1));
            }
            _ => {}
        }
        Ok(state)
    }
}

impl StorageBackend for Mounted {
    fn len(&self) -> io::Result<u64> {
        Ok(self.operate(false, false)?.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.operate(false, false)?;
        let start = offset as usize;
        let bytes = state.live.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.operate(true, false)?;
        let len = len as usize;
        if state.capacity > 0 && len > state.capacity.max(state.live.len()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.live.resize(len, 0);
        state.unsynced_lens.push(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.operate(false, true)?;
        let State {
            live,
            durable,
            unsynced,
            unsynced_lens,
            lies,
            slow,
            under_way,
            ..
        } = &mut *state;
        if *lies {
            return Ok(());
        }
        if *slow {
            under_way.push(Synced {
                sectors: std::mem::take(unsynced),
                lens: std::mem::take(unsynced_lens),
                len: live.len(),
            });
            return Ok(());
        }
        durable.resize(live.len(), 0);
        for (sector, _) in unsynced.iter() {
            let start = sector * SECTOR;
            if let Some(bytes) = live.get(start..start + SECTOR) {
                durable[start..start + SECTOR].copy_from_slice(bytes);
            }
        }
        unsynced.clear();
        unsynced_lens.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.operate(true, false)?;
        let State { live, unsynced, .. } = &mut *state;
        let start = offset as usize;
        let end = start + data.len();
        live.get_mut(start..end)
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let mut now = [0; SECTOR];
            let bytes = &live[sector * SECTOR..((sector + 1) * SECTOR).min(live.len())];
            now[..bytes.len()].copy_from_slice(bytes);
            unsynced.push((sector, now));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_of(sectors: usize) -> (SimDisk, Mounted) {
        let disk = SimDisk::default();
        let mounted = disk.mount();
        mounted.set_len((sectors * SECTOR) as u64).unwrap();
        mounted.sync_data().unwrap();
        (disk, mounted)
    }

    fn image(disk: &SimDisk) -> Vec<u8> {
        disk.lock().live.clone()
    }

    #[test]
    fn what_was_synced_survives_a_power_cut_and_the_rest_may_not() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..50 {
            let (disk, mounted) = disk_of(4);
            mounted.write(0, &[1; SECTOR]).unwrap();
            mounted.sync_data().unwrap();
            mounted.write(SECTOR as u64, &[2; SECTOR]).unwrap();
            mounted.write(2 * SECTOR as u64, &[3; 2 * SECTOR]).unwrap();
            disk.cut_power(&mut Rng::new(seed));
            let image = image(&disk);
            assert_eq!(image[0], 1);
            lost += usize::from(image[SECTOR] == 0 && image[3 * SECTOR] == 3);
            kept += usize::from(image[SECTOR] == 2 && image[3 * SECTOR] == 0);
        }
        // Later writes without earlier ones, and a write torn between its sectors.
        assert!(lost > 0 && kept > 0, "{lost} {kept}");
    }

    #[test]
    fn a_killed_process_leaves_what_it_wrote_and_can_write_no_more() {
        let (disk, mounted) = disk_of(1);
        mounted.write(0, &[7; SECTOR]).unwrap();
        disk.kill();
        assert!(mounted.write(0, &[8; SECTOR]).is_err());
        assert_eq!(image(&disk)[0], 7);
    }

    #[test]
    fn a_sync_that_is_under_way_may_come_too_late_for_a_power_cut_and_not_for_a_kill() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..50 {
            let (disk, mounted) = disk_of(2);
            disk.slow_down();
            mounted.write(0, &[1; SECTOR]).unwrap();
            mounted.sync_data().unwrap();
            mounted.write(SECTOR as u64, &[2; SECTOR]).unwrap();
            mounted.sync_data().unwrap();
            if seed % 2 == 0 {
                disk.cut_power(&mut Rng::new(seed));
                lost += usize::from(image(&disk)[SECTOR] == 0);
                kept += usize::from(image(&disk)[SECTOR] == 2);
            } else {
                disk.kill();
                assert_eq!((image(&disk)[0], image(&disk)[SECTOR]), (1, 2));
                disk.cut_power(&mut Rng::new(seed));
            }
            assert_eq!(image(&disk)[0], 1, "the sync before had been made");
            let (disk, mounted) = disk_of(1);
            disk.slow_down();
            mounted.write(0, &[3; SECTOR]).unwrap();
            mounted.sync_data().unwrap();
            disk.settle();
            disk.cut_power(&mut Rng::new(seed));
            assert_eq!(image(&disk)[0], 3);
        }
        assert!(lost > 0 && kept > 0, "{lost} {kept}");
    }

    #[test]
    fn a_full_disk_does_not_grow_until_it_is_healed() {
        let (disk, mounted) = disk_of(1);
        disk.fill();
        assert!(mounted.set_len(2 * SECTOR as u64).is_err());
        disk.heal();
        assert!(mounted.set_len(2 * SECTOR as u64).is_ok());
    }
}
