//! Signals: during the start, during a reload, and once more.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use support::{Broker, Connect, Message, TIMEOUT, Version, tidegate, wait_until};
use tempfile::TempDir;

/// Files that block whoever opens them, and a configuration that names one.
struct Blocked {
    dir: TempDir,
}

impl Blocked {
    fn new() -> Blocked {
        let dir = TempDir::new().expect("a directory");
        let made = Command::new("mkfifo").arg(dir.path().join("acl")).status();
        assert!(made.expect("there is mkfifo").success());
        let config = format!(
            "data_dir = {:?}\nacl_file = {:?}\n[[listeners]]\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n",
            dir.path().join("data"),
            dir.path().join("acl"),
        );
        std::fs::write(dir.path().join("config"), config).expect("written");
        Blocked { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a broker, which waits for its access rules.
    fn start(&self) -> Started {
        let log = self.path("log");
        let child = tidegate(&["run", "--config"])
            .arg(self.path("config"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("made"))
            .spawn()
            .expect("the binary has been built");
        let started = Started { child, log };
        // Its threads have names; this one is there when signals are listened to.
        wait_until("it listens to signals", || {
            let tasks = format!("/proc/{}/task", started.child.id());
            let tasks = std::fs::read_dir(tasks).into_iter().flatten().flatten();
            tasks
                .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
                .any(|name| name.trim() == "signals")
        });
        started
    }

    /// Lets whoever waits for the rules have them, once.
    fn unblock(&self) -> JoinHandle<()> {
        let fifo = self.path("acl");
        thread::spawn(move || {
            let mut writer = OpenOptions::new();
            let writer = writer.write(true).open(fifo).expect("it is there");
            std::io::Write::write_all(&mut &writer, b"topic readwrite #\n").expect("written");
        })
    }
}

struct Started {
    child: Child,
    log: PathBuf,
}

impl Started {
    fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("readable")
    }

    fn code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end\n{}", self.log());
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status();
    assert!(sent.expect("there is a shell").success());
}

#[test]
fn a_hangup_during_the_start_is_a_reload_after_it() {
    let blocked = Blocked::new();
    let mut started = blocked.start();
    started.signal("HUP");
    blocked.unblock().join().expect("it was read");
    wait_until("it reads the configuration again", || {
        started.log().contains("SIGHUP: reading")
    });
    blocked.unblock().join().expect("it was read again");
    wait_until("what came of it is told", || {
        started.log().contains("reload: ")
    });
    started.signal("TERM");
    assert_eq!(started.code(), Some(0));
}

#[test]
fn a_stop_during_the_start_ends_it_at_once() {
    for name in ["TERM", "INT"] {
        let blocked = Blocked::new();
        let mut started = blocked.start();
        started.signal(name);
        assert_eq!(started.code(), Some(0), "{name}");
        let log = started.log();
        assert!(log.contains("stopping before the start is done"), "{log}");
    }
}

#[test]
fn a_stop_does_not_wait_for_a_reload() {
    let blocked = Blocked::new();
    let mut started = blocked.start();
    blocked.unblock().join().expect("it was read");
    wait_until("it has started", || control(&blocked.path("data")));
    // Sent during the start or after it, it leads to a reload, which waits for the rules.
    started.signal("HUP");
    wait_until("a reload waits", || {
        started.log().contains("SIGHUP: reading")
    });
    started.signal("TERM");
    assert_eq!(started.code(), Some(0), "{}", started.log());
}

fn control(data: &Path) -> bool {
    data.join("control.sock").exists()
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let mut broker = Broker::with("").expect("these tests are for Tidegate");
        // A client that takes nothing keeps the broker for two seconds.
        let mut stuck = Connect::new(Version::V5, "stuck").open(broker.addr());
        stuck.subscribe("a", 0);
        let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
        for _ in 0..300 {
            publisher.send_publish(&Message::new("a", vec![0; 50_000], 0));
        }
        publisher.ping();
        let pid = broker.pid();
        signal(name, pid);
        wait_until("it stops", || broker.log().contains("stopping"));
        signal(name, pid);
        assert_eq!(broker.wait().code(), Some(code), "{}", broker.log());
        wait_until("the log says so", || {
            broker.log().contains("stopping at once")
        });
    }
}
