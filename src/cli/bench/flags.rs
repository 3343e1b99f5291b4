//! The flags of `tidegate bench`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand, ValueEnum};

use super::generator::PAYLOAD_HEADER_BYTES;
use super::model::{Disturbance, Load, Scenario, Target};
use crate::cli::exit::{self, Failure};
use crate::cli::options::{protocol_version, qos, topic_filter};
use crate::cli::transport::LayerFlags;
use crate::config::parse_duration;
use crate::wire::{ProtocolVersion, QoS};

/// What to measure, and where.
#[derive(Args, Clone, Debug)]
#[command(
    disable_help_flag = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub struct BenchFlags {
    #[command(subcommand)]
    pub compare: Option<Compare>,
    /// What to measure, one after the other; a QoS may follow, as in pairs:1
    #[arg(value_name = "SCENARIO", required = true, value_parser = task, long_help = scenarios())]
    pub tasks: Vec<Task>,
    /// Host of the broker
    #[arg(short = 'h', long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the broker [default: 1883; with TLS 8883; WebSocket 8083, with TLS 8084]
    #[arg(short, long)]
    pub port: Option<u16>,
    /// Process of the broker, to tell its processor time, memory and disk writes
    #[arg(long)]
    pub pid: Option<u32>,
    /// Port of the broker's /metrics, if it is a Tidegate, to tell how long its lock was held
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<u16>,
    #[command(flatten)]
    pub load: LoadFlags,
    #[command(flatten)]
    pub output: OutputFlags,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// What else there is.
#[derive(Clone, Debug, Subcommand)]
pub enum Compare {
    /// Run the same on several brokers, alternately, and tell the ratios
    #[command(disable_help_flag = true)]
    Compare(Box<CompareFlags>),
}

/// What to compare.
#[derive(Args, Clone, Debug)]
pub struct CompareFlags {
    /// Brokers; the process is needed to tell what it used, the port of its /metrics how long a
    /// Tidegate held its lock. Ratios are to the first
    #[arg(value_name = "NAME=HOST:PORT[,PID[,METRICS_PORT]]", required = true, num_args = 2.., value_parser = named)]
    pub brokers: Vec<(String, Target)>,
    /// What to measure, with commas between; a QoS may follow, as in pairs:1
    #[arg(long, value_name = "SCENARIO", value_delimiter = ',', value_parser = task, default_value = "pairs,fan-in,fan-out,sparse,pairs:1,pairs:2")]
    pub scenarios: Vec<Task>,
    /// How often
    #[arg(long, default_value = "3", value_parser = count)]
    pub rounds: usize,
    #[command(flatten)]
    pub load: LoadFlags,
    #[command(flatten)]
    pub output: OutputFlags,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// A scenario, perhaps with its QoS.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Task {
    /// What to run.
    pub scenario: Scenario,
    /// With this QoS; otherwise with the one of `-q`.
    pub qos: Option<QoS>,
}

/// Where the figures go beside standard output.
#[derive(Args, Clone, Debug, Default)]
pub struct OutputFlags {
    /// Write everything to this file, too, as JSON; "-" is standard output, and the text goes to
    /// standard error then
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

impl OutputFlags {
    /// Whether standard output is for JSON alone.
    pub fn is_json_on_stdout(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }
}

/// How to load a broker.
#[derive(Args, Clone, Debug)]
pub struct LoadFlags {
    #[command(flatten)]
    layers: LayerFlags,
    /// Protocol version: 31, 311 or 5
    #[arg(short = 'V', long, value_name = "VERSION", value_parser = protocol_version, default_value = "311")]
    protocol_version: ProtocolVersion,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD")]
    password: Option<String>,
    /// QoS of messages and subscriptions [default: 0; durable, restart, retained, stall: 1]
    #[arg(short, long, value_parser = qos)]
    qos: Option<QoS>,
    /// Bytes of payload [default: 64; durable, restart and stall: 256; retained: 100]
    #[arg(short, long, value_parser = payload_size)]
    size: Option<usize>,
    /// Pairs, publishers of a fan-in, subscribers of a fan-out, members of a group, connections
    /// [default: as the scenario says]
    #[arg(short, long, value_parser = count)]
    clients: Option<usize>,
    /// Messages on their way at once from each publisher
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    window: u32,
    /// Messages a second in all, each sent at its time; without it the next is sent when an earlier
    /// one has arrived
    #[arg(short, long, value_parser = rate)]
    rate: Option<f64>,
    /// How long to measure, in seconds, or with a unit: 90m, 8h [default: 5; soak: 1h]
    #[arg(short, long, value_parser = seconds)]
    duration: Option<Duration>,
    /// How often `soak` tells figures [default: a 60th of the duration, a second at least]
    #[arg(long, value_parser = seconds)]
    interval: Option<Duration>,
    /// Seconds of load before
    #[arg(long, default_value = "1", value_parser = seconds)]
    warm_up: Duration,
    /// Topics of each publisher
    #[arg(long, default_value = "1", value_parser = count)]
    topics: usize,
    /// Messages of a backlog [default: 100000], retained messages [100000], or filters [200000]
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(10..=100_000_000))]
    messages: Option<u64>,
    /// What to subscribe to in `sub`
    #[arg(short, long, default_value = "tgb/#", value_parser = topic_filter)]
    topic: String,
    /// What others wait for in `stall`, with commas between [default: everything]
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_enum)]
    disturb: Vec<Disturbance>,
    /// What starts the broker in `restart`, on the given port
    #[arg(long, value_name = "COMMAND")]
    spawn: Option<String>,
}

