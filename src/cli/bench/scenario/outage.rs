//! A bridge whose upstream is killed and comes back: how soon the messages queued by the edge
//! broker arrive, and whether all arrive once and in order. Both brokers are this program, started
//! here. The same messages published to the upstream directly are the reference.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::spawned::Spawned;
use crate::cli::bench::generator::{Client, Generator, Shape};
use crate::cli::bench::model::{IDLE_TIMEOUT, Load, Target};
use crate::cli::bench::outcome::{Better, Faults, Outcome};
use crate::cli::bench::process::Usage;
use crate::cli::exit::{self, Failure};
use crate::cli::transport::Transport;
use crate::wire::QoS;

const TCP: Transport = Transport {
    unix: None,
    proxy: None,
    tls: None,
    websocket: None,
};
const PUBLISHERS: usize = 10;
/// Topics of each publisher.
const TOPICS: usize = 5;
/// Messages of each publisher before the outage, which prove that the bridge works.
const MESSAGES_BEFORE: u64 = 10;

/// Runs it: publishes `--messages` messages while the upstream is down.
///
/// # Errors
/// Fails if a broker cannot be started or violates the protocol.
pub fn run(load: &Load) -> Result<Outcome, Failure> {
    let qos = load.qos.unwrap_or(QoS::AtLeastOnce);
    if qos == QoS::AtMostOnce {
        return Err(Failure::usage(
            "outage is about QoS 1 and 2: give -q 1 or -q 2",
        ));
    }
    if load.transport != TCP {
        return Err(Failure::usage(
            "outage starts its brokers itself and speaks TCP to them: leave out the flags of TLS and WebSocket",
        ));
    }
    let each = load.messages.unwrap_or(100_000).div_ceil(PUBLISHERS as u64);
    let brokers = Brokers::prepare()?;
    let (upstream, _) = brokers.start_upstream(load)?;
    let direct = publish_directly(&brokers, load, qos, each)?;
    let outage = go_through(&brokers, upstream, load, qos, each)?;

    let mut outcome = Outcome {
        name: format!("outage qos{}", qos as u8),
        what: format!(
            "{} messages of QoS {}, {} bytes, for a bridge whose upstream was killed; it tries again every 0.1 to 1 s",
            each * PUBLISHERS as u64,
            qos as u8,
            size(load)
        ),
        faults: outage.faults,
        may_repeat: qos == QoS::AtLeastOnce,
        ..Outcome::default()
    };
    let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    outcome.add("replayed", outage.rate, "/s", Better::Higher);
    outcome.add("published directly", direct, "/s", Better::Neither);
    let ratio = outage.rate / direct;
    outcome.add("replayed to direct", ratio, "ratio", Better::Higher);
    outcome.add("first message", ms(outage.first), "ms", Better::Lower);
    outcome.add("last message", ms(outage.last), "ms", Better::Lower);
    outcome.add(
        "backlog",
        outage.backlog as f64,
        "messages",
        Better::Neither,
    );
    outcome.add("acknowledged", outage.accepted, "/s", Better::Higher);
    if let Some(used) = outage.edge_cpu {
        outcome.add("edge cpu", used, "us/replayed", Better::Lower);
    }
    let Faults {
        lost, duplicates, ..
    } = outage.faults;
    outcome.add("lost", lost as f64, "messages", Better::Lower);
    outcome.add("repeated", duplicates as f64, "messages", Better::Lower);
    Ok(outcome)
}

/// The results of the outage.
struct Outage {
    /// Messages per second acknowledged by the edge while the upstream was down.
    accepted: f64,
    backlog: u64,
    /// Nanoseconds from when the upstream accepted clients again to the first and to the last
    /// message.
    first: u64,
    last: u64,
    /// Messages per second from the first to the last.
    rate: f64,
    /// Processor time of the edge for each message, in microseconds.
    edge_cpu: Option<f64>,
    faults: Faults,
}

