//! Authentication: what the table says for all listeners, and how a listener's own keys change it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;

use super::text::{path, text, texts};
use super::tree::{Section, Value};
use crate::broker::Access;
use crate::net::auth::http::{HttpSettings, OnError, Secret};
use crate::net::auth::jwt::{JwtAlgorithm, JwtSettings};
use crate::net::auth::{Method, ThrottleSettings};

const HOUR: Duration = Duration::from_secs(3600);

/// What `[authentication]` says.
#[derive(Debug, Default)]
pub(super) struct Authentication {
    /// Whether anonymous clients may connect to listeners that do not say it themselves.
    pub allow_anonymous: Option<bool>,
    /// Whether a client may have the session of another user.
    pub allow_other_users: bool,
    /// How many logins may fail.
    pub throttle: ThrottleSettings,
    password_file: Option<PathBuf>,
    jwt: Option<Arc<[JwtSettings]>>,
    http: Option<Arc<HttpSettings>>,
    order: Option<Vec<Kind>>,
}

/// A method by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    PasswordFile,
    Jwt,
    Http,
}

impl Kind {
    /// In the order in which they are asked if none is written.
    const ALL: [(Kind, &'static str); 3] = [
        (Kind::PasswordFile, "password_file"),
        (Kind::Jwt, "jwt"),
        (Kind::Http, "http"),
    ];
}

/// Reads the table.
pub(super) fn authentication(mut s: Section<'_, '_>) -> Authentication {
    let d = ThrottleSettings::default();
    let anonymous = s.optional("allow_anonymous", "true or false", Value::as_bool);
    let authentication = Authentication {
        allow_anonymous: anonymous.ok().flatten(),
        allow_other_users: s.flag("allow_other_users", false),
        throttle: ThrottleSettings {
            max_failed_logins: s.number("max_failed_logins", d.max_failed_logins, 0..=1_000_000),
            max_failed_logins_per_address: s.number(
                "max_failed_logins_per_address",
                d.max_failed_logins_per_address,
                0..=1_000_000,
            ),
            interval: s.duration(
                "failed_logins_interval",
                d.interval,
                Duration::from_secs(1)..=Duration::from_secs(86_400),
            ),
        },
        password_file: path(&mut s, "password_file"),
        jwt: jwt(&mut s),
        http: http(s.section("http")).map(Arc::new),
        order: order(&mut s, "methods"),
    };
    if let Err(what) = authentication.chain(None, None) {
        s.reject("methods", what);
    }
    s.close();
    authentication
}

impl Authentication {
    /// The chain of a listener with these keys of its own: its methods in order.
    pub fn chain_of(&self, s: &mut Section<'_, '_>) -> Vec<Method> {
        let own_file = path(s, "password_file");
        let own_order = order(s, "authentication_methods");
        if own_file.is_some()
            && own_order
                .as_ref()
                .is_some_and(|order| !order.contains(&Kind::PasswordFile))
        {
            s.reject(
                "password_file",
                "has no use here: authentication_methods leaves out \"password_file\"",
            );
            return Vec::new();
        }
        self.chain(own_file, own_order).unwrap_or_else(|what| {
            s.reject("authentication_methods", what);
            Vec::new()
        })
    }

    /// The chain of a listener without keys of its own.
    pub fn chain_of_all(&self) -> Vec<Method> {
        self.chain(None, None).unwrap_or_default()
    }

