//! Who may come in: password files, tokens and callouts over real sockets, beside the real
//! Mosquitto and with real clients.

mod clients;
mod methods;
mod mosquitto;
mod passwords;
mod storm;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{Broker, Connect, Version, property, tidegate};
use tempfile::TempDir;

/// What CONNACK says in MQTT 5; the return codes of MQTT 3 are beside them.
const WRONG: (u8, u8) = (0x86, 4);
const ANONYMOUS: (u8, u8) = (0x87, 5);
const THROTTLED: (u8, u8) = (0x9F, 3);

/// A directory with a password file of these users, made by `tidegate passwd`.
fn password_file(users: &[(&str, &str)], hash: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("there is a directory for temporary files");
    let file = dir.path().join("passwords");
    std::fs::write(&file, "").expect("written");
    for (user, password) in users {
        set_password(&file, user, password, hash);
    }
    (dir, file)
}

fn set_password(file: &Path, user: &str, password: &str, hash: &str) {
    let arguments = ["passwd", "-H", hash, "-b"];
    let output = tidegate(&arguments)
        .arg(file)
        .args([user, password])
        .output();
    let output = output.expect("the binary has been built");
    assert!(output.status.success(), "{output:?}");
}

/// A broker with this table `[authentication]`, and a listener where clients log in; another one,
/// for everybody, comes after it.
fn broker(authentication: &str) -> Broker {
    broker_with(authentication, "")
}

fn broker_with(authentication: &str, listener: &str) -> Broker {
    let config = format!(
        "[authentication]\n{authentication}\n[[listeners]]\nbind = \"127.0.0.1:0\"\n{listener}\n"
    );
    Broker::with(&config).expect("these tests are for Tidegate")
}

/// The code of the CONNACK for this user name and password.
fn login(broker: &Broker, version: Version, user: &str, password: &str) -> u8 {
    // A client of its own for each user: a session is its user's until its connection is gone.
    let id = format!("c-{user}");
    let connect = Connect::new(version, &id).login(user, Some(password.as_bytes()));
    connect.try_open(broker.addr()).1.code
}

/// They are refused, and told the same, whatever it was.
#[track_caller]
fn refused(broker: &Broker, user: &str, password: &str, code: (u8, u8)) {
    for version in [Version::V31, Version::V311] {
        assert_eq!(login(broker, version, user, password), code.1);
    }
    let connect = Connect::new(Version::V5, "c").login(user, Some(password.as_bytes()));
    let (mut client, connack) = connect.try_open(broker.addr());
    assert_eq!(connack.code, code.0);
    let told = connack.properties.string(property::REASON_STRING);
    assert!(!told.unwrap_or_default().contains(user));
    client.expect_closed();
}

fn output_of(command: &mut Command) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
