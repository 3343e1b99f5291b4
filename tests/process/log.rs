//! Who logs waits for nobody.

use std::fs::OpenOptions;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::thread;

use support::{Connect, Message, Version, tidegate, wait_until};

use super::{figure, free_address, within};

/// Standard error is a pipe that is open and that nobody reads.
const STALLED: &str = "mkfifo \"$DATA/../err\" && exec 9<>\"$DATA/../err\" && exec \"$@\" 2>&9";

#[test]
fn a_broker_whose_log_nobody_reads_goes_on_and_counts_what_is_lost() {
    let metrics = free_address();
    let config = format!("[metrics]\nbind = \"{metrics}\"\n[log]\nlevel = \"trace\"\n");
    let mut broker = within(&config, STALLED);
    let lost = || figure(metrics, "tidegate_log_lines_lost").unwrap_or_default();
    let mut client = Connect::new(Version::V5, "c").open(broker.addr());
    client.subscribe("a", 1);
    // More than the pipe and the queue hold.
    wait_until("lines are lost", || {
        for _ in 0..500 {
            drop(TcpStream::connect(broker.addr()).expect("the broker listens"));
        }
        client.ping();
        lost() > 0.0
    });
    for n in 0..100 {
        assert_eq!(client.publish(&Message::new("a", n.to_string(), 1)), 0);
        client.expect("a", n.to_string(), 1);
    }
    let before = lost();
    assert!(before > 0.0);
    // Somebody reads again.
    let pipe = broker.data_dir().join("../err");
    let mut reader = OpenOptions::new();
    let mut reader = reader
        .read(true)
        .custom_flags(0o4000) // O_NONBLOCK
        .open(pipe)
        .expect("it is there");
    let mut text = Vec::new();
    wait_until("the log says how many lines were lost", || {
        let _ = reader.read_to_end(&mut text);
        String::from_utf8_lossy(&text).contains("log lines were lost")
    });
    drop(reader);
    // Stalled as it may be again, it stops.
    broker.stop();
}

#[test]
fn the_last_words_of_a_broker_that_cannot_start_are_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a file");
    std::fs::write(&file, "").expect("written");
    let output = tidegate(&[
        "run",
        "--log",
        "trace",
        "--bind",
        "127.0.0.1:0",
        "--data-dir",
    ])
    .arg(file.join("data"))
    .output()
    .expect("the binary has been built");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("a file/data"), "{said}");
}

#[test]
fn a_reader_who_has_left_is_no_reason_to_abort() {
    let broker = super::within("", "exec \"$@\"");
    let config = broker.config_file();
    let config = config.to_str().expect("text");
    for (arguments, code) in [
        (&["check", "--config", config][..], 0),
        (&["reload", "--config", config], 0),
        (&["check", "--config", "/nowhere"], 2),
    ] {
        let mut command = tidegate(arguments);
        // Both streams lead to a pipe whose reader is gone.
        let (stdout, stderr) = (closed_pipe(), closed_pipe());
        let status = command.stdout(stdout).stderr(stderr).status();
        let status = status.expect("the binary has been built");
        assert_eq!(status.code(), Some(code), "{arguments:?}: {status}");
    }
}

/// The writing end of a pipe whose reader is gone.
fn closed_pipe() -> Stdio {
    let mut reader = Command::new("true")
        .stdin(Stdio::piped())
        .spawn()
        .expect("there is true");
    let writer = reader.stdin.take().expect("piped");
    reader.wait().expect("it ends");
    thread::yield_now();
    writer.into()
}
