//! The tests that run the simulator.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Failure, Report, run};
use crate::broker::Arrow;
use crate::clock::Stopwatch;

/// Seeds that CI runs.
const SEEDS: u64 = 300;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed; a panic of the broker or the store is a failure like any other.
fn attempt(seed: u64, arrow: Option<Arrow>) -> Result<Report, Box<Failure>> {
    catch_unwind(AssertUnwindSafe(|| run(seed, arrow, false))).unwrap_or_else(|panic| {
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

fn tell(failure: &Failure) -> String {
    format!(
        "seed {}: \"{}\" is broken: {}\n{}replay it: TIDEGATE_SIM_SEED={} TIDEGATE_SIM_TRACE=1 cargo test --lib sim::tests::one -- --nocapture",
        failure.seed, failure.promise, failure.what, failure.tail, failure.seed
    )
}

/// Runs seeds on all cores; the failures, by seed, and the sums of what was counted.
fn run_all(from: u64, seeds: u64) -> (Vec<Failure>, Sums) {
    let next = AtomicU64::new(from);
    let found = Mutex::new((Vec::new(), Sums::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let outcome = attempt(seed, None);
                    let mut found = found.lock().unwrap();
                    match outcome {
                        Ok(report) => found.1.add(&report),
                        Err(failure) => found.0.push(*failure),
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
    published: u64,
    delivered: u64,
    commits: u64,
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
        self.published += stats.published;
        self.delivered += stats.delivered;
        self.commits += stats.commits;
    }
}

#[test]
fn many() {
    let seeds = setting("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let from = setting("TIDEGATE_SIM_FROM").unwrap_or(1);
    let watch = Stopwatch::start();
    let (failures, sums) = run_all(from, seeds);
    println!("{sums:?} in {:.1} s", watch.elapsed().as_secs_f64());
    for failure in &failures {
        println!(
            "seed {}: {}: {}",
            failure.seed, failure.promise, failure.what
        );
    }
    if let Some(first) = failures.first() {
        panic!("{} of {seeds} seeds fail. {}", failures.len(), tell(first));
    }
}

#[test]
fn one() {
    let seed = setting("TIDEGATE_SIM_SEED").unwrap_or(1);
    let print = setting("TIDEGATE_SIM_TRACE") == Some(1);
    let named = std::env::var("TIDEGATE_SIM_ARROW").unwrap_or_default();
    let arrow = ARROWS
        .into_iter()
        .find(|arrow| format!("{arrow:?}") == named);
    if let Err(failure) = run(seed, arrow, print) {
        panic!("{}", tell(&failure));
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1..=12 {
        let traces =
            [(); 2].map(|()| run(seed, None, false).map(|report| (report.trace, report.lines)));
        match traces {
            [Ok(first), Ok(second)] => assert_eq!(first, second, "seed {seed}"),
            [Err(failure), _] | [_, Err(failure)] => panic!("{}", tell(&failure)),
        }
    }
}

/// The arrows of the gate, and how many seeds it takes at most to find out that one is open.
const ARROWS: [Arrow; 7] = [
    Arrow::PubAck,
    Arrow::PubRec,
    Arrow::PubRel,
    Arrow::PubComp,
    Arrow::Publish,
    Arrow::SubAck,
    Arrow::ConnAck,
];
const FOUND_WITHIN: u64 = 120;

#[test]
fn an_open_arrow_is_found_out() {
    let next = AtomicU64::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(arrow) = ARROWS.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let mut found =
                        (1..=FOUND_WITHIN).filter_map(|seed| attempt(seed, Some(*arrow)).err());
                    match found.next() {
                        Some(failure) => println!(
                            "{arrow:?} open: seed {}: {}: {}",
                            failure.seed, failure.promise, failure.what
                        ),
                        None => missed.lock().unwrap().push(*arrow),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(
        missed.is_empty(),
        "nobody noticed that these were open: {missed:?}"
    );
}
