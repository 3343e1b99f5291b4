//! The configuration: a TOML file, environment variables over it and flags over both, parsed once
//! into typed values.
//!
//! `config/tidegate.toml` shows every key with its default. A variable
//! `TIDEGATE_LIMITS__MAX_PACKET_SIZE` overrides the key `max_packet_size` in the table `limits`:
//! upper case, and two underscores where the path goes into a table or to the entry of a list
//! (`TIDEGATE_LISTENERS__0__BIND`). A key that is not known is refused, wherever it stands.

mod acl;
mod acl_file;
mod advice;
mod authentication;
mod balancer;
mod bind;
mod bridge;
mod client_id;
mod environment;
mod error;
mod file;
mod listener;
mod model;
mod mqtt;
mod notifications;
mod proxy;
mod read;
mod socket;
mod start;
mod text;
mod tls;
mod tree;
mod value;
mod variable;
mod websocket;

use std::path::Path;

pub use acl::AclSettings;
pub use bridge::is_bridge_name;
pub use environment::is_foreign_variable;
pub use error::ConfigError;
pub use model::{Config, DEFAULT_PORT, Listener, Overrides};
pub use proxy::parse_proxy;
pub use tree::Problem;
pub use value::{Bind, exact_duration, parse_duration, parse_size, show_duration, show_size};
pub use variable::ENVIRONMENT_PREFIX;

use file::read_text;
use read::read;
use tree::Report;

/// Bytes of a configuration file that are read; a longer one is refused.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl Config {
    /// Reads the file, if there is one, then the environment, then the flags.
    ///
    /// # Errors
    /// Every problem, each with file, line and column (or variable, or flag), key, what was found
    /// and what was expected.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Config, ConfigError> {
        let text = match file {
            Some(path) => read_text(path, MAX_FILE_BYTES)?,
            None => String::new(),
        };
        Config::parse(&text, file.unwrap_or(Path::new("")), environment, overrides)
    }

    /// As [`Config::load`], with the text of the file; `name` is what messages call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(
        text: &str,
        name: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Config, ConfigError> {
        let mut report = Report::new(name, text);
        let config = read(&mut report, environment, overrides);
        let problems = report.finish();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError { problems })
        }
    }
}

/// The names of all keys there are, with their tables: `limits.max_packet_size`, `listeners.bind`.
pub fn known_keys() -> Vec<String> {
    let mut report = Report::new(Path::new(""), "");
    read(&mut report, [], &Overrides::default());
    report.known_keys().collect()
}

impl Default for Config {
    fn default() -> Config {
        let mut report = Report::new(Path::new(""), "");
        read(&mut report, [], &Overrides::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::record::Durability;

    const SHIPPED: &str = include_str!("../../config/tidegate.toml");
    const README: &str = include_str!("../../README.md");
    const BRIDGES: &str = include_str!("../../docs/bridges.md");

    fn parse_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::parse(
            text,
            Path::new("f.toml"),
            environment,
            &Overrides::default(),
        )
        .map_err(|error| error.problems.iter().map(Problem::to_string).collect())
    }

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        parse_with(text, &[])
    }

    #[track_caller]
    fn one_problem(text: &str) -> String {
        let problems = parse(text).expect_err("a problem");
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.into_iter().next().expect("one")
    }

    #[test]
    fn the_shipped_file_says_what_the_defaults_are() {
        assert_eq!(parse(SHIPPED), Ok(Config::default()));
    }

    #[test]
    fn the_shipped_file_and_the_documentation_have_every_key() {
        for key in known_keys() {
            let name = key.rsplit('.').next().expect("a name");
            let written = |line: &str| {
                let line = line.trim_start_matches('#');
                let table = line.trim_matches(['[', ']']).rsplit('.').next();
                line.starts_with(&format!("{name} =")) || table == Some(name)
            };
            assert!(
                SHIPPED.lines().any(written),
                "{key} in config/tidegate.toml"
            );
            let (page, text) = if key.starts_with("bridges.") {
                ("docs/bridges.md", BRIDGES)
            } else {
                ("README.md", README)
            };
            assert!(text.contains(&format!("`{name}`")), "{key} in {page}");
        }
    }

