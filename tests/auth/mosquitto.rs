//! Password files, exchanged with the real Mosquitto.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{Connect, Version, is_there, wait_until};

use super::{broker, login, output_of, password_file};

const ADVICE: &str = "Debian: apt-get install mosquitto";

/// Debian puts it where only root looks.
fn program(name: &str) -> Option<&'static str> {
    let known = match name {
        "mosquitto" => ["mosquitto", "/usr/sbin/mosquitto"],
        _ => ["mosquitto_passwd", "/usr/bin/mosquitto_passwd"],
    };
    known.into_iter().find(|program| {
        let mut command = Command::new(program);
        command.arg("--help").stdin(Stdio::null());
        command.output().is_ok()
    })
}

/// A Mosquitto with this password file; it is killed when it goes out of scope.
struct Mosquitto(Child, SocketAddr);

impl Mosquitto {
    fn start(program: &str, dir: &Path, passwords: &Path) -> Mosquitto {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port is free")
            .port();
        let config = dir.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n",
            passwords.display()
        );
        std::fs::write(&config, text).expect("written");
        let child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it can be run");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait_until("Mosquitto listens", || TcpStream::connect(address).is_ok());
        Mosquitto(child, address)
    }

    fn login(&self, user: &str, password: &str) -> u8 {
        let connect = Connect::new(Version::V5, "c").login(user, Some(password.as_bytes()));
        connect.try_open(self.1).1.code
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_file_of_mosquitto_passwd_works_in_tidegate() {
    let found = program("mosquitto_passwd");
    if !is_there("mosquitto_passwd", ADVICE, found.is_some()) {
        return;
    }
    let program = found.expect("it is there");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("passwords");
    std::fs::write(&file, "").expect("written");
    let set = |flags: &[&str], user: &str, password: &str| {
        let mut command = Command::new(program);
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
    let found = program("mosquitto");
    if !is_there("mosquitto", ADVICE, found.is_some()) {
        return;
    }
    let program = found.expect("it is there");
    for hash in ["sha512", "sha512-pbkdf2"] {
        let (dir, file) = password_file(&[("ann", "secret"), ("bob", "gehe:im $ ü")], hash);
        // Where root starts it, Mosquitto becomes another user before it reads the file.
        let open = |path: &Path, mode| {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).expect("set");
        };
        open(dir.path(), 0o755);
        open(&file, 0o644);
        let mosquitto = Mosquitto::start(program, dir.path(), &file);
        for (user, password) in [("ann", "secret"), ("bob", "gehe:im $ ü")] {
            assert_eq!(mosquitto.login(user, password), 0, "{hash} {user}");
            assert_ne!(mosquitto.login(user, "else"), 0, "{hash} {user}");
        }
    }
}
