//! How much room is left, told before a commit could fail for lack of it.
//!
//! redb tells nobody how many of its pages are free without walking the whole file, and a commit that finds none makes the file longer: up to
//! 4 GiB by doubling it. So the store keeps a bound from below, and trusts the largest of three:
//! - what doublings that stay under the cap would add;
//! - `proven` free bytes: a transaction that is undone has allocated them without the file growing, and every page written since has been
//!   taken off. Pages that commits free are not added, so the bound is safe, and it is proven again when it has been used up;
//! - what is left if live rows took four times their size, which lets a file that has been emptied skip the proof.
//!
//! A reserve is taken off, so that removals, session changes and batches already accepted always fit. Where a doubling would break the cap,
//! the database is reopened once over a file extended to exactly the cap.

use super::backend::PAGE;

/// Usable bytes from which on redb grows by whole regions instead of doubling.
const REGION: u64 = 4 << 30;

/// What is known about room. All figures are bytes.
#[derive(Clone, Debug)]
pub(super) struct Room {
    max: u64,
    min_free: u64,
    /// Kept for what has been accepted already.
    pub(super) reserve: u64,
    /// How much a proof tries to allocate.
    pub(super) proof: u64,
    proven: u64,
    /// Live bytes when a proof last failed: another is worth its time when enough has been removed.
    live_at_failure: Option<u64>,
}

/// What to do about room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Advice {
    /// There is enough, or nothing that could be done.
    Nothing,
    /// Find out whether [`Room::proof`] bytes are free, and say so to [`Room::proved`].
    Prove,
}

impl Room {
    /// Room in a file of at most `max` bytes that leaves `min_free` bytes of disk alone. A proof holds its pages in a cache of `cache` bytes.
    pub(super) fn new(max: u64, min_free: u64, cache: u64) -> Room {
        let reserve = (max / 16).clamp(128 << 10, 8 << 20);
        Room {
            max: (max / PAGE).max(2) * PAGE,
            min_free,
            reserve,
            proof: (2 * reserve).min((cache / 4).max(2 * PAGE)),
            proven: 0,
            live_at_failure: None,
        }
    }

    /// The cap on the file, a whole number of pages.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// Whether the file can be extended to the cap by reopening, though not by doubling.
    pub(super) fn can_extend(&self, file: u64) -> bool {
        file < self.max && doublings(file, self.max) == 0
    }

    /// A commit wrote this much: it may have used as much of what was free.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.proven = self.proven.saturating_sub(bytes);
    }

    /// The file has shrunk or was extended.
    pub(super) fn resized(&mut self, before: u64, after: u64) {
        self.proven = (self.proven + after.saturating_sub(before))
            .saturating_sub(before.saturating_sub(after));
        if after > before {
            self.live_at_failure = None;
        }
    }

    /// A proof has been tried while `live` bytes were live.
    pub(super) fn proved(&mut self, there: bool, live: u64) {
        if there {
            self.proven = self.proven.max(self.proof);
        }
        self.live_at_failure = (!there).then_some(live);
    }

    /// Whether a proof is called for.
    pub(super) fn advice(&self, file: u64, live: u64) -> Advice {
        let enough = self.reserve + self.reserve / 4;
        if self.inside(file, live) >= enough {
            return Advice::Nothing;
        }
        match self.live_at_failure {
            Some(then) if live.saturating_add(self.reserve / 2) > then => Advice::Nothing,
            _ => Advice::Prove,
        }
    }

    /// Bytes that may still be accepted; 0 when durable messages are to be refused. `disk` is the free space of the file system.
    pub(super) fn left(&self, file: u64, live: u64, disk: Option<u64>) -> u64 {
        let inside = self.inside(file, live);
        let outside = disk.map_or(u64::MAX, |disk| disk.saturating_sub(self.min_free));
        inside.min(outside).saturating_sub(self.reserve)
    }

    fn inside(&self, file: u64, live: u64) -> u64 {
        let sparse = file.min(self.max).saturating_sub(live.saturating_mul(4));
        doublings(file, self.max).max(self.proven).max(sparse)
    }
}

/// What doublings of the usable part of the file can add without exceeding `max`.
fn doublings(file: u64, max: u64) -> u64 {
    let usable = file.saturating_sub(PAGE);
    if usable == 0 {
        return 0;
    }
    let limit = max.saturating_sub(PAGE);
    let mut grown = usable;
    while grown < REGION && grown.saturating_mul(2) <= limit {
        grown *= 2;
    }
    if grown >= REGION {
        // A growth may fill the last region and add one more.
        grown = grown.max((limit / REGION).saturating_sub(1) * REGION);
    }
    grown - usable
}
