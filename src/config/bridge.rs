//! Bridges: each key by itself, then what goes with what.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::bind::binds;
use super::error::ConfigError;
use super::model::Config;
use super::mqtt::{protocol, qos, session_expiry, version, whole_seconds};
use super::notifications::notifications;
use super::proxy::proxy;
use super::start::start;
use super::text::{path, text, texts};
use super::tls::tls_version;
use super::tree::{Problem, Section, Value};
use super::websocket::websocket_path;
use crate::broker::bridge::{Bridge, Direction, QueueFull, QueuePolicy, Rates, Rule, SendRetained};
use crate::limits::Limits;
use crate::net::bridge::{Address, BridgeSettings, Password, Transport};
use crate::net::listener::Protocol;
use crate::net::tls::CertificateFiles;
use crate::net::tls::client::ClientTls;
use crate::net::tls::pin::Pin;
use crate::wire::{ProtocolVersion, QoS, text::is_plain, topic};

const ADDRESS_EXPECTED: &str = "the upstream's address such as \"cloud.example.org:8883\", without a port for the protocol's own, or a list of up to 16 such";
/// Addresses of a bridge.
const MOST_ADDRESSES: usize = 16;
/// Most properties a bridge adds to a message.
const USER_PROPERTIES: usize = 64;
const HOUR: Duration = Duration::from_secs(3600);

impl Config {
    /// Tries the files of passwords for bridges, which are read again at each attempt to connect.
    ///
    /// # Errors
    /// Those that cannot be read.
    pub fn try_bridge_passwords(&self) -> Result<(), ConfigError> {
        let own = self.bridges.iter().filter_map(|it| it.password.as_ref());
        let own = own.map(|password| ("remote_password_file", password));
        let proxies = self
            .bridges
            .iter()
            .filter_map(|it| it.transport.proxy.as_ref());
        let logins = proxies.filter_map(|proxy| proxy.login.as_ref());
        let theirs = logins.map(|(_, password)| ("proxy_password_file", password));
        let problems = own.chain(theirs).filter_map(|(key, password)| {
            let what = password.read().err()?.to_string();
            Some(Problem {
                place: "bridges".to_owned(),
                key: key.to_owned(),
                what,
            })
        });
        let problems: Vec<Problem> = problems.collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError { problems })
        }
    }
}

/// The bridges of the file.
pub(super) fn bridges(root: &mut Section<'_, '_>, limits: &Limits) -> Vec<BridgeSettings> {
    let mut names: Vec<Box<str>> = Vec::new();
    let mut clients: Vec<(Box<str>, Vec<Address>)> = Vec::new();
    root.each("bridges", |mut section| {
        let settings = bridge(&mut section, limits);
        if let Some(settings) = &settings {
            let name = settings.bridge.name.clone();
            if names.contains(&name) {
                section.reject("name", format!("there are two bridges named {name:?}"));
            }
            let client = settings.bridge.remote_clientid.clone();
            let same = clients.iter().zip(&names).find(|((it, addresses), _)| {
                *it == client && addresses.iter().any(|at| settings.addresses.contains(at))
            });
            if let Some((_, other)) = same {
                let what = format!(
                    "the bridge {other:?} has the same, and an address in common: the upstream would end one for the other, for ever; expected one for each"
                );
                section.reject("remote_clientid", what);
            }
            clients.push((client, settings.addresses.clone()));
            names.push(name);
        }
        section.close();
        settings
    })
}

/// Whether a bridge can have this name.
pub fn is_bridge_name(text: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=64).contains(&text.len()) && text.chars().all(is_good)
}