    fn chain(
        &self,
        own_file: Option<PathBuf>,
        own_order: Option<Vec<Kind>>,
    ) -> Result<Vec<Method>, String> {
        let file = own_file.or_else(|| self.password_file.clone());
        let method = |kind| match kind {
            Kind::PasswordFile => file.clone().map(Method::PasswordFile),
            Kind::Jwt => self.jwt.clone().map(Method::Jwt),
            Kind::Http => self.http.clone().map(Method::Http),
        };
        let Some(order) = own_order.or_else(|| self.order.clone()) else {
            let all = Kind::ALL.into_iter();
            return Ok(all.filter_map(|(kind, _)| method(kind)).collect());
        };
        let missing = |kind| {
            let name = name_of(kind);
            format!(
                "{name:?} is among the methods, but nothing is said about it; expected password_file, [[authentication.jwt]] or a url in [authentication.http]"
            )
        };
        let order = order.into_iter();
        order
            .map(|kind| method(kind).ok_or_else(|| missing(kind)))
            .collect()
    }
}

/// Whether anonymous clients may connect, and whether anybody may: `by_default` is what
/// `[authentication]` says.
pub(super) fn admission(
    s: &mut Section<'_, '_>,
    access: Access,
    by_default: Option<bool>,
    has_methods: bool,
) -> Access {
    let key = "allow_anonymous";
    let own = s.optional(key, "true or false", Value::as_bool);
    // One that is not true or false has been reported.
    let allow_anonymous = own.unwrap_or(Some(true)).or(by_default).unwrap_or(false);
    if !allow_anonymous && !access.use_identity_as_username && !has_methods {
        s.reject(
            key,
            "nobody could connect to this listener: without a method of authentication, anonymous clients are the only ones, and those with \
             certificates where use_identity_as_username = true; expected a password_file, or allow_anonymous = true, which lets in everybody \
             who can reach the address",
        );
    }
    Access {
        allow_anonymous,
        ..access
    }
}

fn jwt(s: &mut Section<'_, '_>) -> Option<Arc<[JwtSettings]>> {
    let all = s.each("jwt", |mut key| {
        let expected = "\"HS256\", \"RS256\" or \"ES256\"";
        let algorithm = key.required("algorithm", expected, |value| match value.as_text()? {
            "HS256" => Some(JwtAlgorithm::Hs256),
            "RS256" => Some(JwtAlgorithm::Rs256),
            "ES256" => Some(JwtAlgorithm::Es256),
            _ => None,
        });
        let keyfile = path(&mut key, "keyfile");
        if keyfile.is_none() {
            key.reject("keyfile", "missing, expected the path of a file: for HS256 the secret, for the others a public key in PEM");
        }
        let (kid, issuer, audience) = (
            text(&mut key, "kid", "the name of a key"),
            text(&mut key, "issuer", "what iss must be"),
            text(&mut key, "audience", "what aud must be"),
        );
        let username_claim = text(&mut key, "username_claim", "the name of a claim");
        let leeway = key.duration("leeway", Duration::ZERO, Duration::ZERO..=HOUR);
        let disconnect_at_expiry = key.flag("disconnect_at_expiry", true);
        key.close();
        Some(JwtSettings {
            algorithm: algorithm?,
            keyfile: keyfile?,
            kid,
            issuer,
            audience,
            username_claim: username_claim.unwrap_or_else(|| "sub".to_owned()),
            leeway,
            disconnect_at_expiry,
        })
    });
    (!all.is_empty()).then(|| all.into())
}

fn http(mut s: Section<'_, '_>) -> Option<HttpSettings> {
    let expected = "a URL such as \"https://example.org/mqtt/login\"";
    let url = s.optional("url", expected, |value| {
        let url: Uri = value.as_text()?.parse().ok()?;
        let is_known = matches!(url.scheme_str(), Some("http" | "https"));
        (is_known && url.host().is_some()).then_some(url)
    });
    let cafile = path(&mut s, "cafile");
    let expected =
        "where the header is, never the header itself: \"file:PATH\" or \"env:VARIABLE\"";
    let authorization = s.optional("authorization", expected, |value| {
        match value.as_text()?.split_once(':')? {
            ("file", path) if !path.is_empty() => Some(Secret::File(path.into())),
            ("env", name) if !name.is_empty() => Some(Secret::Variable(name.to_owned())),
            _ => None,
        }
    });
    let authorization = authorization.ok().flatten();
    let (timeout, max_requests) = (
        s.duration(
            "timeout",
            Duration::from_secs(3),
            Duration::from_millis(1)..=HOUR,
        ),
        s.number("max_requests", 64, 1..=10_000),
    );
    let (cache_time, cache_size) = (
        s.duration(
            "cache_time",
            Duration::from_secs(30),
            Duration::ZERO..=HOUR * 24,
        ),
        s.number("cache_size", 10_000, 1..=10_000_000),
    );
    let expected = "\"deny\" or \"next\"";
    let on_error = s.get("on_error", OnError::Deny, expected, |value| {
        match value.as_text()? {
            "deny" => Some(OnError::Deny),
            "next" => Some(OnError::Next),
            _ => None,
        }
    });
    let has_more = cafile.is_some() || authorization.is_some();
    if has_more && matches!(url, Ok(None)) {
        s.reject("url", "missing, expected the URL to ask");
    }
    s.close();
    Some(HttpSettings {
        url: url.ok().flatten()?,
        cafile,
        authorization,
        timeout,
        max_requests,
        cache_time,
        cache_size,
        on_error,
    })
}

fn name_of(kind: Kind) -> &'static str {
    let known = Kind::ALL.into_iter().find(|(other, _)| *other == kind);
    known.map_or("", |(_, name)| name)
}