    #[test]
    fn the_examples_in_the_shipped_file_are_good() {
        let is_example =
            |line: &str| line.starts_with('#') && !line.starts_with("# ") && line != "#";
        let uncommented: Vec<&str> = SHIPPED
            .lines()
            .map(|line| if is_example(line) { &line[1..] } else { line })
            .collect();
        let config = parse(&uncommented.join("\n")).expect("a good configuration");
        assert_eq!(config.listeners[0].bind[0].to_string(), "0.0.0.0:1883");
        assert_eq!(
            config.durability.topics,
            [("telemetry/+/raw".into(), Durability::Memory)]
        );
    }

    #[test]
    fn an_unknown_key_is_refused_and_the_nearest_one_suggested() {
        assert_eq!(
            one_problem("[limits]\n  max_packt_size = 1\n"),
            "f.toml:2:3: limits.max_packt_size: unknown key; did you mean limits.max_packet_size?"
        );
        assert_eq!(
            one_problem("max_packet_size = 1\n"),
            "f.toml:1:1: max_packet_size: unknown key; did you mean limits.max_packet_size?"
        );
        assert_eq!(one_problem("xyzzy = 1\n"), "f.toml:1:1: xyzzy: unknown key");
        let listener = "[[listeners]]\nbind = 'localhost:1'\nallow_anonymous = true\n";
        assert_eq!(
            one_problem(&format!("{listener}allow_anonimous = 1")),
            "f.toml:4:1: listeners[0].allow_anonimous: unknown key; did you mean listeners[0].allow_anonymous?"
        );
    }

    #[test]
    fn a_key_of_another_broker_and_its_whole_file_get_an_answer_that_helps() {
        for (text, needle) in [
            (
                "[log]\nfile = '/var/log/t.log'",
                "2:1: log.file: unknown key; the log goes to standard error",
            ),
            (
                "[log]\nlevel = 'info'\npath = 'x'",
                "log.path: unknown key; the log goes to standard error",
            ),
            (
                "log_dest = 'file x'",
                "log_dest: unknown key; the log goes to standard error",
            ),
            ("[log]\njson = true", "lines of the log have one format"),
            (
                "port = 1883",
                "port: unknown key; where to listen is a [[listeners]] table",
            ),
            ("persistence = true", "in data_dir"),
            (
                "listener 1883\nallow_anonymous true\n",
                "f.toml:1:1: this is a configuration of Mosquitto",
            ),
            (
                "# Mosquitto\n\npid_file /run/m.pid\nconnection c\naddress h:1\ntopic # out 1",
                "f.toml:3:1: this is",
            ),
        ] {
            let problem = one_problem(text);
            assert!(problem.contains(needle), "{text}: {problem}");
        }
    }

    #[test]
    fn several_errors_are_told_at_once() {
        let problems = parse("a = 1\n[limits]\nmax_sessions = 0\n[store]\ncache_size = 'x'\n");
        assert_eq!(problems.expect_err("problems").len(), 3);
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let file = "data_dir = 'a'\n[limits]\nmax_packet_size = '1MB'\n\
                    [[listeners]]\nbind = '127.0.0.1:1'\nallow_anonymous = true\n";
        let config = parse_with(
            file,
            &[
                ("PATH", "/bin"),
                ("TIDEGATE_DATA_DIR", "b"),
                ("TIDEGATE_LIMITS__MAX_PACKET_SIZE", "64KB"),
                ("TIDEGATE_LIMITS__RECEIVE_MAXIMUM", "7"),
                ("TIDEGATE_LIMITS__RETAIN_AVAILABLE", "false"),
                ("TIDEGATE_LISTENERS__0__BIND", "127.0.0.1:2, [::1]:2"),
                ("TIDEGATE_LISTENERS__1__BIND", "127.0.0.1:3"),
                ("TIDEGATE_LISTENERS__1__ALLOW_ANONYMOUS", "true"),
                ("TIDEGATE_DURABILITY_RULES__0__FILTER", "#"),
                ("TIDEGATE_DURABILITY_RULES__0__DURABILITY", "os"),
            ],
        )
        .expect("a good configuration");
        assert_eq!(config.data_dir, Path::new("b"));
        assert_eq!(config.limits.max_packet_size, 64_000);
        assert_eq!(config.limits.receive_maximum, 7);
        assert!(!config.limits.retain_available);
        assert_eq!(config.listeners[0].bind.len(), 2);
        assert_eq!(config.listeners[1].bind[0].to_string(), "127.0.0.1:3");
        assert_eq!(config.durability.topics.len(), 1);
    }

