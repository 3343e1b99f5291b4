//! What is remembered of bridges, by the queue key of their sessions. Since layout 2.

use redb::TableDefinition;

use super::key::key_u64;
use super::record::{Input, put_text};
use super::{Definition, Owner, Put, Row, Table, VERSION, What};
use crate::broker::record::{BridgeRecord, LeftAddress, QueueKey, Write};

const SEPARATE_SESSIONS: u8 = 1;

/// What is remembered of a bridge: texts and lists with their lengths before them.
pub(in crate::store) struct Bridge;

impl Table for Bridge {
    const TABLE: Definition = TableDefinition::new("bridges");
    type Key<'a> = u64;
    type Value<'a> = &'a BridgeRecord;

    fn put(bridge: &BridgeRecord, out: &mut Vec<u8>) {
        out.extend_from_slice(&[
            VERSION,
            if bridge.separate_sessions {
                SEPARATE_SESSIONS
            } else {
                0
            },
        ]);
        put_text(out, &bridge.remote_clientid);
        put_text(out, &bridge.address);
        out.extend_from_slice(&(bridge.left.len() as u32).to_le_bytes());
        for left in &bridge.left {
            put_text(out, &left.address);
            for ids in [&left.unreleased, &left.received] {
                out.extend_from_slice(&(ids.len() as u32).to_le_bytes());
                for id in ids {
                    out.extend_from_slice(&id.get().to_le_bytes());
                }
            }
        }
    }
}

impl Row for Bridge {
    const OWNER: Owner = Owner::Queue;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutBridge(key, bridge) => Some((key.0, Some(bridge))),
            Write::RemoveBridge(key) => Some((key.0, None)),
            _ => None,
        }
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        Ok(Write::PutBridge(QueueKey(key_u64(key)?), bridge(record)?))
    }
}

fn bridge(bytes: &[u8]) -> Result<BridgeRecord, What> {
    let mut input = Input::versioned(bytes)?;
    let separate_sessions = input.flags(SEPARATE_SESSIONS)? != 0;
    let mut bridge = BridgeRecord {
        remote_clientid: input.long_text()?.into(),
        address: input.long_text()?.into(),
        separate_sessions,
        left: Vec::new(),
    };
    for _ in 0..input.u32()? {
        bridge.left.push(LeftAddress {
            address: input.long_text()?.into(),
            unreleased: input.packet_ids()?,
            received: input.packet_ids()?,
        });
    }
    input.end()?;
    Ok(bridge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::PacketId;

    proptest! {
        #[test]
        fn a_bridge_survives_its_record(
            (remote_clientid, address, separate_sessions) in (".{0,9}", ".{0,9}", any::<bool>()),
            left in prop::collection::vec((".{0,5}", prop::collection::vec(1u16.., 0..4), prop::collection::vec(1u16.., 0..4)), 0..3),
        ) {
            let ids = |ids: Vec<u16>| ids.into_iter().filter_map(PacketId::new).collect();
            let written = BridgeRecord {
                remote_clientid: remote_clientid.into(),
                address: address.into(),
                separate_sessions,
                left: left
                    .into_iter()
                    .map(|(address, unreleased, received)| LeftAddress {
                        address: address.into(),
                        unreleased: ids(unreleased),
                        received: ids(received),
                    })
                    .collect(),
            };
            let mut bytes = Vec::new();
            Bridge::put(&written, &mut bytes);
            prop_assert_eq!(bridge(&bytes), Ok(written));
            for len in 0..bytes.len() {
                prop_assert!(bridge(&bytes[..len]).is_err());
            }
            bytes.push(0);
            prop_assert!(bridge(&bytes).is_err());
        }
    }
}
