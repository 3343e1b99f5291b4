//! Hostile peers, one attack after the other: the broker keeps to its memory, lives, and a pair of
//! clients that behave well is served meanwhile.
//!
//! - `TIDEGATE_HOSTILE_SCALE`: how much more of each attack; 1 if it is not set.
//!   `cargo test --release --test hostile -- --nocapture` with 10 prints the figures of the README:
//!   amount, peak memory of the broker, and the pair's latency.

mod attacks;
mod pair;
mod sessions;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use support::Broker;

use pair::Pair;

/// How long the pair may wait for one message at most. Far more than it takes, far less than
/// waiting for an attacker would: builds without optimisation on busy machines are tested, too.
const PATIENT: Duration = Duration::from_secs(3);

/// Limits that are small enough to be reached quickly, and so that their sum is far below what is
/// asserted.
const LIMITS: &str = "sys_interval = \"0s\"\n[store]\ncache_size = \"8MiB\"\n[limits]\nmax_incoming_bytes = \"16MB\"\n\
    max_outgoing_bytes = \"256KiB\"\nmax_outgoing_bytes_total = \"16MB\"\nmax_queued_memory_bytes = \"16MB\"\nmax_hot_bytes = \"4MB\"\nmax_pending_write_bytes = \"16MB\"\n";

/// One attack: its broker, and what may be asserted of it.
pub struct Attack {
    /// What is done.
    name: &'static str,
    /// More limits, as lines of the table `[limits]`.
    limits: &'static str,
    /// Memory the broker may have at its peak, in MB.
    most_mb: f64,
    /// Does it, this many times more than the least; says how much that was.
    run: fn(&Broker, u64) -> String,
}

/// Makes an attack, and checks what it did to the broker and to the pair.
pub fn make(attack: &Attack) {
    // One after the other: each has the machine, and its latencies, to itself.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(broker) = Broker::with(&format!("{LIMITS}{}", attack.limits)) else {
        return;
    };
    let scale = support::number("TIDEGATE_HOSTILE_SCALE", 1);
    let before = memory(&broker, "VmRSS:");
    let pair = Pair::start(broker.addr());
    let start = Instant::now();
    let amount = (attack.run)(&broker, scale);
    let took = start.elapsed();
    let latency = pair.stop();
    let peak = memory(&broker, "VmHWM:");
    println!(
        "| {} | {amount}, {:.1} s | {before:.0} to {peak:.0} MB | {:.2} ms | {:.1} ms |",
        attack.name,
        took.as_secs_f64(),
        latency.p99.as_secs_f64() * 1000.0,
        latency.worst.as_secs_f64() * 1000.0,
    );
    assert!(peak <= attack.most_mb, "{}: {peak:.0} MB", attack.name);
    assert!(latency.worst < PATIENT, "{}: {latency:?}", attack.name);
    assert!(latency.count > 3, "{}: {latency:?}", attack.name);
}

/// A figure of the broker's memory, in MB.
fn memory(broker: &Broker, name: &str) -> f64 {
    let path = format!("/proc/{}/status", broker.pid());
    let status = std::fs::read_to_string(path).expect("the broker lives");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<f64>().ok())
        .expect("/proc tells it")
        * 1024.0
        / 1e6
}
