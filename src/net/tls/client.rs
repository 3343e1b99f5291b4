//! TLS towards a server: for the command line's clients and for bridges.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedCipherSuite,
};

use super::pin::{Pin, Pinned};
use super::{
    CertificateFiles, TlsError, TlsVersion, authorities, provider, read_certificates, read_key,
};

/// How to do TLS towards a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The authorities that are trusted; without this and `capath` those the system trusts.
    pub cafile: Option<PathBuf>,
    /// A directory whose files hold authorities that are trusted, too.
    pub capath: Option<PathBuf>,
    /// The cipher suites offered. A version of TLS of which none is named offers all it has; `None` offers all.
    pub ciphers: Option<Vec<CipherSuite>>,
    /// The certificate that is shown, if any.
    pub identity: Option<CertificateFiles>,
    /// It is not checked whose certificate the server shows.
    pub insecure: bool,
    /// Keys of which the server's certificates must have one, unless there are none here.
    pub pinned_keys: Vec<Pin>,
    /// The oldest version spoken.
    pub minimum: TlsVersion,
    /// What is asked for by ALPN.
    pub alpn: String,
}

impl ClientTls {
    /// Reads all files.
    ///
    /// # Errors
    /// The first file that is missing, cannot be read, or does not hold what it should.
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        let own = self.cafile.as_deref().or(self.capath.as_deref());
        let own = own.unwrap_or(Path::new("cafile"));
        let provider = self.provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.minimum.and_newer())
            .map_err(|error| TlsError::new(own, error))?;
        let builder = if self.insecure {
            let verifier = Arc::new(Anybody(provider));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        } else {
            let roots = Arc::new(self.roots()?);
            let usual = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|error| TlsError::new(own, error))?;
            if self.pinned_keys.is_empty() {
                builder.with_webpki_verifier(usual)
            } else {
                let verifier = Pinned {
                    usual,
                    provider,
                    pins: self.pinned_keys.clone(),
                };
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(CertificateFiles { certfile, keyfile }) => {
                let (chain, key) = (read_certificates(certfile)?, read_key(keyfile)?);
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| TlsError::new(keyfile, error))?
            }
        };
        config.alpn_protocols = vec![self.alpn.as_bytes().to_vec()];
        Ok(config)
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        let all = provider();
        let Some(chosen) = &self.ciphers else {
            return all;
        };
        let is_named = |suite: &SupportedCipherSuite| chosen.contains(&suite.suite());
        let mut provider = CryptoProvider::clone(&all);
        provider.cipher_suites.retain(|suite| {
            let version = suite.version();
            let mut of_version = all
                .cipher_suites
                .iter()
                .filter(|it| it.version() == version);
            is_named(suite) || !of_version.any(is_named)
        });
        Arc::new(provider)
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let Some(directory) = &self.capath else {
            return authorities(self.cafile.as_deref());
        };
        let mut roots = match &self.cafile {
            Some(file) => authorities(Some(file))?,
            None => RootCertStore::empty(),
        };
        let entries = std::fs::read_dir(directory).map_err(|e| TlsError::new(directory, e))?;
        for entry in entries {
            let path = entry.map_err(|e| TlsError::new(directory, e))?.path();
            // Such a directory may hold keys, lists and notes beside the authorities.
            if path.is_file()
                && let Ok(certificates) = read_certificates(&path)
            {
                roots.add_parsable_certificates(certificates);
            }
        }
        match roots.is_empty() {
            true => Err(TlsError::new(
                directory,
                "there is no certificate of an authority in this directory; expected PEM files",
            )),
            false => Ok(roots),
        }
    }
}

/// Takes any certificate; only that the server has its key is checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
