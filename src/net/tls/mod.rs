//! TLS of a listener. Certificates, keys, authorities and revocation lists are files. They are read
//! again when they change.
//!
//! Open connections keep what they were opened with. After a reload no older session can be
//! resumed, so each client is verified with the new authorities and revocation lists.

pub mod certificate;
pub mod cipher;
pub mod client;
mod file;
mod handshake_error;
pub mod pin;
mod settings;
mod sni;
mod v1;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

pub use file::{TlsError, read_certificates, read_key};
pub use handshake_error::{ALERT_VERSION, Offered, old_version_error, with_hint};
pub use settings::{CertificateFiles, ClientCertificates, CrlExpired, TlsSettings, TlsVersion};

use certificate::Certificate;
use sni::SniResolver;
use v1::V1;
use verify::ClientVerifier;

/// A certificate that expires in fewer seconds than this causes a warning.
pub const EXPIRY_WARNING: i64 = 30 * 86_400;

/// The TLS of a listener, with what was read of its files.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    loaded: Loaded,
    /// The files at the last read, whether it succeeded or not.
    read: Vec<FileState>,
    /// The files at the last check.
    seen: Vec<FileState>,
}

#[derive(Clone, Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// The last valid second of each certificate.
    expiries: Vec<(PathBuf, i64)>,
    /// The earliest nextUpdate of the revocation lists.
    next_update: Option<i64>,
}

/// The TLS of all listeners in force.
#[derive(Debug, Default)]
pub struct TlsListeners(Mutex<Vec<(String, Arc<Tls>)>>);

impl TlsListeners {
    /// Replaces all: the name of each listener, with its TLS.
    pub fn set(&self, all: Vec<(String, Arc<Tls>)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// Returns all.
    pub fn all(&self) -> Vec<(String, Arc<Tls>)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Distinguishes versions of a file. `None` if there is no file.
type FileState = Option<[i64; 4]>;

/// Where systems keep the authorities they trust.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Returns the provider of all cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Tls {
    /// Reads all files. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// The first file that is missing, unreadable, malformed, or does not fit the others. A
    /// certificate that has expired is no error: the broker works, and so do clients that do not
    /// check it.
    pub fn load(settings: TlsSettings, now: i64) -> Result<Tls, TlsError> {
        let read = file_states(&settings);
        let loaded = load(&settings, now)?;
        let state = Mutex::new(State {
            loaded,
            seen: read.clone(),
            read,
        });
        Ok(Tls { settings, state })
    }

    /// Returns the configuration for the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state().loaded.config)
    }

    /// Reads all files again. Applies to later handshakes.
    ///
    /// # Errors
    /// As [`Tls::load`]. Nothing changes then.
    pub fn reload(&self, now: i64) -> Result<(), TlsError> {
        let file_states = file_states(&self.settings);
        let loaded = load(&self.settings, now);
        let mut state = self.state();
        state.read.clone_from(&file_states);
        state.seen = file_states;
        state.loaded = loaded?;
        Ok(())
    }

    /// Takes over what `fresh` has just read of the same files. Applies to later handshakes.
    pub fn replace(&self, fresh: Tls) {
        *self.state() = fresh
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
    }

    /// Returns the settings.
    pub fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    /// Returns the last valid second of each certificate, since 1970.
    pub fn expiries(&self) -> Vec<(PathBuf, i64)> {
        self.state().loaded.expiries.clone()
    }

    /// Returns whether files have changed since they were last read, and not since the last call. A
    /// certificate and its key are two files, which are not written at the same moment.
    pub fn has_changed(&self) -> bool {
        let now = file_states(&self.settings);
        let mut state = self.state();
        let settled = state.seen == now;
        let changed = state.read != now;
        state.seen = now;
        settled && changed
    }

    /// Returns the file of the revocation lists and the earliest nextUpdate, in seconds since 1970.
    pub fn next_update(&self) -> Option<(PathBuf, i64)> {
        let next = self.state().loaded.next_update?;
        Some((self.settings.crlfile.clone()?, next))
    }

    /// Returns whether clients with a certificate are refused at `now`, because a revocation list
    /// is past its nextUpdate. This must be asked for resumed sessions, which are not verified
    /// again.
    pub fn refuses_certificates(&self, now: i64) -> bool {
        let past = self.next_update().is_some_and(|(_, next)| next < now);
        past && self.settings.crl_expired == CrlExpired::Refuse
    }

