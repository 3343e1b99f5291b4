//! Texts that stand for sizes, durations and addresses.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// A duration as people write it: `"100ms"`, `"30s"`, `"1h30m"`, `"7d"`; units are ms, s, m, h, d
/// and w.
///
/// `None` without a unit, with an unknown one, or beyond 2^64 milliseconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let unit_len = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(millis)?)?;
        rest = after.trim_start();
    }
    Some(Duration::from_millis(total))
}

/// A size in bytes as people write it: `"64MB"` is 64,000,000 and `"64MiB"` 67,108,864; a number
/// without a unit is bytes.
///
/// `None` for an unknown unit or beyond 2^64 - 1.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim())?;
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Bytes in the largest unit that leaves no fraction, as [`parse_size`] reads it.
pub fn show_size(bytes: u64) -> String {
    let units: [(u64, &str); 7] = [
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
        (1_000, "KB"),
        (1, "B"),
    ];
    for (factor, unit) in units {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    "0B".to_owned()
}

/// A duration in the largest unit that leaves no fraction, as [`parse_duration`] reads it; less
/// than a millisecond is left out.
pub fn exact_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
        (1, "ms"),
    ];
    for (factor, unit) in units {
        if millis >= factor && millis.is_multiple_of(factor) {
            return format!("{}{unit}", millis / factor);
        }
    }
    "0s".to_owned()
}

/// A duration in words short enough for a start-up line: `12 ms`, `1.4 s`.
pub fn show_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let number = digits.replace('_', "").parse().ok()?;
    Some((number, rest.trim_start()))
}

/// Where to listen: an address or a host name, and a port. Host names are resolved when the
/// listener starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    host: String,
    port: u16,
}

impl Bind {
    /// This machine only, IPv4.
    pub fn loopback(port: u16) -> Bind {
        Bind {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port,
        }
    }

    /// As it is parsed, or an address or host name alone, with this port.
    pub fn with_default(text: &str, port: u16) -> Option<Bind> {
        if let Ok(bind) = text.parse() {
            return Some(bind);
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
            let host = address.to_string();
            return Some(Bind { host, port });
        }
        // A number alone is a port somebody has forgotten the address of.
        let is_name = text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains(':');
        let bind: Option<Bind> = is_name.then(|| format!("{text}:{port}").parse().ok())?;
        bind
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether only this machine can reach it: a loopback address, or the name `localhost`.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// The socket addresses to listen on; several if a host name has several.
    ///
    /// # Errors
    /// What the resolver answers for a host name it does not know.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map(Iterator::collect)
    }
}

/// `host:1883`, `127.0.0.1:1883` or `[::1]:1883`. Neither part may be left out: who listens where
/// everybody can reach it says so.
impl FromStr for Bind {
    type Err = ();

    fn from_str(text: &str) -> Result<Bind, ()> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Bind {
                host: address.ip().to_string(),
                port: address.port(),
            });
        }
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let port = port.parse().map_err(|_| ())?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || !host.chars().all(is_name) {
            return Err(());
        }
        Ok(Bind {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_may_be_combined() {
        let ok = |text, millis| {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        };
        ok("100ms", 100);
        ok("30s", 30_000);
        ok("2h", 7_200_000);
        ok("7d", 604_800_000);
        ok("1w", 604_800_000);
        ok("1h30m", 5_400_000);
        ok(" 1h 30m ", 5_400_000);
        ok("0s", 0);
        for bad in [
            "",
            "10",
            "s",
            "10x",
            "-1s",
            "1.5s",
            "1h30",
            "99999999999999w",
            "10 000",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_decimal_or_binary_as_written() {
        let ok = |text, bytes| assert_eq!(parse_size(text), Some(bytes), "{text}");
        ok("64MB", 64_000_000);
        ok("64MiB", 67_108_864);
        ok("1gb", 1_000_000_000);
        ok("2 KiB", 2048);
        ok("1_000", 1000);
        ok("512B", 512);
        for bad in [
            "",
            "MB",
            "64XB",
            "1.5GB",
            "-1",
            "99999999999TB",
            "18446744073709551616",
        ] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_size_is_shown_as_it_can_be_read_back() {
        for bytes in [
            0,
            1,
            999,
            1000,
            1024,
            64_000_000,
            67_108_864,
            1_048_576,
            u64::MAX,
        ] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
        assert_eq!(show_size(1_000_000_000), "1GB");
    }

    #[test]
    fn a_duration_is_shown_as_it_can_be_read_back() {
        for text in ["0s", "1ms", "1500ms", "90s", "10m", "25h", "14d"] {
            assert_eq!(exact_duration(parse_duration(text).expect(text)), text);
        }
    }

    #[test]
    fn a_bind_is_a_host_and_a_port() {
        for good in [
            "127.0.0.1:1883",
            "[::1]:0",
            "gateway.local:8883",
            "0.0.0.0:1",
        ] {
            let bind: Bind = good.parse().expect(good);
            assert_eq!(bind.to_string(), good);
        }
        for bad in [
            "",
            "1883",
            ":1883",
            "host",
            "host:",
            "host:65536",
            "::1:1883",
            "a b:1",
            "mqtt://h:1",
        ] {
            assert_eq!(bad.parse::<Bind>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn loopback_is_told_from_what_others_can_reach() {
        let is_loopback = |text: &str| text.parse::<Bind>().expect(text).is_loopback();
        assert!(is_loopback("127.0.0.1:1"));
        assert!(is_loopback("127.9.9.9:1"));
        assert!(is_loopback("[::1]:1"));
        assert!(is_loopback("localhost:1"));
        assert!(!is_loopback("0.0.0.0:1"));
        assert!(!is_loopback("[::]:1"));
        assert!(!is_loopback("example.org:1"));
    }
}
