//! ACL files in Mosquitto's format, read together with the rules of the configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::acl::ACCESS_EXPECTED;
use super::error::ConfigError;
use super::file::read_text;
use super::model::{Config, Listener};
use super::tree::Problem;
use crate::broker::{Acl, Acls, Permission, Rules, Subscribing};

/// Bytes of an ACL file that are read; a longer one is refused.
const MAX_FILE_BYTES: u64 = 64 << 20;

impl Config {
    /// Reads the files with rules: the common one, which goes together with the rules of the
    /// configuration, and those of listeners, which stand alone.
    ///
    /// # Errors
    /// Every problem of all files, each with its line.
    pub fn load_acls(&self) -> Result<Acls, ConfigError> {
        let mut problems = Vec::new();
        let mut read = |file: &Path, acl: &mut Acl| {
            let read = read_text(file, MAX_FILE_BYTES).and_then(|text| parse(file, &text, acl));
            problems.extend(read.err().into_iter().flat_map(|error| error.problems));
        };
        let settings = &self.acl;
        let mut common = settings.rules.clone();
        if let Some(file) = &settings.file {
            read(file, common.get_or_insert_default());
        }
        let mut own = BTreeMap::new();
        let names = self.listeners.iter();
        for name in names.filter_map(|listener| listener.settings.access.acl.as_deref()) {
            let mut acl = Acl::default();
            if !own.contains_key(name) {
                read(Path::new(name), &mut acl);
                own.insert(Box::from(name), Arc::new(acl));
            }
        }
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let has_file = settings.file.is_some() || !own.is_empty();
        let by_default = match has_file {
            true => Subscribing::Filter,
            false => Subscribing::Strict,
        };
        Ok(Acls {
            common: common.map(Arc::new),
            own,
            subscribing: settings.subscribing.unwrap_or(by_default),
            check_retain_source: settings.check_retain_source.unwrap_or(true),
        })
    }

    /// What is allowed and most likely not meant, a sentence each.
    pub fn warnings(&self, acls: &Acls) -> Vec<String> {
        let own = acls.own.iter();
        let own = own.map(|(name, acl)| (Some(&**name), acl));
        let lists = acls.common.iter().map(|acl| (None, acl)).chain(own);
        let mut warnings = Vec::new();
        for (name, acl) in lists {
            let users: Vec<&str> = acl.users().collect();
            let listeners = self.listeners.iter();
            let mut listeners = listeners.filter(|it| it.settings.access.acl.as_deref() == name);
            if let Some(first) = users.first()
                && !listeners.any(proves_names)
            {
                let place = match (name, &self.acl.file) {
                    (Some(name), _) => name.to_owned(),
                    (None, Some(file)) => file.display().to_string(),
                    (None, None) => "acl_rules".to_owned(),
                };
                warnings.push(format!(
                    "{place}: the rules of {} users, such as {first:?}, can never hold: no listener they are for has a method of authentication, or takes \
                     user names from certificates, so every client is one without a user name",
                    users.len()
                ));
            }
        }
        let names = self.bridges.iter().filter(|it| {
            let tls = it.transport.tls.as_ref();
            tls.is_some_and(|(tls, _)| tls.insecure_server_name)
        });
        warnings.extend(names.map(|it| {
            format!(
                "bridge {}: insecure_server_name: whoever has any certificate of its authorities can pass for the upstream",
                it.bridge.name
            )
        }));
        warnings
    }
}

/// Whether clients of a listener can have user names.
fn proves_names(listener: &Listener) -> bool {
    let settings = &listener.settings;
    !settings.authentication.is_empty() || settings.access.use_identity_as_username
}

