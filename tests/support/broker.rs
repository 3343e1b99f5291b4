//! Runs the built broker as a process.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::TIMEOUT;
use crate::program::{tidegate, without_tidegate};

/// The command that starts another broker; `{port}` is replaced by the port to listen on, for
/// example `mosquitto -p {port}`. If it is set, the tests that need neither a configuration nor a
/// restart run against that broker. This finds errors in the tests themselves.
const OTHER_BROKER: &str = "TIDEGATE_TEST_BROKER";

/// A running broker with its own data directory. It is killed when it is dropped. If the test has
/// failed, what the broker wrote to standard error is shown.
pub struct Broker {
    child: Option<Child>,
    /// Starts a broker other than Tidegate.
    peer: Option<Box<StartCommand>>,
    addr: SocketAddr,
    dir: TempDir,
    config: String,
    shell: Option<String>,
    log: Arc<Mutex<String>>,
    banner: Vec<String>,
}

/// Builds the command that starts another broker in this directory, on this port.
type StartCommand = dyn Fn(&Path, u16) -> Command;

impl Broker {
    /// Starts a broker with default limits.
    pub fn start() -> Broker {
        match std::env::var(OTHER_BROKER) {
            Ok(command) => Broker::other(move |port| command.replace("{port}", &port.to_string())),
            Err(_) => Broker::start_tidegate(""),
        }
    }

    /// Starts a broker with these lines added to its configuration. Returns `None` if the tests run
    /// against another broker, which cannot read it.
    pub fn with(config: &str) -> Option<Broker> {
        if std::env::var_os(OTHER_BROKER).is_some() {
            println!("skipped: it needs Tidegate's own configuration or data");
            return None;
        }
        Some(Broker::start_tidegate(config))
    }

    /// Starts a broker that can be killed and restarted on its data. Returns `None` if the tests
    /// run against another broker.
    pub fn durable() -> Option<Broker> {
        Broker::with("")
    }

    /// Starts a broker from a shell script, which changes the environment of the process and then
    /// runs `exec "$@"`. `DATA` is the existing data directory. Returns `None` if the tests run
    /// against another broker.
    pub fn with_shell(config: &str, shell: &str) -> Option<Broker> {
        if std::env::var_os(OTHER_BROKER).is_some() {
            println!("skipped: it needs Tidegate's own configuration or data");
            return None;
        }
        let mut broker = Broker::new(config);
        broker.shell = Some(shell.to_owned());
        broker.launch();
        Some(broker)
    }

    /// Starts without a script from the next start on.
    pub fn without_shell(&mut self) {
        self.shell = None;
    }

    /// Uses this script from the next start on, as in [`Broker::with_shell`].
    pub fn set_shell(&mut self, shell: &str) {
        self.shell = Some(shell.to_owned());
    }

    /// Runs the broker on this data directory and waits until it ends by itself, which it must do
    /// soon.
    pub fn output_on(data_dir: &Path) -> Output {
        let dir = TempDir::new().expect("there is a directory for temporary files");
        let path = dir.path().join("tidegate.toml");
        let text = format!(
            "data_dir = {data_dir:?}\n[[listeners]]\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n"
        );
        std::fs::write(&path, text).expect("the configuration can be written");
        let mut child = tidegate_run(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker has been built");
        let deadline = Instant::now() + TIMEOUT;
        while child
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
        {
            if Instant::now() >= deadline {
                let _ = child.kill();
                panic!("the broker does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait_with_output().expect("its output can be read")
    }

    /// Returns the address of its listener.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns its process identifier.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the broker runs").id()
    }

    /// Returns the lines that it printed until it was ready.
    pub fn banner(&self) -> &[String] {
        &self.banner
    }

    /// Returns its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Returns what it has written to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no thread panics with it").clone()
    }

    /// Waits until it has written this to standard error. A line may arrive a little after the
    /// event that it reports.
    pub fn expect_log(&self, what: &str) {
        crate::wait_until(what, || self.log().contains(what));
    }

    /// Kills it with SIGKILL, so that it cannot write anything more.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            if self.peer.is_some() {
                signal("KILL", &format!("-{}", child.id()));
            }
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
            // The processes that the child has started end a little later.
            while self.peer.is_some() && TcpStream::connect(self.addr).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Sends SIGTERM and does not wait.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = signal(name, &self.pid().to_string());
        assert!(sent, "the broker is gone already");
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + TIMEOUT;
        let child = self.child.as_mut().expect("the broker runs");
        loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "the broker does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it with SIGTERM and waits. It must exit with 0.
    pub fn stop(&mut self) {
        self.terminate();
        let status = self.wait();
        assert!(status.success(), "the broker ended with {status}");
    }

    /// Starts it again on the same data. Tidegate usually gets another port.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the broker still runs");
        self.launch();
    }

    /// Starts it again on the same data. Returns false if it ended by itself before it was ready.
    pub fn try_start_again(&mut self) -> bool {
        assert!(self.child.is_none(), "the broker still runs");
        let lines = self.spawn();
        match self.read_banner(&lines) {
            Some(banner) => self.take_address(banner),
            None => return false,
        }
        true
    }

    /// Kills it with SIGKILL and starts it on the same data.
    pub fn crash(&mut self) {
        self.kill();
        self.start_again();
    }

    fn start_tidegate(config: &str) -> Broker {
        let mut broker = Broker::new(config);
        broker.launch();
        broker
    }

    /// Writes a new configuration for a running broker to read. As in [`Broker::with`], the plain
    /// listener is added.
    pub fn configure(&mut self, config: &str) {
        self.config = config.to_owned();
        self.write_config();
    }

