//! TLS towards a server: for the command line's clients and for bridges.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::pin::{Pin, Pinned};
use super::{
    CertificateFiles, TlsError, TlsVersion, authorities, provider, read_certificates, read_key,
};

/// How to do TLS towards a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// The authorities that are trusted; `None` for those the system trusts.
    pub cafile: Option<PathBuf>,
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
        let own = self.cafile.as_deref().unwrap_or(Path::new("cafile"));
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.minimum.and_newer())
            .map_err(|error| TlsError::new(own, error))?;
        let builder = if self.insecure {
            let verifier = Arc::new(Anybody(provider));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        } else {
            let roots = Arc::new(authorities(self.cafile.as_deref())?);
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
