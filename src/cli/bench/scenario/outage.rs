//! A bridge whose upstream goes and comes back: how soon what the edge broker has kept meanwhile is there, and whether all of it is, once and in
//! order. Both brokers are this program, started here. The same messages published to the upstream itself are the measure.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::spawned::Spawned;
use crate::cli::bench::model::{Load, PATIENCE, Target};
use crate::cli::bench::outcome::{Better, Faults, Outcome};
use crate::cli::bench::process::Usage;
use crate::cli::bench::rig::{Client, Rig, Shape};
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
/// Topics of each of them.
const TOPICS: usize = 5;
/// Messages of each before the outage: so that the bridge is known to work.
const BEFORE: u64 = 10;

/// Runs it: `--messages` messages are published while the upstream is away.
///
/// # Errors
/// A broker cannot be started, or breaks the protocol.
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

/// What was seen of the outage.
struct Outage {
    /// Messages a second, acknowledged by the edge while the upstream was away.
    accepted: f64,
    backlog: u64,
    /// From when the upstream let clients in again to the first and the last message, in nanoseconds.
    first: u64,
    last: u64,
    /// Messages a second from the first to the last.
    rate: f64,
    /// Processor time of the edge for each of them, in microseconds.
    edge_cpu: Option<f64>,
    faults: Faults,
}

/// Publishes to the upstream itself; how many messages a second its subscriber gets.
fn publish_directly(brokers: &Brokers, load: &Load, qos: QoS, each: u64) -> Result<f64, Failure> {
    let mut rig = Rig::new(&brokers.upstream, load)?;
    connect(&mut rig, &brokers.upstream, load, qos)?;
    let from = rig.now();
    rig.publish_each(each);
    let all = |rig: &Rig| rig.has_sent_all() && rig.counts().arrived >= rig.expected();
    if !rig.run_until(PATIENCE, all)? {
        return Err(missing("that were published directly"));
    }
    let seconds = (rig.now() - from) as f64 / 1e9;
    let rate = rig.counts().arrived as f64 / seconds;
    rig.run_until(PATIENCE, Rig::is_acknowledged)?;
    rig.disconnect(0..rig.peer_count());
    rig.end_sessions(0..1)?;
    Ok(rate)
}

/// Publishes to the edge while its upstream is away, and waits until all of that is there.
fn go_through(
    brokers: &Brokers,
    upstream: Spawned,
    load: &Load,
    qos: QoS,
    each: u64,
) -> Result<Outage, Failure> {
    let edge = brokers.start_edge(load)?;
    let mut rig = Rig::new(&brokers.upstream, load)?;
    connect(&mut rig, &brokers.edge, load, qos)?;
    rig.publish_each(BEFORE);
    let all = |rig: &Rig| rig.has_sent_all() && rig.counts().arrived >= rig.expected();
    if !rig.run_until(PATIENCE, all)? {
        return Err(missing("that the bridge should have brought"));
    }
    // What the subscriber has acknowledged is soon forgotten for good; killed before, the upstream would send it again.
    rig.run_for(Duration::from_millis(300))?;
    let before = rig.counts().arrived;

    rig.tolerate_loss(true);
    drop(upstream);
    rig.run_until(PATIENCE, |rig| rig.connected() == PUBLISHERS)?;
    rig.tolerate_loss(false);
    let from = rig.now();
    rig.publish_each(each);
    if !rig.run_until(PATIENCE, |rig| rig.has_sent_all() && rig.is_acknowledged())? {
        return Err(missing("for the bridge whose acknowledgements"));
    }
    let backlog = rig.expected() - before;
    let accepted = backlog as f64 * 1e9 / (rig.now() - from) as f64;

    let cpu = || Usage::of(edge.pid()).map(|usage| usage.cpu_us);
    let cpu_before = cpu();
    let (_upstream, _) = brokers.start_upstream(load)?;
    let up = rig.now();
    rig.turn_to(&brokers.upstream);
    rig.connect_again(0..1)?;
    rig.run_until(PATIENCE, |rig| rig.counts().arrived > before)?;
    let (first, first_arrived) = (rig.now(), rig.counts().arrived);
    rig.run_until(PATIENCE, |rig| rig.counts().arrived >= rig.expected())?;
    let last = rig.now();
    let arrived = rig.counts().arrived;
    let used = cpu_before.zip(cpu()).map(|(before, after)| after - before);
    // What comes twice comes late: wait a little for it.
    rig.run_for(Duration::from_millis(300))?;
    rig.disconnect(0..rig.peer_count());
    Ok(Outage {
        accepted,
        backlog,
        first: first - up,
        last: last - up,
        rate: (arrived - first_arrived) as f64 * 1e9 / (last - first).max(1) as f64,
        edge_cpu: used.map(|used| used / (arrived - before).max(1) as f64),
        faults: rig.faults(),
    })
}

/// Connects a durable subscriber of everything to the rig's broker, which is client 0, and the publishers to another one.
fn connect(rig: &mut Rig, publish_to: &Target, load: &Load, qos: QoS) -> Result<(), Failure> {
    let run = rig.name();
    let flows = 0..(PUBLISHERS * TOPICS) as u32;
    let subscriber = Client::new(format!("tgs-{run}"));
    rig.connect([subscriber
        .subscribed(format!("tgb/{run}/#"), qos, flows)
        .durable()])?;
    rig.turn_to(publish_to);
    let first = rig.connect((0..PUBLISHERS).map(|n| Client::new(format!("tgp-{run}-{n}"))))?;
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
        rig.publish_from(first + n, &topics, &shape);
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

/// Where both brokers listen and have their data, in a folder that goes with this.
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
        // What cannot be removed is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}
