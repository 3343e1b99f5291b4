//! What a method of authentication says of a client, and what the client may do then.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::broker::{Identity, Permission, Rules};

/// What a method says.
#[derive(Debug)]
pub(super) enum MethodResult {
    Accepted(Identity),
    /// With the reason, for the log.
    Refused(&'static str),
    /// It could not be found out, which has nothing to do with the client.
    Failed(&'static str),
    Unknown,
}

/// A user that comes with rules of its own, and what its credential is known by.
///
/// # Errors
/// The name cannot be a user name.
pub(super) fn accepted(
    user: &str,
    rules: Option<Rules>,
    credential: u64,
) -> Result<Identity, &'static str> {
    if user.is_empty() || user.len() > usize::from(u16::MAX) || user.contains(char::is_control) {
        return Err("the user name is empty, too long or has control characters");
    }
    Ok(Identity {
        user: Some(user.into()),
        rules: rules.map(Arc::new),
        credential: Some(credential),
        expires_in: None,
    })
}

/// What is wrong with lists of topic filters that are none.
pub(super) const NO_FILTERS: &str = "publish or subscribe is not a list of topic filters";

/// The rules that these lists of topic filters are; `None` if there are none.
///
/// # Errors
/// One is no topic filter.
pub(super) fn rules_of(
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
) -> Result<Option<Rules>, &'static str> {
    if publish.is_none() && subscribe.is_none() {
        return Ok(None);
    }
    let mut rules = Rules::default();
    for (filters, permission) in [(publish, Permission::Write), (subscribe, Permission::Read)] {
        for filter in filters.unwrap_or_default() {
            rules
                .add_topic(permission, &filter)
                .map_err(|_| NO_FILTERS)?;
        }
    }
    Ok(Some(rules))
}

/// A number that what a login was proved with is known by as long as it is the same.
pub(super) fn credential_of(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
