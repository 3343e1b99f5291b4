//! Access control lists: rules on topics, as in Mosquitto.
//!
//! [`Rules`] belong to a user, come with credentials, or hold for everybody as patterns. An [`Acl`]
//! is a whole list. A listener may have a list of its own ([`Acls`]). What no rule allows is
//! refused. A rule that denies wins over all that allow. For each client the rules become
//! [`Rights`](crate::broker::state::rights::Rights).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use crate::broker::model::record::Source;
use crate::wire::topic::{self, Filter};

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

/// What is said about the topics that a filter matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(in crate::broker) permission: Permission,
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

/// Which filters a client may subscribe to. What it is given is checked message by message all the
/// same.
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
    pub(in crate::broker) fn list(&self, name: Option<&str>) -> Option<&Acl> {
        match name {
            Some(name) => Some(self.own.get(name).map_or(&NOTHING, |list| list)),
            None => self.common.as_deref(),
        }
    }

    /// Whether what is retained of a topic, which has the mount point before it, may be shown as
    /// far as its publisher is concerned: it might still publish it.
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
    /// All of them.
    pub(in crate::broker) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// Adds a rule on a topic filter, in which `%` has no meaning.
    ///
    /// # Errors
    /// It is not a topic filter; says what was expected.
    pub fn add_topic(&mut self, permission: Permission, filter: &str) -> Result<(), &'static str> {
        self.add(permission, filter, false)
    }

    /// Adds a rule on a topic filter in which the level `%u` stands for the user name and `%c` for
    /// the client identifier.
    ///
    /// # Errors
    /// It is not such a filter; says what was expected.
    pub fn add_pattern(
        &mut self,
        permission: Permission,
        filter: &str,
    ) -> Result<(), &'static str> {
        let mut levels = topic::levels(filter);
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

    /// The rules that hold for a user: its own, and those for everybody.
    pub(in crate::broker) fn rules_for(
        &self,
        user: &Option<Box<str>>,
    ) -> impl Iterator<Item = &Rule> {
        let own = self.users.get(user).into_iter();
        own.chain([&self.patterns]).flat_map(Rules::iter)
    }

    /// Whether a client that is not here may publish to a topic, by the rules for its user and the
    /// patterns.
    fn may_write(&self, client: &Source, topic: &str) -> bool {
        let user = client.user.as_deref();
        let mut may = false;
        for rule in self.rules_for(&client.user) {
            let matches = rule.permission != Permission::Read
                && rule
                    .filter_for(user, &client.client_id)
                    .is_some_and(|filter| topic::matches(&filter, topic));
            if matches && rule.permission == Permission::Deny {
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

impl Rule {
    /// The filter for one client; `None` if the rule is not for it.
    pub(in crate::broker) fn filter_for(
        &self,
        user: Option<&str>,
        client_id: &str,
    ) -> Option<Cow<'_, str>> {
        if !self.is_pattern {
            return Some(Cow::Borrowed(&self.filter));
        }
        let denies = self.permission == Permission::Deny;
        put_names(&self.filter, user, client_id, denies).map(Cow::Owned)
    }
}

/// A pattern for one client; `None` if it is not for it: it asks for a user name and the client has
/// none, or for a name that would be more than one level. A client with a wildcard in one of its
/// names has no pattern that allows, as with Mosquitto. Where a pattern denies, a name that cannot
/// stand there is taken for any name.
fn put_names(pattern: &str, user: Option<&str>, client_id: &str, denies: bool) -> Option<String> {
    let has_wildcard = |name: &str| name.contains(['+', '#']);
    if !denies && (has_wildcard(client_id) || user.is_some_and(has_wildcard)) {
        return None;
    }
    let mut filter = String::with_capacity(pattern.len());
    for (at, level) in topic::levels(pattern).enumerate() {
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
    Some(filter)
}
