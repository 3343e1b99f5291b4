//! Reads and writes the data types of fields (MQTT 5 section 1.5).

use super::packet_id::PacketId;
use super::reason::Fault;

/// The largest variable byte integer, which is also the largest remaining length \[MQTT-1.5.5-1\].
pub(super) const MAX_VARINT: usize = 268_435_455;

/// The maximum length of a text or binary field in bytes. Its length prefix has two bytes.
const MAX_FIELD: usize = u16::MAX as usize;

/// Reads the fields of a packet in order. Reading past the end is a malformed packet; `what` is the
/// error text.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) const fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns all bytes that were not read yet.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Fault::malformed(what))?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Fault> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Fault::malformed(what))?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, Fault> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, Fault> {
        self.array(what).map(u16::from_be_bytes)
    }

    /// Reads a variable byte integer: one to four bytes, and as few as the value needs
    /// \[MQTT-1.5.5-1\].
    #[inline]
    pub(super) fn varint(&mut self, what: &'static str) -> Result<usize, Fault> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8(what)?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let minimal = byte != 0 || shift == 0;
                return minimal.then_some(value).ok_or(Fault::malformed(what));
            }
        }
        Err(Fault::malformed(what))
    }

    /// Reads binary data after its two-byte length.
    #[inline]
    pub(super) fn binary(&mut self, what: &'static str) -> Result<&'a [u8], Fault> {
        let len = self.u16(what)?;
        self.take(usize::from(len), what)
    }

    /// Reads a UTF-8 string after its two-byte length.
    pub(super) fn text(&mut self, what: &'static str) -> Result<&'a str, Fault> {
        text(self.binary(what)?).ok_or(Fault::malformed(what))
    }

    /// Reads a packet identifier. Zero is a protocol error \[MQTT-2.2.1-3\].
    #[inline]
    pub(super) fn packet_id(&mut self, what: &'static str) -> Result<PacketId, Fault> {
        PacketId::new(self.u16(what)?).ok_or(Fault::protocol("packet identifier is zero"))
    }

    /// Checks that all bytes were read.
    pub(super) const fn end(&self, what: &'static str) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Fault::malformed(what))
        }
    }
}

/// Checks that bytes are an MQTT text. It is UTF-8, which excludes surrogates \[MQTT-1.5.4-1\], and
/// has no U+0000 \[MQTT-1.5.4-2\]. Other control characters and U+FEFF are allowed and kept
/// \[MQTT-1.5.4-3\].
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!bytes.contains(&0)).then_some(text)
}

/// Returns the beginning of a text that fits in a field: at most 65,535 bytes, only whole
/// characters.
#[inline]
pub(super) fn fit(text: &str) -> &str {
    if text.len() <= MAX_FIELD {
        return text;
    }
    let mut end = MAX_FIELD;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns the encoded length of a variable byte integer in bytes.
#[inline]
pub(super) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

#[inline]
pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a variable byte integer of at most [`MAX_VARINT`].
#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a UTF-8 string after its length. Cuts it to whole characters within 65,535 bytes.
#[inline]
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_binary(out, fit(text).as_bytes());
}

/// Appends binary data after its length. Cuts it to 65,535 bytes.
#[inline]
pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MAX_FIELD)];
    put_u16(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_byte_integer_reads_back_at_every_border() {
        for value in [
            0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, MAX_VARINT,
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value));
            let mut reader = Reader::new(&out);
            assert_eq!(reader.varint("x"), Ok(value));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_variable_byte_integer_that_is_too_long_cut_short_or_not_minimal_is_malformed() {
        for bytes in [
            &[0x80, 0x80, 0x80, 0x80, 0x01][..],
            &[0xff, 0xff, 0xff, 0xff],
            &[0x80],
            &[],
            &[0x80, 0x00],
            &[0xff, 0x80, 0x00],
        ] {
            let fault = Reader::new(bytes).varint("x");
            assert_eq!(fault, Err(Fault::malformed("x")), "{bytes:02x?}");
        }
    }

    #[test]
    fn text_is_utf8_without_zero_and_keeps_control_characters() {
        assert_eq!(text(b"a\x01\x7f"), Some("a\x01\x7f"));
        assert_eq!(
            text("\u{feff}\u{2a6d4}".as_bytes()),
            Some("\u{feff}\u{2a6d4}")
        );
        assert_eq!(text(b"a\0"), None);
        assert_eq!(text(b"\xed\xa0\x80"), None, "a surrogate");
        assert_eq!(text(b"\xc0\x80"), None, "an overlong zero");
    }

    #[test]
    fn a_text_too_long_for_its_length_prefix_is_cut_between_characters() {
        let long = "é".repeat(40_000);
        let mut out = Vec::new();
        put_text(&mut out, &long);
        assert_eq!(out[..2], [0xff, 0xfe]);
        assert_eq!(
            Reader::new(&out).text("x").map(str::len),
            Ok(usize::from(u16::MAX) - 1)
        );
    }
}
