//! Limits failed logins. The caller passes the time, this reads no clock.
//!
//! Failures are counted per user and address: a device that guesses does not block others behind
//! the same address. They are also counted per address: guessing many names is limited, too.
//! Credentials that succeeded lately are never blocked. An attacker gains nothing by that.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use foldhash::quality::FixedState;

use super::credentials::Credentials;
use crate::clock;

/// Counters, and remembered successes, at most. Reached: the entry that ends first is removed.
const MAX_ENTRIES: usize = 16_384;
/// How long a successful login is remembered, in milliseconds: a day.
const REMEMBERED_MS: u64 = 86_400_000;

/// How many logins may fail. IPv6 addresses with the same first 64 bits count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleSettings {
    /// Failed logins per [`ThrottleSettings::interval`] of one user name from one address. After a
    /// pause, that many may fail at once. 0 for no limit. Reached: further CONNECTs with both are
    /// refused unchecked (0x9F, MQTT 3: server unavailable) until there is room for one more
    /// failure.
    pub max_failed_logins: u32,
    /// The same for all user names from one address.
    pub max_failed_logins_per_address: u32,
    /// The time in which that many failures are forgotten.
    pub interval: Duration,
}

impl Default for ThrottleSettings {
    fn default() -> ThrottleSettings {
        ThrottleSettings {
            max_failed_logins: 20,
            max_failed_logins_per_address: 1000,
            interval: Duration::from_secs(60),
        }
    }
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReachedLimit {
    /// That of a user at an address.
    User,
    /// That of an address.
    Address,
}

/// What failures are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum FailureKey {
    Address(IpAddr),
    /// Holds a hash of the user name, which may be long.
    User(IpAddr, u64),
}

/// The failures and successes so far.
pub struct Throttle {
    settings: ThrottleSettings,
    hasher: FixedState,
    /// When all failures will be forgotten, in milliseconds of uptime. Each failure adds
    /// [`Throttle::interval_per_failure`].
    forgotten_at: HashMap<FailureKey, u64>,
    /// The key for the hashes in `succeeded`.
    key: hmac::Key,
    /// Hashes of credentials that succeeded, and until when they are remembered.
    succeeded: HashMap<[u8; 32], u64>,
}

impl Throttle {
    /// Creates a throttle without failures.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn new(settings: ThrottleSettings) -> Result<Throttle, &'static str> {
        let mut secret = [0; 32];
        clock::fill_random(&mut secret)?;
        Ok(Throttle {
            settings,
            hasher: FixedState::with_seed(clock::seed()),
            forgotten_at: HashMap::new(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            succeeded: HashMap::new(),
        })
    }

    /// Changes the settings. Failures so far are forgotten when they would have been before.
    pub fn set(&mut self, settings: ThrottleSettings) {
        self.settings = settings;
    }

    /// Returns the limit that blocks these credentials, if any. `uptime` is in milliseconds.
    pub fn reached(&self, credentials: &Credentials, uptime: u64) -> Option<ReachedLimit> {
        let keys = self.keys(credentials)?;
        let reached = keys.into_iter().find(|key| self.is_reached(key, uptime));
        let reached = reached.filter(|_| !self.has_succeeded(credentials, uptime))?;
        Some(match reached {
            FailureKey::User(..) => ReachedLimit::User,
            FailureKey::Address(_) => ReachedLimit::Address,
        })
    }

    /// Counts a failure. Returns the limit that is reached by it, if any.
    pub fn failed(&mut self, credentials: &Credentials, uptime: u64) -> Option<ReachedLimit> {
        let mut now_reached = None;
        for key in self.keys(credentials)? {
            let Some(step) = self.interval_per_failure(&key) else {
                continue;
            };
            let before = self.is_reached(&key, uptime);
            if self.forgotten_at.len() >= MAX_ENTRIES && !self.forgotten_at.contains_key(&key) {
                evict_one(&mut self.forgotten_at, uptime);
            }
            let until = self.forgotten_at.entry(key).or_insert(uptime);
            *until = (*until).max(uptime) + step;
            if !before && self.is_reached(&key, uptime) {
                now_reached = Some(match key {
                    FailureKey::User(..) => ReachedLimit::User,
                    FailureKey::Address(_) => ReachedLimit::Address,
                });
            }
        }
        now_reached
    }

