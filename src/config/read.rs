//! Key by key: the tree of what was written into typed values. Which keys there are is decided
//! here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::acl::acl;
use super::authentication::authentication;
use super::bind::{BIND_EXPECTED, binds};
use super::bridge::bridges;
use super::environment::overlay;
use super::listener::{flag_bind, listeners, open_to_all};
use super::model::{Config, Overrides};
use super::mqtt::{LARGEST_PACKET, maximum_qos, session_expiry, whole_seconds};
use super::tree::{self, Origin, Report, Section, Table, Value};
use super::value::Bind;
use crate::broker::record::{Durability, DurabilityRules};
use crate::limits::Limits;
use crate::store::StoreOptions;
use crate::wire::topic;

const DAY: Duration = Duration::from_secs(86_400);

/// Reads all of it; what is wrong is in the report, and stands at its default in what is returned.
pub(super) fn read(
    report: &mut Report<'_>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Config {
    let mut tree = tree::parse(report);
    overlay(&mut tree, environment, report);
    overlay_flags(&mut tree, overrides);
    let flag_bind = flag_bind(&overrides.bind, report);
    let mut root = Section::open("", Origin::File(0), tree, report);
    let data_dir = root.get(
        "data_dir",
        PathBuf::from("./tidegate-data"),
        "the path of a directory",
        |value| {
            let text = value.as_text().filter(|text| !text.is_empty())?;
            Some(PathBuf::from(text))
        },
    );
    // A path need not be text, so the flag does not go through the tree.
    let data_dir = overrides.data_dir.clone().unwrap_or(data_dir);
    let worker_threads = root.get(
        "worker_threads",
        None,
        "a whole number from 1 to 1024, or \"auto\" for one a core",
        |value| match value.as_text() {
            Some("auto") => Some(None),
            _ => {
                let count = value.as_u64().filter(|count| (1..=1024).contains(count))?;
                Some(Some(usize::try_from(count).ok()?))
            }
        },
    );
    let sys_interval = root.duration(
        "sys_interval",
        Duration::from_secs(10),
        Duration::ZERO..=DAY,
    );
    let durability = durability(&mut root);
    let upgrade_outgoing_qos = root.flag("upgrade_outgoing_qos", false);
    let acl = acl(&mut root);
    let limits = limits(root.section("limits"));
    let (store, commit_delay) = store(root.section("store"), &data_dir);
    let metrics = metrics(root.section("metrics"));
    let log = log(root.section("log"));
    let authentication = authentication(root.section("authentication"));
    let configured = listeners(&mut root, &authentication);
    let of_flags = flag_bind.map(|bind| vec![open_to_all(bind, false, &authentication)]);
    let bridges = bridges(&mut root, &limits);
    root.close();
    Config {
        data_dir,
        limits,
        listeners: of_flags.unwrap_or(configured),
        acl,
        allow_other_users: authentication.allow_other_users,
        upgrade_outgoing_qos,
        throttle: authentication.throttle,
        durability,
        store,
        commit_delay,
        worker_threads,
        sys_interval: Some(sys_interval).filter(|interval| !interval.is_zero()),
        metrics,
        log,
        bridges,
    }
}

fn overlay_flags(tree: &mut Table, overrides: &Overrides) {
    let node = |flag, text: &str| tree::Node {
        key_at: Origin::Flag(flag),
        at: Origin::Flag(flag),
        value: Value::Raw(text.to_owned()),
    };
    if let Some(level) = &overrides.log {
        let log = tree.entry("log".to_owned()).or_insert_with(|| tree::Node {
            key_at: Origin::Flag("--log"),
            at: Origin::Flag("--log"),
            value: Value::Table(Table::new()),
        });
        if let Value::Table(log) = &mut log.value {
            log.insert("level".to_owned(), node("--log", level));
        }
    }
}

fn metrics(mut section: Section<'_, '_>) -> Vec<Bind> {
    let expected = format!("{BIND_EXPECTED}, or a list of such");
    let bind = section.optional("bind", &expected, |value| binds(value, None));
    section.close();
    bind.ok().flatten().unwrap_or_default()
}

