//! `tidegate bench`: loads this broker or any other and tells what that took.

mod histogram;
mod meter;
mod outcome;
mod process;
mod rig;
mod scenario;
mod table;

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::{ArgAction, Args};

use super::exit::{self, Failure};
use super::options::{protocol_version, qos};
use crate::config::DEFAULT_PORT;
use crate::wire::{ProtocolVersion, QoS};
use rig::STAMP_BYTES;
use scenario::{Load, Scenario, Target};

/// The flags of `tidegate bench`.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub struct BenchFlags {
    /// What to measure, one after the other
    #[arg(value_name = "SCENARIO", required = true)]
    scenarios: Vec<Scenario>,
    /// Host of the broker
    #[arg(short = 'h', long, default_value = "127.0.0.1")]
    host: String,
    /// Port of the broker
    #[arg(short, long, default_value_t = DEFAULT_PORT)]
    port: u16,
    /// Process of the broker, to tell its processor time, memory and disk writes
    #[arg(long)]
    pid: Option<u32>,
    #[command(flatten)]
    load: LoadFlags,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Args, Clone, Debug)]
struct LoadFlags {
    /// Protocol version: 31, 311 or 5
    #[arg(short = 'V', long, value_name = "VERSION", value_parser = protocol_version, default_value = "311")]
    protocol_version: ProtocolVersion,
    /// QoS of messages and subscriptions [default: 0; durable: 1]
    #[arg(short, long, value_parser = qos)]
    qos: Option<QoS>,
    /// Bytes of payload [default: 64; durable: 256]
    #[arg(short, long, value_parser = payload_size)]
    size: Option<usize>,
    /// Pairs, publishers of a fan-in, subscribers of a fan-out [default: as the scenario says]
    #[arg(short, long, value_parser = count)]
    clients: Option<usize>,
    /// Messages on their way at once from each publisher
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    window: u32,
    /// Messages a second in all, each sent at its time; without it the next is sent when an earlier one has arrived
    #[arg(short, long, value_parser = rate)]
    rate: Option<f64>,
    /// Seconds to measure
    #[arg(short, long, default_value = "5", value_parser = seconds)]
    duration: Duration,
    /// Seconds of load before
    #[arg(long, default_value = "1", value_parser = seconds)]
    warm_up: Duration,
    /// Topics of each publisher
    #[arg(short, long, default_value = "1", value_parser = count)]
    topics: usize,
}

/// Runs the scenarios.
///
/// # Errors
/// A broker cannot be reached or breaks the protocol, or messages were lost, repeated or out of order.
pub fn run(flags: BenchFlags) -> Result<(), Failure> {
    let target = Target {
        addr: resolve(&flags.host, flags.port)?,
        pid: flags.pid,
    };
    let load = flags.load.load();
    let mut wrong = Vec::new();
    for scenario in &flags.scenarios {
        let outcome = scenario.run(&target, &load)?;
        print!("{}", table::outcome(&outcome));
        if !outcome.is_clean() {
            wrong.push(outcome.name);
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(
            exit::FAILED,
            format!("messages went wrong in {}", wrong.join(", ")),
        )),
    }
}

impl LoadFlags {
    fn load(self) -> Load {
        Load {
            version: self.protocol_version,
            qos: self.qos,
            size: self.size,
            clients: self.clients,
            window: self.window,
            rate: self.rate,
            duration: self.duration,
            warm_up: self.warm_up,
            topics: self.topics,
        }
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let failed = |what: String| Failure::new(exit::FAILED, format!("{host}: {what}"));
    let mut addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| failed(error.to_string()))?;
    addresses
        .next()
        .ok_or_else(|| failed("it has no address".to_owned()))
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("expected 1 to 1000000".to_owned()),
    }
}

fn payload_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size @ STAMP_BYTES..=10_000_000) => Ok(size),
        _ => Err(format!(
            "expected {STAMP_BYTES} (number and time of the message) to 10000000"
        )),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e8).contains(&rate) => Ok(rate),
        _ => Err("expected messages a second".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected seconds".to_owned()),
    }
}
