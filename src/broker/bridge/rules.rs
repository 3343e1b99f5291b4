//! Topic rules: which messages cross a bridge, and under which names.

use crate::broker::model::topics::SYS_PREFIX;
use crate::wire::{QoS, text, topic};

/// Which way messages go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From this broker to the upstream.
    #[default]
    Out,
    /// From the upstream to this broker.
    In,
    /// Both ways.
    Both,
}

/// Which retained messages cross beside those that are published while the rule holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendRetained {
    /// All there are, when the subscription for the rule is made.
    #[default]
    IfNew,
    /// All there are, whenever the bridge connects.
    Always,
    /// None.
    Never,
}

/// A topic rule, in the words of Mosquitto's
/// `topic PATTERN DIRECTION QOS LOCAL-PREFIX REMOTE-PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    direction: Direction,
    qos: QoS,
    keeps_retain: bool,
    send_retained: SendRetained,
    local_prefix: Box<str>,
    remote_prefix: Box<str>,
    local_filter: Box<str>,
    remote_filter: Box<str>,
    keep_latest: bool,
}

impl Rule {
    /// A rule whose filters are the pattern behind each prefix; the pattern may be empty, then each
    /// prefix is a whole topic.
    ///
    /// # Errors
    /// What is wrong with a prefix, or with one together with the pattern.
    pub fn new(
        pattern: &str,
        direction: Direction,
        qos: QoS,
        local_prefix: &str,
        remote_prefix: &str,
    ) -> Result<Rule, String> {
        let filter = |side: &str, prefix: &str| {
            if prefix.contains(['+', '#']) {
                return Err(format!("the {side} prefix {prefix:?} has a wildcard"));
            }
            let text = format!("{prefix}{pattern}");
            match topic::Filter::parse(&text) {
                Some(filter) if filter.share.is_none() && text::is_plain(&text) => {
                    Ok(text.into_boxed_str())
                }
                _ => Err(format!("{text:?} on the {side} side is no topic filter")),
            }
        };
        let rule = Rule {
            direction,
            qos,
            keeps_retain: true,
            send_retained: SendRetained::default(),
            local_filter: filter("local", local_prefix)?,
            remote_filter: filter("remote", remote_prefix)?,
            local_prefix: local_prefix.into(),
            remote_prefix: remote_prefix.into(),
            keep_latest: false,
        };
        if rule.goes_in() && rule.local_filter.starts_with(SYS_PREFIX) {
            return Err("nothing can come in under $SYS/, which is the broker's own".to_owned());
        }
        Ok(rule)
    }

    /// The rule with this handling of retained messages: whether what crosses keeps its retain
    /// flag, and which cross beside new ones.
    ///
    /// # Errors
    /// A rule for both directions would always send back what it got, which may have become old
    /// meanwhile.
    pub fn with_retained(self, keeps: bool, send: SendRetained) -> Result<Rule, String> {
        if send == SendRetained::Always && self.direction == Direction::Both {
            return Err("\"always\" would send back retained messages that came from there, older than those that replaced them meanwhile; \
                        expected direction \"in\" or \"out\""
                .to_owned());
        }
        Ok(Rule {
            keeps_retain: keeps,
            send_retained: send,
            ..self
        })
    }

    /// Whether what crosses keeps its retain flag.
    pub fn keeps_retain(&self) -> bool {
        self.keeps_retain
    }

    /// Which retained messages cross beside new ones.
    pub fn send_retained(&self) -> SendRetained {
        self.send_retained
    }

    /// This rule, with only the newest message of each topic waiting, or with all of them.
    pub fn keeping_latest(mut self, keep_latest: bool) -> Rule {
        self.keep_latest = keep_latest;
        self
    }

    /// Whether only the newest message of each topic waits.
    pub fn keeps_latest(&self) -> bool {
        self.keep_latest
    }

    /// Whether messages of this broker go out.
    pub fn goes_out(&self) -> bool {
        self.direction != Direction::In
    }

    /// Whether messages of the upstream come in.
    pub fn goes_in(&self) -> bool {
        self.direction != Direction::Out
    }

    /// The highest QoS messages cross with.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// What is subscribed to at this broker.
    pub fn local_filter(&self) -> &str {
        &self.local_filter
    }

    /// What is subscribed to at the upstream.
    pub fn remote_filter(&self) -> &str {
        &self.remote_filter
    }
}

impl Rule {
    /// Whether topics that come in by this rule may go out by one of these.
    pub fn meets_what_goes_out(&self, rules: &[Rule]) -> bool {
        let mut out = rules.iter().filter(|rule| rule.goes_out());
        out.any(|rule| overlap(&rule.local_filter, &self.local_filter))
    }

    /// Whether topics that go out by this rule may come in by one of these.
    pub fn meets_what_comes_in(&self, rules: &[Rule]) -> bool {
        let mut within = rules.iter().filter(|rule| rule.goes_in());
        within.any(|rule| overlap(&rule.local_filter, &self.local_filter))
    }
}

/// Whether a topic can match both filters.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (topic::levels(one), topic::levels(other));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            _ => return false,
        }
    }
}

