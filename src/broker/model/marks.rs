//! Marks: user properties with which brokers of this kind tell each other about a message over
//! MQTT 5.
//!
//! They keep a message from being taken twice and from going in circles. A mark is believed only
//! from a client whose CONNECT says that it is a bridge, and shown only to such a client. From any
//! other client it is taken off: an application that copies the user properties of a request into
//! its answer must not lose the answer. An application behind a broker of another make cannot be
//! recognized. So a hop stands for a broker and a payload, and means nothing on a message with
//! another payload.

use std::fmt::Write as _;
use std::num::NonZeroU64;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::wire::{Properties, PropertiesBuf, Property};

/// In a CONNECT: the client is a bridge, and messages to it are marked.
pub const BRIDGE: &str = "tidegate-bridge";

/// What the names of all marks begin with.
pub const PREFIX: &str = "tidegate-";

/// The identity of a message, in 16 hexadecimal digits: it has the same on every way and however
/// often it is sent.
const ID: &str = "tidegate-id";

/// The brokers a message has come through, the first one first, each with the payload made into one
/// number of 16 hexadecimal digits ([`hop`]).
const PATH: &str = "tidegate-path";

/// The message has been set aside by a bridge: it is not set aside again.
const DEAD_LETTER: &str = "tidegate-dead-letter";

/// Brokers a message may have come through. One that has come through more goes in a circle in
/// which some do not know marks, or not their own.
const MAX_HOPS: usize = 16;

/// The marks of a message that comes in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    pub id: Option<NonZeroU64>,
    /// Brokers it has come through.
    hops: usize,
    /// This broker is one of them.
    seen: bool,
    /// There are marks among its properties.
    any: bool,
}

impl Marks {
    /// Takes note of a user property of a message that comes from a bridge. `own` is this broker's
    /// hop.
    pub fn read(&mut self, name: &str, value: &str, own: impl FnOnce() -> u64) {
        self.any |= is_mark(name);
        match name {
            ID => self.id = number(value).and_then(NonZeroU64::new).or(self.id),
            PATH => {
                if let Some(hops) = hops(value) {
                    let own = own();
                    self.seen |= hops.clone().any(|hop| hop == own);
                    self.hops += hops.count();
                }
            }
            _ => {}
        }
    }

    /// Takes note of a user property of a message that does not come from a bridge: marks mean
    /// nothing there.
    pub fn ignore(&mut self, name: &str) {
        self.any |= is_mark(name);
    }

    /// Whether the message has come over a bridge of a broker of this kind.
    pub fn is_bridged(&self) -> bool {
        self.hops > 0
    }

    /// Whether the message goes in a circle.
    pub fn is_circling(&self) -> bool {
        self.seen || self.hops > MAX_HOPS
    }

    /// The properties that stay with the message: of the marks, those that a bridge has told
    /// (`believed`), and these first, so that [`strip`] finds them there; never its identity, which
    /// stands beside them. `copy` is used as in [`Properties::forwardable`].
    pub fn take_off<'b>(
        &self,
        properties: Properties<'b>,
        believed: bool,
        copy: &'b mut PropertiesBuf,
    ) -> Properties<'b> {
        if !self.any {
            return properties;
        }
        if believed {
            for (name, value) in properties.user_properties() {
                if name == DEAD_LETTER || (name == PATH && hops(value).is_some()) {
                    copy.push(Property::UserProperty(name, value));
                }
            }
        }
        keep(properties, copy, |name, _| !is_mark(name));
        copy.as_properties()
    }
}

fn is_mark(name: &str) -> bool {
    matches!(name, ID | PATH | DEAD_LETTER)
}

/// What stands in the path of a message with this payload for the broker with this identity.
pub fn hop(broker: u64, payload: &[u8]) -> u64 {
    digest(broker, &[payload])
}

/// Whether a message is marked as one that a bridge has set aside.
pub fn is_dead_letter(properties: Properties<'_>) -> bool {
    let mut user = properties.user_properties();
    user.any(|(name, _)| name == DEAD_LETTER)
}

/// Begins the properties of a message that a bridge sets aside.
pub fn put_dead_letter(out: &mut PropertiesBuf) {
    out.push(Property::UserProperty(DEAD_LETTER, "1"));
}

/// Whether the properties of a message the broker has taken in begin with marks, which only bridges
/// are shown.
pub fn leads(properties: Properties<'_>) -> bool {
    // A user property, the length of its name, and the name.
    let rest = properties.as_bytes().get(3..);
    rest.is_some_and(|rest| properties.as_bytes()[0] == 0x26 && rest.starts_with(PREFIX.as_bytes()))
}

/// Appends the properties of a message to `out`, without marks.
pub fn strip(properties: Properties<'_>, out: &mut PropertiesBuf) {
    keep(properties, out, |name, _| !is_mark(name));
}

/// What is added to a message for a client that is a bridge.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// This broker's hop.
    pub hop: u64,
    /// Its identity, which a message of QoS 0 has not.
    pub id: Option<NonZeroU64>,
}