/// Publishes to the upstream directly. Returns how many messages per second its subscriber
/// receives.
fn publish_directly(brokers: &Brokers, load: &Load, qos: QoS, each: u64) -> Result<f64, Failure> {
    let mut generator = Generator::new(&brokers.upstream, load)?;
    connect(&mut generator, &brokers.upstream, load, qos)?;
    let from = generator.now();
    generator.publish_each(each);
    let all = |generator: &Generator| {
        generator.has_sent_all() && generator.counts().arrived >= generator.expected()
    };
    if !generator.run_until(IDLE_TIMEOUT, all)? {
        return Err(missing("that were published directly"));
    }
    let seconds = (generator.now() - from) as f64 / 1e9;
    let rate = generator.counts().arrived as f64 / seconds;
    generator.run_until(IDLE_TIMEOUT, Generator::is_acknowledged)?;
    generator.disconnect(0..generator.peer_count());
    generator.end_sessions(0..1)?;
    Ok(rate)
}

/// Publishes to the edge while its upstream is down, and waits until all messages have arrived.
fn go_through(
    brokers: &Brokers,
    upstream: Spawned,
    load: &Load,
    qos: QoS,
    each: u64,
) -> Result<Outage, Failure> {
    let edge = brokers.start_edge(load)?;
    let mut generator = Generator::new(&brokers.upstream, load)?;
    connect(&mut generator, &brokers.edge, load, qos)?;
    generator.publish_each(MESSAGES_BEFORE);
    let all = |generator: &Generator| {
        generator.has_sent_all() && generator.counts().arrived >= generator.expected()
    };
    if !generator.run_until(IDLE_TIMEOUT, all)? {
        return Err(missing("that the bridge should have brought"));
    }
    // The upstream removes what the subscriber has acknowledged. If it were killed before, it would
    // send that again.
    generator.run_for(Duration::from_millis(300))?;
    let before = generator.counts().arrived;

    generator.tolerate_loss(true);
    drop(upstream);
    generator.run_until(IDLE_TIMEOUT, |generator| {
        generator.connected() == PUBLISHERS
    })?;
    generator.tolerate_loss(false);
    let from = generator.now();
    generator.publish_each(each);
    if !generator.run_until(IDLE_TIMEOUT, |generator| {
        generator.has_sent_all() && generator.is_acknowledged()
    })? {
        return Err(missing("for the bridge whose acknowledgements"));
    }
    let backlog = generator.expected() - before;
    let accepted = backlog as f64 * 1e9 / (generator.now() - from) as f64;

    let cpu = || Usage::of(edge.pid()).map(|usage| usage.cpu_us);
    let cpu_before = cpu();
    let (_upstream, _) = brokers.start_upstream(load)?;
    let up = generator.now();
    generator.set_target(&brokers.upstream);
    generator.connect_again(0..1)?;
    generator.run_until(IDLE_TIMEOUT, |generator| {
        generator.counts().arrived > before
    })?;
    let (first, first_arrived) = (generator.now(), generator.counts().arrived);
    generator.run_until(IDLE_TIMEOUT, |generator| {
        generator.counts().arrived >= generator.expected()
    })?;
    let last = generator.now();
    let arrived = generator.counts().arrived;
    let used = cpu_before.zip(cpu()).map(|(before, after)| after - before);
    // Repeated messages arrive late: wait a little for them.
    generator.run_for(Duration::from_millis(300))?;
    generator.disconnect(0..generator.peer_count());
    Ok(Outage {
        accepted,
        backlog,
        first: first - up,
        last: last - up,
        rate: (arrived - first_arrived) as f64 * 1e9 / (last - first).max(1) as f64,
        edge_cpu: used.map(|used| used / (arrived - before).max(1) as f64),
        faults: generator.faults(),
    })
}

