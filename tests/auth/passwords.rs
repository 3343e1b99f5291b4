//! Password files, and what happens to those who fail.

use std::time::{Duration, Instant};

use support::{Connect, Message, Version, tidegate, wait_until};

use super::{
    ANONYMOUS, THROTTLED, WRONG, broker, broker_with, login, output_of, password_file, refused,
    set_password,
};

#[test]
fn who_knows_the_password_comes_in_and_others_are_told_nothing() {
    for hash in ["sha512", "sha512-pbkdf2", "argon2id"] {
        let (_dir, file) = password_file(&[("ann", "secret"), ("bob", "geheim")], hash);
        let broker = broker(&format!("password_file = {file:?}\nmax_failed_logins = 0"));
        for version in [Version::V31, Version::V311, Version::V5] {
            assert_eq!(login(&broker, version, "ann", "secret"), 0);
        }
        wait_until("the log tells who", || {
            broker.log().contains("user=\"ann\"")
        });
        refused(&broker, "ann", "geheim", WRONG);
        refused(&broker, "ann", "", WRONG);
        refused(&broker, "eve", "secret", WRONG);
        let code = |connect: Connect| connect.try_open(broker.addr()).1.code;
        let (v311, v5) = (Version::V311, Version::V5);
        assert_eq!(code(Connect::new(v5, "c")), ANONYMOUS.0);
        assert_eq!(code(Connect::new(v311, "c")), ANONYMOUS.1);
        // A user name alone proves nothing.
        assert_eq!(code(Connect::new(v5, "c").login("ann", None)), WRONG.0);
        assert_eq!(code(Connect::new(v311, "c").login("ann", None)), WRONG.1);
        for why in ["the password is wrong", "no method knows the user"] {
            let why = format!("why={why:?}");
            wait_until("the log tells why", || broker.log().contains(&why));
        }
        let log = broker.log();
        assert!(!log.contains("secret") && !log.contains("geheim"), "{log}");
    }
}

#[test]
fn it_takes_as_long_to_refuse_a_stranger_as_a_wrong_password() {
    let (_dir, file) = password_file(&[("ann", "secret")], "argon2id");
    let broker = broker(&format!("password_file = {file:?}\nmax_failed_logins = 0"));
    let time = |name: &str| {
        let start = Instant::now();
        assert_eq!(login(&broker, Version::V5, name, "wrong"), WRONG.0);
        start.elapsed()
    };
    // The best of several: others use the machine, too.
    let (known, unknown) = (0..9).fold((Duration::MAX, Duration::MAX), |best, n| {
        (
            best.0.min(time("ann")),
            best.1.min(time(&format!("eve{n}"))),
        )
    });
    println!("wrong password {known:?}, unknown user {unknown:?}");
    let (less, more) = (known.min(unknown), known.max(unknown));
    assert!(more < less * 3, "{known:?} and {unknown:?}");
}

#[test]
fn anonymous_clients_come_in_where_they_may_and_a_wrong_password_does_not() {
    let (_dir, file) = password_file(&[("ann", "secret")], "sha512");
    let broker = broker(&format!("password_file = {file:?}\nallow_anonymous = true"));
    Connect::new(Version::V5, "c").open(broker.addr());
    refused(&broker, "ann", "wrong", WRONG);
    assert_eq!(login(&broker, Version::V5, "ann", "secret"), 0);
}

#[test]
fn a_listener_has_its_own_file_or_no_method_at_all() {
    let (_dir, file) = password_file(&[("ann", "secret")], "sha512");
    let (_own_dir, own) = password_file(&[("bob", "geheim")], "sha512");
    let global = format!("password_file = {file:?}");
    let broker = broker_with(&global, &format!("password_file = {own:?}"));
    refused(&broker, "ann", "secret", WRONG);
    assert_eq!(login(&broker, Version::V5, "bob", "geheim"), 0);
    let none = "authentication_methods = []\nallow_anonymous = true";
    let broker = broker_with(&global, none);
    // Nobody looks at them.
    assert_eq!(login(&broker, Version::V5, "ann", "wrong"), 0);
}

#[test]
fn what_comes_with_the_connect_is_handled_after_it() {
    let (_dir, file) = password_file(&[("ann", "secret")], "sha512-pbkdf2");
    let broker = broker(&format!("password_file = {file:?}"));
    let mut bytes = Connect::new(Version::V5, "c")
        .login("ann", Some(b"secret"))
        .bytes();
    bytes.extend([0x82, 7, 0, 1, 0, 0, 1, b't', 0]); // SUBSCRIBE to t
    bytes.extend([0x30, 5, 0, 1, b't', 0, b'm']); // PUBLISH m to it
    bytes.extend([0xC0]); // the first half of a PINGREQ
    let mut client = support::Client::dial(broker.addr(), Version::V5);
    client.send(&bytes);
    assert!(matches!(client.receive(), support::Packet::ConnAck(it) if it.code == 0));
    assert!(matches!(client.receive(), support::Packet::SubAck(_)));
    client.expect("t", "m", 0);
    client.send(&[0]);
    assert_eq!(client.receive(), support::Packet::PingResp);
}

