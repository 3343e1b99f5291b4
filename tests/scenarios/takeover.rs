//! A second connection with the same client identifier.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Broker, Client, Connect, Message, TIMEOUT, Version, Will};

use crate::each_version;

/// How long the slowest of old connections may hold a take-over up, with what a busy machine adds.
const LONGEST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 400 } else { 150 });

#[test]
fn a_second_connection_takes_the_place_of_the_first() {
    // [MQTT-3.1.4-3]: 0x8E to the old one; 3.1.1: [MQTT-3.1.4-2]
    each_version(|broker, v| {
        let mut old = Connect::new(v, "twice").open(broker.addr());
        let mut new = Connect::new(v, "twice").open(broker.addr());
        old.expect_disconnect(&[0x8e]);
        new.ping();
    });
}

#[test]
fn the_session_moves_to_the_new_connection() {
    each_version(|broker, v| {
        let durable = Connect::durable(v, "moving");
        let mut old = durable.open(broker.addr());
        old.subscribe("a", 2);
        let (mut new, connack) = durable.open_with_answer(broker.addr());
        assert_eq!(connack.session_present, v != Version::V31);
        old.expect_disconnect(&[0x8e]);
        new.publish(&Message::new("a", "still subscribed", 2));
        new.expect("a", "still subscribed", 2);
    });
}

#[test]
fn a_clean_take_over_begins_a_new_session() {
    each_version(|broker, v| {
        let mut old = Connect::durable(v, "reset").open(broker.addr());
        old.subscribe("a", 2);
        let connect = Connect::durable(v, "reset").clean(true);
        let (mut new, connack) = connect.open_with_answer(broker.addr());
        assert!(!connack.session_present);
        new.publish(&Message::new("a", "nobody", 2));
        new.expect_nothing();
        old.expect_disconnect(&[0x8e]);
    });
}

#[test]
fn a_connection_may_be_taken_over_from_another_version() {
    let broker = Broker::start();
    let versions = [Version::V5, Version::V311, Version::V31, Version::V5];
    let mut old = Connect::durable(versions[0], "hopper").open(broker.addr());
    for v in &versions[1..] {
        let new = Connect::durable(*v, "hopper").open(broker.addr());
        old.expect_disconnect(&[0x8e]);
        old = new;
    }
    old.ping();
}

#[test]
fn messages_on_their_way_to_the_old_connection_are_sent_to_the_new_one() {
    // [MQTT-4.4.0-1]: with DUP and the original packet identifier.
    each_version(|broker, v| {
        let durable = Connect::durable(v, "carrier");
        let mut old = durable.open(broker.addr());
        old.subscribe("a", 2);
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        publisher.publish(&Message::new("a", "1", 1));
        publisher.publish(&Message::new("a", "2", 2));
        let first = [old.receive_publish(), old.receive_publish()];
        let mut new = durable.open(broker.addr());
        for before in first {
            let again = new.take();
            assert!(again.dup, "[MQTT-3.3.1-1]");
            assert_eq!(
                (again.id, &again.payload, again.qos),
                (before.id, &before.payload, before.qos)
            );
        }
        new.expect_nothing();
    });
}

#[test]
fn many_take_overs_in_a_row_leave_one_connection() {
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "storm");
    let mut clients: Vec<_> = (0..50).map(|_| connect.open(broker.addr())).collect();
    let mut last = clients.pop().expect("there are fifty");
    for mut client in clients {
        client.expect_disconnect(&[0x8e]);
    }
    last.subscribe("a", 0);
    last.publish(&Message::new("a", "alone", 0));
    last.expect("a", "alone", 0);
    last.expect_nothing();
}

/// Everything that clients publish under their client identifiers.
fn watcher(broker: &Broker) -> Client {
    let mut watcher = Connect::new(Version::V311, "watcher").open(broker.addr());
    watcher.subscribe("#", 0);
    watcher
}

/// A device that has a will, and says how its connections are told from one another.
fn device(v: Version, id: &str) -> Connect {
    Connect::new(v, id).will(Will::new(Message::new("will", id, 0)))
}

/// Keeps the broker's workers busy until it is dropped.
struct Busy<'a>(&'a AtomicBool);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn a_client_that_leaves_and_comes_back_at_once_loses_nothing() {
    // [MQTT-3.14.4-3], [MQTT-3.1.2-8]; and whoever is busy in between makes no difference.
    const ROUNDS: usize = 500;
    let broker = Broker::start();
    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let _busy = Busy(&busy);
        for n in 0..2 {
            let (busy, addr) = (&busy, broker.addr());
            scope.spawn(move || {
                let mut other = Connect::new(Version::V5, &format!("other{n}")).open(addr);
                while busy.load(Ordering::Relaxed) {
                    other.ping();
                }
            });
        }
        let mut watcher = watcher(&broker);
        for round in 0..ROUNDS {
            let v = Version::ALL[round % Version::ALL.len()];
            let mut client = device(v, "x").open(broker.addr());
            let last = Message::new("last", round.to_string(), 0);
            client.send(&[last.bytes(v), vec![0xe0, 0]].concat());
        }
        let mut end = device(Version::V5, "x").open(broker.addr());
        end.publish(&Message::new("last", "end", 0));
        for round in 0..ROUNDS {
            watcher.expect("last", round.to_string(), 0);
        }
        watcher.expect("last", "end", 0);
    });
}

