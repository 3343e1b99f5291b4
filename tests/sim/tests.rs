//! The tests that run the simulator.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lie::Lie;
use super::trace::Telling;
use super::{Failure, Planted, Report, run};
use crate::broker::Arrow;
use crate::clock::Stopwatch;

/// Seeds that CI runs.
const SEEDS: u64 = 300;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed; a panic of the broker or the store is a failure like any other.
fn attempt(seed: u64, planted: Planted) -> Result<Report, Box<Failure>> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, planted, Telling::Nothing)));
    outcome.unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Box::new(Failure {
            seed,
            promise: "nothing panics",
            what: what.unwrap_or("a panic").to_owned(),
            tail: String::new(),
        }))
    })
}

/// Tells a failure; `tail` is the last lines of its trace.
fn tell(failure: &Failure, tail: &str) -> String {
    format!(
        "seed {}: \"{}\" is broken: {}\n{}replay it: TIDEGATE_SIM_SEED={} TIDEGATE_SIM_TRACE=1 cargo test --lib sim::tests::one -- --nocapture",
        failure.seed, failure.promise, failure.what, tail, failure.seed
    )
}

/// As many as there are cores, unless another number is asked for.
fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let asked = setting("TIDEGATE_SIM_THREADS").map(|threads| threads as usize);
    asked.unwrap_or(cores).max(1)
}

/// Runs seeds on all cores, or as many as asked for, telling failures as they come; the failures, by seed, and the sums of what was counted.
fn run_all(from: u64, seeds: u64) -> (Vec<Failure>, Sums) {
    let next = AtomicU64::new(from);
    let found = Mutex::new((Vec::new(), Sums::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let outcome = attempt(seed, Planted::Nothing);
                    let mut found = found.lock().unwrap();
                    match outcome {
                        Ok(report) => found.1.add(&report),
                        Err(failure) => {
                            println!(
                                "seed {}: {}: {}",
                                failure.seed, failure.promise, failure.what
                            );
                            found.0.push(*failure);
                        }
                    }
                }
            });
        }
    });
    let (mut failures, sums) = found.into_inner().unwrap();
    failures.sort_by_key(|failure| failure.seed);
    (failures, sums)
}

/// What all runs did together.
#[derive(Debug, Default)]
struct Sums {
    runs: u64,
    kills: u64,
    power_cuts: u64,
    failed_starts: u64,
    disk_faults: u64,
    cuts: u64,
    clocks_set: u64,
    published: u64,
    delivered: u64,
    commits: u64,
    read_last: u64,
    large: u64,
    slow: u64,
    given_up: u64,
}

impl Sums {
    fn add(&mut self, report: &Report) {
        let stats = &report.stats;
        self.runs += 1;
        self.kills += stats.kills;
        self.power_cuts += stats.power_cuts;
        self.failed_starts += stats.failed_starts;
        self.disk_faults += stats.disk_faults;
        self.cuts += stats.cuts;
        self.clocks_set += stats.clocks_set;
        self.published += stats.published;
        self.delivered += stats.delivered;
        self.commits += stats.commits;
        self.read_last += stats.read_last;
        self.large += stats.large;
        self.slow += stats.slow;
        self.given_up += stats.given_up;
    }
}