/// The first rule by which a topic of this broker goes out; the upstream's name of it is put into
/// `name`. `None` if there is none, or if the name is too long to be one.
pub fn remote_topic<'r>(rules: &'r [Rule], topic: &str, name: &mut String) -> Option<&'r Rule> {
    let rule = rules
        .iter()
        .find(|rule| rule.goes_out() && topic::matches(&rule.local_filter, topic))?;
    rename(topic, &rule.local_prefix, &rule.remote_prefix, name).then_some(rule)
}

/// The first rule by which a topic of the upstream comes in, and this broker's name of it; as
/// [`remote_topic`].
pub fn local_topic<'r>(rules: &'r [Rule], topic: &str, name: &mut String) -> Option<&'r Rule> {
    let rule = rules
        .iter()
        .find(|rule| rule.goes_in() && topic::matches(&rule.remote_filter, topic))?;
    rename(topic, &rule.remote_prefix, &rule.local_prefix, name).then_some(rule)
}

/// Puts one prefix in the place of another. A topic may be shorter than its rule's prefix: `a/#`
/// matches `a`; then that slash goes, too.
fn rename(topic: &str, from: &str, to: &str, name: &mut String) -> bool {
    name.clear();
    match topic.strip_prefix(from) {
        Some(rest) => {
            name.push_str(to);
            name.push_str(rest);
        }
        None => name.push_str(to.strip_suffix('/').unwrap_or(to)),
    }
    topic::is_valid_name(name) && name.len() <= usize::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, direction: Direction, local: &str, remote: &str) -> Rule {
        Rule::new(pattern, direction, QoS::ExactlyOnce, local, remote).expect("a good rule")
    }

    fn out(rules: &[Rule], topic: &str) -> Option<String> {
        let mut name = String::new();
        remote_topic(rules, topic, &mut name)?;
        Some(name)
    }

    fn into(rules: &[Rule], topic: &str) -> Option<String> {
        let mut name = String::new();
        local_topic(rules, topic, &mut name)?;
        Some(name)
    }

    #[test]
    fn prefixes_are_exchanged_both_ways() {
        let rules = [rule("+/temp/#", Direction::Both, "site/", "plant7/site/")];
        assert_eq!(rules[0].local_filter(), "site/+/temp/#");
        assert_eq!(rules[0].remote_filter(), "plant7/site/+/temp/#");
        assert_eq!(
            out(&rules, "site/a/temp/b").as_deref(),
            Some("plant7/site/a/temp/b")
        );
        assert_eq!(
            into(&rules, "plant7/site/a/temp").as_deref(),
            Some("site/a/temp")
        );
        assert_eq!(out(&rules, "other/a/temp"), None);
        assert_eq!(into(&rules, "site/a/temp"), None);
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_the_direction_counts() {
        let rules = [
            rule("cmd/#", Direction::In, "", "down/"),
            rule("a/#", Direction::Out, "", "first/"),
            rule("#", Direction::Out, "", "rest/"),
        ];
        assert_eq!(out(&rules, "a/b").as_deref(), Some("first/a/b"));
        assert_eq!(out(&rules, "cmd/x").as_deref(), Some("rest/cmd/x"));
        assert_eq!(into(&rules, "down/cmd/x").as_deref(), Some("cmd/x"));
        assert_eq!(into(&rules, "first/a/b"), None);
    }

    #[test]
    fn filters_that_have_a_topic_in_common_overlap() {
        for (one, other, expected) in [
            ("#", "a/b", true),
            ("a/#", "a", true),
            ("a/+", "+/b", true),
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a/+", "a", false),
            ("a/b/#", "a/c", false),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_pattern_may_be_empty_and_a_parent_topic_fits() {
        let one = [rule("", Direction::Out, "local/topic", "remote/topic")];
        assert_eq!(out(&one, "local/topic").as_deref(), Some("remote/topic"));
        let parent = [rule("#", Direction::Out, "a/", "b/c/")];
        assert_eq!(
            out(&parent, "a").as_deref(),
            Some("b/c"),
            "a/# matches a as well"
        );
    }

    #[test]
    fn a_name_that_is_none_or_too_long_is_not_made() {
        let long = "x".repeat(40_000);
        let rules = [rule("#", Direction::Out, "", &format!("{long}/"))];
        assert_eq!(out(&rules, &long), None);
        let bare = [rule("#", Direction::Out, "a/", "")];
        assert_eq!(out(&bare, "a"), None, "nothing would be left of it");
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_reason() {
        let refused = |pattern, direction, local, remote| {
            Rule::new(pattern, direction, QoS::AtMostOnce, local, remote).expect_err("no rule")
        };
        assert!(refused("#", Direction::Out, "a/+/", "").contains("local prefix"));
        assert!(refused("#", Direction::Out, "", "b#").contains("remote prefix"));
        assert!(refused("#", Direction::Out, "a", "").contains("\"a#\" on the local side"));
        assert!(refused("", Direction::Out, "a", "").contains("remote side"));
        assert!(refused("$share/g/a", Direction::Out, "", "").contains("no topic filter"));
        assert!(refused("#", Direction::In, "$SYS/", "x/").contains("$SYS/"));
    }
}
