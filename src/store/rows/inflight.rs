//! What is known of messages on their way, by session and block of packet identifiers. Since layout 2.

use redb::TableDefinition;

use super::key::key_short_pair;
use super::record::Input;
use super::{Definition, Owner, Put, Row, Table, VERSION, What};
use crate::broker::record::{Block, InflightRecord, QueueKey, Seq, Write};
use crate::wire::PacketId;

/// Bytes of each message's part of a record.
const BYTES: usize = 11;
const RELEASED: u8 = 1;

/// The messages on their way to a session's client with identifiers of one block: for each its packet identifier, whether it is released, and its `Seq`.
pub(in crate::store) struct Inflight;

impl Table for Inflight {
    const TABLE: Definition = TableDefinition::new("inflight");
    type Key<'a> = (u64, u16);
    type Value<'a> = &'a [InflightRecord];

    fn put(records: &[InflightRecord], out: &mut Vec<u8>) {
        out.push(VERSION);
        for record in records {
            out.extend_from_slice(&record.packet_id.get().to_le_bytes());
            out.push(if record.released { RELEASED } else { 0 });
            out.extend_from_slice(&record.seq.0.to_le_bytes());
        }
    }
}

impl Row for Inflight {
    const OWNER: Owner = Owner::Queue;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutInflight(key, block, records) => Some(((key.0, block.0), Some(records))),
            Write::RemoveInflight(key, block) => Some(((key.0, block.0), None)),
            _ => None,
        }
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let (queue, block) = key_short_pair(key)?;
        let (queue, block) = (QueueKey(queue), Block(block));
        Ok(Write::PutInflight(queue, block, inflight(record)?))
    }
}

fn inflight(bytes: &[u8]) -> Result<Vec<InflightRecord>, What> {
    let mut input = Input::versioned(bytes)?;
    let mut records = Vec::with_capacity(bytes.len() / BYTES);
    while !input.is_empty() {
        records.push(InflightRecord {
            packet_id: PacketId::new(input.u16()?).ok_or("packet identifier 0")?,
            released: input.flags(RELEASED)? != 0,
            seq: Seq(input.u64()?),
        });
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_on_their_way_survive_their_record(records in prop::collection::vec((1u16.., any::<bool>(), any::<u64>()), 0..9)) {
            let record = |(id, released, seq)| InflightRecord {
                packet_id: PacketId::new(id).expect("not zero"),
                seq: Seq(seq),
                released,
            };
            let written: Vec<InflightRecord> = records.into_iter().map(record).collect();
            let mut bytes = Vec::new();
            Inflight::put(&written, &mut bytes);
            prop_assert_eq!(inflight(&bytes), Ok(written));
            bytes.push(0);
            prop_assert!(inflight(&bytes).is_err());
        }
    }
}
