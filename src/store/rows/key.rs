//! Keys of rows: byte strings that sort as what they stand for.

use super::record::What;

/// What a table is keyed by.
pub(in crate::store) trait RowKey: Ord {
    /// Appends the key's bytes.
    fn put(&self, out: &mut Vec<u8>);
}

impl RowKey for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl RowKey for (u64, u64) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
}

impl RowKey for (u64, u16) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        out.extend_from_slice(&self.1.to_be_bytes());
    }
}

impl RowKey for (u64, &str) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        out.extend_from_slice(self.1.as_bytes());
    }
}

impl RowKey for &str {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

const KEY: What = "its key is not one of this table";

impl RowKey for &[u8] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

/// Reads a key of one integer.
pub(in crate::store) fn key_u64(key: &[u8]) -> Result<u64, What> {
    Ok(u64::from_be_bytes(key.try_into().map_err(|_| KEY)?))
}

/// Reads a key of an integer and what follows it.
pub(in crate::store) fn key_u64_and(key: &[u8]) -> Result<(u64, &[u8]), What> {
    let (number, rest) = key.split_first_chunk().ok_or(KEY)?;
    Ok((u64::from_be_bytes(*number), rest))
}

/// Reads a key of two integers, of which the second is short.
pub(in crate::store) fn key_short_pair(key: &[u8]) -> Result<(u64, u16), What> {
    let (first, rest) = key_u64_and(key)?;
    Ok((first, u16::from_be_bytes(rest.try_into().map_err(|_| KEY)?)))
}

/// Reads a key of two integers.
pub(in crate::store) fn key_pair(key: &[u8]) -> Result<(u64, u64), What> {
    let (first, rest) = key_u64_and(key)?;
    Ok((first, key_u64(rest)?))
}

/// Reads a key, or what is left of one, that is text.
pub(super) fn key_text(key: &[u8]) -> Result<&str, What> {
    std::str::from_utf8(key).map_err(|_| KEY)
}
