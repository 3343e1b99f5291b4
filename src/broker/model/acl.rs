use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::str::FromStr;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use crate::broker::model::access::Identity;
use crate::broker::model::record::Source;
use crate::wire::topic::{self, Filter};

/// Answers of [`Rights`] that are remembered, for each client.
const CACHE_PLACES: usize = 32;

/// The longest topic whose answer is remembered, in bytes: so a client's cache holds no more than 8 KiB of topics.
const CACHED_TOPIC: usize = 256;

/// With fewer rules than this, looking at them costs no more than remembering.
const CACHE_FROM: usize = 6;

/// What a rule says about the topics its filter matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Messages may be received, and filters within the rule's subscribed to.
    Read,
    /// Messages may be published.
    Write,
    /// Both.
    ReadWrite,
    /// Neither, whatever other rules allow.
    Deny,
}

impl FromStr for Permission {
    type Err = ();

    /// Reads Mosquitto's words: `read`, `write`, `readwrite`, `deny`.
    fn from_str(word: &str) -> Result<Permission, ()> {
        match word {
            "read" => Ok(Permission::Read),
            "write" => Ok(Permission::Write),
            "readwrite" => Ok(Permission::ReadWrite),
            "deny" => Ok(Permission::Deny),
            _ => Err(()),
        }
    }
}

/// Rules on topics, without order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    permission: Permission,
    filter: Box<str>,
    /// `%u` and `%c` as a level stand for the user name and the client identifier.
    is_pattern: bool,
}

/// Who may do what: rules by user, and patterns for everybody. Empty, it allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    users: BTreeMap<Option<Box<str>>, Rules>,
    patterns: Rules,
}

/// The lists of what clients may do. `Default` has none: everything is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acls {
    /// For clients of listeners that have no list of their own; `None` allows everything.
    pub common: Option<Arc<Acl>>,
    /// Those of listeners, by [`crate::broker::Access::acl`]. One that is not here allows nothing.
    pub own: BTreeMap<Box<str>, Arc<Acl>>,
    /// Which filters may be subscribed to.
    pub subscribing: Subscribing,
    /// What is retained is shown to nobody while its publisher may not publish it any more.
    pub check_retain_source: bool,
}

impl Default for Acls {
    fn default() -> Acls {
        Acls {
            common: None,
            own: BTreeMap::new(),
            subscribing: Subscribing::default(),
            check_retain_source: true,
        }
    }
}

/// Which filters a client may subscribe to. What it is given is checked message by message all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subscribing {
    /// Those of which it may read everything they match, by one rule; but for what a rule denies.
    #[default]
    Strict,
    /// Those of which it may read anything they match.
    Filter,
}

/// What stands for a list that is not there.
static NOTHING: Acl = Acl {
    users: BTreeMap::new(),
    patterns: Rules(Vec::new()),
};

impl Acls {
    /// The list of this name, or the common one.
    fn list(&self, name: Option<&str>) -> Option<&Acl> {
        match name {
            Some(name) => Some(self.own.get(name).map_or(&NOTHING, |list| list)),
            None => self.common.as_deref(),
        }
    }

    /// Whether what is retained of a topic, which has the mount point before it, may be shown as far as its publisher is
    /// concerned: it might still publish it.
    pub fn lets_show(&self, source: &Source, topic: &str) -> bool {
        let Some(acl) = self.list(source.acl.as_deref()) else {
            return true;
        };
        !self.check_retain_source || acl.may_write(source, topic)
    }
}

impl From<Option<Arc<Acl>>> for Acls {
    /// One list for all listeners.
    fn from(common: Option<Arc<Acl>>) -> Acls {
        Acls {
            common,
            ..Acls::default()
        }
    }
}