    /// Remembers credentials that succeeded.
    pub fn succeeded(&mut self, credentials: &Credentials, uptime: u64) {
        let settings = &self.settings;
        let is_off = settings.max_failed_logins == 0 && settings.max_failed_logins_per_address == 0;
        if is_off || credentials.address.is_none() {
            return;
        }
        let digest = self.digest(credentials);
        if self.succeeded.len() >= MAX_ENTRIES && !self.succeeded.contains_key(&digest) {
            evict_one(&mut self.succeeded, uptime);
        }
        self.succeeded.insert(digest, uptime + REMEMBERED_MS);
    }

    fn has_succeeded(&self, credentials: &Credentials, uptime: u64) -> bool {
        let until = self.succeeded.get(&self.digest(credentials));
        until.is_some_and(|until| uptime < *until)
    }

    /// Returns a keyed hash of user name and password.
    fn digest(&self, credentials: &Credentials) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        let user = credentials.username.as_deref().unwrap_or_default();
        context.update(&(user.len() as u64).to_be_bytes());
        context.update(user.as_bytes());
        context.update(credentials.password.as_deref().unwrap_or_default());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// Returns what a failure is counted for. `None` on a Unix socket, which has no address.
    fn keys(&self, credentials: &Credentials) -> Option<[FailureKey; 2]> {
        let address = canonical_network(credentials.address?);
        let user = self.hasher.hash_one(credentials.username.as_deref());
        Some([
            FailureKey::User(address, user),
            FailureKey::Address(address),
        ])
    }

    fn is_reached(&self, key: &FailureKey, uptime: u64) -> bool {
        let until = self.forgotten_at.get(key).copied().unwrap_or(0);
        // One more failure must fit in.
        self.interval_per_failure(key)
            .is_some_and(|step| until.saturating_sub(uptime) + step > self.interval())
    }

    /// Returns how many milliseconds it takes to forget one failure, at least 1. `None` if there is
    /// no limit.
    fn interval_per_failure(&self, key: &FailureKey) -> Option<u64> {
        let most = match key {
            FailureKey::User(..) => self.settings.max_failed_logins,
            FailureKey::Address(_) => self.settings.max_failed_logins_per_address,
        };
        (most > 0).then(|| (self.interval() / u64::from(most)).max(1))
    }

    fn interval(&self) -> u64 {
        u64::try_from(self.settings.interval.as_millis()).unwrap_or(u64::MAX / 2)
    }
}

/// Removes entries that have ended. If there are none, removes the one that ends first.
fn evict_one<K: Copy + Eq + Hash>(entries: &mut HashMap<K, u64>, uptime: u64) {
    entries.retain(|_, until| *until > uptime);
    if entries.len() >= MAX_ENTRIES {
        let first = entries.iter().min_by_key(|(_, until)| **until);
        if let Some(key) = first.map(|(key, _)| *key) {
            entries.remove(&key);
        }
    }
}

/// Returns the address, or for IPv6 the network of its first 64 bits.
fn canonical_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

