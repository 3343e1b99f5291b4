//! Password files, exchanged with the real Mosquitto.

use std::process::{Command, Stdio};

use support::{Broker, Version, is_installed};

use super::{broker, login, output_of, password_file};

const ADVICE: &str = "Debian: apt-get install mosquitto";
const PASSWD: &str = "mosquitto_passwd";

/// Whether mosquitto_passwd is there; without it a test is left out.
fn has_mosquitto_passwd() -> bool {
    let mut command = Command::new(PASSWD);
    let found = command.arg("--help").stdin(Stdio::null()).output().is_ok();
    is_installed(PASSWD, ADVICE, found)
}

#[test]
fn a_file_of_mosquitto_passwd_works_in_tidegate() {
    if !has_mosquitto_passwd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("passwords");
    std::fs::write(&file, "").expect("written");
    let set = |flags: &[&str], user: &str, password: &str| {
        let mut command = Command::new(PASSWD);
        command.args(flags).arg("-b").arg(&file);
        let output = output_of(command.args([user, password]));
        assert!(output.status.success(), "{output:?}");
    };
    set(&[], "ann", "secret");
    set(&["-H", "sha512"], "bob", "gehe:im $ ü");
    set(&["-H", "sha512-pbkdf2"], "cid", "third");
    let broker = broker(&format!("password_file = {file:?}"));
    for (user, password) in [("ann", "secret"), ("bob", "gehe:im $ ü"), ("cid", "third")] {
        assert_eq!(login(&broker, Version::V5, user, password), 0, "{user}");
        assert_eq!(login(&broker, Version::V5, user, "else"), 0x86, "{user}");
    }
}

#[test]
fn a_file_of_tidegate_passwd_works_in_mosquitto() {
    for hash in ["sha512", "sha512-pbkdf2"] {
        let (_dir, file) = password_file(&[("ann", "secret"), ("bob", "gehe:im $ ü")], hash);
        let config = format!("allow_anonymous false\npassword_file {}\n", file.display());
        let Some(mosquitto) = Broker::mosquitto(&config) else {
            return;
        };
        for (user, password) in [("ann", "secret"), ("bob", "gehe:im $ ü")] {
            assert_eq!(
                login(&mosquitto, Version::V5, user, password),
                0,
                "{hash} {user}"
            );
            assert_ne!(
                login(&mosquitto, Version::V5, user, "else"),
                0,
                "{hash} {user}"
            );
        }
    }
}
