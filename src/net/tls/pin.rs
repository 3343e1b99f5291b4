//! Pinned keys. A certificate in the chain from the server to an authority must have a pinned key,
//! in addition to all other checks.
//!
//! A pin is the SHA-256 of a certificate's SubjectPublicKeyInfo, as in RFC 7469.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;

use super::certificate::Certificate;

/// The SHA-256 of a public key with its algorithm, written as `sha256/BASE64`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// Returns the pin of a certificate's key. `None` if the certificate cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Pin> {
        let key = Certificate::parse(certificate)?.public_key;
        digest(&SHA256, &key).as_ref().try_into().ok().map(Pin)
    }
}

impl FromStr for Pin {
    type Err = ();

    fn from_str(text: &str) -> Result<Pin, ()> {
        let encoded = text.strip_prefix("sha256/").ok_or(())?;
        let hash = STANDARD.decode(encoded).map_err(|_| ())?;
        hash.try_into().map(Pin).map_err(|_| ())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// No certificate has a pinned key.
#[derive(Debug, thiserror::Error)]
#[error("no key of the server's certificates is pinned; they have {}", listed(.0))]
pub(super) struct NotPinned(pub Vec<Pin>);

fn listed(pins: &[Pin]) -> String {
    let pins: Vec<String> = pins.iter().map(Pin::to_string).collect();
    pins.join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{SystemTime, UNIX_EPOCH};

    use rcgen::{
        BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData, SigningKey,
    };

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::net::tls::provider;
    use crate::net::tls::verify::ServerVerifier;

    fn authority(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params
    }

    /// A root, an intermediate and a leaf for `up.example`, and an unrelated authority.
    struct Chain {
        root: CertificateDer<'static>,
        middle: CertificateDer<'static>,
        leaf: CertificateDer<'static>,
        stranger: CertificateDer<'static>,
        leaf_key: Vec<u8>,
    }

    fn chain() -> Chain {
        let key = || KeyPair::generate().expect("a key");
        fn issuer<K: SigningKey>(params: CertificateParams, key: K) -> Issuer<'static, K> {
            Issuer::new(params, key)
        }
        let (root_key, middle_key, leaf_key, stranger_key) = (key(), key(), key(), key());
        let root = authority("root").self_signed(&root_key).expect("signed");
        let root_issuer = issuer(authority("root"), root_key);
        let middle = authority("middle").signed_by(&middle_key, &root_issuer);
        let middle_issuer = issuer(authority("middle"), middle_key);
        let params = CertificateParams::new(["up.example".to_owned()]).expect("a name");
        let leaf = params.signed_by(&leaf_key, &middle_issuer).expect("signed");
        let stranger = authority("stranger").self_signed(&stranger_key);
        Chain {
            root: root.der().clone(),
            middle: middle.expect("signed").der().clone(),
            leaf: leaf.der().clone(),
            stranger: stranger.expect("signed").der().clone(),
            leaf_key: leaf_key.subject_public_key_info(),
        }
    }

    fn verify(chain: &Chain, pins: Vec<Pin>) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(chain.root.clone()).expect("a good root");
        let (provider, roots) = (provider(), Arc::new(roots));
        let webpki =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let pinned = ServerVerifier {
            authorities: Some((roots, webpki.build().expect("roots"))),
            insecure_name: false,
            v1: None,
            provider,
            pins,
        };
        let sent = [chain.middle.clone(), chain.stranger.clone()];
        let name = ServerName::try_from("up.example").expect("a name");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later");
        let now = UnixTime::since_unix_epoch(now);
        let verified = pinned.verify_server_cert(&chain.leaf, &sent, &name, &[], now);
        verified.map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_on_the_way_to_an_authority_must_be_pinned() {
        let chain = chain();
        let pin = |certificate| Pin::of(certificate).expect("a certificate");
        assert_eq!(verify(&chain, vec![pin(&chain.leaf)]), Ok(()));
        assert_eq!(verify(&chain, vec![pin(&chain.middle)]), Ok(()));
        let two = vec![pin(&chain.stranger), pin(&chain.leaf)];
        assert_eq!(verify(&chain, two), Ok(()));
        // A certificate that is not in the chain proves nothing.
        let error = verify(&chain, vec![pin(&chain.stranger)]).expect_err("not on the way");
        assert!(error.contains(&pin(&chain.leaf).to_string()), "{error}");
        assert!(error.contains(&pin(&chain.middle).to_string()), "{error}");
    }

    #[test]
    fn a_pin_is_the_hash_of_the_key_and_reads_as_it_is_written() {
        let chain = chain();
        let pin = Pin::of(&chain.leaf).expect("a certificate");
        let hash = digest(&SHA256, &chain.leaf_key);
        assert_eq!(pin.0, hash.as_ref());
        assert_eq!(pin.to_string().parse(), Ok(pin));
        for bad in ["", "sha256/", "sha1/AAAA", "sha256/AAAA", "sha256/*"] {
            assert_eq!(bad.parse::<Pin>(), Err(()), "{bad}");
        }
    }
}