impl Rules {
    /// Adds a rule on a topic filter, in which `%` has no meaning.
    ///
    /// # Errors
    /// It is not a topic filter; says what was expected.
    pub fn add_topic(&mut self, permission: Permission, filter: &str) -> Result<(), &'static str> {
        self.add(permission, filter, false)
    }

    /// Adds a rule on a topic filter in which the level `%u` stands for the user name and `%c` for the client identifier.
    ///
    /// # Errors
    /// It is not such a filter; says what was expected.
    pub fn add_pattern(
        &mut self,
        permission: Permission,
        filter: &str,
    ) -> Result<(), &'static str> {
        let mut levels = filter.split('/');
        if levels.any(|level| level.len() > 2 && (level.contains("%u") || level.contains("%c"))) {
            return Err("%u and %c stand for a whole level: nothing may stand beside them");
        }
        self.add(permission, filter, true)
    }

    fn add(
        &mut self,
        permission: Permission,
        filter: &str,
        is_pattern: bool,
    ) -> Result<(), &'static str> {
        match Filter::parse(filter) {
            Some(Filter { share: None, .. }) => self.0.push(Rule {
                permission,
                filter: filter.into(),
                is_pattern,
            }),
            Some(_) => return Err("a rule is on the topics, not on a group that shares them"),
            None => return Err("expected a topic filter: + and # stand alone, # comes last"),
        }
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Acl {
    /// The rules for a user; `None` is the clients that have no user name.
    pub fn user(&mut self, name: Option<&str>) -> &mut Rules {
        self.users.entry(name.map(Into::into)).or_default()
    }

    /// The user names that have rules of their own.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().filter_map(Option::as_deref)
    }

    /// Whether a client that is not here may publish to a topic, by the rules for its user and the patterns.
    fn may_write(&self, client: &Source, topic: &str) -> bool {
        let user = client.user.as_deref();
        let own = self.users.get(&client.user).into_iter();
        let rules = own.chain([&self.patterns]).flat_map(|rules| &rules.0);
        let mut may = false;
        for rule in rules.filter(|rule| rule.permission != Permission::Read) {
            let denies = rule.permission == Permission::Deny;
            let matches = match rule.is_pattern {
                true => put_names(&rule.filter, user, &client.client_id, denies)
                    .is_some_and(|filter| topic::matches(&filter, topic)),
                false => topic::matches(&rule.filter, topic),
            };
            if matches && denies {
                return false;
            }
            may |= matches;
        }
        may
    }

    /// The rules for everybody.
    pub fn patterns(&mut self) -> &mut Rules {
        &mut self.patterns
    }
}

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
        let mut compiled = Compiled::default();
        let rules = match (&identity.rules, acls.list(list)) {
            (Some(own), _) => {
                compiled.add(own, user, client_id);
                Some(compiled)
            }
            (None, Some(acl)) => {
                if let Some(own) = acl.users.get(&identity.user) {
                    compiled.add(own, user, client_id);
                }
                compiled.add(&acl.patterns, user, client_id);
                Some(compiled)
            }
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
    fn add(&mut self, rules: &Rules, user: Option<&str>, client_id: &str) {
        for rule in &rules.0 {
            let denies = rule.permission == Permission::Deny;
            let filter = if rule.is_pattern {
                match put_names(&rule.filter, user, client_id, denies) {
                    Some(filter) => filter,
                    None => continue,
                }
            } else {
                rule.filter.clone()
            };
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

/// A pattern for one client; `None` if it is not for it: it asks for a user name and the client has none, or for a name that would be more than one
/// level. A client with a wildcard in one of its names has no pattern that allows, as with Mosquitto. Where a pattern denies, a name that cannot
/// stand there is taken for any name.
fn put_names(pattern: &str, user: Option<&str>, client_id: &str, denies: bool) -> Option<Box<str>> {
    let has_wildcard = |name: &str| name.contains(['+', '#']);
    if !denies && (has_wildcard(client_id) || user.is_some_and(has_wildcard)) {
        return None;
    }
    let mut filter = String::with_capacity(pattern.len());
    for (at, level) in pattern.split('/').enumerate() {
        let name = match level {
            "%u" => Some(user?),
            "%c" => Some(client_id),
            _ => None,
        };
        if at > 0 {
            filter.push('/');
        }
        filter.push_str(match name {
            None => level,
            Some(name) if !name.contains(['+', '#', '/']) => name,
            Some(_) if denies => "+",
            Some(_) => return None,
        });
    }
    Some(filter.into())
}

/// Whether a rule's filter matches every topic that another filter does.
fn covers(rule: &str, filter: &str) -> bool {
    if filter.starts_with('$') && rule.starts_with(['+', '#']) {
        return false;
    }
    let (mut rule, mut filter) = (rule.split('/'), filter.split('/'));
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
    let (mut a, mut b) = (a.split('/'), b.split('/'));
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
