//! Authentication: what the table says for all listeners, and how a listener's own keys change it.

use std::path::PathBuf;
use std::time::Duration;

use super::listener::{path, texts};
use super::tree::{Section, Value};
use crate::net::auth::{Method, ThrottleSettings};

/// What `[authentication]` says.
#[derive(Debug, Default)]
pub(super) struct Authentication {
    /// Whether anonymous clients may connect to listeners that do not say it themselves.
    pub allow_anonymous: Option<bool>,
    /// How many logins may fail.
    pub throttle: ThrottleSettings,
    password_file: Option<PathBuf>,
    order: Option<Vec<Kind>>,
}

/// A method by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    PasswordFile,
}

impl Kind {
    /// In the order in which they are asked if none is written.
    const ALL: [(Kind, &'static str); 1] = [(Kind::PasswordFile, "password_file")];
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
        };
        let Some(order) = own_order.or_else(|| self.order.clone()) else {
            let all = Kind::ALL.into_iter();
            return Ok(all.filter_map(|(kind, _)| method(kind)).collect());
        };
        let missing = |kind| {
            let name = name_of(kind);
            format!(
                "{name:?} is among the methods, but nothing is said about it; expected {name} in [authentication]"
            )
        };
        let order = order.into_iter();
        order
            .map(|kind| method(kind).ok_or_else(|| missing(kind)))
            .collect()
    }
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
