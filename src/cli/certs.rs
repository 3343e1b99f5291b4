//! `tidegate certs`: makes a certificate authority and certificates to try TLS with.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::exit::{self, Failure};
use crate::clock;

const DAY: u64 = 86_400;
/// Some clients refuse longer validity.
const LEAF_DAYS: u64 = 825;
const AUTHORITY_DAYS: u64 = 3650;

/// The flags of `tidegate certs`.
#[derive(Args, Clone, Debug)]
pub struct CertsFlags {
    /// Directory of the files; made if it is not there
    #[arg(long, value_name = "DIRECTORY", default_value = "certs")]
    pub dir: PathBuf,
    /// Another name or address of the server, beside localhost, 127.0.0.1 and ::1; may be repeated
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// Common name of a client, which is its identity, and the name of its files; may be repeated
    /// [default: client]
    #[arg(long, value_name = "NAME")]
    pub client: Vec<String>,
}

/// Writes `ca.pem`, `server.pem` and a certificate for each client, each with its `.key`. Returns a
/// text that lists the files and says how to use them.
///
/// # Errors
/// Fails if a file exists already or cannot be written, or if a name is not allowed in a
/// certificate.
pub fn run(flags: &CertsFlags) -> Result<String, Failure> {
    let failed = |what: String| Failure::new(exit::FAILED, what);
    let clients = match flags.client.as_slice() {
        [] => vec!["client".to_owned()],
        names => names.to_vec(),
    };
    check_names(&clients)?;
    let mut names = vec!["ca".to_owned(), "server".to_owned()];
    names.extend(clients.iter().cloned());
    let files: Vec<PathBuf> = names
        .iter()
        .flat_map(|name| [format!("{name}.pem"), format!("{name}.key")])
        .map(|name| flags.dir.join(name))
        .collect();
    if let Some(there) = files.iter().find(|file| file.symlink_metadata().is_ok()) {
        let what = format!(
            "{} is there already: remove it, or say --dir",
            there.display()
        );
        return Err(failed(what));
    }
    let made = make(flags, &clients).map_err(|error| failed(error.to_string()))?;
    let write_all = || -> io::Result<()> {
        fs::create_dir_all(&flags.dir)?;
        for (file, text) in files.iter().zip(&made) {
            write(file, text)?;
        }
        Ok(())
    };
    write_all().map_err(|error| failed(format!("{}: {error}", flags.dir.display())))?;
    Ok(explain(&flags.dir, &clients))
}

fn check_names(clients: &[String]) -> Result<(), Failure> {
    let is_good = |name: &String| {
        let good = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        !name.is_empty()
            && name.chars().all(good)
            && !name.starts_with('.')
            && !["ca", "server"].contains(&name.as_str())
    };
    match clients.iter().find(|name| !is_good(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::new(
            exit::WRONG,
            format!(
                "--client {name:?}: expected letters, digits, - _ and ., and not \"ca\" or \"server\""
            ),
        )),
    }
}

/// Returns the texts of all files: certificate and key of the authority, the server and each
/// client.
fn make(flags: &CertsFlags, clients: &[String]) -> Result<Vec<String>, rcgen::Error> {
    let mut texts = Vec::new();
    let authority = {
        let mut params = CertificateParams::new(Vec::new())?;
        name(&mut params, "Tidegate development CA");
        valid(&mut params, AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        texts.extend([params.self_signed(&key)?.pem(), key.serialize_pem()]);
        Issuer::new(params, key)
    };
    let mut hosts = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    hosts.extend(flags.host.iter().cloned());
    let first = flags.host.first().unwrap_or(&hosts[0]).clone();
    let server = (first, hosts, ExtendedKeyUsagePurpose::ServerAuth);
    let clients = clients.iter().map(|client| {
        (
            client.clone(),
            Vec::new(),
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    });
    for (common_name, hosts, purpose) in std::iter::once(server).chain(clients) {
        let mut params = CertificateParams::new(hosts)?;
        name(&mut params, &common_name);
        valid(&mut params, LEAF_DAYS);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        texts.extend([certificate.pem(), key.serialize_pem()]);
    }
    Ok(texts)
}

fn name(params: &mut CertificateParams, common_name: &str) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
}

/// Sets the validity. It begins an hour ago, because clocks differ.
fn valid(params: &mut CertificateParams, days: u64) {
    let now = u64::try_from(clock::wall_seconds()).unwrap_or(0);
    let at = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = at(now.saturating_sub(3600));
    params.not_after = at(now + days * DAY);
}

/// Writes a new file. Fails if it exists. Only the owner may read it if it is a key.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let is_key = file.extension().is_some_and(|extension| extension == "key");
    let mut open = OpenOptions::new();
    open.write(true).create_new(true);
    open.mode(if is_key { 0o600 } else { 0o644 });
    open.open(file)?.write_all(text.as_bytes())
}

