//! A subscriber that keeps the identifiers of QoS 2 messages until PUBREL, as section 4.3.3 demands
//! of a receiver.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use support::packet::Publish;
use support::{Client, Connect, Packet, Properties, Random, Subscription, Version};

use crate::world::World;

/// The subscribers whose sessions outlive their connections: they must miss nothing.
pub const DURABLE: [&str; 3] = ["durable-5", "durable-311", "durable-31"];

/// One message as a subscriber took it in.
pub struct Taken {
    /// Number of its publisher.
    pub publisher: usize,
    /// Number of the message.
    pub number: u64,
    /// QoS of the delivery.
    pub qos: u8,
}

/// What a subscriber has got by the end.
pub struct Received {
    /// Its client identifier.
    pub name: &'static str,
    /// Whether its session outlived its connections.
    pub durable: bool,
    /// Messages in the order in which it took them in; QoS 2 messages once per identifier until
    /// PUBREL.
    pub taken: Vec<Taken>,
    /// PUBLISH packets with the DUP flag.
    pub repeated: u64,
    /// Connections made.
    pub connections: u64,
}

struct Subscriber {
    world: Arc<World>,
    random: Random,
    /// QoS 2 identifiers that were received and not released.
    held: HashSet<u16>,
    seen: HashSet<(usize, u64)>,
    subscribed: bool,
    received: Received,
}

/// Starts a subscriber of all there is.
pub fn start(
    world: &Arc<World>,
    name: &'static str,
    version: Version,
    durable: bool,
    seed: u64,
) -> JoinHandle<Received> {
    let connect = match durable {
        true => crate::world::durable(version, name),
        false => Connect::new(version, name),
    };
    let mut subscriber = Subscriber {
        world: Arc::clone(world),
        random: Random::new(seed),
        held: HashSet::new(),
        seen: HashSet::new(),
        subscribed: false,
        received: Received {
            name,
            durable,
            taken: Vec::new(),
            repeated: 0,
            connections: 0,
        },
    };
    std::thread::spawn(move || {
        while subscriber.world.is_running() {
            if let Some((client, present)) = reconnect(&subscriber.world, &connect) {
                subscriber.received.connections += 1;
                subscriber.run(client, present);
            }
        }
        subscriber.received
    })
}

/// Connects to the broker where it is now; `None` if it is not there at the moment. Also says
/// whether the session was present.
pub fn reconnect(world: &World, connect: &Connect) -> Option<(Client, bool)> {
    let client = Client::try_dial(world.addr(), connect.version());
    let Some(mut client) = client else {
        std::thread::sleep(Duration::from_millis(2));
        return None;
    };
    client.send(&connect.bytes());
    match client.try_receive(Duration::from_secs(20)) {
        Ok(Some(Packet::ConnAck(connack))) => {
            assert_eq!(connack.code, 0, "{connack:?}");
            Some((client, connack.session_present))
        }
        Ok(None) => None,
        other => {
            println!("no CONNACK but {other:?}");
            world.fail();
            None
        }
    }
}

impl Subscriber {
    fn run(&mut self, mut client: Client, present: bool) {
        let durable = self.received.durable;
        if durable && self.subscribed && !present && client.version() != Version::V31 {
            println!("{}: its session is gone", self.received.name);
            self.world.fail();
        }
        if !durable {
            self.held.clear();
            self.seen.clear();
        }
        // A session that has its SUBACK is not asked again: its subscriptions must have survived.
        if !(durable && self.subscribed) {
            let filters = [
                Subscription::new("load/+", 2),
                Subscription::new("state/+", 2),
            ];
            let properties = Properties::new();
            if !client.try_subscribe(&filters, &properties) {
                return;
            }
            if durable {
                self.subscribed = true;
                self.world.subscribed();
            }
        }
        while self.world.is_running() {
            if self.random.one_in(5000) {
                return client.drop_connection();
            }
            match client.try_receive(Duration::from_millis(200)) {
                Ok(Some(Packet::Publish(publish))) => self.take(&mut client, &publish),
                Ok(Some(Packet::PubRel(ack))) => {
                    self.held.remove(&ack.id);
                    client.send_ack(0x70, ack.id);
                }
                Ok(Some(other)) => {
                    println!("{}: unexpected {other:?}", self.received.name);
                    self.world.fail();
                }
                Ok(None) => return,
                Err(error) if error.contains("sent nothing") => {}
                Err(error) => {
                    println!("{}: {error}", self.received.name);
                    return self.world.fail();
                }
            }
        }
        client.disconnect();
    }

    fn take(&mut self, client: &mut Client, publish: &Publish) {
        self.received.repeated += u64::from(publish.dup);
        let is_new = publish.qos < 2 || self.held.insert(publish.id);
        if is_new && !publish.retain {
            let (publisher, number) = parse(publish.text());
            self.received.taken.push(Taken {
                publisher,
                number,
                qos: publish.qos,
            });
            if self.seen.insert((publisher, number)) && self.received.durable {
                self.world.saw(self.received.name, publisher);
            }
        }
        match publish.qos {
            0 => {}
            1 => client.send_ack(0x40, publish.id),
            _ => client.send_ack(0x50, publish.id),
        }
    }
}

fn parse(payload: &str) -> (usize, u64) {
    let mut words = payload.split(' ').map(|word| word.parse::<u64>());
    match (words.next(), words.next()) {
        (Some(Ok(publisher)), Some(Ok(number))) => (publisher as usize, number),
        _ => panic!("a payload nobody sent: {payload:?}"),
    }
}
