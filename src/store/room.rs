//! How much room is left, told before a commit could fail for lack of it.
//!
//! redb tells nobody how many of its pages are free without walking the whole file, and a commit
//! that finds none makes the file longer: up to 4 GiB by doubling it. So the store keeps a bound
//! from below, and trusts the largest of three:
//! - what doublings that stay under the cap would add;
//! - `proven` free bytes: a transaction that is undone has allocated them without the file growing,
//!   and every page written since has been taken off. Pages that commits free are not added, so the
//!   bound is safe, and it is proven again when it has been used up;
//! - what is left if live rows took four times their size, which lets a file that has been emptied
//!   skip the proof.
//!
//! A reserve is taken off, so that removals, session changes and batches already accepted always
//! fit. Where a doubling would break the cap, the database is reopened once over a file extended to
//! exactly the cap.
//!
//! What the disk beneath has left limits what the file can grow by, not what is free inside it. A
//! file has holes, though: pages that were never written and that the file system has not given it
//! yet, and nobody can tell whether redb takes one of those. So the file does not grow by more than
//! the disk can give, and free pages are room on a full disk if they are proven and the disk could
//! fill all holes. Where it cannot, because others have filled it, and most of the file is free,
//! compaction gives the disk its space back; it writes less than the disk has, even if it wrote
//! into holes only.

use super::backend::PAGE;

/// Usable bytes from which on redb grows by whole regions instead of doubling.
const REGION: u64 = 4 << 30;

/// A proof tries to allocate so many times as much as it has to. What is proven must last for the
/// batch that is gathered while one commits: a publisher that fills it sooner would be refused
/// although the file is not full.
const LONG: u64 = 2;

/// What is known about room. All figures are bytes.
#[derive(Clone, Debug)]
pub(super) struct Room {
    max: u64,
    min_free: u64,
    /// Kept for what has been accepted already.
    pub(super) reserve: u64,
    /// How much a proof tries to allocate when the file is nearly full.
    proof: u64,
    proven: u64,
    /// Live bytes when a proof last failed: another is worth its time when enough has been removed.
    live_at_failure: Option<u64>,
    /// The same of a proof of [`LONG`] times as much.
    live_at_long_failure: Option<u64>,
    /// What the file took of the disk after it was last compacted: less than that and a little it
    /// will not become.
    compacted_to: u64,
}

/// What a file and the disk beneath it show. All figures are bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// Length of the file.
    pub(super) file: u64,
    /// Estimate of what rows take.
    pub(super) live: u64,
    /// The disk; `None` if it is endless.
    pub(super) disk: Option<DiskSpace>,
}

/// What a file system tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskSpace {
    /// What is free on it.
    pub(super) free: u64,
    /// What it has given to the file, whose length may be more.
    pub(super) given: u64,
}

/// What to do about room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Advice {
    /// There is enough, or nothing that could be done.
    Nothing,
    /// Find out whether so many bytes are free, and say so to [`Room::proved`].
    Prove(u64),
    /// Compact the file, and say so to [`Room::compacted`].
    Compact,
}

impl Room {
    /// Room in a file of at most `max` bytes that leaves `min_free` bytes of disk alone. A proof
    /// holds its pages in a cache of `cache` bytes, of which it takes a half at most.
    pub(super) fn new(max: u64, min_free: u64, cache: u64) -> Room {
        let reserve = (max / 8).min(cache / 8).clamp(128 << 10, 16 << 20);
        Room {
            max: (max / PAGE).max(2) * PAGE,
            min_free,
            reserve,
            proof: 2 * reserve,
            proven: 0,
            live_at_failure: None,
            live_at_long_failure: None,
            compacted_to: 0,
        }
    }

