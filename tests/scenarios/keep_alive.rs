//! Keep alive: one and a half times, no less and not for ever.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use support::{Broker, Connect, Message, Version, Will, property, raw};

use crate::each_version;

#[test]
fn a_silent_client_is_disconnected_after_one_and_a_half_keep_alives() {
    // [MQTT-3.1.2-22], 3.1.1: [MQTT-3.1.2-24]
    each_version(|broker, v| {
        let mut client = Connect::new(v, "silent").keep_alive(2).open(broker.addr());
        let start = Instant::now();
        client.expect_disconnect(&[0x8d]);
        let silent = start.elapsed();
        assert!(silent >= Duration::from_millis(2900), "after {silent:?}");
        assert!(silent < Duration::from_millis(6000), "after {silent:?}");
    });
}

#[test]
fn any_packet_keeps_a_client_alive() {
    each_version(|broker, v| {
        let mut client = Connect::new(v, "alive").keep_alive(1).open(broker.addr());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(500));
            client.ping();
        }
    });
}

#[test]
fn what_the_server_sends_does_not_keep_a_client_alive() {
    let broker = Broker::start();
    let mut client = Connect::new(Version::V5, "listener")
        .keep_alive(1)
        .open(broker.addr());
    client.subscribe("a", 0);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        publisher.publish(&support::Message::new("a", "x", 0));
        std::thread::sleep(Duration::from_millis(200));
    }
    client.expect_disconnect(&[0x8d]);
}

#[test]
fn without_keep_alive_a_client_may_be_silent() {
    // MQTT 5 section 3.1.2.10: 0 turns it off.
    let broker = Broker::start();
    let mut client = Connect::new(Version::V311, "quiet").open(broker.addr());
    std::thread::sleep(Duration::from_millis(2500));
    client.ping();
}

#[test]
fn the_servers_keep_alive_is_used_when_it_gives_one() {
    // [MQTT-3.2.2-21], [MQTT-3.2.2-22]
    let Some(broker) = Broker::with("[limits]\nmax_keepalive = \"1s\"\n") else {
        return;
    };
    for asked in [0, 600] {
        let connect = Connect::new(Version::V5, &format!("asked-{asked}")).keep_alive(asked);
        let (mut client, connack) = connect.open_with_answer(broker.addr());
        let given = connack.properties.number(property::SERVER_KEEP_ALIVE);
        assert_eq!(given, Some(1));
        client.expect_disconnect(&[0x8d]);
    }
    let connect = Connect::new(Version::V5, "modest").keep_alive(1);
    let (_, connack) = connect.open_with_answer(broker.addr());
    let given = connack.properties.number(property::SERVER_KEEP_ALIVE);
    assert_eq!(given, None, "nothing was lowered");
}

#[test]
fn a_keep_alive_that_is_too_long_is_refused_in_mqtt_3() {
    // MQTT 3 cannot be told another one.
    let Some(broker) = Broker::with("[limits]\nmax_keepalive = \"10s\"\n") else {
        return;
    };
    for v in Version::V3 {
        for asked in [0, 11] {
            let connect = Connect::new(v, "insistent").keep_alive(asked);
            let (mut client, connack) = connect.try_open(broker.addr());
            assert_eq!(connack.code, 2);
            client.expect_closed();
        }
        Connect::new(v, "modest")
            .keep_alive(10)
            .open(broker.addr())
            .ping();
    }
}

#[test]
fn bytes_of_an_unfinished_packet_keep_a_client_alive() {
    each_version(|broker, v| {
        let mut client = Connect::new(v, "slow").keep_alive(1).open(broker.addr());
        let mut body = raw::string("a");
        body.extend(7u16.to_be_bytes());
        if v.is5() {
            body.push(0);
        }
        body.extend([b'x'; 4000]);
        let packet = raw::frame(0x32, &body);
        for piece in packet.chunks(packet.len().div_ceil(20)) {
            client.send(piece);
            std::thread::sleep(Duration::from_millis(200));
        }
        client.puback_for(7);
    });
}

/// A client that keeps itself alive, and never reads again: what its socket holds is next to
/// nothing.
fn deaf(broker: &Broker, keep_alive: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(2048).expect("a socket option");
    socket.connect(&broker.addr().into()).expect("connected");
    let mut stream = TcpStream::from(socket);
    let will = Will::new(Message::new("gone", "deaf", 0));
    let connect = Connect::new(Version::V311, "deaf").keep_alive(keep_alive);
    stream.write_all(&connect.will(will).bytes()).expect("sent");
    let subscribe = raw::subscribe3(0x82, 1, b"a", 0);
    stream.write_all(&subscribe).expect("sent");
    stream.read_exact(&mut [0; 9]).expect("CONNACK and SUBACK");
    stream
}

