//! Reloads the configuration. All files are read first; then all changes take effect, or none.

use std::fmt::Write as _;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::bridges::Bridges;
use super::descriptors::Descriptors;
use super::error::Error;
use super::listeners::{Listeners, load_authenticator, load_tls};
use crate::broker::Acls;
use crate::config::{AclSettings, Config, ConfigError};
use crate::net::auth::{Authentication, Authenticator};
use crate::net::control::{Outcome, Response};
use crate::net::shared_broker::SharedBroker;
use crate::net::tls::Tls;

/// A running broker: its configuration, and the parts that a reload replaces.
pub(super) struct RunningBroker {
    /// The configuration in force.
    pub config: Config,
    pub descriptors: Descriptors,
    /// Reads the configuration as at the start.
    pub read_config: Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>,
    pub broker: Arc<SharedBroker>,
    pub listeners: Listeners,
    pub bridges: Bridges,
    pub authentication: Arc<Authentication>,
}

/// A configuration with all files that it names.
struct LoadedConfig {
    config: Config,
    tls: Vec<Option<Tls>>,
    acls: Acls,
    authenticator: Authenticator,
}

impl RunningBroker {
    /// Reads the configuration again and applies it. The result is logged and returned.
    pub async fn reload(&mut self) -> Response {
        let response = self.try_reload().await.unwrap_or_else(|error| Response {
            outcome: Outcome::Failed,
            text: format!("nothing took effect:\n{error}\n"),
        });
        for line in response.text.lines() {
            match response.outcome {
                Outcome::Failed => tracing::error!("reload: {line}"),
                Outcome::Done | Outcome::Restart => tracing::info!("reload: {line}"),
            }
        }
        response
    }

    async fn try_reload(&mut self) -> Result<Response, Error> {
        let read_config = Arc::clone(&self.read_config);
        // Reading a file may wait for a disk.
        let read = spawn_blocking(move || read(&*read_config)).await;
        let LoadedConfig {
            config,
            tls,
            acls,
            authenticator,
        } = read.map_err(|panic| Error::Start(std::io::Error::other(panic)))??;
        let prepared = self.listeners.prepare(&config, tls)?;
        // From here on nothing can fail.
        let (config, restart) = effective_config(&self.config, config);
        let limits = config.limits.clone();
        let mut changes = Vec::new();
        if self.config.limits != limits {
            changes.push("[limits]: changed".to_owned());
        }
        if self.config.allow_other_users != config.allow_other_users {
            changes.push("authentication.allow_other_users: changed".to_owned());
        }
        if self.config.upgrade_outgoing_qos != config.upgrade_outgoing_qos {
            changes.push("upgrade_outgoing_qos: changed".to_owned());
        }
        for file in authenticator.files() {
            changes.push(format!("logins: {} was read again", file.display()));
        }
        if acls.common.is_some() || self.config.acl != config.acl {
            changes.push(describe(&config.acl));
        }
        for file in acls.own.keys() {
            changes.push(format!("access rules: {file} was read again"));
        }
        warn(&config, &acls);
        let max_connections = self.descriptors.connections(&config);
        self.listeners.set_max_connections(max_connections);
        let throttle = config.throttle;
        let authentication = &self.authentication;
        // While a bridge is stopped, its messages wait.
        let change = self.bridges.stop(&config.bridges).await;
        let mut bridges = Vec::new();
        changes.extend(self.listeners.apply(prepared, |broker, now| {
            bridges = change.open(broker, now);
            authentication.replace(authenticator, throttle);
            broker.set_limits(limits, now);
            broker.allow_other_users(config.allow_other_users);
            broker.upgrade_outgoing_qos(config.upgrade_outgoing_qos);
            broker.set_acl(acls, now);
            broker.withdraw_logins(
                |user, credential| authentication.accepts_credential(user, credential),
                now,
            );
        }));
        self.bridges.start(change, &self.broker);
        changes.extend(bridges);
        self.config = config;
        Ok(response(&changes, &restart))
    }
}

fn read(read_config: &dyn Fn() -> Result<Config, ConfigError>) -> Result<LoadedConfig, Error> {
    let config = read_config()?;
    let tls = load_tls(&config).map_err(Error::Tls)?;
    let acls = config.load_acls()?;
    config.try_bridge_passwords()?;
    let authenticator = load_authenticator(&config).map_err(Error::Authentication)?;
    Ok(LoadedConfig {
        config,
        tls,
        acls,
        authenticator,
    })
}

fn describe(acl: &AclSettings) -> String {
    match (&acl.file, &acl.rules) {
        (Some(file), _) => format!("access rules: {} was read again", file.display()),
        (None, Some(_)) => "access rules: those of the configuration".to_owned(),
        (None, None) => "access rules: there are none any more, everything is allowed".to_owned(),
    }
}

fn response(changes: &[String], restart: &[&str]) -> Response {
    let mut text = String::new();
    for line in changes {
        let _ = writeln!(text, "{line}");
    }
    if changes.is_empty() && restart.is_empty() {
        text += "nothing has changed\n";
    }
    if restart.is_empty() {
        return Response {
            outcome: Outcome::Done,
            text,
        };
    }
    let _ = writeln!(text, "takes a restart: {}", restart.join(", "));
    Response {
        outcome: Outcome::Restart,
        text,
    }
}

/// Returns the configuration that is in force after a reload: the new one, with the old values of
/// keys that need a restart. Also returns the names of those keys that have changed.
fn effective_config(old: &Config, mut new: Config) -> (Config, Vec<&'static str>) {
    let mut restart = Vec::new();
    /// Keeps the old value of each key, and names the key if it has changed.
    macro_rules! keep {
        ($($key:literal: $($field:ident).+;)*) => {
            $(if new.$($field).+ != old.$($field).+ {
                restart.push($key);
                new.$($field).+ = old.$($field).+.clone();
            })*
        };
    }
    keep! {
        "data_dir": data_dir;
        "durability, durability_rules": durability;
        "[store]": store;
        "store.commit_delay": commit_delay;
        "worker_threads": worker_threads;
        "sys_interval": sys_interval;
        "metrics.bind": metrics;
        "log.level": log;
        // Clients were told these values when they connected.
        "limits.receive_maximum": limits.receive_maximum;
        "limits.max_packet_size": limits.max_packet_size;
        "limits.max_topic_alias": limits.max_topic_alias;
        "limits.maximum_qos": limits.maximum_qos;
        "limits.retain_available": limits.retain_available;
    }
    for bridge in &mut new.bridges {
        bridge.max_packet_size = new.limits.max_packet_size;
    }
    (new, restart)
}

/// Logs settings that are allowed but probably not intended. The log target is the same at a start
/// and at a reload.
pub(super) fn warn(config: &Config, acls: &Acls) {
    for warning in config.warnings(acls) {
        tracing::warn!(target: "tidegate::server", "{warning}");
    }
}
