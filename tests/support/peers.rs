//! Other brokers, as upstreams of bridges and for comparison. Each needs a program that may not be
//! installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Broker;
use crate::broker::free_address;
use crate::program::is_installed;

/// The start script of RabbitMQ in Debian. The scripts on the path change to another user.
const RABBITMQ: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

impl Broker {
    /// Runs Mosquitto with these lines of configuration on a port of this machine. Returns `None`
    /// if it is not installed.
    pub fn mosquitto(config: &str) -> Option<Broker> {
        // In Debian it is in a directory for system administration, which may not be on the path.
        let known = [
            "mosquitto",
            "/usr/sbin/mosquitto",
            "/usr/local/sbin/mosquitto",
        ];
        let program = known.into_iter().find(|program| runs(program, "-h"));
        is_installed(
            "mosquitto",
            "Debian: apt-get install mosquitto",
            program.is_some(),
        )
        .then_some(())?;
        let program = program?;
        let config = config.to_owned();
        Some(Broker::peer(move |dir, port| {
            // If root runs it, it would change to a user who cannot read the files.
            let text = format!("user root\nlistener {port} 127.0.0.1\n{config}");
            let mut command = Command::new(program);
            command.arg("-c").arg(written(dir, "mosquitto.conf", &text));
            command
        }))
    }

    /// Runs RabbitMQ with its MQTT plugin and anonymous clients. Returns `None` if it is not
    /// installed.
    pub fn rabbitmq() -> Option<Broker> {
        let found = Path::new(RABBITMQ).exists();
        is_installed(
            "rabbitmq-server",
            "Debian: apt-get install rabbitmq-server",
            found,
        )
        .then_some(())?;
        Some(Broker::peer(move |dir, port| {
            let config = format!(
                "listeners.tcp = none\nmqtt.listeners.tcp.1 = 127.0.0.1:{port}\nmqtt.allow_anonymous = true\nlog.file = false\n"
            );
            written(dir, "rabbitmq.conf", &config);
            written(dir, "plugins", "[rabbitmq_mqtt].");
            // The port mapper of Erlang would keep running. It is started here, so that it ends
            // with the others.
            let mut command = Command::new("sh");
            command.args(["-c", "epmd & exec \"$0\" >&2", RABBITMQ]);
            command.env("HOME", dir);
            command.env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq"));
            command.env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"));
            command.env("RABBITMQ_MNESIA_BASE", dir.join("data"));
            command.env("RABBITMQ_LOG_BASE", dir.join("log"));
            command.env("RABBITMQ_NODENAME", format!("t{port}@localhost"));
            command.env("RABBITMQ_DIST_PORT", free_address().port().to_string());
            command.env("ERL_EPMD_ADDRESS", "127.0.0.1");
            command.env("ERL_EPMD_PORT", free_address().port().to_string());
            command
        }))
    }

    /// Runs rumqttd, for MQTT 5 if `v5`, otherwise for MQTT 3.1.1. Returns `None` if it is not
    /// installed. `TIDEGATE_RUMQTTD` is its path if it is not on the search path.
    pub fn rumqttd(v5: bool) -> Option<Broker> {
        let program = std::env::var("TIDEGATE_RUMQTTD").unwrap_or_else(|_| "rumqttd".to_owned());
        let found = runs(&program, "--help");
        is_installed("rumqttd", "cargo install rumqttd", found).then_some(())?;
        let section = if v5 { "v5" } else { "v4" };
        Some(Broker::peer(move |dir, port| {
            let config = format!(
                "id = 0\n[router]\nid = 0\nmax_connections = 100\nmax_outgoing_packet_count = 200\nmax_segment_size = 104857600\nmax_segment_count = 10\n\
                 [{section}.1]\nname = \"mqtt\"\nlisten = \"127.0.0.1:{port}\"\nnext_connection_delay_ms = 1\n\
                 [{section}.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 20480\nmax_inflight_count = 100\ndynamic_filters = true\n"
            );
            let mut command = Command::new(&program);
            command.arg("-c").arg(written(dir, "rumqttd.toml", &config));
            command
        }))
    }
}

fn written(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    std::fs::write(&file, text).expect("the configuration can be written");
    file
}

/// Returns whether a program is installed and can be started.
fn runs(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).output().is_ok()
}
