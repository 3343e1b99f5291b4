//! WebSocket: where it is opened, and by whom.

use super::text::texts;
use super::tree::{Section, Value};

use crate::net::listener::Protocol;
use crate::net::websocket::{Origins, Paths, WebSocketSettings};

/// The path of a WebSocket URL, if it is there.
pub(super) fn websocket_path(s: &mut Section<'_, '_>) -> Option<String> {
    let path = s.optional("websocket_path", "a path such as \"/mqtt\"", |value| {
        let text = value.as_text()?;
        is_path(text).then(|| text.to_owned())
    });
    path.ok().flatten()
}

fn is_path(text: &str) -> bool {
    let is_good = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#');
    text.starts_with('/') && text.chars().all(is_good)
}

/// The paths of a listener, if they are there.
fn websocket_paths(s: &mut Section<'_, '_>) -> Option<Paths> {
    let expected =
        "a path such as \"/mqtt\", a list of them such as [\"/mqtt\", \"/\"], or \"*\" for all";
    let paths = s.optional("websocket_path", expected, |value| {
        let texts = texts(value)?;
        if texts == ["*"] {
            return Some(Paths::All);
        }
        let are_good = !texts.is_empty() && texts.iter().all(|text| is_path(text));
        are_good.then(|| Paths::Listed(texts.into_iter().map(str::to_owned).collect()))
    });
    paths.ok().flatten()
}

/// The settings of a listener for WebSocket. `is_open` says that whoever reaches it may connect
/// without a login, and that only this machine reaches it; any web page in a browser of this
/// machine could.
pub(super) fn websocket(
    s: &mut Section<'_, '_>,
    protocol: Protocol,
    is_open: bool,
) -> Option<WebSocketSettings> {
    let paths = websocket_paths(s);
    let expected = "a list of origins such as [\"https://example.org\"], or \"*\" for all";
    let origins = s.optional("websocket_origins", expected, |value| {
        let is_good = |text: &str| {
            text.split_once("://")
                .is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'))
        };
        let texts = texts(value)?;
        if texts == ["*"] {
            return Some(Origins::All);
        }
        let all = texts.iter().map(|text| (*text).to_owned()).collect();
        let are_good = !texts.is_empty() && texts.iter().all(|text| is_good(text));
        are_good.then_some(Origins::Listed(all))
    });
    let origins = origins.ok().flatten();
    let by_packet = s.optional(
        "websocket_frame_per_packet",
        "true or false",
        Value::as_bool,
    );
    let by_packet = by_packet.ok().flatten();
    if !matches!(protocol, Protocol::Ws | Protocol::Wss) {
        if paths.is_some() || origins.is_some() || by_packet.is_some() {
            s.reject(
                "protocol",
                "there are keys for WebSocket; expected \"ws\" or \"wss\"",
            );
        }
        return None;
    }
    let default = match is_open {
        true => Origins::Local,
        false => Origins::All,
    };
    Some(WebSocketSettings {
        paths: paths.unwrap_or_default(),
        origins: origins.unwrap_or(default),
        frame_per_packet: by_packet.unwrap_or(true),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Overrides};

    #[track_caller]
    fn origins(keys: &str) -> Origins {
        settings(keys).origins
    }

    #[track_caller]
    fn settings(keys: &str) -> WebSocketSettings {
        let text = format!("[[listeners]]\nprotocol = 'ws'\n{keys}\n");
        let config = Config::parse(&text, Path::new("f"), [], &Overrides::default());
        let listener = config.expect("good").listeners.remove(0);
        listener.settings.websocket.expect("WebSocket")
    }

    #[test]
    fn the_path_is_one_or_several_or_any() {
        let paths =
            |key: &str| settings(&format!("bind = '::'\nallow_anonymous = true\n{key}")).paths;
        let listed =
            |paths: &[&str]| Paths::Listed(paths.iter().map(|&path| path.to_owned()).collect());
        assert_eq!(paths(""), listed(&["/mqtt", "/"]));
        assert_eq!(paths("websocket_path = '/x'"), listed(&["/x"]));
        assert_eq!(
            paths("websocket_path = ['/x', '/y/z']"),
            listed(&["/x", "/y/z"])
        );
        assert_eq!(paths("websocket_path = '*'"), Paths::All);
        for wrong in [
            "''",
            "[]",
            "['*', '/x']",
            "'x'",
            "'/x?y'",
            "['/x', 'y']",
            "7",
        ] {
            let text = format!(
                "[[listeners]]\nprotocol = 'ws'\nallow_anonymous = true\nbind = '::'\nwebsocket_path = {wrong}\n"
            );
            let read = Config::parse(&text, Path::new("f"), [], &Overrides::default());
            let error = read.expect_err(wrong).to_string();
            assert!(error.contains("or \"*\" for all"), "{wrong}: {error}");
        }
    }

    #[test]
    fn each_packet_is_a_frame_unless_that_is_not_wanted() {
        let by_packet = |key: &str| {
            settings(&format!("bind = '::'\nallow_anonymous = true\n{key}")).frame_per_packet
        };
        assert!(by_packet(""));
        assert!(by_packet("websocket_frame_per_packet = true"));
        assert!(!by_packet("websocket_frame_per_packet = false"));
        let tcp = "[[listeners]]\nallow_anonymous = true\nwebsocket_frame_per_packet = false\n";
        let read = Config::parse(tcp, Path::new("f"), [], &Overrides::default());
        let error = read.expect_err("no WebSocket").to_string();
        assert!(error.contains("there are keys for WebSocket"), "{error}");
    }

    #[test]
    fn where_everybody_on_this_machine_may_connect_pages_of_the_web_may_not() {
        let open = "allow_anonymous = true\nbind = ['127.0.0.1', '[::1]']\n";
        assert_eq!(origins(open), Origins::Local);
        let all = format!("{open}websocket_origins = '*'");
        assert_eq!(origins(&all), Origins::All);
        let listed = format!("{open}websocket_origins = ['https://a.example']");
        assert_eq!(
            origins(&listed),
            Origins::Listed(vec!["https://a.example".to_owned()])
        );
        for elsewhere in [
            "allow_anonymous = true\nbind = ['127.0.0.1', '0.0.0.0:1']",
            "allow_anonymous = true\nbind = '127.0.0.1'\nproxy_protocol_from = '127.0.0.1'",
            "password_file = 'p'\nbind = '127.0.0.1'",
            "allow_anonymous = true\nsocket = '/run/s'",
        ] {
            assert_eq!(origins(elsewhere), Origins::All, "{elsewhere}");
        }
    }
}
