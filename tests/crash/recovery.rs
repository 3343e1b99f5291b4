//! SIGKILL while the broker opens what an earlier SIGKILL left, again and again.

use std::time::{Duration, Instant};

use support::{Broker, Random};

use crate::backlog::Backlog;
use crate::number;

#[test]
fn nothing_is_lost_by_sigkill_during_recovery() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let rounds = number("TIDEGATE_CRASH_ROUNDS", 10);
    let seed = number("TIDEGATE_CRASH_SEED", 1);
    let count = number("TIDEGATE_CRASH_BACKLOG", 20_000);
    let mut random = Random::new(seed);
    let mut backlog = Backlog::begin(broker.addr());
    assert_eq!(backlog.publish(broker.addr(), count), Some(0));
    broker.kill();
    let start = Instant::now();
    broker.start_again();
    let whole = start.elapsed();
    broker.kill();
    let mut before_ready = 0;
    for _ in 0..rounds {
        // Up to a little more than a start takes, so that most are hit before they are ready.
        let after = Duration::from_micros(random.below(whole.as_micros() as u64 * 11 / 10));
        before_ready += u64::from(!broker.kill_while_starting(after));
    }
    broker.start_again();
    let taken = backlog.take_in(broker.addr());
    println!(
        "injected: {rounds} SIGKILLs within {whole:?} after the start, {before_ready} of them before it was ready; {count} messages waited, \
         {taken} came, none was lost, out of order or (QoS 2) repeated"
    );
    assert!(before_ready * 2 >= rounds, "hardly any hit a recovery");
}
