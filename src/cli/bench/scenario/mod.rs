//! The scenarios.

mod connect;
mod durable;
mod listen;
mod outage;
mod probe;
mod restart;
mod retained;
mod soak;
mod spawned;
mod stall;
mod steady;
mod subscribe;

use super::model::{Load, Scenario, Target};
use super::outcome::Outcome;
use crate::cli::exit::Failure;

impl Scenario {
    /// Runs the scenario.
    ///
    /// # Errors
    /// Fails if the broker cannot be reached, violates the protocol, or closes a connection.
    pub fn run(self, target: &Target, load: &Load) -> Result<Outcome, Failure> {
        match self {
            Scenario::Conn | Scenario::Idle => connect::run(self, target, load),
            Scenario::Sub => listen::run(target, load),
            Scenario::Retained => retained::run(target, load),
            Scenario::Subscribe => subscribe::run(target, load),
            Scenario::Durable => durable::run(target, load),
            Scenario::Restart => restart::run(target, load),
            Scenario::Outage => outage::run(load),
            Scenario::Stall => stall::run(target, load),
            Scenario::Soak => soak::run(target, load),
            _ => steady::run(self, target, load),
        }
    }
}
