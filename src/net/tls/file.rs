//! Reads PEM files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// Bytes of the largest file that is read. Only revocation lists are long.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// An error of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", .file.display())]
pub struct TlsError {
    /// The file.
    pub file: PathBuf,
    /// The error text.
    pub what: String,
}

impl TlsError {
    pub(super) fn new(file: &Path, what: impl ToString) -> TlsError {
        TlsError {
            file: file.to_owned(),
            what: what.to_string(),
        }
    }
}

/// Reads all certificates of a file. There is at least one.
///
/// # Errors
/// The file cannot be read, or has no certificate.
pub fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    sections(file, &read(file)?, "certificate")
}

/// Reads the first private key of a file.
///
/// # Errors
/// The file cannot be read, has no private key, or the key is encrypted.
pub fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(file)?;
    let found: Vec<PrivateKeyDer<'static>> =
        sections(file, &bytes, "private key").map_err(|error| {
            let encrypted = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];
            let text = String::from_utf8_lossy(&bytes);
            if encrypted.iter().any(|mark| text.contains(mark)) {
                TlsError::new(
                    file,
                    "its private key is encrypted; expected one without a passphrase",
                )
            } else {
                error
            }
        })?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| TlsError::new(file, "has no private key in PEM"))
}

pub(super) fn read_crls(
    file: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    sections(file, &read(file)?, "revocation list (X509 CRL)")
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(file)?
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| TlsError::new(file, format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TlsError::new(file, "is longer than 64MiB"));
    }
    Ok(bytes)
}

fn sections<T: PemObject>(file: &Path, bytes: &[u8], what: &str) -> Result<Vec<T>, TlsError> {
    let all: Vec<T> = T::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::new(file, format!("is not PEM: {}", describe(&error))))?;
    if all.is_empty() {
        return Err(TlsError::new(file, format!("has no {what} in PEM")));
    }
    Ok(all)
}

fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            let line = String::from_utf8_lossy(end_marker);
            format!("the END line of its {} is missing", line.trim())
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("the line {:?} is wrong", String::from_utf8_lossy(line))
        }
        other => other.to_string(),
    }
}
