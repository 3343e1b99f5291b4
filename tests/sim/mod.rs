//! The simulator: the real broker and the real store, record layouts included, over a simulated disk and simulated connections, in virtual time,
//! with reference clients, and with crashes, power cuts, cuts and faults at any moment. One seed decides everything.
//!
//! - `plan`: what a seed decides before a run begins.
//! - `world`: the events of a run; `link`: a connection; `process`: the broker process; `crash`: how it dies; `disk`: what is left then.
//! - `client`, `receive`: a client that keeps the rules; `breaker`: one that does not.
//! - `history`: what clients did and saw; `expected`: what must become of sessions and wills; `check`: one function a promise; `finish`.
//!
//! | to | command |
//! |---|---|
//! | run the seeds of CI | `cargo test --lib sim` |
//! | run any number | `TIDEGATE_SIM_SEEDS=100000 TIDEGATE_SIM_FROM=1 cargo test --release --lib sim::tests::many -- --nocapture` |
//! | replay one, told line by line | `TIDEGATE_SIM_SEED=7 TIDEGATE_SIM_TRACE=1 cargo test --lib sim::tests::one -- --nocapture` |
//! | the same with an arrow of the gate open | `TIDEGATE_SIM_ARROW=PubRec` before that |

mod breaker;
mod brief;
mod check;
mod client;
mod crash;
mod disk;
mod expected;
mod finish;
mod history;
mod link;
mod plan;
mod process;
mod receive;
mod rng;
mod tests;
mod trace;
mod world;

use crate::broker::Arrow;
use plan::Plan;
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

/// Runs one seed. `arrow` is an arrow of the gate to open.
pub fn run(seed: u64, arrow: Option<Arrow>, print: bool) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, Plan::new(seed), print, arrow);
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
