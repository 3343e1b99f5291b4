//! Who published a message that is retained.

use super::record::{Input, What, put_text};
use crate::broker::record::Source;

const SOURCE_USER: u8 = 1;

const SOURCE_ACL: u8 = 1 << 1;

/// Appends who published a message.
pub(super) fn put_source(out: &mut Vec<u8>, source: &Source) {
    let user = source.user.as_ref().map_or(0, |_| SOURCE_USER);
    let acl = source.acl.as_ref().map_or(0, |_| SOURCE_ACL);
    out.push(user | acl);
    put_text(out, &source.client_id);
    for text in source.user.iter().chain(&source.acl) {
        put_text(out, text);
    }
}

/// Reads who published a message.
pub(super) fn source(input: &mut Input<'_>) -> Result<Source, What> {
    let flags = input.flags(SOURCE_USER | SOURCE_ACL)?;
    let client_id = input.long_text()?.into();
    let mut there = |flag| match flags & flag {
        0 => Ok(None),
        _ => input.long_text().map(|text| Some(text.into())),
    };
    Ok(Source {
        client_id,
        user: there(SOURCE_USER)?,
        acl: there(SOURCE_ACL)?,
    })
}
