//! The TLS settings of a listener.

use std::path::PathBuf;

use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

/// The TLS settings of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The server's certificates. Never empty. A client gets the one with the DNS name it asks for
    /// (SNI), otherwise the first.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients need certificates.
    pub clients: ClientCertificates,
    /// The authorities for client certificates. There unless `clients` is `None`.
    pub cafile: Option<PathBuf>,
    /// Revocation lists of these authorities.
    pub crlfile: Option<PathBuf>,
    /// What happens to clients with a certificate when a list is past its nextUpdate.
    pub crl_expired: CrlExpired,
    /// Client certificates of X.509 version 1 are accepted if an authority has signed them
    /// directly.
    pub allow_x509_v1: bool,
    /// The oldest TLS version.
    pub minimum: TlsVersion,
    /// The cipher suites of TLS 1.2. `None` for all.
    pub ciphers: Option<Vec<CipherSuite>>,
    /// The cipher suites of TLS 1.3. `None` for all.
    pub ciphers_tls13: Option<Vec<CipherSuite>>,
    /// Bytes of a sent record with its header of 5 bytes: 32 to 16,389. `None` for the maximum of
    /// TLS. For small devices with small buffers.
    pub max_fragment_size: Option<usize>,
    /// The protocols for ALPN, best first. A client that offers only others is refused. A client
    /// without ALPN is not.
    pub alpn: &'static [&'static str],
}

/// A certificate and its key in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate first, then its intermediates.
    pub certfile: PathBuf,
    /// The key in PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub keyfile: PathBuf,
}

/// Whether clients need certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked for one.
    #[default]
    None,
    /// They are asked for one. If they have one, it must be valid.
    Optional,
    /// They need one.
    Required,
}

/// What happens to clients with a certificate when a revocation list is past its nextUpdate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrlExpired {
    /// They are refused: newer revocations are not known.
    #[default]
    Refuse,
    /// The list is used as it is.
    Accept,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsSettings {
    /// Returns whether the cipher suite is enabled.
    pub(super) fn allows(&self, suite: &SupportedCipherSuite) -> bool {
        let chosen = match suite {
            SupportedCipherSuite::Tls12(_) => &self.ciphers,
            SupportedCipherSuite::Tls13(_) => &self.ciphers_tls13,
        };
        let is_chosen = |chosen: &Vec<CipherSuite>| chosen.contains(&suite.suite());
        chosen.as_ref().is_none_or(is_chosen)
    }
}

impl TlsVersion {
    /// Returns this version and all newer ones.
    pub fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            TlsVersion::Tls12 => &ALL,
            TlsVersion::Tls13 => &ALL[..1],
        }
    }
}
