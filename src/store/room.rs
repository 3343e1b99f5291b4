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
    /// Room in a file of at most `max` bytes that leaves `min_free` bytes of disk alone. A proof holds its pages in a
    /// cache of `cache` bytes, of which it takes a quarter at most.
    pub(super) fn new(max: u64, min_free: u64, cache: u64) -> Room {
        let reserve = (max / 8).min(cache / 8).clamp(128 << 10, 16 << 20);
        Room {
            max: (max / PAGE).max(2) * PAGE,
            min_free,
            reserve,
            proof: 2 * reserve,
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
        self.proven = (self.proven.saturating_add(after.saturating_sub(before)))
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

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn a_young_file_has_what_doublings_under_the_cap_would_add() {
        let room = Room::new(100 * MB + PAGE, 0, 8 * MB);
        assert_eq!(room.left(MB + PAGE, MB, None), 63 * MB - room.reserve);
        assert_eq!(room.advice(MB + PAGE, MB), Advice::Nothing);
        // From 64 MB a doubling would break the cap; reopening can still add 36 MB.
        assert_eq!(room.left(64 * MB + PAGE, 60 * MB, None), 0);
        assert_eq!(room.advice(64 * MB + PAGE, 60 * MB), Advice::Prove);
        assert!(room.can_extend(64 * MB + PAGE));
        assert!(!room.can_extend(MB + PAGE));
        assert!(!room.can_extend(100 * MB + PAGE));
    }

    #[test]
    fn what_was_proven_is_used_up_by_writing_and_proven_again_when_rows_have_gone() {
        let mut room = Room::new(100 * MB, 0, 64 * MB);
        let (file, live) = (100 * MB, 90 * MB);
        room.proved(true, live);
        assert_eq!(room.left(file, live, None), room.proof - room.reserve);
        room.wrote(room.proof);
        assert_eq!(room.left(file, live, None), 0);
        assert_eq!(room.advice(file, live), Advice::Prove);
        room.proved(false, live);
        assert_eq!(room.advice(file, live), Advice::Nothing);
        assert_eq!(room.advice(file, live - room.reserve), Advice::Prove);
    }

    #[test]
    fn the_disk_beneath_counts_too() {
        let room = Room::new(100 * MB, 50 * MB, 8 * MB);
        assert!(room.left(MB, 0, Some(500 * MB)) > 0);
        assert_eq!(room.left(MB, 0, Some(50 * MB + room.reserve)), 0);
        assert_eq!(room.left(MB, 0, Some(0)), 0);
    }

    #[test]
    fn no_figures_overflow() {
        for max in [0, 1, PAGE, 5 << 30, u64::MAX] {
            let mut room = Room::new(max, u64::MAX, u64::MAX);
            for file in [0, PAGE, 1 << 33, u64::MAX] {
                room.resized(file, max);
                room.wrote(file);
                room.left(file, u64::MAX, Some(u64::MAX));
                room.advice(file, u64::MAX);
            }
        }
    }
}
