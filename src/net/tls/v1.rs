//! Verifies certificates of X.509 version 1, which rustls does not accept.
//!
//! Such certificates have no extensions, so nothing says what they are for. `openssl x509 -req`
//! makes them if it is given no extensions, and many device fleets have them. Where they are
//! allowed, this module checks that a trusted authority has signed them directly, their dates, and
//! the revocation lists. A certificate of version 1 is never an intermediate.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerMisbehaved};
use x509_parser::oid_registry::{
    OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Version};
use x509_parser::x509::AlgorithmIdentifier;

use super::certificate::{Certificate, algorithm_of};
use super::settings::CrlExpired;

/// Returns whether a certificate is of version 1.
pub(super) fn is_v1(certificate: &CertificateDer<'_>) -> bool {
    Certificate::parse(certificate).is_some_and(|it| it.is_v1)
}

/// What certificates of version 1 are verified with.
#[derive(Clone, Debug, Default)]
pub(super) struct V1 {
    /// The trusted authorities.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Their revocation lists. If there are any, each authority needs one.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
    pub crl_expired: CrlExpired,
}

impl V1 {
    /// Verifies a certificate: an authority has signed it, it is valid now, and it is not revoked.
    /// Its names are not checked.
    ///
    /// # Errors
    /// The error that rustls would return.
    pub fn verify(&self, der: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let bad = CertificateError::BadEncoding;
        let (rest, leaf) = X509Certificate::from_der(der).map_err(|_| bad.clone())?;
        if !rest.is_empty() || leaf.version() != X509Version::V1 {
            return Err(bad.into());
        }
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = leaf.validity();
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        if is_sha1(&leaf.signature_algorithm) {
            return Err(CertificateError::BadSignature.into());
        }
        let mut found = CertificateError::UnknownIssuer;
        for authority in &self.authorities {
            let Ok((_, authority)) = X509Certificate::from_der(authority) else {
                continue;
            };
            if authority.subject().as_raw() != leaf.issuer().as_raw() {
                continue;
            }
            match leaf.verify_signature(Some(authority.public_key())) {
                Ok(()) => return self.check_revoked(&leaf, &authority, now),
                Err(_) => found = CertificateError::BadSignature,
            }
        }
        Err(found.into())
    }

    fn check_revoked(
        &self,
        leaf: &X509Certificate<'_>,
        authority: &X509Certificate<'_>,
        now: i64,
    ) -> Result<(), Error> {
        if self.crls.is_empty() {
            return Ok(());
        }
        let lists = self.crls.iter().filter_map(|crl| {
            let (_, crl) = CertificateRevocationList::from_der(crl).ok()?;
            let is_its = crl.issuer().as_raw() == authority.subject().as_raw();
            let is_good = !is_sha1(&crl.signature_algorithm) && is_for_all(&crl);
            let is_signed =
                is_its && is_good && crl.verify_signature(authority.public_key()).is_ok();
            is_signed.then_some(crl)
        });
        let mut is_known = false;
        for crl in lists {
            let mut revoked = crl.iter_revoked_certificates();
            if revoked.any(|it| *it.serial() == leaf.serial) {
                return Err(CertificateError::Revoked.into());
            }
            let next = crl.next_update().map(|next| next.timestamp());
            if self.crl_expired == CrlExpired::Refuse && next.is_some_and(|next| next < now) {
                return Err(CertificateError::ExpiredRevocationList.into());
            }
            is_known = true;
        }
        match is_known {
            true => Ok(()),
            false => Err(CertificateError::UnknownRevocationStatus.into()),
        }
    }
}

/// Returns whether a signature uses SHA-1. Such a signature proves nothing.
fn is_sha1(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(algorithm.oid())
}

/// Returns whether a list covers all certificates of its authority. A partial list has an extension
/// that says so.
fn is_for_all(crl: &CertificateRevocationList<'_>) -> bool {
    let mut extensions = crl.extensions().iter();
    extensions.all(|it| it.oid != OID_X509_EXT_ISSUER_DISTRIBUTION_POINT)
}

/// Verifies that the peer has the key of a certificate of version 1, in TLS 1.2 \[RFC 5246 section
/// 7.4.8\].
///
/// # Errors
/// The peer does not have the key.
pub(super) fn verify_tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, Error> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let key = certificate.public_key();
    let algorithms = provider.signature_verification_algorithms.mapping;
    let of_scheme = algorithms
        .iter()
        .find(|(scheme, _)| *scheme == signed.scheme);
    let Some((_, of_scheme)) = of_scheme else {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    };
    let is_valid = of_scheme.iter().any(|algorithm| {
        let of_key = algorithm.public_key_alg_id();
        let is_its = algorithm_of(key.raw) == Some(of_key.as_ref());
        let key = &key.subject_public_key.data;
        is_its
            && algorithm
                .verify_signature(key, message, signed.signature())
                .is_ok()
    });
    match is_valid {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(CertificateError::BadSignature.into()),
    }
}

/// The same in TLS 1.3 \[RFC 8446 section 4.4.3\].
///
/// # Errors
/// The peer does not have the key.
pub(super) fn verify_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = Certificate::parse(certificate).ok_or(CertificateError::BadEncoding)?;
    let key = SubjectPublicKeyInfoDer::from(certificate.public_key);
    let algorithms = &provider.signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
}
