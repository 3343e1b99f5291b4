//! Wrong clocks: a gateway without a battery clock starts in 1970 and is told the time later, or
//! never. The wall clock is faked by libfaketime; the monotonic one is the system's.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{Broker, Connect, Message, Version, Will, is_installed, property, wait_until};

const DAY: u32 = 86_400;

/// Where Debian has the library.
fn library() -> Option<PathBuf> {
    let places = std::fs::read_dir("/usr/lib").into_iter().flatten();
    let places = places.flatten().map(|place| place.path());
    let mut libraries = places.map(|place| place.join("faketime/libfaketime.so.1"));
    let found = libraries.find(|library| library.exists());
    let install = "Debian: apt-get install faketime";
    is_installed("libfaketime", install, found.is_some());
    found
}

/// Starts a broker in a world in which it is this time.
fn script(library: &Path, time: &str) -> String {
    format!(
        "printf '%s' '{time}' > \"$DATA/../time\"
         export TZ=UTC FAKETIME_TIMESTAMP_FILE=\"$DATA/../time\" FAKETIME_NO_CACHE=1
         export DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1
         export LD_PRELOAD={}
         exec \"$@\"",
        library.display()
    )
}

/// Sets the clock while the broker runs.
fn set_clock(broker: &Broker, time: &str) {
    let file = broker.data_dir().with_file_name("time");
    std::fs::write(file, time).expect("the file is there");
}

fn day(topic: &str, payload: &str) -> Message {
    Message::new(topic, payload, 1).with(|p| p.four(property::MESSAGE_EXPIRY, DAY))
}

/// A session with a day to live gets a message with a day to live; another such message is
/// retained.
fn leave(broker: &Broker) {
    let mut sub = Connect::new(Version::V5, "sub")
        .clean(false)
        .expiry(DAY)
        .open(broker.addr());
    sub.subscribe("a", 1);
    // That it has gone is durable before what is published now.
    sub.disconnect();
    let mut publisher = Connect::new(Version::V5, "pub").open(broker.addr());
    publisher.publish(&day("a", "waiting"));
    publisher.publish(&day("r", "kept").retained());
}

/// Whether session, message and retained message are all there, or all gone.
fn is_there_still(broker: &Broker) -> bool {
    let (mut sub, connack) = Connect::new(Version::V5, "sub")
        .clean(false)
        .expiry(DAY)
        .open_with_answer(broker.addr());
    let there = connack.session_present;
    if there {
        sub.expect("a", "waiting", 1);
    }
    let mut fresh = Connect::new(Version::V5, "fresh").open(broker.addr());
    fresh.subscribe("r", 1);
    if there {
        fresh.expect("r", "kept", 1);
    }
    fresh.expect_nothing();
    there
}

#[test]
fn what_was_written_with_a_wrong_clock_is_there_when_it_is_right_at_the_next_start() {
    let Some(library) = library() else { return };
    for time in ["@1970-01-01 00:01:00", "@2000-01-01 00:00:00", "+9000d"] {
        let Some(mut broker) = Broker::with_shell("", &script(&library, time)) else {
            return;
        };
        leave(&broker);
        broker.kill();
        broker.without_shell();
        broker.start_again();
        assert!(is_there_still(&broker), "{time}");
        leave(&broker);
        // A good clock counts a stop.
        broker.kill();
        broker.set_shell(&script(&library, "+2d"));
        broker.start_again();
        assert!(!is_there_still(&broker), "{time}");
    }
}

#[test]
fn a_clock_that_is_set_while_the_broker_runs_takes_nothing_at_the_next_start() {
    let Some(library) = library() else { return };
    for time in ["@1970-01-01 00:01:00", "-12h", "+12h"] {
        let Some(mut broker) = Broker::with_shell("", &script(&library, time)) else {
            return;
        };
        leave(&broker);
        set_clock(&broker, "+0");
        wait_until("the jump is logged", || {
            broker.log().contains("clock was set")
        });
        // What is acknowledged now is on disk, and so is that.
        let mut publisher = Connect::new(Version::V5, "pub").open(broker.addr());
        publisher.publish(&day("other", "kept").retained());
        broker.kill();
        broker.set_shell(&script(&library, "+13h"));
        broker.start_again();
        assert!(is_there_still(&broker), "{time}");
    }
}

#[test]
fn what_remains_is_never_more_than_was_asked_for() {
    let Some(library) = library() else { return };
    let Some(mut broker) = Broker::with_shell("", &script(&library, "+9000d")) else {
        return;
    };
    let mut watch = Connect::durable(Version::V5, "watch").open(broker.addr());
    watch.subscribe("w", 1);
    watch.subscribe("a", 1);
    watch.drop_connection();
    let will = Will::new(Message::new("w", "gone", 1)).delay(2);
    let short = Connect::new(Version::V5, "short").clean(false).expiry(4);
    short
        .clone()
        .will(will)
        .open(broker.addr())
        .drop_connection();
    let mut publisher = Connect::new(Version::V5, "pub").open(broker.addr());
    let brief = Message::new("a", "brief", 1).with(|p| p.four(property::MESSAGE_EXPIRY, 2));
    publisher.publish(&brief);
    // That the connection is gone is durable before this is.
    publisher.publish(&Message::new("a", "last", 1));
    broker.kill();
    broker.without_shell();
    broker.start_again();
    let started = Instant::now();
    let mut watch = Connect::durable(Version::V5, "watch").open(broker.addr());
    let mut got = Vec::new();
    while !got.iter().any(|topic| topic == "w") {
        assert!(started.elapsed() < support::TIMEOUT, "no will in {got:?}");
        let publish = watch.take();
        assert_ne!(publish.payload, b"brief", "it has expired");
        got.push(publish.topic);
    }
    std::thread::sleep(Duration::from_millis(5500).saturating_sub(started.elapsed()));
    let (_, connack) = short.open_with_answer(broker.addr());
    assert!(!connack.session_present);
}
