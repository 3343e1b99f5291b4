//! The broker behind one lock.
//!
//! A task that has read packets locks the broker, handles all of them, and wakes each connection
//! that got output once. No thread hands work to another on the way. Only the committer, which
//! blocks on fsync, and the reader of message bodies are threads of their own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::lock_stats::{LockStats, Purpose};
use super::partial_packets::{PartialEntry, PartialPackets};
use crate::broker::record::Batch;
use crate::broker::{Broker, ConnectionId, Fetch};
use crate::clock::{self, Clock, Now, Stopwatch};
use crate::store::{Notifier, Progress, Store};

/// A lock that was held for longer than this is logged: nobody else is served meanwhile.
const LONG_HOLD: Duration = Duration::from_millis(10);

/// How long [`BrokerGuard::yield_lock`] waits for other threads to take the lock.
const MAX_YIELD: Duration = Duration::from_micros(200);

/// Connections that are woken at once.
///
/// A worker thread looks for new input after at most 61 tasks, and runs its tasks in order. A task
/// that is woken behind thousands of others waits for all of them: longer than the lock was held.
const MAX_WOKEN_AT_ONCE: usize = 64;

/// The broker, shared by all tasks and threads that drive it.
#[derive(Debug)]
pub struct SharedBroker {
    state: Mutex<State>,
    /// Threads that wait for the lock.
    waiting: AtomicUsize,
    clock: Clock,
    /// Wakes [`SharedBroker::run_timer`]: a time-out is due earlier than it knows.
    earlier_timeout: Notify,
    /// Connections beyond [`MAX_WOKEN_AT_ONCE`] that are still to be woken.
    wake_queue: Mutex<VecDeque<Waker>>,
    /// Wakes [`SharedBroker::run_wake_queue`].
    wake_queued: Notify,
    committer: OnceLock<Notifier>,
    fetches: Sender<Fetch>,
}

/// What the lock guards.
#[derive(Debug)]
struct State {
    broker: Broker,
    /// The waiting task of each connection, indexed by [`ConnectionId`].
    tasks: Vec<Option<WaitingTask>>,
    partial_packets: PartialPackets,
    /// When [`SharedBroker::run_timer`] wakes up next, in milliseconds of uptime.
    next_tick: u64,
    /// The committer works on a batch and will ask for the next one by itself.
    committing: bool,
    /// When the batch that the committer works on was handed to it.
    commit_started: Option<Stopwatch>,
    touched: Vec<ConnectionId>,
    stats: LockStats,
}

/// A connection's task that waits for the broker.
#[derive(Debug)]
struct WaitingTask {
    waker: Waker,
    wake_on: WakeOn,
}

/// What a connection's task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeOn {
    /// Any output for the connection.
    Output,
    /// The connection is to close, is taken over, or is asked for its progress. Its task can take
    /// no output until the peer has taken what was sent.
    Closing,
}

/// The locked broker.
///
/// When it is dropped, it unlocks the broker, passes on the broker's fetches and commits, and wakes
/// the connections that have output.
pub struct BrokerGuard<'a> {
    shared: &'a SharedBroker,
    state: Option<MutexGuard<'a, State>>,
    now: Now,
    purpose: Purpose,
    waited: Duration,
    /// Started when the lock was taken.
    watch: Stopwatch,
    /// The connection whose task holds the lock. It is not woken.
    own: Option<ConnectionId>,
    /// Connections that got output before [`BrokerGuard::yield_lock`].
    touched: Vec<ConnectionId>,
}

impl SharedBroker {
    /// Shares a broker. The receiver is for [`SharedBroker::read_bodies`].
    pub fn new(broker: Broker, clock: Clock) -> (Arc<SharedBroker>, Receiver<Fetch>) {
        let (fetches, receiver) = channel();
        let partial_packets = PartialPackets::new(broker.limits().max_incoming_bytes);
        let state = State {
            broker,
            partial_packets,
            tasks: Vec::new(),
            next_tick: u64::MAX,
            committing: false,
            commit_started: None,
            touched: Vec::new(),
            stats: LockStats::default(),
        };
        let shared = SharedBroker {
            state: Mutex::new(state),
            waiting: AtomicUsize::new(0),
            clock,
            earlier_timeout: Notify::new(),
            wake_queue: Mutex::default(),
            wake_queued: Notify::new(),
            committer: OnceLock::new(),
            fetches,
        };
        (Arc::new(shared), receiver)
    }

