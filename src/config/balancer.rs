//! What a load balancer in front of a listener has to say.

use super::tree::Section;
use crate::net::proxy_protocol::Required;

/// What headers of the PROXY protocol must say, if there are any.
pub(super) fn proxy_requirement(s: &mut Section<'_, '_>, proxied: bool) -> Required {
    let expected =
        "\"tls\", or \"certificate\" for TLS with a certificate that the balancer has verified";
    let read = s.optional("proxy_protocol_require", expected, |value| {
        match value.as_text()? {
            "tls" => Some(Required::Tls),
            "certificate" => Some(Required::Certificate),
            _ => None,
        }
    });
    let required = read.ok().flatten();
    if required.is_some() && !proxied {
        s.reject(
            "proxy_protocol_require",
            "has no use without proxy_protocol_from",
        );
    }
    required.unwrap_or_default()
}
