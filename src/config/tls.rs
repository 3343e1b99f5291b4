//! The keys of a listener's TLS, and those that bridges have as well.

use rustls::CipherSuite;

use super::text::{path, texts};
use super::tree::Section;
use crate::net::listener::Protocol;
use crate::net::tls::cipher::{self, Ciphers};
use crate::net::tls::{CertificateFiles, ClientCertificates, CrlExpired, TlsSettings, TlsVersion};

/// The TLS of a listener, if its protocol has it.
pub(super) fn tls(s: &mut Section<'_, '_>, protocol: Protocol) -> Option<TlsSettings> {
    let first = (path(s, "certfile"), path(s, "keyfile"));
    let more = s.each("certificates", |mut pair| {
        let files = (path(&mut pair, "certfile"), path(&mut pair, "keyfile"));
        if files.0.is_none() || files.1.is_none() {
            pair.reject("certfile", "a certificate needs certfile and keyfile");
        }
        pair.close();
        let (Some(certfile), Some(keyfile)) = files else {
            return None;
        };
        Some(CertificateFiles { certfile, keyfile })
    });
    let cafile = path(s, "cafile");
    let crlfile = path(s, "crlfile");
    let crl_expired = s.optional("crl_expired", "\"refuse\" or \"accept\"", |value| {
        Some(match value.as_text()? {
            "refuse" => CrlExpired::Refuse,
            "accept" => CrlExpired::Accept,
            _ => return None,
        })
    });
    let crl_expired = crl_expired.ok().flatten();
    let allow_x509_v1 = s.flag("allow_x509_v1", false);
    let expected = "\"none\", \"optional\" or \"required\" (false and true mean none and required)";
    let clients = s.optional("require_certificate", expected, |value| {
        Some(match (value.as_text(), value.as_bool()) {
            (Some("none"), _) | (_, Some(false)) => ClientCertificates::None,
            (Some("optional"), _) => ClientCertificates::Optional,
            (Some("required"), _) | (_, Some(true)) => ClientCertificates::Required,
            _ => return None,
        })
    });
    let clients = clients.ok().flatten();
    let minimum = tls_version(s);
    let tls12 = ciphers(s, "ciphers", cipher::TLS12);
    let ciphers_tls13 = ciphers(s, "ciphers_tls13", cipher::TLS13);
    if tls12.is_some() && minimum == Some(TlsVersion::Tls13) {
        let what = "is for TLS 1.2, which tls_version leaves out; expected ciphers_tls13";
        s.reject("ciphers", what);
    }
    let max_fragment_size = s
        .optional("max_fragment_size", "bytes, from 32 to 16389", |value| {
            let bytes = value.as_u64().filter(|it| (32..=16_389).contains(it))?;
            usize::try_from(bytes).ok()
        })
        .ok()
        .flatten();
    let has_ciphers = tls12.is_some() || ciphers_tls13.is_some() || max_fragment_size.is_some();
    let alpn: &[&str] = match protocol {
        Protocol::Mqtts => &["mqtt"],
        // Some clients ask for mqtt here as well.
        Protocol::Wss => &["http/1.1", "mqtt"],
        Protocol::Mqtt | Protocol::Ws => {
            let files = [&first.0, &first.1, &cafile, &crlfile];
            let any = files.iter().any(|file| file.is_some()) || !more.is_empty();
            let any = any || allow_x509_v1;
            if any || crl_expired.is_some() || clients.is_some() || minimum.is_some() || has_ciphers
            {
                let what = "has no TLS, but there are keys for TLS; expected \"mqtts\" or \"wss\"";
                s.reject("protocol", format!("{protocol:?} {what}").to_lowercase());
            }
            return None;
        }
    };
    let certificates = match first {
        (Some(certfile), Some(keyfile)) => {
            let mut all = vec![CertificateFiles { certfile, keyfile }];
            all.extend(more);
            all
        }
        (None, None) if !more.is_empty() => more,
        _ => {
            s.reject(
                "certfile",
                "TLS needs a certificate and its key; expected certfile and keyfile, the paths of PEM files",
            );
            return None;
        }
    };
    let clients = clients.unwrap_or_default();
    if (clients == ClientCertificates::None) != cafile.is_none() {
        s.reject(
            "cafile",
            "a cafile, and require_certificate = \"required\" or \"optional\", need each other",
        );
    }
    if crl_expired.is_some() && crlfile.is_none() {
        s.reject("crl_expired", "has no use without a crlfile");
    }
    if allow_x509_v1 && clients == ClientCertificates::None {
        s.reject(
            "allow_x509_v1",
            "is for certificates of clients, which are not asked for; expected require_certificate",
        );
    }
    if crlfile.is_some() && cafile.is_none() {
        s.reject("crlfile", "a crlfile needs a cafile");
    }
    Some(TlsSettings {
        certificates,
        clients,
        cafile,
        crlfile,
        crl_expired: crl_expired.unwrap_or_default(),
        allow_x509_v1,
        minimum: minimum.unwrap_or_default(),
        ciphers: tls12,
        ciphers_tls13,
        max_fragment_size,
        alpn,
    })
}

/// Cipher suites: a list of names, or names with colons between them, as OpenSSL and Mosquitto
/// write them.
fn ciphers(
    s: &mut Section<'_, '_>,
    key: &'static str,
    known: &Ciphers,
) -> Option<Vec<CipherSuite>> {
    let expected = format!("one or several of {}", cipher::names(known));
    let read = s.optional(key, &expected, |value| {
        let texts = texts(value)?;
        let names = texts.iter().flat_map(|text| text.split(':'));
        names.map(|name| cipher::find(known, name.trim())).collect()
    });
    read.ok().flatten()
}

/// The oldest version of TLS, if it is there.
pub(super) fn tls_version(s: &mut Section<'_, '_>) -> Option<TlsVersion> {
    let expected = "\"tlsv1.2\" or \"tlsv1.3\"";
    let minimum = s.optional("tls_version", expected, |value| match value.as_text()? {
        "tlsv1.2" => Some(TlsVersion::Tls12),
        "tlsv1.3" => Some(TlsVersion::Tls13),
        _ => None,
    });
    minimum.ok().flatten()
}