impl Mark {
    /// Appends the properties of a message to `out`, with this mark.
    pub fn put(&self, properties: Properties<'_>, out: &mut PropertiesBuf) {
        let mut path = String::new();
        for (name, value) in properties.user_properties() {
            if let Some(hops) = hops(value).filter(|_| name == PATH) {
                hops.for_each(|hop| put_number(&mut path, hop));
            }
        }
        put_number(&mut path, self.hop);
        keep(properties, out, |name, _| name != ID && name != PATH);
        if let Some(id) = self.id {
            let mut text = String::new();
            put_number(&mut text, id.get());
            out.push(Property::UserProperty(ID, &text));
        }
        out.push(Property::UserProperty(PATH, &path));
    }
}

/// The properties without any mark, for an upstream that takes no more bytes.
pub fn without<'b>(properties: Properties<'_>, copy: &'b mut PropertiesBuf) -> Properties<'b> {
    strip(properties, copy);
    copy.as_properties()
}

/// A number that stands for these byte strings, one after the other; another one for each broker.
pub fn digest(broker: u64, strings: &[&[u8]]) -> u64 {
    strings
        .iter()
        .fold(broker, |seed, bytes| xxh3_64_with_seed(bytes, seed))
}

/// Appends the properties to `out`, of the user properties only those wanted.
fn keep(
    properties: Properties<'_>,
    out: &mut PropertiesBuf,
    is_wanted: impl Fn(&str, &str) -> bool,
) {
    for property in properties.iter() {
        match property {
            Property::UserProperty(name, value) if !is_wanted(name, value) => {}
            property => out.push(property),
        }
    }
}

/// The brokers of a path; `None` if it is none.
fn hops(path: &str) -> Option<impl Iterator<Item = u64> + Clone> {
    let words = path
        .split([' ', ','])
        .filter(|word| !word.is_empty())
        .map(number);
    let is_path = words.clone().all(|hop| hop.is_some()) && words.clone().next().is_some();
    is_path.then(|| words.flatten())
}

/// Reads exactly 16 hexadecimal digits.
fn number(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits)
}

fn put_number(out: &mut String, number: u64) {
    if !out.is_empty() {
        out.push(' ');
    }
    // Writing to a String cannot fail.
    let _ = write!(out, "{number:016x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(user: &[(&str, &str)]) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::ContentType("text"));
        for (name, value) in user {
            properties.push(Property::UserProperty(name, value));
        }
        properties
    }

    fn read(user: &[(&str, &str)]) -> Marks {
        let mut marks = Marks::default();
        for (name, value) in user {
            marks.read(name, value, || 0xA);
        }
        marks
    }

    #[test]
    fn a_path_is_read_strictly() {
        let two = "000000000000000b,000000000000000C";
        let marks = read(&[(PATH, two)]);
        assert!(marks.is_bridged() && !marks.is_circling() && marks.hops == 2);
        assert!(read(&[(PATH, "000000000000000b 000000000000000a")]).is_circling());
        for bad in ["", " ", "a", "+00000000000000a", "000000000000000a x"] {
            let marks = read(&[(PATH, bad)]);
            assert!(!marks.is_bridged() && !marks.is_circling(), "{bad:?}");
        }
        let long = ["000000000000000b"; MAX_HOPS + 1].join(" ");
        assert!(!read(&[(PATH, &long[17..])]).is_circling());
        assert!(read(&[(PATH, &long)]).is_circling());
    }

    #[test]
    fn marks_are_taken_off_and_those_believed_are_put_first() {
        let user = [
            ("k", "v"),
            (ID, "0000000000000007"),
            (PATH, "000000000000000b"),
            (PATH, "nonsense"),
        ];
        let marks = read(&user);
        assert_eq!(marks.id, NonZeroU64::new(7));
        let (all, mut copy) = (block(&user), PropertiesBuf::new());
        let left = marks.take_off(all.as_properties(), true, &mut copy);
        let mut expected = PropertiesBuf::new();
        expected.push(Property::UserProperty(PATH, user[2].1));
        expected.extend(block(&[user[0]]).as_properties());
        assert_eq!(left, expected.as_properties());
        assert!(leads(left));
        let mut copy = PropertiesBuf::new();
        let left = marks.take_off(all.as_properties(), false, &mut copy);
        assert_eq!(left, block(&[user[0]]).as_properties());
        assert!(!leads(left) && !leads(Properties::EMPTY));
        assert_eq!(read(&[(ID, "0000000000000000")]).id, None);
        assert_eq!(read(&[(ID, "7")]).id, None);
    }

    #[test]
    fn a_mark_replaces_the_marks_of_before_and_lengthens_the_path() {
        let mark = Mark {
            hop: 0xC,
            id: NonZeroU64::new(7),
        };
        let before = block(&[
            (PATH, "000000000000000a,000000000000000b"),
            (ID, "1111111111111111"),
            ("k", "v"),
        ]);
        let mut out = PropertiesBuf::new();
        mark.put(before.as_properties(), &mut out);
        let path = "000000000000000a 000000000000000b 000000000000000c";
        let expected = block(&[("k", "v"), (ID, "0000000000000007"), (PATH, path)]);
        assert_eq!(out.as_properties(), expected.as_properties());
        let mut bare = PropertiesBuf::new();
        assert_eq!(
            without(out.as_properties(), &mut bare),
            block(&[("k", "v")]).as_properties()
        );
    }
}
