//! Characters that texts should not contain \[MQTT-1.5.4 "SHOULD NOT"\]: control characters and
//! Unicode non-characters.
//!
//! Other brokers, Mosquitto among them, close the connection of a peer that sends one. Such a text
//! must not be accepted, because it would stop a bridge to such a broker. Packets of clients are
//! checked when they are accepted, not in the codec, so that texts from an older store can still be
//! read and sent.

use super::Property;
use super::packet::{Connect, Subscribe, Unsubscribe};
use super::reason::Fault;

/// Returns whether a text has none of U+0001 to U+001F, U+007F to U+009F, U+FDD0 to U+FDEF, and of
/// the last two code points of each plane.
#[inline]
pub fn is_plain(text: &str) -> bool {
    // Reads eight bytes at a time, because nearly all texts are ASCII without any of these.
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

/// Builds the error text for a text that is not plain: packet, field and problem.
macro_rules! not_plain {
    ($($field:literal),+) => {
        concat!(
            $($field,)+
            " has a control character (U+0001 to U+001F, U+007F to U+009F) or a Unicode non-character"
        )
    };
}

/// Checks that a text is plain. `what` is the error text; it names the packet and the field.
#[inline]
fn check(text: &str, what: &'static str) -> Result<(), Fault> {
    match is_plain(text) {
        true => Ok(()),
        false => Err(Fault::malformed(what)),
    }
}

/// Checks that the topic name of a PUBLISH is plain.
///
/// # Errors
/// 0x81 if it is not.
#[inline]
pub fn check_topic_name(topic: &str) -> Result<(), Fault> {
    check(topic, not_plain!("PUBLISH: topic name"))
}

/// Checks the texts of a property of the named packet.
macro_rules! check_property {
    ($packet:literal, $property:expr) => {
        match $property {
            Property::UserProperty(name, value) => {
                let what = not_plain!($packet, ": user property");
                check(name, what).and_then(|()| check(value, what))
            }
            Property::ContentType(text) => check(text, not_plain!($packet, ": content type")),
            Property::ResponseTopic(text) => check(text, not_plain!($packet, ": response topic")),
            Property::AuthenticationMethod(text) => {
                check(text, not_plain!($packet, ": authentication method"))
            }
            _ => Ok(()),
        }
    };
}

/// Checks that the texts of a property of a PUBLISH are plain.
///
/// # Errors
/// 0x81 if one is not.
pub fn check_publish_property(property: &Property<'_>) -> Result<(), Fault> {
    check_property!("PUBLISH", property)
}

impl Connect<'_> {
    /// Checks that the client identifier, user name, will topic and the texts of properties are
    /// plain. The password is binary and not checked.
    ///
    /// # Errors
    /// 0x81 if one is not.
    pub fn check_texts(&self) -> Result<(), Fault> {
        check(self.client_id, not_plain!("CONNECT: client identifier"))?;
        let username = self.username.unwrap_or_default();
        check(username, not_plain!("CONNECT: user name"))?;
        let mut properties = self.properties.iter();
        properties.try_for_each(|property| check_property!("CONNECT", property))?;
        let Some(will) = &self.will else {
            return Ok(());
        };
        check(will.topic, not_plain!("CONNECT: will topic"))?;
        let mut properties = will.properties.iter();
        properties.try_for_each(|property| check_property!("CONNECT: will", property))
    }
}

impl Subscribe<'_> {
    /// Checks that the filters and user properties are plain.
    ///
    /// # Errors
    /// 0x81 if one is not.
    pub fn check_texts(&self) -> Result<(), Fault> {
        let what = not_plain!("SUBSCRIBE: topic filter");
        let mut filters = self.filters.iter();
        filters.try_for_each(|(filter, _)| check(filter, what))?;
        let mut properties = self.properties.iter();
        properties.try_for_each(|property| check_property!("SUBSCRIBE", property))
    }
}

impl Unsubscribe<'_> {
    /// Checks that the filters and user properties are plain.
    ///
    /// # Errors
    /// 0x81 if one is not.
    pub fn check_texts(&self) -> Result<(), Fault> {
        let what = not_plain!("UNSUBSCRIBE: topic filter");
        let mut filters = self.filters.iter();
        filters.try_for_each(|filter| check(filter, what))?;
        let mut properties = self.properties.iter();
        properties.try_for_each(|property| check_property!("UNSUBSCRIBE", property))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same check, written as in the standard.
    fn is_bad(point: u32) -> bool {
        matches!(point, 0x01..=0x1f | 0x7f..=0x9f | 0xfdd0..=0xfdef)
            || matches!(point & 0xffff, 0xfffe | 0xffff)
    }

    #[test]
    fn a_fault_names_packet_and_field() {
        let what = check_topic_name("a\u{1}")
            .expect_err("a control character")
            .what;
        assert!(
            what.starts_with("PUBLISH: topic name has a control"),
            "{what}"
        );
        let user = Property::UserProperty("name", "\u{7f}");
        let what = check_publish_property(&user).expect_err("DEL").what;
        assert!(what.starts_with("PUBLISH: user property has"), "{what}");
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
