//! What one client may do: the rules of an access control list with its names put in.

use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;

use crate::broker::model::access::Identity;
use crate::broker::model::acl::{Acls, Permission, Rule, Subscribing};
use crate::wire::topic;

/// Answers of [`Rights`] that are remembered, for each client.
const CACHE_PLACES: usize = 32;
/// The longest topic whose answer is remembered, in bytes: so a client's cache holds no more than 8 KiB of topics.
const CACHED_TOPIC: usize = 256;
/// With fewer rules than this, looking at them costs no more than remembering.
const CACHE_FROM: usize = 6;

/// What one client may do through its listener.
#[derive(Debug)]
pub struct Rights {
    /// What the listener puts before all topics of its clients; empty for nothing.
    pub mount_point: Box<str>,
    /// The name of the listener's list, if it has one.
    pub list: Option<Box<str>>,
    subscribing: Subscribing,
    /// `None` allows everything under the mount point.
    rules: Option<Compiled>,
}

/// The rules for one client, with its names put in.
#[derive(Debug, Default)]
struct Compiled {
    deny: Vec<Box<str>>,
    read: Vec<Box<str>>,
    write: Vec<Box<str>>,
    /// Answers, at a place that follows from the topic: a newer one takes the place of an older.
    cache: Vec<Option<Answer>>,
}

#[derive(Clone, Debug)]
struct Answer {
    topic: Box<str>,
    read: bool,
    write: bool,
}

impl Rights {
    /// The rights of a client of a listener with this list and mount point; `None` if it may do everything. Rules that came with its credentials stand
    /// instead of the list.
    pub fn new(
        acls: &Acls,
        list: Option<&str>,
        identity: &Identity,
        client_id: &str,
        mount_point: &str,
    ) -> Option<Box<Rights>> {
        let user = identity.user.as_deref();
        let compile = |rules: &mut dyn Iterator<Item = &Rule>| {
            let mut compiled = Compiled::default();
            rules.for_each(|rule| compiled.add(rule, user, client_id));
            compiled
        };
        let rules = match (&identity.rules, acls.list(list)) {
            (Some(own), _) => Some(compile(&mut own.iter())),
            (None, Some(acl)) => Some(compile(&mut acl.rules_for(&identity.user))),
            (None, None) => None,
        };
        (rules.is_some() || !mount_point.is_empty()).then(|| {
            Box::new(Rights {
                mount_point: mount_point.into(),
                list: list.map(Into::into),
                subscribing: acls.subscribing,
                rules,
            })
        })
    }

    /// The name of the listener's list, if it has one.
    pub fn list(&self) -> Option<&str> {
        self.list.as_deref()
    }

    /// A topic of the client as the broker calls it; `None` if that is the same.
    pub fn mount(&self, topic: &str) -> Option<Box<str>> {
        let mount_point = &*self.mount_point;
        (!mount_point.is_empty()).then(|| [mount_point, topic].concat().into())
    }

    /// Whether the client may be given messages of a topic.
    pub fn may_read(&mut self, topic: &str) -> bool {
        topic.starts_with(&*self.mount_point) && self.ask(topic).0
    }

    /// Whether the client may publish to a topic, which has the mount point before it.
    pub fn may_write(&mut self, topic: &str) -> bool {
        self.ask(topic).1
    }

    /// Whether the client may subscribe to a filter (without share name, with the mount point before it). Strictly: if one rule that allows to read
    /// matches everything the filter does, and no rule that denies does so, too. Otherwise, if a rule that allows to read matches anything the filter does,
    /// and no rule that denies matches all of that. What may not be read of the rest is not delivered.
    pub fn grants(&self, filter: &str) -> bool {
        let Some(rules) = &self.rules else {
            return filter.starts_with(&*self.mount_point);
        };
        let covered = |by: &[Box<str>], filter: &str| by.iter().any(|rule| covers(rule, filter));
        let granted = match self.subscribing {
            Subscribing::Strict => covered(&rules.read, filter) && !covered(&rules.deny, filter),
            Subscribing::Filter => rules.read.iter().any(|rule| {
                let common = overlap(rule, filter);
                common.is_some_and(|common| !covered(&rules.deny, &common))
            }),
        };
        granted && filter.starts_with(&*self.mount_point)
    }

    fn ask(&mut self, topic: &str) -> (bool, bool) {
        self.rules
            .as_mut()
            .map_or((true, true), |rules| rules.ask(topic))
    }
}

impl Compiled {
    fn add(&mut self, rule: &Rule, user: Option<&str>, client_id: &str) {
        let Some(filter) = rule.filter_for(user, client_id) else {
            return;
        };
        let filter: Box<str> = filter.into();
        match rule.permission {
            Permission::Deny => self.deny.push(filter),
            Permission::Read => self.read.push(filter),
            Permission::Write => self.write.push(filter),
            Permission::ReadWrite => {
                self.read.push(filter.clone());
                self.write.push(filter);
            }
        }
    }

    fn ask(&mut self, topic: &str) -> (bool, bool) {
        let count = self.deny.len() + self.read.len() + self.write.len();
        if count < CACHE_FROM || topic.len() > CACHED_TOPIC {
            return self.look(topic);
        }
        if self.cache.is_empty() {
            self.cache = vec![None; CACHE_PLACES];
        }
        let at = FxBuildHasher.hash_one(topic) as usize % CACHE_PLACES;
        if let Some(answer) = self.cache[at]
            .as_ref()
            .filter(|answer| &*answer.topic == topic)
        {
            return (answer.read, answer.write);
        }
        let (read, write) = self.look(topic);
        self.cache[at] = Some(Answer {
            topic: topic.into(),
            read,
            write,
        });
        (read, write)
    }

    fn look(&self, topic: &str) -> (bool, bool) {
        let matched = |rules: &[Box<str>]| rules.iter().any(|rule| topic::matches(rule, topic));
        if matched(&self.deny) {
            return (false, false);
        }
        (matched(&self.read), matched(&self.write))
    }
}

/// Whether a rule's filter matches every topic that another filter does.
fn covers(rule: &str, filter: &str) -> bool {
    if filter.starts_with('$') && rule.starts_with(['+', '#']) {
        return false;
    }
    let (mut rule, mut filter) = (topic::levels(rule), topic::levels(filter));
    loop {
        match (rule.next(), filter.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some(_), Some("#")) | (None, Some(_)) | (Some(_), None) => return false,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) => {
                if wanted != level {
                    return false;
                }
            }
        }
    }
}

/// The filter that matches what both of these do; `None` if there is no such topic.
fn overlap(a: &str, b: &str) -> Option<String> {
    let is_broad = |filter: &str| filter.starts_with(['+', '#']);
    if a.starts_with('$') && is_broad(b) || b.starts_with('$') && is_broad(a) {
        return None;
    }
    let mut common = Vec::new();
    let (mut a, mut b) = (topic::levels(a), topic::levels(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) | (Some("#"), None) | (None, Some("#")) => break,
            (Some("#"), Some(level)) => {
                common.push(level);
                common.extend(b);
                break;
            }
            (Some(level), Some("#")) => {
                common.push(level);
                common.extend(a);
                break;
            }
            (Some("+"), Some(level)) | (Some(level), Some("+")) => common.push(level),
            (Some(one), Some(other)) if one == other => common.push(one),
            _ => return None,
        }
    }
    Some(common.join("/"))
}
