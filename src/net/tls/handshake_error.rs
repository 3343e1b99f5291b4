//! Error texts for failed TLS handshakes: what the peer offers, by its standard names, and what it
//! needs.

use std::fmt::Debug;
use std::io;

use rustls::server::ClientHello;
use rustls::{CipherSuite, Error, NamedGroup, PeerIncompatible, SignatureScheme};

/// Names in one list of an error text, at most.
const MAX_LISTED: usize = 16;
/// A record with the alert protocol_version (RFC 5246 section 7.2.2), for a client that knows at
/// most TLS 1.1.
pub const ALERT_VERSION: [u8; 7] = [0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 70];

/// Adds a hint to an error of a handshake, if there is one for it.
pub fn with_hint(error: io::Error) -> io::Error {
    const HINTS: [(&str, &str); 3] = [
        (
            "UnknownIssuer",
            "no authority in cafile (without one, of the system) has issued the peer's certificate; write the certificate of the one that has into cafile",
        ),
        (
            "UnsupportedCertVersion",
            "the peer's certificate is of X.509 version 1, which is not taken without allow_x509_v1 = true; to make one of version 3, sign its request again with \
             extensions: openssl x509 -req ... -extfile FILE, with a line such as subjectAltName=DNS:the.host.name in FILE",
        ),
        (
            "SignatureAlgorithmsExtensionRequired",
            "the peer speaks TLS 1.1 or older; it needs TLS 1.2 or 1.3",
        ),
    ];
    let text = error.to_string();
    let hint = HINTS.iter().find(|(name, _)| text.contains(name));
    match hint {
        Some((_, hint)) => io::Error::new(error.kind(), format!("{text}: {hint}")),
        None => error,
    }
}

/// Returns the error text for a ClientHello of an old TLS version. `first` are its first bytes.
pub fn old_version_error(first: &[u8]) -> Option<&'static str> {
    match first {
        // A handshake record with a ClientHello, and the newest version that the client knows.
        [0x16, 0x03, _, _, _, 0x01, _, _, _, 0x03, minor, ..] => match minor {
            0 => Some("the client speaks SSL 3.0 at most; it needs TLS 1.2 or 1.3"),
            1 => Some("the client speaks TLS 1.0 at most; it needs TLS 1.2 or 1.3"),
            2 => Some("the client speaks TLS 1.1 at most; it needs TLS 1.2 or 1.3"),
            _ => None,
        },
        _ => None,
    }
}

/// What a client offers.
#[derive(Clone, Debug)]
pub struct Offered {
    suites: Vec<CipherSuite>,
    groups: Vec<NamedGroup>,
    schemes: Vec<SignatureScheme>,
}

impl Offered {
    /// Reads what a ClientHello offers.
    pub fn from_hello(hello: &ClientHello<'_>) -> Offered {
        Offered {
            suites: hello.cipher_suites().to_vec(),
            groups: hello.named_groups().unwrap_or_default().to_vec(),
            schemes: hello.signature_schemes().to_vec(),
        }
    }

    /// Explains an error of the handshake. If nothing that the client offers is supported, says
    /// what it offers and what it needs.
    pub fn explain(&self, error: io::Error) -> io::Error {
        let inner = error.get_ref().and_then(|it| it.downcast_ref::<Error>());
        let Some(Error::PeerIncompatible(why)) = inner else {
            return with_hint(error);
        };
        let text = match why {
            PeerIncompatible::NoCipherSuitesInCommon
            | PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::NamedGroupsExtensionRequired
            | PeerIncompatible::NoSignatureSchemesInCommon => format!(
                "nothing in common: the client offers the cipher suites {}; the key exchanges {}; the signatures {}. It needs ECDHE (X25519, secp256r1 or \
                 secp384r1) with AES-GCM or ChaCha20-Poly1305, as far as `ciphers` and `ciphers_tls13` leave them, and signatures for the kind of key in certfile \
                 with SHA-256 or better; there is no RSA key exchange, DHE, CBC or PSK",
                listed(&self.suites, &OLD_SUITES),
                listed(&self.groups, &[]),
                listed(&self.schemes, &[])
            ),
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired => {
                let newest = match self.suites.iter().any(|it| u16::from(*it) >> 8 == 0x13) {
                    true => "1.3",
                    false => "1.2",
                };
                format!(
                    "no version of TLS in common: the client speaks TLS {newest} at most; see tls_version"
                )
            }
            other => format!("the client does not do what is needed: {other:?}"),
        };
        io::Error::new(error.kind(), text)
    }
}

