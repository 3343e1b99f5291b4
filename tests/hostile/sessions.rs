//! What clients have a broker keep for them: all of it is counted, and has a limit with an answer.

use support::raw::{self, publish5, subscribe5};
use support::{Client, Connect, Message, Packet, Properties, Subscription, Version, Will};

use crate::{Attack, make};

/// What all sessions take together, so that it is reached quickly.
const SESSIONS: &str = "max_session_bytes_total = \"16MB\"\n";

/// A text of this length that begins with a number.
fn text(number: u64, length: usize) -> String {
    format!("{number:08}{}", "x".repeat(length - 8))
}

/// Connects; whether the broker had room for it. Only 0x97 may say that it had not.
fn try_connect(connect: &Connect, broker: &support::Broker) -> Option<Client> {
    let (client, connack) = connect.try_open(broker.addr());
    match connack.code {
        0 => Some(client),
        0x97 => None,
        other => panic!("{other:#x} instead of 0 or 0x97"),
    }
}

#[test]
fn topic_aliases_of_many_clients() {
    make(&Attack {
        name: "100 topic aliases of 10 KB from each of 100 clients",
        limits: SESSIONS,
        most_mb: 90.0,
        run: |broker, scale| {
            let count = 100 * scale;
            let (mut kept, mut refused) = (Vec::new(), 0);
            for number in 0..count {
                let connect = Connect::new(Version::V5, &format!("alias-{number}"));
                let mut client = connect.open(broker.addr());
                let sent = (1..=100).all(|alias| {
                    let topic = text(alias, 10_000);
                    let block = [0x23, 0, alias as u8];
                    client.try_send(&publish5(0x30, topic.as_bytes(), None, &block, b""))
                });
                if sent && client.try_send(&[0xC0, 0]) && is_pong(&mut client) {
                    kept.push(client);
                } else {
                    refused += 1;
                }
            }
            // A megabyte each.
            assert!((10..=16).contains(&kept.len()), "{} kept", kept.len());
            // They may go on with the aliases they have.
            for client in &mut kept {
                client.send(&publish5(0x30, b"", None, &[0x23, 0, 100], b"x"));
                client.ping();
            }
            format!("{count} clients, {refused} disconnected")
        },
    });
}