fn bridge(s: &mut Section<'_, '_>, limits: &Limits) -> Option<BridgeSettings> {
    let expected = "a name of letters, digits, - and _, up to 64";
    let name: Option<Box<str>> = s.required("name", expected, |value| {
        let text = value.as_text()?;
        is_bridge_name(text).then(|| text.into())
    });
    let protocol = protocol(s);
    let addresses = s.required("address", ADDRESS_EXPECTED, |value| {
        let binds = binds(value, Some(protocol.default_port()))?;
        if binds.len() > MOST_ADDRESSES {
            return None;
        }
        let addresses = binds.iter().map(|bind| Address {
            host: bind.host().to_owned(),
            port: bind.port(),
        });
        Some(addresses.collect())
    });
    let expected = "the client identifier at the upstream, which no other client there may have";
    let remote_clientid: Option<Box<str>> = s.required("remote_clientid", expected, |value| {
        let text = value.as_text()?;
        (!text.is_empty() && text.len() <= 65_535 && is_plain(text)).then(|| text.into())
    });
    let transport = transport(s, protocol);
    let (username, password) = login(s);
    let version = speech(s);
    let rules = rules(s, version);
    let rates = 0..=1_000_000_000;
    let second = Duration::from_secs(1);
    let bridge = Bridge {
        name: name.clone().unwrap_or_default(),
        rules,
        remote_clientid: remote_clientid.clone().unwrap_or_default(),
        max_inflight_messages: s.optional_number("max_inflight_messages", 1..=65_535),
        keepalive_interval: keepalive(s),
        response_timeout_ms: u64::try_from(
            s.duration(
                "response_timeout",
                30 * second,
                Duration::from_millis(100)..=HOUR,
            )
            .as_millis(),
        )
        .unwrap_or(30_000),
        session_expiry: session_expiry(s, "session_expiry", u32::MAX),
        marks: s.flag("marks", true),
        max_topic_alias_out: s.number(
            "max_topic_alias_out",
            limits.max_topic_alias_out,
            0..=65_535,
        ),
        user_properties: user_properties(s, version),
        rates_in: Rates {
            messages: s.number("max_message_rate_in", 0, rates.clone()),
            bytes: s.size("max_byte_rate_in", 0, rates.clone()),
        },
        rates_out: Rates {
            messages: s.number("max_message_rate_out", 0, rates.clone()),
            bytes: s.size("max_byte_rate_out", 0, rates),
        },
        dead_letter_topic: dead_letter_topic(s),
        queue: queue_policy(s),
        clean_session: s.flag("cleansession", false),
        notifications: notifications(s, remote_clientid.as_deref().unwrap_or_default()),
    };
    let start = start(s, bridge.clean_session);
    let short = Duration::from_millis(10);
    let restart_timeout_base = s.duration("restart_timeout_base", second, short..=HOUR);
    let restart_timeout_cap = s.duration("restart_timeout_cap", 60 * second, short..=24 * HOUR);
    if restart_timeout_base > restart_timeout_cap {
        s.reject(
            "restart_timeout_base",
            "is longer than restart_timeout_cap, expected at most as long",
        );
    }
    let connect_timeout = s.duration("connect_timeout", 10 * second, short..=HOUR);
    let (round_robin, probe_interval, hold_down) = going_back(s);
    if name.is_none() || remote_clientid.is_none() {
        return None;
    }
    let addresses: Vec<Address> = addresses?;
    check_identifiers(s, addresses.len(), bridge.max_inflight_messages);
    Some(BridgeSettings {
        bridge: Arc::new(bridge),
        addresses,
        round_robin,
        probe_interval,
        hold_down,
        start,
        transport,
        version,
        username,
        password,
        connect_timeout,
        restart_timeout_base,
        restart_timeout_cap,
        max_packet_size: limits.max_packet_size,
    })
}

/// Which address is next, how often the others are tried, and how long a better one must have
/// answered.
fn going_back(s: &mut Section<'_, '_>) -> (bool, Duration, Duration) {
    let round_robin = s.flag("round_robin", false);
    let second = Duration::from_secs(1);
    let expected = "a duration such as \"30s\", from \"100ms\" to \"24h\", or \"0s\" for never";
    let probe_interval = s.get("probe_interval", 30 * second, expected, |value| {
        let range = Duration::from_millis(100)..=24 * HOUR;
        let interval = value.as_duration()?;
        (interval.is_zero() || range.contains(&interval)).then_some(interval)
    });
    let written = s.has("hold_down");
    let hold_down = s.duration("hold_down", 60 * second, Duration::ZERO..=24 * HOUR);
    if written && (round_robin || probe_interval.is_zero()) {
        s.reject(
            "hold_down",
            "has no effect with round_robin or without probes; expected neither of these",
        );
    }
    (round_robin, probe_interval, hold_down)
}

/// Identifiers of what was under way at addresses the bridge has left are kept from being used, and
/// there are 65,535.
fn check_identifiers(s: &mut Section<'_, '_>, addresses: usize, window: Option<u16>) {
    let most = usize::from(u16::MAX) / (addresses + 1);
    if addresses > 1 && window.is_some_and(|window| usize::from(window) > most) {
        s.reject(
            "max_inflight_messages",
            format!("with {addresses} addresses, expected at most {most}"),
        );
    }
}

