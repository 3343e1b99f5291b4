//! Nobody waits for somebody else's socket.

use std::time::{Duration, Instant};

use support::{Broker, Client, Connect, Message, Packet, Version};

/// How long an answer may take while others misbehave: far more than it takes, far less than
/// waiting for them would.
const SOON: Duration = Duration::from_secs(3);

fn answers_soon(client: &mut Client) {
    let start = Instant::now();
    client.ping();
    let took = start.elapsed();
    assert!(took < SOON, "a PING took {took:?}");
}

#[test]
fn a_client_that_does_not_read_delays_nobody() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let mut stuck = Connect::new(Version::V5, "stuck").open(broker.addr());
    stuck.subscribe("load/#", 0);
    let mut reader = Connect::new(Version::V5, "reader").open(broker.addr());
    reader.subscribe("load/#", 0);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    // 50 MB: far beyond what the sockets and the outbox of the one who is stuck can hold.
    for i in 0..1000 {
        publisher.send_publish(&Message::new("load/a", vec![i as u8; 50_000], 0));
        let publish = reader.receive_publish();
        assert_eq!(publish.payload[0], i as u8);
    }
    answers_soon(&mut publisher);
    answers_soon(&mut reader);
    // Whoever was stuck still has a connection, and gets what comes next once it reads.
    stuck.ping();
}

#[test]
fn a_client_that_does_not_read_is_gone_soon_after_its_session_was_taken_over() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let mut stuck = Connect::new(Version::V5, "stuck").open(broker.addr());
    stuck.subscribe("load", 0);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for _ in 0..400 {
        publisher.send_publish(&Message::new("load", [0; 50_000], 0));
    }
    publisher.ping();
    let start = Instant::now();
    Connect::new(Version::V5, "stuck").open(broker.addr());
    // What is sent to a connection that is closed comes back as an error; one that only hangs would
    // take in so little.
    while stuck.try_send(&[0xc0, 0]) {
        assert!(start.elapsed() < support::TIMEOUT, "it is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn qos_1_waits_for_a_client_that_does_not_read_and_nothing_is_lost() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let mut stuck = Connect::new(Version::V5, "stuck").open(broker.addr());
    stuck.subscribe("load", 1);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for i in 0..300u32 {
        let mut payload = vec![0; 20_000];
        payload[..4].copy_from_slice(&i.to_be_bytes());
        publisher.publish(&Message::new("load", payload, 1));
    }
    for i in 0..300u32 {
        let publish = stuck.take();
        assert_eq!(publish.payload[..4], i.to_be_bytes());
    }
    stuck.expect_nothing();
}

#[test]
fn a_client_that_neither_reads_its_answers_delays_nobody() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let mut deaf = Connect::new(Version::V5, "deaf").open(broker.addr());
    deaf.set_send_timeout(Duration::from_millis(500));
    // PINGs whose answers are never read: the broker stops reading, and the sender blocks.
    let pings = [0xc0, 0].repeat(10_000);
    let mut sent = 0;
    while deaf.try_send(&pings) && sent < 5000 {
        sent += 1;
    }
    assert!(sent < 5000, "100 MB of PINGs were taken in");
    let mut other = Connect::new(Version::V5, "other").open(broker.addr());
    answers_soon(&mut other);
}

#[test]
fn a_large_retained_replay_delays_nobody() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for i in 0..20_000 {
        publisher.send_publish(&Message::new(&format!("r/{i}"), [0; 100], 0).retained());
    }
    publisher.ping();
    let mut greedy = Connect::new(Version::V5, "greedy").open(broker.addr());
    greedy.send(&support::raw::subscribe5(0x82, 1, &[], b"r/#", 0));
    answers_soon(&mut publisher);
    let mut got = 0;
    while got < 20_000 {
        if let Packet::Publish(_) = greedy.receive() {
            got += 1;
        }
    }
}

#[test]
fn a_connection_that_sends_nothing_delays_nobody() {
    let broker = Broker::start();
    let silent: Vec<Client> = (0..200)
        .map(|_| Client::dial(broker.addr(), Version::V5))
        .collect();
    let mut half = Client::dial(broker.addr(), Version::V5);
    half.send(&[0x10, 100, 0, 4]);
    let mut client = Connect::new(Version::V5, "client").open(broker.addr());
    answers_soon(&mut client);
    drop(silent);
    answers_soon(&mut client);
}