/// Whether PINGRESP comes, and not the DISCONNECT of a broker that has no room.
fn is_pong(client: &mut Client) -> bool {
    match client.receive() {
        Packet::PingResp => true,
        Packet::Disconnect(end) if end.reason == 0x97 => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn wills_of_many_clients() {
    make(&Attack {
        name: "wills of 60 KB from each of 700 clients",
        limits: SESSIONS,
        most_mb: 90.0,
        run: |broker, scale| {
            let count = 700 * scale;
            let payload = vec![7; 60_000];
            let kept: Vec<Client> = (0..count)
                .filter_map(|number| {
                    let will = Will::new(Message::new("gone", &payload, 0));
                    let connect = Connect::new(Version::V5, &format!("will-{number}")).will(will);
                    try_connect(&connect, broker)
                })
                .collect();
            assert!((200..=266).contains(&kept.len()), "{} kept", kept.len());
            format!("{count} clients, {} refused", count - kept.len() as u64)
        },
    });
}

#[test]
fn long_client_identifiers() {
    make(&Attack {
        name: "sessions with client identifiers of 65 KB, left behind",
        limits: SESSIONS,
        most_mb: 90.0,
        run: |broker, scale| {
            let count = 1000 * scale;
            let kept = (0..count).filter(|number| {
                let connect = Connect::durable(Version::V5, &text(*number, 65_000));
                try_connect(&connect, broker)
                    .map(Client::disconnect)
                    .is_some()
            });
            let kept = kept.count() as u64;
            // Each counts twice: it is the session's, and the name it is found by.
            assert!((60..=123).contains(&kept), "{kept} kept");
            format!("{count} sessions, {} refused", count - kept)
        },
    });
}

#[test]
fn long_filters() {
    make(&Attack {
        name: "filters of 60 KB and 150 levels of one client",
        limits: "max_session_bytes = \"8MB\"\n",
        most_mb: 90.0,
        run: |broker, scale| {
            let count = 1000 * scale;
            let mut client = Connect::new(Version::V5, "greedy").open(broker.addr());
            let mut refused = 0;
            for number in 0..count {
                let level = text(number, 400);
                let filter = vec![&*level; 150].join("/");
                client.send(&subscribe5(0x82, 1, &[], filter.as_bytes(), 0));
                match client.receive() {
                    Packet::SubAck(suback) if suback.codes == [0x97] => refused += 1,
                    Packet::SubAck(suback) => assert_eq!(suback.codes, [0]),
                    other => panic!("{other:?} instead of SUBACK"),
                }
            }
            let kept = count - refused;
            assert!((100..=134).contains(&kept), "{kept} kept");
            format!("{count} filters, {refused} refused")
        },
    });
}

#[test]
fn shared_groups_of_one_client() {
    make(&Attack {
        name: "100,000 shared groups of one client, all offered each message",
        limits: "",
        most_mb: 120.0,
        run: |broker, scale| {
            let count = 100_000 * scale;
            let mut client = Connect::new(Version::V5, "groups").open(broker.addr());
            let (mut granted, mut refused) = (0, 0);
            for first in (0..count).step_by(1000) {
                let mut body = vec![0, 1, 0];
                for number in first..first + 1000 {
                    body.extend(raw::string(format!("$share/{number}/t")));
                    body.push(0);
                }
                client.send(&raw::frame(0x82, &body));
                match client.receive() {
                    Packet::SubAck(suback) => {
                        granted += suback.codes.iter().filter(|code| **code == 0).count();
                        refused += suback.codes.iter().filter(|code| **code == 0x97).count();
                    }
                    other => panic!("{other:?} instead of SUBACK"),
                }
            }
            assert_eq!((granted, refused as u64), (10_000, count - 10_000));
            let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
            for _ in 0..3 {
                publisher.publish(&Message::new("t", "x", 1));
            }
            format!("{granted} groups, {refused} refused")
        },
    });
}

#[test]
fn members_of_a_shared_group() {
    make(&Attack {
        name: "members of one shared group that take nothing, beyond max_group_members = 100",
        limits: "max_group_members = 100\n",
        most_mb: 60.0,
        run: |broker, scale| {
            let count = 300 * scale;
            let mut granted = 0;
            let members: Vec<Client> = (0..count)
                .map(|number| {
                    let connect = Connect::new(Version::V5, &format!("member-{number}"));
                    let mut client = connect.open(broker.addr());
                    let wanted = [Subscription::new("$share/g/t", 1)];
                    match client.subscribe_to(&wanted, &Properties::new())[..] {
                        [1] => granted += 1,
                        [0x97] => {}
                        ref other => panic!("{other:?}"),
                    }
                    client
                })
                .collect();
            assert_eq!(granted, 100);
            let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
            for _ in 0..1000 {
                publisher.publish(&Message::new("t", "x", 1));
            }
            drop(members);
            format!("{count} members, {} refused", count - granted)
        },
    });
}

#[test]
fn packets_with_very_many_filters() {
    make(&Attack {
        name: "SUBSCRIBE and UNSUBSCRIBE with 100,000 filters",
        limits: "",
        most_mb: 60.0,
        run: |broker, scale| {
            for round in 0..20 * scale {
                let mut client =
                    Connect::new(Version::V5, &format!("filters-{round}")).open(broker.addr());
                let (first, options) = [(0x82, &[0][..]), (0xA2, &[])][(round % 2) as usize];
                let mut body = vec![0, 1, 0];
                for number in 0..100_000_u32 {
                    body.extend(raw::string(format!("{number}")));
                    body.extend(options);
                }
                client.send(&raw::frame(first, &body));
                client.expect_disconnect(&[0x97]);
            }
            format!("{} packets", 20 * scale)
        },
    });
}

#[test]
fn subscription_identifiers_of_queued_messages() {
    make(&Attack {
        name: "4,096 filters that match one topic, with an identifier each, and 2,000 messages that wait for them",
        limits: "",
        most_mb: 90.0,
        run: |broker, scale| {
            let addr = broker.addr();
            let mut client = Connect::durable(Version::V5, "identified").open(addr);
            for bits in 0..1_u32 << 12 {
                let level = |at: u32| if bits >> at & 1 == 0 { "a" } else { "+" };
                let filter = (0..12).map(level).collect::<Vec<&str>>().join("/");
                let identifier = Properties::new().subscription_id(bits + 1);
                let wanted = [Subscription::new(&filter, 1)];
                assert_eq!(client.subscribe_to(&wanted, &identifier), [1]);
            }
            client.drop_connection();
            let topic = ["a"; 12].join("/");
            let mut publisher = Connect::new(Version::V5, "publisher").open(addr);
            let count = 2000 * scale;
            for _ in 0..count {
                publisher.publish(&Message::new(&topic, "0123456789", 1));
            }
            let mut client = Connect::durable(Version::V5, "identified").open(addr);
            let publish = client.receive_publish();
            assert_eq!(publish.properties.subscription_ids().len(), 100);
            format!("{count} messages")
        },
    });
}
