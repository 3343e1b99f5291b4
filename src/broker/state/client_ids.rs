//! Client identifiers that the broker assigns.

use aws_lc_rs::hmac;

/// What assigned client identifiers begin with, and how many digits follow.
const PREFIX: &str = "auto";

const ID_DIGITS: usize = 19;

/// The characters every server allows in a client identifier.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Assigns client identifiers. Each is a number of its own under a keyed hash: who knows any of
/// them knows nothing of the others, of the key, or of how many there were.
#[derive(Debug)]
pub struct ClientIds {
    key: hmac::Key,
    assigned: u64,
}

impl ClientIds {
    /// None assigned yet.
    pub fn new(key: &[u8; 32]) -> ClientIds {
        ClientIds {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            assigned: 0,
        }
    }

    /// A number for this life of the process. It tells nothing of the key.
    pub fn run(&self) -> u64 {
        let tag = hmac::sign(&self.key, b"run");
        let first = tag.as_ref().first_chunk().copied();
        u64::from_be_bytes(first.unwrap_or_default())
    }

    /// The next one: 113 bits, in 23 characters that every client can use \[MQTT-3.1.3-5\].
    pub fn next(&mut self) -> Box<str> {
        self.assigned += 1;
        let tag = hmac::sign(&self.key, &self.assigned.to_be_bytes());
        let mut bits = tag.as_ref()[..16]
            .iter()
            .fold(0, |bits: u128, byte| bits << 8 | u128::from(*byte));
        let mut id = String::with_capacity(PREFIX.len() + ID_DIGITS);
        id.push_str(PREFIX);
        for _ in 0..ID_DIGITS {
            let digit = bits % DIGITS.len() as u128;
            id.push(char::from(DIGITS[digit as usize]));
            bits /= DIGITS.len() as u128;
        }
        id.into()
    }
}
