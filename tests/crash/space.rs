//! No room: the budget of the configuration, a disk that is full, and a disk that refuses a write
//! without warning.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Broker, Connect, Message, Packet, Version, wait_until};

use crate::backlog::Backlog;

/// More than any of these disks can hold.
const TOO_MANY: u64 = 200_000;
/// What others publish on the topic of the backlog meanwhile: no number.
const OTHER: &str = "other";

/// Publishes until the broker says that it is full, and shows that it goes on otherwise.
fn fill(broker: &Broker, backlog: &mut Backlog) {
    let code = backlog.publish(broker.addr(), TOO_MANY);
    assert_eq!(code, Some(0x97), "quota exceeded");
    assert!(backlog.acknowledged() > 1000, "{}", backlog.acknowledged());
    // MQTT 3 knows no such answer: no acknowledgement, and the connection is closed.
    let mut old = Connect::new(Version::V311, "old").open(broker.addr());
    for _ in 0..1000 {
        old.send_publish(&Message::new("backlog/0", OTHER, 1));
    }
    old.expect_closed();
    // What needs no disk goes on.
    let mut client = Connect::new(Version::V5, "other").open(broker.addr());
    client.subscribe("elsewhere", 1);
    client.publish(&Message::new("elsewhere", "x", 1));
    client.expect("elsewhere", "x", 1);
}

/// Publishes again until it is taken, as a client would.
fn resumes(broker: &Broker, backlog: &mut Backlog) {
    let deadline = Instant::now() + support::TIMEOUT;
    while backlog.publish(broker.addr(), 100) != Some(0) {
        assert!(Instant::now() < deadline, "it does not resume");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn at_the_cap_of_its_file_it_refuses_and_resumes_when_messages_are_taken() {
    let Some(mut broker) = Broker::with("[store]\nmax_size = \"16MB\"\n") else {
        return;
    };
    let mut backlog = Backlog::begin(broker.addr());
    fill(&broker, &mut backlog);
    broker.crash();
    let taken = backlog.take_in(broker.addr());
    println!(
        "{} acknowledged before the cap, {taken} taken after a SIGKILL",
        backlog.acknowledged()
    );
    let mut backlog = Backlog::begin(broker.addr());
    resumes(&broker, &mut backlog);
}

/// A script that mounts a small file system of its own over the data directory.
const SMALL_DISK: &str = "mount -t tmpfs -o size=48M tidegate-test \"$DATA\" && exec \"$@\"";

fn can_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "tidegate-test", "/tmp"])
        .output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        println!("skipped: this process may not mount a file system in a namespace of its own");
    }
    can
}

#[test]
fn on_a_full_disk_it_refuses_and_resumes_when_there_is_space_again() {
    if !can_mount() {
        return;
    }
    // The namespace goes with the process, and the disk with it: so this broker is not restarted.
    let script = format!("exec unshare -m sh -c '{SMALL_DISK}' sh \"$@\"");
    let Some(broker) = Broker::with_shell("[store]\nmin_free_disk = \"16MB\"\n", &script) else {
        return;
    };
    let mut backlog = Backlog::begin(broker.addr());
    // Seen from outside of the namespace, through the process.
    let data: PathBuf =
        format!("/proc/{}/root{}", broker.pid(), broker.data_dir().display()).into();
    let other = data.join("of-another-program");
    std::fs::write(&other, vec![0; 8 << 20]).expect("the disk takes it");
    fill(&broker, &mut backlog);
    let before = backlog.acknowledged();
    wait_until("it says that it is full", || {
        broker.log().contains("the store is full")
    });
    broker.expect_log("make room on the disk");
    std::fs::remove_file(&other).expect("it is there");
    resumes(&broker, &mut backlog);
    wait_until("it says that it is no longer full", || {
        broker.log().contains("the store is no longer full")
    });
    assert_eq!(broker.log().matches("the store is full").count(), 1);
    let taken = backlog.take_in(broker.addr());
    println!("{before} acknowledged before the disk was full, {taken} taken in all");
}

