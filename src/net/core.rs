//! The broker behind one lock. A task that has read packets enters it in place, handles them all, and wakes each connection that got
//! something once: no thread is handed anything on the way. Only the committer (fsync blocks) and the reader of bodies are threads of their own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::unfinished::{Held, Unfinished};
use super::visits::{Purpose, Visits};
use crate::broker::record::Batch;
use crate::broker::{Broker, ConnectionId, Fetch};
use crate::clock::{self, Clock, Now, Stopwatch};
use crate::store::{Notifier, Progress, Store};

/// No visit should hold the lock for longer: nobody else is served meanwhile.
const LONG: Duration = Duration::from_millis(10);

/// How long a visit that lets others in waits for them to come.
const PATIENCE: Duration = Duration::from_micros(200);

/// Connections that are woken in one go. A worker thread looks for what has come in after at most 61 tasks, and takes its tasks in order: whoever is
/// woken after thousands waits for them all, which is longer than the lock was held.
const CROWD: usize = 64;

/// The broker, shared by all that drive it.
#[derive(Debug)]
pub struct Core {
    state: Mutex<State>,
    /// Threads that wait for the lock.
    waiting: AtomicUsize,
    clock: Clock,
    earlier: Notify,
    /// Connections beyond the first [`CROWD`] of a visit that are still to be woken.
    crowd: Mutex<VecDeque<Waker>>,
    crowded: Notify,
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
    /// Since when a batch is on its way to the disk.
    commit_began: Option<Stopwatch>,
    touched: Vec<ConnectionId>,
    visits: Visits,
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
    /// The connection is to be closed, or looked at, or yields its place: its task can take nothing before the peer has taken what was sent.
    Leaving,
}

