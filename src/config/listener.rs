//! Listeners: each key by itself, then what goes with what. A key that would have no effect is an
//! error: whoever wrote it expects one.

use std::time::Duration;

use super::authentication::{Authentication, admission};
use super::balancer::proxy_requirement;
use super::bind::{BIND_EXPECTED, binds};
use super::client_id::client_ids;
use super::model::{DEFAULT_PORT, Listener};
use super::mqtt::{LARGEST_PACKET, maximum_qos, protocol, version};
use super::socket::socket;
use super::text::{text, texts};
use super::tls::tls;
use super::tree::{Origin, Report, Section};
use super::value::Bind;
use super::websocket::websocket;
use crate::broker::{Access, IdentityKind};
use crate::net::listener::{AddressRange, ListenerSettings};
use crate::net::tls::{ClientCertificates, TlsSettings};
use crate::wire::{QoS, topic};

const ANY_BIND_EXPECTED: &str = "an address and a port such as \"127.0.0.1:1883\", \"[::1]:1883\" or \"gateway.local:1883\", an \
     address alone for the protocol's own port, or a list of such";
const RANGES_EXPECTED: &str =
    "a list of addresses and networks such as [\"192.0.2.7\", \"10.0.0.0/8\", \"fd00::/8\"]";

/// The addresses of `--bind` flags, which can only be reached from this machine: a flag is quickly
/// written, and a broker that is open to a network without authentication should be somebody's
/// decision.
pub(super) fn flag_bind(flags: &[String], report: &mut Report<'_>) -> Option<Vec<Bind>> {
    let mut bind = Vec::new();
    for text in flags {
        let at = Origin::Flag("--bind");
        match text.parse::<Bind>() {
            Ok(address) if address.is_loopback() => bind.push(address),
            Ok(address) => report.add(
                &at,
                "",
                format!(
                    "{address} can be reached from other machines, and the flag sets up no authentication; write in a configuration file:\n    \
                     [[listeners]]\n    bind = \"{address}\"\n    allow_anonymous = true\n  \
                     and start with --config and its name"
                ),
            ),
            Err(()) => report.add(&at, "", format!("found {text:?}, expected {BIND_EXPECTED}")),
        }
    }
    (!flags.is_empty()).then_some(bind)
}

/// The listeners of the file; those of a broker without a configuration if there are none.
pub(super) fn listeners(
    root: &mut Section<'_, '_>,
    authentication: &Authentication,
) -> Vec<Listener> {
    let configured = root.each("listeners", |mut section| {
        let listener = listener(&mut section, authentication);
        section.close();
        listener
    });
    if configured.is_empty() {
        default_listeners(authentication)
    } else {
        configured
    }
}

fn default_listeners(authentication: &Authentication) -> Vec<Listener> {
    let on = |bind: &str, optional| {
        let bind = bind.parse().into_iter().collect();
        open_to_all(bind, optional, authentication)
    };
    vec![
        on(&format!("127.0.0.1:{DEFAULT_PORT}"), false),
        on(&format!("[::1]:{DEFAULT_PORT}"), true),
    ]
}

/// A listener for everybody who can reach it, unless `[authentication]` says how clients prove who
/// they are.
pub(super) fn open_to_all(
    bind: Vec<Bind>,
    optional: bool,
    authentication: &Authentication,
) -> Listener {
    let mut settings = ListenerSettings {
        authentication: authentication.chain_of_all(),
        ..ListenerSettings::default()
    };
    let has_methods = !settings.authentication.is_empty();
    settings.access.allow_anonymous = authentication.allow_anonymous.unwrap_or(!has_methods);
    Listener {
        bind,
        interface: None,
        socket: None,
        settings,
        optional,
    }
}