    #[test]
    fn a_list_in_the_environment_grows_past_nine_entries() {
        let variables: Vec<(String, String)> = (0..12)
            .flat_map(|n| {
                let name = format!("TIDEGATE_LISTENERS__{n}__");
                [
                    (format!("{name}BIND"), format!("127.0.0.1:{}", 100 + n)),
                    (format!("{name}ALLOW_ANONYMOUS"), "true".to_owned()),
                ]
            })
            .collect();
        let config = Config::parse("", Path::new(""), variables, &Overrides::default());
        assert_eq!(config.expect("good").listeners.len(), 12);
    }

    #[test]
    fn an_unknown_or_wrong_variable_is_an_error_that_names_it() {
        for (name, value, needle) in [
            (
                "TIDEGATE_LIMITS__MAX_PACKT_SIZE",
                "1",
                "did you mean TIDEGATE_LIMITS__MAX_PACKET_SIZE?",
            ),
            ("TIDEGATE_NOTHING_LIKE_IT", "1", "unknown key"),
            ("TIDEGATE_LIMITS", "1", "expected a table"),
            ("TIDEGATE_DATA_DIR__X", "1", "found a table"),
            ("TIDEGATE_LISTENERS__1__BIND", "a:1", "the next number is 0"),
            ("TIDEGATE_LISTENERS__BIND", "a:1", "expected tables"),
            ("TIDEGATE_LISTENERS", "a:1", "expected tables"),
            ("TIDEGATE_LISTENERS__0", "a:1", "number, then its key"),
            ("TIDEGATE_WORKER_THREADS", "many", "found \"many\""),
            ("TIDEGATE_", "1", "unknown key"),
        ] {
            let problems = parse_with("", &[(name, value)]).expect_err(name);
            assert!(
                problems[0].starts_with(&format!("{name}: ")),
                "{problems:?}"
            );
            assert!(problems[0].contains(needle), "{problems:?}");
        }
    }

    #[test]
    fn flags_override_the_environment_which_overrides_the_file() {
        let overrides = Overrides {
            data_dir: Some("flag".into()),
            log: Some("trace".to_owned()),
            ..Overrides::default()
        };
        let environment = [("TIDEGATE_DATA_DIR".to_owned(), "variable".to_owned())];
        let config = Config::parse("data_dir = 'f'", Path::new(""), environment, &overrides);
        let config = config.expect("good");
        assert_eq!(config.data_dir, Path::new("flag"));
        assert_eq!(config.log.to_string(), "trace");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t.toml");
        let load = || Config::load(Some(&path), [], &Overrides::default());
        let error = load().expect_err("no file").to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        std::fs::write(&path, b"data_dir = '\xff'").expect("written");
        let error = load().expect_err("not UTF-8").to_string();
        assert!(error.contains("not UTF-8 text, from byte 12"), "{error}");
        std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("written");
        let error = load().expect_err("too long").to_string();
        assert!(error.contains("longer than 1MiB"), "{error}");
    }

    #[test]
    fn deep_nesting_is_refused_without_harm() {
        for text in [
            "a = ".to_owned() + &"[".repeat(100_000),
            "a.".repeat(50_000) + "b = 1",
        ] {
            assert!(parse(&text).is_err());
        }
        let name = format!("TIDEGATE_{}", "A__".repeat(40_000));
        let problems = parse_with("", &[(&name, "1")]).expect_err("no such key");
        assert!(problems[0].ends_with("no table is that deep"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_and_no_variable_does_harm(
            text in "([a-z_]{1,12}|limits|listeners|bind|store|\\[|\\]|=|\\.|\"|'|\n| |[0-9]{1,20}|MB|true|\\{|\\}|,|-|ü|#){0,60}",
            name in "TIDEGATE_(LIMITS|LISTENERS|STORE|BIND|[0-9]{1,3}|_|[A-Z]{1,5}){0,8}",
            value in ".{0,20}",
        ) {
            if let Err(problems) = parse_with(&text, &[(&name, &value)]) {
                proptest::prop_assert!(!problems.is_empty() && problems.len() <= 60, "{problems:?}");
            }
        }
    }
}
