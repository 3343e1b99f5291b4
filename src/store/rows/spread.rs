//! Sessions that messages are still to be given to, by `Seq` and number of the part. Since layout 3.

use redb::TableDefinition;

use super::key::key_short_pair;
use super::record::{ID, Input, RETAIN, SUMMARY_VERSION, qos};
use super::summary::{put_summary, summary};
use super::{Definition, Owner, Put, Row, Table, Unused, What};
use crate::broker::record::{
    QueueKey, Seq, SpreadReceiver, SpreadRecord, SubscriptionIds, Summary, Write,
};
use crate::wire::QoS;

/// A part of those a message is still to be given to: 14 bytes with the topic, and for each
/// session 9 and what subscription identifiers it has.
pub(in crate::store) struct Spread;

impl Table for Spread {
    const TABLE: Definition = TableDefinition::new("spreads");
    type Key<'a> = (u64, u16);
    type Value<'a> = &'a SpreadRecord;

    fn put(spread: &SpreadRecord, out: &mut Vec<u8>) {
        out.push(SUMMARY_VERSION);
        put_summary(out, &spread.message);
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
}

impl Row for Spread {
    const OWNER: Owner = Owner::Message;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutSpread(seq, part, spread) => Some(((seq.0, *part), Some(spread))),
            Write::RemoveSpread(seq, part) => Some(((seq.0, *part), None)),
            _ => None,
        }
    }

    fn used((seq, _): &(u64, u16)) -> Unused {
        Unused::after_seq(*seq)
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let (seq, part) = key_short_pair(key)?;
        Ok(Write::PutSpread(Seq(seq), part, spread(record)?))
    }
}

impl Spread {
    /// Reads only what a record says of its message.
    pub(in crate::store) fn summary(record: &[u8]) -> Result<Summary, What> {
        Ok(head(record)?.0)
    }
}

/// Reads what a record says of its message, and returns what is left to read.
fn head(bytes: &[u8]) -> Result<(Summary, Input<'_>), What> {
    let (mut input, has_summary) = Input::either_version(bytes)?;
    if has_summary {
        return Ok((summary(&mut input)?, input));
    }
    let (size, expires) = (input.u32()?, input.u64()?);
    // How it was published is only in the body. This is the least that it can have been.
    let summary = Summary {
        size,
        expires: (expires != 0).then_some(expires),
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: None,
        body: None,
    };
    Ok((summary, input))
}

fn spread(bytes: &[u8]) -> Result<SpreadRecord, What> {
    let (mut message, mut input) = head(bytes)?;
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
    for receiver in &receivers {
        // No receiver's QoS is above that of the publish.
        message.qos = message.qos.max(receiver.qos);
        message.retain |= receiver.retain;
    }
    Ok(SpreadRecord { message, receivers })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::summary::tests::any_summary;
    use super::*;

    proptest! {
        #[test]
        fn a_spread_survives_its_record(
            message in any_summary(),
            receivers in prop::collection::vec((any::<u64>(), 1u8..3, any::<bool>(), prop::collection::vec(any::<u32>(), 0..3)), 0..5),
        ) {
            let receivers = receivers.into_iter().map(|(queue, qos, retain, ids)| SpreadReceiver {
                queue: QueueKey(queue),
                qos: super::qos(qos).expect("a QoS"),
                retain,
                subscription_ids: ids.into_iter().collect(),
            });
            let mut written = SpreadRecord {
                message,
                receivers: receivers.collect(),
            };
            for receiver in &written.receivers {
                written.message.qos = written.message.qos.max(receiver.qos);
                written.message.retain |= receiver.retain;
            }
            let mut bytes = Vec::new();
            Spread::put(&written, &mut bytes);
            prop_assert_eq!(Spread::summary(&bytes), Ok(written.message));
            prop_assert_eq!(spread(&bytes), Ok(written));
            bytes.push(0);
            prop_assert!(spread(&bytes).is_err());
        }
    }

    /// Layouts before 4 knew neither the topic nor how the message was published.
    #[test]
    fn a_record_of_version_1_is_read() {
        let bytes = [&[1, 7, 0, 0, 0][..], &[0; 8], &[9], &[0; 7], &[0b110]].concat();
        let read = spread(&bytes).expect("it is one");
        assert_eq!(read.receivers.len(), 1);
        assert_eq!((read.message.size, read.message.expires), (7, None));
        assert_eq!(
            (read.message.qos, read.message.retain),
            (QoS::ExactlyOnce, true)
        );
        assert_eq!((read.message.topic, read.message.body), (None, None));
    }
}
