//! TLS as it is configured for a listener.

use std::path::PathBuf;

use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

/// How a listener does TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The server's certificates; never empty. The one whose DNS names fit what a client asks for (SNI) is shown, otherwise the first.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients show certificates.
    pub clients: ClientCertificates,
    /// Certificates of the authorities that sign client certificates; there unless `clients` is `None`.
    pub cafile: Option<PathBuf>,
    /// Revocation lists of these authorities.
    pub crlfile: Option<PathBuf>,
    /// What happens to clients that show a certificate when a list is past its next update.
    pub crl_expired: CrlExpired,
    /// Clients with certificates of X.509 version 1 that an authority has signed itself are taken.
    pub allow_x509_v1: bool,
    /// The oldest version spoken.
    pub minimum: TlsVersion,
    /// The cipher suites of TLS 1.2; `None` for all there are.
    pub ciphers: Option<Vec<CipherSuite>>,
    /// The cipher suites of TLS 1.3; `None` for all there are.
    pub ciphers_tls13: Option<Vec<CipherSuite>>,
    /// Bytes of a record that is sent, its header of 5 bytes included: 32 to 16,389; `None` for as many as TLS allows. For small devices whose buffers
    /// hold less.
    pub max_fragment_size: Option<usize>,
    /// What runs inside, for ALPN, best first; a client that asks for something else only is refused, one that does not ask is not.
    pub alpn: &'static [&'static str],
}

/// A certificate and its key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate first, then those that lead to the authority.
    pub certfile: PathBuf,
    /// The key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub keyfile: PathBuf,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    None,
    /// They are asked; one that is shown must be good.
    Optional,
    /// They must.
    Required,
}

/// What happens to clients that show a certificate when a revocation list is past its next update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrlExpired {
    /// They are refused: nobody knows what has been revoked since.
    #[default]
    Refuse,
    /// The list goes on counting as it is.
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
    /// Whether it leaves this cipher suite in.
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
    /// This version and those after it.
    pub fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            TlsVersion::Tls12 => &ALL,
            TlsVersion::Tls13 => &ALL[..1],
        }
    }
}