    /// Returns its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("tidegate.toml")
    }

    fn write_config(&self) {
        let mut text = String::new();
        // The lines of a test may begin with keys at the top level, which must come before the
        // first table.
        writeln!(text, "data_dir = {:?}", self.data_dir()).expect("a String takes it");
        writeln!(text, "{}", self.config).expect("a String takes it");
        text.push_str("[[listeners]]\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n");
        std::fs::write(self.config_file(), text).expect("the configuration can be written");
    }

    fn new(config: &str) -> Broker {
        Broker {
            child: None,
            peer: None,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            dir: TempDir::new().expect("there is a directory for temporary files"),
            config: config.to_owned(),
            shell: None,
            log: Arc::default(),
            banner: Vec::new(),
        }
    }

    /// Starts it and kills it with SIGKILL after this time. Returns whether it was ready by then.
    pub fn kill_while_starting(&mut self, after: Duration) -> bool {
        assert!(self.child.is_none(), "the broker still runs");
        let lines = self.spawn();
        std::thread::sleep(after);
        self.kill();
        lines.iter().any(|line| is_ready(&line))
    }

    fn launch(&mut self) {
        if let Some(peer) = self.peer.take() {
            self.launch_peer(&*peer);
            self.peer = Some(peer);
            return;
        }
        let lines = self.spawn();
        match self.read_banner(&lines) {
            Some(banner) => self.take_address(banner),
            None => panic!("the broker did not start\n{}", self.log()),
        }
    }

    fn take_address(&mut self, banner: Vec<String>) {
        self.banner = banner;
        let ready = self.banner.iter().find_map(|line| {
            let after = line.split("mqtt://").nth(1)?;
            after.split(|c: char| c.is_whitespace() || c == '/').next()
        });
        let addr = ready.unwrap_or_else(|| panic!("no mqtt:// address in {:?}", self.banner));
        self.addr = addr.parse().expect("an address and a port");
    }

    /// Starts the process. Returns its lines of standard output.
    fn spawn(&mut self) -> Receiver<String> {
        self.write_config();
        let mut command = tidegate_run(&self.config_file());
        if let Some(shell) = &self.shell {
            std::fs::create_dir_all(self.data_dir()).expect("the data directory can be made");
            let mut within = Command::new("sh");
            within.args(["-c", shell, "sh"]).arg(binary());
            within.args(command.get_args()).env("DATA", self.data_dir());
            command = without_tidegate(within);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker has been built");
        collect(child.stderr.take(), Arc::clone(&self.log));
        let lines = lines(child.stdout.take());
        self.child = Some(child);
        lines
    }

    /// Reads standard output until the line that begins with `Ready in`. Returns `None` if the
    /// broker ended before.
    fn read_banner(&mut self, lines: &Receiver<String>) -> Option<Vec<String>> {
        let mut banner = Vec::new();
        loop {
            match lines.recv_timeout(TIMEOUT) {
                Ok(line) => {
                    let ready = is_ready(&line);
                    banner.push(line);
                    if ready {
                        return Some(banner);
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no `Ready in` line, only {banner:?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    println!("the broker ended with {} after {banner:?}", self.wait());
                    return None;
                }
            }
        }
    }

    /// Runs another broker. `command` returns the command line for a port.
    pub fn other(command: impl Fn(u16) -> String + 'static) -> Broker {
        Broker::peer(move |_, port| {
            let command = command(port);
            let mut words = command.split_whitespace();
            let mut started = Command::new(words.next().expect("a command"));
            started.args(words);
            started
        })
    }

    /// Runs another broker. `command` gets its directory and the port to listen on, which are the
    /// same after a restart.
    pub(crate) fn peer(command: impl Fn(&Path, u16) -> Command + 'static) -> Broker {
        let mut broker = Broker::new("");
        broker.addr = free_address();
        broker.peer = Some(Box::new(command));
        broker.launch();
        broker
    }

    fn launch_peer(&mut self, command: &StartCommand) {
        let mut command = command(self.dir.path(), self.addr.port());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // The processes that it starts end with it.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        collect(child.stderr.take(), Arc::clone(&self.log));
        self.child = Some(child);
        // RabbitMQ takes ten seconds on an idle machine.
        let deadline = Instant::now() + 6 * TIMEOUT;
        while TcpStream::connect(self.addr).is_err() {
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Returns an address of this machine at which nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port is free")
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // A thread that panicked may hold `log`. Showing it must not panic again.
            if let Ok(log) = self.log.lock() {
                println!("--- the broker's log ---\n{log}--- end of the broker's log ---");
            }
        }
    }
}

/// Sends a signal to a process, or to a process group if the number is negative. Returns false if
/// it is gone.
fn signal(name: &str, to: &str) -> bool {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{name} {to}")])
        .status();
    sent.expect("there is a shell").success()
}

/// Builds `tidegate run --config`, without environment variables that change the configuration.
fn tidegate_run(config: &Path) -> Command {
    let mut command = tidegate(&["run", "--config"]);
    command.arg(config);
    command
}

/// Returns whether a line of output says that the broker is ready.
fn is_ready(line: &str) -> bool {
    line.trim_start().starts_with("Ready in")
}

/// Returns the path of the binary, which Cargo builds next to the directory of the running test.
pub(crate) fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its binary");
    let built = test.parent().and_then(Path::parent);
    built
        .expect("Cargo puts tests in a directory below the binaries")
        .join(format!("tidegate{}", std::env::consts::EXE_SUFFIX))
}

fn collect(from: Option<impl Read + Send + 'static>, into: Arc<Mutex<String>>) {
    let Some(from) = from else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut log = into.lock().expect("no thread panics with it");
            log.push_str(&line);
            log.push('\n');
        }
    });
}

/// Sends lines as they arrive. Continues to read when the receiver is gone, so that the broker
/// never blocks on its output.
fn lines(from: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(from) = from {
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    receiver
}
