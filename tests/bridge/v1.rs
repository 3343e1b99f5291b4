//! Certificates of X.509 version 1, and of servers that have no subjectAltName, as people make them
//! with OpenSSL: on both sides of a bridge.

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Broker, is_installed, wait_until};

use super::secure::place;
use super::side::{cloud, edge, wait_for_state};

/// An authority, and what it has signed.
struct Files(tempfile::TempDir);

impl Files {
    /// An authority; `None` without OpenSSL.
    fn new() -> Option<Files> {
        let mut version = Command::new("openssl");
        let is_found = version.arg("version").output().is_ok();
        if !is_installed("openssl", "Debian: apt-get install openssl", is_found) {
            return None;
        }
        let files = Files(tempfile::TempDir::new().expect("a directory"));
        files.make_authority("ca");
        Some(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, line: &str) {
        let mut command = Command::new("openssl");
        command.args(line.split(' ')).current_dir(self.0.path());
        let done = command.output().expect("openssl is there");
        assert!(done.status.success(), "{line}: {done:?}");
    }

    fn make_authority(&self, name: &str) {
        self.run(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -keyout {name}.key -out {name}.pem -subj /CN={name}"
        ));
    }

    /// A certificate for this common name. Without extensions it is of version 1.
    fn sign(&self, name: &str, common_name: &str, authority: &str, more: &str) {
        self.run(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={common_name}"
        ));
        self.run(&format!(
            "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -out {name}.pem {more}"
        ));
    }

    /// A listener that shows a certificate and asks for those of clients.
    fn listener(&self, certificate: &str, more: &str) -> String {
        format!(
            "[[listeners]]\nprotocol = \"mqtts\"\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\nuse_identity_as_username = true\n\
             certfile = {:?}\nkeyfile = {:?}\ncafile = {:?}\nrequire_certificate = \"required\"\n{more}\n",
            self.path(&format!("{certificate}.pem")),
            self.path(&format!("{certificate}.key")),
            self.path("ca.pem"),
        )
    }

    /// The keys of a bridge that shows a certificate and calls its upstream `localhost`.
    fn bridge(&self, certificate: &str, more: &str) -> String {
        format!(
            "protocol = \"mqtts\"\nserver_name = \"localhost\"\ncafile = {:?}\ncertfile = {:?}\nkeyfile = {:?}\n{more}",
            self.path("ca.pem"),
            self.path(&format!("{certificate}.pem")),
            self.path(&format!("{certificate}.key")),
        )
    }
}

fn is_said(broker: &Broker, what: &str) {
    wait_until(what, || broker.log().contains(what));
}

/// The upstream, and a bridge to it that does not connect.
fn refused(listener: &str, bridge: &str) -> (Broker, Broker) {
    let cloud = cloud(listener);
    let edge = edge(place(&cloud, "mqtts"), bridge);
    is_said(&edge, "bridge not connected");
    assert!(!edge.log().contains("bridge connected"), "{}", edge.log());
    (cloud, edge)
}

const ALLOWED: &str = "allow_x509_v1 = true";

#[test]
fn certificates_of_version_1_are_taken_where_that_is_allowed() {
    let Some(files) = Files::new() else { return };
    files.sign("server", "localhost", "ca", "-days 3650");
    files.sign("site", "site-7", "ca", "-days 3650");
    for versions in ["", "\ntls_version = \"tlsv1.3\""] {
        let cloud = cloud(&files.listener("server", &format!("{ALLOWED}{versions}")));
        let edge = edge(place(&cloud, "mqtts"), &files.bridge("site", ALLOWED));
        wait_for_state(edge.addr(), "connected");
        is_said(&cloud, "user=\"site-7\"");
    }
    // TLS 1.2 signs in another way. OpenSSL can be told to speak nothing else.
    let cloud = cloud(&files.listener("server", ALLOWED));
    let mut client = Command::new("openssl");
    let address = place(&cloud, "mqtts").to_string();
    client.args([
        "s_client",
        "-tls1_2",
        "-verify_return_error",
        "-connect",
        &address,
    ]);
    client.args(["-CAfile", "ca.pem", "-cert", "site.pem", "-key", "site.key"]);
    client
        .current_dir(files.0.path())
        .stdin(std::process::Stdio::null());
    let output = client.output().expect("openssl is there");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("TLSv1.2"),
        "{output:?}"
    );
}