const DURABILITY_EXPECTED: &str = "\"fsync\", \"os\" or \"memory\"";

fn durability(root: &mut Section<'_, '_>) -> DurabilityRules {
    let default = root.get(
        "durability",
        Durability::Fsync,
        DURABILITY_EXPECTED,
        durability_of,
    );
    let topics = root.each("durability_rules", |mut section| {
        let expected = "a topic filter such as \"sensors/+/raw/#\", without $share";
        let filter = section.required("filter", expected, |value| {
            let text = value.as_text()?;
            let filter = topic::Filter::parse(text)?;
            filter.share.is_none().then(|| text.into())
        });
        let durability = section.required("durability", DURABILITY_EXPECTED, durability_of);
        section.close();
        Some((filter?, durability?))
    });
    DurabilityRules { default, topics }
}

fn durability_of(value: &Value) -> Option<Durability> {
    match value.as_text()? {
        "fsync" => Some(Durability::Fsync),
        "os" => Some(Durability::Os),
        "memory" => Some(Durability::Memory),
        _ => None,
    }
}

fn limits(mut s: Section<'_, '_>) -> Limits {
    let d = Limits::default();
    let bytes = 1..=u64::MAX;
    // A second's worth is counted in nanoseconds.
    let rates = 0..=1_000_000_000;
    let limits = Limits {
        max_connections: s.number("max_connections", d.max_connections, 1..=u64::MAX),
        max_inflight_messages: s.number(
            "max_inflight_messages",
            d.max_inflight_messages,
            1..=65_535,
        ),
        max_inflight_bytes: s.size("max_inflight_bytes", d.max_inflight_bytes, 0..=u64::MAX),
        receive_maximum: s.number("receive_maximum", d.receive_maximum, 1..=65_535),
        max_queued_messages: s.number("max_queued_messages", d.max_queued_messages, 1..=u64::MAX),
        max_queued_bytes: s.size("max_queued_bytes", d.max_queued_bytes, bytes.clone()),
        max_queued_bytes_total: s.size("max_queued_bytes_total", d.max_queued_bytes_total, bytes),
        max_queued_memory_bytes: s.size(
            "max_queued_memory_bytes",
            d.max_queued_memory_bytes,
            0..=u64::MAX,
        ),
        max_hot_bytes: s.size("max_hot_bytes", d.max_hot_bytes, 0..=u64::MAX),
        max_packet_size: s.size("max_packet_size", d.max_packet_size, 64..=LARGEST_PACKET),
        max_outgoing_bytes: s.size("max_outgoing_bytes", d.max_outgoing_bytes, 1024..=u64::MAX),
        max_outgoing_bytes_total: s.size(
            "max_outgoing_bytes_total",
            d.max_outgoing_bytes_total,
            1024..=u64::MAX,
        ),
        max_incoming_bytes: s.size("max_incoming_bytes", d.max_incoming_bytes, 1024..=u64::MAX),
        max_pending_write_bytes: s.size(
            "max_pending_write_bytes",
            d.max_pending_write_bytes,
            1024..=u64::MAX,
        ),
        max_topic_alias: s.number("max_topic_alias", d.max_topic_alias, 0..=65_535),
        max_topic_alias_out: s.number("max_topic_alias_out", d.max_topic_alias_out, 0..=65_535),
        max_keepalive: keepalive(&mut s, d.max_keepalive),
        maximum_qos: maximum_qos(&mut s, d.maximum_qos),
        retain_available: s.flag("retain_available", d.retain_available),
        max_retained_messages: s.number(
            "max_retained_messages",
            d.max_retained_messages,
            0..=u64::MAX,
        ),
        max_retained_bytes: s.size("max_retained_bytes", d.max_retained_bytes, 0..=u64::MAX),
        persistent_client_expiration: session_expiry(
            &mut s,
            "persistent_client_expiration",
            d.persistent_client_expiration,
        ),
        max_sessions: s.number("max_sessions", d.max_sessions, 1..=u64::MAX),
        max_session_bytes: s.size("max_session_bytes", d.max_session_bytes, 1024..=u64::MAX),
        max_session_bytes_total: s.size(
            "max_session_bytes_total",
            d.max_session_bytes_total,
            1024..=u64::MAX,
        ),
        max_subscriptions: s.number("max_subscriptions", d.max_subscriptions, 1..=u64::MAX),
        max_filters_per_packet: s.number(
            "max_filters_per_packet",
            d.max_filters_per_packet,
            1..=u64::MAX,
        ),
        max_shared_groups: s.number("max_shared_groups", d.max_shared_groups, 0..=u64::MAX),
        max_group_members: s.number("max_group_members", d.max_group_members, 1..=u64::MAX),
        max_subscription_ids: s.number("max_subscription_ids", d.max_subscription_ids, 1..=65_535),
        max_topic_levels: s.number("max_topic_levels", d.max_topic_levels, 1..=65_536),
        max_topic_length: s.number("max_topic_length", d.max_topic_length, 1..=65_535),
        max_message_rate_in: s.number("max_message_rate_in", d.max_message_rate_in, rates.clone()),
        max_byte_rate_in: s.size("max_byte_rate_in", d.max_byte_rate_in, rates.clone()),
        max_message_rate_out: s.number(
            "max_message_rate_out",
            d.max_message_rate_out,
            rates.clone(),
        ),
        max_byte_rate_out: s.size("max_byte_rate_out", d.max_byte_rate_out, rates),
        max_message_ids: s.number("max_message_ids", d.max_message_ids, 0..=u64::MAX),
        max_message_ids_total: s.number(
            "max_message_ids_total",
            d.max_message_ids_total,
            0..=u64::MAX,
        ),
        max_connections_per_user: s.number(
            "max_connections_per_user",
            d.max_connections_per_user,
            0..=u64::MAX,
        ),
        max_connections_per_address: s.number(
            "max_connections_per_address",
            d.max_connections_per_address,
            0..=u64::MAX,
        ),
        connect_timeout_ms: u64::try_from(
            s.duration(
                "connect_timeout",
                Duration::from_millis(d.connect_timeout_ms),
                Duration::from_millis(1)..=DAY,
            )
            .as_millis(),
        )
        .unwrap_or(d.connect_timeout_ms),
        write_timeout_ms: u64::try_from(
            s.duration(
                "write_timeout",
                Duration::from_millis(d.write_timeout_ms),
                Duration::ZERO..=DAY,
            )
            .as_millis(),
        )
        .unwrap_or(d.write_timeout_ms),
    };
    s.close();
    limits
}

