//! Password hashes in the formats of Mosquitto.
//!
//! | kind | text | read by Mosquitto |
//! |---|---|---|
//! | SHA-512, salted once | `$6$SALT$HASH` | all |
//! | PBKDF2 with HMAC-SHA-512 | `$7$ITERATIONS$SALT$HASH` | 2.0 and later |
//! | Argon2id | `$argon2id$v=19$m=KIBIBYTES,t=PASSES,p=LANES$SALT$HASH` | 2.1 and later |
//!
//! Salts and hashes are base64. Argon2id's have no padding.

use core::fmt;
use core::num::NonZeroU32;
use std::hash::BuildHasher;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, pbkdf2};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use foldhash::quality::FixedState;

use crate::clock;

/// Bytes of a new salt for Argon2id.
const ARGON2_SALT_BYTES: usize = 16;
/// Bytes of a new salt for the others. Mosquitto 2.0 accepts no other length.
const SHA512_SALT_BYTES: usize = 12;
/// Bytes of the longest salt that is read.
const MAX_SALT_BYTES: usize = 1024;
/// Bytes of a hash with SHA-512 or PBKDF2.
const SHA512_BYTES: usize = 64;
/// Bytes of a new Argon2id hash.
const ARGON2_BYTES: usize = 32;
/// Memory of a new Argon2id hash, in KiB: the recommendation of OWASP for two passes.
const ARGON2_KIB: u32 = 19_456;
/// Passes of a new Argon2id hash.
const ARGON2_PASSES: NonZeroU32 = NonZeroU32::new(2).expect("it is not zero");
/// Iterations of a new PBKDF2 hash. They take about as long as the Argon2id hash.
const PBKDF2_ITERATIONS: NonZeroU32 = NonZeroU32::new(50_000).expect("it is not zero");
/// Memory of the largest Argon2id hash that is read, in KiB: 1 GiB. A larger one could end the
/// broker.
const MAX_ARGON2_KIB: u32 = 1 << 20;

/// How a password is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// `$6$`: SHA-512, salted once. For Mosquitto 1.6 and earlier. Passwords are cheap to guess.
    Sha512,
    /// `$7$`: PBKDF2 with HMAC-SHA-512.
    Sha512Pbkdf2,
    /// `$argon2id$`.
    Argon2id,
}

/// A password hash.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    cost: Cost,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

#[derive(Clone, PartialEq, Eq)]
enum Cost {
    Once,
    Iterations(NonZeroU32),
    Argon2id(Params),
}

impl PasswordHash {
    /// Hashes a password with a new salt. `iterations` are those of PBKDF2, or the passes of
    /// Argon2id. `None` for the recommended number.
    ///
    /// # Errors
    /// The error text: the operating system gives no randomness, or there is not enough memory.
    pub fn new(
        kind: HashKind,
        iterations: Option<NonZeroU32>,
        password: &[u8],
    ) -> Result<PasswordHash, String> {
        let cost = match kind {
            HashKind::Sha512 => Cost::Once,
            HashKind::Sha512Pbkdf2 => Cost::Iterations(iterations.unwrap_or(PBKDF2_ITERATIONS)),
            HashKind::Argon2id => {
                let passes = iterations.unwrap_or(ARGON2_PASSES).get();
                let params = Params::new(ARGON2_KIB, passes, 1, None);
                Cost::Argon2id(params.map_err(|error| error.to_string())?)
            }
        };
        let (salt_length, length) = match kind {
            HashKind::Argon2id => (ARGON2_SALT_BYTES, ARGON2_BYTES),
            _ => (SHA512_SALT_BYTES, SHA512_BYTES),
        };
        let mut salt = vec![0; salt_length].into_boxed_slice();
        clock::fill_random(&mut salt)?;
        let mut hash = vec![0; length].into_boxed_slice();
        cost.hash(&salt, password, &mut hash)?;
        Ok(PasswordHash { cost, salt, hash })
    }

    /// Returns a number that identifies the hash while the process runs. Another hash has another
    /// number, even for the same password.
    pub fn number(&self) -> u64 {
        FixedState::default().hash_one((&self.salt, &self.hash))
    }