/// Cipher suites of old and small devices that rustls does not know, with their IANA names.
const OLD_SUITES: [(u16, &str); 26] = [
    (0x0005, "TLS_RSA_WITH_RC4_128_SHA"),
    (0x000a, "TLS_RSA_WITH_3DES_EDE_CBC_SHA"),
    (0x002f, "TLS_RSA_WITH_AES_128_CBC_SHA"),
    (0x0033, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA"),
    (0x0035, "TLS_RSA_WITH_AES_256_CBC_SHA"),
    (0x0039, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA"),
    (0x003c, "TLS_RSA_WITH_AES_128_CBC_SHA256"),
    (0x003d, "TLS_RSA_WITH_AES_256_CBC_SHA256"),
    (0x0067, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256"),
    (0x006b, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256"),
    (0x008c, "TLS_PSK_WITH_AES_128_CBC_SHA"),
    (0x008d, "TLS_PSK_WITH_AES_256_CBC_SHA"),
    (0x009c, "TLS_RSA_WITH_AES_128_GCM_SHA256"),
    (0x009d, "TLS_RSA_WITH_AES_256_GCM_SHA384"),
    (0x009e, "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"),
    (0x009f, "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"),
    (0x00a8, "TLS_PSK_WITH_AES_128_GCM_SHA256"),
    (0x00ae, "TLS_PSK_WITH_AES_128_CBC_SHA256"),
    (0xc009, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"),
    (0xc00a, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"),
    (0xc013, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"),
    (0xc014, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"),
    (0xc023, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"),
    (0xc027, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"),
    (0xc0a8, "TLS_PSK_WITH_AES_128_CCM_8"),
    (0xc0ae, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8"),
];

/// Returns a list of names. `more` has names of further numbers. Others are written as numbers.
fn listed<T: Debug + Copy + Into<u16>>(all: &[T], more: &[(u16, &str)]) -> String {
    let names = all.iter().take(MAX_LISTED).map(|one| {
        let (name, number) = (format!("{one:?}"), (*one).into());
        let known = more.iter().find(|(known, _)| *known == number);
        match (name.contains('('), known) {
            (false, _) => name,
            (true, Some((_, name))) => (*name).to_owned(),
            (true, None) => format!("{number:#06x}"),
        }
    });
    let mut names: Vec<String> = names.collect();
    match all.len().saturating_sub(MAX_LISTED) {
        0 if names.is_empty() => names.push("none".to_owned()),
        0 => {}
        more => names.push(format!("and {more} more")),
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(why: PeerIncompatible, offered: &Offered) -> String {
        let error = Error::PeerIncompatible(why);
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        offered.explain(error).to_string()
    }

    #[test]
    fn what_a_client_offers_is_told_by_name() {
        let offered = Offered {
            suites: vec![CipherSuite::from(0x002f), CipherSuite::from(0xFAFA)],
            groups: vec![NamedGroup::FFDHE2048],
            schemes: Vec::new(),
        };
        let text = said(PeerIncompatible::NoCipherSuitesInCommon, &offered);
        let offers = "TLS_RSA_WITH_AES_128_CBC_SHA, 0xfafa; the key exchanges FFDHE2048; the signatures none.";
        assert!(text.contains(offers), "{text}");
        let why = PeerIncompatible::SupportedVersionsExtensionRequired;
        let text = said(why, &offered);
        assert!(text.contains("TLS 1.2 at most"), "{text}");
        let many = vec![CipherSuite::from(0x002f); 40];
        assert!(listed(&many, &[]).ends_with("and 24 more"));
    }

    #[test]
    fn old_versions_are_told_by_the_first_bytes() {
        let hello = |minor: u8| [0x16, 3, 1, 0, 80, 1, 0, 0, 76, 3, minor];
        assert!(old_version_error(&hello(2)).is_some_and(|it| it.contains("TLS 1.1")));
        assert!(old_version_error(&hello(1)).is_some_and(|it| it.contains("TLS 1.0")));
        assert_eq!(old_version_error(&hello(3)), None);
        assert_eq!(old_version_error(&hello(2)[..10]), None);
        assert_eq!(old_version_error(b"\x10\x0c\0\x04MQTT\x04\x02\0"), None);
    }
}
