//! The broker behind one lock. A task that has read packets enters it in place, handles them all, and wakes each connection that got
//! something once: no thread is handed anything on the way. Only the committer (fsync blocks) and the reader of bodies are threads of their own.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::unfinished::{Held, Unfinished};
use crate::broker::record::Batch;
use crate::broker::{Broker, ConnectionId, Fetch};
use crate::clock::{Clock, Now};
use crate::store::{Notifier, Progress, Store};

/// The broker, shared by all that drive it.
#[derive(Debug)]
pub struct Core {
    state: Mutex<State>,
    clock: Clock,
    earlier: Notify,
    committer: OnceLock<Notifier>,
    fetches: Sender<Fetch>,
}

/// What the lock guards.
#[derive(Debug)]
struct State {
    broker: Broker,
    /// The task of each connection, while it waits.
    wakers: Vec<Option<Waiting>>,
    unfinished: Unfinished,
    /// When the ticker will wake up, in milliseconds of uptime.
    armed: u64,
    /// The committer works on a batch, and will ask for the next by itself.
    committing: bool,
    touched: Vec<ConnectionId>,
}

/// A task that waits.
#[derive(Debug)]
struct Waiting {
    waker: Waker,
    until: Until,
}

/// What a connection's task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Anything the broker has for the connection.
    Touched,
    /// The connection is to be closed: its task can take nothing before the peer has taken what was sent.
    Closing,
}

/// The broker, entered: what it asks for is done when this is dropped.
pub struct Entered<'a> {
    core: &'a Core,
    state: Option<MutexGuard<'a, State>>,
    now: Now,
    /// The connection whose own task this is; it need not be woken.
    own: Option<ConnectionId>,
}

impl Core {
    /// The core of a process. The receiver is for [`Core::read_bodies`].
    pub fn new(broker: Broker, clock: Clock) -> (Arc<Core>, Receiver<Fetch>) {
        let (fetches, receiver) = channel();
        let unfinished = Unfinished::new(broker.limits().max_incoming_bytes);
        let state = State {
            broker,
            unfinished,
            wakers: Vec::new(),
            armed: u64::MAX,
            committing: false,
            touched: Vec::new(),
        };
        let core = Core {
            state: Mutex::new(state),
            clock,
            earlier: Notify::new(),
            committer: OnceLock::new(),
            fetches,
        };
        (Arc::new(core), receiver)
    }

    /// Enters the broker. `own` is the connection whose task enters and will take its output itself.
    pub fn enter(&self, own: Option<ConnectionId>) -> Entered<'_> {
        let now = self.clock.now();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Entered {
            core: self,
            state: Some(state),
            now,
            own,
        }
    }

    /// The moment it is now.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Tells the core how to wake the committer.
    pub fn set_committer(&self, notifier: Notifier) {
        if self.committer.set(notifier).is_ok() {
            drop(self.enter(None));
        }
    }

    /// The next batch for the committer.
    pub fn next_batch(&self) -> Option<Batch> {
        let mut entered = self.enter(None);
        let now = entered.now;
        let state = entered.state_mut();
        let batch = state.broker.take_batch(now);
        state.committing = batch.is_some();
        batch
    }

    /// Hears how far the committer has come. False if the store failed.
    pub fn committed(&self, progress: &Progress, store: &Store) -> bool {
        let mut entered = self.enter(None);
        let now = entered.now;
        let broker = &mut entered.state_mut().broker;
        match progress {
            Progress::Written(batch) => broker.written(*batch, now),
            Progress::Durable(batch) => {
                broker.set_room(store.room());
                broker.durable(*batch, now);
            }
            Progress::Failed(_) => return false,
        }
        true
    }

    /// Reads the bodies the broker asks for, until the core is gone or the store fails.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read_bodies(
        &self,
        fetches: &Receiver<Fetch>,
        store: &Store,
    ) -> Result<(), crate::store::StoreError> {
        while let Ok(fetch) = fetches.recv() {
            let mut bodies = Vec::with_capacity(fetch.seqs.len());
            store.fetch(&fetch.seqs, &mut |seq, body| bodies.push((seq, body)))?;
            let mut entered = self.enter(None);
            let now = entered.now;
            entered.broker().fetched(fetch, bodies, now);
        }
        Ok(())
    }

    /// Ticks the broker for ever, each time its next time-out has come.
    pub async fn tick(&self) {
        loop {
            let wait = {
                let mut entered = self.enter(None);
                let now = entered.now;
                entered.broker().tick(now);
                let state = entered.state_mut();
                state.armed = state.broker.next_timeout();
                state.armed.saturating_sub(now.uptime)
            };
            tokio::select! {
                () = sleep(Duration::from_millis(wait.min(3_600_000))) => {}
                () = self.earlier.notified() => {}
            }
        }
    }
}

impl Entered<'_> {
    /// The broker.
    pub fn broker(&mut self) -> &mut Broker {
        &mut self.state_mut().broker
    }

    /// The moment it was entered.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Sets whom to wake when there is something for a connection, and what.
    pub fn set_waker(&mut self, id: ConnectionId, waker: &Waker, until: Until) {
        let wakers = &mut self.state_mut().wakers;
        let at = id.0 as usize;
        if wakers.len() <= at {
            wakers.resize_with(at + 1, || None);
        }
        match &mut wakers[at] {
            Some(known) if known.waker.will_wake(waker) => known.until = until,
            place => {
                let waker = waker.clone();
                *place = Some(Waiting { waker, until });
            }
        }
    }

    /// A connection holds this many bytes of an unfinished packet: connections that must make room are closed. See [`Unfinished::hold`].
    pub fn hold(
        &mut self,
        held: &mut Held,
        id: ConnectionId,
        bytes: usize,
        connected: bool,
        began: bool,
    ) {
        let now = self.now;
        let state = self.state_mut();
        for shed in state.unfinished.hold(held, id, bytes, connected, began) {
            state.broker.shed(shed, now);
        }
    }

    fn state_mut(&mut self) -> &mut State {
        self.state
            .as_mut()
            .expect("the state is there until this is dropped")
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let (now, own) = (self.now, self.own);
        let Some(mut guard) = self.state.take() else {
            return;
        };
        let state = &mut *guard;
        let mut touched = std::mem::take(&mut state.touched);
        state.broker.take_touched(&mut touched);
        let mut wake: Vec<Waker> = Vec::with_capacity(touched.len());
        let comes_back = |id: &ConnectionId| Some(*id) != own || state.broker.goes_on(*id);
        for id in touched.drain(..).filter(comes_back) {
            let Some(waiting) = state.wakers.get_mut(id.0 as usize) else {
                continue;
            };
            let ripe = |waiting: &mut Waiting| {
                waiting.until == Until::Touched || state.broker.is_closing(id)
            };
            wake.extend(waiting.take_if(ripe).map(|waiting| waiting.waker));
        }
        state.touched = touched;
        let fetches = state.broker.take_fetches();
        let commit = !state.committing && state.broker.wants_commit(now);
        let earlier = state.broker.next_timeout() < state.armed;
        if earlier {
            state.armed = 0;
        }
        drop(guard);
        for fetch in fetches {
            // The reader is gone only when the process ends.
            let _ = self.core.fetches.send(fetch);
        }
        if commit && let Some(committer) = self.core.committer.get() {
            committer.notify();
        }
        if earlier {
            self.core.earlier.notify_one();
        }
        wake.into_iter().for_each(Waker::wake);
    }
}
