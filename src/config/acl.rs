//! What clients may do: where an ACL file is, and rules in the configuration.

use std::path::PathBuf;

use super::tree::{Section, Value};
use crate::broker::{Acl, Permission, Subscribing};

pub(super) const ACCESS_EXPECTED: &str = "\"read\", \"write\", \"readwrite\" or \"deny\"";

/// Where the rules are. Without a file and without rules everybody may do everything; otherwise
/// only what a rule allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclSettings {
    /// A file in Mosquitto's format.
    pub file: Option<PathBuf>,
    /// The rules in the configuration, if there are any.
    pub rules: Option<Acl>,
    /// Which filters may be subscribed to; `None` is [`Subscribing::Filter`] if there is a file,
    /// also one of a listener.
    pub subscribing: Option<Subscribing>,
    /// What is retained is shown to nobody while its publisher may not publish it any more; `None`
    /// is yes.
    pub check_retain_source: Option<bool>,
}

/// Reads the keys.
pub(super) fn acl(root: &mut Section<'_, '_>) -> AclSettings {
    let expected = "the path of a file";
    let file = root.optional("acl_file", expected, |value| {
        let text = value.as_text().filter(|text| !text.is_empty())?;
        Some(PathBuf::from(text))
    });
    let mut acl = Acl::default();
    let rules = root.each("acl_rules", |mut section| {
        rule(&mut section, &mut acl);
        section.close();
        Some(())
    });
    let mut section = root.section("acl");
    let expected = "\"strict\" or \"filter\"";
    let subscribing = section.optional("subscribe", expected, |value| match value.as_text()? {
        "strict" => Some(Subscribing::Strict),
        "filter" => Some(Subscribing::Filter),
        _ => None,
    });
    let key = "check_retain_source";
    let check_retain_source = section.optional(key, "true or false", Value::as_bool);
    section.close();
    AclSettings {
        file: file.ok().flatten(),
        rules: (!rules.is_empty()).then_some(acl),
        subscribing: subscribing.ok().flatten(),
        check_retain_source: check_retain_source.ok().flatten(),
    }
}

fn rule(s: &mut Section<'_, '_>, acl: &mut Acl) {
    let mut text = |key, expected| {
        let read = s.optional(key, expected, |value| value.as_text().map(str::to_owned));
        read.ok().flatten()
    };
    let user = text("user", "the name of a user");
    let topic = text("topic", "a topic filter such as \"sensors/#\"");
    let pattern = text("pattern", "a topic filter such as \"sensors/%u/#\"");
    let access = s.get(
        "access",
        Permission::ReadWrite,
        ACCESS_EXPECTED,
        |value: &Value| value.as_text()?.parse().ok(),
    );
    let (key, added) = match (topic, pattern) {
        (Some(topic), None) => {
            let rules = acl.user(user.as_deref());
            ("topic", rules.add_topic(access, &topic))
        }
        (None, Some(pattern)) if user.is_none() => {
            ("pattern", acl.patterns().add_pattern(access, &pattern))
        }
        (None, Some(_)) => ("user", Err("a pattern is for all users; expected a topic")),
        _ => ("topic", Err("expected one of topic and pattern")),
    };
    if let Err(what) = added {
        s.reject(key, what);
    }
}
