//! The attacks. Each says how much of it there was.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::raw::{self, publish5, subscribe5};
use support::{Client, Connect, Message, Packet, Version};

use crate::{Attack, make};

/// A connection on which nothing has been sent, and whose sender gives up when the broker no longer
/// reads.
fn dial(addr: SocketAddr) -> Client {
    let mut client = Client::dial(addr, Version::V5);
    client.set_send_timeout(Duration::from_millis(500));
    client
}

fn connected(addr: SocketAddr, id: &str) -> Client {
    let mut client = Connect::new(Version::V5, id).open(addr);
    client.set_send_timeout(Duration::from_millis(500));
    client
}

/// A packet's first byte and the length of a body that will never be complete.
fn header(first: u8, length: u32) -> Vec<u8> {
    [vec![first], raw::length(length)].concat()
}

#[test]
fn nobody() {
    make(&Attack {
        name: "nobody: the pair alone",
        limits: "",
        most_mb: 60.0,
        run: |_, _| {
            std::thread::sleep(Duration::from_secs(2));
            "nothing".to_owned()
        },
    });
}

#[test]
fn connects_that_never_end() {
    make(&Attack {
        name: "CONNECTs of 1 MB, all but the last byte",
        limits: "",
        most_mb: 100.0,
        run: |broker, scale| {
            let count = 100 * scale;
            let body = vec![b'x'; 999_990];
            let mut slow: Vec<Client> = (0..count).map(|_| dial(broker.addr())).collect();
            for client in &mut slow {
                client.try_send(&[header(0x10, 1_000_000), raw::string("MQTT"), vec![5]].concat());
            }
            for part in body.chunks(50_000) {
                for client in &mut slow {
                    client.try_send(part);
                }
            }
            // Those that had to go leave room for one that means it.
            Connect::new(Version::V5, "honest")
                .open(broker.addr())
                .ping();
            format!("{count} connections")
        },
    });
}

#[test]
fn publishes_that_never_end() {
    make(&Attack {
        name: "PUBLISHes of 1 MB, all but the last byte, each by a client of its own",
        limits: "",
        most_mb: 100.0,
        run: |broker, scale| {
            let count = 100 * scale;
            let part = vec![0; 50_000];
            let mut slow: Vec<Client> = (0..count)
                .map(|i| connected(broker.addr(), &format!("slow-{i}")))
                .collect();
            for client in &mut slow {
                client.try_send(&header(0x30, 1_000_000));
            }
            for _ in 0..19 {
                for client in &mut slow {
                    client.try_send(&part);
                }
            }
            // The first is told why it had to go.
            slow[0].expect_disconnect(&[0x97]);
            format!("{count} clients")
        },
    });
}

#[test]
fn connections_that_say_nothing() {
    make(&Attack {
        name: "connections that send nothing, or the first bytes of a CONNECT",
        limits: "connect_timeout = \"2s\"\n",
        most_mb: 60.0,
        run: |broker, scale| {
            let count = (1000 * scale).min(9000);
            let mut silent: Vec<Client> = (0..count).map(|_| dial(broker.addr())).collect();
            for client in silent.iter_mut().step_by(2) {
                client.try_send(&[0x10, 100, 0, 4, b'M']);
            }
            let last = silent.last_mut().expect("there is one");
            last.expect_closed();
            format!("{count} connections")
        },
    });
}

#[test]
fn a_hundred_thousand_subscriptions_of_one_client() {
    make(&Attack {
        name: "subscriptions of one client, to filters with wildcards",
        limits: "",
        most_mb: 700.0,
        run: |broker, scale| {
            let count = 100_000 * scale;
            let mut client = connected(broker.addr(), "greedy");
            client.set_send_timeout(Duration::from_secs(10));
            for first in (0..count).step_by(1000) {
                let mut body = vec![0, 1, 0];
                for i in first..first + 1000 {
                    body.extend(raw::string(format!("s/+/{i}/#")));
                    body.push(0);
                }
                assert!(client.try_send(&raw::frame(0x82, &body)));
                match client.receive() {
                    Packet::SubAck(suback) => assert_eq!(suback.codes.len(), 1000),
                    other => panic!("{other:?} instead of SUBACK"),
                }
            }
            format!("{count} subscriptions")
        },
    });
}

#[test]
fn more_subscriptions_than_allowed() {
    make(&Attack {
        name: "subscriptions beyond max_subscriptions = 1000",
        limits: "max_subscriptions = 1000\n",
        most_mb: 60.0,
        run: |broker, scale| {
            let count = 10_000 * scale;
            let mut client = connected(broker.addr(), "greedy");
            let mut refused = 0;
            for i in 0..count {
                client.send(&subscribe5(0x82, 1, &[], format!("s/{i}").as_bytes(), 0));
                match client.receive() {
                    Packet::SubAck(suback) => refused += u64::from(suback.codes == [0x97]),
                    other => panic!("{other:?} instead of SUBACK"),
                }
            }
            assert_eq!(refused, count - 1000);
            format!("{count} subscriptions")
        },
    });
}

#[test]
fn tiny_packets() {
    make(&Attack {
        name: "PINGREQs and empty PUBLISHes of 4 clients that never read",
        limits: "",
        most_mb: 60.0,
        run: |broker, scale| {
            let addr = broker.addr();
            let sent: u64 = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|i| {
                        scope.spawn(move || {
                            let mut client = connected(addr, &format!("tiny-{i}"));
                            let packet = match i % 2 {
                                0 => vec![0xc0, 0],
                                _ => publish5(0x30, b"t", None, &[], b""),
                            };
                            let packets = packet.repeat(10_000);
                            let end = Instant::now() + Duration::from_secs(scale.min(10));
                            let mut sent = 0;
                            while Instant::now() < end && client.try_send(&packets) {
                                sent += 10_000;
                            }
                            sent
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|t| t.join().expect("it sends"))
                    .sum()
            });
            format!("{} million packets", sent / 1_000_000)
        },
    });
}