fn order(s: &mut Section<'_, '_>, key: &'static str) -> Option<Vec<Kind>> {
    let names: Vec<String> = Kind::ALL
        .iter()
        .map(|(_, name)| format!("{name:?}"))
        .collect();
    let expected = format!("a list of {}, each once; empty for none", names.join(", "));
    let read = s.optional(key, &expected, |value| {
        let mut order = Vec::new();
        for text in texts(value)?.into_iter().filter(|text| !text.is_empty()) {
            let (kind, _) = Kind::ALL.into_iter().find(|(_, name)| *name == text)?;
            if order.contains(&kind) {
                return None;
            }
            order.push(kind);
        }
        Some(order)
    });
    read.ok().flatten()
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Overrides};
    use crate::net::auth::Method;
    use crate::net::auth::http::{OnError, Secret};
    use crate::net::auth::jwt::JwtAlgorithm;
    use std::path::Path;

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        Config::parse(text, Path::new("f.toml"), [], &Overrides::default())
            .map_err(|error| error.problems.iter().map(ToString::to_string).collect())
    }

    const ALL: &str = "[authentication]\npassword_file = 'p'\n\
        [[authentication.jwt]]\nalgorithm = 'HS256'\nkeyfile = 'k'\n\
        [authentication.http]\nurl = 'http://127.0.0.1/login'\n";

    fn names(chain: &[Method]) -> Vec<String> {
        chain
            .iter()
            .map(|method| match method {
                Method::PasswordFile(path) => path.display().to_string(),
                Method::Jwt(_) => "jwt".to_owned(),
                Method::Http(_) => "http".to_owned(),
            })
            .collect()
    }

    #[test]
    fn listeners_have_the_methods_there_are_and_may_say_otherwise() {
        let listener = "[[listeners]]\nbind = '::1'\n";
        let text = format!(
            "{ALL}{listener}{listener}password_file = 'own'\n{listener}authentication_methods = ['http', 'password_file']\n\
             {listener}authentication_methods = []\nallow_anonymous = true\n"
        );
        let config = parse(&text).expect("good");
        let chain = |n: usize| names(&config.listeners[n].settings.authentication);
        assert_eq!(chain(0), ["p", "jwt", "http"]);
        assert_eq!(chain(1), ["own", "jwt", "http"]);
        assert_eq!(chain(2), ["http", "p"]);
        assert!(chain(3).is_empty());
        let anonymous = |n: usize| config.listeners[n].settings.access.allow_anonymous;
        assert!(!anonymous(0) && anonymous(3));
    }

    #[test]
    fn without_listeners_a_method_closes_the_broker_to_anonymous_clients() {
        for (text, anonymous) in [
            ("", true),
            ("[authentication]\npassword_file = 'p'", false),
            (
                "[authentication]\npassword_file = 'p'\nallow_anonymous = true",
                true,
            ),
        ] {
            let config = parse(text).expect("good");
            let of = config
                .listeners
                .iter()
                .map(|it| it.settings.access.allow_anonymous);
            assert!(of.into_iter().all(|it| it == anonymous), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = "[authentication]\nallow_other_users = true\nmax_failed_logins = 5\nfailed_logins_interval = '1h'\n\
            [[authentication.jwt]]\nalgorithm = 'ES256'\nkeyfile = 'k'\nkid = 'a'\nissuer = 'b'\naudience = 'c'\nusername_claim = 'd'\nleeway = '5s'\n\
            [authentication.http]\nurl = 'https://example.org/x'\ncafile = 'ca'\nauthorization = 'env:NAME'\ntimeout = '1s'\n\
            max_requests = 2\ncache_time = '0s'\ncache_size = 3\non_error = 'next'\n";
        let config = parse(text).expect("good");
        assert!(config.allow_other_users);
        assert_eq!(config.throttle.max_failed_logins, 5);
        let [Method::Jwt(keys), Method::Http(http)] =
            &config.listeners[0].settings.authentication[..]
        else {
            panic!("two methods");
        };
        assert_eq!(
            (keys[0].algorithm, keys[0].username_claim.as_str()),
            (JwtAlgorithm::Es256, "d")
        );
        assert_eq!(
            http.authorization,
            Some(Secret::Variable("NAME".to_owned()))
        );
        assert_eq!((http.max_requests, http.on_error), (2, OnError::Next));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let listener = "[[listeners]]\nbind = '::1'\n";
        for (text, needle) in [
            (
                "[authentication]\nmethods = ['jwt']".to_owned(),
                "1:2: authentication.methods: \"jwt\" is among the methods",
            ),
            (
                format!("{ALL}{listener}authentication_methods = ['ldap']"),
                "expected a list of \"password_file\", \"jwt\", \"http\"",
            ),
            (
                format!("{ALL}{listener}authentication_methods = ['jwt', 'jwt']"),
                "each once",
            ),
            (
                format!("{ALL}{listener}authentication_methods = ['jwt']\npassword_file = 'p'"),
                "has no use here",
            ),
            (
                "[[authentication.jwt]]\nalgorithm = 'none'\nkeyfile = 'k'".to_owned(),
                "\"HS256\", \"RS256\" or \"ES256\"",
            ),
            (
                "[[authentication.jwt]]\nalgorithm = 'RS256'".to_owned(),
                "authentication.jwt[0].keyfile: missing",
            ),
            (
                "[authentication.http]\nurl = 'ftp://x'".to_owned(),
                "expected a URL",
            ),
            (
                "[authentication.http]\nurl = 'http://x'\nauthorization = 'Bearer x'".to_owned(),
                "never the header itself",
            ),
            (
                "[authentication.http]\ncafile = 'x'".to_owned(),
                "authentication.http.url: missing",
            ),
            (
                "[authentication.http]\nurl = 'http://x'\non_error = 'allow'".to_owned(),
                "\"deny\" or \"next\"",
            ),
            (
                "[authentication]\nmax_failed_login = 1".to_owned(),
                "did you mean authentication.max_failed_logins?",
            ),
        ] {
            let problems = parse(&text).expect_err(&text);
            assert!(
                problems.iter().any(|it| it.contains(needle)),
                "{text}: {problems:?}"
            );
        }
    }
}
