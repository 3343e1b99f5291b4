//! A publisher and a subscriber that behave well, and how long their messages take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::{Connect, Message, Version};

/// The pair at work, on a thread of its own.
pub struct Pair {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

/// How long the pair's messages took, from PUBLISH to the subscriber.
#[derive(Debug)]
pub struct Latency {
    /// Messages.
    pub count: usize,
    /// 99 of 100 took at most this.
    pub p99: Duration,
    /// The slowest.
    pub worst: Duration,
}

impl Pair {
    /// Connects both and begins: a message of QoS 1 a millisecond, each when the last one has
    /// arrived and is acknowledged.
    pub fn start(addr: SocketAddr) -> Pair {
        let mut subscriber = Connect::new(Version::V5, "pair-subscriber").open(addr);
        subscriber.subscribe("pair/topic", 1);
        let mut publisher = Connect::new(Version::V5, "pair-publisher").open(addr);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let start = Instant::now();
                publisher.publish(&Message::new("pair/topic", took.len().to_string(), 1));
                let publish = subscriber.take();
                assert_eq!(publish.text(), took.len().to_string());
                took.push(start.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            took
        });
        Pair { stop, thread }
    }

    /// Ends it.
    pub fn stop(self) -> Latency {
        self.stop.store(true, Ordering::SeqCst);
        let mut took = self.thread.join().expect("the pair is served");
        took.sort();
        Latency {
            count: took.len(),
            p99: took[(took.len() * 99 / 100).min(took.len() - 1)],
            worst: took[took.len() - 1],
        }
    }
}