#[test]
fn a_client_that_takes_nothing_is_closed_however_often_it_pings() {
    let Some(broker) = Broker::with("[limits]\nwrite_timeout = \"2s\"\n") else {
        return;
    };
    for keep_alive in [1, 0] {
        // What waits fits into the buffers of the operating system, or does not.
        for count in [30, 3000] {
            let mut watcher = Connect::new(Version::V5, "watcher").open(broker.addr());
            watcher.subscribe("gone", 0);
            let mut stream = deaf(&broker, keep_alive);
            let mut publisher = Connect::new(Version::V311, "publisher").open(broker.addr());
            let begun = Instant::now();
            for _ in 0..count {
                publisher.publish(&Message::new("a", [b'x'; 4000], 0));
            }
            // It may end while this is written.
            while stream.write_all(&[0xC0, 0]).is_ok() && begun.elapsed() < Duration::from_secs(30)
            {
                std::thread::sleep(Duration::from_millis(200));
            }
            let took = begun.elapsed();
            assert!(
                took < Duration::from_secs(20),
                "{keep_alive} {count}: {took:?}"
            );
            assert!(
                took > Duration::from_millis(1000),
                "{keep_alive} {count}: {took:?}"
            );
            watcher.expect("gone", "deaf", 0);
        }
    }
    broker.expect_log("takes nothing");
}

#[test]
fn a_client_that_takes_little_by_little_stays() {
    let broker = Broker::start();
    let mut stream = deaf(&broker, 1);
    let mut publisher = Connect::new(Version::V311, "publisher").open(broker.addr());
    for _ in 0..30 {
        publisher.publish(&Message::new("a", [b'x'; 4000], 0));
    }
    for _ in 0..30 {
        stream.write_all(&[0xC0, 0]).expect("it is open");
        stream.read_exact(&mut [0; 3000]).expect("it is open");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_broker_that_was_stopped_reads_what_has_come_before_it_gives_anybody_up() {
    let broker = Broker::start();
    let mut watcher = Connect::new(Version::V5, "watcher").open(broker.addr());
    watcher.subscribe("gone", 0);
    let mut clients: Vec<_> = (0..20)
        .map(|n| {
            let will = Will::new(Message::new("gone", n.to_string(), 0));
            let connect = Connect::new(Version::V5, &format!("client-{n}"));
            connect.keep_alive(1).will(will).open(broker.addr())
        })
        .collect();
    broker.signal("STOP");
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(500));
        clients
            .iter_mut()
            .for_each(|client| client.send(&[0xC0, 0]));
    }
    broker.signal("CONT");
    for _ in 0..6 {
        for client in &mut clients {
            client.ping();
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    watcher.expect_nothing();
    // Who is really silent is still found.
    let last = clients[0].receive_bytes_until_closed();
    assert!(last.ends_with(&[0xE0, 1, 0x8D]), "{last:?}");
}

#[test]
fn who_closes_his_sending_side_still_gets_what_is_owed() {
    each_version(|broker, v| {
        let mut watcher = Connect::new(Version::V5, "watcher").open(broker.addr());
        watcher.subscribe("gone", 0);
        watcher.subscribe("a", 1);
        let mut keeper = Connect::durable(v, "keeper").open(broker.addr());
        keeper.subscribe("a", 1);
        for n in 0..20 {
            let mut stream = TcpStream::connect(broker.addr()).expect("it listens");
            let will = Will::new(Message::new("gone", n.to_string(), 0));
            let mut bytes = Connect::new(v, "half").will(will).bytes();
            let properties: &[u8] = if v.is5() { &[0] } else { &[] };
            let id = 7u16.to_be_bytes();
            let body = raw::concat(&[&raw::string("a"), &id, properties, b"x"]);
            bytes.extend(raw::frame(0x32, &body));
            stream.write_all(&bytes).expect("sent");
            stream.shutdown(Shutdown::Write).expect("it is open");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("closed in order");
            assert_eq!(answer[0], 0x20, "{answer:?}");
            assert_eq!(answer[answer.len() - 4..], [0x40, 2, 0, 7], "{answer:?}");
            // It has not taken its leave.
            watcher.take();
            watcher.expect("gone", n.to_string(), 0);
        }
    });
}
