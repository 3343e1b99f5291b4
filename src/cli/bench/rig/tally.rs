//! What has arrived: loss, repetition and order, checked for every message.

use std::collections::BTreeMap;
use std::ops::Range;

/// Gaps that are remembered at most, so as to tell a late message from a repeated one.
const MAX_GAPS: usize = 100_000;

/// What one receiver has got of the flows it should get.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    first: u32,
    /// Messages of these flows that were sent before.
    before: u64,
    /// By flow: the number that should come next.
    next: Vec<u64>,
    /// Flow and first number of what was left out, and the end of it.
    gaps: BTreeMap<(u32, u64), u64>,
    /// Others get what is left out here.
    shares: bool,
    faults: Arrivals,
}

/// What was wrong with what arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Left out, and not come since.
    pub missing: u64,
    /// Came more than once.
    pub repeated: u64,
    /// Came after one that was sent later.
    pub late: u64,
}

/// What a message is for its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The next one.
    Next,
    /// One after some that are missing: these.
    After(Range<u64>),
    /// One that was missing.
    Late,
    /// One that came before.
    Again,
    /// Of a flow that this receiver should not get.
    Foreign,
}

impl Tally {
    /// A receiver that should get these flows, each from its number in `next` on (0 where there is none).
    pub fn new(flows: Range<u32>, next: impl Fn(u32) -> u64) -> Tally {
        let first = flows.start;
        let next: Vec<u64> = flows.map(next).collect();
        Tally {
            first,
            before: next.iter().sum(),
            next,
            ..Tally::default()
        }
    }

    /// A member of a shared group: it gets some of these flows, in order.
    pub fn of_member(flows: Range<u32>) -> Tally {
        Tally {
            shares: true,
            ..Tally::new(flows, |_| 0)
        }
    }

    /// Takes note of a message.
    #[inline]
    pub fn see(&mut self, flow: u32, seq: u64) -> Seen {
        let index = flow.wrapping_sub(self.first) as usize;
        let Some(next) = self.next.get_mut(index) else {
            return Seen::Foreign;
        };
        if seq == *next {
            *next += 1;
            return Seen::Next;
        }
        if seq > *next {
            let gap = *next..seq;
            *next = seq + 1;
            if self.shares {
                return Seen::Next;
            }
            self.faults.missing += gap.end - gap.start;
            if self.gaps.len() < MAX_GAPS {
                self.gaps.insert((flow, gap.start), gap.end);
            }
            return Seen::After(gap);
        }
        self.see_old(flow, seq)
    }

    /// How many messages should have come, when so many of each flow were sent.
    pub fn expected(&self, sent: impl Fn(u32) -> u64) -> u64 {
        let flows = (self.first..).take(self.next.len());
        flows.map(sent).sum::<u64>().saturating_sub(self.before)
    }

    /// How many of these flows' messages have not come, when so many of each were sent.
    pub fn lost(&self, sent: impl Fn(u32) -> u64) -> u64 {
        let flows = self.first..;
        let to_come = flows
            .zip(&self.next)
            .map(|(flow, next)| sent(flow).saturating_sub(*next));
        self.faults.missing + to_come.sum::<u64>()
    }

    /// What was wrong so far.
    pub fn faults(&self) -> Arrivals {
        self.faults
    }

    fn see_old(&mut self, flow: u32, seq: u64) -> Seen {
        let before = self.gaps.range(..=(flow, seq)).next_back();
        let gap = before.map(|(key, end)| (*key, *end));
        match gap {
            Some(((of, start), end)) if of == flow && seq < end => {
                self.gaps.remove(&(flow, start));
                if start < seq {
                    self.gaps.insert((flow, start), seq);
                }
                if seq + 1 < end {
                    self.gaps.insert((flow, seq + 1), end);
                }
                self.faults.missing -= 1;
                self.faults.late += 1;
                Seen::Late
            }
            _ => {
                self.faults.repeated += 1;
                Seen::Again
            }
        }
    }
}