fn queue_policy(s: &mut Section<'_, '_>) -> QueuePolicy {
    let expected = "\"drop_newest\", \"drop_oldest\" or \"refuse\"";
    QueuePolicy {
        max_queued_messages: (s.has("max_queued_messages"))
            .then(|| s.number("max_queued_messages", u64::MAX, 1..=u64::MAX)),
        max_queued_bytes: (s.has("max_queued_bytes"))
            .then(|| s.size("max_queued_bytes", u64::MAX, 1..=u64::MAX)),
        queue_full: s.get("queue_full", QueueFull::DropNewest, expected, |value| {
            Some(match value.as_text()? {
                "drop_newest" => QueueFull::DropNewest,
                "drop_oldest" => QueueFull::DropOldest,
                "refuse" => QueueFull::Refuse,
                _ => return None,
            })
        }),
        live_first: s.flag("live_first", false),
    }
}

fn keepalive(s: &mut Section<'_, '_>) -> u16 {
    let expected = "a duration in whole seconds from \"1s\" to \"65535s\", or \"0s\" for none";
    s.get("keepalive_interval", 60, expected, |value| {
        u16::try_from(whole_seconds(value)?).ok()
    })
}

fn speech(s: &mut Section<'_, '_>) -> Option<ProtocolVersion> {
    let expected =
        "\"5\", \"3.1.1\", or \"auto\" for 5 and, if the upstream does not speak it, 3.1.1";
    s.get("protocol_version", None, expected, |value| {
        match value.as_text()? {
            "auto" => Some(None),
            text => version(text)
                .filter(|version| *version != ProtocolVersion::V31)
                .map(Some),
        }
    })
}

fn login(s: &mut Section<'_, '_>) -> (Option<String>, Option<Password>) {
    let username = text(s, "remote_username", "the user name at the upstream");
    let password = text(s, "remote_password", "the password at the upstream").map(Password::Inline);
    let file = path(s, "remote_password_file").map(Password::File);
    if password.is_some() && file.is_some() {
        s.reject(
            "remote_password_file",
            "there is a remote_password, too; expected one of them",
        );
    }
    (username, password.or(file))
}

fn dead_letter_topic(s: &mut Section<'_, '_>) -> Option<Box<str>> {
    let expected = "a topic name, not under $SYS/";
    let read = s.optional("dead_letter_topic", expected, |value| {
        let text = value.as_text()?;
        let is_good = topic::is_valid_name(text) && is_plain(text) && !text.starts_with("$SYS/");
        is_good.then(|| text.into())
    });
    read.ok().flatten()
}

fn transport(s: &mut Section<'_, '_>, protocol: Protocol) -> Transport {
    let cafile = path(s, "cafile");
    let (certfile, keyfile) = (path(s, "certfile"), path(s, "keyfile"));
    if certfile.is_some() != keyfile.is_some() {
        s.reject("certfile", "certfile and keyfile need each other");
    }
    let server_name = text(s, "server_name", "the name in the upstream's certificate");
    let alpn = text(s, "alpn", "the name of a protocol such as \"mqtt\"");
    let pinned_keys = pinned_keys(s);
    let allow_x509_v1 = s.flag("allow_x509_v1", false);
    let insecure_server_name = s.flag("insecure_server_name", false);
    let minimum = tls_version(s);
    let websocket = websocket_path(s);
    let secured = matches!(protocol, Protocol::Mqtts | Protocol::Wss);
    let is_ws = matches!(protocol, Protocol::Ws | Protocol::Wss);
    let files: [&Option<PathBuf>; 3] = [&cafile, &certfile, &keyfile];
    let texts = [&server_name, &alpn];
    let asks = files.iter().any(|file| file.is_some())
        || texts.iter().any(|text| text.is_some())
        || minimum.is_some()
        || allow_x509_v1
        || insecure_server_name
        || !pinned_keys.is_empty();
    if asks && !secured {
        s.reject(
            "protocol",
            "there are keys for TLS; expected \"mqtts\" or \"wss\"",
        );
    }
    if websocket.is_some() && !is_ws {
        s.reject(
            "protocol",
            "there is a websocket_path; expected \"ws\" or \"wss\"",
        );
    }
    let usual = if is_ws { "http/1.1" } else { "mqtt" };
    let tls = ClientTls {
        cafile,
        identity: certfile
            .zip(keyfile)
            .map(|(certfile, keyfile)| CertificateFiles { certfile, keyfile }),
        pinned_keys,
        allow_x509_v1,
        insecure_server_name,
        minimum: minimum.unwrap_or_default(),
        alpn: alpn.unwrap_or_else(|| usual.to_owned()),
        ..ClientTls::default()
    };
    Transport {
        proxy: proxy(s),
        tls: secured.then_some((tls, server_name)),
        websocket: is_ws.then(|| websocket.unwrap_or_else(|| "/mqtt".to_owned())),
    }
}

