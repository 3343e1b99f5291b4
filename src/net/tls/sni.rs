//! Selects a listener's certificate by server name (SNI), and matches names in certificates.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use crate::broker::CertificateName;

/// Selects the certificate for the name that the client asks for.
#[derive(Debug)]
pub(super) struct SniResolver(pub Vec<(Certificate, Arc<CertifiedKey>)>);

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let by_name = hello
            .server_name()
            .and_then(|name| self.0.iter().find(|(shown, _)| fits(shown, name)));
        let (_, key) = by_name.or(self.0.first())?;
        Some(Arc::clone(key))
    }
}

/// Returns whether a certificate is for this host. `*` stands for the first label.
fn fits(certificate: &Certificate, host: &str) -> bool {
    certificate.names.alternatives.iter().any(|name| {
        let CertificateName::Dns(name) = name else {
            return false;
        };
        fits_name(name, host)
    })
}

/// Returns whether a name in a certificate matches this host.
pub(super) fn fits_name(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        None => name.eq_ignore_ascii_case(host),
        Some(domain) => host
            .split_once('.')
            .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_exactly_or_by_its_first_label() {
        let names = |dns: &str| {
            let mut certificate = Certificate::default();
            certificate.names.alternatives = vec![CertificateName::Dns(dns.into())];
            certificate
        };
        assert!(fits(&names("a.example"), "A.example"));
        assert!(fits(&names("*.example"), "a.example"));
        assert!(!fits(&names("*.example"), "a.b.example"));
        assert!(!fits(&names("*.example"), "example"));
        assert!(!fits(&names("a.example"), "b.example"));
    }
}
