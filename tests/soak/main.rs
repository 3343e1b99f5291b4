//! `tidegate bench soak` for a short while: it must find that memory, database file, descriptors
//! and latency stay flat, and nothing lost.

use std::process::Command;

use support::Broker;

/// Runs it against the broker; its exit code and what it printed.
fn soak(broker: &Broker, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["bench", "soak", "-p", &broker.addr().port().to_string()])
        .args(more)
        .output()
        .expect("the program has been built");
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said += &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

#[test]
fn a_short_soak_finds_everything_flat() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let pid = broker.pid().to_string();
    let (code, said) = soak(&broker, &["--pid", &pid, "-d", "15", "--interval", "500ms"]);
    println!("{said}");
    assert_eq!(code, Some(0));
    assert!(said.contains("nothing lost, repeated or out of order"));
}

#[test]
fn it_says_what_it_needs_to_judge() {
    let broker = Broker::start();
    let (code, said) = soak(&broker, &["-d", "1"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("give --pid"), "{said}");
    let pid = broker.pid().to_string();
    let (code, said) = soak(&broker, &["--pid", &pid, "-d", "2", "--interval", "1"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("readings are too few to judge"), "{said}");
}
