//! Verifies the certificates of peers: with rustls, and with the exceptions that the settings
//! allow.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::certificate::Certificate;
use super::pin::{NotPinned, Pin};
use super::sni::fits_name;
use super::v1::{self, V1};

/// Verifies servers.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub provider: Arc<CryptoProvider>,
    /// The trusted authorities, and the verifier for them. `None` to accept any certificate.
    pub authorities: Option<(Arc<RootCertStore>, Arc<WebPkiServerVerifier>)>,
    /// The server's name is not checked.
    pub insecure_name: bool,
    /// If there are any, the chain to an authority must have one of these keys.
    pub pins: Vec<Pin>,
    /// Verifies certificates of version 1, if they are allowed.
    pub v1: Option<V1>,
}

impl ServerVerifier {
    /// Verifies a chain with these authorities, and the name if it is to be checked.
    fn verify_chain(
        &self,
        roots: &Arc<RootCertStore>,
        webpki: &WebPkiServerVerifier,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if !self.insecure_name {
            let verified = webpki.verify_server_cert(server, intermediates, name, &[], now);
            return verified
                .map(|_| ())
                .map_err(|error| explain(error, server, name));
        }
        let parsed = ParsedCertificate::try_from(server)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
    }

    /// Returns whether an intermediate has a pinned key and the server's certificate is signed
    /// through it. A server can also send intermediates that do not belong to its certificate.
    fn has_pinned_issuer(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> bool {
        let mut anchors = RootCertStore::empty();
        for certificate in intermediates {
            if Pin::of(certificate).is_some_and(|pin| self.pins.contains(&pin)) {
                let _ = anchors.add(certificate.clone());
            }
        }
        if anchors.is_empty() {
            return false;
        }
        let (anchors, provider) = (Arc::new(anchors), Arc::clone(&self.provider));
        let only =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&anchors), provider).build();
        only.is_ok_and(|only| {
            let verified = self.verify_chain(&anchors, &only, server, intermediates, name, now);
            verified.is_ok()
        })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some((roots, webpki)) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        match self.v1.as_ref().filter(|_| v1::is_v1(server)) {
            Some(v1) => {
                v1.verify(server, now)?;
                if !self.insecure_name && !is_common_name(server, name) {
                    return Err(explain(
                        CertificateError::NotValidForName.into(),
                        server,
                        name,
                    ));
                }
            }
            None => self.verify_chain(roots, webpki, server, intermediates, name, now)?,
        }
        let is_pinned = |pin: Pin| self.pins.contains(&pin);
        if self.pins.is_empty()
            || Pin::of(server).is_some_and(is_pinned)
            || self.has_pinned_issuer(server, intermediates, name, now)
        {
            return Ok(ServerCertVerified::assertion());
        }
        let all = [server].into_iter().chain(intermediates);
        let error = NotPinned(all.filter_map(Pin::of).collect());
        Err(Error::Other(OtherError(Arc::new(error))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.v1.is_some() && v1::is_v1(certificate) {
            return v1::verify_tls12(message, certificate, signed, &self.provider);
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.v1.is_some() && v1::is_v1(certificate) {
            return v1::verify_tls13(message, certificate, signed, &self.provider);
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Returns whether the common name of a certificate is the server's name. Version 1 has no other.
fn is_common_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let host = name.to_str();
    let parsed = Certificate::parse(certificate);
    let common_name = parsed.and_then(|it| it.names.common_name);
    common_name.is_some_and(|common| fits_name(&common, &host))
}

/// The certificate does not name the server.
#[derive(Debug, thiserror::Error)]
#[error(
    "the certificate does not name {server:?}: {has}; set server_name, or insecure_server_name = true to take it from any server with a certificate of its \
     authorities"
)]
struct NameMismatch {
    server: String,
    has: String,
}

/// If a certificate has no subjectAltName, adds its common name to the error. For others, rustls
/// says which names they have.
fn explain(error: Error, certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Error {
    let has_names = match &error {
        Error::InvalidCertificate(CertificateError::NotValidForName) => false,
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented, ..
        }) => !presented.is_empty(),
        _ => true,
    };
    let parsed = Certificate::parse(certificate).filter(|_| !has_names);
    let Some(common_name) = parsed.map(|it| it.names.common_name) else {
        return error;
    };
    let has = common_name.map_or_else(
        || "it has no subjectAltName".to_owned(),
        |name| format!("it has no subjectAltName, only the common name {name:?}"),
    );
    let server = name.to_str().into_owned();
    Error::Other(OtherError(Arc::new(NameMismatch { server, has })))
}

/// Verifies clients, also those with certificates of version 1.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub webpki: Arc<dyn ClientCertVerifier>,
    pub provider: Arc<CryptoProvider>,
    pub v1: V1,
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.webpki.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        client: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if v1::is_v1(client) {
            self.v1.verify(client, now)?;
            return Ok(ClientCertVerified::assertion());
        }
        self.webpki.verify_client_cert(client, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match v1::is_v1(certificate) {
            true => v1::verify_tls12(message, certificate, signed, &self.provider),
            false => (self.webpki).verify_tls12_signature(message, certificate, signed),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match v1::is_v1(certificate) {
            true => v1::verify_tls13(message, certificate, signed, &self.provider),
            false => (self.webpki).verify_tls13_signature(message, certificate, signed),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
