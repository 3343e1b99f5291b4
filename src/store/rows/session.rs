//! Sessions by queue key.

use redb::TableDefinition;

use super::key::key_u64;
use super::record::{Input, optional, put_text};
use super::{Definition, Owner, Put, Row, Table, Unused, VERSION, What};
use crate::broker::record::{QueueKey, SessionRecord, Write};
use crate::wire::ProtocolVersion;

/// The last connection has ended.
const DISCONNECTED: u8 = 1;
/// The row names its session's user. Without this flag, as in rows of older programs, it has none.
const USER: u8 = 1 << 1;

/// A session whose state is kept on disk.
pub(in crate::store) struct Session;

impl Table for Session {
    const TABLE: Definition = TableDefinition::new("sessions");
    type Key<'a> = u64;
    type Value<'a> = &'a SessionRecord;

    fn put(session: &SessionRecord, out: &mut Vec<u8>) {
        let version = match session.version {
            ProtocolVersion::V31 => 3,
            ProtocolVersion::V311 => 4,
            ProtocolVersion::V5 => 5,
        };
        out.extend_from_slice(&[VERSION, version]);
        let named = if session.user.is_some() { USER } else { 0 };
        out.push(u8::from(session.disconnected_at.is_some()) | named);
        out.extend_from_slice(&session.expiry.to_le_bytes());
        out.extend_from_slice(&session.disconnected_at.unwrap_or(0).to_le_bytes());
        if let Some(user) = &session.user {
            put_text(out, user);
        }
        out.extend_from_slice(session.client_id.as_bytes());
    }
}

impl Row for Session {
    const OWNER: Owner = Owner::IsQueue;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutSession(key, session) => Some((key.0, Some(session))),
            Write::RemoveSession(key) => Some((key.0, None)),
            _ => None,
        }
    }

    fn used(key: &u64) -> Unused {
        Unused::after_queue(*key)
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        Ok(Write::PutSession(QueueKey(key_u64(key)?), session(record)?))
    }
}

fn session(bytes: &[u8]) -> Result<SessionRecord, What> {
    let mut input = Input::versioned(bytes)?;
    let version = match input.u8()? {
        3 => ProtocolVersion::V31,
        4 => ProtocolVersion::V311,
        5 => ProtocolVersion::V5,
        _ => return Err("no such protocol version"),
    };
    let flags = input.flags(DISCONNECTED | USER)?;
    let expiry = input.u32()?;
    let disconnected_at = input.u64()?;
    let user = match flags & USER {
        0 => None,
        _ => Some(input.long_text()?.into()),
    };
    Ok(SessionRecord {
        user,
        client_id: input.rest_text()?.into(),
        version,
        expiry,
        disconnected_at: optional(flags & DISCONNECTED != 0, disconnected_at)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session of an older program has no user; one with a user names it before its client.
    #[test]
    fn a_session_names_its_user_if_it_has_one() {
        for user in [None, Some("Zoë"), Some("")] {
            let record = SessionRecord {
                client_id: "pump-1".into(),
                version: ProtocolVersion::V311,
                expiry: 7,
                disconnected_at: Some(1_800_000_000_000),
                user: user.map(Into::into),
            };
            let mut bytes = Vec::new();
            Session::put(&record, &mut bytes);
            assert_eq!(bytes.len(), 21 + user.map_or(0, |user| 4 + user.len()));
            assert_eq!(session(&bytes), Ok(record));
            assert_eq!(session(&bytes[..14]), Err("it is cut short"));
        }
    }
}