impl LoadFlags {
    /// Returns the default port of a broker with these layers.
    pub fn default_port(&self) -> u16 {
        self.layers.over_tcp().default_port()
    }

    /// Builds the load for a task, which may have a QoS of its own.
    pub fn load(&self, task: Task) -> Load {
        Load {
            transport: self.layers.over_tcp(),
            version: self.protocol_version,
            username: self.username.clone(),
            password: self.password.clone(),
            qos: task.qos.or(self.qos),
            size: self.size,
            clients: self.clients,
            window: self.window,
            rate: self.rate,
            duration: self.duration.unwrap_or(match task.scenario {
                Scenario::Soak => Duration::from_secs(3600),
                _ => Duration::from_secs(5),
            }),
            interval: self.interval,
            warm_up: self.warm_up,
            topics: self.topics,
            messages: self.messages,
            topic: self.topic.clone(),
            disturb: self.disturb.clone(),
            spawn: self.spawn.clone(),
        }
    }
}

/// Returns the first address of a host.
///
/// # Errors
/// Fails if it has none.
pub fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let failed = |what: String| Failure::new(exit::FAILED, format!("{host}: {what}"));
    let addresses = (host, port).to_socket_addrs();
    let mut addresses = addresses.map_err(|error| failed(error.to_string()))?;
    addresses
        .next()
        .ok_or_else(|| failed("it has no address".to_owned()))
}

fn scenarios() -> String {
    let mut text =
        "What to measure, one after the other; a QoS may follow, as in pairs:1\n".to_owned();
    for scenario in Scenario::value_variants() {
        if let Some(value) = scenario.to_possible_value() {
            let help = value
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            text += &format!("\n  {:<10} {help}", value.get_name());
        }
    }
    text
}

fn task(text: &str) -> Result<Task, String> {
    let (name, level) = match text.split_once(':') {
        Some((name, level)) => (name, Some(qos(level)?)),
        None => (text, None),
    };
    let scenario = Scenario::from_str(name, false).map_err(|_| {
        let names: Vec<String> = Scenario::value_variants()
            .iter()
            .map(|scenario| scenario.name())
            .collect();
        format!("expected one of {}", names.join(", "))
    })?;
    Ok(Task {
        scenario,
        qos: level,
    })
}

