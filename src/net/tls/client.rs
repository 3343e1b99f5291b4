//! TLS for the client side: bridges, and the clients of the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::sign::SingleCertAndKey;
use rustls::{CipherSuite, ClientConfig, RootCertStore, SupportedCipherSuite};

use super::pin::Pin;
use super::v1::V1;
use super::verify::ServerVerifier;
use super::{
    CertificateFiles, TlsError, TlsVersion, authorities, authority_file, provider,
    read_certificates, read_pair,
};

/// TLS settings of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The trusted authorities. Without this and `capath`, those the system trusts.
    pub cafile: Option<PathBuf>,
    /// A directory of files with further trusted authorities.
    pub capath: Option<PathBuf>,
    /// The cipher suites offered. If none of a TLS version is listed, all of that version are
    /// offered. `None` offers all.
    pub ciphers: Option<Vec<CipherSuite>>,
    /// The client's certificate.
    pub identity: Option<CertificateFiles>,
    /// The server's certificate is not checked at all.
    pub insecure: bool,
    /// The server's name is not checked. The certificate must still be signed by an authority.
    pub insecure_server_name: bool,
    /// A server certificate of X.509 version 1 is accepted if a trusted authority has signed it
    /// directly. Its common name counts.
    pub allow_x509_v1: bool,
    /// Pinned keys. If there are any, one must occur in the server's chain.
    pub pinned_keys: Vec<Pin>,
    /// The oldest TLS version.
    pub minimum: TlsVersion,
    /// The protocol for ALPN.
    pub alpn: String,
}

impl ClientTls {
    /// Reads all files.
    ///
    /// # Errors
    /// The first file that is missing, unreadable or malformed.
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        let own = self.cafile.as_deref().or(self.capath.as_deref());
        let own = own.unwrap_or(Path::new("cafile"));
        let provider = self.provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.minimum.and_newer())
            .map_err(|error| TlsError::new(own, error))?;
        let authorities = match self.insecure {
            true => None,
            false => {
                let roots = Arc::new(self.roots()?);
                let webpki = WebPkiServerVerifier::builder_with_provider(
                    Arc::clone(&roots),
                    Arc::clone(&provider),
                );
                let webpki = webpki.build().map_err(|error| TlsError::new(own, error))?;
                Some((roots, webpki))
            }
        };
        let v1 = self.allow_x509_v1.then(|| self.v1()).transpose()?;
        let verifier = ServerVerifier {
            provider,
            authorities,
            insecure_name: self.insecure_server_name,
            pins: self.pinned_keys.clone(),
            v1,
        };
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let (_, key) = read_pair(files, &self.provider())?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
        };
        config.alpn_protocols = vec![self.alpn.as_bytes().to_vec()];
        Ok(config)
    }

    /// The verifier for certificates of version 1, with the authorities of [`ClientTls::roots`].
    fn v1(&self) -> Result<V1, TlsError> {
        let file = authority_file(self.cafile.as_deref())?;
        Ok(V1 {
            authorities: read_certificates(file)?,
            ..V1::default()
        })
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
            // The directory may also hold keys, revocation lists and other files.
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
