//! What commands do to the terminal they are used at.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use support::{tidegate, wait_until};

/// Not the terminal of the test itself.
const O_NOCTTY: i32 = 0o400;

#[test]
fn a_signal_at_the_password_prompt_leaves_the_terminal_with_echo() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, code) in [("INT", 130), ("TERM", 143), ("QUIT", 131), ("HUP", 129)] {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master)
            .and_then(|()| unlockpt(&master))
            .expect("open");
        let path = ptsname(&master, Vec::new()).expect("a name");
        let terminal: File = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(O_NOCTTY)
            .open(path.to_str().expect("text"))
            .expect("the terminal");
        let echoes = || {
            let modes = tcgetattr(&terminal).expect("a terminal").local_modes;
            modes.contains(LocalModes::ECHO)
        };
        assert!(echoes());
        let mut child = tidegate(&["passwd", "-c"])
            .arg(dir.path().join("passwords"))
            .arg("ann")
            .stdin(terminal.try_clone().expect("another one"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary has been built");
        wait_until("the password is asked for", || !echoes());
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", child.id())])
            .status();
        assert!(sent.expect("there is a shell").success());
        assert_eq!(child.wait().expect("a child").code(), Some(code), "{name}");
        assert!(echoes(), "{name}");
        assert!(!dir.path().join("passwords").exists());
    }
}