/// What the members of a shared group have got together: each message once, by whom does not matter.
#[derive(Clone, Debug, Default)]
pub struct GroupTally {
    /// By flow: a bit for each number.
    seen: Vec<Vec<u64>>,
    /// Messages that came, repetitions left out.
    pub arrived: u64,
    /// Messages that came more than once.
    pub repeated: u64,
}

impl GroupTally {
    /// Takes note of a message; whether it is the first time.
    pub fn see(&mut self, flow: u32, seq: u64) -> bool {
        let flow = flow as usize;
        if self.seen.len() <= flow {
            self.seen.resize_with(flow + 1, Vec::new);
        }
        let (word, bit) = ((seq / 64) as usize, 1 << (seq % 64));
        let words = &mut self.seen[flow];
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let fresh = words[word] & bit == 0;
        words[word] |= bit;
        if fresh {
            self.arrived += 1;
        } else {
            self.repeated += 1;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        Tally::new(4..6, |_| 0)
    }

    #[test]
    fn what_comes_in_order_is_all_right() {
        let mut tally = tally();
        for seq in 0..3 {
            assert_eq!(tally.see(4, seq), Seen::Next);
            assert_eq!(tally.see(5, seq), Seen::Next);
        }
        assert_eq!(tally.faults(), Arrivals::default());
        assert_eq!(tally.lost(|_| 3), 0);
        assert_eq!(tally.lost(|flow| if flow == 5 { 10 } else { 3 }), 7);
        assert_eq!(tally.see(3, 0), Seen::Foreign);
        assert_eq!(tally.see(6, 0), Seen::Foreign);
    }

    #[test]
    fn a_gap_is_a_loss_until_it_is_filled_and_then_a_disorder() {
        let mut tally = tally();
        assert_eq!(tally.see(4, 5), Seen::After(0..5));
        assert_eq!(tally.lost(|flow| if flow == 4 { 6 } else { 0 }), 5);
        for seq in [2, 0, 4, 1, 3] {
            assert_eq!(tally.see(4, seq), Seen::Late);
        }
        let faults = tally.faults();
        assert_eq!((faults.missing, faults.late, faults.repeated), (0, 5, 0));
        assert!(tally.gaps.is_empty());
    }

    #[test]
    fn what_came_before_is_a_repetition() {
        let mut tally = tally();
        tally.see(4, 0);
        tally.see(4, 3);
        tally.see(5, 9);
        assert_eq!(tally.see(4, 0), Seen::Again);
        assert_eq!(tally.see(4, 3), Seen::Again);
        assert_eq!(tally.see(4, 2), Seen::Late);
        assert_eq!(tally.see(4, 2), Seen::Again);
        assert_eq!(tally.faults().repeated, 3);
        assert_eq!(tally.faults().missing, 1 + 9);
    }

    #[test]
    fn a_member_of_a_group_may_miss_what_others_get_but_not_go_back() {
        let mut tally = Tally::of_member(0..1);
        assert_eq!(tally.see(0, 7), Seen::Next);
        assert_eq!(tally.see(0, 6), Seen::Again);
        assert_eq!(tally.faults().missing, 0);
    }

    #[test]
    fn who_joins_later_misses_nothing_of_before() {
        let mut tally = Tally::new(0..1, |_| 100);
        assert_eq!(tally.see(0, 100), Seen::Next);
        assert_eq!(tally.lost(|_| 101), 0);
        assert_eq!(tally.expected(|_| 101), 1);
    }

    #[test]
    fn a_group_gets_each_message_once() {
        let mut group = GroupTally::default();
        assert!(group.see(2, 70));
        assert!(group.see(2, 6));
        assert!(group.see(0, 70));
        assert!(!group.see(2, 70));
        assert_eq!((group.arrived, group.repeated), (3, 1));
    }
}