/// Does not show the key.
impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Throttle")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(max_failed_logins: u32, per_address: u32) -> Throttle {
        let settings = ThrottleSettings {
            max_failed_logins,
            max_failed_logins_per_address: per_address,
            interval: Duration::from_secs(60),
        };
        Throttle::new(settings).expect("randomness")
    }

    fn login(address: &str, user: &str, password: &str) -> Credentials {
        Credentials {
            username: Some(user.into()),
            password: Some(password.as_bytes().into()),
            client_id: "".into(),
            address: Some(address.parse().expect(address)),
        }
    }

    #[test]
    fn after_the_last_failure_allowed_a_user_waits_until_one_is_forgotten() {
        let mut throttle = throttle(3, 0);
        let one = login("192.0.2.1", "ann", "x");
        for _ in 0..3 {
            assert_eq!(throttle.reached(&one, 1000), None);
            throttle.failed(&one, 1000);
        }
        let reached = Some(ReachedLimit::User);
        assert_eq!(throttle.reached(&one, 1000), reached);
        assert_eq!(throttle.reached(&one, 20_999), reached);
        assert_eq!(throttle.reached(&one, 21_000), None);
        throttle.failed(&one, 21_000);
        assert_eq!(throttle.reached(&one, 40_999), reached);
        assert_eq!(throttle.reached(&one, 41_000), None);
        // After a pause all failures are forgotten.
        for _ in 0..3 {
            assert_eq!(throttle.reached(&one, 500_000), None);
            throttle.failed(&one, 500_000);
        }
        assert_eq!(throttle.reached(&one, 500_000), reached);
    }

    #[test]
    fn neighbours_are_not_kept_out_before_the_limit_of_their_address() {
        let mut throttle = throttle(2, 5);
        let (ann, bob) = (
            login("192.0.2.1", "ann", "x"),
            login("192.0.2.1", "bob", "y"),
        );
        assert_eq!(throttle.failed(&ann, 0), None);
        assert_eq!(throttle.failed(&ann, 0), Some(ReachedLimit::User));
        assert_eq!(throttle.reached(&ann, 0), Some(ReachedLimit::User));
        assert_eq!(throttle.reached(&bob, 0), None);
        assert_eq!(throttle.reached(&login("192.0.2.2", "ann", "x"), 0), None);
        throttle.succeeded(&bob, 0);
        for (n, reached) in [(0, None), (1, None), (2, Some(ReachedLimit::Address))] {
            let guess = login("192.0.2.1", &format!("user{n}"), "x");
            assert_eq!(throttle.failed(&guess, 0), reached);
        }
        let guess = login("192.0.2.1", "another", "x");
        assert_eq!(throttle.reached(&guess, 0), Some(ReachedLimit::Address));
        // Bob has logged in with this password before, but not with another one.
        assert_eq!(throttle.reached(&bob, 0), None);
        let wrong = login("192.0.2.1", "bob", "z");
        assert_eq!(throttle.reached(&wrong, 0), Some(ReachedLimit::Address));
        throttle.failed(&wrong, 0);
        throttle.failed(&wrong, 0);
        assert_eq!(throttle.reached(&wrong, 0), Some(ReachedLimit::User));
        assert_eq!(throttle.reached(&bob, 0), None);
        assert!(!throttle.has_succeeded(&bob, REMEMBERED_MS));
    }

    #[test]
    fn a_host_has_many_addresses_in_ipv6_and_one_in_ipv4() {
        let mut throttle = throttle(1, 0);
        let reached = |throttle: &Throttle, address: &str| {
            throttle.reached(&login(address, "ann", "x"), 0).is_some()
        };
        throttle.failed(&login("2001:db8::1", "ann", "x"), 0);
        assert!(reached(&throttle, "2001:db8::ffff:2"));
        assert!(!reached(&throttle, "2001:db8:0:1::1"));
        throttle.failed(&login("::ffff:192.0.2.1", "ann", "x"), 0);
        assert!(reached(&throttle, "192.0.2.1"));
        assert!(!reached(&throttle, "192.0.2.2"));
    }

    #[test]
    fn zero_is_no_limit_and_a_unix_socket_has_none() {
        let mut none = throttle(0, 0);
        let ann = login("192.0.2.1", "ann", "x");
        let local = Credentials {
            address: None,
            ..login("192.0.2.1", "ann", "x")
        };
        let mut tight = throttle(1, 1);
        for _ in 0..1000 {
            none.failed(&ann, 0);
            tight.failed(&local, 0);
        }
        assert_eq!(none.reached(&ann, 0), None);
        assert!(none.forgotten_at.is_empty());
        assert_eq!(tight.reached(&local, 0), None);
    }

    #[test]
    fn counts_beyond_the_limit_replace_those_with_the_fewest_failures() {
        let mut throttle = throttle(2, 0);
        let worst = login("192.0.2.1", "ann", "x");
        throttle.failed(&worst, 0);
        throttle.failed(&worst, 0);
        for n in 0..MAX_ENTRIES + 10 {
            throttle.failed(&login("192.0.2.1", &n.to_string(), "x"), 0);
        }
        assert_eq!(throttle.forgotten_at.len(), MAX_ENTRIES);
        assert_eq!(throttle.reached(&worst, 0), Some(ReachedLimit::User));
    }
}
