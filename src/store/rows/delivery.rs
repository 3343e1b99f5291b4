//! Deliveries by `Seq` and queue key: inserts at the right edge, removals mostly at the left.

use redb::TableDefinition;

use super::key::key_pair;
use super::record::{EXPIRES, Input, RETAIN, SUMMARY_VERSION, qos, subscription_ids};
use super::summary::{put_summary, summary};
use super::{Definition, Owner, Put, Row, Table, Unused, What};
use crate::broker::record::{DeliveryRecord, QueueKey, Seq, SubscriptionIds, Summary, Write};
use crate::wire::PacketId;

const RELEASED: u8 = 1 << 4;
const PACKET_ID: u8 = 1 << 5;

/// A message's place in a queue: 15 bytes with the topic, and what else it has.
pub(in crate::store) struct Delivery;

impl Table for Delivery {
    const TABLE: Definition = TableDefinition::new("deliveries");
    type Key<'a> = (u64, u64);
    type Value<'a> = &'a DeliveryRecord;

    fn put(delivery: &DeliveryRecord, out: &mut Vec<u8>) {
        let mut flags = delivery.qos as u8;
        flags |= if delivery.retain { RETAIN } else { 0 };
        flags |= if delivery.released { RELEASED } else { 0 };
        flags |= delivery.packet_id.map_or(0, |_| PACKET_ID);
        out.extend_from_slice(&[SUMMARY_VERSION, flags]);
        if let Some(id) = delivery.packet_id {
            out.extend_from_slice(&id.get().to_le_bytes());
        }
        put_summary(out, &delivery.message);
        for id in delivery.subscription_ids.as_slice() {
            out.extend_from_slice(&id.to_le_bytes());
        }
    }

    /// A message whose body this batch puts had no place before it.
    fn is_new((seq, _): &(u64, u64), fresh: &[u64]) -> bool {
        fresh.binary_search(seq).is_ok()
    }
}

impl Row for Delivery {
    const OWNER: Owner = Owner::Message;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutDelivery(seq, key, delivery) => Some(((seq.0, key.0), Some(delivery))),
            Write::RemoveDelivery(seq, key) => Some(((seq.0, key.0), None)),
            _ => None,
        }
    }

    fn used((seq, _): &(u64, u64)) -> Unused {
        Unused::after_seq(*seq)
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let (seq, queue) = key_pair(key)?;
        let (seq, queue) = (Seq(seq), QueueKey(queue));
        Ok(Write::PutDelivery(seq, queue, delivery(record)?))
    }
}

impl Delivery {
    /// Reads only what a record says of its message.
    pub(in crate::store) fn summary(record: &[u8]) -> Result<Summary, What> {
        Ok(head(record)?.0.message)
    }
}

fn delivery(bytes: &[u8]) -> Result<DeliveryRecord, What> {
    let (mut delivery, ids) = head(bytes)?;
    if ids.len() % 4 != 0 {
        return Err("the subscription identifiers are cut short");
    }
    delivery.subscription_ids = subscription_ids(ids);
    Ok(delivery)
}

/// Reads all but the subscription identifiers, and returns what is left to read.
fn head(bytes: &[u8]) -> Result<(DeliveryRecord, &[u8]), What> {
    let (mut input, has_summary) = Input::either_version(bytes)?;
    let known = 0b11 | RETAIN | RELEASED | PACKET_ID;
    let flags = input.flags(if has_summary { known } else { known | EXPIRES })?;
    let (qos, retain) = (qos(flags)?, flags & RETAIN != 0);
    let size = if has_summary { 0 } else { input.u32()? };
    let packet_id = match flags & PACKET_ID {
        0 => None,
        _ => Some(PacketId::new(input.u16()?).ok_or("packet identifier 0")?),
    };
    let message = match has_summary {
        true => summary(&mut input)?,
        false => Summary {
            size,
            expires: match flags & EXPIRES {
                0 => None,
                _ => Some(input.u64()?),
            },
            qos,
            retain,
            topic: None,
            body: None,
        },
    };
    let delivery = DeliveryRecord {
        qos,
        retain,
        released: flags & RELEASED != 0,
        packet_id,
        message,
        subscription_ids: SubscriptionIds::NONE,
    };
    Ok((delivery, input.rest()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::summary::tests::any_summary;
    use super::*;
    use crate::wire::QoS;

    proptest! {
        #[test]
        fn a_delivery_survives_its_record(
            (qos, retain, released) in (0u8..3, any::<bool>(), any::<bool>()),
            packet_id in any::<u16>(),
            message in any_summary(),
            ids in prop::collection::vec(any::<u32>(), 0..5),
        ) {
            let written = DeliveryRecord {
                qos: super::qos(qos).expect("a QoS"),
                retain,
                released,
                packet_id: PacketId::new(packet_id),
                message,
                subscription_ids: ids.into_iter().collect(),
            };
            let mut bytes = Vec::new();
            Delivery::put(&written, &mut bytes);
            prop_assert_eq!(Delivery::summary(&bytes), Ok(message));
            prop_assert_eq!(delivery(&bytes), Ok(written));
            bytes.push(0);
            prop_assert!(delivery(&bytes).is_err());
        }
    }

    /// Layouts before 4 knew neither the topic nor how the message was published.
    #[test]
    fn a_record_of_version_1_is_read() {
        let bytes = [&[1, 0b111101, 7, 0, 0, 0, 9, 0][..], &[3; 8], &[4, 0, 0, 0]].concat();
        let expires = u64::from_le_bytes([3; 8]);
        let expected = DeliveryRecord {
            qos: QoS::AtLeastOnce,
            retain: true,
            released: true,
            packet_id: PacketId::new(9),
            message: Summary {
                size: 7,
                expires: Some(expires),
                qos: QoS::AtLeastOnce,
                retain: true,
                topic: None,
                body: None,
            },
            subscription_ids: [4].into_iter().collect(),
        };
        assert_eq!(delivery(&bytes), Ok(expected));
        for len in 0..16 {
            assert!(delivery(&bytes[..len]).is_err(), "{len}");
        }
    }
}