fn keepalive(s: &mut Section<'_, '_>, default: u16) -> u16 {
    let expected = "a duration in whole seconds from \"0s\" (no limit) to \"65535s\"";
    s.get("max_keepalive", default, expected, |value| {
        u16::try_from(whole_seconds(value)?).ok()
    })
}

fn store(mut s: Section<'_, '_>, data_dir: &Path) -> (StoreOptions, Duration) {
    let options = StoreOptions {
        path: data_dir.join("tidegate.redb"),
        max_bytes: s.size("max_size", 16_000_000_000, 1_000_000..=u64::MAX),
        min_free_bytes: s.size("min_free_disk", 100_000_000, 0..=u64::MAX),
        cache_bytes: s.size("cache_size", 32_000_000, 1_000_000..=u64::MAX),
        move_corrupt_aside: s.flag("move_corrupt_aside", false),
    };
    let commit_delay = s.duration(
        "commit_delay",
        Duration::ZERO,
        Duration::ZERO..=Duration::from_secs(10),
    );
    s.close();
    (options, commit_delay)
}

fn log(mut s: Section<'_, '_>) -> Targets {
    let expected = "\"error\", \"warn\", \"info\", \"debug\", \"trace\", \"off\", or by module, such as \"info,tidegate::net=debug\"";
    let default = Targets::new().with_default(LevelFilter::INFO);
    let filter = s.get("level", default, expected, |value| {
        log_filter(value.as_text()?)
    });
    s.close();
    filter
}