#[test]
fn giant_packets() {
    make(&Attack {
        name: "packets of 256 MB announced, and messages of 1 MB sent to a client that never reads",
        limits: "",
        most_mb: 120.0,
        run: |broker, scale| {
            let mut stuck = connected(broker.addr(), "stuck");
            stuck.subscribe("giant", 1);
            for i in 0..10 * scale {
                let mut client = connected(broker.addr(), &format!("giant-{i}"));
                client.try_send(&header(0x30, 0x0fff_ffff));
                client.expect_disconnect(&[0x95]);
            }
            let mut client = connected(broker.addr(), "large");
            let payload = vec![7; 1_000_000];
            for i in 0..20 * scale {
                let qos = (i % 2) as u8;
                client.publish(&Message::new("giant", &payload, qos));
            }
            format!("{} announced, {} sent", 10 * scale, 20 * scale)
        },
    });
}

#[test]
fn subscribe_storms() {
    make(&Attack {
        name: "4 clients that subscribe to and unsubscribe from 5,000 retained messages and never read",
        limits: "",
        most_mb: 80.0,
        run: |broker, scale| {
            let addr = broker.addr();
            let mut publisher = connected(addr, "retainer");
            for i in 0..5000 {
                publisher.send_publish(&Message::new(&format!("r/{i}"), [0; 100], 0).retained());
            }
            publisher.ping();
            let sent: u64 = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|i| {
                        scope.spawn(move || {
                            let mut client = connected(addr, &format!("storm-{i}"));
                            let unsubscribe =
                                raw::frame(0xa2, &[vec![0, 2, 0], raw::string("r/#")].concat());
                            let round = [subscribe5(0x82, 1, &[], b"r/#", 1), unsubscribe].concat();
                            let end = Instant::now() + Duration::from_secs(scale.min(10));
                            let mut sent = 0;
                            while Instant::now() < end && client.try_send(&round.repeat(10)) {
                                sent += 10;
                            }
                            sent
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|t| t.join().expect("it sends"))
                    .sum()
            });
            format!("{sent} pairs of SUBSCRIBE and UNSUBSCRIBE")
        },
    });
}

#[test]
fn reconnect_storms_with_one_client_identifier() {
    make(&Attack {
        name: "connections with one client identifier, each of which takes the session from the last and reads nothing",
        limits: "",
        most_mb: 80.0,
        run: |broker, scale| {
            let addr = broker.addr();
            let mut publisher = connected(addr, "publisher");
            let mut first = Connect::durable(Version::V5, "same").open(addr);
            first.subscribe("same/#", 1);
            for _ in 0..100 {
                publisher.publish(&Message::new("same/topic", [0; 10_000], 1));
            }
            let opened: u64 = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(move || {
                            let connect = Connect::durable(Version::V5, "same").bytes();
                            let end = Instant::now() + Duration::from_secs(scale.min(10));
                            let mut kept = std::collections::VecDeque::new();
                            let mut opened = 0;
                            while Instant::now() < end {
                                let mut client = dial(addr);
                                client.try_send(&connect);
                                // The last hundred stay, so that the broker cannot rid itself of
                                // what they do not read.
                                kept.push_back(client);
                                if kept.len() > 100 {
                                    kept.pop_front();
                                }
                                opened += 1;
                            }
                            opened
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|t| t.join().expect("it connects"))
                    .sum()
            });
            format!("{opened} connections")
        },
    });
}

#[test]
fn a_flood_to_readers_that_have_stopped() {
    make(&Attack {
        name: "messages of 4 KB at QoS 0 and 1 to 100 clients that never read",
        limits: "",
        most_mb: 120.0,
        run: |broker, scale| {
            let addr = broker.addr();
            let stuck: Vec<Client> = (0..100)
                .map(|i| {
                    let mut client = connected(addr, &format!("stuck-{i}"));
                    client.subscribe("flood", (i % 2) as u8);
                    client
                })
                .collect();
            let mut publisher = connected(addr, "flood");
            publisher.set_send_timeout(Duration::from_secs(10));
            let count = 2000 * scale;
            for i in 0..count {
                let message = Message::new("flood", [1; 4000], (i % 2) as u8);
                match i % 2 {
                    0 => drop(publisher.send_publish(&message)),
                    _ => drop(publisher.publish(&message)),
                }
            }
            drop(stuck);
            format!("{count} messages")
        },
    });
}

#[test]
fn large_messages_to_very_many() {
    make(&Attack {
        name: "messages of 1 MB to 500 clients, who read one after the other",
        limits: "",
        // Their payloads are shared: each counts once, however many it is for.
        most_mb: 60.0,
        run: |broker, scale| {
            let addr = broker.addr();
            let clients = (0..500).map(|i| {
                let mut client = connected(addr, &format!("reader-{i}"));
                client.subscribe("large", 1);
                client
            });
            let mut clients: Vec<Client> = clients.collect();
            let mut publisher = connected(addr, "large");
            let count = 2 * scale;
            for i in 0..count {
                let message = Message::new("large", vec![i as u8; 1_000_000], 1);
                publisher.publish(&message);
                for client in &mut clients {
                    let payload = client.take().payload;
                    assert!(payload.len() == 1_000_000 && payload[0] == i as u8);
                }
            }
            format!("{count} messages")
        },
    });
}