fn pinned_keys(s: &mut Section<'_, '_>) -> Vec<Pin> {
    let expected = "a list of hashes of keys such as [\"sha256/r/mIkG3eEpVdm+u/ko/cwxzOMo1bk4TyHIlByibiA5E=\"]";
    s.get("pinned_keys", Vec::new(), expected, |value| {
        let pins = texts(value)?.into_iter().map(|text| text.parse().ok());
        let pins: Option<Vec<Pin>> = pins.collect();
        pins.filter(|pins| !pins.is_empty())
    })
}

/// What is added to messages; MQTT 3.1.1 has no properties.
fn user_properties(
    s: &mut Section<'_, '_>,
    version: Option<ProtocolVersion>,
) -> Vec<(Box<str>, Box<str>)> {
    const KEY: &str = "user_properties";
    let all = s.texts(KEY);
    if !all.is_empty() && version.is_some_and(|version| version != ProtocolVersion::V5) {
        s.reject(
            KEY,
            "MQTT 3.1.1 has none; expected protocol_version \"5\" or \"auto\"",
        );
    }
    if all.len() > USER_PROPERTIES {
        let what = format!("are {}, expected at most {USER_PROPERTIES}", all.len());
        s.reject(KEY, what);
    }
    let is_good = |text: &str| text.len() <= 65_535 && !text.contains('\0');
    for (name, value) in &all {
        if name.starts_with("tidegate-") {
            s.reject(
                KEY,
                "names that begin with \"tidegate-\" are the bridges' own",
            );
        }
        if !is_good(name) || !is_good(value) {
            let shown: String = name.chars().take(80).collect();
            let what = format!("{shown:?} or its value is longer than 65,535 bytes or has U+0000");
            s.reject(KEY, what);
        }
    }
    let boxed = |(name, value): (String, String)| (name.into(), value.into());
    all.into_iter().map(boxed).collect()
}

fn rules(s: &mut Section<'_, '_>, version: Option<ProtocolVersion>) -> Vec<Rule> {
    let any = s.has("topics");
    let rules = s.each("topics", |mut section| {
        let rule = rule(&mut section, version);
        section.close();
        rule
    });
    if !any {
        s.reject("topics", "missing: nothing would cross the bridge; expected at least one [[bridges.topics]] with a pattern");
    }
    rules
}