    /// The cap on the file, a whole number of pages.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// How long the file may become, a whole number of pages: as long as it may be, and no longer
    /// than the disk can fill.
    pub(super) fn cap(&self, space: &Space) -> u64 {
        let outside = self.outside(space);
        let most = |disk: DiskSpace| disk.given.saturating_add(outside) / PAGE * PAGE;
        space.disk.map_or(u64::MAX, most).min(self.max)
    }

    /// Whether the file can be extended to the cap by reopening, though not by doubling. Where the
    /// disk is the cap, which changes all the time, by so much that it pays.
    pub(super) fn can_extend(&self, space: &Space) -> bool {
        let (file, cap) = (space.file, self.cap(space));
        let least = match cap == self.max {
            true => file.saturating_add(1),
            false => file.saturating_add(self.reserve / 4),
        };
        least <= cap && doublings(file, cap) == 0
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
            self.live_at_long_failure = None;
        }
    }

    /// A proof of so many bytes has been tried while `live` bytes were live.
    pub(super) fn proved(&mut self, bytes: u64, there: bool, live: u64) {
        if there {
            self.proven = self.proven.max(bytes);
        }
        let failure = (!there).then_some(live);
        match bytes > self.proof {
            true => self.live_at_long_failure = failure,
            false => self.live_at_failure = failure,
        }
    }

    /// The file has been compacted, after which it takes so much of the disk.
    pub(super) fn compacted(&mut self, given: u64) {
        self.compacted_to = given;
        self.live_at_failure = None;
        self.live_at_long_failure = None;
    }

    /// Whether a proof or a compaction is called for.
    pub(super) fn advice(&self, space: &Space) -> Advice {
        if self.usable(space) >= self.enough() {
            return Advice::Nothing;
        }
        if self.pays_to_compact(space) {
            return Advice::Compact;
        }
        if self.is_disk_short(space) && !self.could_fill_holes(space) {
            return Advice::Nothing;
        }
        if self.is_worth_a_proof(self.live_at_long_failure, space) {
            return Advice::Prove(LONG * self.proof);
        }
        // The disk may have got room since.
        match self.usable(space) < self.least()
            && (self.is_worth_a_proof(self.live_at_failure, space) || self.can_extend(space))
        {
            true => Advice::Prove(self.proof),
            false => Advice::Nothing,
        }
    }

    /// Whether a proof that failed with so much live would be different now.
    fn is_worth_a_proof(&self, failed: Option<u64>, space: &Space) -> bool {
        failed.is_none_or(|then| space.live.saturating_add(self.reserve / 2) <= then)
    }

    /// Bytes that may still be accepted; 0 when durable messages are to be refused.
    pub(super) fn left(&self, space: &Space) -> u64 {
        self.usable(space).saturating_sub(self.reserve)
    }

    /// Whether looking for room may find some when what is known is used up.
    pub(super) fn may_have_more(&self, space: &Space) -> bool {
        let is_stuck = self.is_disk_short(space) && !self.could_fill_holes(space);
        self.pays_to_compact(space)
            || !is_stuck
                && (self.is_worth_a_proof(self.live_at_failure, space) || self.can_extend(space))
    }

    /// Whether it is the disk that has no room, and not the file.
    fn is_disk_short(&self, space: &Space) -> bool {
        self.outside(space) < self.least()
    }

    /// Bytes that can be written for certain.
    fn usable(&self, space: &Space) -> u64 {
        let Space { file, live, .. } = *space;
        let sparse = file.min(self.max).saturating_sub(live.saturating_mul(4));
        let doubled = doublings(file, self.cap(space));
        let inside = doubled.max(self.proven).max(sparse);
        let proven = match self.could_fill_holes(space) {
            true => self.proven,
            false => 0,
        };
        inside.min(self.outside(space)).max(proven)
    }

    /// From which on there is no need to look for more.
    fn enough(&self) -> u64 {
        self.reserve + (LONG * self.proof - self.reserve) / 2
    }

    /// From which on there is no need to look for more in a file that is nearly full.
    fn least(&self) -> u64 {
        self.reserve + self.reserve / 4
    }

    /// What the disk can give.
    fn outside(&self, space: &Space) -> u64 {
        let free = |disk: DiskSpace| disk.free.saturating_sub(self.min_free);
        space.disk.map_or(u64::MAX, free)
    }

    fn could_fill_holes(&self, space: &Space) -> bool {
        let holes = |disk: DiskSpace| space.file.saturating_sub(disk.given);
        space.disk.map_or(0, holes) <= self.outside(space)
    }

    /// Whether the disk is short, most of what the file has of it is free, and what compaction
    /// moves fits on the disk twice.
    fn pays_to_compact(&self, space: &Space) -> bool {
        let worth = 2 * self.reserve;
        space.disk.is_some_and(|disk| {
            self.is_disk_short(space)
                && disk.given.saturating_sub(space.live.saturating_mul(4)) > worth
                && disk.given > self.compacted_to.saturating_add(worth)
                && space.live.saturating_mul(2) <= disk.free
        })
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

    /// A file on an endless disk.
    fn endless(file: u64, live: u64) -> Space {
        let disk = None;
        Space { file, live, disk }
    }

    /// A file of which the disk has this much, and this much free.
    fn on_disk(file: u64, live: u64, given: u64, free: u64) -> Space {
        let disk = Some(DiskSpace { free, given });
        Space { file, live, disk }
    }

    #[test]
    fn a_young_file_has_what_doublings_under_the_cap_would_add() {
        let room = Room::new(100 * MB + PAGE, 0, 8 * MB);
        assert_eq!(room.left(&endless(MB + PAGE, MB)), 63 * MB - room.reserve);
        assert_eq!(room.advice(&endless(MB + PAGE, MB)), Advice::Nothing);
        // From 64 MB a doubling would break the cap; reopening can still add 36 MB.
        assert_eq!(room.left(&endless(64 * MB + PAGE, 60 * MB)), 0);
        assert_eq!(
            room.advice(&endless(64 * MB + PAGE, 60 * MB)),
            Advice::Prove(2 * room.proof)
        );
        assert!(room.can_extend(&endless(64 * MB + PAGE, 0)));
        assert!(!room.can_extend(&endless(MB + PAGE, 0)));
        assert!(!room.can_extend(&endless(100 * MB + PAGE, 0)));
    }

    #[test]
    fn what_was_proven_is_used_up_by_writing_and_proven_again_when_rows_have_gone() {
        let mut room = Room::new(100 * MB, 0, 64 * MB);
        let (file, live) = (100 * MB, 90 * MB);
        let (long, short) = (Advice::Prove(2 * room.proof), Advice::Prove(room.proof));
        assert_eq!(room.advice(&endless(file, live)), long);
        room.proved(2 * room.proof, true, live);
        let left = 2 * room.proof - room.reserve;
        assert_eq!(room.left(&endless(file, live)), left);
        // Half of it is there for what comes while it is proven again.
        room.wrote(left / 2);
        assert_eq!(room.advice(&endless(file, live)), Advice::Nothing);
        room.wrote(PAGE);
        assert_eq!(room.advice(&endless(file, live)), long);
        assert_eq!(room.left(&endless(file, live)), left / 2 - PAGE);
        // Near the end so much is not there any more, and half as much may be.
        room.proved(2 * room.proof, false, live);
        assert_eq!(room.advice(&endless(file, live)), Advice::Nothing);
        room.wrote(left / 2);
        assert_eq!(room.left(&endless(file, live)), 0);
        assert_eq!(room.advice(&endless(file, live)), short);
        room.proved(room.proof, true, live);
        assert_eq!(room.left(&endless(file, live)), room.proof - room.reserve);
        room.wrote(room.proof);
        room.proved(room.proof, false, live);
        assert_eq!(room.advice(&endless(file, live)), Advice::Nothing);
        assert_eq!(room.advice(&endless(file, live - room.reserve)), long);
    }

    #[test]
    fn the_disk_beneath_counts_too() {
        let room = Room::new(100 * MB, 50 * MB, 8 * MB);
        assert!(room.left(&on_disk(MB, 0, MB, 500 * MB)) > 0);
        assert_eq!(room.left(&on_disk(MB, 0, MB, 50 * MB + room.reserve)), 0);
        assert_eq!(room.left(&on_disk(MB, 0, MB, 0)), 0);
    }

    #[test]
    fn pages_inside_the_file_are_room_on_a_full_disk_if_it_could_fill_all_holes() {
        let mut room = Room::new(1000 * MB, 50 * MB, 64 * MB);
        let (file, live) = (100 * MB, 40 * MB);
        let full = 50 * MB + room.reserve;
        let tight = on_disk(file, live, file - room.reserve, full);
        assert_eq!(room.left(&tight), 0);
        assert_eq!(room.advice(&tight), Advice::Prove(2 * room.proof));
        assert!(!room.can_extend(&tight));
        room.proved(room.proof, true, live);
        assert_eq!(room.left(&tight), room.proof - room.reserve);
        // It is not made longer than the disk can fill, and not for a little.
        let extended = on_disk(file, live, file, full + 3 * room.reserve);
        assert_eq!(room.cap(&extended), file + 4 * room.reserve);
        assert!(room.can_extend(&extended));
        assert!(!room.can_extend(&on_disk(file, live, file - room.reserve, full + PAGE)));
        // Nor does a proof that failed keep it short when the disk has got room again.
        let mut failed = room.clone();
        failed.proved(2 * room.proof, false, live);
        failed.proved(room.proof, false, live);
        failed.wrote(u64::MAX);
        assert_eq!(
            failed.advice(&on_disk(file, live, file, full)),
            Advice::Prove(room.proof)
        );
        assert_eq!(
            failed.advice(&on_disk(file, live, file - room.reserve, full)),
            Advice::Nothing
        );
        // With more holes than that, a proof says nothing.
        let holed = on_disk(file, live, file - room.reserve - PAGE, full);
        assert_eq!(room.left(&holed), 0);
        assert_eq!(room.advice(&holed), Advice::Nothing);
    }

    #[test]
    fn a_file_that_is_mostly_free_is_compacted_when_the_disk_is_full_and_only_then() {
        let mut room = Room::new(1000 * MB, 50 * MB, 64 * MB);
        let short = 50 * MB + room.reserve;
        let (file, given) = (128 * MB, 100 * MB);
        assert_eq!(
            room.advice(&on_disk(file, 20 * MB, given, 500 * MB)),
            Advice::Nothing
        );
        let drained = on_disk(file, 20 * MB, given, short);
        assert_eq!(room.advice(&drained), Advice::Compact);
        assert_ne!(
            room.advice(&on_disk(file, 30 * MB, given, short)),
            Advice::Compact
        );
        // What it moves might not fit.
        assert_ne!(
            room.advice(&on_disk(file, 20 * MB, given, 39 * MB)),
            Advice::Compact
        );
        // If it was of no use, it is not done again and again.
        room.compacted(given - MB);
        assert_ne!(room.advice(&drained), Advice::Compact);
        room.compacted(20 * MB);
        assert_eq!(room.advice(&drained), Advice::Compact);
    }

    #[test]
    fn no_figures_overflow() {
        for max in [0, 1, PAGE, 5 << 30, u64::MAX] {
            let mut room = Room::new(max, u64::MAX, u64::MAX);
            for file in [0, PAGE, 1 << 33, u64::MAX] {
                room.resized(file, max);
                room.wrote(file);
                room.left(&on_disk(file, u64::MAX, file, u64::MAX));
                room.compacted(u64::MAX);
                room.advice(&on_disk(file, u64::MAX, 0, u64::MAX));
            }
        }
    }
}
