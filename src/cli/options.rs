//! The flags that `pub` and `sub` share, named as in mosquitto_pub and mosquitto_sub.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::exit::Failure;
use super::property::PacketProperties;
use super::transport::{Transport, TransportFlags};
use crate::clock;
use crate::net::bridge::Password;
use crate::wire::{Property, ProtocolVersion, QoS, text, topic};

/// The error text if there is no topic in `-L` and no `-t`.
pub const NO_TOPIC: &str = "there is no topic, neither in -L nor as -t";
/// The environment variable with the password, used if there is a user name and no other password.
const PASSWORD_VARIABLE: &str = "MQTT_PASSWORD";

/// How to connect.
#[derive(Args, Clone, Debug)]
pub struct ConnectionFlags {
    /// Host of the server
    #[arg(short = 'h', long, default_value = "localhost")]
    pub host: String,
    /// Port of the server [default: 1883; with TLS 8883; WebSocket 8083, with TLS 8084]
    #[arg(short, long)]
    pub port: Option<u16>,
    /// What to connect through
    #[command(flatten)]
    pub transport: TransportFlags,
    /// Connect from this address of this machine
    #[arg(short = 'A', value_name = "ADDRESS")]
    pub bind_address: Option<IpAddr>,
    /// Client identifier; without it one is made up
    #[arg(short, long, allow_hyphen_values = true)]
    pub id: Option<String>,
    /// Keep the session when disconnected, and take up an earlier one (needs -i)
    #[arg(short = 'c', long)]
    pub disable_clean_session: bool,
    /// Keep the session this many seconds when disconnected (MQTT 5); "never" to keep it without
    /// end
    #[arg(short = 'x', long, value_name = "SECONDS", value_parser = session_expiry, allow_hyphen_values = true)]
    pub session_expiry_interval: Option<u32>,
    /// Protocol version: 31, 311 or 5, also written mqttv31, mqttv311, mqttv5 [default: 311, or 5
    /// with -D or -x]
    #[arg(short = 'V', long, value_name = "VERSION", value_parser = protocol_version)]
    pub protocol_version: Option<ProtocolVersion>,
    /// User name
    #[arg(short, long, allow_hyphen_values = true)]
    pub username: Option<String>,
    /// Password; others on this machine can see it, see --pw-file [with -u: also from the
    /// environment variable MQTT_PASSWORD]
    #[arg(
        short = 'P',
        long = "pw",
        value_name = "PASSWORD",
        allow_hyphen_values = true
    )]
    pub password: Option<String>,
    /// Password: the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    pub pw_file: Option<PathBuf>,
    /// Keep alive in seconds; 0 for none
    #[arg(short, long, default_value_t = 60)]
    pub keepalive: u16,
    /// A property of MQTT 5: packet, name and value, as in `-D publish content-type text/plain` or
    /// `-D connect user-property key value`
    #[arg(
        short = 'D',
        long,
        num_args = 3..=4,
        value_names = ["PACKET", "NAME", "VALUE", "VALUE"],
        action = ArgAction::Append,
        allow_negative_numbers = true
    )]
    pub property: Vec<String>,
    /// Topic of the will, which the server publishes if the connection ends badly
    #[arg(long, value_name = "TOPIC", value_parser = topic_name)]
    pub will_topic: Option<String>,
    /// Payload of the will
    #[arg(
        long,
        value_name = "PAYLOAD",
        requires = "will_topic",
        allow_hyphen_values = true
    )]
    pub will_payload: Option<String>,
    /// QoS of the will
    #[arg(long, value_name = "QOS", requires = "will_topic", value_parser = qos)]
    pub will_qos: Option<QoS>,
    /// Publish the will retained
    #[arg(long, requires = "will_topic")]
    pub will_retain: bool,
    /// Take more options from this file, one a line, before those of the command line, which
    /// replace them [default: tidegate/pub or tidegate/sub in $XDG_CONFIG_HOME or ~/.config, if it
    /// is there]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub options_file: Option<PathBuf>,
    /// Tell on stderr what is sent and received
    #[arg(short, long)]
    pub debug: bool,
    /// No error messages
    #[arg(long)]
    pub quiet: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
}

