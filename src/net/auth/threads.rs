//! Threads that hash passwords. Hashing is slow on purpose. These threads have a lower priority
//! than those that serve connections.

use std::io;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The nice value of these threads. On a busy processor they get about a third of the time of other
/// threads. With less, logins would take too long on a machine that is busy with other work.
const NICE: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// The threads, and a permit for each of them. A caller that stops waiting has no effect.
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
    /// Starts one thread less than there are cores, at least one. They end when this is dropped.
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

    /// Waits for a permit, in the order of the calls.
    pub async fn acquire(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        Some(Permit { _permit: permit })
    }

    /// Runs `work` on a thread. Returns its result and the permit. The permit stays in use until
    /// the work is done, even if the caller stops waiting. Returns `None` if the work panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        permit: Permit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<(T, Permit)> {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let done = work();
            // The caller may be gone.
            let _ = answer.send((done, permit));
        };
        self.jobs.send(Box::new(job)).ok()?;
        answered.await.ok()
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    // On Linux, a nice value belongs to a thread. On other systems it belongs to the process.
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
        // A caller that stops waiting has no effect.
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(1), threads.acquire());
        assert!(waiting.await.is_err());
        let permit = permits.pop().expect("one");
        let (sum, permit) = threads.run(permit, || 2 + 2).await.expect("done");
        assert_eq!((sum, threads.permits.available_permits()), (4, 0));
        drop((permit, permits));
        assert_eq!(threads.permits.available_permits(), count);
    }
}
