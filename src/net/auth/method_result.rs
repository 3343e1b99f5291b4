//! The result of a method of authentication.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::broker::{Identity, Permission, Rules};

/// The result of a method of authentication.
#[derive(Debug)]
pub(super) enum MethodResult {
    Accepted(Identity),
    /// Refused, with the reason for the log.
    Refused(&'static str),
    /// The method has failed. This says nothing about the client.
    Failed(&'static str),
    Unknown,
}

/// Returns the identity of an accepted user with these rules.
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

/// The error text for lists that are not topic filters.
pub(super) const NO_FILTERS: &str = "publish or subscribe is not a list of topic filters";

/// Returns the rules of these lists of topic filters. `None` if there are no lists.
///
/// # Errors
/// A string is not a topic filter.
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

/// Returns a number that stays the same as long as `what` does.
pub(super) fn credential_of(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
