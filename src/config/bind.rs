//! Keys whose values are addresses to listen on or to dial.

use super::text::texts;
use super::tree::Value;
use super::value::Bind;

pub(super) const BIND_EXPECTED: &str =
    "an address and a port such as \"127.0.0.1:1883\", \"[::1]:1883\" or \"gateway.local:1883\"";

/// Addresses; without a port they are good if there is a default.
pub(super) fn binds(value: &Value, default_port: Option<u16>) -> Option<Vec<Bind>> {
    let binds: Option<Vec<Bind>> = texts(value)?
        .into_iter()
        .map(|text| match default_port {
            Some(port) => Bind::with_default(text, port),
            None => text.parse().ok(),
        })
        .collect();
    binds.filter(|binds| !binds.is_empty())
}