#[test]
fn after_too_many_failures_a_user_has_to_wait_even_with_the_right_password_and_nobody_else_does() {
    let (_dir, file) = password_file(&[("ann", "secret"), ("joe", "other")], "sha512");
    let broker = broker(&format!(
        "password_file = {file:?}\nmax_failed_logins = 3\nfailed_logins_interval = \"1h\"\nallow_anonymous = true"
    ));
    refused(&broker, "ann", "wrong", WRONG); // three logins
    refused(&broker, "ann", "secret", THROTTLED);
    // Neither are others at the same address concerned, nor who does not log in.
    assert_eq!(login(&broker, Version::V5, "joe", "other"), 0);
    Connect::new(Version::V5, "c").open(broker.addr());
    // Who was let in lately is, with the same password.
    refused(&broker, "joe", "wrong", WRONG); // three logins
    refused(&broker, "joe", "wrong", THROTTLED);
    assert_eq!(login(&broker, Version::V5, "joe", "other"), 0);
}

#[test]
fn connect_timeout_goes_on_while_a_password_is_hashed() {
    let (_dir, file) = password_file(&[("ann", "secret")], "sha512-pbkdf2");
    // A hash that takes some seconds.
    let text = std::fs::read_to_string(&file).expect("a file");
    std::fs::write(&file, text.replace("$7$50000$", "$7$20000000$")).expect("written");
    let config = format!(
        "[limits]\nconnect_timeout = \"300ms\"\n[authentication]\npassword_file = {file:?}\n[[listeners]]\nbind = \"127.0.0.1:0\"\n"
    );
    let broker = support::Broker::with(&config).expect("Tidegate");
    let mut client = support::Client::dial(broker.addr(), Version::V5);
    let connect = Connect::new(Version::V5, "c").login("ann", Some(b"secret"));
    client.send(&connect.bytes());
    client.expect_closed();
}

#[test]
fn sighup_reads_the_file_again_and_a_broken_one_changes_nothing() {
    let (_dir, file) = password_file(&[("ann", "secret"), ("joe", "other")], "sha512");
    let broker = broker(&format!("password_file = {file:?}"));
    let open = |user: &str, password: &str| {
        let connect = Connect::new(Version::V5, user).login(user, Some(password.as_bytes()));
        connect.open(broker.addr())
    };
    let (mut ann, mut joe) = (open("ann", "secret"), open("joe", "other"));
    let good = std::fs::read_to_string(&file).expect("a file");
    std::fs::write(&file, "ann:plain\n").expect("written");
    broker.signal("HUP");
    wait_until("the log tells what is wrong", || {
        broker
            .log()
            .contains("passwords:1: the password is not hashed")
    });
    assert_eq!(login(&broker, Version::V5, "ann", "secret"), 0);
    std::fs::write(&file, good).expect("written");
    set_password(&file, "ann", "new", "sha512");
    broker.signal("HUP");
    let told = format!("reload: logins: {} was read again", file.display());
    wait_until("it is read", || broker.log().contains(&told));
    refused(&broker, "ann", "secret", WRONG);
    assert_eq!(login(&broker, Version::V5, "ann", "new"), 0);
    // Who logged in with what is not there any more is sent away, nobody else.
    ann.expect_disconnect(&[0x98]);
    joe.publish(&Message::new("a", "b", 1));
}

#[test]
fn check_and_run_name_the_line_that_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, config) = (dir.path().join("passwords"), dir.path().join("t.toml"));
    std::fs::write(&file, "# who\nann:secret\n").expect("written");
    let text = format!(
        "data_dir = {:?}\n[authentication]\npassword_file = {file:?}\n",
        dir.path().join("data")
    );
    std::fs::write(&config, text).expect("written");
    for (command, code) in [("check", 2), ("run", 1)] {
        let output = output_of(tidegate(&[command, "--config"]).arg(&config));
        let told = String::from_utf8_lossy(&output.stderr);
        let place = format!("{}:2: the password is not hashed", file.display());
        assert!(told.contains(&place), "{told}");
        assert!(!told.contains("secret"), "{told}");
        assert_eq!(output.status.code(), Some(code));
    }
    let upgraded = output_of(tidegate(&["passwd", "-U"]).arg(&file));
    assert!(upgraded.status.success(), "{upgraded:?}");
    let output = output_of(tidegate(&["check", "--config"]).arg(&config));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("(who logs in may connect)"), "{told}");
}

#[test]
fn an_empty_user_name_is_none_where_anonymous_clients_are_allowed() {
    let (_dir, file) = password_file(&[("ann", "secret")], "sha512");
    for (anonymous, expected) in [(true, (0, 0)), (false, WRONG)] {
        let broker = broker(&format!(
            "password_file = {file:?}\nallow_anonymous = {anonymous}"
        ));
        let nameless = |version| {
            let connect = Connect::new(version, "nameless").login("", None);
            connect.try_open(broker.addr()).1.code
        };
        assert_eq!(nameless(Version::V5), expected.0);
        assert_eq!(nameless(Version::V311), expected.1);
        // A password is a claim to be somebody.
        assert_eq!(login(&broker, Version::V5, "", "secret"), WRONG.0);
        assert_eq!(login(&broker, Version::V5, "ann", ""), WRONG.0);
        assert_eq!(login(&broker, Version::V5, "ann", "secret"), 0);
    }
}
