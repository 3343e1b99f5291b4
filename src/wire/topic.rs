//! Topic names, topic filters and matching (MQTT 5 section 4.7).

/// The maximum length of a topic name or filter in bytes \[MQTT-4.7.3-3\].
const MAX_LEN: usize = u16::MAX as usize;

/// Returns whether `name` is a valid topic name: 1 to 65,535 bytes, no wildcard, no U+0000
/// \[MQTT-4.7.0-1, MQTT-4.7.3-1, MQTT-4.7.3-2, MQTT-4.7.3-3\].
#[inline]
pub fn is_valid_name(name: &str) -> bool {
    let wrong = |byte: u8| matches!(byte, 0 | b'+' | b'#');
    // Reads eight bytes at a time: a search byte by byte took half of the time to decode a small
    // PUBLISH.
    let (words, rest) = name.as_bytes().as_chunks::<8>();
    let wrong_word = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        has_zero_byte(word)
            | has_zero_byte(word ^ repeat(b'+'))
            | has_zero_byte(word ^ repeat(b'#'))
    };
    !words.iter().any(wrong_word)
        && !rest.iter().any(|byte| wrong(*byte))
        && (1..=MAX_LEN).contains(&name.len())
}

/// Returns the levels of a topic name or filter: the texts between its slashes. There is at least
/// one, and each may be empty.
#[inline]
pub fn levels(text: &str) -> Levels<'_> {
    Levels { rest: Some(text) }
}

/// The levels of a topic name or filter. See [`levels`].
#[derive(Clone, Debug)]
pub struct Levels<'a> {
    rest: Option<&'a str>,
}

impl<'a> Iterator for Levels<'a> {
    type Item = &'a str;

    /// Searches byte by byte: levels are short, and `str::split` takes three times as long.
    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        match rest.bytes().position(|byte| byte == b'/') {
            Some(at) => {
                self.rest = Some(&rest[at + 1..]);
                Some(&rest[..at])
            }
            None => self.rest.take(),
        }
    }
}

/// A valid topic filter, split into share name and filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter<'a> {
    /// The share name of a shared subscription (`$share/name/filter`).
    pub share: Option<&'a str>,
    /// The filter. A wildcard is a whole level, and `#` is the last level.
    pub filter: &'a str,
}

impl<'a> Filter<'a> {
    /// Parses a filter of a SUBSCRIBE. Returns `None` if it is not valid \[MQTT-4.7.1-1,
    /// MQTT-4.7.1-2, MQTT-4.7.3-1, MQTT-4.8.2-1, MQTT-4.8.2-2\].
    pub fn parse(text: &'a str) -> Option<Filter<'a>> {
        if text.len() > MAX_LEN {
            return None;
        }
        let Some(shared) = text.strip_prefix(SHARE_PREFIX) else {
            let filter = Filter {
                share: None,
                filter: text,
            };
            return is_valid_filter(text).then_some(filter);
        };
        let (share, filter) = shared.split_once('/')?;
        let valid = is_valid_name(share) && is_valid_filter(filter);
        valid.then_some(Filter {
            share: Some(share),
            filter,
        })
    }

    /// Returns whether the filter has a wildcard.
    pub fn has_wildcard(&self) -> bool {
        self.filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
    }
}

/// Returns whether a topic name matches a filter without share prefix. A filter that begins with a
/// wildcard does not match names that begin with `$` \[MQTT-4.7.2-1\]. Neither argument is
/// validated: the result is meaningless if one is invalid.
pub fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut name) = (filter.as_bytes(), name.as_bytes());
    // Each iteration removes one level from both.
    loop {
        match filter {
            b"#" => return true,
            [b'+', rest @ ..] => {
                let end = name.iter().position(|byte| *byte == b'/');
                name = &name[end.unwrap_or(name.len())..];
                filter = rest;
            }
            _ => {
                let same = filter
                    .iter()
                    .zip(name)
                    .take_while(|(wanted, byte)| wanted == byte && **byte != b'/')
                    .count();
                (filter, name) = (&filter[same..], &name[same..]);
            }
        }
        match (filter, name) {
            ([], []) => return true,
            // The wildcard includes the parent level: `sport/#` matches `sport`.
            (b"/#", []) => return true,
            ([b'/', filter_rest @ ..], [b'/', name_rest @ ..]) => {
                (filter, name) = (filter_rest, name_rest);
            }
            _ => return false,
        }
    }
}