    /// Parses a hash.
    ///
    /// # Errors
    /// The error text. It does not contain the hash.
    pub fn parse(text: &str) -> Result<PasswordHash, String> {
        let mut parts = text.split('$');
        let (Some(""), Some(kind)) = (parts.next(), parts.next()) else {
            return Err("the password is not hashed".to_owned());
        };
        let rest: Vec<&str> = parts.collect();
        let (cost, salt, hash) = match (kind, rest.as_slice()) {
            ("6", [salt, hash]) => (Cost::Once, *salt, *hash),
            ("7", [iterations, salt, hash]) => {
                let iterations = iterations
                    .parse()
                    .map_err(|_| "expected iterations from 1 to 4294967295 after $7$".to_owned())?;
                (Cost::Iterations(iterations), *salt, *hash)
            }
            ("argon2id", ["v=19", params, salt, hash]) => {
                (Cost::Argon2id(argon2_params(params)?), *salt, *hash)
            }
            ("6" | "7" | "argon2id", _) => {
                return Err(format!("the parts of its hash are not those of ${kind}$"));
            }
            _ => {
                return Err(
                    "its hash is of an unknown kind; expected $6$, $7$ or $argon2id$".to_owned(),
                );
            }
        };
        let salt = decode(salt).ok_or("its salt is not base64")?;
        let hash = decode(hash).ok_or("its hash is not base64")?;
        let (salt_bytes, hash_bytes) = match cost {
            Cost::Argon2id(_) => (8..=MAX_SALT_BYTES, 12..=1024),
            _ => (1..=MAX_SALT_BYTES, SHA512_BYTES..=SHA512_BYTES),
        };
        if !salt_bytes.contains(&salt.len()) || !hash_bytes.contains(&hash.len()) {
            return Err("its salt or hash is of the wrong length".to_owned());
        }
        Ok(PasswordHash { cost, salt, hash })
    }

    /// Returns whether this is the password. Takes the same time in both cases.
    pub fn verify(&self, password: &[u8]) -> bool {
        let mut hash = vec![0; self.hash.len()];
        let hashed = self.cost.hash(&self.salt, password, &mut hash);
        hashed.is_ok() && verify_slices_are_equal(&hash, &self.hash).is_ok()
    }
}

impl Cost {
    fn hash(&self, salt: &[u8], password: &[u8], out: &mut [u8]) -> Result<(), String> {
        match self {
            Cost::Once => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(salt);
                out.copy_from_slice(context.finish().as_ref());
            }
            Cost::Iterations(iterations) => {
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, *iterations, salt, password, out);
            }
            Cost::Argon2id(params) => {
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
                let hashed = argon2.hash_password_into(password, salt, out);
                hashed.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

/// `m=19456,t=2,p=1`.
fn argon2_params(text: &str) -> Result<Params, String> {
    let expected = || "expected m=KIBIBYTES,t=PASSES,p=LANES after $argon2id$v=19$".to_owned();
    let mut values = text.split(',');
    let mut next = |name: &str| -> Result<u32, String> {
        let value = values.next().and_then(|part| part.strip_prefix(name));
        value
            .and_then(|value| value.parse().ok())
            .ok_or_else(expected)
    };
    let (memory, passes, lanes) = (next("m=")?, next("t=")?, next("p=")?);
    if values.next().is_some() {
        return Err(expected());
    }
    if memory > MAX_ARGON2_KIB {
        return Err("its hash takes more than 1GiB of memory".to_owned());
    }
    Params::new(memory, passes, lanes, None).map_err(|_| expected())
}

fn decode(text: &str) -> Option<Box<[u8]>> {
    let bare = text.trim_end_matches('=');
    let bytes = BASE64_STANDARD_NO_PAD.decode(bare).ok()?;
    Some(bytes.into_boxed_slice())
}

/// Writes the format of password files.
impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, hash) = (&self.salt, &self.hash);
        let padded = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let bare = |bytes: &[u8]| BASE64_STANDARD_NO_PAD.encode(bytes);
        match &self.cost {
            Cost::Once => write!(f, "$6${}${}", padded(salt), padded(hash)),
            Cost::Iterations(iterations) => {
                write!(f, "$7${iterations}${}${}", padded(salt), padded(hash))
            }
            Cost::Argon2id(params) => write!(
                f,
                "$argon2id$v=19$m={},t={},p={}${}${}",
                params.m_cost(),
                params.t_cost(),
                params.p_cost(),
                bare(salt),
                bare(hash)
            ),
        }
    }
}