/// The checked connection settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The text after the host in the URL, see [`Settings::topic_of_url`].
    url_topic: Option<String>,
    /// Transport.
    pub transport: Transport,
    /// Address to connect from.
    pub bind_address: Option<IpAddr>,
    /// Client identifier. Empty to let the server assign one (MQTT 5).
    pub client_id: String,
    /// Whether to begin a new session.
    pub clean_start: bool,
    /// Protocol version.
    pub version: ProtocolVersion,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Keep alive in seconds.
    pub keep_alive: u16,
    /// Properties of the packets that are sent.
    pub properties: PacketProperties,
    /// The will.
    pub will: Option<WillSettings>,
    /// Whether to show on stderr what is sent and received.
    pub debug: bool,
    /// Time limit for connecting.
    pub connect_timeout: Duration,
}

/// The will without its properties.
#[derive(Clone, Debug)]
pub struct WillSettings {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: String,
    /// QoS.
    pub qos: QoS,
    /// Retain flag.
    pub retain: bool,
}

impl ConnectionFlags {
    /// Checks the flags against each other.
    ///
    /// # Errors
    /// A usage failure that names the flags.
    pub fn settings(self) -> Result<Settings, Failure> {
        let needs_v5 = !self.property.is_empty() || self.session_expiry_interval.is_some();
        let version = match (self.protocol_version, needs_v5) {
            (None, true) => ProtocolVersion::V5,
            (None, false) => ProtocolVersion::V311,
            (Some(ProtocolVersion::V5), _) => ProtocolVersion::V5,
            (Some(version), false) => version,
            (Some(_), true) => {
                return Err(Failure::usage(
                    "-D and -x are for MQTT 5: leave -V away, or say -V 5",
                ));
            }
        };
        let (transport, url) = self.transport.transport()?;
        let login = url.as_ref().and_then(|url| url.login.clone());
        let of_file = self.pw_file.map(Password::File);
        let of_flag = self.password.map(Password::Inline).or(of_file);
        let (username, password) = match login {
            Some((user, password)) => {
                if self.username.is_some() || (password.is_some() && of_flag.is_some()) {
                    return Err(Failure::usage(
                        "-u, -P and --pw-file, and a login in -L, say the same: one of them is enough",
                    ));
                }
                (Some(user), password.map(Password::Inline).or(of_flag))
            }
            None => (self.username, of_flag),
        };
        let of_environment = || {
            let password = std::env::var(PASSWORD_VARIABLE).ok()?;
            username.is_some().then_some(Password::Inline(password))
        };
        let password = password.or_else(of_environment);
        let read = |password: Password| {
            let bytes = password.read().map_err(|error| error.to_string())?;
            String::from_utf8(bytes).map_err(|_| "the password is not UTF-8".to_owned())
        };
        let password = password.map(read).transpose().map_err(Failure::usage)?;
        let port = url.as_ref().and_then(|url| url.port).or(self.port);
        if self.disable_clean_session && self.id.as_deref().unwrap_or("").is_empty() {
            return Err(Failure::usage(
                "-c needs -i: a session is found again by its client identifier",
            ));
        }
        if version != ProtocolVersion::V5 && password.is_some() && username.is_none() {
            return Err(Failure::usage("-P without -u is for MQTT 5 only"));
        }
        let mut properties = PacketProperties::parse(&self.property).map_err(Failure::usage)?;
        // In MQTT 3 a session that is kept is kept without end. In MQTT 5 `-c` means the same
        // unless `-x` is given.
        let has_expiry = properties
            .connect
            .as_properties()
            .iter()
            .any(|property| matches!(property, Property::SessionExpiryInterval(_)));
        if has_expiry && self.session_expiry_interval.is_some() {
            return Err(Failure::usage(
                "-x and -D connect session-expiry-interval say the same: one of them is enough",
            ));
        }
        let kept = self.disable_clean_session && version == ProtocolVersion::V5 && !has_expiry;
        let expiry = self.session_expiry_interval.or(kept.then_some(u32::MAX));
        if let Some(expiry) = expiry {
            properties
                .connect
                .push(Property::SessionExpiryInterval(expiry));
        }
        let will = self.will_topic.map(|topic| WillSettings {
            topic,
            payload: self.will_payload.unwrap_or_default(),
            qos: self.will_qos.unwrap_or(QoS::AtMostOnce),
            retain: self.will_retain,
        });
        let client_id = match (self.id, version) {
            (Some(id), _) => id,
            (None, ProtocolVersion::V5) => String::new(),
            // MQTT 3.1 requires 1 to 23 characters.
            (None, _) => format!("tidegate-{:08x}", clock::seed() as u32),
        };
        Ok(Settings {
            url_topic: url.as_ref().and_then(|url| url.topic.clone()),
            host: url.map_or(self.host, |url| url.host),
            port: port.unwrap_or(transport.default_port()),
            transport,
            bind_address: self.bind_address,
            client_id,
            clean_start: !self.disable_clean_session,
            version,
            username,
            password,
            keep_alive: self.keepalive,
            properties,
            will,
            debug: self.debug,
            connect_timeout: Duration::from_secs(30),
        })
    }
}

