//! The process dies at every place where a batch begins or ends, and the promises hold.

use super::*;

/// A publisher and a subscriber that follow the standard, and carry a run of QoS 2 messages through
/// a broker that may die.
struct Exchange {
    world: World,
    publisher: Peer,
    subscriber: Peer,
    /// What the publisher has to say, and what it is waiting for: PUBREC or PUBCOMP.
    sending: usize,
    released: bool,
    /// Identifiers the subscriber has received and not been asked to release.
    held: Vec<u16>,
    got: Vec<String>,
    /// Commits left until the process dies.
    fuse: Option<Fuse>,
}

#[derive(Clone, Copy)]
struct Fuse {
    commits: usize,
    /// The last batch reached the disk, but nobody heard of it.
    reached: bool,
}

const MESSAGES: usize = 3;

impl Exchange {
    fn new() -> Exchange {
        let mut world = World::new();
        let subscriber = world.connect(&durable("sub"));
        world.subscribe(subscriber, "t", 2);
        let publisher = world.connect(&durable("pub"));
        let mut exchange = Exchange {
            world,
            publisher,
            subscriber,
            sending: 0,
            released: false,
            held: Vec::new(),
            got: Vec::new(),
            fuse: None,
        };
        exchange.say(false);
        exchange
    }

    /// The publisher says what it has to say next; the identifier is the same for all messages.
    fn say(&mut self, again: bool) {
        if self.sending == MESSAGES {
            return;
        }
        if self.released {
            self.world.pubrel(self.publisher, 1);
        } else {
            let payload = self.sending.to_string();
            let publish = Publish {
                dup: again,
                ..message(2, 1, "t", &payload)
            };
            self.world.publish(self.publisher, publish);
        }
    }

    /// Lets both clients read what there is, and answer; whether that was anything.
    fn read(&mut self) -> bool {
        let to_publisher = self.world.got(self.publisher);
        let to_subscriber = self.world.got(self.subscriber);
        let quiet = to_publisher.is_empty() && to_subscriber.is_empty();
        for line in to_publisher {
            match line.split(' ').next() {
                Some("PUBREC") if !self.released => {
                    self.released = true;
                    self.say(false);
                }
                Some("PUBCOMP") if self.released => {
                    self.released = false;
                    self.sending += 1;
                    self.say(false);
                }
                _ => {}
            }
        }
        for line in to_subscriber {
            let id = line.split('#').nth(1).and_then(|id| id.split(' ').next());
            let Some(id) = id.and_then(|id| id.parse::<u16>().ok()) else {
                continue;
            };
            if line.starts_with("PUBLISH") {
                if !self.held.contains(&id) {
                    self.held.push(id);
                    let payload = line.split('=').nth(1).unwrap_or_default();
                    self.got.push(payload.to_owned());
                }
                self.world.pubrec(self.subscriber, id);
            } else if line.starts_with("PUBREL") {
                self.held.retain(|held| *held != id);
                self.world.pubcomp(self.subscriber, id);
            }
        }
        !quiet
    }

    /// One step: reading, or a commit, or the answer to a fetch. False at the end.
    fn step(&mut self) -> bool {
        if self.read() {
            return true;
        }
        self.world.take_fetches();
        if !self.world.fetches.is_empty() {
            self.world.answer_fetches();
            return true;
        }
        self.world.broker.flush();
        if !self.world.take() {
            return self.sending < MESSAGES;
        }
        if let Some(fuse) = &mut self.fuse {
            if fuse.commits == 0 {
                let fuse = *fuse;
                self.fuse = None;
                self.die(fuse);
                return true;
            }
            fuse.commits -= 1;
        }
        self.world.durable();
        true
    }

    fn die(&mut self, fuse: Fuse) {
        let batch = self.world.committing.take().expect("it is taken");
        if fuse.reached {
            for write in batch.writes {
                self.world.disk.apply(write);
            }
        }
        self.world.crash();
        self.subscriber = self.world.connect(&durable("sub"));
        self.publisher = self.world.connect(&durable("pub"));
        self.say(true);
    }
}

#[test]
fn qos_2_is_exactly_once_and_in_order_whichever_batch_the_process_dies_in() {
    let mut deaths = 0;
    for commits in 0..40 {
        for reached in [false, true] {
            let mut exchange = Exchange::new();
            exchange.fuse = Some(Fuse { commits, reached });
            let mut steps = 0;
            while exchange.step() {
                steps += 1;
                assert!(steps < 1_000, "no end (fuse {commits}, {reached})");
            }
            deaths += usize::from(exchange.fuse.is_none());
            assert_eq!(exchange.got, ["0", "1", "2"], "fuse {commits}, {reached}");
            exchange.world.assert_nothing_left();
        }
    }
    assert!(deaths > 10, "{deaths}");
}

#[test]
fn qos_2_is_exactly_once_through_two_deaths() {
    for first in 0..12 {
        for second in 0..12 {
            for reached in 0..4 {
                let mut exchange = Exchange::new();
                exchange.fuse = Some(Fuse {
                    commits: first,
                    reached: reached & 1 != 0,
                });
                let mut died = false;
                while exchange.step() {
                    if exchange.fuse.is_none() && !died {
                        died = true;
                        exchange.fuse = Some(Fuse {
                            commits: second,
                            reached: reached & 2 != 0,
                        });
                    }
                }
                assert_eq!(exchange.got, ["0", "1", "2"], "{first} {second} {reached}");
                exchange.world.assert_nothing_left();
            }
        }
    }
}