/// Levels, with commas between them: a lone one is that of all modules that are not named. A lone
/// word is never a module, or a misspelt level would log nothing and say nothing.
fn log_filter(text: &str) -> Option<Targets> {
    let mut filter = Targets::new();
    for part in text.split(',') {
        filter = match part.split_once('=') {
            None => filter.with_default(level(part)?),
            Some((module, word)) => filter.with_target(module_path(module)?, level(word)?),
        };
    }
    Some(filter)
}

fn module_path(text: &str) -> Option<&str> {
    let text = text.trim();
    let is_good = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '-');
    (!text.is_empty() && text.chars().all(is_good)).then_some(text)
}

fn level(word: &str) -> Option<LevelFilter> {
    let word = word.trim();
    // A number, or nothing at all, would be a level, too.
    let is_word = word.starts_with(|first: char| first.is_ascii_alphabetic());
    is_word.then(|| word.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::QoS;

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        Config::parse(text, Path::new("f.toml"), [], &Overrides::default())
            .map_err(|error| error.problems.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn one_problem(text: &str) -> String {
        let problems = parse(text).expect_err("a problem");
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.into_iter().next().expect("one")
    }

    #[test]
    fn without_anything_it_listens_on_loopback_only() {
        let config = Config::default();
        assert!(
            config
                .listeners
                .iter()
                .all(|l| l.bind.iter().all(Bind::is_loopback))
        );
        assert_eq!(config.listeners[0].bind[0].to_string(), "127.0.0.1:1883");
        assert!(!config.listeners[0].optional);
        assert!(config.listeners[1].optional, "IPv6 may be missing");
        assert_eq!(config.limits, Limits::default());
        assert_eq!(
            config.store.path,
            Path::new("./tidegate-data/tidegate.redb")
        );
    }

    #[test]
    fn a_whole_configuration_is_read() {
        let config = parse(
            "data_dir = '/data'\ndurability = 'os'\nworker_threads = 3\nsys_interval = '0s'\n\
             [limits]\nmax_queued_bytes = '64MiB'\nmax_packet_size = 2048\nmaximum_qos = 1\nmax_keepalive = '2m'\n\
             persistent_client_expiration = '7d'\nconnect_timeout = '100ms'\nwrite_timeout = '5s'\n\
             [store]\ncommit_delay = '20ms'\nmove_corrupt_aside = true\n\
             [log]\nlevel = 'warn,tidegate::net=debug'\n\
             [[listeners]]\nbind = ['127.0.0.1:1', '[::1]:2']\nallow_anonymous = true\n\
             [[durability_rules]]\nfilter = 'a/#'\ndurability = 'fsync'\n",
        )
        .expect("a good configuration");
        assert_eq!(config.store.path, Path::new("/data/tidegate.redb"));
        assert_eq!(config.durability.default, Durability::Os);
        assert_eq!(
            config.durability.topics,
            [("a/#".into(), Durability::Fsync)]
        );
        assert_eq!(config.worker_threads, Some(3));
        assert_eq!(config.sys_interval, None);
        assert_eq!(config.limits.max_queued_bytes, 67_108_864);
        assert_eq!(config.limits.max_packet_size, 2048);
        assert_eq!(config.limits.maximum_qos, QoS::AtLeastOnce);
        assert_eq!(config.limits.max_keepalive, 120);
        assert_eq!(config.limits.persistent_client_expiration, 604_800);
        assert_eq!(config.limits.connect_timeout_ms, 100);
        assert_eq!(config.commit_delay, Duration::from_millis(20));
        assert!(config.store.move_corrupt_aside);
        assert_eq!(
            config.log,
            Targets::new()
                .with_default(LevelFilter::WARN)
                .with_target("tidegate::net", LevelFilter::DEBUG)
        );
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.listeners[0].bind.len(), 2);
    }

    #[test]
    fn an_error_names_file_line_column_key_what_was_found_and_what_was_expected() {
        assert_eq!(
            one_problem("[limits]\nmax_packet_size = \"64XB\"\n"),
            "f.toml:2:19: limits.max_packet_size: found \"64XB\", expected a size such as \"64MB\" or \"64MiB\", from 64B to 268435460B"
        );
    }

    #[test]
    fn every_wrong_type_or_range_is_an_error() {
        for (text, needle) in [
            ("data_dir = 1", "1:12: data_dir: found 1, expected the path"),
            ("data_dir = ''", "expected the path of a directory"),
            ("durability = 'disk'", "\"fsync\", \"os\" or \"memory\""),
            ("worker_threads = 0", "worker_threads: found 0"),
            (
                "sys_interval = 10",
                "found 10, expected a duration with its unit",
            ),
            ("sys_interval = '2d'", "from 0s to 1d"),
            ("limits = 3", "limits: found 3, expected a table: [limits]"),
            (
                "[limits]\nreceive_maximum = 0",
                "2:19: limits.receive_maximum: found 0",
            ),
            ("[limits]\nreceive_maximum = 65536", "from 1 to 65535"),
            (
                "[limits]\nreceive_maximum = '5'",
                "found \"5\", expected a whole number",
            ),
            ("[limits]\nmax_sessions = -1", "found -1"),
            (
                "[limits]\nmax_sessions = 99999999999999999999",
                "found a number beyond 64 bits",
            ),
            (
                "[limits]\nmax_sessions = 1.5",
                "found a number with a fraction",
            ),
            ("[limits]\nmax_sessions = 1979-05-27", "found a date"),
            ("[limits]\nmaximum_qos = 3", "expected 0, 1 or 2"),
            (
                "[limits]\nretain_available = 'true'",
                "expected true or false",
            ),
            ("[limits]\nmax_keepalive = '1500ms'", "whole seconds"),
            ("[limits]\nmax_keepalive = '1d'", "\"65535s\""),
            (
                "[limits]\npersistent_client_expiration = '200000w'",
                "136 years",
            ),
            ("[limits]\nconnect_timeout = '0s'", "from 1ms to 1d"),
            (
                "[store]\nmax_size = '1KB'",
                "store.max_size: found \"1KB\", expected a size",
            ),
            ("[log]\nlevel = 'inof'", "log.level: found \"inof\""),
            (
                "[log]\nlevel = 'tidegate::net=5'",
                "found \"tidegate::net=5\"",
            ),
            ("[log]\nlevel = 'info,[span]=debug'", "found \"info,[span]"),
            (
                "[[listeners]]\nallow_anonymous = true",
                "1:1: listeners[0].bind: missing",
            ),
            (
                "[[listeners]]\nbind = '1883'\nallow_anonymous = true",
                "2:8: listeners[0].bind: found \"1883\"",
            ),
            (
                "[[listeners]]\nbind = []\nallow_anonymous = true",
                "found a list",
            ),
            ("listeners = 'here'", "expected tables: [[listeners]]"),
            ("listeners = [1]", "listeners[0]: found 1, expected a table"),
            (
                "[[durability_rules]]\ndurability = 'os'",
                "durability_rules[0].filter: missing",
            ),
            (
                "[[durability_rules]]\nfilter = 'a/#/b'\ndurability = 'os'",
                "found \"a/#/b\", expected a topic filter",
            ),
            (
                "[[durability_rules]]\nfilter = '$share/g/a'\ndurability = 'os'",
                "without $share",
            ),
            (
                "[[durability_rules]]\nfilter = 'a'",
                "durability_rules[0].durability: missing",
            ),
        ] {
            let problem = one_problem(text);
            assert!(problem.starts_with("f.toml:"), "{problem}");
            assert!(problem.contains(needle), "{text}: {problem}");
        }
    }
}
