//! The thread that commits batches.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Store, StoreError};
use crate::broker::record::{Batch, BatchId};

/// How far a batch has come.
#[derive(Debug)]
pub enum Progress {
    /// The operating system has all of it: it survives the process.
    Written(BatchId),
    /// It is on disk: it survives a power cut.
    Durable(BatchId),
    /// It could not be committed. Nothing more will be: the process should end with this error,
    /// since memory may be ahead of disk.
    Failed(StoreError),
}

/// The thread "committer", which takes batches one after the other. While one commits, the next can
/// be gathered.
#[derive(Debug)]
pub struct Committer {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

/// What wakes the thread.
#[derive(Debug, Default)]
struct Bell {
    state: Mutex<Rung>,
    wake: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rung {
    notified: bool,
    stopping: bool,
}

impl Committer {
    /// Starts the thread. `next` hands over the open batch, or `None` if it is empty; `done` is
    /// told how it went. Both run on the thread. It waits `commit_delay` before it asks for a
    /// batch, so that more of them gather where writing wears flash.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn spawn(
        store: Arc<Store>,
        next: impl FnMut() -> Option<Batch> + Send + 'static,
        done: impl FnMut(Progress) + Send + 'static,
        commit_delay: Duration,
    ) -> io::Result<Committer> {
        let bell = Arc::new(Bell::default());
        let heard = bell.clone();
        let thread = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || run(&store, &heard, next, done, commit_delay))?;
        Ok(Committer {
            bell,
            thread: Some(thread),
        })
    }

    /// Says that there is a batch to commit. Cheap, and never lost: a batch that was there before
    /// this call will be asked for after it.
    pub fn notify(&self) {
        self.notifier().notify();
    }

    /// What other threads notify with.
    pub fn notifier(&self) -> Notifier {
        Notifier(self.bell.clone())
    }

    /// Commits what there is, until `next` has nothing left, and ends the thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.bell.lock().stopping = true;
        self.bell.wake.notify_one();
        // A panic of the thread has been printed already.
        let _ = thread.join();
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Wakes a [`Committer`]; can be cloned and sent anywhere.
#[derive(Clone, Debug)]
pub struct Notifier(Arc<Bell>);

impl Notifier {
    /// As [`Committer::notify`].
    pub fn notify(&self) {
        let mut state = self.0.lock();
        if !state.notified {
            state.notified = true;
            drop(state);
            self.0.wake.notify_one();
        }
    }
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until notified or stopped. Whether it is to stop.
    fn wait(&self) -> bool {
        let mut state = self
            .wake
            .wait_while(self.lock(), |state| !state.notified && !state.stopping)
            .unwrap_or_else(PoisonError::into_inner);
        state.notified = false;
        state.stopping
    }

    /// Sleeps for `delay`, unless it is to stop.
    fn gather(&self, delay: Duration) {
        if delay > Duration::ZERO {
            let _ = self
                .wake
                .wait_timeout_while(self.lock(), delay, |state| !state.stopping);
        }
    }
}

fn run(
    store: &Store,
    bell: &Bell,
    mut next: impl FnMut() -> Option<Batch>,
    done: impl FnMut(Progress),
    delay: Duration,
) {
    let done = RefCell::new(done);
    let tell = |progress| (done.borrow_mut())(progress);
    loop {
        let stopping = bell.wait();
        bell.gather(delay);
        while let Some(batch) = next() {
            match store.apply(&batch, &|| tell(Progress::Written(batch.id))) {
                Ok(_) => tell(Progress::Durable(batch.id)),
                Err(error) => return tell(Progress::Failed(error)),
            }
            bell.gather(delay);
        }
        if stopping {
            return;
        }
    }
}