fn explain(dir: &Path, clients: &[String]) -> String {
    let dir = dir.display();
    format!(
        "{dir} has an authority (ca), a server's certificate (server) and clients' ({}). For tests: anybody who reads ca.key can make more.\n\
         In the configuration:\n    \
         [[listeners]]\n    protocol = \"mqtts\"\n    bind = \"127.0.0.1\"\n    certfile = \"{dir}/server.pem\"\n    keyfile = \"{dir}/server.key\"\n    \
         cafile = \"{dir}/ca.pem\"\n    require_certificate = \"required\"\n    use_identity_as_username = true\n\
         Then:\n    tidegate pub -L mqtts://localhost --cafile {dir}/ca.pem --cert {dir}/{first}.pem --key {dir}/{first}.key -t hello -m hi -q 1\n",
        clients.join(", "),
        first = clients[0],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::{
        CertificateFiles, ClientCertificates, CrlExpired, Tls, TlsSettings, TlsVersion,
    };
    use std::os::unix::fs::PermissionsExt;

    fn flags(dir: &Path) -> CertsFlags {
        CertsFlags {
            dir: dir.join("certs"),
            host: vec!["gw.local".to_owned()],
            client: vec!["a".to_owned(), "b".to_owned()],
        }
    }

    #[test]
    fn what_is_made_can_be_used_and_keys_are_secret() {
        let dir = tempfile::tempdir().expect("a directory");
        let flags = flags(dir.path());
        let text = run(&flags).expect("made");
        assert!(text.contains("clients' (a, b)"), "{text}");
        let file = |name: &str| flags.dir.join(name);
        for name in ["ca", "server", "a", "b"] {
            let mode = |suffix: &str| {
                let metadata = fs::metadata(file(&format!("{name}.{suffix}"))).expect("there");
                metadata.permissions().mode() & 0o777
            };
            assert_eq!(mode("key"), 0o600, "{name}");
        }
        let settings = TlsSettings {
            allow_x509_v1: false,
            certificates: vec![CertificateFiles {
                certfile: file("server.pem"),
                keyfile: file("server.key"),
            }],
            clients: ClientCertificates::Required,
            cafile: Some(file("ca.pem")),
            crlfile: None,
            crl_expired: CrlExpired::default(),
            minimum: TlsVersion::default(),
            ciphers: None,
            ciphers_tls13: None,
            max_fragment_size: None,
            alpn: &["mqtt"],
        };
        let tls = Tls::load(settings, clock::wall_seconds()).expect("good files");
        assert_eq!(tls.expiring(clock::wall_seconds()), []);
        assert_eq!(tls.expiring(clock::wall_seconds() + 824 * 86_400).len(), 1);
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let flags = flags(dir.path());
        fs::create_dir_all(&flags.dir).expect("made");
        fs::write(flags.dir.join("b.key"), "precious").expect("written");
        let failure = run(&flags).expect_err("there already");
        assert!(failure.message.contains("b.key is there already"));
        assert_eq!(fs::read_dir(&flags.dir).expect("readable").count(), 1);
    }

    #[test]
    fn a_clients_name_cannot_lead_elsewhere() {
        for bad in ["", "../x", "a/b", ".x", "ca", "server"] {
            assert!(check_names(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
