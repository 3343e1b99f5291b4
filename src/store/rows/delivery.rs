//! Deliveries by `Seq` and queue key: inserts at the right edge, removals mostly at the left.

use redb::TableDefinition;

use super::key::key_pair;
use super::record::{EXPIRES, Input, RETAIN, qos, subscription_ids};
use super::{Definition, Owner, Row, VERSION, What};
use crate::broker::record::{DeliveryRecord, QueueKey, Seq, Write};
use crate::wire::PacketId;

const RELEASED: u8 = 1 << 4;
const PACKET_ID: u8 = 1 << 5;

/// A message's place in a queue: 6 bytes, and what else it has.
pub(in crate::store) struct Delivery;

impl Row for Delivery {
    const TABLE: Definition = TableDefinition::new("deliveries");
    const OWNER: Owner = Owner::Message;
    type Key<'a> = (u64, u64);
    type Value<'a> = &'a DeliveryRecord;

    fn put(delivery: &DeliveryRecord, out: &mut Vec<u8>) {
        let mut flags = delivery.qos as u8;
        flags |= if delivery.retain { RETAIN } else { 0 };
        flags |= if delivery.released { RELEASED } else { 0 };
        flags |= delivery.expires.map_or(0, |_| EXPIRES);
        flags |= delivery.packet_id.map_or(0, |_| PACKET_ID);
        out.extend_from_slice(&[VERSION, flags]);
        out.extend_from_slice(&delivery.size.to_le_bytes());
        if let Some(id) = delivery.packet_id {
            out.extend_from_slice(&id.get().to_le_bytes());
        }
        if let Some(expires) = delivery.expires {
            out.extend_from_slice(&expires.to_le_bytes());
        }
        for id in delivery.subscription_ids.as_slice() {
            out.extend_from_slice(&id.to_le_bytes());
        }
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let (seq, queue) = key_pair(key)?;
        let (seq, queue) = (Seq(seq), QueueKey(queue));
        Ok(Write::PutDelivery(seq, queue, delivery(record)?))
    }

    /// A message that this batch puts had no place before it.
    fn is_new((seq, _): &(u64, u64), fresh: &[u64]) -> bool {
        fresh.binary_search(seq).is_ok()
    }
}

impl Delivery {
    /// Reads only what a record says of its message's size.
    pub(in crate::store) fn size(record: &[u8]) -> Result<u32, What> {
        let mut input = Input::versioned(record)?;
        input.u8()?;
        input.u32()
    }
}

fn delivery(bytes: &[u8]) -> Result<DeliveryRecord, What> {
    let mut input = Input::versioned(bytes)?;
    let flags = input.flags(0b11 | RETAIN | RELEASED | EXPIRES | PACKET_ID)?;
    let size = input.u32()?;
    let packet_id = match flags & PACKET_ID {
        0 => None,
        _ => Some(PacketId::new(input.u16()?).ok_or("packet identifier 0")?),
    };
    let expires = match flags & EXPIRES {
        0 => None,
        _ => Some(input.u64()?),
    };
    let ids = input.rest();
    if ids.len() % 4 != 0 {
        return Err("the subscription identifiers are cut short");
    }
    Ok(DeliveryRecord {
        qos: qos(flags)?,
        retain: flags & RETAIN != 0,
        released: flags & RELEASED != 0,
        packet_id,
        size,
        expires,
        subscription_ids: subscription_ids(ids),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delivery_survives_its_record(
            (qos, retain, released) in (0u8..3, any::<bool>(), any::<bool>()),
            packet_id in any::<u16>(),
            size in any::<u32>(),
            expires in any::<Option<u64>>(),
            ids in prop::collection::vec(any::<u32>(), 0..5),
        ) {
            let written = DeliveryRecord {
                qos: super::qos(qos).expect("a QoS"),
                retain,
                released,
                packet_id: PacketId::new(packet_id),
                size,
                expires,
                subscription_ids: ids.into_iter().collect(),
            };
            let mut bytes = Vec::new();
            Delivery::put(&written, &mut bytes);
            prop_assert_eq!(Delivery::size(&bytes), Ok(size));
            prop_assert_eq!(delivery(&bytes), Ok(written));
            bytes.push(0);
            prop_assert!(delivery(&bytes).is_err());
        }
    }
}