/// Returns a word in which each of the eight bytes is `byte`.
const fn repeat(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Returns whether one of the eight bytes is 0. Subtracting 1 from each byte borrows into a top bit
/// only if that bit was clear in a byte of 0 or next to one.
const fn has_zero_byte(word: u64) -> bool {
    word.wrapping_sub(repeat(1)) & !word & repeat(0x80) != 0
}

/// The prefix of the filter of a shared subscription.
pub(super) const SHARE_PREFIX: &str = "$share/";

fn is_valid_filter(filter: &str) -> bool {
    let mut ended = false;
    let levels_valid = levels(filter).all(|level| {
        let after_hash = std::mem::replace(&mut ended, level == "#");
        let alone = level.len() == 1 || !level.contains(['+', '#']);
        alone && !after_hash
    });
    levels_valid && !filter.is_empty() && !filter.contains('\0')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_topic_name_has_one_to_65535_bytes_and_no_wildcard_or_zero() {
        for name in [
            "/",
            "//",
            "a//b",
            "é/日本",
            " ",
            "$SYS/x",
            "\u{1}",
            &"x".repeat(65_535),
        ] {
            assert!(is_valid_name(name), "{name:?}");
        }
        for name in [
            "",
            "+",
            "#",
            "a+",
            "é#",
            "a/+/b",
            "a\0b",
            &"x".repeat(65_536),
        ] {
            assert!(!is_valid_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_wildcard_or_zero_is_found_at_every_place_of_a_name() {
        for len in 1..40 {
            for at in 0..len {
                for (byte, valid) in [
                    ("+", false),
                    ("#", false),
                    ("\0", false),
                    ("\u{1}", true),
                    ("*", true),
                    ("$", true),
                ] {
                    let name = format!("{}{byte}{}", "a".repeat(at), "\u{80}".repeat(len - at - 1));
                    assert_eq!(is_valid_name(&name), valid, "{name:?}");
                }
            }
        }
    }

    #[test]
    fn wildcards_stand_alone_in_a_level_and_the_hash_comes_last() {
        for filter in [
            "#",
            "+",
            "/",
            "a//b",
            "+/+",
            "/+",
            "+/",
            "a/#",
            "+/#",
            "//#",
            "$SYS/#",
            "$share",
            "é/+/日本/#",
            "$sharedx/+",
            &"x".repeat(65_535),
        ] {
            let parsed = Filter::parse(filter);
            assert_eq!(
                parsed,
                Some(Filter {
                    share: None,
                    filter
                })
            );
        }
        for filter in [
            "",
            "##",
            "#/",
            "#/a",
            "a#",
            "a/#/b",
            "a/b#",
            "+a",
            "a+/b",
            "é+",
            "++",
            "+#",
            "a\0",
            &"x".repeat(65_536),
        ] {
            assert_eq!(Filter::parse(filter), None, "{filter:?}");
        }
    }

    #[test]
    fn a_shared_filter_has_a_share_name_without_wildcards_and_a_filter() {
        let shared = |share, filter| {
            Some(Filter {
                share: Some(share),
                filter,
            })
        };
        assert_eq!(Filter::parse("$share/g/#"), shared("g", "#"));
        assert_eq!(Filter::parse("$share/é/a/+"), shared("é", "a/+"));
        assert_eq!(Filter::parse("$share/g//"), shared("g", "/"));
        assert_eq!(Filter::parse("$share/g//a"), shared("g", "/a"));
        for filter in [
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
            "$share/#/a",
            "$share/g+/a",
            "$share/#",
            "$share/g/a#",
            "$share/g\0/a",
        ] {
            assert_eq!(Filter::parse(filter), None, "{filter:?}");
        }
    }

    #[test]
    fn has_wildcard_looks_at_the_filter_and_not_at_the_share_name() {
        let has = |text| Filter::parse(text).map(|filter| filter.has_wildcard());
        assert_eq!(has("a/+"), Some(true));
        assert_eq!(has("$share/g/#"), Some(true));
        assert_eq!(has("$share/g/a"), Some(false));
    }

    #[test]
    fn filters_match_as_the_standard_shows() {
        for (filter, name) in [
            ("sport/#", "sport"),
            ("sport/#", "sport/"),
            ("sport/#", "sport/tennis/player1"),
            ("#", "sport"),
            ("#", "/"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("+", "finance"),
            ("a//b", "a//b"),
            ("a/+/b", "a//b"),
            ("+/+", "/"),
            ("$SYS/#", "$SYS/x"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("a/#", "a/$b"),
            ("#", "é/x"),
            ("é/+", "é/日本"),
            ("a/+/#", "a/b"),
        ] {
            assert!(matches(filter, name), "{filter} {name}");
        }
        for (filter, name) in [
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("+/#", "$SYS"),
            ("a", "a/"),
            ("a/", "a"),
            ("a//b", "a/b"),
            ("sport", "Sport"),
            ("sport/#", "sports"),
            ("a/b", "a"),
            ("é", "e"),
            ("a/+/#", "a"),
        ] {
            assert!(!matches(filter, name), "{filter} {name}");
        }
    }

    /// The rules of the standard, level by level, without regard to speed.
    fn naive(filter: &[&str], name: &[&str]) -> bool {
        match (filter, name) {
            (["#"], _) => true,
            ([], []) => true,
            (["+", filter @ ..], [_, name @ ..]) => naive(filter, name),
            ([wanted, filter @ ..], [level, name @ ..]) => wanted == level && naive(filter, name),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matches_agrees_with_a_naive_reference(filter in "([a$é]?|[+])(/([ab]?|[+])){0,4}(/#)?|#", name in "[a$é]?(/[ab]?){0,5}") {
            let levels: Vec<_> = name.split('/').collect();
            prop_assert_eq!(&super::levels(&name).collect::<Vec<_>>(), &levels);
            let wanted: Vec<_> = filter.split('/').collect();
            let hidden = name.starts_with('$') && (wanted[0] == "+" || wanted[0] == "#");
            prop_assert_eq!(matches(&filter, &name), !hidden && naive(&wanted, &levels));
        }

        #[test]
        fn no_text_makes_a_filter_panic_and_a_valid_name_matches_itself(text in "\\PC{0,40}", near in "[$/+#aé\\x00share]{0,20}") {
            for text in [&text, &near] {
                if is_valid_name(text) {
                    prop_assert!(matches(text, text));
                    prop_assert_eq!(matches("#", text), !text.starts_with('$'));
                }
                if let Some(filter) = Filter::parse(text) {
                    prop_assert!(is_valid_filter(filter.filter));
                    prop_assert_eq!(is_valid_name(filter.filter), !filter.has_wildcard());
                }
                matches(text, &near);
            }
        }
    }
}
