//! `tidegate check`: reads a configuration as `tidegate run` would, and summarizes it.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::exit::{self, Failure};
use super::run::{RunFlags, describe_durability, ignored_variables, load};
use crate::clock;
use crate::config::{Config, ConfigError, Listener, show_size};
use crate::net::tls::{ClientCertificates, Tls, TlsVersion};
use crate::server::{self, load_authenticator, load_tls};

/// The flags of `tidegate check`.
#[derive(Args, Clone, Debug)]
pub struct CheckFlags {
    /// Configuration file; without it, the environment alone is checked
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Checks a configuration. Returns its summary.
///
/// # Errors
/// Exit code 2 with all problems: file and line, key, what was found and what was expected.
pub fn run(flags: CheckFlags) -> Result<String, Failure> {
    let name = flags.config.as_ref().map(|file| file.display().to_string());
    let flags = RunFlags {
        config: flags.config,
        ..RunFlags::default()
    };
    let config = load(&flags).map_err(|error| Failure::new(exit::WRONG, error.to_string()))?;
    // Opens the files as a start would, so that unusable ones are reported now.
    let wrong = |error: server::Error| Failure::new(exit::WRONG, error.to_string());
    let tls = load_tls(&config).map_err(|problems| wrong(server::Error::Tls(problems)))?;
    let warnings = warnings(tls.iter().flatten(), clock::wall_seconds());
    load_authenticator(&config)
        .map_err(|problems| wrong(server::Error::Authentication(problems)))?;
    let wrong = |error: ConfigError| Failure::new(exit::WRONG, error.to_string());
    let acls = config.load_acls().map_err(wrong)?;
    config.try_bridge_passwords().map_err(wrong)?;
    let name = name.unwrap_or_else(|| "the configuration".to_owned());
    let ignored = ignored_variables();
    let ignored = ignored.map_or(String::new(), |names| format!("ignored    {names}\n"));
    let mut text = format!("{name} is good\n{}{ignored}{warnings}", summary(&config));
    for warning in config.warnings(&acls) {
        let _ = writeln!(text, "warning    {warning}");
    }
    Ok(text)
}

/// Returns problems that do not prevent a start but should be fixed.
fn warnings<'a>(all: impl Iterator<Item = &'a Tls>, now: i64) -> String {
    let mut text = String::new();
    for tls in all {
        for (file, days) in tls.expiring(now) {
            let file = file.display();
            let _ = match days {
                ..0 => writeln!(
                    text,
                    "warning    {file}: the certificate has expired {} days ago",
                    -days
                ),
                _ => writeln!(
                    text,
                    "warning    {file}: the certificate expires in {days} days"
                ),
            };
        }
        let past = tls.next_update().filter(|(_, next)| *next < now);
        if let Some((file, next)) = past {
            let (file, days) = (file.display(), (now - next) / 86_400);
            let _ = writeln!(
                text,
                "warning    {file}: the revocation list has expired {days} days ago"
            );
        }
    }
    text
}

fn summary(config: &Config) -> String {
    let mut text = String::new();
    for listener in &config.listeners {
        let _ = writeln!(text, "listens    {}", describe(listener));
    }
    let _ = writeln!(text, "data       {}", config.data_dir.display());
    let _ = writeln!(
        text,
        "durable    {}",
        describe_durability(&config.durability)
    );
    let _ = writeln!(
        text,
        "limits     {} connections, packets of {}, {} messages and {} waiting for a session, a database of {}",
        config.limits.max_connections,
        show_size(u64::from(config.limits.max_packet_size)),
        config.limits.max_queued_messages,
        show_size(config.limits.max_queued_bytes),
        show_size(config.store.max_bytes)
    );
    text
}

fn describe(listener: &Listener) -> String {
    let settings = &listener.settings;
    let protocol = settings.protocol();
    let mut places: Vec<String> = listener
        .bind
        .iter()
        .map(|bind| format!("{protocol}://{bind}"))
        .collect();
    places.extend(
        listener
            .socket
            .iter()
            .map(|file| format!("{protocol} at {}", file.path.display())),
    );
    let is_local = listener.bind.iter().all(crate::config::Bind::is_loopback);
    let certified = settings
        .tls
        .as_ref()
        .is_some_and(|tls| tls.clients == ClientCertificates::Required);
    let anonymous = settings.access.allow_anonymous && !certified;
    let who = match (anonymous, is_local) {
        (true, true) => "everybody on this machine may connect",
        (true, false) => "everybody who can reach it may connect",
        (false, _) if settings.authentication.is_empty() => {
            "who has a client certificate may connect"
        }
        (false, _) if settings.access.use_identity_as_username => {
            "who has a client certificate or logs in may connect"
        }
        (false, _) => "who logs in may connect",
    };
    let mut text = format!("{} ({who}", places.join(", "));
    if let Some(tls) = &settings.tls {
        text += match tls.minimum {
            TlsVersion::Tls12 => "; TLS 1.2 and 1.3",
            TlsVersion::Tls13 => "; TLS 1.3",
        };
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_configuration_is_summed_up() {
        let text = summary(&Config::default());
        assert!(
            text.contains("mqtt://127.0.0.1:1883 (everybody on this machine may connect)"),
            "{text}"
        );
        assert!(
            text.contains("every acknowledgement waits for fsync"),
            "{text}"
        );
        assert!(text.contains("packets of 2MB"), "{text}");
    }

    #[test]
    fn problems_are_the_failure() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, "a = 1\nb = 2\n").expect("written");
        let flags = CheckFlags {
            config: Some(file.path().to_owned()),
        };
        let failure = run(flags).expect_err("two unknown keys");
        assert_eq!(failure.code, exit::WRONG);
        let place = file.path().display();
        // Problems from the environment of the test, if any, follow those of the file.
        let expected = format!("{place}:1:1: a: unknown key\n{place}:2:1: b: unknown key");
        assert!(
            failure.message.starts_with(&expected),
            "{}",
            failure.message
        );
    }
}
