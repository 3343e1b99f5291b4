//! Topic names, topic filters, and how one matches the other (MQTT 5 section 4.7).

/// Whether `name` is a valid topic name: 1 to 65,535 bytes, no wildcard, no U+0000 \[MQTT-4.7.1-1, MQTT-4.7.3-1, MQTT-4.7.3-2\].
pub fn is_valid_name(name: &str) -> bool {
    let _ = name;
    true
}

/// A valid topic filter, with the share name taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter<'a> {
    /// The group of a shared subscription (`$share/group/filter`).
    pub share: Option<&'a str>,
    /// The filter itself; wildcards stand alone in a level, `#` only last.
    pub filter: &'a str,
}

impl<'a> Filter<'a> {
    /// Parses a filter as a SUBSCRIBE carries it; `None` if it is not valid \[MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.8.2-1, MQTT-4.8.2-2\].
    pub fn parse(text: &'a str) -> Option<Filter<'a>> {
        let _ = text;
        None
    }

    /// Whether the filter has a wildcard.
    pub fn has_wildcard(&self) -> bool {
        false
    }
}

/// Whether a topic name matches a filter (without share prefix). Names that begin with `$` are not matched by a filter that begins with a
/// wildcard \[MQTT-4.7.2-1\].
pub fn matches(filter: &str, name: &str) -> bool {
    let _ = (filter, name);
    false
}
