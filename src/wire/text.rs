//! Characters that no text should have \[MQTT-1.5.4 "SHOULD NOT"\]: control characters and what Unicode calls non-characters. Other brokers (Mosquitto
//! among them) close the connection of whoever sends one, so it must not come in here and stop a bridge there.
//!
//! They are looked for where a client's packets are accepted, and not by the codec: what an older store holds is read, and let out.

use super::Property;
use super::packet::{Connect, Subscribe, Unsubscribe};
use super::reason::Fault;

/// Whether a text has none of U+0001 to U+001F, U+007F to U+009F, U+FDD0 to U+FDEF, and of the last two code points of each plane.
#[inline]
pub fn is_plain(text: &str) -> bool {
    // Eight bytes at a time: nearly all texts are ASCII without any of them.
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let is_suspect = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        let below_space = word.wrapping_sub(0x2020_2020_2020_2020) & !word;
        let delete = word ^ 0x7f7f_7f7f_7f7f_7f7f;
        let delete = delete.wrapping_sub(0x0101_0101_0101_0101) & !delete;
        (below_space | delete | word) & 0x8080_8080_8080_8080 != 0
    };
    let suspect =
        words.iter().any(is_suspect) || rest.iter().any(|byte| !matches!(byte, b' '..=b'~'));
    !suspect || text.chars().all(is_plain_char)
}

fn is_plain_char(char: char) -> bool {
    let point = u32::from(char);
    !char.is_control() && !matches!(point, 0xfdd0..=0xfdef) && point & 0xfffe != 0xfffe
}

/// Checks that a text is plain.
///
/// # Errors
/// 0x81: it is not.
#[inline]
pub fn check(text: &str) -> Result<(), Fault> {
    match is_plain(text) {
        true => Ok(()),
        false => Err(Fault::malformed(
            "a text has a control character (U+0001 to U+001F, U+007F to U+009F) or a Unicode non-character",
        )),
    }
}

impl Property<'_> {
    /// Checks the texts of a property; see [`check`].
    ///
    /// # Errors
    /// 0x81: one is not plain.
    pub fn check_text(&self) -> Result<(), Fault> {
        match self {
            Property::UserProperty(name, value) => check(name).and_then(|()| check(value)),
            Property::ContentType(text)
            | Property::ResponseTopic(text)
            | Property::AuthenticationMethod(text) => check(text),
            _ => Ok(()),
        }
    }
}

impl Connect<'_> {
    /// Checks client identifier, user name, will topic and the texts of properties; see [`check`]. The password is bytes.
    ///
    /// # Errors
    /// 0x81: one is not plain.
    pub fn check_texts(&self) -> Result<(), Fault> {
        check(self.client_id)?;
        check(self.username.unwrap_or_default())?;
        let mut properties = self.properties.iter();
        properties.try_for_each(|property| property.check_text())?;
        let Some(will) = &self.will else {
            return Ok(());
        };
        check(will.topic)?;
        let mut properties = will.properties.iter();
        properties.try_for_each(|property| property.check_text())
    }
}

impl Subscribe<'_> {
    /// Checks filters and user properties; see [`check`].
    ///
    /// # Errors
    /// 0x81: one is not plain.
    pub fn check_texts(&self) -> Result<(), Fault> {
        let mut filters = self.filters.iter();
        filters.try_for_each(|(filter, _)| check(filter))?;
        let mut properties = self.properties.iter();
        properties.try_for_each(|property| property.check_text())
    }
}

impl Unsubscribe<'_> {
    /// Checks filters and user properties; see [`check`].
    ///
    /// # Errors
    /// 0x81: one is not plain.
    pub fn check_texts(&self) -> Result<(), Fault> {
        let mut filters = self.filters.iter();
        filters.try_for_each(|filter| check(filter))?;
        let mut properties = self.properties.iter();
        properties.try_for_each(|property| property.check_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same, by the words of the standard.
    fn is_bad(point: u32) -> bool {
        matches!(point, 0x01..=0x1f | 0x7f..=0x9f | 0xfdd0..=0xfdef)
            || matches!(point & 0xffff, 0xfffe | 0xffff)
    }

    #[test]
    fn every_character_at_every_place_is_told_apart() {
        for char in (1..=0x10_ffff).filter_map(char::from_u32) {
            let expected = !is_bad(char.into());
            assert_eq!(
                is_plain(char.encode_utf8(&mut [0; 4])),
                expected,
                "{char:?}"
            );
        }
        for char in (1..0xff_u32).filter_map(char::from_u32) {
            for before in 0..10 {
                let text = format!("{}{char}abcdefgh", "~".repeat(before));
                assert_eq!(is_plain(&text), !is_bad(char.into()), "{text:?}");
            }
        }
        assert!(is_plain("") && is_plain("plant/é/日本/\u{feff}\u{1f600}"));
    }
}