/// Shows nothing: hashes do not belong into logs.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Written by mosquitto_passwd 2.0.11.
    const ANN: &str = "$7$101$37dHn2OX5N1pzQ+g$SNeFYizMuakdomPodlNesJhvPxlV1gy4PRPNssGWkzE6bs4v4Z5zq+JUNemIiAStlCjxUwBx6TVOaetW/0SG/g==";
    const BOB: &str = "$6$pz62r6y+axwRBq9C$KYvh0Hle2E/6ZvH0FrODTgSPuCs7vKTfUaVvF67w2/QRSIv3f3GhF3JVCHsLSADW0KTcVHPuQHEZa2Mif55xpg==";

    const ALL: [HashKind; 3] = [HashKind::Sha512, HashKind::Sha512Pbkdf2, HashKind::Argon2id];

    #[test]
    fn what_mosquitto_passwd_wrote_is_verified_and_written_alike() {
        for (text, password) in [(ANN, "secret"), (BOB, "geheim")] {
            let hash = PasswordHash::parse(text).expect(text);
            assert!(hash.verify(password.as_bytes()));
            assert!(!hash.verify(b"Secret"));
            assert!(!hash.verify(b""));
            assert_eq!(hash.to_string(), text);
        }
    }

    #[test]
    fn what_argon2s_own_program_wrote_is_verified() {
        // A test vector of the reference implementation: `echo -n password | argon2 somesalt -id -t
        // 2 -m 8 -p 1`.
        let text =
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let hash = PasswordHash::parse(text).expect(text);
        assert!(hash.verify(b"password"));
        assert!(!hash.verify(b"passwor"));
        assert_eq!(hash.to_string(), text);
    }

    #[test]
    fn what_is_hashed_is_read_again_and_salted_anew() {
        for kind in ALL {
            let iterations = NonZeroU32::new(1);
            let hash = PasswordHash::new(kind, iterations, b"p\xff").expect("hashed");
            let read = PasswordHash::parse(&hash.to_string()).expect("read");
            assert!(read == hash && read.verify(b"p\xff") && !read.verify(b"p"));
            let again = PasswordHash::new(kind, iterations, b"p\xff").expect("hashed");
            assert!(again.salt != hash.salt && again.hash != hash.hash);
        }
    }

    #[test]
    fn what_is_no_hash_is_refused_in_words_that_do_not_repeat_it() {
        for (text, what) in [
            ("secret", "not hashed"),
            ("", "not hashed"),
            ("$5$c2FsdA$aGFzaA", "unknown kind"),
            ("$6$c2FsdA==", "parts"),
            ("$6$?$aGFzaA", "salt is not base64"),
            ("$6$c2FsdA==$?", "hash is not base64"),
            ("$6$c2FsdA==$aGFzaA==", "wrong length"),
            ("$7$0$c2FsdA==$aGFzaA==", "iterations"),
            ("$7$-1$c2FsdA==$aGFzaA==", "iterations"),
            ("$7$c2FsdA==$aGFzaA==", "parts"),
            ("$argon2id$v=16$m=8,t=1,p=1$c29tZXNhbHQ$aGFzaA", "parts"),
            ("$argon2id$v=19$m=8,t=1$c29tZXNhbHQ$aGFzaA", "p=LANES"),
            (
                "$argon2id$v=19$m=8,t=1,p=1,q=1$c29tZXNhbHQ$aGFzaA",
                "p=LANES",
            ),
            ("$argon2id$v=19$m=1,t=1,p=1$c29tZXNhbHQ$aGFzaA", "p=LANES"),
            (
                "$argon2id$v=19$m=1048577,t=1,p=1$c29tZXNhbHQ$aGFzaA",
                "1GiB",
            ),
            (
                "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaGhhc2hoYXNo",
                "wrong length",
            ),
        ] {
            let error = PasswordHash::parse(text).expect_err(text);
            assert!(error.contains(what), "{text}: {error}");
            assert!(!error.contains("c2FsdA"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_does_harm(text in "\\$?(6|7|argon2id|v=19|m=|t=|,|\\$|=|[0-9]{1,12}|[a-zA-Z+/]{1,8}|ü){0,12}") {
            if let Ok(hash) = PasswordHash::parse(&text) {
                proptest::prop_assert!(PasswordHash::parse(&hash.to_string()) == Ok(hash));
            }
        }
    }
}