#[test]
fn without_that_each_side_says_what_is_wrong_and_how_to_make_another() {
    let Some(files) = Files::new() else { return };
    files.sign("server", "localhost", "ca", "-days 3650");
    files.sign("site", "site-7", "ca", "-days 3650");
    let (_cloud, edge) = refused(
        &files.listener("server", ALLOWED),
        &files.bridge("site", ""),
    );
    is_said(&edge, "X.509 version 1");
    is_said(&edge, "openssl x509 -req");
    let (cloud, _edge) = refused(
        &files.listener("server", ""),
        &files.bridge("site", ALLOWED),
    );
    is_said(&cloud, "openssl x509 -req");
}

#[test]
fn a_certificate_of_version_1_must_be_good_all_the_same() {
    let Some(files) = Files::new() else { return };
    files.make_authority("other");
    files.sign("server", "localhost", "ca", "-days 3650");
    // Of another authority, of one that calls itself the same, and out of date.
    files.sign("stranger", "site-7", "other", "-days 3650");
    files.run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -keyout false.key -out false.pem -subj /CN=ca");
    files.sign("forged", "site-7", "false", "-days 3650");
    files.sign("old", "site-7", "ca", "-days -1");
    for (certificate, why) in [
        ("stranger", "UnknownIssuer"),
        ("forged", "BadSignature"),
        ("old", "xpired"),
    ] {
        let (cloud, _edge) = refused(
            &files.listener("server", ALLOWED),
            &files.bridge(certificate, ALLOWED),
        );
        is_said(&cloud, why);
    }
    // The server's is asked the same, and for its name.
    files.sign("elsewhere", "elsewhere.example", "ca", "-days 3650");
    files.sign("site", "site-7", "ca", "-days 3650");
    let (_cloud, edge) = refused(
        &files.listener("elsewhere", ALLOWED),
        &files.bridge("site", ALLOWED),
    );
    is_said(&edge, "the certificate does not name");
    is_said(&edge, "elsewhere.example");
}

#[test]
fn one_that_is_revoked_is_refused() {
    let Some(files) = Files::new() else { return };
    files.sign("server", "localhost", "ca", "-days 3650");
    for name in ["good", "gone"] {
        files.sign(name, name, "ca", "-days 3650");
    }
    let config = "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\ndefault_md = sha256\ncrlnumber = crlnumber\ndefault_crl_days = 3650\n";
    let write = |name: &str, text: &str| std::fs::write(files.path(name), text).expect("written");
    write("ca.cnf", config);
    write("index.txt", "");
    write("crlnumber", "01\n");
    files.run("ca -config ca.cnf -keyfile ca.key -cert ca.pem -revoke gone.pem");
    files.run("ca -config ca.cnf -keyfile ca.key -cert ca.pem -gencrl -out ca.crl");
    let listener = files.listener(
        "server",
        &format!("{ALLOWED}\ncrlfile = {:?}", files.path("ca.crl")),
    );
    let (cloud, _edge) = refused(&listener, &files.bridge("gone", ALLOWED));
    is_said(&cloud, "Revoked");
    let edge = edge(place(&cloud, "mqtts"), &files.bridge("good", ALLOWED));
    wait_for_state(edge.addr(), "connected");
}

#[test]
fn a_server_without_the_name_is_taken_where_that_is_allowed_and_one_of_another_authority_is_not() {
    let Some(files) = Files::new() else { return };
    files.make_authority("other");
    let extensions = |name: &str| {
        let file: &Path = &files.path(name);
        std::fs::write(file, "extendedKeyUsage=serverAuth,clientAuth\n").expect("written");
    };
    extensions("ext.cnf");
    files.sign("server", "broker", "ca", "-days 3650 -extfile ext.cnf");
    files.sign("site", "site-7", "ca", "-days 3650 -extfile ext.cnf");
    let (_cloud, edge) = refused(&files.listener("server", ""), &files.bridge("site", ""));
    is_said(&edge, "it has no subjectAltName, only the common name");
    let insecure = "insecure_server_name = true";
    let upstream = cloud(&files.listener("server", ""));
    let named = super::side::edge(place(&upstream, "mqtts"), &files.bridge("site", insecure));
    wait_for_state(named.addr(), "connected");
    is_said(&named, "insecure_server_name: whoever has any certificate");
    files.sign("stranger", "broker", "other", "-days 3650 -extfile ext.cnf");
    let (_cloud, edge) = refused(
        &files.listener("stranger", ""),
        &files.bridge("site", insecure),
    );
    is_said(&edge, "UnknownIssuer");
}