impl Settings {
    /// Returns the topic at the end of the URL, if any, after validation with `read`.
    ///
    /// # Errors
    /// A usage failure that names the topic.
    pub fn topic_of_url(
        &self,
        read: fn(&str) -> Result<String, String>,
    ) -> Result<Option<String>, Failure> {
        let wrong = |topic: &str, what| Failure::usage(format!("-L: the topic {topic:?}: {what}"));
        let topic = self.url_topic.as_deref();
        topic
            .map(|topic| read(topic).map_err(|what| wrong(topic, what)))
            .transpose()
    }
}

/// Parses `0`, `1` or `2`.
///
/// # Errors
/// Fails for anything else.
pub fn qos(text: &str) -> Result<QoS, String> {
    let digit = text.parse().ok().filter(|_| text.len() == 1);
    let qos = digit.and_then(QoS::new);
    qos.ok_or_else(|| "expected 0, 1 or 2".to_owned())
}

/// Parses seconds, with or without a fraction.
///
/// # Errors
/// Fails if it is no number or negative.
pub fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "expected seconds, as in 2 or 0.5".to_owned())
}

/// Parses a topic name.
///
/// # Errors
/// Fails if it is empty, too long or has a wildcard.
pub fn topic_name(text: &str) -> Result<String, String> {
    if topic::is_valid_name(text) && text::is_plain(text) {
        Ok(text.to_owned())
    } else {
        Err("expected a topic name: 1 to 65535 bytes, without + and #, and without control characters".to_owned())
    }
}

/// Parses a topic filter.
///
/// # Errors
/// Fails if it is not valid.
pub fn topic_filter(text: &str) -> Result<String, String> {
    if topic::Filter::parse(text).is_some() && text::is_plain(text) {
        Ok(text.to_owned())
    } else {
        Err("expected a topic filter: + alone in a level, # alone in the last one, and no control characters".to_owned())
    }
}

/// Parses a protocol version.
///
/// # Errors
/// Fails if it is not known.
pub fn protocol_version(text: &str) -> Result<ProtocolVersion, String> {
    match text {
        "mqttv31" | "31" | "3.1" => Ok(ProtocolVersion::V31),
        "mqttv311" | "311" | "3.1.1" => Ok(ProtocolVersion::V311),
        "mqttv5" | "5" | "5.0" => Ok(ProtocolVersion::V5),
        _ => Err("expected mqttv31, mqttv311 or mqttv5, or 31, 311 or 5".to_owned()),
    }
}