/// The broker, entered: what it asks for is done when this is dropped.
pub struct Entered<'a> {
    core: &'a Core,
    state: Option<MutexGuard<'a, State>>,
    now: Now,
    purpose: Purpose,
    waited: Duration,
    /// Runs since the lock is held.
    watch: Stopwatch,
    /// The connection whose own task this is; it need not be woken.
    own: Option<ConnectionId>,
    /// Who has something since others were let in.
    touched: Vec<ConnectionId>,
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
            commit_began: None,
            touched: Vec::new(),
            visits: Visits::default(),
        };
        let core = Core {
            state: Mutex::new(state),
            waiting: AtomicUsize::new(0),
            clock,
            earlier: Notify::new(),
            crowd: Mutex::default(),
            crowded: Notify::new(),
            committer: OnceLock::new(),
            fetches,
        };
        (Arc::new(core), receiver)
    }

    /// Enters the broker. `own` is the connection whose task enters and will take its output itself.
    pub fn enter(&self, purpose: Purpose, own: Option<ConnectionId>) -> Entered<'_> {
        let arrived = Stopwatch::start();
        let (state, watch) = self.lock(arrived);
        Entered {
            core: self,
            state: Some(state),
            now: self.clock.at(watch),
            purpose,
            waited: watch.since(arrived),
            watch,
            own,
            touched: Vec::new(),
        }
    }

    /// Takes the lock; tells since when it is held.
    fn lock(&self, arrived: Stopwatch) -> (MutexGuard<'_, State>, Stopwatch) {
        // Whoever need not wait need not look at the clock again.
        match self.state.try_lock() {
            Ok(state) => (state, arrived),
            Err(TryLockError::Poisoned(poisoned)) => (poisoned.into_inner(), arrived),
            Err(TryLockError::WouldBlock) => {
                self.waiting.fetch_add(1, Ordering::Relaxed);
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                (state, Stopwatch::start())
            }
        }
    }

    /// The moment it is now.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Tells the core how to wake the committer.
    pub fn set_committer(&self, notifier: Notifier) {
        if self.committer.set(notifier).is_ok() {
            drop(self.enter(Purpose::Other, None));
        }
    }

    /// The next batch for the committer.
    pub fn next_batch(&self) -> Option<Batch> {
        let mut entered = self.enter(Purpose::Batch, None);
        let now = entered.now;
        let state = entered.state_mut();
        let batch = state.broker.take_batch(now);
        state.committing = batch.is_some();
        state.commit_began = batch.is_some().then(Stopwatch::start);
        batch
    }

    /// Hears how far the committer has come. False if the store failed.
    pub fn committed(&self, progress: &Progress, store: &Store) -> bool {
        let mut entered = self.enter(Purpose::Durable, None);
        let now = entered.now;
        let state = entered.state_mut();
        if matches!(progress, Progress::Durable(_)) {
            state.commit_began = None;
        }
        let broker = &mut state.broker;
        match progress {
            Progress::Written(batch) => broker.written(*batch, now),
            Progress::Durable(batch) => {
                broker.set_room(store.room(), store.may_have_more_room());
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
            let mut entered = self.enter(Purpose::Bodies, None);
            let now = entered.now;
            entered.broker().fetched(fetch, bodies, now);
        }
        Ok(())
    }

    /// Ticks the broker for ever, each time its next time-out has come.
    pub async fn tick(&self) {
        loop {
            let wait = {
                let mut entered = self.enter(Purpose::Tick, None);
                let now = entered.now;
                entered.broker().tick(now);
                entered.broker().set_wall(clock::wall_ms(), now);
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

    /// Wakes for ever, where a visit has something for very many connections, some at a time: in between others get their turn.
    pub async fn wake_crowds(&self) {
        loop {
            self.crowded.notified().await;
            loop {
                let some: Vec<Waker> = {
                    let mut crowd = self.crowd.lock().unwrap_or_else(PoisonError::into_inner);
                    let some = crowd.len().min(CROWD);
                    crowd.drain(..some).collect()
                };
                if some.is_empty() {
                    break;
                }
                some.into_iter().for_each(Waker::wake);
                yield_now().await;
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

    /// Lets in those who wait at the lock, and then goes on: for the middle of a long visit. Whom it has something for hears of that at its end.
    pub fn breathe(&mut self) {
        if self.core.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut touched = std::mem::take(&mut self.touched);
        let (purpose, waited, held) = (self.purpose, self.waited, self.watch.elapsed());
        let state = self.state_mut();
        state.broker.take_touched(&mut touched);
        state.visits.count(purpose, waited, held);
        self.touched = touched;
        self.state = None;
        let arrived = Stopwatch::start();
        // A thread that sleeps at the lock needs a moment, in which this one would have taken it again.
        while self.core.waiting.load(Ordering::Relaxed) > 0 && arrived.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        let (state, watch) = self.core.lock(arrived);
        self.now = self.core.clock.at(watch);
        (self.waited, self.watch) = (watch.since(arrived), watch);
        self.state = Some(state);
    }

    /// How long visits have held the lock and waited for it, this one left out.
    pub fn visits(&self) -> Visits {
        let state = self.state.as_ref();
        state.map_or_else(Visits::default, |state| state.visits.clone())
    }

    /// For how long a batch is on its way to the disk; `None` if none is.
    pub fn commit_under_way(&self) -> Option<Duration> {
        let state = self.state.as_ref()?;
        state.commit_began.map(|began| began.elapsed())
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

    /// Wakes nobody any more for a connection that is lost: a waker keeps all memory of its task.
    pub fn forget_waker(&mut self, id: ConnectionId) {
        if let Some(place) = self.state_mut().wakers.get_mut(id.0 as usize) {
            *place = None;
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
        touched.append(&mut self.touched);
        state.broker.take_touched(&mut touched);
        let mut wake: Vec<Waker> = Vec::with_capacity(touched.len());
        let comes_back = |id: &ConnectionId| Some(*id) != own || state.broker.has_more(*id);
        for id in touched.drain(..).filter(comes_back) {
            let Some(waiting) = state.wakers.get_mut(id.0 as usize) else {
                continue;
            };
            let ripe = |waiting: &mut Waiting| {
                waiting.until == Until::Touched
                    || state.broker.is_closing(id)
                    || state.broker.is_yielding(id)
                    || state.broker.asks_progress(id)
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
        let held = self.watch.elapsed();
        state.visits.count(self.purpose, self.waited, held);
        drop(guard);
        if held > LONG {
            let (visit, connection) = (self.purpose.name(), own.map(|id| id.0));
            tracing::debug!(visit, ?held, connection, "the broker was held for long");
        }
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
        if wake.len() > CROWD {
            let crowd = self.core.crowd.lock();
            let mut crowd = crowd.unwrap_or_else(PoisonError::into_inner);
            crowd.extend(wake.drain(CROWD..));
            self.core.crowded.notify_one();
        }
        wake.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;
    use crate::broker::{Access, Arrival};
    use crate::broker::{Chance, Settings};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn core() -> Arc<Core> {
        let clock = Clock::start();
        let broker = Broker::new(Settings::default(), Chance::fixed(7), clock.now());
        Core::new(broker, clock).0
    }

    /// A line of the figures.
    fn figure(core: &Core, name: &str) -> f64 {
        let mut text = String::new();
        core.enter(Purpose::Other, None).visits().render(&mut text);
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {text}"));
        line.trim().parse().expect("a number")
    }

    #[test]
    fn a_visit_is_counted_by_what_it_was_for_and_so_is_the_wait_for_its_end() {
        let core = core();
        let long = Duration::from_millis(30);
        let entered = core.enter(Purpose::Tick, None);
        std::thread::scope(|scope| {
            scope.spawn(|| drop(core.enter(Purpose::Lost, None)));
            std::thread::sleep(long);
            drop(entered);
        });
        let held = figure(&core, "tidegate_core_held_seconds_sum{visit=\"tick\"}");
        assert!(held >= long.as_secs_f64(), "{held}");
        let longest = figure(&core, "tidegate_core_held_longest_seconds{visit=\"tick\"}");
        assert_eq!(longest, held);
        assert_eq!(
            figure(&core, "tidegate_core_held_seconds_count{visit=\"lost\"}"),
            1.0
        );
        let other = figure(&core, "tidegate_core_held_seconds_sum{visit=\"lost\"}");
        assert!(other < held, "{other}: it has not held what it waited for");
        // The other thread has had all the time to come.
        let waited = figure(&core, "tidegate_core_waited_longest_seconds");
        assert!(waited > 0.0 && waited < 2.0 * held, "{waited}");
    }

    #[test]
    fn a_connection_that_is_lost_keeps_no_task_in_memory() {
        let core = core();
        let task = Arc::new(Count::default());
        let mut entered = core.enter(Purpose::Other, None);
        let now = entered.now();
        let arrival = Arrival::from(Access::default());
        let id = entered.broker().accept(arrival, now);
        let id = id.expect("there is room");
        entered.set_waker(id, &Waker::from(Arc::clone(&task)), Until::Touched);
        assert_eq!(Arc::strong_count(&task), 2);
        entered.broker().lost(id, now);
        entered.forget_waker(id);
        drop(entered);
        assert_eq!(Arc::strong_count(&task), 1);
        assert_eq!(task.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_crowd_is_woken_bit_by_bit() {
        let core = core();
        let connections = 2 * CROWD + 10;
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut entered = core.enter(Purpose::Other, None);
        let now = entered.now();
        for _ in 0..connections {
            let arrival = Arrival::from(Access::default());
            let id = entered
                .broker()
                .accept(arrival, now)
                .expect("there is room");
            entered.set_waker(id, &waker, Until::Touched);
        }
        drop(entered);
        let count = || woken.0.load(Ordering::Relaxed);
        assert_eq!(count(), 0);
        core.enter(Purpose::Other, None).broker().shut_down(now);
        assert_eq!(count(), CROWD);
        let mut waking = pin!(core.wake_crowds());
        for expected in [2 * CROWD, connections, connections] {
            let polled = waking
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            assert_eq!(count(), expected);
        }
        // Once they are woken, the next crowd is.
        core.crowd.lock().expect("whole").extend([waker]);
        core.crowded.notify_one();
        let polled = waking
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        assert_eq!(count(), connections + 1);
    }
}
