//! Which client identifiers a listener takes.

use super::text::texts;
use super::tree::Section;
use crate::broker::Access;

/// What a listener says of client identifiers, put into its access.
pub(super) fn client_ids(s: &mut Section<'_, '_>, access: Access) -> Access {
    let use_username = s.flag("use_username_as_clientid", false);
    let expected = "a beginning of client identifiers such as \"gateway-\" or \"%u-\", or a list of such; behind %u, the user name, something else stands";
    let prefixes = s.get("clientid_prefixes", Vec::new(), expected, |value| {
        let prefixes: Option<Vec<Box<str>>> = texts(value)?
            .into_iter()
            .map(|text| is_prefix(text).then(|| text.into()))
            .collect();
        prefixes.filter(|prefixes| !prefixes.is_empty())
    });
    if use_username && access.use_identity_as_clientid {
        let what = "use_identity_as_clientid says something else; expected one of them";
        s.reject("use_username_as_clientid", what);
    }
    if use_username && !prefixes.is_empty() {
        let what = "has no use with use_username_as_clientid; expected one of them";
        s.reject("clientid_prefixes", what);
    }
    Access {
        use_username_as_clientid: use_username,
        clientid_prefixes: prefixes,
        allow_zero_length_clientid: s.flag("allow_zero_length_clientid", true),
        ..access
    }
}

/// Without something behind it, `%u` would let a user have identifiers of another one whose name
/// goes on.
fn is_prefix(text: &str) -> bool {
    let is_text = !text.is_empty() && !text.chars().any(char::is_control);
    is_text
        && match text.split_once("%u") {
            None => true,
            Some((_, behind)) => !behind.is_empty() && !behind.contains("%u"),
        }
}
