//! The fuzz targets under `cargo test`: seeded mutations of good inputs, for a bounded number of
//! rounds. No compiler but the stable one is needed.
//!
//! - `TIDEGATE_FUZZ_ROUNDS`: inputs for each target; 5,000 if it is not set.
//! - `TIDEGATE_FUZZ_SEED`: the seed; 1 if it is not set. The same seed makes the same inputs.
//! - `TIDEGATE_FUZZ_CORPUS`: a folder into which the inputs to begin with are written, a folder for
//!   each target, for libFuzzer.
//!
//! With libFuzzer: `tests/fuzz/README.md`.

mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{Random, number};
use targets::TARGETS;

/// Longest input, in bytes.
const LONGEST: usize = 4096;
/// Longest time for one input. Each takes microseconds.
const HANGS: Duration = Duration::from_secs(20);
/// Memory by which this process may grow, all targets together, in KiB.
const MOST_KIB: u64 = 256 * 1024;

#[test]
fn no_input_breaks_a_target() {
    let rounds = number("TIDEGATE_FUZZ_ROUNDS", 5000);
    let seed = number("TIDEGATE_FUZZ_SEED", 1);
    let current = Arc::new(Mutex::new((Instant::now(), String::new())));
    let watched = Arc::clone(&current);
    std::thread::spawn(move || watch(&watched));
    let before = peak_kib();
    for (name, target, seeds) in TARGETS {
        let seeds = seeds();
        let mut random = Random::new(seed);
        let start = Instant::now();
        for round in 0..rounds + seeds.len() as u64 {
            let input = match seeds.get(round as usize) {
                Some(seed) => seed.clone(),
                None => mutate(&seeds, &mut random),
            };
            let what = || format!("{name}, seed {seed}, round {round}: {}", hex(&input));
            if let Ok(mut current) = current.lock() {
                *current = (Instant::now(), String::new());
                if input.len() <= 64 {
                    current.1 = what();
                }
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
                println!("{}", what());
                resume_unwind(panic);
            }
        }
        println!(
            "{name}: {} seeds and {rounds} mutations in {:?}",
            seeds.len(),
            start.elapsed()
        );
    }
    let grown = peak_kib().saturating_sub(before);
    println!("memory grew by {grown} KiB");
    assert!(grown < MOST_KIB, "memory grew by {grown} KiB");
}

/// Ends the process when one input takes too long, and says which.
fn watch(current: &Mutex<(Instant, String)>) {
    loop {
        std::thread::sleep(Duration::from_millis(500));
        if let Ok(current) = current.lock()
            && current.0.elapsed() > HANGS
        {
            println!("an input takes too long: {}", current.1);
            std::process::abort();
        }
    }
}

/// The most memory this process has had; 0 where there is no /proc.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An input made of one or two seeds, with a few changes.
fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let pick = |random: &mut Random| &seeds[random.below(seeds.len() as u64) as usize];
    let mut input = pick(random).clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() as u64 + 1) as usize;
        let longest = 1 + random.below(16);
        let length = 1 + random.below(longest) as usize;
        let end = (at + length).min(input.len());
        match random.below(9) {
            0 if at < end => input[at] ^= 1 << random.below(8),
            1 if at < end => {
                input[at] = *[0, 1, 0x7f, 0x80, 0xff, b'/', b'+', b'#', b'\n']
                    .get(random.below(9) as usize)
                    .unwrap_or(&0)
            }
            2 if at < end => input[at] = input[at].wrapping_add(1 + random.below(3) as u8),
            3 => drop(input.drain(at..end)),
            4 => drop(input.splice(at..at, (0..length).map(|_| random.bits() as u8))),
            5 => {
                let part = input[at..end].to_vec();
                drop(input.splice(at..at, part));
            }
            6 => input.truncate(at),
            7 => {
                let other = pick(random);
                let from = random.below(other.len() as u64 + 1) as usize;
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let number = random.bits() as u32;
                let number = [number >> 24, number >> 16, 127, 128, 65_535][number as usize % 5];
                let bytes = number.to_be_bytes();
                let width = [1, 2, 4][random.below(3) as usize];
                let end = (at + width).min(input.len());
                drop(input.splice(at..end, bytes[4 - width..].iter().copied()));
            }
        }
    }
    input.truncate(LONGEST);
    input
}

#[test]
fn corpora_are_written_where_they_are_wanted() {
    let kept;
    let folder = match std::env::var_os("TIDEGATE_FUZZ_CORPUS") {
        Some(folder) => std::path::PathBuf::from(folder),
        None => {
            kept = tempfile::tempdir().expect("a folder");
            kept.path().to_owned()
        }
    };
    for (name, _, seeds) in TARGETS {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        for (number, seed) in seeds().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).expect("it can be written");
        }
        let count = std::fs::read_dir(&folder).expect("it is there").count();
        assert!(count >= seeds().len() && count > 0, "{name}");
    }
}
