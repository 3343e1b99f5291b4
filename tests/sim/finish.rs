//! The end of a run, and what is checked as it goes along: accounts, the store's rows, and expiry.

use super::check::{self, Evidence};
use super::history::{Violation, number_of};
use super::link::decode_next;
use super::plan::Role;
use super::process::{IDENTITY, store_options};
use super::world::World;
use crate::broker::record::Write;
use crate::store::{Start, Store};
use crate::wire::{Packet, codec};

const MEMORY: &str = "memory returns to zero";
const EXPIRY: &str = "nothing expired is sent";

impl World {
    /// Judges a run that has come to its end.
    pub fn judge(&mut self) -> Result<(), Violation> {
        self.stats.published = self.history.messages.len() as u64;
        let lives = self.history.lives.iter();
        self.stats.delivered = lives.map(|life| life.deliveries.len() as u64).sum();
        let ms = self.unix();
        let process = self.process.as_ref();
        let counters = process.map(|process| process.broker.counters());
        check::all(&Evidence {
            plan: &self.plan,
            history: &self.history,
            clients: &self.clients,
            expected: &self.expected,
            ms,
            dropped: counters.map_or(0, |counters| counters.dropped_queue_full),
        })?;
        self.check_memory()?;
        self.check_store()
    }

    /// Everything has been taken: nothing is kept for anybody whose sessions we know.
    fn check_memory(&self) -> Result<(), Violation> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        let audit = process
            .broker
            .audit()
            .map_err(|what| Violation::new(MEMORY, what))?;
        let strange = self.has_breaker();
        let kept = audit.kept.iter().find(|(name, kept)| {
            let known = self.clients.iter().any(|client| client.plan.name == **name);
            (known && *name != "breaker" || name.starts_with("$share/group/"))
                && **kept != Default::default()
        });
        let sums = audit.queued_bytes + audit.hot_bytes + audit.pending_bytes as u64;
        if kept.is_some() || !strange && sums + audit.shares as u64 > 0 {
            return Err(Violation::new(MEMORY, format!("{audit:?}")));
        }
        Ok(())
    }

    /// Shuts down in good order and opens the store once more: it holds no message that nobody
    /// waits for.
    fn check_store(&mut self) -> Result<(), Violation> {
        let strange = self.has_breaker();
        self.process = None;
        let failed = |what: String| Violation::new("the store holds what is needed", what);
        let opened = Store::open_with_backend(self.disk.mount(), &store_options(), IDENTITY);
        let (store, opened) = opened.map_err(|error| failed(error.to_string()))?;
        let mut left = 0;
        let recovery = store
            .recover(&mut |row| {
                left += u64::from(matches!(
                    row,
                    Write::PutDelivery(..) | Write::PutReceived(..)
                ));
            })
            .map_err(|error| failed(error.to_string()))?;
        let wrong = opened.start != Start::Clean || recovery.orphans > 0 || left > 0;
        if wrong && !strange {
            let what = format!("{left} rows are left: {opened:?}, {recovery:?}");
            return Err(failed(what));
        }
        Ok(())
    }

    fn has_breaker(&self) -> bool {
        let mut clients = self.clients.iter();
        clients.any(|client| client.plan.role == Role::Breaker)
    }

    /// What leaves the broker has not expired, and says how long it still has [MQTT-3.3.2-5,
    /// MQTT-3.3.2-6]. A packet may have waited for the disk since it was made, and what was sent
    /// before is sent again in any case.
    pub fn check_expiry(&mut self, link: usize, out: &[u8]) -> Result<(), Violation> {
        let now = self.unix();
        let state = &self.links[link];
        if state.was_full {
            return Ok(());
        }
        let mut version = Some(self.clients[state.client].plan.version);
        let mut used = 0;
        while let Ok(Some((packet, len))) =
            decode_next(&out[used..], &mut version, codec::MAX_PACKET_SIZE)
        {
            used += len;
            let Packet::Publish(publish) = packet else {
                continue;
            };
            let number = number_of(publish.payload);
            let message = number.and_then(|number| self.history.messages.get(number));
            let Some((message, interval)) = message.and_then(|one| Some((one, one.expiry?))) else {
                continue;
            };
            let handled = message.handled.iter().map(|moment| moment.ms);
            let (first, last) = (handled.clone().min(), handled.max());
            let (Some(first), Some(last)) = (first, last) else {
                continue;
            };
            let interval = u64::from(interval);
            let waited = self.longest_wait();
            let late = !publish.dup && now > last + interval * 1000 + waited;
            let left = publish.properties.message_expiry().map(u64::from);
            let most = interval.saturating_sub(now.saturating_sub(last + waited) / 1000);
            let least = interval.saturating_sub(now.saturating_sub(first).div_ceil(1000));
            let wrong = left.is_some_and(|left| left > most || left < least);
            if late || wrong {
                let what = format!(
                    "{number:?} with {interval} s, handed over at {first} to {last} ms, leaves at {now} ms and has {left:?} s left"
                );
                return Err(Violation::new(EXPIRY, what));
            }
        }
        Ok(())
    }

    /// How long a packet may wait for its batch in milliseconds: the batch before it and its own.
    fn longest_wait(&self) -> u64 {
        let slow = if self.plan.slow_sync_once_in > 0 {
            10_000
        } else {
            0
        };
        slow + 5 * self.plan.commit_us / 1000 + 10
    }
}