#[test]
fn many() {
    let seeds = setting("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let from = setting("TIDEGATE_SIM_FROM").unwrap_or(1);
    let watch = Stopwatch::start();
    let (failures, sums) = run_all(from, seeds);
    println!("{sums:?} in {:.1} s", watch.elapsed().as_secs_f64());
    if let Some(first) = failures.first() {
        // Once more, and this time it is told.
        let again = catch_unwind(|| run(first.seed, Planted::Nothing, Telling::Kept).err());
        let tail = again
            .ok()
            .flatten()
            .map_or_else(String::new, |again| again.tail);
        panic!(
            "{} of {seeds} seeds fail. {}",
            failures.len(),
            tell(first, &tail)
        );
    }
}

#[test]
fn one() {
    let seed = setting("TIDEGATE_SIM_SEED").unwrap_or(1);
    let telling = match setting("TIDEGATE_SIM_TRACE") {
        Some(1) => Telling::Printed,
        _ => Telling::Kept,
    };
    let named = |name| std::env::var(name).unwrap_or_default();
    let (arrow, lie) = (named("TIDEGATE_SIM_ARROW"), named("TIDEGATE_SIM_LIE"));
    let arrows = ARROWS
        .into_iter()
        .map(|one| (format!("{one:?}"), Planted::Open(one)));
    let lies = LIES
        .into_iter()
        .map(|(one, _)| (format!("{one:?}"), Planted::Told(one)));
    let planted = arrows
        .chain(lies)
        .find(|(name, _)| *name == arrow || *name == lie);
    let planted = planted.map_or(Planted::Nothing, |(_, planted)| planted);
    if let Err(failure) = run(seed, planted, telling) {
        panic!("{}", tell(&failure, &failure.tail));
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1..=12 {
        let traces = [(); 2].map(|()| {
            run(seed, Planted::Nothing, Telling::Kept).map(|report| (report.trace, report.lines))
        });
        match traces {
            [Ok(first), Ok(second)] => assert_eq!(first, second, "seed {seed}"),
            [Err(failure), _] | [_, Err(failure)] => panic!("{}", tell(&failure, &failure.tail)),
        }
    }
}

/// The arrows of the gate.
const ARROWS: [Arrow; 7] = [
    Arrow::PubAck,
    Arrow::PubRec,
    Arrow::PubRel,
    Arrow::PubComp,
    Arrow::Publish,
    Arrow::SubAck,
    Arrow::ConnAck,
];

/// What is wrong on purpose, and the promises whose checkers must each find out.
const LIES: [(Lie, &[&str]); 31] = [
    (
        Lie::Astray,
        &["QoS 1: at least once", "what is dropped is counted"],
    ),
    (Lie::AstrayToGroup, &["a shared group loses none"]),
    (Lie::NotRetained, &["retained equals last"]),
    (Lie::NoWill, &["a will is published once or never"]),
    (Lie::LeaveWithWill, &["a will is published once or never"]),
    (
        Lie::NoLeaveExpiry,
        &["sessions are kept and expire on time"],
    ),
    (Lie::NoReceiveMaximum, &["windows and limits are respected"]),
    (Lie::NoSubscriptionId, &["subscription identifiers"]),
    (Lie::OtherFilter, &["only to subscribers"]),
    (Lie::LostPubAck, &["memory returns to zero"]),
    (Lie::LostPubRec, &["everything is delivered in the end"]),
    (Lie::OtherPubRel, &["exchanges follow the standard"]),
    (
        Lie::LostConnect,
        &["a client that keeps the rules is let in"],
    ),
    (
        Lie::SecondConnect,
        &["a client that keeps the rules is not disconnected"],
    ),
    (Lie::Swapped, &["order per topic"]),
    (Lie::Garbled, &["the broker sends packets"]),
    (Lie::OtherPayload, &["payloads come as published"]),
    (
        Lie::NoMaximumPacketSize,
        &["windows and limits are respected"],
    ),
    (Lie::UnwrittenReceived, &["QoS 2: exactly once"]),
    (Lie::OtherGroup, &["a shared group delivers to one member"]),
    (Lie::UnremovedDelivery, &["the store holds what is needed"]),
    (Lie::ForgottenReplay, &["retained: at least once"]),
    (
        Lie::LoweredRetained,
        &["retained: as published and granted"],
    ),
    (
        Lie::LoweredDelivery,
        &["a shared group delivers as published and granted"],
    ),
    (
        Lie::NotRetainedDelivery,
        &["a shared group delivers as published and granted"],
    ),
    (
        Lie::StoppedClock,
        &[
            "nothing expired is sent",
            "sessions are kept and expire on time",
        ],
    ),
    (
        Lie::TrustedClock,
        &["broker time never goes back, and a wrong clock does not move it"],
    ),
    (Lie::Unsynced, &["the store opens after any crash"]),
    (Lie::Miscounted, &["memory is accounted for"]),
    (
        Lie::UnheardParts,
        &["a client that says something in time is not given up"],
    ),
    (
        Lie::UnseenProgress,
        &["a client that takes something in time is not given up"],
    ),
];
/// How many seeds it takes at most to find out.
const FOUND_WITHIN: u64 = 1000;

/// Looks for a seed that shows what was planted, as the promise named, or as any.
fn find_out(planted: Planted, promise: Option<&str>) -> bool {
    let failures = (1..=FOUND_WITHIN).filter_map(|seed| attempt(seed, planted).err());
    let mut found =
        failures.filter(|failure| promise.is_none_or(|promise| failure.promise == promise));
    let first = found.next();
    if let Some(failure) = &first {
        println!(
            "{planted:?}: seed {}: {}: {}",
            failure.seed, failure.promise, failure.what
        );
    }
    first.is_some()
}

/// What was planted, and by which promise it should have been found out, that nobody noticed.
fn unnoticed(planted: &[(Planted, Option<&'static str>)]) -> Vec<(Planted, Option<&'static str>)> {
    let next = AtomicU64::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                while let Some(one) = planted.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    if !find_out(one.0, one.1) {
                        missed.lock().unwrap().push(*one);
                    }
                }
            });
        }
    });
    missed.into_inner().unwrap()
}

#[test]
fn an_open_arrow_is_found_out() {
    assert_eq!(
        unnoticed(&ARROWS.map(|arrow| (Planted::Open(arrow), None))),
        []
    );
}

#[test]
fn every_checker_finds_out_a_lie() {
    let lies = LIES.iter().flat_map(|(lie, promises)| {
        let planted = Planted::Told(*lie);
        promises
            .iter()
            .map(move |promise| (planted, Some(*promise)))
    });
    assert_eq!(unnoticed(&lies.collect::<Vec<_>>()), []);
}
