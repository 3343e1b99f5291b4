//! `tidegate run`: runs the broker.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::exit::{self, Failure};
use crate::broker::record::{Durability, DurabilityRules};
use crate::config::{
    Config, ConfigError, DEFAULT_PORT, ENVIRONMENT_PREFIX, Overrides, Problem, is_foreign_variable,
    show_duration,
};
use crate::net::listener::Protocol;
use crate::net::log::Log;
use crate::net::socket::ListenAddress;
use crate::server::{self, Descriptors, Endpoint, Ready};

/// The flags of `tidegate run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunFlags {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen here, and on no configured listener; loopback addresses only; may be repeated; port 0
    /// takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub bind: Vec<String>,
    /// Directory of the data
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace or off, or by module
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
}

/// How long the process waits at its end until standard error has taken the last lines of the log.
const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of standard error at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stderr {
    /// Everything was written.
    Written,
    /// Writes block, perhaps for ever.
    Stalled,
}

/// Runs the broker until it is told to stop.
///
/// # Errors
/// Exit code 2 if the configuration is wrong, 1 if the broker cannot start or has to stop.
pub fn run(flags: RunFlags) -> (Result<(), Failure>, Stderr) {
    let started = load(&flags).map_err(|error| Failure::new(exit::WRONG, error.to_string()));
    let started = started.and_then(|config| {
        // Before there is another thread.
        let descriptors = Descriptors::raise(config.limits.max_connections);
        let log = start_log(&config.log)
            .map_err(|error| Failure::new(exit::FAILED, format!("cannot start: {error}")))?;
        Ok((config, descriptors, log))
    });
    let (config, descriptors, log) = match started {
        Ok(started) => started,
        Err(failure) => return (Err(failure), Stderr::Written),
    };
    if let Some(names) = ignored_variables() {
        tracing::info!(
            "environment variables ignored, which are not of this program but of Kubernetes, Docker or its tests: {names}"
        );
    }
    let ended = server::run(
        config,
        descriptors,
        Arc::clone(&log),
        move || load(&flags),
        print_ready,
    )
    .map_err(|error| Failure::new(exit::FAILED, error.to_string()));
    let stderr = match log.flush(FINAL_FLUSH_TIMEOUT) {
        true => Stderr::Written,
        false => Stderr::Stalled,
    };
    (ended, stderr)
}

/// Reads the configuration from the flags and the environment.
///
/// # Errors
/// All problems of the configuration.
pub fn load(flags: &RunFlags) -> Result<Config, ConfigError> {
    let overrides = Overrides {
        bind: flags.bind.clone(),
        data_dir: flags.data_dir.clone(),
        log: flags.log.clone(),
    };
    let mut environment = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in variables() {
        if is_foreign_variable(&name, &value.to_string_lossy()) {
            continue;
        }
        match value.into_string() {
            Ok(value) => environment.push((name, value)),
            Err(_) => problems.push(Problem {
                place: name,
                key: String::new(),
                what: "is not UTF-8 text".to_owned(),
            }),
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    Config::load(flags.config.as_deref(), environment, &overrides)
}

/// Returns the environment variables with the prefix of this program.
fn variables() -> impl Iterator<Item = (String, OsString)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_string_lossy().into_owned();
        let is_ours = name.starts_with(ENVIRONMENT_PREFIX);
        is_ours.then_some((name, value))
    })
}

