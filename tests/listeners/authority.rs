//! Certificates for tests: an authority, whatever it signs, and what it revokes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// An authority, and the directory its files are in.
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority; its certificate is `ca.pem`.
    pub fn new() -> Authority {
        let dir = TempDir::new().expect("there is a directory for temporary files");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Each is another one.
        let name = dir.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);
        let authority = Authority { dir, issuer };
        authority.write("ca.pem", &certificate.pem());
        authority
    }

    /// A file of this authority.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file as those who rotate certificates should: under another name first.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.file(&format!("{name}.new"));
        std::fs::write(&new, text).expect("written");
        std::fs::rename(&new, self.file(name)).expect("renamed");
    }

    /// Makes `name.pem` and `name.key` for these hosts; without hosts it is a client's, and the
    /// name is its common name.
    pub fn issue(&self, name: &str, hosts: &[&str], serial: u64, until: i32) {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let purpose = match hosts.is_empty() {
            true => ExtendedKeyUsagePurpose::ClientAuth,
            false => ExtendedKeyUsagePurpose::ServerAuth,
        };
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_after = date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}.pem"), &certificate.pem());
    }

    /// Makes `ca.crl`, which revokes the certificates with these serial numbers.
    pub fn revoke(&self, serials: &[u64]) {
        self.revoke_until(serials, 2090);
    }

    /// The same; the next list is due at the beginning of that year.
    pub fn revoke_until(&self, serials: &[u64], year: i32) {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(serials.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("signed");
        self.write("ca.crl", &list.pem().expect("in PEM"));
    }

    /// The keys of a listener with the certificate of this name.
    pub fn listener(&self, protocol: &str, name: &str, more: &str) -> String {
        format!(
            "[[listeners]]\nprotocol = \"{protocol}\"\nbind = \"127.0.0.1:0\"\ncertfile = {:?}\nkeyfile = {:?}\n{more}\n",
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}.key")),
        )
    }

    /// A client that trusts this authority, and shows the certificate of this name.
    pub fn client(
        &self,
        shows: Option<&str>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for certificate in read_all::<CertificateDer<'static>>(&self.file("ca.pem")) {
            roots.add(certificate).expect("an authority");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions there are")
            .with_root_certificates(roots);
        match shows {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = read_all(&self.file(&format!("{name}.pem")));
                let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key")));
                builder
                    .with_client_auth_cert(chain, key.expect("a key"))
                    .expect("they belong together")
            }
        }
    }
}

fn read_all<T: PemObject>(file: &Path) -> Vec<T> {
    let sections = T::pem_file_iter(file).expect("readable");
    sections.collect::<Result<_, _>>().expect("PEM")
}
