//! Many logins at once, and what a pair of clients that is connected already notices of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Broker, Client, Connect, Message, Packet, Version};

use super::password_file;

/// Logins of one storm; `TIDEGATE_STORM=2000` for a measurement.
fn logins() -> usize {
    support::number("TIDEGATE_STORM", 40) as usize
}

/// The times from PUBLISH to delivery, one message every two milliseconds, until it is told to
/// stop.
fn measure(pair: &mut Client, stop: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        pair.send_publish(&Message::new("pair", "m", 0));
        pair.expect("pair", "m", 0);
        times.push(start.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    times.sort();
    times
}

fn at(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

/// All CONNECTs are sent before the first CONNACK is waited for.
fn storm(broker: &Broker, count: usize) -> Duration {
    let start = Instant::now();
    let mut clients: VecDeque<Client> = (0..count)
        .map(|n| {
            let mut client = Client::dial(broker.addr(), Version::V5);
            let connect = Connect::new(Version::V5, &format!("storm{n}"));
            client.send(&connect.login("ann", Some(b"secret")).bytes());
            client
        })
        .collect();
    let mut open = Vec::new();
    while let Some(mut client) = clients.pop_front() {
        match client.try_receive(Duration::from_secs(600)) {
            Ok(Some(Packet::ConnAck(connack))) => assert_eq!(connack.code, 0),
            other => panic!("{other:?} instead of a CONNACK"),
        }
        open.push(client);
    }
    start.elapsed()
}

fn storm_of(hash: &str) {
    let count = logins();
    let (_dir, file) = password_file(&[("ann", "secret")], hash);
    let config = format!(
        "[limits]\nconnect_timeout = \"1h\"\n[authentication]\npassword_file = {file:?}\n[[listeners]]\nbind = \"127.0.0.1:0\"\n"
    );
    let broker = Broker::with(&config).expect("Tidegate");
    let connect = Connect::new(Version::V5, "pair").login("ann", Some(b"secret"));
    let mut pair = connect.open(broker.addr());
    pair.subscribe("pair", 0);
    let stop = AtomicBool::new(false);
    let quiet = std::thread::scope(|scope| {
        let measuring = scope.spawn(|| measure(&mut pair, &stop));
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        measuring.join().expect("measured")
    });
    stop.store(false, Ordering::Relaxed);
    let (took, stormy) = std::thread::scope(|scope| {
        let measuring = scope.spawn(|| measure(&mut pair, &stop));
        let took = storm(&broker, count);
        stop.store(true, Ordering::Relaxed);
        (took, measuring.join().expect("measured"))
    });
    for (name, times) in [("quiet", &quiet), ("storm", &stormy)] {
        println!(
            "{hash}, {name}: {} messages, latency 50 % {:?}, 99 % {:?}, longest {:?}",
            times.len(),
            at(times, 50),
            at(times, 99),
            at(times, 100)
        );
    }
    println!("{hash}: {count} logins in {took:?}");
    // Lenient, as others may use the machine: a broker that hashed where it serves would take tens
    // of milliseconds for every message.
    let most = at(&quiet, 50) + Duration::from_millis(15);
    assert!(at(&stormy, 50) < most, "{:?}", at(&stormy, 50));
}

#[test]
fn a_login_storm_does_not_hold_up_those_who_are_there() {
    for hash in ["argon2id", "sha512-pbkdf2"] {
        storm_of(hash);
    }
}