fn named(text: &str) -> Result<(String, Target), String> {
    let expected =
        || "expected name=host:port, name=host:port,pid or name=host:port,pid,port".to_owned();
    let (name, rest) = text.split_once('=').ok_or_else(expected)?;
    let mut parts = rest.split(',');
    let place = parts.next().unwrap_or_default();
    let pid = parts.next().map(str::parse).transpose();
    let pid = pid.map_err(|_| expected())?;
    let metrics_port = parts.next().map(str::parse::<u16>).transpose();
    let metrics_port = metrics_port.map_err(|_| expected())?;
    let (host, port) = place.rsplit_once(':').ok_or_else(expected)?;
    let port = port.parse().map_err(|_| expected())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addr = resolve(host, port).map_err(|failure| failure.message)?;
    if name.is_empty() || parts.next().is_some() {
        return Err(expected());
    }
    let target = Target {
        host: host.to_owned(),
        addr,
        pid,
        metrics: metrics_port.map(|port| SocketAddr::new(addr.ip(), port)),
    };
    Ok((name.to_owned(), target))
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("expected 1 to 1000000".to_owned()),
    }
}

fn payload_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size @ PAYLOAD_HEADER_BYTES..=10_000_000) => Ok(size),
        _ => Err(format!(
            "expected {PAYLOAD_HEADER_BYTES} (number and time of the message) to 10000000"
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
        Ok(_) => Err("expected seconds".to_owned()),
        Err(_) => parse_duration(text).ok_or_else(|| "expected seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        flags: BenchFlags,
    }

    fn parse(line: &str) -> Result<BenchFlags, String> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        let only = Only::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(only.flags)
    }

    #[test]
    fn the_flags_are_well_formed() {
        Only::command().debug_assert();
    }

    #[test]
    fn scenarios_are_named_and_may_have_a_qos() {
        let flags = parse("pairs fan-in:2 -h ::1 -p 1884 -q 1 -d 0.5 --pid 7").expect("good");
        assert_eq!(
            (flags.host.as_str(), flags.port, flags.pid),
            ("::1", Some(1884), Some(7))
        );
        let loads: Vec<Load> = flags
            .tasks
            .iter()
            .map(|task| flags.load.load(*task))
            .collect();
        assert_eq!(flags.tasks[1].scenario, Scenario::FanIn);
        assert_eq!(loads[0].qos, Some(QoS::AtLeastOnce));
        assert_eq!(loads[1].qos, Some(QoS::ExactlyOnce));
        assert_eq!(loads[0].duration, Duration::from_millis(500));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, needle) in [
            ("", "SCENARIO"),
            ("pears", "expected one of conn, pub"),
            ("pairs:3", "expected 0, 1 or 2"),
            ("pairs -s 8", "expected 24"),
            ("pairs -w 0", "1..=30000"),
            ("pairs -d soon", "expected seconds"),
            ("pairs -r 0", "expected messages a second"),
            ("compare a=127.0.0.1:1", "NAME=HOST:PORT"),
            (
                "compare a=127.0.0.1 b=127.0.0.1:2",
                "expected name=host:port",
            ),
            (
                "compare a=127.0.0.1:1,x b=127.0.0.1:2",
                "expected name=host:port",
            ),
            (
                "compare =127.0.0.1:1 b=127.0.0.1:2",
                "expected name=host:port",
            ),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(needle), "{line}: {error}");
        }
    }

    #[test]
    fn brokers_to_compare_have_names_and_perhaps_processes() {
        let line =
            "compare a=127.0.0.1:1883,12 b=[::1]:1884 --scenarios pairs,durable:2 --rounds 2";
        let Some(Compare::Compare(flags)) = parse(line).expect(line).compare else {
            panic!("not compare");
        };
        let (name, target) = &flags.brokers[0];
        assert_eq!(
            (name.as_str(), target.addr.port(), target.pid),
            ("a", 1883, Some(12))
        );
        assert!(flags.brokers[1].1.addr.is_ipv6());
        assert_eq!(flags.scenarios[1].qos, Some(QoS::ExactlyOnce));
        assert_eq!(flags.rounds, 2);
    }

    #[test]
    fn help_tells_every_scenario() {
        let help = parse("--help").expect_err("help");
        for scenario in Scenario::value_variants() {
            assert!(help.contains(&format!("  {} ", scenario.name())), "{help}");
        }
    }
}
