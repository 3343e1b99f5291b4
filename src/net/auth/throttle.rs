//! Addresses from which too many logins have failed. It is driven with the time, and reads no clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Addresses remembered at once. Reached: the one that has the fewest failures left is forgotten.
const MAX_ADDRESSES: usize = 16_384;

/// How many logins may fail from an address. Everybody behind one address shares its failures: IPv6 addresses with the same first 64 bits are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleSettings {
    /// Failed logins in [`ThrottleSettings::interval`], and at once after a pause; 0 for no limit. Reached: CONNECTs with a user name or password are
    /// refused unseen (0x9F, MQTT 3: server unavailable) until the interval has forgotten one.
    pub max_failed_logins: u32,
    /// How long it takes until that many are forgotten.
    pub interval: Duration,
}

impl Default for ThrottleSettings {
    fn default() -> ThrottleSettings {
        ThrottleSettings {
            max_failed_logins: 20,
            interval: Duration::from_secs(60),
        }
    }
}

/// The failures of each address.
#[derive(Debug)]
pub struct Throttle {
    settings: ThrottleSettings,
    /// When the last failure of each address will be forgotten, in milliseconds of uptime: each failure puts it off by one share of the interval.
    forgotten_at: HashMap<IpAddr, u64>,
}

impl Throttle {
    /// No failures yet.
    pub fn new(settings: ThrottleSettings) -> Throttle {
        Throttle {
            settings,
            forgotten_at: HashMap::new(),
        }
    }

    /// Goes on with other settings; failures so far are forgotten when they would have been.
    pub fn set(&mut self, settings: ThrottleSettings) {
        self.settings = settings;
    }

    /// Whether an address has used up its failures. `uptime` is in milliseconds.
    pub fn is_reached(&self, address: IpAddr, uptime: u64) -> bool {
        let until = self.forgotten_at.get(&of(address)).copied().unwrap_or(0);
        // One more would have to fit in.
        self.settings.max_failed_logins > 0
            && until.saturating_sub(uptime) + self.share() > self.interval()
    }

    /// Counts a failure.
    pub fn failed(&mut self, address: IpAddr, uptime: u64) {
        if self.settings.max_failed_logins == 0 {
            return;
        }
        let (address, share) = (of(address), self.share());
        if self.forgotten_at.len() >= MAX_ADDRESSES && !self.forgotten_at.contains_key(&address) {
            self.make_room(uptime);
        }
        let until = self.forgotten_at.entry(address).or_insert(uptime);
        *until = (*until).max(uptime) + share;
    }

    fn make_room(&mut self, uptime: u64) {
        self.forgotten_at.retain(|_, until| *until > uptime);
        if self.forgotten_at.len() >= MAX_ADDRESSES {
            let first = self.forgotten_at.iter().min_by_key(|(_, until)| **until);
            if let Some(address) = first.map(|(address, _)| *address) {
                self.forgotten_at.remove(&address);
            }
        }
    }

    /// In thousandths of milliseconds a share would be exact; a millisecond is near enough and never zero.
    fn share(&self) -> u64 {
        (self.interval() / u64::from(self.settings.max_failed_logins.max(1))).max(1)
    }

    fn interval(&self) -> u64 {
        u64::try_from(self.settings.interval.as_millis()).unwrap_or(u64::MAX / 2)
    }
}

/// What counts as one address.
fn of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(max_failed_logins: u32) -> Throttle {
        Throttle::new(ThrottleSettings {
            max_failed_logins,
            interval: Duration::from_secs(60),
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn after_the_last_failure_allowed_an_address_waits_until_one_is_forgotten() {
        let mut throttle = throttle(3);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..3 {
            assert!(!throttle.is_reached(one, 1000));
            throttle.failed(one, 1000);
        }
        assert!(throttle.is_reached(one, 1000));
        assert!(throttle.is_reached(one, 20_999));
        assert!(!throttle.is_reached(other, 1000));
        assert!(!throttle.is_reached(one, 21_000));
        throttle.failed(one, 21_000);
        assert!(throttle.is_reached(one, 40_999));
        assert!(!throttle.is_reached(one, 41_000));
        // After a pause all of them are forgotten.
        for _ in 0..3 {
            assert!(!throttle.is_reached(one, 500_000));
            throttle.failed(one, 500_000);
        }
        assert!(throttle.is_reached(one, 500_000));
    }

    #[test]
    fn a_host_has_many_addresses_in_ipv6_and_one_in_ipv4() {
        let mut throttle = throttle(1);
        throttle.failed(address("2001:db8::1"), 0);
        assert!(throttle.is_reached(address("2001:db8::ffff:2"), 0));
        assert!(!throttle.is_reached(address("2001:db8:0:1::1"), 0));
        throttle.failed(address("::ffff:192.0.2.1"), 0);
        assert!(throttle.is_reached(address("192.0.2.1"), 0));
        assert!(!throttle.is_reached(address("192.0.2.2"), 0));
    }

    #[test]
    fn zero_is_no_limit() {
        let mut throttle = throttle(0);
        for _ in 0..1000 {
            throttle.failed(address("192.0.2.1"), 0);
        }
        assert!(!throttle.is_reached(address("192.0.2.1"), 0));
        assert!(throttle.forgotten_at.is_empty());
    }

    #[test]
    fn addresses_beyond_the_limit_replace_those_with_the_fewest_failures() {
        let mut throttle = throttle(2);
        let worst = address("192.0.2.1");
        throttle.failed(worst, 0);
        throttle.failed(worst, 0);
        let many = u32::try_from(MAX_ADDRESSES).expect("not so many");
        for n in 0..many + 10 {
            throttle.failed(IpAddr::V4((0x0A00_0000 + n).into()), 0);
        }
        assert_eq!(throttle.forgotten_at.len(), MAX_ADDRESSES);
        assert!(throttle.is_reached(worst, 0));
    }
}