fn session_expiry(text: &str) -> Result<u32, String> {
    match text {
        "never" | "-1" | "∞" => Ok(u32::MAX),
        _ => text
            .parse()
            .map_err(|_| "expected seconds from 0 to 4294967295, or never".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    #[command(disable_help_flag = true, args_override_self = true)]
    struct Only {
        #[command(flatten)]
        flags: ConnectionFlags,
    }

    fn settings(line: &str) -> Result<Settings, String> {
        let words = ["x"].into_iter().chain(line.split_whitespace());
        let only = Only::try_parse_from(words).map_err(|error| error.to_string())?;
        only.flags.settings().map_err(|failure| failure.message)
    }

    #[test]
    fn the_flags_people_know_mean_what_they_mean() {
        let s = settings(
            "-h ::1 -p 1884 -i me -c -V mqttv5 -u user -P -secret -k 5 -x 60 -d \
             -D connect user-property k -5 -D publish content-type a/b --will-topic w --will-payload bye --will-qos 2 --will-retain",
        )
        .expect("good flags");
        assert_eq!((s.host.as_str(), s.port), ("::1", 1884));
        assert_eq!(s.client_id, "me");
        assert!(!s.clean_start);
        assert_eq!(s.version, ProtocolVersion::V5);
        assert_eq!(s.password.as_deref(), Some("-secret"));
        assert_eq!(s.keep_alive, 5);
        assert!(s.debug);
        let connect: Vec<Property<'_>> = s.properties.connect.as_properties().iter().collect();
        assert_eq!(
            connect,
            [
                Property::UserProperty("k", "-5"),
                Property::SessionExpiryInterval(60)
            ]
        );
        let will = s.will.expect("a will");
        assert_eq!((will.topic.as_str(), will.payload.as_str()), ("w", "bye"));
        assert_eq!((will.qos, will.retain), (QoS::ExactlyOnce, true));
    }

    #[test]
    fn the_version_is_311_unless_something_needs_5() {
        let version = |line: &str| settings(line).expect(line).version;
        assert_eq!(version(""), ProtocolVersion::V311);
        assert_eq!(version("-V 31"), ProtocolVersion::V31);
        assert_eq!(version("-V 5"), ProtocolVersion::V5);
        assert_eq!(version("-x 5"), ProtocolVersion::V5);
        assert_eq!(version("-D publish topic-alias 1"), ProtocolVersion::V5);
        assert!(
            settings("-x 5 -V 311")
                .expect_err("5 only")
                .contains("for MQTT 5")
        );
    }

    #[test]
    fn a_kept_session_never_expires_unless_told() {
        let expiry = |line: &str| {
            let block = settings(line).expect(line).properties.connect;
            block
                .as_properties()
                .iter()
                .find_map(|property| match property {
                    Property::SessionExpiryInterval(seconds) => Some(seconds),
                    _ => None,
                })
        };
        assert_eq!(expiry("-V 5"), None);
        assert_eq!(expiry("-V 5 -c -i a"), Some(u32::MAX));
        assert_eq!(expiry("-V 5 -c -i a -x 9"), Some(9));
        assert_eq!(expiry("-x never"), Some(u32::MAX));
        assert_eq!(expiry("-x -1"), Some(u32::MAX));
        assert_eq!(
            expiry("-c -i a -D connect session-expiry-interval 7"),
            Some(7)
        );
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        for (line, needle) in [
            ("-c", "-c needs -i"),
            ("-P x", "-P without -u"),
            ("-V 4", "expected mqttv31"),
            ("-p 65536", "65536"),
            ("-x soon", "expected seconds"),
            ("--will-topic a/#", "expected a topic name"),
            ("--will-qos 3 --will-topic a", "expected 0, 1 or 2"),
            ("--will-payload x", "--will-topic"),
            ("-D publish", "3"),
            ("-D publish colour red", "no property of this name"),
            (
                "-x 5 -D connect session-expiry-interval 7",
                "one of them is enough",
            ),
        ] {
            let error = settings(line).expect_err(line);
            assert!(error.contains(needle), "{line}: {error}");
        }
    }

    #[test]
    fn a_flag_given_twice_takes_the_last() {
        let s = settings("-h a -h b -p 1 -p 2 -i x -i y -d -d -k 5 -k 6").expect("good flags");
        assert_eq!((s.host.as_str(), s.port, s.keep_alive), ("b", 2, 6));
        assert_eq!(s.client_id, "y");
    }

    #[test]
    fn a_password_can_come_from_a_file_or_a_url() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, "se cret\nmore\n").expect("written");
        let path = file.path().display();
        let login = |line: &str| settings(line).map(|s| (s.username, s.password));
        let expected =
            |user: &str, password: &str| Ok((Some(user.to_owned()), Some(password.to_owned())));
        assert_eq!(
            login(&format!("-u me --pw-file {path}")),
            expected("me", "se cret")
        );
        assert_eq!(login("-L mqtt://me:too@a"), expected("me", "too"));
        let of_both = format!("-L mqtt://me@a --pw-file {path}");
        assert_eq!(login(&of_both), expected("me", "se cret"));
        for line in ["-L mqtt://me:too@a -P x", "-L mqtt://me@a -u me"] {
            assert!(
                login(line)
                    .expect_err(line)
                    .contains("one of them is enough")
            );
        }
        let missing = login("-u me --pw-file /nowhere/at/all").expect_err("no file");
        assert!(missing.contains("/nowhere/at/all"), "{missing}");
        assert!(login(&format!("-P x --pw-file {path}")).is_err());
    }

    #[test]
    fn a_made_up_client_identifier_fits_mqtt_31() {
        let id = settings("-V 31").expect("good").client_id;
        assert!((1..=23).contains(&id.len()), "{id}");
        assert_eq!(settings("-V 5").expect("good").client_id, "");
    }
}
