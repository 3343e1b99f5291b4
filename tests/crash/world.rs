//! What all threads of the load share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use support::Version;

use crate::publisher::Sent;

/// The state of the load. Threads look at it between packets.
pub struct World {
    addr: Mutex<SocketAddr>,
    publishing: AtomicBool,
    running: AtomicBool,
    failed: AtomicBool,
    subscribed: AtomicU64,
    /// How many messages of each publisher each durable subscriber has seen, first occurrences
    /// only.
    seen: Mutex<HashMap<(&'static str, usize), u64>>,
}

impl World {
    /// A load that has not begun, against a broker that listens here.
    pub fn new(addr: SocketAddr) -> Arc<World> {
        Arc::new(World {
            addr: Mutex::new(addr),
            publishing: AtomicBool::new(true),
            running: AtomicBool::new(true),
            failed: AtomicBool::new(false),
            subscribed: AtomicU64::new(0),
            seen: Mutex::default(),
        })
    }

    /// Where the broker listens now.
    pub fn addr(&self) -> SocketAddr {
        *lock(&self.addr)
    }

    /// The broker has been restarted and listens here.
    pub fn moved_to(&self, addr: SocketAddr) {
        *lock(&self.addr) = addr;
    }

    /// Whether publishers go on with new messages.
    pub fn is_publishing(&self) -> bool {
        self.publishing.load(Ordering::SeqCst)
    }

    /// Publishers complete what they have begun and end.
    pub fn finish_publishing(&self) {
        self.publishing.store(false, Ordering::SeqCst);
    }

    /// Whether subscribers go on.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    /// Subscribers end.
    pub fn finish(&self) {
        self.running.store(false, Ordering::SeqCst);
    }

    /// A durable subscriber has its SUBACK.
    pub fn subscribed(&self) {
        self.subscribed.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until this many durable subscribers have their SUBACK.
    pub fn wait_until_subscribed(&self, count: u64) {
        let deadline = Instant::now() + support::TIMEOUT;
        while self.subscribed.load(Ordering::SeqCst) < count {
            assert!(
                Instant::now() < deadline,
                "the subscribers do not subscribe"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A subscriber has seen a message of a publisher for the first time.
    pub fn saw(&self, subscriber: &'static str, publisher: usize) {
        *lock(&self.seen).entry((subscriber, publisher)).or_default() += 1;
    }

    /// A thread has found something that must not be.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Fails if a thread has.
    pub fn check_alive(&self) {
        let failed = self.failed.load(Ordering::SeqCst);
        assert!(!failed, "a client failed; its message is above");
    }

    /// Waits until every durable subscriber has seen all that was acknowledged, or nothing more
    /// comes.
    pub fn drain(&self, sent: &[Sent], timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut last = (0, Instant::now());
        while Instant::now() < deadline {
            self.check_alive();
            let seen = lock(&self.seen).clone();
            let complete = crate::subscriber::DURABLE.iter().all(|&subscriber| {
                sent.iter().all(|sent| {
                    let count = seen.get(&(subscriber, sent.publisher)).copied();
                    count.unwrap_or(0) >= sent.acknowledged
                })
            });
            let total: u64 = seen.values().sum();
            if total > last.0 {
                last = (total, Instant::now());
            }
            // What is complete is given a moment more, in which a duplicate would show.
            let quiet = last.1.elapsed();
            if complete && quiet > Duration::from_secs(1) || quiet > Duration::from_secs(10) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this")
}

/// A session that outlives connections, in the words of each version.
pub fn durable(version: Version, id: &str) -> support::Connect {
    support::Connect::durable(version, id)
}
