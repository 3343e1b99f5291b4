//! A listener's Unix socket.

use super::text::{path, text};
use super::tree::Section;
use crate::net::socket::SocketFile;

/// The Unix socket, if there is one.
pub(super) fn socket(s: &mut Section<'_, '_>) -> Option<SocketFile> {
    let path = path(s, "socket");
    let expected = "permissions in octal such as \"0660\"";
    let mode = s.optional("socket_mode", expected, |value| {
        let mode = u32::from_str_radix(value.as_text()?, 8).ok()?;
        (mode <= 0o777).then_some(mode)
    });
    let mode = mode.ok().flatten();
    let owner = text(s, "socket_owner", "the name or number of a user");
    let group = text(s, "socket_group", "the name or number of a group");
    if path.is_none() && (mode.is_some() || owner.is_some() || group.is_some()) {
        s.reject("socket", "missing: there is a socket_mode, socket_owner or socket_group, expected the path of a Unix socket");
    }
    Some(SocketFile {
        path: path?,
        mode: mode.unwrap_or(0o660),
        owner,
        group,
    })
}
