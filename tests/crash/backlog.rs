//! Messages that wait for a client that is away: written before something happens to the broker,
//! and counted after.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use support::{Client, Connect, Message, Packet, Properties, Subscription, Version};

/// What one durable subscriber waits for: numbered messages, by turns of QoS 1 and 2, each QoS on a
/// topic of its own.
pub struct Backlog {
    /// The next number; none is used twice.
    next: u64,
    /// Numbers whose flow is complete. Others may have come as well: they were sent.
    acknowledged: BTreeSet<u64>,
}

/// Bytes of a payload, about.
const PAYLOAD: usize = 300;
/// Messages on their way at once.
const WINDOW: usize = 500;

fn subscriber(addr: SocketAddr) -> (Client, bool) {
    let (client, connack) = Connect::durable(Version::V5, "backlog").open_with_answer(addr);
    (client, connack.session_present)
}

impl Backlog {
    /// A subscriber that goes away at once.
    pub fn begin(addr: SocketAddr) -> Backlog {
        let (mut client, _) = subscriber(addr);
        let filters = [Subscription::new("backlog/#", 2)];
        assert_eq!(client.subscribe_to(&filters, &Properties::new()), [2]);
        client.disconnect();
        Backlog {
            next: 0,
            acknowledged: BTreeSet::new(),
        }
    }

    /// How many messages were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Publishes up to so many more, and gives the reason code that ended it: 0 when all were
    /// acknowledged. `None` if the broker is gone.
    pub fn publish(&mut self, addr: SocketAddr, count: u64) -> Option<u8> {
        let mut client = Connect::new(Version::V5, "filler").open(addr);
        client.set_send_timeout(support::TIMEOUT);
        let end = self.next + count;
        let mut flows: HashMap<u16, u64> = HashMap::new();
        while self.next < end || !flows.is_empty() {
            while self.next < end && flows.len() < WINDOW {
                let number = self.next;
                self.next += 1;
                let payload = format!("{number:0PAYLOAD$}");
                let topic = format!("backlog/{}", number % 2);
                let message = Message::new(&topic, payload, 1 + (number % 2) as u8);
                flows.insert(client.send_publish(&message), number);
            }
            match client.try_receive(support::TIMEOUT).expect("an answer") {
                Some(Packet::PubAck(ack) | Packet::PubRec(ack)) if ack.reason >= 0x80 => {
                    client.drop_connection();
                    return Some(ack.reason);
                }
                Some(Packet::PubRec(ack)) => client.send_ack(0x62, ack.id),
                Some(Packet::PubAck(ack) | Packet::PubComp(ack)) => {
                    self.acknowledged.extend(flows.remove(&ack.id));
                }
                Some(other) => panic!("{other:?} for a publisher"),
                None => return None,
            }
        }
        client.disconnect();
        Some(0)
    }

    /// Takes in all that was acknowledged and checks that nothing is missing, out of order on its
    /// topic or, at QoS 2, there twice. How many came.
    pub fn take_in(&self, addr: SocketAddr) -> usize {
        let (mut client, present) = subscriber(addr);
        assert!(present, "the session is gone");
        let mut missing = self.acknowledged.clone();
        let mut last = [None, None];
        let mut taken = 0;
        while !missing.is_empty() {
            let publish = match client.try_receive(support::TIMEOUT) {
                Ok(Some(Packet::Publish(publish))) => publish,
                Ok(Some(Packet::PubRel(ack))) => {
                    client.send_ack(0x70, ack.id);
                    continue;
                }
                other => panic!("{other:?}, and {} messages are missing", missing.len()),
            };
            client.send_ack(if publish.qos == 1 { 0x40 } else { 0x50 }, publish.id);
            let Ok(number) = publish.text().parse::<u64>() else {
                continue;
            };
            let last = &mut last[(number % 2) as usize];
            let again = publish.qos == 1 && publish.dup;
            assert!(Some(number) > *last || again, "{number} after {last:?}");
            *last = Some(number).max(*last);
            missing.remove(&number);
            taken += 1;
        }
        client.disconnect();
        taken
    }
}
