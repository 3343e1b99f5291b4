//! How much memory a session, a will, a subscription or an alias is counted with.

use crate::broker::model::access::Identity;
use crate::broker::model::record::WillRecord;

/// What a will takes beside its message, in bytes.
const WILL: u64 = 64;

/// What a subscription takes beside its text.
const SUBSCRIPTION: u64 = 64;

/// What each level of a filter takes.
const LEVEL: u64 = 64;

/// What a topic alias takes beside its topic.
pub const ALIAS: u64 = 64;

/// What a subscription takes; `text` is its filter as in a SUBSCRIBE.
pub fn subscription_bytes(text: &str) -> u64 {
    let levels = text.bytes().filter(|byte| *byte == b'/').count() as u64 + 1;
    SUBSCRIPTION + text.len() as u64 + LEVEL * levels
}

/// What a client brings with its CONNECT. Client identifiers and user names also stand in a table.
pub fn connect_bytes(
    client_id: &str,
    identity: Option<&Identity>,
    will: Option<&WillRecord>,
) -> u64 {
    let user = identity.and_then(|identity| identity.user.as_deref());
    let names = client_id.len() + user.map_or(0, str::len);
    2 * names as u64 + will.map_or(0, |will| WILL + u64::from(will.message.size()))
}
