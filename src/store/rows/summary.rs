//! What rows of deliveries and spreads say of their message. Since layout 4.

use super::record::{EXPIRES, Input, RETAIN, What, qos};
use crate::broker::record::{BodyId, Summary, TopicHash};

const TOPIC: u8 = 1 << 4;
const BODY: u8 = 1 << 5;

/// Appends a summary: 5 bytes, and 8 for each of what else it has.
pub(super) fn put_summary(out: &mut Vec<u8>, summary: &Summary) {
    let mut flags = summary.qos as u8;
    flags |= if summary.retain { RETAIN } else { 0 };
    flags |= summary.expires.map_or(0, |_| EXPIRES);
    flags |= summary.topic.map_or(0, |_| TOPIC);
    flags |= summary.body.map_or(0, |_| BODY);
    out.push(flags);
    out.extend_from_slice(&summary.size.to_le_bytes());
    let topic = summary.topic.map(|topic| topic.0);
    let body = summary.body.map(|body| body.0);
    for number in [summary.expires, topic, body].into_iter().flatten() {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// Reads a summary.
pub(super) fn summary(input: &mut Input<'_>) -> Result<Summary, What> {
    let flags = input.flags(0b11 | RETAIN | EXPIRES | TOPIC | BODY)?;
    let size = input.u32()?;
    let mut number = |flag| match flags & flag {
        0 => Ok(None),
        _ => input.u64().map(Some),
    };
    Ok(Summary {
        size,
        expires: number(EXPIRES)?,
        qos: qos(flags)?,
        retain: flags & RETAIN != 0,
        topic: number(TOPIC)?.map(TopicHash),
        body: number(BODY)?.map(BodyId),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        /// Any summary.
        pub fn any_summary()(
            size in any::<u32>(),
            expires in any::<Option<u64>>(),
            qos_bits in 0u8..3,
            retain in any::<bool>(),
            topic in any::<Option<u64>>(),
            body in any::<Option<u64>>(),
        ) -> Summary {
            Summary {
                size,
                expires,
                qos: qos(qos_bits).expect("a QoS"),
                retain,
                topic: topic.map(TopicHash),
                body: body.map(BodyId),
            }
        }
    }

    proptest! {
        #[test]
        fn a_summary_survives_its_record(written in any_summary()) {
            let mut bytes = Vec::new();
            put_summary(&mut bytes, &written);
            let mut input = Input::new(&bytes);
            prop_assert_eq!(summary(&mut input), Ok(written));
            prop_assert!(input.is_empty());
            for len in 0..bytes.len() {
                prop_assert!(summary(&mut Input::new(&bytes[..len])).is_err());
            }
        }
    }
}
