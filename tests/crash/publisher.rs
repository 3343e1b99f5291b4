//! A publisher that never gives up a message it has begun: it keeps packet identifiers, reconnects
//! and resends as section 4.4 demands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use support::{Client, Connect, Message, Packet, Random, Version};

use crate::world::World;

/// What a publisher has done by the end.
pub struct Sent {
    /// Its number.
    pub publisher: usize,
    /// QoS of its messages.
    pub qos: u8,
    /// Messages whose flow is complete: the numbers below this, in order.
    pub acknowledged: u64,
    /// Messages sent again.
    pub resent: u64,
    /// Connections made.
    pub connections: u64,
}

/// The topic of a publisher's messages, which is retained once in a while.
pub fn topic(publisher: usize) -> String {
    format!("load/{publisher}")
}

/// The topic that a publisher sets, retained, to the number of each message.
pub fn state(publisher: usize) -> String {
    format!("state/{publisher}")
}

struct Flow {
    number: u64,
    id: u16,
    retained: bool,
    released: bool,
    tries: u32,
}

struct Publisher {
    world: Arc<World>,
    connect: Connect,
    number: usize,
    qos: u8,
    window: usize,
    random: Random,
    next: u64,
    next_id: u16,
    flows: VecDeque<Flow>,
    sent: Sent,
}

/// Starts a publisher with a window of unacknowledged messages.
pub fn start(
    world: &Arc<World>,
    number: usize,
    version: Version,
    qos: u8,
    window: usize,
    seed: u64,
) -> JoinHandle<Sent> {
    let mut publisher = Publisher {
        world: Arc::clone(world),
        connect: crate::world::durable(version, &format!("publisher-{number}")),
        number,
        qos,
        window,
        random: Random::new(seed),
        next: 0,
        next_id: 0,
        flows: VecDeque::new(),
        sent: Sent {
            publisher: number,
            qos,
            acknowledged: 0,
            resent: 0,
            connections: 0,
        },
    };
    std::thread::spawn(move || {
        while publisher.world.is_publishing() || !publisher.flows.is_empty() {
            let client = crate::subscriber::reconnect(&publisher.world, &publisher.connect);
            if let Some((client, present)) = client {
                publisher.sent.connections += 1;
                publisher.run(client, present);
            }
        }
        publisher.sent
    })
}

impl Publisher {
    /// One connection, until it ends or all is done.
    fn run(&mut self, mut client: Client, present: bool) {
        // MQTT 3.1 has no session-present bit. A session that should be there and is not is a loss.
        let had_flows = self.flows.iter().any(|flow| flow.tries > 0);
        if had_flows && !present && client.version() != Version::V31 {
            println!("publisher {}: its session is gone", self.number);
            self.world.fail();
        }
        for i in 0..self.flows.len() {
            self.send(&mut client, i);
        }
        loop {
            if self.world.is_publishing() {
                while self.flows.len() < self.window {
                    self.begin();
                    self.send(&mut client, self.flows.len() - 1);
                }
            } else if self.flows.is_empty() {
                client.disconnect();
                return;
            }
            // Now and then a publisher loses its connection without the broker's help.
            if self.random.one_in(2000) {
                client.drop_connection();
                return;
            }
            match client.try_receive(Duration::from_secs(20)) {
                Ok(Some(packet)) => self.receive(&mut client, packet),
                Ok(None) => return,
                Err(error) => {
                    println!("publisher {}: {error}", self.number);
                    return self.world.fail();
                }
            }
        }
    }

    /// Takes the next number. Every second message is the retained state of this publisher.
    fn begin(&mut self) {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.flows.push_back(Flow {
            number: self.next,
            id: self.next_id,
            retained: self.next % 2 == 1,
            released: false,
            tries: 0,
        });
        self.next += 1;
    }

    /// Sends a message, or what is left of its flow, as after a reconnection [MQTT-4.4.0-1].
    fn send(&mut self, client: &mut Client, index: usize) {
        let flow = &mut self.flows[index];
        flow.tries += 1;
        self.sent.resent += u64::from(flow.tries == 2);
        if flow.released {
            return client.send_ack(0x62, flow.id);
        }
        let payload = format!("{} {}", self.number, flow.number);
        let message = match flow.retained {
            true => Message::new(&state(self.number), payload, self.qos).retained(),
            false => Message::new(&topic(self.number), payload, self.qos),
        };
        client.send_publish_as(&message, flow.id, flow.tries > 1);
    }

    fn receive(&mut self, client: &mut Client, packet: Packet) {
        match packet {
            Packet::PubAck(ack) => {
                assert!(ack.reason < 0x80, "publisher {}: {ack:?}", self.number);
                self.flows.retain(|flow| flow.id != ack.id);
            }
            Packet::PubRec(ack) => {
                assert!(ack.reason < 0x80, "publisher {}: {ack:?}", self.number);
                if let Some(flow) = self.flows.iter_mut().find(|flow| flow.id == ack.id) {
                    flow.released = true;
                }
                client.send_ack(0x62, ack.id);
            }
            // 0x92: the PUBCOMP before the crash was lost, and the flow was complete.
            Packet::PubComp(ack) => self.flows.retain(|flow| flow.id != ack.id),
            other => {
                println!("publisher {}: unexpected {other:?}", self.number);
                self.world.fail();
            }
        }
        self.sent.acknowledged = self.flows.front().map_or(self.next, |flow| flow.number);
    }
}
