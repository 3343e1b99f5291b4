//! Sessions that messages are still to be given to, by `Seq` and number of the part. Since layout 3.

use redb::TableDefinition;

use super::key::key_short_pair;
use super::record::{ID, Input, RETAIN, qos};
use super::{Definition, Owner, Row, VERSION, What};
use crate::broker::record::{QueueKey, Seq, SpreadReceiver, SpreadRecord, SubscriptionIds, Write};

/// A part of those a message is still to be given to: 13 bytes, and for each session 9 and what subscription identifiers it has.
pub(in crate::store) struct Spread;

impl Row for Spread {
    const TABLE: Definition = TableDefinition::new("spreads");
    const OWNER: Owner = Owner::Message;
    type Key<'a> = (u64, u16);
    type Value<'a> = &'a SpreadRecord;

    fn put(spread: &SpreadRecord, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&spread.size.to_le_bytes());
        out.extend_from_slice(&spread.expires.unwrap_or(0).to_le_bytes());
        for receiver in &spread.receivers {
            let ids = receiver.subscription_ids.as_slice();
            let mut flags = receiver.qos as u8;
            flags |= if receiver.retain { RETAIN } else { 0 };
            flags |= if ids.is_empty() { 0 } else { ID };
            out.extend_from_slice(&receiver.queue.0.to_le_bytes());
            out.push(flags);
            if !ids.is_empty() {
                out.extend_from_slice(&(ids.len() as u32).to_le_bytes());
                for id in ids {
                    out.extend_from_slice(&id.to_le_bytes());
                }
            }
        }
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let (seq, part) = key_short_pair(key)?;
        Ok(Write::PutSpread(Seq(seq), part, spread(record)?))
    }
}

impl Spread {
    /// Reads only what a record says of its message's size.
    pub(in crate::store) fn size(record: &[u8]) -> Result<u32, What> {
        Input::versioned(record)?.u32()
    }
}

fn spread(bytes: &[u8]) -> Result<SpreadRecord, What> {
    let mut input = Input::versioned(bytes)?;
    let (size, expires) = (input.u32()?, input.u64()?);
    let mut receivers = Vec::new();
    while !input.is_empty() {
        let queue = QueueKey(input.u64()?);
        let flags = input.flags(0b11 | RETAIN | ID)?;
        let subscription_ids = match flags & ID {
            0 => SubscriptionIds::NONE,
            _ => input.subscription_ids()?,
        };
        receivers.push(SpreadReceiver {
            queue,
            qos: qos(flags)?,
            retain: flags & RETAIN != 0,
            subscription_ids,
        });
    }
    Ok(SpreadRecord {
        size,
        expires: (expires != 0).then_some(expires),
        receivers,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_spread_survives_its_record(
            size in any::<u32>(),
            expires in any::<Option<u64>>(),
            receivers in prop::collection::vec((any::<u64>(), 1u8..3, any::<bool>(), prop::collection::vec(any::<u32>(), 0..3)), 0..5),
        ) {
            let receivers = receivers.into_iter().map(|(queue, qos, retain, ids)| SpreadReceiver {
                queue: QueueKey(queue),
                qos: super::qos(qos).expect("a QoS"),
                retain,
                subscription_ids: ids.into_iter().collect(),
            });
            let written = SpreadRecord {
                size,
                expires: expires.filter(|at| *at != 0),
                receivers: receivers.collect(),
            };
            let mut bytes = Vec::new();
            Spread::put(&written, &mut bytes);
            prop_assert_eq!(Spread::size(&bytes), Ok(size));
            prop_assert_eq!(spread(&bytes), Ok(written));
            bytes.push(0);
            prop_assert!(spread(&bytes).is_err());
        }
    }
}