fn rule(s: &mut Section<'_, '_>, version: Option<ProtocolVersion>) -> Option<Rule> {
    let owned = |value: &Value| value.as_text().map(str::to_owned);
    let expected =
        "a topic filter such as \"sensors/#\", or \"\" where the prefixes are whole topics";
    let pattern = s.required("pattern", expected, owned);
    let direction = s.get(
        "direction",
        Direction::Out,
        "\"out\", \"in\" or \"both\"",
        |value| {
            Some(match value.as_text()? {
                "out" => Direction::Out,
                "in" => Direction::In,
                "both" => Direction::Both,
                _ => return None,
            })
        },
    );
    let qos = qos(s, "qos", QoS::ExactlyOnce);
    let expected = "what this broker's topics begin with";
    let local = s.get("local_prefix", String::new(), expected, owned);
    let expected = "what the upstream's topics begin with";
    let remote = s.get("remote_prefix", String::new(), expected, owned);
    let keeps = s.get("retain", true, "true or false", Value::as_bool);
    let expected = "\"if_new\", \"always\" or \"never\"";
    let send = s.get("send_retained", SendRetained::IfNew, expected, |value| {
        Some(match value.as_text()? {
            "if_new" => SendRetained::IfNew,
            "always" => SendRetained::Always,
            "never" => SendRetained::Never,
            _ => return None,
        })
    });
    let old = version.is_some_and(|version| version != ProtocolVersion::V5);
    if old && send == SendRetained::Never && direction != Direction::Out {
        let what = "\"never\" for what comes in cannot be said in MQTT 3.1.1; expected protocol_version \"5\" or \"auto\"";
        s.reject("send_retained", what);
    }
    let keep_latest = s.flag("keep_latest", false);
    if keep_latest && direction == Direction::In {
        s.reject(
            "keep_latest",
            "is for what goes out; expected direction = \"out\" or \"both\" with it",
        );
    }
    let rule = match Rule::new(&pattern?, direction, qos, &local, &remote) {
        Ok(rule) => rule.keeping_latest(keep_latest),
        Err(what) => {
            s.reject("pattern", what);
            return None;
        }
    };
    match rule.with_retained(keeps, send) {
        Ok(rule) => Some(rule),
        Err(what) => {
            s.reject("send_retained", what);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;

    fn parse(text: &str) -> Result<Vec<BridgeSettings>, Vec<String>> {
        Config::parse(text, Path::new("f.toml"), [], &Overrides::default())
            .map(|config| config.bridges)
            .map_err(|error| error.problems.iter().map(ToString::to_string).collect())
    }

    const TOPIC: &str = "[[bridges.topics]]\npattern = '#'\n";

    /// The only problem of a bridge with these keys.
    #[track_caller]
    fn problem(keys: &str) -> String {
        let text = format!("[[bridges]]\nname = 'b'\nremote_clientid = 'c'\n{keys}\n{TOPIC}");
        let problems = parse(&text).expect_err("a problem");
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].clone()
    }

    #[test]
    fn the_example_is_good() {
        let text = include_str!("../../config/bridge.toml");
        let bridges = parse(text).expect("a good configuration");
        assert_eq!(
            bridges[0].addresses[0].to_string(),
            "cloud.example.org:8883"
        );
        assert_eq!(
            bridges[0].bridge.rules[0].remote_filter(),
            "site7/sensors/#"
        );
        assert!(bridges[0].bridge.rules[1].goes_in());
        assert!(bridges[0].transport.tls.is_some());
    }

    #[test]
    fn what_is_not_written_has_its_default() {
        let text =
            format!("[[bridges]]\nname = 'b'\naddress = 'up'\nremote_clientid = 'c'\n{TOPIC}");
        let all = parse(&text).expect("good");
        let bridge = &all[0].bridge;
        assert_eq!(all[0].addresses[0].to_string(), "up:1883");
        assert_eq!(all[0].version, None);
        assert_eq!(all[0].transport, Transport::default());
        assert_eq!(bridge.max_inflight_messages, None);
        assert!(!all[0].round_robin);
        assert_eq!(all[0].probe_interval, Duration::from_secs(30));
        assert_eq!(all[0].hold_down, Duration::from_secs(60));
        assert_eq!(bridge.session_expiry, u32::MAX);
        assert_eq!(bridge.rules[0].qos(), QoS::ExactlyOnce);
        assert!(bridge.rules[0].goes_out() && !bridge.rules[0].goes_in());
    }

    #[test]
    fn how_messages_wait_is_read_and_checked() {
        let text = format!(
            "[[bridges]]\nname = 'b'\naddress = 'u'\nremote_clientid = 'c'\nmax_queued_messages = 5\n\
             max_queued_bytes = '6kB'\nqueue_full = 'refuse'\nlive_first = true\n{TOPIC}keep_latest = true\n"
        );
        let bridge = &parse(&text).expect("good")[0].bridge;
        let policy = QueuePolicy {
            max_queued_messages: Some(5),
            max_queued_bytes: Some(6000),
            queue_full: QueueFull::Refuse,
            live_first: true,
        };
        assert_eq!(bridge.queue, policy);
        assert!(bridge.rules[0].keeps_latest());
        let unknown = problem("address = 'u'\nqueue_full = 'block'");
        assert!(unknown.contains("\"drop_newest\", \"drop_oldest\" or \"refuse\""));
        assert!(problem("address = 'u'\nmax_queued_messages = 0").contains("1 or more"));
        let inward = text.replace("keep_latest", "direction = 'in'\nkeep_latest");
        let problems = parse(&inward).expect_err("nothing goes out");
        assert!(problems[0].contains("keep_latest: is for what goes out"));
    }

    #[test]
    fn what_is_missing_or_does_not_go_together_is_told() {
        assert!(problem("").contains("bridges[0].address: missing"));
        assert!(problem("address = 'u'\ncafile = 'f'").contains("keys for TLS"));
        assert!(problem("address = 'u'\nwebsocket_path = '/x'").contains("\"ws\" or \"wss\""));
        let half = "address = 'u'\nprotocol = 'mqtts'\ncertfile = 'f'";
        assert!(problem(half).contains("need each other"));
        let two = "address = 'u'\nremote_password = 'x'\nremote_password_file = 'y'";
        assert!(problem(two).contains("expected one of them"));
        let wait = "address = 'u'\nrestart_timeout_base = '2m'";
        assert!(problem(wait).contains("longer than restart_timeout_cap"));
        assert!(problem("address = 'u'\nprobe_interval = '1ms'").contains("\"100ms\""));
        let never = "address = ['u', 'v']\nprobe_interval = '0s'\nhold_down = '1s'";
        assert!(problem(never).contains("has no effect"));
        let round = "address = ['u', 'v']\nround_robin = true\nhold_down = '1s'";
        assert!(problem(round).contains("has no effect"));
        let wide = "address = ['u', 'v']\nmax_inflight_messages = 30000";
        assert!(problem(wide).contains("at most 21845"));
        let many = format!("address = {:?}", vec!["u"; 17]);
        assert!(problem(&many).contains("up to 16"));
        assert!(problem("address = 'u'\nprotocol_version = '3.1'").contains("\"auto\""));
        assert!(problem("address = 'u'\ndead_letter_topic = 'a/#'").contains("a topic name"));
        assert!(problem("address = 'u'\naddres = 'v'").contains("did you mean"));
        let empty = "[[bridges]]\nname = 'b'\naddress = 'u'\nremote_clientid = 'c'\n";
        assert!(parse(empty).expect_err("no rule")[0].contains("nothing would cross"));
        let twice = format!("{empty}{TOPIC}{empty}{TOPIC}");
        assert!(parse(&twice).expect_err("one name")[0].contains("two bridges named"));
        let other = twice.replacen("name = 'b'", "name = 'a'", 1);
        let one_client = &parse(&other).expect_err("one client")[0];
        assert!(one_client.contains("bridges[1].remote_clientid: the bridge \"a\" has"));
        parse(&other.replacen("address = 'u'", "address = 'v'", 1)).expect("two upstreams");
        let wild = format!("{empty}{TOPIC}local_prefix = '+/'\n");
        assert!(parse(&wild).expect_err("no rule")[0].contains("has a wildcard"));
    }

    #[test]
    fn a_proxy_its_password_and_pins_go_with_the_rest() {
        let bridge = |keys: &str| {
            let text = format!(
                "[[bridges]]\nname = 'b'\naddress = 'u'\nremote_clientid = 'c'\n{keys}\n{TOPIC}"
            );
            parse(&text).expect("good").remove(0)
        };
        let direct = bridge("");
        let through = bridge("proxy = 'http://me:hush@proxy:3128'");
        // A reload sees the difference, and nobody the password.
        assert_ne!(direct, through);
        assert!(!format!("{through:?}").contains("hush"));
        let filed = bridge("proxy = 'socks5://me@proxy:1080'\nproxy_password_file = 'f'");
        let proxy = filed.transport.proxy.expect("a proxy");
        let login = ("me".to_owned(), Password::File("f".into()));
        assert_eq!(proxy.login, Some(login));
        let bad = problem("address = 'u'\nproxy = 'https://me:hush@proxy:1'");
        assert!(bad.contains("bridges[0].proxy: is no URL"), "{bad}");
        assert!(!bad.contains("hush"), "{bad}");
        let two = "address = 'u'\nproxy = 'http://a:b@c:1'\nproxy_password_file = 'f'";
        assert!(problem(two).contains("expected one of them"));
        let nobody = "address = 'u'\nproxy = 'http://c:1'\nproxy_password_file = 'f'";
        assert!(problem(nobody).contains("no user name"));
        let alone = "address = 'u'\nproxy_password_file = 'f'";
        assert!(problem(alone).contains("there is no proxy"));
        let empty = "address = 'u'\nproxy = 'socks5://me@c:1'";
        assert!(problem(empty).contains("1 to 255 bytes"));
        let pin = "sha256/r/mIkG3eEpVdm+u/ko/cwxzOMo1bk4TyHIlByibiA5E=";
        let pinned = bridge(&format!("protocol = 'mqtts'\npinned_keys = ['{pin}']"));
        let (tls, _) = pinned.transport.tls.expect("TLS");
        assert_eq!(tls.pinned_keys, [pin.parse().expect("a pin")]);
        let plain = format!("address = 'u'\npinned_keys = ['{pin}']");
        assert!(problem(&plain).contains("keys for TLS"));
        let short = "address = 'u'\nprotocol = 'mqtts'\npinned_keys = ['sha256/AAAA']";
        assert!(problem(short).contains("expected a list of hashes"));
    }

    #[test]
    fn what_a_bridge_does_on_its_link_is_read_and_checked() {
        let text = format!(
            "[limits]\nmax_topic_alias_out = 7\n[[bridges]]\nname = 'b'\naddress = 'u'\nremote_clientid = 'c'\n\
             user_properties = {{ site = 'plant7', Line = '3' }}\nmax_message_rate_in = 1\nmax_byte_rate_in = '2KB'\n\
             max_message_rate_out = 3\nmax_byte_rate_out = '4KB'\n{TOPIC}retain = false\nsend_retained = 'always'\n"
        );
        let bridge = parse(&text).expect("good").remove(0).bridge;
        assert_eq!(bridge.max_topic_alias_out, 7, "as clients have");
        let pair = |name: &str, value: &str| (name.into(), value.into());
        let expected = [pair("Line", "3"), pair("site", "plant7")];
        assert_eq!(bridge.user_properties, expected);
        let rates = |messages, bytes| Rates { messages, bytes };
        assert_eq!(bridge.rates_in, rates(1, 2000));
        assert_eq!(bridge.rates_out, rates(3, 4000));
        assert!(!bridge.rules[0].keeps_retain());
        assert_eq!(bridge.rules[0].send_retained(), SendRetained::Always);
        let own = text.replace("user_", "max_topic_alias_out = 9\nuser_");
        assert_eq!(parse(&own).expect("good")[0].bridge.max_topic_alias_out, 9);
        let old = "address = 'u'\nprotocol_version = '3.1.1'\n";
        let stamped = format!("{old}user_properties = {{ a = 'b' }}");
        assert!(problem(&stamped).contains("MQTT 3.1.1 has none"));
        let number = "address = 'u'\nuser_properties = { a = 1 }";
        assert!(problem(number).contains("user_properties.a: found 1, expected a text"));
        assert!(problem("address = 'u'\nuser_properties = 'a'").contains("a table of texts"));
        let long = format!(
            "address = 'u'\nuser_properties = {{ a = '{}' }}",
            "x".repeat(65_536)
        );
        assert!(problem(&long).contains("longer than 65,535 bytes"));
        let rule = |more: &str| {
            let text =
                format!("[[bridges]]\nname = 'b'\nremote_clientid = 'c'\n{old}{TOPIC}{more}");
            parse(&text).expect_err("a problem")[0].clone()
        };
        assert!(rule("direction = 'in'\nsend_retained = 'never'").contains("cannot be said"));
        assert!(rule("direction = 'both'\nsend_retained = 'always'").contains("older than"));
        assert!(rule("send_retained = 'now'").contains("expected \"if_new\""));
    }

    #[test]
    fn a_password_may_be_in_the_environment_and_is_not_shown() {
        let text =
            format!("[[bridges]]\nname = 'b'\naddress = 'u'\nremote_clientid = 'c'\n{TOPIC}");
        let variable = (
            "TIDEGATE_BRIDGES__0__REMOTE_PASSWORD".to_owned(),
            "hush".to_owned(),
        );
        let named = |name: &str, value: &str| {
            let name = format!("TIDEGATE_BRIDGES__0__{name}");
            (name, value.to_owned())
        };
        let user = named("REMOTE_USERNAME", "site7");
        let proxy = named("PROXY", "http://me:hush@proxy:3128");
        let variables = [variable, user, proxy];
        let config = Config::parse(&text, Path::new(""), variables, &Overrides::default());
        let bridge = &config.expect("good").bridges[0];
        assert_eq!(bridge.username.as_deref(), Some("site7"));
        assert!(bridge.transport.proxy.is_some());
        assert_eq!(bridge.password, Some(Password::Inline("hush".to_owned())));
        assert!(!format!("{bridge:?}").contains("hush"));
    }
}
