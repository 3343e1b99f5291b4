//! The clients as tools with the same three uses: publish, receive, join.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use support::Version;

use crate::rumqttc_client;

/// How long a tool may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client that is not ours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// mosquitto_pub and mosquitto_sub, made of libmosquitto (C).
    Mosquitto,
    /// paho-mqtt (Python).
    Paho,
    /// MQTT.js (JavaScript).
    MqttJs,
    /// rumqttc (Rust).
    Rumqttc,
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tool::Mosquitto => "mosquitto",
            Tool::Paho => "paho-mqtt",
            Tool::MqttJs => "MQTT.js",
            Tool::Rumqttc => "rumqttc",
        })
    }
}

/// Messages on their way to a receiver, as `QOS RETAIN PAYLOAD`.
pub struct Receiver {
    lines: mpsc::Receiver<String>,
    count: usize,
    child: Option<Child>,
}

impl Tool {
    /// All of them.
    pub const ALL: [Tool; 4] = [Tool::Mosquitto, Tool::Paho, Tool::MqttJs, Tool::Rumqttc];

    /// How to install it, if it is not.
    pub fn missing(self) -> Option<&'static str> {
        let there = match self {
            Tool::Mosquitto => {
                succeeds(Command::new("mosquitto_pub").arg("--version"))
                    && succeeds(Command::new("mosquitto_sub").arg("--version"))
            }
            Tool::Paho => succeeds(Command::new(python()).args(["-c", "import paho.mqtt.client"])),
            Tool::MqttJs => succeeds(node().args(["-e", "require('mqtt')"])),
            Tool::Rumqttc => true,
        };
        let advice = match self {
            Tool::Mosquitto => "apt-get install mosquitto-clients",
            Tool::Paho => {
                "pip install paho-mqtt (perhaps in a venv; name its python in TIDEGATE_PYTHON)"
            }
            Tool::MqttJs => "npm install -g mqtt (or elsewhere, named in NODE_PATH)",
            Tool::Rumqttc => "it is a dependency of the tests",
        };
        (!there).then_some(advice)
    }

    /// Publishes the payloads 0, 1, 2 ... and waits for all acknowledgements.
    pub fn publish(self, addr: SocketAddr, version: Version, qos: u8, topic: &str, count: usize) {
        match self {
            Tool::Rumqttc => rumqttc_client::publish(addr, version, qos, topic, count),
            Tool::Mosquitto => {
                for i in 0..count {
                    let mut command = mosquitto("mosquitto_pub", addr, version, qos, topic);
                    run(command.args(["-m", &i.to_string()]));
                }
            }
            _ => run(self
                .script("pub", addr, version, qos, topic)
                .arg(count.to_string())),
        }
    }

    /// Subscribes in a session that lasts, and leaves.
    pub fn join(self, addr: SocketAddr, version: Version, qos: u8, topic: &str, id: &str) {
        match self {
            Tool::Rumqttc => {
                let (sender, _receiver) = mpsc::channel();
                rumqttc_client::subscribe(addr, version, qos, topic, 0, id, false, &sender);
            }
            Tool::Mosquitto => {
                let mut command = mosquitto("mosquitto_sub", addr, version, qos, topic);
                run(durable(&mut command, version, id).arg("-E"));
            }
            _ => run(self
                .script("join", addr, version, qos, topic)
                .args(["0", id, "0"])),
        }
    }

    /// paho_client.py or mqttjs_client.js up to the topic.
    fn script(
        self,
        mode: &str,
        addr: SocketAddr,
        version: Version,
        qos: u8,
        topic: &str,
    ) -> Command {
        let (mut command, file) = match self {
            Tool::Paho => (Command::new(python()), "paho_client.py"),
            _ => (node(), "mqttjs_client.js"),
        };
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
        command.arg(folder.join(file)).arg(mode);
        command.args([addr.ip().to_string(), addr.port().to_string()]);
        command.args([number(version), &qos.to_string(), topic]);
        command
    }
}