fn listener(s: &mut Section<'_, '_>, authentication: &Authentication) -> Option<Listener> {
    let d = ListenerSettings::default();
    let protocol = protocol(s);
    let bind = s.optional("bind", ANY_BIND_EXPECTED, |value| {
        binds(value, Some(protocol.default_port()))
    });
    let interface = interface(s);
    let socket = socket(s);
    let tls = tls(s, protocol);
    let proxy_protocol_from = ranges(s, "proxy_protocol_from");
    let proxy_protocol_require = proxy_requirement(s, proxy_protocol_from.is_some());
    let methods = authentication.chain_of(s);
    let access = access(s, tls.as_ref(), proxy_protocol_from.is_some());
    let access = client_ids(s, access);
    let access = admission(
        s,
        access,
        authentication.allow_anonymous,
        !methods.is_empty(),
    );
    let bound = bind.as_ref().ok().and_then(Option::as_deref);
    let is_local = bound.is_some_and(|bound| bound.iter().all(Bind::is_loopback));
    let is_open = is_local && access.allow_anonymous && proxy_protocol_from.is_none();
    let websocket = websocket(s, protocol, is_open);
    let settings = ListenerSettings {
        access,
        authentication: methods,
        tls,
        websocket,
        proxy_protocol_from,
        proxy_protocol_require,
        allow: ranges(s, "allow").unwrap_or_default(),
        deny: ranges(s, "deny").unwrap_or_default(),
        max_connections: s.number("max_connections", d.max_connections, 1..=u64::MAX),
        max_connection_rate: s.optional_number("max_connection_rate", 1..=1_000_000),
        backlog: s.number("backlog", d.backlog, 1..=65_535),
        handshake_timeout: s.duration(
            "handshake_timeout",
            d.handshake_timeout,
            Duration::from_millis(1)..=Duration::from_secs(3600),
        ),
    };
    let bind = bind.ok()?.unwrap_or_default();
    if bind.is_empty() && socket.is_none() {
        s.reject(
            "bind",
            format!(
                "missing, expected {ANY_BIND_EXPECTED}; or the path of a Unix socket as socket"
            ),
        );
        return None;
    }
    if interface.is_some() && bind.is_empty() {
        s.reject(
            "bind",
            "missing: an interface needs an address to listen on",
        );
    }
    Some(Listener {
        bind,
        interface,
        socket,
        settings,
        optional: false,
    })
}

