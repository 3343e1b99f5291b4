//! SIGKILL under load: the built broker is killed at random moments and restarted on its data,
//! while independent clients publish, subscribe, reconnect and resend as the standard demands. At
//! the end everything is delivered, and then it is counted.
//!
//! - `TIDEGATE_CRASH_ROUNDS`: how often it is killed; 10 if it is not set.
//! - `TIDEGATE_CRASH_SEED`: the seed of the load and of the moments. A load over real sockets does
//!   not repeat exactly; the seed repeats its shape.

mod backlog;
mod check;
mod clock;
mod damage;
mod export;
mod fan_out;
mod publisher;
mod recovery;
mod space;
mod subscriber;
mod world;

use std::time::{Duration, Instant};

use support::{Broker, Random, Version, number};

use check::Injected;
use world::World;

/// How long the clients may take at the end to deliver what is left.
const DRAIN: Duration = Duration::from_secs(120);

#[test]
fn a_message_for_thousands_reaches_each_once_though_the_broker_is_killed_while_it_is_handed_out() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let payloads: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    fan_out::begin(broker.addr());
    let publisher = fan_out::publish(broker.addr(), &payloads);
    broker.kill();
    drop(publisher);
    broker.start_again();
    let kept = fan_out::take_in(broker.addr(), &payloads);
    assert!(kept >= 1, "one was acknowledged");
}

#[test]
fn nothing_acknowledged_is_lost_duplicated_or_reordered_by_sigkill() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let rounds = number("TIDEGATE_CRASH_ROUNDS", 10);
    let seed = number("TIDEGATE_CRASH_SEED", 1);
    println!("seed {seed}, {rounds} rounds");
    let mut random = Random::new(seed);
    let world = World::new(broker.addr());
    let subscribers = [
        subscriber::start(&world, "durable-5", Version::V5, true, random.bits()),
        subscriber::start(&world, "durable-311", Version::V311, true, random.bits()),
        subscriber::start(&world, "durable-31", Version::V31, true, random.bits()),
        subscriber::start(&world, "clean-5", Version::V5, false, random.bits()),
    ];
    world.wait_until_subscribed(3);
    let publishers = [
        publisher::start(&world, 0, Version::V5, 1, 20, random.bits()),
        publisher::start(&world, 1, Version::V5, 2, 20, random.bits()),
        publisher::start(&world, 2, Version::V311, 2, 1, random.bits()),
        publisher::start(&world, 3, Version::V311, 1, 5, random.bits()),
        publisher::start(&world, 4, Version::V31, 2, 10, random.bits()),
    ];
    let mut injected = Injected::default();
    for round in 0..rounds {
        // Between a moment and a second: during recovery and the reconnections, or in the middle of
        // the load.
        let load = Duration::from_millis(match random.below(4) {
            0 => random.below(30),
            _ => 100 + random.below(900),
        });
        std::thread::sleep(load);
        broker.kill();
        injected.kills += 1;
        let start = Instant::now();
        broker.start_again();
        injected.slowest_start = injected.slowest_start.max(start.elapsed());
        world.moved_to(broker.addr());
        world.check_alive();
        println!("round {round}: killed after {load:?}");
    }
    std::thread::sleep(Duration::from_millis(500));
    world.finish_publishing();
    let sent: Vec<_> = publishers
        .into_iter()
        .map(|publisher| publisher.join().expect("a publisher does not fail"))
        .collect();
    world.drain(&sent, DRAIN);
    world.finish();
    let received: Vec<_> = subscribers
        .into_iter()
        .map(|subscriber| subscriber.join().expect("a subscriber does not fail"))
        .collect();
    let retained = check::read_retained(broker.addr(), &sent);
    check::check(&injected, &sent, &received, &retained);
}
