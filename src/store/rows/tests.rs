//! What holds for records of all kinds.

use std::collections::HashSet;

use proptest::prelude::*;
use redb::TableHandle;

use super::*;
use crate::broker::record;

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..80),
        key in prop::collection::vec(any::<u8>(), 0..20),
        version in any::<bool>(),
    ) {
        if version && !bytes.is_empty() {
            bytes[0] = 1 + bytes[0] % 2;
        }
        for kind in KINDS {
            for key in [&key[..], &[1; 8], &[1; 10], &[1; 16]] {
                let _ = (kind.read)(key, &bytes);
            }
        }
        let _ = Delivery::summary(&bytes);
        let _ = Spread::summary(&bytes);
        let _ = meta::number(&bytes);
        let _ = meta::reading(&bytes);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(mut bytes in prop::collection::vec(any::<u8>(), 2..60), flags in 0u8..128) {
        (bytes[0], bytes[1]) = (VERSION, flags);
        let mut again = Vec::new();
        if let Ok(record::Write::PutSession(_, session)) = Session::read(&[0; 8], &bytes) {
            Session::put(&session, &mut again);
            prop_assert_eq!(&again, &bytes);
        }
        again.clear();
        let short = &bytes[..bytes.len().min(6)];
        if let Ok(record::Write::PutSubscription(_, _, subscription)) = Subscription::read(b"12345678a", short) {
            Subscription::put(&subscription, &mut again);
            prop_assert_eq!(&again, short);
        }
        if let Ok(number) = meta::number(&bytes) {
            prop_assert_eq!(&meta::number_record(number), &bytes);
        }
        if let Ok(reading) = meta::reading(&bytes) {
            again.clear();
            meta::Meta::put(meta::Fact::Reading(reading), &mut again);
            prop_assert_eq!(&again, &bytes);
        }
    }
}

#[test]
fn no_two_kinds_share_a_table_or_a_number() {
    let names: HashSet<&str> = KINDS.iter().map(|kind| kind.table.name()).collect();
    let numbers: HashSet<u8> = KINDS.iter().map(|kind| kind.number).collect();
    assert_eq!((names.len(), numbers.len()), (KINDS.len(), KINDS.len()));
}