#[test]
fn a_disk_that_refuses_a_write_ends_it_with_an_error_and_nothing_acknowledged_is_lost() {
    // 16 MB for any file, in blocks of 512 bytes; without the signal, writes beyond it fail.
    let script = "trap '' XFSZ; ulimit -f 32768; exec \"$@\"";
    let Some(mut broker) = Broker::with_shell("", script) else {
        return;
    };
    let mut backlog = Backlog::begin(broker.addr());
    let code = backlog.publish(broker.addr(), TOO_MANY);
    assert_eq!(code, None, "the connection ends without an acknowledgement");
    let status = broker.wait();
    assert_eq!(status.code(), Some(1), "{status}");
    wait_until("the error says why", || {
        broker.log().contains("the store failed to")
    });
    assert!(backlog.acknowledged() > 1000, "{}", backlog.acknowledged());
    broker.without_shell();
    broker.start_again();
    let taken = backlog.take_in(broker.addr());
    println!(
        "{} acknowledged before the write failed, {taken} taken after the restart",
        backlog.acknowledged()
    );
    resumes(&broker, &mut Backlog::begin(broker.addr()));
}

/// Messages on their way at once, and bytes of each: a megabyte comes while a batch commits.
const WINDOW: usize = 500;
const LARGE: usize = 2000;

/// Publishes large messages until one is refused. Returns how many were acknowledged.
fn fill_with_large(broker: &Broker) -> usize {
    let mut client = Connect::new(Version::V5, "filler").open(broker.addr());
    let payload = "x".repeat(LARGE);
    let (mut flying, mut acknowledged, mut is_full) = (0, 0, false);
    while !is_full || flying > 0 {
        while !is_full && flying < WINDOW {
            client.send_publish(&Message::new("backlog/0", &payload, 1));
            flying += 1;
        }
        match client.try_receive(support::TIMEOUT).expect("an answer") {
            Some(Packet::PubAck(ack)) => {
                flying -= 1;
                is_full |= ack.reason == 0x97;
                acknowledged += usize::from(ack.reason < 0x80);
            }
            other => panic!("{other:?} for a publisher"),
        }
    }
    client.disconnect();
    acknowledged
}

/// Takes so many messages from the queue of the backlog's subscriber.
fn drain_large(broker: &Broker, count: usize) {
    let (mut client, _) = Connect::durable(Version::V5, "backlog").open_with_answer(broker.addr());
    for _ in 0..count {
        match client.try_receive(support::TIMEOUT) {
            Ok(Some(Packet::Publish(publish))) => client.send_ack(0x40, publish.id),
            other => panic!("{other:?} for a subscriber"),
        }
    }
    client.disconnect();
}

/// Fills and drains a disk of this size three times, with this in `[store]`.
fn fill_and_drain(size: &str, store: &str) {
    let script = SMALL_DISK.replace("48M", size);
    let script = format!("exec unshare -m sh -c '{script}' sh \"$@\"");
    let config = format!("[store]\nmin_free_disk = \"16MB\"\n{store}");
    let Some(broker) = Broker::with_shell(&config, &script) else {
        return;
    };
    Backlog::begin(broker.addr());
    let mut taken = Vec::new();
    for _ in 0..3 {
        let count = fill_with_large(&broker);
        drain_large(&broker, count);
        taken.push(count);
        // The last removals are on disk.
        std::thread::sleep(Duration::from_millis(300));
    }
    println!("{size}: {taken:?} messages of {LARGE} bytes");
    let (least, most) = (taken.iter().min(), taken.iter().max());
    let (least, most) = (least.expect("three"), most.expect("three"));
    assert!(4 * least >= 3 * most, "{size}: {taken:?}");
}

/// Pages that are free inside the file are room, and are known to be in time.
#[test]
fn a_disk_that_is_filled_and_drained_takes_as_much_each_time() {
    if can_mount() {
        fill_and_drain("300M", "");
    }
}

/// What is proven at a time is less here than what one publisher has on its way.
#[test]
fn a_small_disk_and_a_small_cache_take_as_much_each_time() {
    if can_mount() {
        fill_and_drain("96M", "cache_size = \"4MB\"\n");
    }
}