/// Reads lines `user NAME`, `topic [ACCESS] FILTER` and `pattern [ACCESS] FILTER`. What stands
/// before the first `user` is for clients without a user name. Adds to `acl`.
fn parse(file: &Path, text: &str, acl: &mut Acl) -> Result<(), ConfigError> {
    let mut problems = Vec::new();
    let mut user = None;
    for (at, line) in text.lines().enumerate() {
        if let Err(what) = parse_line(line.trim_end(), &mut user, acl) {
            problems.push(Problem {
                place: format!("{}:{}", file.display(), at + 1),
                key: String::new(),
                what,
            });
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(ConfigError { problems })
    }
}

fn parse_line<'a>(line: &'a str, user: &mut Option<&'a str>, acl: &mut Acl) -> Result<(), String> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    if line.contains('\t') {
        return Err("found a tab, expected spaces between words".to_owned());
    }
    let line = line.trim_start_matches(' ');
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim_start_matches(' ');
    match word {
        "user" if rest.is_empty() => Err("expected a user name after user".to_owned()),
        "user" => {
            *user = Some(rest);
            Ok(())
        }
        "topic" => add_rule(rest, acl.user(*user), Rules::add_topic),
        "pattern" => add_rule(rest, acl.patterns(), Rules::add_pattern),
        _ => Err(format!("found {word:?}, expected user, topic or pattern")),
    }
}