impl Receiver {
    /// Starts a receiver; one that starts clean has subscribed when this returns. It ends when
    /// `count` messages have come.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the scripts"
    )]
    pub fn start(
        tool: Tool,
        addr: SocketAddr,
        version: Version,
        qos: u8,
        topic: &str,
        count: usize,
        id: &str,
        clean: bool,
    ) -> Receiver {
        let (sender, lines) = mpsc::channel();
        let mut receiver = Receiver {
            lines,
            count,
            child: None,
        };
        let mut command = match tool {
            Tool::Rumqttc => {
                let (topic, id) = (topic.to_owned(), id.to_owned());
                std::thread::spawn(move || {
                    rumqttc_client::subscribe(
                        addr, version, qos, &topic, count, &id, clean, &sender,
                    );
                });
                if clean {
                    receiver.wait_until_ready();
                }
                return receiver;
            }
            Tool::Mosquitto => {
                // Its output is buffered when it is no terminal.
                let mut command = Command::new("stdbuf");
                command.arg("-oL").arg("mosquitto_sub");
                mosquitto_options(&mut command, addr, version, qos, topic);
                if clean {
                    command.args(["-i", id]);
                } else {
                    durable(&mut command, version, id);
                }
                command.args(["-d", "-F", "message %q %r %p", "-C", &count.to_string()]);
                command
            }
            _ => {
                let mut command = tool.script("sub", addr, version, qos, topic);
                let clean = if clean { "1" } else { "0" };
                command.args([&count.to_string(), id, clean]);
                command
            }
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = child.stdout.take().expect("it is piped");
        let is_mosquitto = tool == Tool::Mosquitto;
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let line = match is_mosquitto {
                    true if line.starts_with("Subscribed (mid") => "ready".to_owned(),
                    true => match line.strip_prefix("message ") {
                        Some(message) => message.to_owned(),
                        None => continue,
                    },
                    false => line,
                };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        receiver.child = Some(child);
        // In a session that went on the messages may come first.
        if clean {
            receiver.wait_until_ready();
        }
        receiver
    }

    fn wait_until_ready(&mut self) {
        match self.lines.recv_timeout(TIMEOUT) {
            Ok(line) if line == "ready" => {}
            other => panic!("{other:?} instead of a SUBACK"),
        }
    }

    /// All messages, once the tool has ended.
    pub fn messages(mut self) -> Vec<String> {
        let mut messages = Vec::new();
        loop {
            match self.lines.recv_timeout(TIMEOUT) {
                Ok(line) if line == "ready" => {}
                Ok(line) => messages.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("only {messages:?} of {} messages came", self.count)
                }
            }
        }
        if let Some(mut child) = self.child.take() {
            let status = child.wait().expect("a child can be waited for");
            assert!(status.success(), "the receiver ended with {status}");
        }
        messages
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The version as command lines know it.
fn number(version: Version) -> &'static str {
    match version {
        Version::V31 => "3.1",
        Version::V311 => "3.1.1",
        Version::V5 => "5",
    }
}

fn mosquitto(tool: &str, addr: SocketAddr, version: Version, qos: u8, topic: &str) -> Command {
    let mut command = Command::new(tool);
    mosquitto_options(&mut command, addr, version, qos, topic);
    command
}

fn mosquitto_options(
    command: &mut Command,
    addr: SocketAddr,
    version: Version,
    qos: u8,
    topic: &str,
) {
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()]);
    let version = match version {
        Version::V31 => "mqttv31",
        Version::V311 => "mqttv311",
        Version::V5 => "mqttv5",
    };
    command.args(["-V", version, "-q", &qos.to_string(), "-t", topic]);
}

/// The options of a session that lasts.
fn durable<'a>(command: &'a mut Command, version: Version, id: &str) -> &'a mut Command {
    command.args(["-c", "-i", id]);
    if version.is5() {
        command.args(["-x", "3600"]);
    }
    command
}

fn python() -> String {
    std::env::var("TIDEGATE_PYTHON").unwrap_or_else(|_| "python3".into())
}

/// Node, with the folder that npm installs to globally on its search path.
fn node() -> Command {
    static GLOBAL: OnceLock<Option<String>> = OnceLock::new();
    let global = GLOBAL.get_or_init(|| {
        let output = Command::new("npm").args(["root", "-g"]).output().ok()?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    });
    let mut paths: Vec<String> = std::env::var("NODE_PATH").into_iter().collect();
    paths.extend(global.clone());
    let mut command = Command::new("node");
    command.env("NODE_PATH", paths.join(":"));
    command
}

fn succeeds(command: &mut Command) -> bool {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // mosquitto_pub --version ends with 1; that it could be run is enough there.
    let is_mosquitto = command
        .get_program()
        .to_string_lossy()
        .starts_with("mosquitto");
    status.is_ok_and(|status| is_mosquitto || status.success())
}

fn run(command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}