/// Connects a durable subscriber of everything to the broker of the generator, as client 0, and the
/// publishers to another broker.
fn connect(
    generator: &mut Generator,
    publish_to: &Target,
    load: &Load,
    qos: QoS,
) -> Result<(), Failure> {
    let run = generator.name();
    let flows = 0..(PUBLISHERS * TOPICS) as u32;
    let subscriber = Client::new(format!("tgs-{run}"));
    generator.connect([subscriber
        .subscribed(format!("tgb/{run}/#"), qos, flows)
        .durable()])?;
    generator.set_target(publish_to);
    let first =
        generator.connect((0..PUBLISHERS).map(|n| Client::new(format!("tgp-{run}-{n}"))))?;
    let shape = Shape {
        qos,
        size: size(load),
        retain: false,
        window: load.window,
        receivers: 0,
    };
    for n in 0..PUBLISHERS {
        let topics: Vec<String> = (0..TOPICS)
            .map(|topic| format!("tgb/{run}/{n}/{topic}"))
            .collect();
        generator.publish_from(first + n, &topics, &shape);
    }
    Ok(())
}

fn size(load: &Load) -> usize {
    load.size.unwrap_or(256)
}

fn missing(which: &str) -> Failure {
    let message = format!("messages {which} did not come");
    Failure::new(exit::TIMEOUT, message)
}

/// The addresses and data of both brokers, in a directory that is removed at the end.
struct Brokers {
    program: PathBuf,
    folder: PathBuf,
    upstream: Target,
    edge: Target,
}

impl Brokers {
    fn prepare() -> Result<Brokers, Failure> {
        let failed = |what: &str, error: std::io::Error| {
            Failure::new(exit::FAILED, format!("{what}: {error}"))
        };
        let program = std::env::current_exe().map_err(|error| failed("this program", error))?;
        // Both are held until both are known, so that they differ.
        let held = [free_port(), free_port()];
        let [upstream, edge] = held.map(|held| held.and_then(|held| held.local_addr()));
        let address = |port: std::io::Result<SocketAddr>| {
            Ok(Target {
                host: Ipv4Addr::LOCALHOST.to_string(),
                addr: port.map_err(|error| failed("a free port", error))?,
                pid: None,
                metrics: None,
            })
        };
        let (upstream, edge) = (address(upstream)?, address(edge)?);
        let name = format!("tidegate-outage-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).map_err(|error| failed(&folder.display().to_string(), error))?;
        let brokers = Brokers {
            program,
            folder,
            upstream,
            edge,
        };
        let file = brokers.config();
        fs::write(&file, brokers.config_of_edge())
            .map_err(|error| failed(&file.display().to_string(), error))?;
        Ok(brokers)
    }

    fn config(&self) -> PathBuf {
        self.folder.join("edge.toml")
    }

    fn config_of_edge(&self) -> String {
        let data = self.folder.join("edge");
        let data = data.display().to_string();
        format!(
            "data_dir = {data:?}\n\
             [[listeners]]\nbind = \"{edge}\"\nallow_anonymous = true\n\
             [[bridges]]\nname = \"up\"\naddress = \"{upstream}\"\nremote_clientid = \"tgb-edge\"\n\
             restart_timeout_base = \"100ms\"\nrestart_timeout_cap = \"1s\"\n\
             [[bridges.topics]]\npattern = \"tgb/#\"\n",
            edge = self.edge.addr,
            upstream = self.upstream.addr,
        )
    }

    fn start_upstream(&self, load: &Load) -> Result<(Spawned, Duration), Failure> {
        let mut command = self.command();
        command.arg("--bind").arg(self.upstream.addr.to_string());
        let data: &Path = &self.folder.join("upstream");
        command.arg("--data-dir").arg(data);
        Spawned::start(command, "the upstream", &self.upstream, load)
    }

    fn start_edge(&self, load: &Load) -> Result<Spawned, Failure> {
        let mut command = self.command();
        command.arg("--config").arg(self.config());
        let started = Spawned::start(command, "the edge broker", &self.edge, load);
        started.map(|(edge, _)| edge)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("run");
        command
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        // What cannot be removed stays in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}
