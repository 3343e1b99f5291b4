//! A message for more sessions than get it in one go: acknowledged, and SIGKILL before most of them
//! have it.

use std::net::SocketAddr;
use std::time::Duration;

use support::{Client, Connect, Message, Packet, Properties, Subscription, Version};

/// More than get a message of QoS 2 at once.
const SESSIONS: usize = 3000;

fn open(addr: SocketAddr, n: usize) -> (Client, bool) {
    let connect = Connect::durable(Version::V5, &format!("fan-{n}"));
    let (client, connack) = connect.open_with_answer(addr);
    (client, connack.session_present)
}

/// Makes the sessions, which go away.
pub fn begin(addr: SocketAddr) {
    for n in 0..SESSIONS {
        let (mut client, _) = open(addr, n);
        let filters = [Subscription::new("fan/out", 2)];
        assert_eq!(client.subscribe_to(&filters, &Properties::new()), [2]);
        client.disconnect();
    }
}

/// Publishes these and waits until the first is acknowledged: most sessions have none of them by
/// then.
pub fn publish(addr: SocketAddr, payloads: &[String]) -> Client {
    let mut client = Connect::new(Version::V311, "one").open(addr);
    for payload in payloads {
        client.send_publish(&Message::new("fan/out", payload.as_str(), 2));
    }
    match client.try_receive(support::TIMEOUT) {
        Ok(Some(Packet::PubRec(_))) => client,
        other => panic!("{other:?} and no PUBREC"),
    }
}

/// Every session takes what there is for it: the first of these, in their order, each once, and as
/// many as all other sessions do. How many.
pub fn take_in(addr: SocketAddr, payloads: &[String]) -> usize {
    let mut kept = None;
    for n in 0..SESSIONS {
        let (mut client, present) = open(addr, n);
        assert!(present, "session {n} is gone");
        let mut taken = 0;
        while kept.is_none_or(|kept| taken < kept) {
            let wait = match kept {
                None => Duration::from_secs(1),
                Some(_) => support::TIMEOUT,
            };
            match client.try_receive(wait) {
                Ok(Some(Packet::Publish(publish))) => {
                    assert_eq!(publish.text(), payloads[taken], "session {n}");
                    client.send_ack(0x50, publish.id);
                    taken += 1;
                }
                Ok(Some(Packet::PubRel(ack))) => client.send_ack(0x70, ack.id),
                Err(_) if kept.is_none() => break,
                other => panic!("{other:?} for session {n}, which has {taken} of {kept:?}"),
            }
        }
        kept = Some(taken);
        client.expect_nothing_but_pubrel();
        client.disconnect();
    }
    kept.unwrap_or(0)
}
