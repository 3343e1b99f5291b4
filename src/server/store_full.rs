//! Logs when the store becomes full, and when it has room again.
//!
//! A full store commits nothing. So this task also checks whether the disk has room again.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::clock::Stopwatch;
use crate::net::lock_stats::Purpose;
use crate::net::shared_broker::SharedBroker;
use crate::store::{Store, StoreOptions, Usage};

/// How often the store is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a store must have had room, and refused nothing, until it counts as not full any more.
/// So there are at most two log lines in this time.
const QUIET_PERIOD: Duration = Duration::from_secs(5);

/// Checks the store every second. Never returns.
pub(super) async fn watch(broker: Arc<SharedBroker>, store: Arc<Store>, options: StoreOptions) {
    let mut fullness = Fullness::default();
    let started = Stopwatch::start();
    loop {
        let refused = {
            let mut guard = broker.lock(Purpose::Other, None);
            guard.broker().counters().refused_store_full
        };
        match fullness.update(store.has_room(), refused, started.elapsed()) {
            None => {}
            Some(FullnessChange::Full) => warn_full(&store.usage(), &options),
            Some(FullnessChange::Over { took, refused }) => tracing::warn!(
                full_seconds = took.as_secs(),
                refused_messages = refused,
                "the store is no longer full: messages are stored again"
            ),
        }
        // Also while there is a little room: it may be kept for sessions while messages are
        // refused.
        if fullness.is_full() {
            let full = Arc::clone(&store);
            if let Ok(Err(error)) = spawn_blocking(move || full.look_at_room()).await {
                // The next commit fails and ends the process.
                return tracing::error!(%error, "the store's room cannot be told");
            }
            let mut guard = broker.lock(Purpose::Other, None);
            guard
                .broker()
                .set_room(store.room(), store.may_have_more_room());
        }
        sleep(CHECK_INTERVAL).await;
    }
}

fn warn_full(usage: &Usage, options: &StoreOptions) {
    let advice = match usage.is_limited_by_disk {
        true => {
            "make room on the disk, or lower store.min_free_disk; the queues of clients that do not come back take room, too (tidegate export shows them)"
        }
        false => {
            "raise store.max_size, or see to it that clients take what waits for them (tidegate export shows whose it is)"
        }
    };
    tracing::warn!(
        file_bytes = usage.file_bytes,
        max_size = options.max_bytes,
        live_bytes = usage.live_bytes,
        free_disk_bytes = usage.free_disk_bytes,
        min_free_disk = options.min_free_bytes,
        advice,
        "the store is full: messages that have to be stored are refused (MQTT 5: 0x97, MQTT 3: the connection is closed)"
    );
}

/// Whether the store is full.
#[derive(Debug, Default)]
struct Fullness {
    /// Since when, and how many messages had been refused before.
    full: Option<(Duration, u64)>,
    /// When there was last no room, or a message was refused.
    last: Duration,
    /// Messages refused at the last check.
    refused: u64,
}

/// What has changed.
#[derive(Debug, PartialEq)]
enum FullnessChange {
    /// The store has become full.
    Full,
    /// The store is not full any more.
    Over {
        /// How long it was full.
        took: Duration,
        /// Messages refused in that time.
        refused: u64,
    },
}

impl Fullness {
    /// Whether the store counts as full.
    fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// Takes a check at `now`: whether there is room, and how many messages were ever refused.
    fn update(&mut self, has_room: bool, refused: u64, now: Duration) -> Option<FullnessChange> {
        let before = std::mem::replace(&mut self.refused, refused);
        if !has_room || refused > before {
            self.last = now;
            return match self.full {
                Some(_) => None,
                None => {
                    self.full = Some((now, before));
                    Some(FullnessChange::Full)
                }
            };
        }
        if now < self.last + QUIET_PERIOD {
            return None;
        }
        let (since, before) = self.full.take()?;
        Some(FullnessChange::Over {
            took: self.last - since,
            refused: refused - before,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_is_told_once_at_its_beginning_and_once_at_its_end() {
        let mut fullness = Fullness::default();
        let mut changes = Vec::new();
        let mut update = |second: u64, has_room, refused| {
            let change = fullness.update(has_room, refused, Duration::from_secs(second));
            changes.extend(change.map(|change| (second, change)));
        };
        update(0, true, 0);
        update(20, false, 3);
        // Room comes and goes.
        for second in 21..60 {
            update(second, second % 5 != 0, second);
        }
        for second in 60..200 {
            update(second, true, 59);
        }
        let over = FullnessChange::Over {
            took: Duration::from_secs(39),
            refused: 59,
        };
        assert_eq!(changes, [(20, FullnessChange::Full), (64, over)]);
    }
}
