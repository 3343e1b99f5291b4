//! Reading records strictly, and what several kinds of records have in common.

use crate::broker::record::SubscriptionIds;
use crate::wire::{PacketId, QoS};

/// What is wrong with a row.
pub(in crate::store) type What = &'static str;

/// Version of the records of most kinds.
pub(super) const VERSION: u8 = 1;
/// Version of records that hold a [`Summary`](crate::broker::record::Summary). Those of version 1,
/// which layouts before 4 wrote, are read, too.
pub(super) const SUMMARY_VERSION: u8 = 2;

/// Flags that mean the same in several kinds of records.
pub(super) const RETAIN: u8 = 1 << 2;
pub(super) const EXPIRES: u8 = 1 << 3;
pub(super) const ID: u8 = 1 << 6;

/// Appends a text with its length before it.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Reads a QoS.
pub(super) fn qos(flags: u8) -> Result<QoS, What> {
    QoS::new(flags & 0b11).ok_or("no such QoS")
}

/// Reads a value that is zero where it is said not to be there.
pub(super) fn optional<T: Default + PartialEq>(there: bool, value: T) -> Result<Option<T>, What> {
    match (there, value) {
        (true, value) => Ok(Some(value)),
        (false, value) if value == T::default() => Ok(None),
        (false, _) => Err("a value that is said not to be there"),
    }
}

/// Reads subscription identifiers, four bytes each.
pub(super) fn subscription_ids(bytes: &[u8]) -> SubscriptionIds {
    let ids = bytes.chunks_exact(4);
    ids.map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
        .collect()
}

pub(super) const SHORT: What = "it is cut short";

/// What is left to read of a record.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Begins to read a record of this version.
    pub(super) fn versioned(bytes: &'a [u8]) -> Result<Input<'a>, What> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(Input(rest)),
            Some(_) => Err("its version is not 1"),
            None => Err("it is empty"),
        }
    }

    /// Begins to read a record of [`VERSION`] or [`SUMMARY_VERSION`]. Returns also whether it is the
    /// latter.
    pub(super) fn either_version(bytes: &'a [u8]) -> Result<(Input<'a>, bool), What> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok((Input(rest), false)),
            Some((&SUMMARY_VERSION, rest)) => Ok((Input(rest), true)),
            Some(_) => Err("its version is neither 1 nor 2"),
            None => Err("it is empty"),
        }
    }

    /// Begins to read what has no version of its own.
    #[cfg(test)]
    pub(super) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], What> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], What> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, What> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, What> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, What> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, What> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn flags(&mut self, known: u8) -> Result<u8, What> {
        match self.u8()? {
            flags if flags & !known == 0 => Ok(flags),
            _ => Err("a flag without a meaning"),
        }
    }

    pub(super) fn text(&mut self, len: usize) -> Result<&'a str, What> {
        std::str::from_utf8(self.take(len)?).map_err(|_| "a text that is not UTF-8")
    }

    pub(super) fn long_text(&mut self) -> Result<&'a str, What> {
        let len = self.u32()?;
        self.text(usize::try_from(len).map_err(|_| SHORT)?)
    }

    pub(super) fn subscription_ids(&mut self) -> Result<SubscriptionIds, What> {
        let len = usize::try_from(self.u32()?).map_err(|_| SHORT)?;
        let ids = self.take(len.checked_mul(4).ok_or(SHORT)?)?;
        Ok(subscription_ids(ids))
    }

    pub(super) fn packet_ids(&mut self) -> Result<Vec<PacketId>, What> {
        let len = usize::try_from(self.u32()?).map_err(|_| SHORT)?;
        let ids = self.take(len.checked_mul(2).ok_or(SHORT)?)?.chunks_exact(2);
        let ids = ids.map(|id| PacketId::new(u16::from_le_bytes([id[0], id[1]])));
        ids.collect::<Option<_>>().ok_or("packet identifier 0")
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn rest_text(&mut self) -> Result<&'a str, What> {
        self.text(self.0.len())
    }

    pub(super) fn end(self) -> Result<(), What> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("it is too long")
        }
    }
}
