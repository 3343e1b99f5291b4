//! `-L`: the server as a URL.

use super::exit::Failure;
use crate::net::listener::Protocol as Mqtt;

/// The parts of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The scheme.
    pub protocol: Mqtt,
    /// User name and password.
    pub login: Option<(String, Option<String>)>,
    /// Host.
    pub host: String,
    /// Port.
    pub port: Option<u16>,
    /// Path, only for WebSocket.
    pub path: Option<String>,
    /// Topic name or filter: the text after the host, if it is not a path.
    pub topic: Option<String>,
}

impl Url {
    /// Parses a URL as mosquitto_pub and mosquitto_sub do: the text after the host is the topic,
    /// with ws and wss the path.
    ///
    /// # Errors
    /// A usage failure that says what is wrong.
    pub fn parse(text: &str) -> Result<Url, Failure> {
        let wrong = |what: &str| Failure::usage(format!("-L {text}: {what}"));
        let expected = "expected mqtt://, mqtts://, ws:// or wss://, then a host";
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong(expected))?;
        let protocol = match scheme {
            "mqtt" => Mqtt::Mqtt,
            "mqtts" => Mqtt::Mqtts,
            "ws" => Mqtt::Ws,
            "wss" => Mqtt::Wss,
            _ => return Err(wrong(expected)),
        };
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let login = login.map(|login| match login.split_once(':') {
            Some((user, password)) => (user.to_owned(), Some(password.to_owned())),
            None => (login.to_owned(), None),
        });
        // An IPv6 address is in brackets.
        let port_at = match place.rfind(':') {
            Some(at) if !place[at..].contains(']') => Some(at),
            _ => None,
        };
        let (host, port) = place.split_at(port_at.unwrap_or(place.len()));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong("there is no host"));
        }
        let port = (!port.is_empty())
            .then(|| port[1..].parse().map_err(|_| wrong("the port is not one")))
            .transpose()?;
        let is_ws = matches!(protocol, Mqtt::Ws | Mqtt::Wss);
        let topic = path
            .strip_prefix('/')
            .filter(|topic| !is_ws && !topic.is_empty());
        let topic = topic.map(str::to_owned);
        let path = (is_ws && !path.is_empty()).then(|| path.to_owned());
        if path
            .iter()
            .any(|path| path.contains(|c: char| c.is_control() || c == ' '))
        {
            return Err(wrong("the path is not one"));
        }
        Ok(Url {
            protocol,
            login,
            host: host.to_owned(),
            port,
            path,
            topic,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_scheme_login_host_port_and_path() {
        let url = |text: &str| Url::parse(text).expect(text);
        let full = url("wss://user:p:w@gw.local:9001/socket");
        assert_eq!(full.protocol, Mqtt::Wss);
        assert_eq!(
            full.login,
            Some(("user".to_owned(), Some("p:w".to_owned())))
        );
        assert_eq!((full.host.as_str(), full.port), ("gw.local", Some(9001)));
        assert_eq!(full.path.as_deref(), Some("/socket"));
        let six = url("mqtts://[::1]:8883");
        assert_eq!((six.host.as_str(), six.port), ("::1", Some(8883)));
        assert_eq!(url("mqtt://[::1]").host, "::1");
        assert_eq!(
            (url("mqtt://a/").path, url("mqtt://a/").topic),
            (None, None)
        );
        assert_eq!(url("mqtt://a/b/+/#").topic.as_deref(), Some("b/+/#"));
        assert_eq!(url("mqtts://a//b").topic.as_deref(), Some("/b"));
        assert_eq!(url("ws://a/b").topic, None);
        for bad in [
            "localhost",
            "http://a",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://a:b",
            "ws://a/b c",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
}
