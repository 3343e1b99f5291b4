//! What the committer and the store do for the broker process: batches become durable, and bodies
//! are read.

use super::history::Violation;
use super::world::{Event, World};

impl World {
    pub fn take_batch(&mut self) {
        let life = self.life;
        let Some((process, now)) = self.process() else {
            return;
        };
        process.batch = process.broker.take_batch(now);
        process.committing = process.batch.is_some();
        self.taken_at = self.history.order();
        let Some(process) = self.process.as_ref() else {
            return;
        };
        if process.committing {
            self.soon(self.plan.commit_us, Event::Apply(life));
        }
    }

    /// The batch goes to disk. That nobody is told at once is the same as if the disk were slow.
    pub fn apply(&mut self) -> Result<(), Violation> {
        let (life, lie, disk) = (self.life, self.lie(), self.disk.clone());
        let Some((process, _)) = self.process() else {
            return Ok(());
        };
        let Some(mut batch) = process.batch.take() else {
            return Ok(());
        };
        process.taken = batch.id;
        if let Some(lie) = lie {
            lie.store(&mut batch.writes);
        }
        // The sync begins when all is written, and is done when the broker is told so.
        let applied = process.store.apply(&batch, &|| disk.slow_down());
        self.clock_written(&batch);
        match applied {
            Ok(_) => {
                self.stats.commits += 1;
                self.say(format_args!(
                    "applied {:?}, {} writes",
                    batch.id,
                    batch.writes.len()
                ));
                self.soon(self.plan.commit_us / 2, Event::Written(life));
                Ok(())
            }
            Err(error) => {
                self.say(format_args!("the store fails: {error}"));
                self.crash();
                Ok(())
            }
        }
    }

    pub fn written(&mut self) {
        let life = self.life;
        if let Some((process, now)) = self.process() {
            process.broker.written(process.taken, now);
        }
        let slow = !self.healed && self.rng.once_in(self.plan.slow_sync_once_in);
        let most = if slow { 5_000_000 } else { self.plan.commit_us };
        self.soon(most, Event::Durable(life));
    }

    pub fn durable(&mut self) {
        self.disk.settle();
        self.clock_durable();
        self.safe = self.taken_at;
        if let Some((process, now)) = self.process() {
            process
                .broker
                .set_room(process.store.room(), process.store.may_have_more_room());
            process.broker.durable(process.taken, now);
        }
        self.take_batch();
    }

    pub fn read_bodies(&mut self) -> Result<(), Violation> {
        let life = self.life;
        let Some((process, _)) = self.process() else {
            return Ok(());
        };
        let Some(fetch) = process.fetches.pop_front() else {
            return Ok(());
        };
        let mut bodies = Vec::new();
        let read = process
            .store
            .fetch(&fetch.bodies, &mut |_, body| bodies.push(body));
        if let Err(error) = read {
            self.say(format_args!("bodies cannot be read: {error}"));
            self.crash();
            return Ok(());
        }
        process.bodies = Some((fetch, bodies));
        self.soon(self.plan.commit_us, Event::Fetched(life));
        Ok(())
    }

    pub fn fetched(&mut self) {
        let life = self.life;
        let Some((process, now)) = self.process() else {
            return;
        };
        if let Some((fetch, bodies)) = process.bodies.take() {
            process.broker.fetched(fetch, bodies, now);
        }
        if !process.fetches.is_empty() {
            self.soon(self.plan.commit_us, Event::Read(life));
        }
    }
}
