//! The simulator: the real broker and the real store, record layouts included, over a simulated
//! disk and simulated connections, in virtual time, with reference clients, and with wall clocks
//! that jump, crashes, power cuts, cuts and faults at any moment. One seed decides everything.
//!
//! - `plan`: what a seed decides before a run begins.
//! - `world`: the events of a run; `link`: a connection; `process`: the broker process; `commit`:
//!   its committer and its store; `crash`: how it dies; `disk`: what is left then.
//! - `clocks`: the wall clock, which is not always right; `given_up`: slow links, and who is given
//!   up.
//! - `client`, `receive`: a client that keeps the rules; `breaker`: one that does not.
//! - `lie`: what is wrong on purpose, to show that each checker can fail.
//! - `history`: what clients did and saw; `expected`: what must become of sessions and wills;
//!   `check`: one function a promise; `replay`: what a SUBSCRIBE must be shown; `finish`.
//!
//! | to | command |
//! |---|---|
//! | run the seeds of CI | `cargo test --lib sim` |
//! | run any number | `TIDEGATE_SIM_SEEDS=100000 TIDEGATE_SIM_FROM=1 cargo test --release --lib sim::tests::many -- --nocapture` |
//! | the same on one core only | `TIDEGATE_SIM_THREADS=1` before that |
//! | replay one, told line by line | `TIDEGATE_SIM_SEED=7 TIDEGATE_SIM_TRACE=1 cargo test --lib sim::tests::one -- --nocapture` |
//! | the same with an arrow of the gate open, or with a lie | `TIDEGATE_SIM_ARROW=PubRec` or `TIDEGATE_SIM_LIE=LostPubAck` before that |

mod breaker;
mod brief;
mod check;
mod client;
mod clocks;
mod commit;
mod crash;
mod disk;
mod expected;
mod finish;
mod given_up;
mod history;
mod lie;
mod link;
mod plan;
mod process;
mod receive;
mod replay;
mod rng;
mod tests;
mod trace;
mod world;

use crate::broker::Arrow;
use lie::Lie;
use plan::Plan;
use trace::Telling;
use world::{Stats, World};

/// How a run went well.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// What all lines of its trace hash to.
    pub trace: u64,
    pub lines: u64,
    pub stats: Stats,
}

/// How a run went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub promise: &'static str,
    pub what: String,
    /// The last lines of its trace.
    pub tail: String,
}

/// What is wrong on purpose in a run, so that the checkers can show that they notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    Nothing,
    /// An arrow of the gate is open.
    Open(Arrow),
    Told(Lie),
}

/// Runs one seed.
pub fn run(seed: u64, planted: Planted, telling: Telling) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, Plan::new(seed), telling, planted);
    let outcome = world.run().and_then(|()| world.judge());
    match outcome {
        Ok(()) => Ok(Report {
            trace: world.trace.hash(),
            lines: world.trace.lines(),
            stats: world.stats,
        }),
        Err(violation) => Err(Box::new(Failure {
            seed,
            promise: violation.promise,
            what: violation.what,
            tail: world.trace.tail(),
        })),
    }
}
