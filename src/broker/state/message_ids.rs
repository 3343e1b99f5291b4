//! Identities of messages that came over bridges.

use std::collections::{BTreeMap, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::broker::model::record::{MessageId, Seq};
use crate::limits::Limits;

/// What a client counts beside its messages in `max_message_ids_total`.
const WINDOW: usize = 16;

/// How often the log is told of messages that go in circles, in milliseconds.
const CIRCLES_MS: u64 = 60_000;

/// The messages that were accepted last of each client that tells their identities.
#[derive(Debug)]
pub struct MessageIds {
    /// Each message, and the `Seq` under which its row is in the store; 0 if it has none.
    known: HashMap<u64, u64, FixedState>,
    windows: HashMap<u64, Window, FixedState>,
    /// The publishers, the one that is idle longest first.
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    circles: Circles,
}

/// Messages that go in circles, as far as the log goes.
#[derive(Debug, Default)]
struct Circles {
    /// When the log was told last, in milliseconds of uptime.
    said: Option<u64>,
    /// How many there were since.
    unsaid: u64,
}

/// The messages of one publisher, the oldest first.
#[derive(Debug)]
struct Window {
    ids: VecDeque<u64>,
    used: u64,
}

impl MessageIds {
    /// None yet; `seed` keeps peers from choosing what collides.
    pub fn new(seed: u64) -> MessageIds {
        MessageIds {
            known: HashMap::with_hasher(FixedState::with_seed(seed)),
            windows: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_use: BTreeMap::new(),
            uses: 0,
            circles: Circles::default(),
        }
    }

    /// Counts a message that goes in a circle. Returns how many there were since that was last
    /// said, if it is time to say it.
    pub fn note_circle(&mut self, uptime: u64) -> Option<u64> {
        self.circles.unsaid += 1;
        let said = self.circles.said;
        if said.is_some_and(|said| uptime < said + CIRCLES_MS) {
            return None;
        }
        self.circles.said = Some(uptime);
        Some(std::mem::take(&mut self.circles.unsaid))
    }

    /// The `Seq` of a message that is known, if it has a row.
    pub fn find(&self, id: u64) -> Option<Option<Seq>> {
        let seq = *self.known.get(&id)?;
        Some((seq != 0).then_some(Seq(seq)))
    }

    /// Remembers a message, as long as the limits allow; `forget` is told of the rows that are not
    /// needed any more.
    pub fn remember(
        &mut self,
        message: MessageId,
        seq: Option<Seq>,
        limits: &Limits,
        mut forget: impl FnMut(Seq),
    ) {
        let MessageId { publisher, id } = message;
        let replaced = self.known.insert(id, seq.map_or(0, |seq| seq.0));
        self.uses += 1;
        let window = self.windows.entry(publisher).or_insert(Window {
            ids: VecDeque::new(),
            used: self.uses,
        });
        match replaced {
            None => window.ids.push_back(id),
            // The process died before the row of before was removed.
            Some(0) => {}
            Some(row) => forget(Seq(row)),
        }
        self.by_use.remove(&window.used);
        window.used = self.uses;
        self.by_use.insert(self.uses, publisher);
        let most = limits.max_message_ids.min(limits.max_message_ids_total);
        while window.ids.len() > most
            && let Some(oldest) = window.ids.pop_front()
        {
            Self::forget(&mut self.known, oldest, &mut forget);
        }
        while self.weight() > limits.max_message_ids_total && self.windows.len() > 1 {
            let Some((_, idle)) = self.by_use.pop_first() else {
                break;
            };
            let ids = self.windows.remove(&idle).map(|window| window.ids);
            for id in ids.into_iter().flatten() {
                Self::forget(&mut self.known, id, &mut forget);
            }
        }
    }

    fn forget(known: &mut HashMap<u64, u64, FixedState>, id: u64, forget: &mut impl FnMut(Seq)) {
        if let Some(seq) = known.remove(&id).filter(|seq| *seq != 0) {
            forget(Seq(seq));
        }
    }

    /// What counts in `max_message_ids_total`.
    fn weight(&self) -> usize {
        self.known.len() + WINDOW * self.windows.len()
    }

    /// Messages that are known; each must be in one window.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        let windows = self.windows.values().map(|window| window.ids.len());
        assert_eq!(windows.sum::<usize>(), self.known.len());
        assert_eq!(self.by_use.len(), self.windows.len());
        self.known.len()
    }
}
