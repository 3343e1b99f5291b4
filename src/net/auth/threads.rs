//! The threads that hash passwords. Hashing is slow on purpose; here it takes only what is left of the processor by those that serve connections.

use std::io;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How much less than other threads those that hash get of a busy processor (nice value): about a third. With less, logins would take for ever on a
/// machine that is busy with something else.
const NICE: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// A number of threads, and their turns: who waits for one and goes away leaves nothing behind.
#[derive(Debug)]
pub struct HashThreads {
    jobs: Sender<Job>,
    permits: Arc<Semaphore>,
}

/// The right to use one of the threads.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

impl HashThreads {
    /// As many as there are cores but one; they end when this is dropped.
    ///
    /// # Errors
    /// The operating system gives no threads.
    pub fn start() -> io::Result<HashThreads> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let count = cores.saturating_sub(1).max(1);
        let (jobs, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..count {
            let receiver = Arc::clone(&receiver);
            let thread = std::thread::Builder::new().name("hash".to_owned());
            thread.spawn(move || work(&receiver))?;
        }
        let permits = Arc::new(Semaphore::new(count));
        Ok(HashThreads { jobs, permits })
    }

    /// Waits for a turn, in the order of asking.
    pub async fn acquire(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        Some(Permit { _permit: permit })
    }

    /// Does the work on a thread; the turn comes back with the result. It is over only when the work is done, even if nobody waits for it any more.
    /// `None` if the work panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        permit: Permit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<(T, Permit)> {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let done = work();
            // Whoever asked may be gone.
            let _ = answer.send((done, permit));
        };
        self.jobs.send(Box::new(job)).ok()?;
        answered.await.ok()
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    // On Linux a nice value is a thread's own; elsewhere it would be that of the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "the threads that hash passwords have the same priority as all others");
    }
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_are_limited_and_returned() {
        let threads = HashThreads::start().expect("threads");
        let count = threads.permits.available_permits();
        let mut permits = Vec::new();
        for _ in 0..count {
            permits.push(threads.acquire().await.expect("a permit"));
        }
        // Who gives up waiting leaves nothing behind.
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(1), threads.acquire());
        assert!(waiting.await.is_err());
        let permit = permits.pop().expect("one");
        let (sum, permit) = threads.run(permit, || 2 + 2).await.expect("done");
        assert_eq!((sum, threads.permits.available_permits()), (4, 0));
        drop((permit, permits));
        assert_eq!(threads.permits.available_permits(), count);
    }
}
