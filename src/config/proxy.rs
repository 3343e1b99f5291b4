//! The proxy of a bridge: one URL, and a file for its password.

use super::text::path;
use super::tree::Section;
use crate::net::bridge::{Address, Password, Proxy, ProxyKind};

const EXPECTED: &str =
    "a proxy such as \"http://proxy.example.org:3128\" or \"socks5://user:password@10.0.0.1:1080\"";

/// The port of a SOCKS5 proxy that has none in its URL (RFC 1928).
const SOCKS_PORT: &str = "1080";
/// The longest user name or password SOCKS5 can say, in bytes.
const SOCKS_TEXT: usize = 255;

/// The proxy of a bridge, if it has one.
pub(super) fn proxy(s: &mut Section<'_, '_>) -> Option<Proxy> {
    let has_proxy = s.has("proxy");
    // What is wrong is told without the value: there may be a password in it.
    let text = s.optional("proxy", EXPECTED, |value| {
        value.as_text().map(str::to_owned)
    });
    let file = path(s, "proxy_password_file");
    let text = text.ok().flatten();
    let parsed = text.as_deref().and_then(parse);
    let Some(url) = parsed else {
        if text.is_some() {
            s.reject(
                "proxy",
                format!("is no URL of a proxy; expected {EXPECTED}"),
            );
        } else if file.is_some() && !has_proxy {
            s.reject("proxy_password_file", "there is no proxy");
        }
        return None;
    };
    let login = match (url.user, url.password, file) {
        (Some(_), Some(_), Some(_)) => {
            let what = "there is a password in proxy, too; expected one of them";
            s.reject("proxy_password_file", what);
            None
        }
        (None, _, Some(_)) => {
            let what = "proxy has no user name; expected one, as in \"http://user@host:port\"";
            s.reject("proxy_password_file", what);
            None
        }
        (Some(user), None, Some(file)) => Some((user, Password::File(file))),
        (Some(user), password, None) => {
            Some((user, Password::Inline(password.unwrap_or_default())))
        }
        (None, _, None) => None,
    };
    if let Some(what) = login
        .as_ref()
        .and_then(|login| refuse_login(url.kind, login))
    {
        s.reject("proxy", what);
    }
    Some(Proxy {
        kind: url.kind,
        address: url.address,
        login,
    })
}

/// Reads the URL of a proxy, with its login if it has one.
///
/// # Errors
/// It is no URL of a proxy, or the proxy could not be told the login. The text is not repeated:
/// there may be a password in it.
pub fn parse_proxy(text: &str) -> Result<Proxy, String> {
    let url = parse(text).ok_or_else(|| format!("is no URL of a proxy; expected {EXPECTED}"))?;
    let login = url.user.map(|user| {
        let password = Password::Inline(url.password.unwrap_or_default());
        (user, password)
    });
    match login
        .as_ref()
        .and_then(|login| refuse_login(url.kind, login))
    {
        Some(what) => Err(what.to_owned()),
        None => Ok(Proxy {
            kind: url.kind,
            address: url.address,
            login,
        }),
    }
}

/// Why a proxy of this kind cannot be told a login.
fn refuse_login(kind: ProxyKind, (user, password): &(String, Password)) -> Option<&'static str> {
    let is_good = |text: &str| (1..=SOCKS_TEXT).contains(&text.len());
    match (kind, password) {
        (ProxyKind::Socks5, Password::Inline(password)) if is_good(user) && is_good(password) => {
            None
        }
        (ProxyKind::Socks5, Password::File(_)) if is_good(user) => None,
        (ProxyKind::Socks5, _) => Some("SOCKS5 takes user names and passwords of 1 to 255 bytes"),
        (ProxyKind::Http, _) if user.contains(':') => {
            Some("an HTTP proxy takes no user name with a colon")
        }
        (ProxyKind::Http, _) => None,
    }
}

struct Url {
    kind: ProxyKind,
    address: Address,
    user: Option<String>,
    password: Option<String>,
}

fn parse(text: &str) -> Option<Url> {
    let (scheme, rest) = text.split_once("://")?;
    let kind = match scheme {
        "http" => ProxyKind::Http,
        // With the h, curl and Mosquitto say that the proxy resolves the name; it does here in any
        // case.
        "socks5" | "socks5h" => ProxyKind::Socks5,
        _ => return None,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, rest),
    };
    let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
        None => (None, None),
        Some((user, password)) => {
            let user = unescaped(user).filter(|user| !user.is_empty())?;
            let password = unescaped(password)?;
            (Some(user), Some(password).filter(|it| !it.is_empty()))
        }
    };
    // An IPv6 address stands in brackets, and has colons, too.
    let has_port = place.rfind(':') > place.rfind(']');
    let (host, port) = match (place.rsplit_once(':'), kind) {
        (Some(split), _) if has_port => split,
        (_, ProxyKind::Socks5) => (place, SOCKS_PORT),
        (_, ProxyKind::Http) => return None,
    };
    let host = match host.strip_prefix('[') {
        Some(v6) => {
            let v6 = v6.strip_suffix(']')?;
            v6.parse::<std::net::Ipv6Addr>().ok()?;
            v6
        }
        None => host,
    };
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty() && host.chars().all(is_good)).then(|| Url {
        kind,
        address: Address {
            host: host.to_owned(),
            port,
        },
        user,
        password,
    })
}

/// The text with each `%XX` as the byte it stands for; `None` if that is no UTF-8, or has a control
/// character.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
        rest = &tail[2..];
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_url_with_a_login_or_without() {
        let url = parse("socks5://me:p%40ss%3a@[::1]:1080").expect("good");
        assert_eq!(url.kind, ProxyKind::Socks5);
        assert_eq!(url.address.to_string(), "[::1]:1080");
        assert_eq!(url.user.as_deref(), Some("me"));
        assert_eq!(url.password.as_deref(), Some("p@ss:"));
        let url = parse("http://proxy.example:3128/").expect("good");
        assert_eq!((url.kind, url.user), (ProxyKind::Http, None));
        assert_eq!(url.address.to_string(), "proxy.example:3128");
        let url = parse("socks5h://[::1]").expect("good");
        assert_eq!(url.address.to_string(), "[::1]:1080");
        let url = parse("socks5://proxy").expect("good");
        assert_eq!(url.address.to_string(), "proxy:1080");
        let url = parse("http://me@proxy:1").expect("good");
        assert_eq!((url.user.as_deref(), url.password), (Some("me"), None));
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "proxy:3128",
            "https://proxy:3128",
            "http://proxy",
            "http://proxy:0",
            "http://:3128",
            "http://me%4@proxy:1",
            "http://me%0a@proxy:1",
            "http://@proxy:1",
            "http://pro xy:1",
            "http://[proxy]:1",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
