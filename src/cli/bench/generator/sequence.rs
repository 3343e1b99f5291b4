//! Checks every message that arrived for loss, repetition and order.

use std::collections::BTreeMap;
use std::ops::Range;

/// The most gaps that are remembered to distinguish a late message from a repeated one.
const MAX_GAPS: usize = 100_000;

/// What one receiver has received of its flows.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    first: u32,
    /// Messages of these flows that were sent before.
    before: u64,
    /// For each flow, the next number.
    next: Vec<u64>,
    /// The end of each gap, by flow and first number.
    gaps: BTreeMap<(u32, u64), u64>,
    /// Whether other members of a group receive what is missing here.
    is_member: bool,
    faults: SequenceErrors,
}

/// Errors in what arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceErrors {
    /// Messages missing so far.
    pub missing: u64,
    /// Messages received more than once.
    pub repeated: u64,
    /// Messages received after a later one.
    pub late: u64,
}

/// What a message is to its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next message.
    Next,
    /// The next message after missing ones.
    After(Range<u64>),
    /// A message that was missing.
    Late,
    /// A message that was received before.
    Again,
    /// A message of a flow that this receiver should not get.
    Foreign,
}

impl Sequence {
    /// Creates a receiver of these flows. `next` returns the first number of each flow, or 0.
    pub fn new(flows: Range<u32>, next: impl Fn(u32) -> u64) -> Sequence {
        let first = flows.start;
        let next: Vec<u64> = flows.map(next).collect();
        Sequence {
            first,
            before: next.iter().sum(),
            next,
            ..Sequence::default()
        }
    }

    /// Creates a member of a shared group. It receives some messages of these flows, in order.
    pub fn of_member(flows: Range<u32>) -> Sequence {
        Sequence {
            is_member: true,
            ..Sequence::new(flows, |_| 0)
        }
    }

    /// Records a message.
    #[inline]
    pub fn record(&mut self, flow: u32, seq: u64) -> Arrival {
        let index = flow.wrapping_sub(self.first) as usize;
        let Some(next) = self.next.get_mut(index) else {
            return Arrival::Foreign;
        };
        if seq == *next {
            *next += 1;
            return Arrival::Next;
        }
        if seq > *next {
            let gap = *next..seq;
            *next = seq + 1;
            if self.is_member {
                return Arrival::Next;
            }
            self.faults.missing += gap.end - gap.start;
            if self.gaps.len() < MAX_GAPS {
                self.gaps.insert((flow, gap.start), gap.end);
            }
            return Arrival::After(gap);
        }
        self.record_old(flow, seq)
    }

    /// Returns how many messages should have arrived if this many of each flow were sent.
    pub fn expected(&self, sent: impl Fn(u32) -> u64) -> u64 {
        let flows = (self.first..).take(self.next.len());
        flows.map(sent).sum::<u64>().saturating_sub(self.before)
    }

    /// Returns how many messages are missing if this many of each flow were sent.
    pub fn lost(&self, sent: impl Fn(u32) -> u64) -> u64 {
        let flows = self.first..;
        let to_come = flows
            .zip(&self.next)
            .map(|(flow, next)| sent(flow).saturating_sub(*next));
        self.faults.missing + to_come.sum::<u64>()
    }

    /// Returns the errors so far.
    pub fn faults(&self) -> SequenceErrors {
        self.faults
    }

    fn record_old(&mut self, flow: u32, seq: u64) -> Arrival {
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
                Arrival::Late
            }
            _ => {
                self.faults.repeated += 1;
                Arrival::Again
            }
        }
    }
}

/// What the members of a shared group have received: each message must arrive once, at any member.
#[derive(Clone, Debug, Default)]
pub struct GroupSequence {
    /// For each flow, a bit for each number.
    seen: Vec<Vec<u64>>,
    /// Messages received, without repetitions.
    pub arrived: u64,
    /// Messages received more than once.
    pub repeated: u64,
}

impl GroupSequence {
    /// Records a message. Returns whether it is new.
    pub fn record(&mut self, flow: u32, seq: u64) -> bool {
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

    fn sequence() -> Sequence {
        Sequence::new(4..6, |_| 0)
    }

    #[test]
    fn what_comes_in_order_is_all_right() {
        let mut sequence = sequence();
        for seq in 0..3 {
            assert_eq!(sequence.record(4, seq), Arrival::Next);
            assert_eq!(sequence.record(5, seq), Arrival::Next);
        }
        assert_eq!(sequence.faults(), SequenceErrors::default());
        assert_eq!(sequence.lost(|_| 3), 0);
        assert_eq!(sequence.lost(|flow| if flow == 5 { 10 } else { 3 }), 7);
        assert_eq!(sequence.record(3, 0), Arrival::Foreign);
        assert_eq!(sequence.record(6, 0), Arrival::Foreign);
    }

    #[test]
    fn a_gap_is_a_loss_until_it_is_filled_and_then_a_disorder() {
        let mut sequence = sequence();
        assert_eq!(sequence.record(4, 5), Arrival::After(0..5));
        assert_eq!(sequence.lost(|flow| if flow == 4 { 6 } else { 0 }), 5);
        for seq in [2, 0, 4, 1, 3] {
            assert_eq!(sequence.record(4, seq), Arrival::Late);
        }
        let faults = sequence.faults();
        assert_eq!((faults.missing, faults.late, faults.repeated), (0, 5, 0));
        assert!(sequence.gaps.is_empty());
    }

    #[test]
    fn what_came_before_is_a_repetition() {
        let mut sequence = sequence();
        sequence.record(4, 0);
        sequence.record(4, 3);
        sequence.record(5, 9);
        assert_eq!(sequence.record(4, 0), Arrival::Again);
        assert_eq!(sequence.record(4, 3), Arrival::Again);
        assert_eq!(sequence.record(4, 2), Arrival::Late);
        assert_eq!(sequence.record(4, 2), Arrival::Again);
        assert_eq!(sequence.faults().repeated, 3);
        assert_eq!(sequence.faults().missing, 1 + 9);
    }

    #[test]
    fn a_member_of_a_group_may_miss_what_others_get_but_not_go_back() {
        let mut sequence = Sequence::of_member(0..1);
        assert_eq!(sequence.record(0, 7), Arrival::Next);
        assert_eq!(sequence.record(0, 6), Arrival::Again);
        assert_eq!(sequence.faults().missing, 0);
    }

    #[test]
    fn who_joins_later_misses_nothing_of_before() {
        let mut sequence = Sequence::new(0..1, |_| 100);
        assert_eq!(sequence.record(0, 100), Arrival::Next);
        assert_eq!(sequence.lost(|_| 101), 0);
        assert_eq!(sequence.expected(|_| 101), 1);
    }

    #[test]
    fn a_group_gets_each_message_once() {
        let mut group = GroupSequence::default();
        assert!(group.record(2, 70));
        assert!(group.record(2, 6));
        assert!(group.record(0, 70));
        assert!(!group.record(2, 70));
        assert_eq!((group.arrived, group.repeated), (3, 1));
    }
}
