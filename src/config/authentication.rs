//! Authentication: what the table says for all listeners, and how a listener's own keys change it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;

use super::listener::{path, text, texts};
use super::tree::{Section, Value};
use crate::net::auth::http::{HttpSettings, OnError, Secret};
use crate::net::auth::jwt::{JwtAlgorithm, JwtSettings};
use crate::net::auth::{Method, ThrottleSettings};

const HOUR: Duration = Duration::from_secs(3600);

/// What `[authentication]` says.
#[derive(Debug, Default)]
pub(super) struct Authentication {
    /// Whether anonymous clients may connect to listeners that do not say it themselves.
    pub allow_anonymous: Option<bool>,
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
        throttle: ThrottleSettings {
            max_failed_logins: s.number("max_failed_logins", d.max_failed_logins, 0..=1_000_000),
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
        key.close();
        Some(JwtSettings {
            algorithm: algorithm?,
            keyfile: keyfile?,
            kid,
            issuer,
            audience,
            username_claim: username_claim.unwrap_or_else(|| "sub".to_owned()),
            leeway,
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
    let file = path(&mut s, "authorization_file").map(Secret::File);
    let variable = text(
        &mut s,
        "authorization_variable",
        "the name of an environment variable",
    );
    let variable = variable.map(Secret::Variable);
    if file.is_some() && variable.is_some() {
        s.reject(
            "authorization_file",
            "there is an authorization_variable as well, expected one of them",
        );
    }
    let authorization = file.or(variable);
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