/// Describes the environment variables that have the prefix of this program but are ignored,
/// because they belong to others. Returns `None` if there are none.
pub fn ignored_variables() -> Option<String> {
    let mut names: Vec<String> = variables()
        .filter(|(name, value)| is_foreign_variable(name, &value.to_string_lossy()))
        .map(|(name, _)| name)
        .collect();
    names.sort();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Prints to stdout what was started and how to connect to it. The last line begins with
/// `Ready in`.
pub fn print_ready(ready: &Ready) {
    let mut stdout = io::stdout().lock();
    // A broker does not need a stdout, so errors are ignored.
    let _ = stdout
        .write_all(describe(ready, &command()).as_bytes())
        .and_then(|()| stdout.flush());
}

/// Describes how durable acknowledgements are.
pub fn describe_durability(rules: &DurabilityRules) -> String {
    let mut text = match rules.default {
        Durability::Fsync => "every acknowledgement waits for fsync".to_owned(),
        Durability::Os => "acknowledgements wait for the operating system, not for fsync: a power cut may lose messages".to_owned(),
        Durability::Memory => "nothing: messages are lost when the broker ends".to_owned(),
    };
    for (filter, durability) in &rules.topics {
        let name = match durability {
            Durability::Fsync => "fsync",
            Durability::Os => "os",
            Durability::Memory => "memory",
        };
        let _ = write!(text, "; {filter}: {name}");
    }
    text
}

fn describe(ready: &Ready, command: &str) -> String {
    let listeners: Vec<String> = ready.listeners.iter().map(Endpoint::to_string).collect();
    let data_dir = std::path::absolute(&ready.data_dir).unwrap_or_else(|_| ready.data_dir.clone());
    let mut text = format!(
        "Tidegate {}\n\
         Listening  {}\n\
         Data       {}\n\
         Durable    {}\n\
         Recovered  {}\n",
        env!("CARGO_PKG_VERSION"),
        listeners.join("  "),
        data_dir.display(),
        describe_durability(&ready.durability),
        ready.recovered
    );
    let plain = ready.listeners.iter().find_map(plain_address);
    if let Some(address) = plain {
        let at = connect_flags(address);
        let _ = writeln!(text, "Try        {command} sub{at} -t 'hello/#' -v");
        let _ = writeln!(
            text,
            "           mosquitto_pub{at} -t hello/world -m hi -q 1"
        );
    } else if let Some(first) = ready.listeners.first() {
        let flag = match (&first.address, first.protocol) {
            (ListenAddress::Unix(path), _) => format!("--unix {}", path.display()),
            (_, Protocol::Ws) => format!("-L {first}"),
            _ => format!("-L {first} --cafile CA.pem"),
        };
        let _ = writeln!(text, "Try        {command} sub {flag} -t 'hello/#' -v");
    }
    let _ = writeln!(text, "Ready in {}", show_duration(ready.took));
    text
}

fn plain_address(endpoint: &Endpoint) -> Option<SocketAddr> {
    match (endpoint.protocol, &endpoint.address) {
        (Protocol::Mqtt, ListenAddress::Tcp(address)) => Some(*address),
        _ => None,
    }
}

/// Returns the flags that a client on this machine needs to connect to `address`.
fn connect_flags(address: SocketAddr) -> String {
    let host = match address.ip() {
        ip if ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip if ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let mut flags = String::new();
    if host != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        let _ = write!(flags, " -h {host}");
    }
    if address.port() != DEFAULT_PORT {
        let _ = write!(flags, " -p {}", address.port());
    }
    flags
}

/// Returns this command as it was typed.
fn command() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "tidegate".to_owned())
}

/// Starts the log to standard error.
///
/// # Errors
/// Fails if the operating system provides no thread, or there is no standard error.
fn start_log(filter: &Targets) -> io::Result<Arc<Log>> {
    // A descriptor of its own: a writer to `io::stderr` must not wait for the log.
    let stderr = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?;
    let log = Log::start(File::from(stderr))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Arc::clone(&log))
        .with_ansi(io::stderr().is_terminal());
    // A program that embeds the broker may have set a subscriber already, which is kept.
    let _ = tracing_subscriber::registry()
        .with(filter.clone())
        .with(lines)
        .try_init();
    let (before, last) = (std::panic::take_hook(), Arc::clone(&log));
    std::panic::set_hook(Box::new(move |panic| {
        // Flushes what led to the panic: the process may end with it.
        if last.flush(FINAL_FLUSH_TIMEOUT) {
            before(panic);
        }
    }));
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ready(listeners: &[&str]) -> Ready {
        Ready {
            listeners: listeners
                .iter()
                .map(|text| Endpoint {
                    protocol: Protocol::Mqtt,
                    address: ListenAddress::Tcp(text.parse().expect("an address")),
                    path: String::new(),
                })
                .collect(),
            data_dir: "/data".into(),
            durability: DurabilityRules {
                default: Durability::Fsync,
                topics: vec![("raw/#".into(), Durability::Memory)],
            },
            recovered: "3 sessions.".to_owned(),
            took: Duration::from_millis(12),
        }
    }

    #[test]
    fn the_start_is_told_with_real_ports_and_ends_with_ready() {
        let text = describe(&ready(&["0.0.0.0:4711", "[::1]:1883"]), "./tidegate");
        let expected = [
            concat!("Tidegate ", env!("CARGO_PKG_VERSION")),
            "Listening  mqtt://0.0.0.0:4711  mqtt://[::1]:1883",
            "Data       /data",
            "Durable    every acknowledgement waits for fsync; raw/#: memory",
            "Recovered  3 sessions.",
            "Try        ./tidegate sub -p 4711 -t 'hello/#' -v",
            "           mosquitto_pub -p 4711 -t hello/world -m hi -q 1",
            "Ready in 12 ms",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn where_everything_is_encrypted_the_example_is_a_url() {
        let mut ready = ready(&["127.0.0.1:8084"]);
        ready.listeners[0].protocol = Protocol::Wss;
        ready.listeners[0].path = "/mqtt".to_owned();
        let text = describe(&ready, "tidegate");
        assert!(text.contains("Listening  wss://127.0.0.1:8084/mqtt\n"));
        assert!(text.contains("sub -L wss://127.0.0.1:8084/mqtt --cafile CA.pem -t"));
    }

    #[test]
    fn an_example_names_only_what_differs_from_the_defaults_of_a_client() {
        let flags = |address: &str| connect_flags(address.parse().expect("an address"));
        assert_eq!(flags("127.0.0.1:1883"), "");
        assert_eq!(flags("[::]:1884"), " -h ::1 -p 1884");
        assert_eq!(flags("192.0.2.1:1883"), " -h 192.0.2.1");
    }
}