    /// Returns the files that are out of date at `now`: certificates and revocation lists.
    pub fn expired(&self, now: i64) -> Vec<PathBuf> {
        let files = self.expiries().into_iter().chain(self.next_update());
        files
            .filter(|(_, at)| *at < now)
            .map(|(file, _)| file)
            .collect()
    }

    /// Returns the certificates that expire within [`EXPIRY_WARNING`], with the days they have
    /// left.
    pub fn expiring(&self, now: i64) -> Vec<(PathBuf, i64)> {
        let state = self.state();
        let left = state
            .loaded
            .expiries
            .iter()
            .map(|(file, at)| (file, at - now));
        left.filter(|(_, left)| *left < EXPIRY_WARNING)
            .map(|(file, left)| (file.clone(), left.div_euclid(86_400)))
            .collect()
    }

    /// Returns the file of the first certificate. It names this TLS in messages.
    pub fn name(&self) -> std::path::Display<'_> {
        self.settings.certificates[0].certfile.display()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_states(settings: &TlsSettings) -> Vec<FileState> {
    use std::os::unix::fs::MetadataExt;
    let pairs = settings.certificates.iter();
    let files = pairs
        .flat_map(|files| [&files.certfile, &files.keyfile])
        .chain(&settings.cafile)
        .chain(&settings.crlfile);
    files
        .map(|file| {
            let metadata = std::fs::metadata(file).ok()?;
            Some([
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.len() as i64,
                metadata.ino() as i64,
            ])
        })
        .collect()
}

fn load(settings: &TlsSettings, now: i64) -> Result<Loaded, TlsError> {
    let provider = provider();
    let (mut shown, mut expiries) = (Vec::new(), Vec::new());
    for files in &settings.certificates {
        let (certificate, key) = load_pair(files, &provider, now)?;
        expiries.push((files.certfile.clone(), certificate.not_after));
        shown.push((certificate, Arc::new(key)));
    }
    let first = &settings.certificates[0].certfile;
    let crls = match &settings.crlfile {
        Some(file) => file::read_crls(file)?,
        None => Vec::new(),
    };
    let next_update = crls
        .iter()
        .filter_map(|crl| certificate::next_update(crl))
        .min();
    let verifier = match settings.clients {
        ClientCertificates::None => WebPkiClientVerifier::no_client_auth(),
        asked => client_verifier(settings, asked, crls, &provider)?,
    };
    let mut provider = CryptoProvider::clone(&provider);
    provider.cipher_suites.retain(|it| settings.allows(it));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(settings.minimum.and_newer())
        .map_err(|error| TlsError::new(first, error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SniResolver(shown)));
    config.alpn_protocols = settings.alpn.iter().map(|&name| name.into()).collect();
    config.max_fragment_size = settings.max_fragment_size;
    // Session tickets. The clients keep them, so the broker stores no sessions.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| TlsError::new(first, error))?;
    Ok(Loaded {
        config: Arc::new(config),
        expiries,
        next_update,
    })
}

/// A warning about a server certificate of version 1.
const V1_SERVER: &str = "the certificate is of X.509 version 1: it is shown, and clients that use OpenSSL take it, but many others do not. To make one of version 3, \
    sign the request again with extensions: openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out server.crt -extfile \
    <(echo subjectAltName=DNS:the.host.name)";

/// Reads a certificate and its key, and checks that they belong together.
fn read_pair(
    files: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<(Certificate, CertifiedKey), TlsError> {
    let CertificateFiles { certfile, keyfile } = files;
    let chain = read_certificates(certfile)?;
    let certificate = Certificate::parse(&chain[0])
        .ok_or_else(|| TlsError::new(certfile, "its first certificate cannot be read"))?;
    let key = read_key(keyfile)?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| {
            TlsError::new(keyfile, format!("its private key cannot be used: {error}"))
        })?;
    // `CertifiedKey::keys_match` also fails for certificates that rustls does not read, such as
    // those of version 1.
    let public_key = key.public_key();
    if public_key.is_some_and(|public_key| *public_key != *certificate.public_key) {
        let what = format!("the key does not belong to {}", certfile.display());
        return Err(TlsError::new(keyfile, what));
    }
    Ok((certificate, CertifiedKey::new(chain, key)))
}

/// As [`read_pair`], with warnings about the certificate of a server.
fn load_pair(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    now: i64,
) -> Result<(Certificate, CertifiedKey), TlsError> {
    let (certificate, key) = read_pair(files, provider)?;
    let certfile = files.certfile.display();
    if certificate.not_before > now {
        // Not an error: a gateway that does not know the time yet must be able to start.
        tracing::warn!(file = %certfile, "the certificate is not valid yet, or this machine's clock is wrong");
    }
    if certificate.is_v1 {
        tracing::warn!(file = %certfile, "{V1_SERVER}");
    }
    Ok((certificate, key))
}

fn client_verifier(
    settings: &TlsSettings,
    asked: ClientCertificates,
    crls: Vec<CertificateRevocationListDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let none = Path::new("cafile");
    let cafile = settings.cafile.as_deref().unwrap_or(none);
    let roots = Arc::new(read_roots(cafile)?);
    let v1 = settings.allow_x509_v1.then(|| {
        let authorities = read_certificates(cafile)?;
        Ok(V1 {
            authorities,
            crls: crls.clone(),
            crl_expired: settings.crl_expired,
        })
    });
    let v1 = v1.transpose()?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    if asked == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    if !crls.is_empty() {
        // A revocation list of the authority that signs devices does not cover the authority above
        // it.
        builder = builder.with_crls(crls).only_check_end_entity_revocation();
        if settings.crl_expired == CrlExpired::Refuse {
            builder = builder.enforce_revocation_expiration();
        }
    }
    let wrong = settings.crlfile.as_deref().unwrap_or(cafile);
    let webpki = builder
        .build()
        .map_err(|error| TlsError::new(wrong, error.to_string()))?;
    Ok(match v1 {
        Some(v1) => Arc::new(ClientVerifier {
            webpki,
            provider: Arc::clone(provider),
            v1,
        }),
        None => webpki,
    })
}

/// Reads the authorities in a file.
///
/// # Errors
/// The file cannot be read, or a certificate in it cannot be an authority.
pub fn read_roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        roots.add(certificate).map_err(|error| {
            TlsError::new(file, format!("a certificate cannot be used: {error}"))
        })?;
    }
    Ok(roots)
}