fn interface(s: &mut Section<'_, '_>) -> Option<String> {
    // Linux has 16 bytes for a name, with the zero at its end.
    let expected = "the name of a network interface such as \"eth0\", of at most 15 bytes";
    let read = s.optional("bind_interface", expected, |value| {
        let text = value.as_text()?;
        let is_good = (1..16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        is_good.then(|| text.to_owned())
    });
    read.ok().flatten()
}

fn access(s: &mut Section<'_, '_>, tls: Option<&TlsSettings>, proxied: bool) -> Access {
    let d = Access::default();
    let expected = "a list of \"3.1\", \"3.1.1\" and \"5\"";
    let versions = s.get("protocol_versions", Vec::new(), expected, |value| {
        let versions: Option<Vec<_>> = texts(value)?.into_iter().map(version).collect();
        versions.filter(|versions| !versions.is_empty())
    });
    let expected = "\"cn\", \"subject\" for the whole subject, or \"dns\", \"email\" or \"uri\" for a subject alternative name";
    let identity = s.optional("certificate_identity", expected, |value| {
        Some(match value.as_text()? {
            "cn" => IdentityKind::CommonName,
            "subject" => IdentityKind::Subject,
            "dns" => IdentityKind::Dns,
            "email" => IdentityKind::Email,
            "uri" => IdentityKind::Uri,
            _ => return None,
        })
    });
    let identity = identity.ok().flatten();
    let access = Access {
        allow_anonymous: false,
        versions,
        maximum_qos: maximum_qos(s, QoS::ExactlyOnce),
        max_packet_size: s.size("max_packet_size", d.max_packet_size, 64..=LARGEST_PACKET),
        identity: identity.unwrap_or_default(),
        mount_point: mount_point(s),
        acl: text(s, "acl_file", "the path of a file").map(Into::into),
        use_identity_as_username: s.flag("use_identity_as_username", false),
        use_identity_as_clientid: s.flag("use_identity_as_clientid", false),
        ..d
    };
    let has_identity = proxied || tls.is_some_and(|tls| tls.clients != ClientCertificates::None);
    if access.uses_identity() && !has_identity {
        s.reject(
            "require_certificate",
            "an identity comes from a client's certificate; expected \"required\" or \"optional\", and a cafile",
        );
    }
    if identity.is_some() && !access.uses_identity() {
        s.reject(
            "certificate_identity",
            "has no use without use_identity_as_username or use_identity_as_clientid",
        );
    }
    access
}

fn mount_point(s: &mut Section<'_, '_>) -> Box<str> {
    let expected = "a topic such as \"tenant1/\", which ends with / and does not begin with $";
    s.get("mount_point", "".into(), expected, |value| {
        let text = value.as_text()?;
        let is_good = topic::is_valid_name(text) && text.ends_with('/') && !text.starts_with('$');
        is_good.then(|| text.into())
    })
}

fn ranges(s: &mut Section<'_, '_>, key: &'static str) -> Option<Vec<AddressRange>> {
    let read = s.optional(key, RANGES_EXPECTED, |value| {
        let ranges: Option<Vec<_>> = texts(value)?
            .into_iter()
            .map(|text| text.parse().ok())
            .collect();
        ranges.filter(|ranges| !ranges.is_empty())
    });
    read.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};
    use crate::net::proxy_protocol::Required;
    use crate::net::tls::{CrlExpired, TlsVersion};
    use crate::wire::ProtocolVersion;
    use std::path::Path;

    fn parse(text: &str) -> Result<Vec<Listener>, Vec<String>> {
        let text = format!("[[listeners]]\n{text}");
        Config::parse(&text, Path::new("f.toml"), [], &Overrides::default())
            .map(|config| config.listeners)
            .map_err(|error| error.problems.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn one(text: &str) -> Listener {
        let mut all = parse(text).expect("good");
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    const TLS: &str = "protocol = 'mqtts'\nbind = '::'\ncertfile = 'c'\nkeyfile = 'k'\n";

    #[test]
    fn the_port_is_the_protocols_own_unless_it_is_written() {
        for (protocol, port) in [("mqtt", 1883), ("mqtts", 8883), ("ws", 8083), ("wss", 8084)] {
            let tls = if protocol.ends_with('s') && protocol != "ws" {
                "certfile = 'c'\nkeyfile = 'k'"
            } else {
                ""
            };
            let listener = one(&format!(
                "protocol = '{protocol}'\nbind = ['0.0.0.0', '::1', 'gw.local', '[::]:7']\nallow_anonymous = true\n{tls}"
            ));
            assert_eq!(listener.settings.protocol().to_string(), protocol);
            let binds: Vec<String> = listener.bind.iter().map(Bind::to_string).collect();
            assert_eq!(
                binds,
                [
                    format!("0.0.0.0:{port}"),
                    format!("[::1]:{port}"),
                    format!("gw.local:{port}"),
                    "[::]:7".to_owned()
                ]
            );
        }
    }

    #[test]
    fn a_listener_has_settings_of_its_own() {
        let listener = one(&format!(
            "{TLS}cafile = 'ca'\ncrlfile = 'crl'\ncrl_expired = 'accept'\nrequire_certificate = true\ntls_version = 'tlsv1.3'\n\
             certificates = [{{ certfile = 'c2', keyfile = 'k2' }}]\n\
             use_identity_as_username = true\nuse_identity_as_clientid = true\ncertificate_identity = 'uri'\n\
             protocol_versions = ['3.1.1', '5']\nmaximum_qos = 1\nmax_packet_size = '1KB'\nmax_connections = 7\n\
             max_connection_rate = 50\nallow = ['10.0.0.0/8']\ndeny = ['10.9.0.0/16']\nproxy_protocol_from = '10.1.1.1'\n\
             backlog = 9\nhandshake_timeout = '3s'\nmount_point = 'a/b/'\nbind_interface = 'eth0'\n\
             ciphers_tls13 = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384'\nproxy_protocol_require = 'certificate'\n\
             clientid_prefixes = ['a-', '%u/']\nallow_zero_length_clientid = false"
        ));
        assert_eq!(listener.interface.as_deref(), Some("eth0"));
        let settings = listener.settings;
        let tls = settings.tls.expect("TLS");
        assert_eq!(tls.certificates.len(), 2);
        assert_eq!(tls.clients, ClientCertificates::Required);
        assert_eq!(tls.minimum, TlsVersion::Tls13);
        assert_eq!(tls.alpn, ["mqtt"]);
        assert_eq!(tls.crl_expired, CrlExpired::Accept);
        assert_eq!(tls.ciphers_tls13.map(|suites| suites.len()), Some(2));
        let access = settings.access;
        assert!(!access.allow_anonymous && access.use_identity_as_username);
        assert_eq!(access.identity, IdentityKind::Uri);
        assert_eq!(&*access.mount_point, "a/b/");
        assert_eq!(
            access.versions,
            [ProtocolVersion::V311, ProtocolVersion::V5]
        );
        assert_eq!(
            (access.maximum_qos, access.max_packet_size),
            (QoS::AtLeastOnce, 1000)
        );
        assert_eq!(
            (settings.max_connections, settings.max_connection_rate),
            (7, Some(50))
        );
        assert_eq!(settings.backlog, 9);
        assert_eq!(settings.handshake_timeout, Duration::from_secs(3));
        assert_eq!(settings.proxy_protocol_from.map(|it| it.len()), Some(1));
        assert_eq!(settings.proxy_protocol_require, Required::Certificate);
        assert_eq!(access.clientid_prefixes, ["a-".into(), "%u/".into()]);
        assert!(!access.allow_zero_length_clientid);
    }

    #[test]
    fn a_unix_socket_needs_no_address() {
        let listener = one(
            "socket = '/run/t.sock'\nsocket_mode = '0600'\nsocket_group = 'mqtt'\nallow_anonymous = true",
        );
        assert!(listener.bind.is_empty());
        let socket = listener.socket.expect("a socket");
        assert_eq!(
            (socket.mode, socket.group.as_deref()),
            (0o600, Some("mqtt"))
        );
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        let plain = "bind = '::1'\nallow_anonymous = true\n";
        let tls = format!("{TLS}allow_anonymous = true\n");
        for (text, needle) in [
            (
                "allow_anonymous = true",
                "listeners[0].bind: missing, expected an address",
            ),
            ("bind = '::1'", "nobody could connect to this listener"),
            (&format!("{plain}certfile = 'c'"), "mqtt has no tls"),
            (
                &format!("{plain}tls_version = 'tlsv1.2'"),
                "mqtt has no tls",
            ),
            (
                &format!("{plain}websocket_path = '/x'"),
                "keys for WebSocket",
            ),
            (
                &format!("{plain}socket_mode = '0600'"),
                "listeners[0].socket: missing",
            ),
            (
                &format!("{plain}protocol = 'wss'"),
                "TLS needs a certificate",
            ),
            (
                &format!("{plain}use_identity_as_username = true"),
                "comes from a client's certificate",
            ),
            (&format!("{tls}cafile = 'x'"), "need each other"),
            (
                &format!("{tls}require_certificate = 'optional'"),
                "need each other",
            ),
            (&format!("{tls}crlfile = 'x'"), "a crlfile needs a cafile"),
            (
                &format!("{tls}certificates = [{{ certfile = 'x' }}]"),
                "needs certfile and keyfile",
            ),
            (
                &format!("{tls}certificate_identity = 'cn'"),
                "has no use without",
            ),
            (
                &format!("{tls}ciphers = ['ECDHE-RSA-AES128-GCM-SHA256', 'RC4-MD5']"),
                "found a list, expected one or several of ECDHE-ECDSA-AES256-GCM-SHA384, ECDHE-",
            ),
            (
                &format!("{tls}tls_version = 'tlsv1.3'\nciphers = 'ECDHE-RSA-CHACHA20-POLY1305'"),
                "is for TLS 1.2",
            ),
            (
                &format!("{plain}ciphers_tls13 = 'TLS_AES_128_GCM_SHA256'"),
                "mqtt has no tls",
            ),
            (&format!("{plain}mount_point = 'a'"), "ends with /"),
            (
                &format!("{plain}proxy_protocol_require = 'tls'"),
                "has no use without proxy_protocol_from",
            ),
            (
                &format!("{plain}proxy_protocol_from = '::1'\nproxy_protocol_require = 'yes'"),
                "\"tls\", or \"certificate\"",
            ),
            (
                &format!("{plain}clientid_prefixes = ['%u']"),
                "behind %u, the user name, something else stands",
            ),
            (&format!("{plain}clientid_prefixes = []"), "found a list"),
            (
                &format!("{plain}use_username_as_clientid = true\nclientid_prefixes = 'a'"),
                "has no use with use_username_as_clientid",
            ),
            (
                "bind = '::1'\nproxy_protocol_from = '::1'\nuse_identity_as_username = true\n\
                 use_identity_as_clientid = true\nuse_username_as_clientid = true",
                "use_identity_as_clientid says something else",
            ),
            (&format!("{plain}mount_point = '$a/'"), "ends with /"),
            (&format!("{plain}mount_point = '+/'"), "ends with /"),
            (
                &format!("{plain}bind_interface = 'a name that is too long'"),
                "at most 15 bytes",
            ),
            (
                "socket = 'x'\nallow_anonymous = true\nbind_interface = 'eth0'",
                "needs an address",
            ),
            (
                &format!("{plain}protocol_versions = ['4']"),
                "\"3.1.1\" and \"5\"",
            ),
            (&format!("{plain}protocol_versions = []"), "found a list"),
            (
                &format!("{plain}allow = ['10.0.0.0/64']"),
                "addresses and networks",
            ),
            (&format!("{plain}protocol = 'mqttt'"), "\"mqtts\" (TLS)"),
            (
                &format!("{plain}socket = 'x'\nsocket_mode = '0999'"),
                "octal",
            ),
            (
                &format!("{plain}max_connection_rate = 0"),
                "from 1 to 1000000",
            ),
            (
                "protocol = 'ws'\nbind = '::'\nallow_anonymous = true\nwebsocket_path = 'x'",
                "a path such as",
            ),
            (
                "protocol = 'ws'\nbind = '::'\nallow_anonymous = true\nwebsocket_origins = ['x']",
                "origins such as",
            ),
        ] {
            let problems = parse(text).expect_err(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].contains(needle), "{text}: {problems:?}");
        }
    }

    #[test]
    fn a_listener_nobody_could_connect_to_is_refused_with_what_to_write() {
        for text in ["", "allow_anonymous = false"] {
            let problems = parse(&format!("bind = '0.0.0.0:1883'\n{text}")).expect_err("nobody");
            let place = "f.toml:1:1: listeners[0].allow_anonymous: nobody could connect";
            assert!(problems[0].starts_with(place), "{problems:?}");
            assert!(problems[0].contains("expected a password_file, or allow_anonymous = true"));
        }
    }

    #[test]
    fn the_bind_flag_replaces_listeners_and_keeps_to_loopback() {
        let file = "[[listeners]]\nbind = '0.0.0.0:1'\nallow_anonymous = true\n";
        let load = |bind: &[&str]| {
            let overrides = Overrides {
                bind: bind.iter().map(|&text| text.to_owned()).collect(),
                ..Overrides::default()
            };
            Config::parse(file, Path::new("f.toml"), [], &overrides)
        };
        let config = load(&["127.0.0.1:0", "localhost:9"]).expect("good");
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.listeners[0].bind.len(), 2);
        let error = load(&["0.0.0.0:1883"]).expect_err("open to the network");
        assert!(
            error
                .to_string()
                .starts_with("--bind: 0.0.0.0:1883 can be reached")
        );
        assert!(error.to_string().contains("allow_anonymous = true"));
        let error = load(&["x"]).expect_err("no port");
        assert!(error.to_string().contains("found \"x\""));
    }
}
