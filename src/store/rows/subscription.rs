//! Subscriptions by session and filter.

use redb::TableDefinition;

use super::key::{key_text, key_u64_and};
use super::record::{Input, qos};
use super::{Definition, Owner, Put, Row, Table, VERSION, What};
use crate::broker::record::{QueueKey, SubscriptionRecord, Write};
use crate::wire::packet::{RetainHandling, SubscribeOptions};

const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
const RETAIN_HANDLING: u8 = 4;
const REPLAYING: u8 = 1 << 6;

/// A subscription of a session.
pub(in crate::store) struct Subscription;

impl Table for Subscription {
    const TABLE: Definition = TableDefinition::new("subscriptions");
    type Key<'a> = (u64, &'a str);
    type Value<'a> = &'a SubscriptionRecord;

    fn put(subscription: &SubscriptionRecord, out: &mut Vec<u8>) {
        let options = &subscription.options;
        let handling: u8 = match options.retain_handling {
            RetainHandling::OnSubscribe => 0,
            RetainHandling::IfNew => 1,
            RetainHandling::Never => 2,
        };
        let mut bits = options.qos as u8 | handling << RETAIN_HANDLING;
        bits |= if options.no_local { NO_LOCAL } else { 0 };
        bits |= if options.retain_as_published {
            RETAIN_AS_PUBLISHED
        } else {
            0
        };
        bits |= subscription.replaying.as_ref().map_or(0, |_| REPLAYING);
        out.extend_from_slice(&[VERSION, bits]);
        // Zero is not a subscription identifier, so it stands for none [MQTT-3.8.2.1.2].
        out.extend_from_slice(&subscription.id.unwrap_or(0).to_le_bytes());
        let after = subscription.replaying.as_deref().unwrap_or_default();
        out.extend_from_slice(after.as_bytes());
    }
}

impl Row for Subscription {
    const OWNER: Owner = Owner::Queue;

    fn of(write: &Write) -> Option<Put<'_, Self>> {
        match write {
            Write::PutSubscription(key, filter, subscription) => {
                Some(((key.0, filter), Some(subscription)))
            }
            Write::RemoveSubscription(key, filter) => Some(((key.0, filter), None)),
            _ => None,
        }
    }

    fn read(key: &[u8], record: &[u8]) -> Result<Write, What> {
        let (queue, filter) = key_u64_and(key)?;
        let (queue, filter) = (QueueKey(queue), key_text(filter)?.into());
        Ok(Write::PutSubscription(queue, filter, subscription(record)?))
    }
}

fn subscription(bytes: &[u8]) -> Result<SubscriptionRecord, What> {
    let mut input = Input::versioned(bytes)?;
    let bits = input.flags(0b0111_1111)?;
    let id = input.u32()?;
    // Rows of older programs do not say how far a replay has come.
    let replaying = match bits & REPLAYING {
        0 => None,
        _ => Some(input.rest_text()?.into()),
    };
    input.end()?;
    Ok(SubscriptionRecord {
        options: SubscribeOptions {
            qos: qos(bits)?,
            no_local: bits & NO_LOCAL != 0,
            retain_as_published: bits & RETAIN_AS_PUBLISHED != 0,
            retain_handling: match bits >> RETAIN_HANDLING & 3 {
                0 => RetainHandling::OnSubscribe,
                1 => RetainHandling::IfNew,
                2 => RetainHandling::Never,
                _ => return Err("no such retain handling"),
            },
        },
        id: (id != 0).then_some(id),
        replaying,
    })
}