#[test]
fn a_client_that_does_not_even_wait_for_its_connack_loses_nothing() {
    // Which of its connections is heard first is open, as they do not wait for one another; each is
    // heard to its end.
    const ROUNDS: usize = 200;
    let broker = Broker::start();
    let mut watcher = watcher(&broker);
    for round in 0..ROUNDS {
        let v = Version::ALL[round % Version::ALL.len()];
        let last = Message::new("last", round.to_string(), 0);
        let mut client = Client::dial(broker.addr(), v);
        client.send(&[device(v, "x").bytes(), last.bytes(v), vec![0xe0, 0]].concat());
    }
    let mut heard: Vec<usize> = (0..ROUNDS)
        .map(|_| {
            let publish = watcher.receive_publish();
            assert_eq!(publish.topic, "last", "a will");
            let number = String::from_utf8(publish.payload).expect("a number");
            number.parse().expect("a number")
        })
        .collect();
    heard.sort_unstable();
    assert_eq!(heard, (0..ROUNDS).collect::<Vec<_>>());
    watcher.expect_nothing();
}

#[test]
fn the_old_connections_last_packets_are_handled_in_order_and_then_it_ends() {
    // Unread packets, and no DISCONNECT after them: its will comes last.
    let broker = Broker::start();
    let mut watcher = watcher(&broker);
    for round in 0..100 {
        let v = Version::ALL[round % Version::ALL.len()];
        let mut old = device(v, "y").open(broker.addr());
        let publish = |n: usize| Message::new("t", format!("{round}.{n}"), 0);
        let said = (0..20).flat_map(|n| publish(n).bytes(v));
        old.send(&said.collect::<Vec<_>>());
        let new = device(v, "y").open(broker.addr());
        for n in 0..20 {
            watcher.expect("t", format!("{round}.{n}"), 0);
        }
        watcher.expect("will", "y", 0);
        new.disconnect();
        old.expect_disconnect(&[0x8e]);
    }
}

/// How long a CONNECT takes, in milliseconds, the shortest of a few.
fn shortest(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[0]
}

#[test]
fn an_old_connection_holds_nobody_up_for_long() {
    let broker = Broker::start();
    let publish = Message::new("flood", "x".repeat(200), 0);
    let flood = publish.bytes(Version::V5).repeat(500);
    let mut times = Vec::new();
    for _ in 0..5 {
        let mut old = TcpStream::connect(broker.addr()).expect("it listens");
        let connect = Connect::new(Version::V5, "z");
        old.write_all(&connect.bytes()).expect("it is open");
        let mut connack = [0; 4];
        old.read_exact(&mut connack).expect("a CONNACK");
        let flooding = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let (flooding, flood, mut old) = (&flooding, &flood, &old);
            scope.spawn(move || {
                while flooding.load(Ordering::Relaxed) && old.write_all(flood).is_ok() {}
                flooding.store(false, Ordering::Relaxed);
            });
            std::thread::sleep(Duration::from_millis(50));
            let start = Instant::now();
            let new = connect.open(broker.addr());
            times.push(start.elapsed());
            flooding.store(false, Ordering::Relaxed);
            new.disconnect();
        });
    }
    println!("flooding: {times:?}");
    assert!(shortest(times.clone()) < LONGEST, "{times:?}");
    // A silent one, and one that does not read what it is sent.
    let silent: Vec<Duration> = (0..5)
        .map(|_| {
            let mut old = Connect::new(Version::V5, "z").open(broker.addr());
            let start = Instant::now();
            let new = Connect::new(Version::V5, "z").open(broker.addr());
            let took = start.elapsed();
            old.expect_disconnect(&[0x8e]);
            new.disconnect();
            took
        })
        .collect();
    println!("silent: {silent:?}");
    assert!(
        shortest(silent.clone()) < Duration::from_millis(50),
        "{silent:?}"
    );
}

#[test]
fn an_old_connection_that_takes_nothing_is_taken_over_as_well() {
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "full");
    let mut old = connect.open(broker.addr());
    old.subscribe("t", 0);
    // More than the sockets between them hold: the broker cannot write to it.
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for _ in 0..40 {
        publisher.publish(&Message::new("t", vec![b'x'; 500_000], 0));
    }
    let start = Instant::now();
    let mut new = connect.open(broker.addr());
    assert!(start.elapsed() < TIMEOUT / 2);
    new.ping();
}
