//! Cipher suites by their names in OpenSSL and Mosquitto.

use rustls::CipherSuite;

/// Cipher suites of one TLS version, with their names.
pub type Ciphers = [(&'static str, CipherSuite)];

/// The suites of TLS 1.2 that are supported: those with forward secrecy and authenticated
/// encryption.
pub const TLS12: &Ciphers = &[
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// The suites of TLS 1.3.
pub const TLS13: &Ciphers = &[
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
];

/// Returns the suite with this name.
pub fn find(ciphers: &Ciphers, name: &str) -> Option<CipherSuite> {
    let found = ciphers.iter().find(|(known, _)| *known == name);
    found.map(|(_, suite)| *suite)
}

/// Returns all names, for messages.
pub fn names(ciphers: &Ciphers) -> String {
    let names: Vec<&str> = ciphers.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::provider;

    #[test]
    fn every_suite_there_is_has_a_name_and_every_name_a_suite() {
        let provider = provider();
        let has_name = |suite| {
            let mut all = TLS12.iter().chain(TLS13);
            all.any(|(_, named)| *named == suite)
        };
        let suites = &provider.cipher_suites;
        assert!(suites.iter().all(|suite| has_name(suite.suite())));
        assert_eq!(suites.len(), TLS12.len() + TLS13.len());
    }
}