fn add_rule(
    rest: &str,
    rules: &mut Rules,
    add: fn(&mut Rules, Permission, &str) -> Result<(), &'static str>,
) -> Result<(), String> {
    // A filter with spaces in it needs the access before it.
    let (access, filter) = match rest.split_once(' ') {
        None => (Permission::ReadWrite, rest),
        Some((word, filter)) => {
            let access = word.parse().map_err(|()| {
                format!("found {word:?}, expected {ACCESS_EXPECTED} before the topic")
            })?;
            (access, filter.trim_start_matches(' '))
        }
    };
    if filter.is_empty() {
        return Err("expected a topic".to_owned());
    }
    add(rules, access, filter).map_err(|what| format!("found {filter:?}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AclSettings, Overrides};

    fn read(text: &str) -> Result<Acl, Vec<String>> {
        let mut acl = Acl::default();
        match parse(Path::new("acl"), text, &mut acl) {
            Ok(()) => Ok(acl),
            Err(error) => Err(error.problems.iter().map(ToString::to_string).collect()),
        }
    }

    fn configured(text: &str) -> Result<AclSettings, Vec<String>> {
        Config::parse(text, Path::new("f.toml"), [], &Overrides::default())
            .map(|config| config.acl)
            .map_err(|error| error.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_file_says_the_same_as_rules_in_the_configuration() {
        let file = "# anonymous\ntopic read public/#\n\n  user  alice in the sky\ntopic a/b\n\
                    topic write  with space/#\r\ntopic deny a/b/secret\nuser bob\n\
                    pattern readwrite home/%u/%c/#\nuser alice in the sky\ntopic read more\n";
        let rules = "[[acl_rules]]\ntopic = 'public/#'\naccess = 'read'\n\
                     [[acl_rules]]\nuser = 'alice in the sky'\ntopic = 'a/b'\n\
                     [[acl_rules]]\nuser = 'alice in the sky'\ntopic = 'with space/#'\naccess = 'write'\n\
                     [[acl_rules]]\nuser = 'alice in the sky'\ntopic = 'a/b/secret'\naccess = 'deny'\n\
                     [[acl_rules]]\npattern = 'home/%u/%c/#'\n\
                     [[acl_rules]]\nuser = 'alice in the sky'\ntopic = 'more'\naccess = 'read'\n";
        let settings = configured(rules).expect("good rules");
        assert_eq!(settings.rules, Some(read(file).expect("a good file")));
        assert_eq!(configured(""), Ok(AclSettings::default()));
        assert_eq!(Config::default().load_acls(), Ok(Acls::default()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (line, needle) in [
            (
                "users x",
                "found \"users\", expected user, topic or pattern",
            ),
            ("user ", "expected a user name"),
            ("topic", "expected a topic"),
            ("topic rw a/b", "found \"rw\", expected \"read\""),
            ("topic a/#/b", "found \"a/#/b\": expected a topic filter"),
            ("topic read $share/g/a", "not on a group"),
            ("pattern a/x%u", "stand for a whole level"),
            ("topic read\ta", "found a tab"),
        ] {
            let problems = read(&format!("topic a\n{line}\n{line}")).expect_err(line);
            assert_eq!(problems.len(), 2, "{problems:?}");
            assert!(problems[0].starts_with("acl:2: "), "{problems:?}");
            assert!(problems[0].contains(needle), "{line}: {problems:?}");
        }
        for (text, needle) in [
            (
                "topic = 'a/#/b'",
                "acl_rules[0].topic: expected a topic filter",
            ),
            ("access = 'read'", "expected one of topic and pattern"),
            (
                "topic = 'a'\npattern = 'b'",
                "expected one of topic and pattern",
            ),
            ("user = 'u'\npattern = 'b'", "a pattern is for all users"),
            (
                "topic = 'a'\naccess = 'rw'",
                "acl_rules[0].access: found \"rw\"",
            ),
            (
                "topic = 'a'\n[acl]\nsubscribe = 'all'",
                "acl.subscribe: found \"all\", expected \"strict\" or \"filter\"",
            ),
        ] {
            let problems = configured(&format!("[[acl_rules]]\n{text}")).expect_err(text);
            assert!(problems[0].contains(needle), "{text}: {problems:?}");
        }
    }

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("f.toml"), [], &Overrides::default()).expect("good")
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let listener = "[[listeners]]\nbind = '::1'\nallow_anonymous = true\n";
        let text = format!("acl_file = '/nowhere/acl'\n{listener}acl_file = '/nowhere/own'\n");
        let error = config(&text).load_acls().expect_err("no files").to_string();
        assert!(error.starts_with("/nowhere/acl: cannot be read"), "{error}");
        assert!(error.contains("\n/nowhere/own: cannot be read"), "{error}");
    }

    #[test]
    fn a_file_makes_filters_be_granted_that_match_more_than_may_be_read() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display();
        let listener = "[[listeners]]\nbind = '::1'\nallow_anonymous = true\n";
        let rules = "[[acl_rules]]\ntopic = 'a'\n";
        for (text, expected) in [
            (String::new(), Subscribing::Strict),
            (rules.to_owned(), Subscribing::Strict),
            (format!("acl_file = '{path}'"), Subscribing::Filter),
            (
                format!("acl_file = '{path}'\n[acl]\nsubscribe = 'strict'"),
                Subscribing::Strict,
            ),
            (
                format!("{listener}acl_file = '{path}'"),
                Subscribing::Filter,
            ),
            (
                format!("{rules}[acl]\nsubscribe = 'filter'"),
                Subscribing::Filter,
            ),
        ] {
            let acls = config(&text).load_acls().expect("good");
            assert_eq!(acls.subscribing, expected, "{text}");
        }
    }

    #[test]
    fn rules_of_users_that_nobody_can_be_are_warned_about() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("acl");
        std::fs::write(&path, "user ann\ntopic a\nuser bob\ntopic b\n").expect("written");
        let own = format!("acl_file = {path:?}\n");
        let named = "[authentication]\npassword_file = 'p'\n";
        let listener = "[[listeners]]\nbind = '::1'\nallow_anonymous = true\n";
        let rule = "[[acl_rules]]\nuser = 'ann'\ntopic = 'a'\n";
        let at = path.display().to_string();
        for (text, place) in [
            (own.clone(), Some(at.as_str())),
            (rule.to_owned(), Some("acl_rules")),
            (format!("{own}{named}"), None),
            (format!("{listener}{own}"), Some(&at)),
            (format!("{named}{listener}{own}"), None),
            (
                format!("{named}{listener}{own}authentication_methods = []\n{listener}"),
                Some(&at),
            ),
            ("[[acl_rules]]\ntopic = 'a'\n".to_owned(), None),
        ] {
            let config = config(&text);
            let warnings = config.warnings(&config.load_acls().expect("good"));
            let places: Vec<&str> = warnings
                .iter()
                .filter_map(|text| Some(text.split_once(':')?.0))
                .collect();
            assert_eq!(places, Vec::from_iter(place), "{text}");
        }
    }
}