/// Reads the authorities in a file. Without one, those the system trusts.
///
/// # Errors
/// The file cannot be read, or a certificate in it cannot be an authority; or the file of the
/// system was not found.
pub fn authorities(cafile: Option<&Path>) -> Result<RootCertStore, TlsError> {
    if let Some(file) = cafile {
        return read_roots(file);
    }
    let file = authority_file(None)?;
    let mut roots = RootCertStore::empty();
    // Unusable certificates are skipped.
    roots.add_parsable_certificates(read_certificates(file)?);
    Ok(roots)
}

/// Returns the file of the authorities. Without one, the file of the system.
fn authority_file(cafile: Option<&Path>) -> Result<&Path, TlsError> {
    if let Some(file) = cafile {
        return Ok(file);
    }
    let mut known = SYSTEM_AUTHORITIES.iter().map(Path::new);
    known.find(|file| file.exists()).ok_or_else(|| {
        let what = "is not there, nor are this system's trusted authorities where other systems have them: give a cafile";
        TlsError::new(Path::new(SYSTEM_AUTHORITIES[0]), what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use std::fs;

    const NOW: i64 = 1_800_000_000;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Files {
            let dir = tempfile::tempdir().expect("a directory");
            let files = Files { dir };
            files.make("server", 2090);
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).expect("written");
        }

        fn make(&self, name: &str, until: i32) {
            let key = KeyPair::generate().expect("a key");
            let mut params =
                CertificateParams::new(vec![format!("{name}.example")]).expect("a name");
            params.not_after = date_time_ymd(until, 1, 1);
            let certificate = params.self_signed(&key).expect("a certificate");
            self.write(&format!("{name}.pem"), &certificate.pem());
            self.write(&format!("{name}.key"), &key.serialize_pem());
        }

        fn settings(&self) -> TlsSettings {
            TlsSettings {
                certificates: vec![CertificateFiles {
                    certfile: self.path("server.pem"),
                    keyfile: self.path("server.key"),
                }],
                clients: ClientCertificates::None,
                cafile: None,
                crlfile: None,
                crl_expired: CrlExpired::default(),
                allow_x509_v1: false,
                minimum: TlsVersion::default(),
                ciphers: None,
                ciphers_tls13: None,
                max_fragment_size: None,
                alpn: &["mqtt"],
            }
        }

        fn error(&self, settings: TlsSettings) -> String {
            let error = Tls::load(settings, NOW).expect_err("a bad file");
            let dir = format!("{}/", self.dir.path().display());
            error.to_string().replace(&dir, "")
        }
    }

    #[test]
    fn each_bad_file_is_named_with_what_is_wrong() {
        let files = Files::new();
        files.make("other", 2090);
        files.write("text", "hello");
        files.write("empty.pem", "");
        let cut = fs::read_to_string(files.path("server.pem")).expect("text");
        files.write("cut.pem", &cut[..cut.len() / 2]);
        files.write(
            "garbage.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
        files.write(
            "locked.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        for (certfile, keyfile, needle) in [
            (
                "none.pem",
                "server.key",
                "none.pem: cannot be read: No such file",
            ),
            ("text", "server.key", "text: has no certificate in PEM"),
            (
                "empty.pem",
                "server.key",
                "empty.pem: has no certificate in PEM",
            ),
            (
                "cut.pem",
                "server.key",
                "cut.pem: is not PEM: the END line of its CERTIFICATE is missing",
            ),
            (
                "garbage.pem",
                "server.key",
                "garbage.pem: its first certificate cannot be read",
            ),
            ("server.pem", "none.key", "none.key: cannot be read"),
            (
                "server.pem",
                "server.pem",
                "server.pem: has no private key in PEM",
            ),
            (
                "server.pem",
                "locked.key",
                "locked.key: its private key is encrypted",
            ),
            (
                "server.pem",
                "other.key",
                "other.key: the key does not belong to server.pem",
            ),
        ] {
            let mut settings = files.settings();
            settings.certificates[0] = CertificateFiles {
                certfile: files.path(certfile),
                keyfile: files.path(keyfile),
            };
            let error = files.error(settings);
            assert!(error.starts_with(needle), "{error} instead of {needle}");
        }
        let mut settings = files.settings();
        settings.clients = ClientCertificates::Required;
        settings.cafile = Some(files.path("text"));
        let error = files.error(settings.clone());
        assert_eq!(error, "text: has no certificate in PEM");
        settings.cafile = Some(files.path("server.pem"));
        settings.crlfile = Some(files.path("text"));
        assert_eq!(
            files.error(settings),
            "text: has no revocation list (X509 CRL) in PEM"
        );
    }

    #[test]
    fn a_reload_takes_all_or_keeps_the_old() {
        let files = Files::new();
        let tls = Tls::load(files.settings(), NOW).expect("good files");
        assert!(!tls.has_changed());
        let before = tls.config();
        files.write("server.key", "nonsense, and longer");
        assert!(!tls.has_changed(), "not yet left alone");
        assert!(tls.has_changed());
        assert!(tls.reload(NOW).is_err());
        assert!(Arc::ptr_eq(&before, &tls.config()));
        assert!(!tls.has_changed(), "told once");
        files.make("server", 2095);
        assert!(!tls.has_changed());
        assert!(tls.has_changed());
        tls.reload(NOW).expect("good files");
        assert!(!Arc::ptr_eq(&before, &tls.config()));
    }

    #[test]
    fn certificates_that_expire_soon_are_reported() {
        let files = Files::new();
        let tls = Tls::load(files.settings(), NOW).expect("good files");
        assert_eq!(tls.expiring(NOW), []);
        let end = tls.state().loaded.expiries[0].1;
        let file = files.path("server.pem");
        assert_eq!(tls.expiring(end - 9 * 86_400), [(file.clone(), 9)]);
        assert_eq!(tls.expiring(end + 1), [(file.clone(), -1)]);
        assert_eq!(tls.expired(end), [] as [PathBuf; 0]);
        assert_eq!(tls.expired(end + 1), [file]);
    }

    #[test]
    fn a_certificate_that_has_expired_is_served_all_the_same() {
        let files = Files::new();
        files.make("server", 2020);
        let tls = Tls::load(files.settings(), NOW).expect("it is served");
        assert_eq!(tls.expired(NOW), [files.path("server.pem")]);
        assert!(!tls.refuses_certificates(NOW), "there is no list");
    }
}