    /// Locks the broker. `own` is the connection whose task calls this: it takes its own output and
    /// is not woken.
    pub fn lock(&self, purpose: Purpose, own: Option<ConnectionId>) -> BrokerGuard<'_> {
        let arrived = Stopwatch::start();
        let (state, watch) = self.lock_state(arrived);
        BrokerGuard {
            shared: self,
            state: Some(state),
            now: self.clock.at(watch),
            purpose,
            waited: watch.since(arrived),
            watch,
            own,
            touched: Vec::new(),
        }
    }

    /// Takes the lock. Returns also a stopwatch that was started at that moment.
    fn lock_state(&self, arrived: Stopwatch) -> (MutexGuard<'_, State>, Stopwatch) {
        // Without a wait the clock need not be read again.
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

    /// Returns the present time.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Sets how the committer is woken.
    pub fn set_committer(&self, notifier: Notifier) {
        if self.committer.set(notifier).is_ok() {
            drop(self.lock(Purpose::Other, None));
        }
    }

    /// Returns the next batch for the committer.
    pub fn next_batch(&self) -> Option<Batch> {
        let mut guard = self.lock(Purpose::Batch, None);
        let now = guard.now;
        let state = guard.state_mut();
        let batch = state.broker.take_batch(now);
        state.committing = batch.is_some();
        state.commit_started = batch.is_some().then(Stopwatch::start);
        batch
    }

    /// Tells the broker how far the committer is. Returns false if the store failed.
    pub fn committed(&self, progress: &Progress, store: &Store) -> bool {
        let mut guard = self.lock(Purpose::Durable, None);
        let now = guard.now;
        let state = guard.state_mut();
        if matches!(progress, Progress::Durable(_)) {
            state.commit_started = None;
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

    /// Reads the bodies that the broker fetches. Returns when the broker is dropped.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read_bodies(
        &self,
        fetches: &Receiver<Fetch>,
        store: &Store,
    ) -> Result<(), crate::store::StoreError> {
        while let Ok(fetch) = fetches.recv() {
            let mut bodies = Vec::with_capacity(fetch.bodies.len());
            store.fetch(&fetch.bodies, &mut |_, body| bodies.push(body))?;
            let mut guard = self.lock(Purpose::Bodies, None);
            let now = guard.now;
            guard.broker().fetched(fetch, bodies, now);
        }
        Ok(())
    }

    /// Ticks the broker each time its next time-out is due. Never returns.
    pub async fn run_timer(&self) {
        loop {
            let wait = {
                let mut guard = self.lock(Purpose::Tick, None);
                let now = guard.now;
                guard.broker().tick(now);
                guard.broker().set_wall(clock::wall_ms(), now);
                let state = guard.state_mut();
                state.next_tick = state.broker.next_timeout();
                state.next_tick.saturating_sub(now.uptime)
            };
            tokio::select! {
                () = sleep(Duration::from_millis(wait.min(3_600_000))) => {}
                () = self.earlier_timeout.notified() => {}
            }
        }
    }

    /// Wakes the connections in the wake queue, [`MAX_WOKEN_AT_ONCE`] at a time. Other tasks run in
    /// between. Never returns.
    pub async fn run_wake_queue(&self) {
        loop {
            self.wake_queued.notified().await;
            loop {
                let some: Vec<Waker> = {
                    let queue = self.wake_queue.lock();
                    let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
                    let some = queue.len().min(MAX_WOKEN_AT_ONCE);
                    queue.drain(..some).collect()
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

impl BrokerGuard<'_> {
    /// Returns the broker.
    pub fn broker(&mut self) -> &mut Broker {
        &mut self.state_mut().broker
    }

    /// Returns the time at which the lock was taken.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Gives the lock to threads that wait for it, then takes it again. For long work.
    ///
    /// Connections that have output are woken only when the guard is dropped.
    pub fn yield_lock(&mut self) {
        if self.shared.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut touched = std::mem::take(&mut self.touched);
        let (purpose, waited, held) = (self.purpose, self.waited, self.watch.elapsed());
        let state = self.state_mut();
        state.broker.take_touched(&mut touched);
        state.stats.add(purpose, waited, held);
        self.touched = touched;
        self.state = None;
        let arrived = Stopwatch::start();
        // A thread that sleeps needs time to wake up. Without this loop, this thread would take the
        // lock again before it.
        while self.shared.waiting.load(Ordering::Relaxed) > 0 && arrived.elapsed() < MAX_YIELD {
            std::thread::yield_now();
        }
        let (state, watch) = self.shared.lock_state(arrived);
        self.now = self.shared.clock.at(watch);
        (self.waited, self.watch) = (watch.since(arrived), watch);
        self.state = Some(state);
    }

    /// Returns how long the lock was held and waited for so far, without this guard.
    pub fn lock_stats(&self) -> LockStats {
        let state = self.state.as_ref();
        state.map_or_else(LockStats::default, |state| state.stats.clone())
    }

    /// Returns for how long the committer has worked on its batch. `None` if it has none.
    pub fn commit_under_way(&self) -> Option<Duration> {
        let state = self.state.as_ref()?;
        state.commit_started.map(|started| started.elapsed())
    }

    /// Sets the task that is woken for a connection, and for what.
    pub fn set_waker(&mut self, id: ConnectionId, waker: &Waker, wake_on: WakeOn) {
        let tasks = &mut self.state_mut().tasks;
        let at = id.0 as usize;
        if tasks.len() <= at {
            tasks.resize_with(at + 1, || None);
        }
        match &mut tasks[at] {
            Some(known) if known.waker.will_wake(waker) => known.wake_on = wake_on,
            entry => {
                let waker = waker.clone();
                *entry = Some(WaitingTask { waker, wake_on });
            }
        }
    }

    /// Removes the waker of a connection that is lost. A waker keeps all memory of its task.
    pub fn forget_waker(&mut self, id: ConnectionId) {
        if let Some(entry) = self.state_mut().tasks.get_mut(id.0 as usize) {
            *entry = None;
        }
    }

    /// Sets how many bytes of a partial packet a connection holds. Closes connections that must make
    /// room for it. See [`PartialPackets::set_size`].
    pub fn set_partial_size(
        &mut self,
        entry: &mut PartialEntry,
        id: ConnectionId,
        bytes: usize,
        connected: bool,
        is_new: bool,
    ) {
        let now = self.now;
        let state = self.state_mut();
        for shed in state
            .partial_packets
            .set_size(entry, id, bytes, connected, is_new)
        {
            state.broker.shed(shed, now);
        }
    }

    fn state_mut(&mut self) -> &mut State {
        self.state
            .as_mut()
            .expect("the state is there until this is dropped")
    }
}

impl Drop for BrokerGuard<'_> {
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
        let is_woken = |id: &ConnectionId| Some(*id) != own || state.broker.has_more(*id);
        for id in touched.drain(..).filter(is_woken) {
            let Some(task) = state.tasks.get_mut(id.0 as usize) else {
                continue;
            };
            let is_ready = |task: &mut WaitingTask| {
                task.wake_on == WakeOn::Output
                    || state.broker.is_closing(id)
                    || state.broker.is_yielding(id)
                    || state.broker.asks_progress(id)
            };
            wake.extend(task.take_if(is_ready).map(|task| task.waker));
        }
        state.touched = touched;
        let fetches = state.broker.take_fetches();
        let commit = !state.committing && state.broker.wants_commit(now);
        let is_earlier = state.broker.next_timeout() < state.next_tick;
        if is_earlier {
            state.next_tick = 0;
        }
        let held = self.watch.elapsed();
        state.stats.add(self.purpose, self.waited, held);
        drop(guard);
        if held > LONG_HOLD {
            let (visit, connection) = (self.purpose.name(), own.map(|id| id.0));
            tracing::debug!(visit, ?held, connection, "the broker was held for long");
        }
        for fetch in fetches {
            // The reader is gone only when the process ends.
            let _ = self.shared.fetches.send(fetch);
        }
        if commit && let Some(committer) = self.shared.committer.get() {
            committer.notify();
        }
        if is_earlier {
            self.shared.earlier_timeout.notify_one();
        }
        if wake.len() > MAX_WOKEN_AT_ONCE {
            let queue = self.shared.wake_queue.lock();
            let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
            queue.extend(wake.drain(MAX_WOKEN_AT_ONCE..));
            self.shared.wake_queued.notify_one();
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

    fn shared_broker() -> Arc<SharedBroker> {
        let clock = Clock::start();
        let broker = Broker::new(Settings::default(), Chance::fixed(7), clock.now());
        SharedBroker::new(broker, clock).0
    }

    /// The value of one metric.
    fn metric(broker: &SharedBroker, name: &str) -> f64 {
        let mut text = String::new();
        broker
            .lock(Purpose::Other, None)
            .lock_stats()
            .render(&mut text);
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {text}"));
        line.trim().parse().expect("a number")
    }

    #[test]
    fn time_with_the_lock_is_counted_by_purpose_and_the_wait_for_it_is_too() {
        let broker = shared_broker();
        let long = Duration::from_millis(30);
        let guard = broker.lock(Purpose::Tick, None);
        std::thread::scope(|scope| {
            scope.spawn(|| drop(broker.lock(Purpose::Lost, None)));
            std::thread::sleep(long);
            drop(guard);
        });
        let held = metric(&broker, "tidegate_core_held_seconds_sum{visit=\"tick\"}");
        assert!(held >= long.as_secs_f64(), "{held}");
        let longest = metric(
            &broker,
            "tidegate_core_held_longest_seconds{visit=\"tick\"}",
        );
        assert_eq!(longest, held);
        assert_eq!(
            metric(&broker, "tidegate_core_held_seconds_count{visit=\"lost\"}"),
            1.0
        );
        let other = metric(&broker, "tidegate_core_held_seconds_sum{visit=\"lost\"}");
        assert!(other < held, "{other}: the wait is not counted as held");
        // The other thread had enough time to reach the lock.
        let waited = metric(&broker, "tidegate_core_waited_longest_seconds");
        assert!(waited > 0.0 && waited < 2.0 * held, "{waited}");
    }

    #[test]
    fn a_lost_connection_keeps_no_task_in_memory() {
        let broker = shared_broker();
        let task = Arc::new(Count::default());
        let mut guard = broker.lock(Purpose::Other, None);
        let now = guard.now();
        let arrival = Arrival::from(Access::default());
        let id = guard.broker().accept(arrival, now);
        let id = id.expect("there is room");
        guard.set_waker(id, &Waker::from(Arc::clone(&task)), WakeOn::Output);
        assert_eq!(Arc::strong_count(&task), 2);
        guard.broker().lost(id, now);
        guard.forget_waker(id);
        drop(guard);
        assert_eq!(Arc::strong_count(&task), 1);
        assert_eq!(task.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn many_connections_are_woken_some_at_a_time() {
        let broker = shared_broker();
        let connections = 2 * MAX_WOKEN_AT_ONCE + 10;
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut guard = broker.lock(Purpose::Other, None);
        let now = guard.now();
        for _ in 0..connections {
            let arrival = Arrival::from(Access::default());
            let id = guard.broker().accept(arrival, now).expect("there is room");
            guard.set_waker(id, &waker, WakeOn::Output);
        }
        drop(guard);
        let count = || woken.0.load(Ordering::Relaxed);
        assert_eq!(count(), 0);
        broker.lock(Purpose::Other, None).broker().shut_down(now);
        assert_eq!(count(), MAX_WOKEN_AT_ONCE);
        let mut waking = pin!(broker.run_wake_queue());
        for expected in [2 * MAX_WOKEN_AT_ONCE, connections, connections] {
            let polled = waking
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            assert_eq!(count(), expected);
        }
        // Then what is queued next is woken.
        broker.wake_queue.lock().expect("whole").extend([waker]);
        broker.wake_queued.notify_one();
        let polled = waking
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        assert_eq!(count(), connections + 1);
    }
}
