//! What the checkers judge by: what clients published, saw and were promised, and when the broker was handed it. The broker knows nothing of it.

use std::collections::BTreeMap;

use super::replay::Replay;
use crate::broker::record::Durability;

/// What topics begin with that only a shared group gets.
pub const SHARED: &str = "s/";

/// A promise that was broken, and how.
#[derive(Clone, Debug)]
pub struct Violation {
    pub promise: &'static str,
    pub what: String,
}

impl Violation {
    pub fn new(promise: &'static str, what: impl Into<String>) -> Violation {
        Violation {
            promise,
            what: what.into(),
        }
    }
}

/// A message a client meant to publish, or its will.
#[derive(Clone, Debug)]
pub struct Message {
    pub publisher: usize,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    /// An empty payload, which clears what is retained; it cannot be told apart from others in deliveries.
    pub empty: bool,
    /// Message expiry interval, seconds.
    pub expiry: Option<u32>,
    /// Bytes of payload.
    pub size: usize,
    pub will: bool,
    /// When the broker was handed a PUBLISH with it, each time.
    pub handled: Vec<Moment>,
    /// When its publisher had PUBACK, or the successful PUBREC.
    pub acknowledged: Option<Moment>,
    /// Its publisher has begun a new session and will not send it again.
    pub abandoned: bool,
    /// A crash may have taken it, as its level allows, and the broker has not been handed it since.
    pub lost: bool,
    /// When a crash may have taken it last, in the order of the run; 0 for never.
    pub lost_at: u64,
    /// It was on disk at a crash.
    pub kept: bool,
    /// A crash may have left it with a client that has received it and will not be asked to release it.
    pub unfinished: bool,
}

impl Message {
    /// In how many lives the broker was handed it.
    pub fn lives(&self) -> usize {
        let mut lives: Vec<u64> = self.handled.iter().map(|moment| moment.life).collect();
        lives.dedup();
        lives.len()
    }
}

/// A place in the order of all that happens, its broker time in milliseconds, and the life of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub order: u64,
    pub ms: u64,
    pub life: u64,
}

/// A message as a client's application got it: a QoS 2 message that was sent again under its identifier is not here again.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub message: usize,
    /// Which of the client's sessions got it.
    pub session: usize,
    pub qos: u8,
    /// It was retained when the client subscribed.
    pub retain: bool,
    pub ids: Vec<u32>,
}

/// What a client knows of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    Yes,
    No,
    /// A request is under way, or its answer was lost.
    Unknown,
}

/// One session of a client, from its first CONNACK until the client knows of its end.
#[derive(Clone, Debug)]
pub struct SessionLife {
    pub began: u64,
    pub ended: Option<u64>,
}

/// What a client has lived through.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub sessions: Vec<SessionLife>,
    /// By filter: since when it knows what.
    pub subscriptions: BTreeMap<String, Vec<(u64, Subscribed)>>,
    pub deliveries: Vec<Delivery>,
    /// Each SUBSCRIBE that asked for what is retained.
    pub replays: Vec<Replay>,
}

/// A publish that sets or clears a retained message, by a topic's only writer.
#[derive(Clone, Debug)]
pub struct RetainedWrite {
    pub message: usize,
    /// Some client knows that it was accepted.
    pub known: bool,
    /// When the broker was handed it last.
    pub handed: Option<Moment>,
    /// When the broker was handed it, each time that no crash may have undone.
    pub kept: Vec<Moment>,
}

#[derive(Debug, Default)]
pub struct History {
    pub messages: Vec<Message>,
    pub lives: Vec<Life>,
    /// By topic, in the order in which they were published.
    pub retained: BTreeMap<String, Vec<RetainedWrite>>,
    now: u64,
    order: u64,
    life: u64,
}

impl History {
    /// Broker time is now this, in milliseconds.
    pub fn set_now(&mut self, ms: u64) {
        self.now = ms;
    }

    /// The next moment.
    pub fn moment(&mut self) -> Moment {
        self.order += 1;
        Moment {
            order: self.order,
            ms: self.now,
            life: self.life,
        }
    }

    /// How far the order has come.
    pub fn order(&self) -> u64 {
        self.order
    }

    /// The broker is handed a message.
    pub fn handle(&mut self, number: usize) -> Moment {
        let moment = self.moment();
        let message = &mut self.messages[number];
        message.handled.push(moment);
        message.lost = false;
        moment
    }

    /// The broker has died. Everything that it was handed up to `safe` is on disk. `level` says how far acknowledgements of a topic wait.
    pub fn died(&mut self, power_cut: bool, safe: u64, level: impl Fn(&str) -> Durability) {
        let Moment { order, life, .. } = self.moment();
        self.life += 1;
        // What clears a topic cannot be told by its payload when it is handed over.
        let writes = self.retained.values().flatten();
        let cleared: Vec<(usize, Moment)> = writes
            .filter(|write| self.messages[write.message].empty)
            .filter_map(|write| Some((write.message, write.handed?)))
            .collect();
        for (number, message) in self.messages.iter_mut().enumerate() {
            let clear = cleared.iter().filter(|(cleared, _)| *cleared == number);
            let clear = clear.map(|(_, moment)| *moment);
            let handled = message.handled.iter().copied().chain(clear);
            let at_risk: Vec<Moment> = handled
                .filter(|moment| moment.order > message.lost_at)
                .collect();
            // What a process has written when it is killed is on disk with the first commit of a
            // later one, and is lost if the power goes before that. That it was written is known
            // where it was acknowledged.
            let is_written = message.acknowledged.filter(|it| it.order > message.lost_at);
            let of_life = at_risk.iter().filter(|moment| moment.life == life);
            let stored = of_life.chain(&is_written).any(|it| it.order <= safe);
            message.kept |= stored && level(&message.topic) != Durability::Memory;
            let is_lost = match level(&message.topic) {
                Durability::Fsync => false,
                Durability::Os => power_cut && !message.kept && !at_risk.is_empty(),
                Durability::Memory => {
                    message.unfinished = true;
                    true
                }
            };
            if is_lost {
                message.lost = true;
                message.lost_at = order;
            }
        }
        for write in self.retained.values_mut().flatten() {
            write.known &= !self.messages[write.message].lost;
            write.kept.retain(|moment| moment.order <= safe);
        }
    }

    pub fn add(&mut self, message: Message) -> usize {
        let number = self.messages.len();
        // Nobody is shown what is retained of the others.
        if message.retain && !message.will && !message.topic.starts_with(SHARED) {
            let writes = self.retained.entry(message.topic.clone()).or_default();
            writes.push(RetainedWrite {
                message: number,
                known: false,
                handed: None,
                kept: Vec::new(),
            });
        }
        self.messages.push(message);
        number
    }

    /// The publisher knows that the broker has it.
    pub fn acknowledged(&mut self, number: usize) {
        let moment = self.moment();
        self.messages[number].acknowledged.get_or_insert(moment);
        self.know_retained(number);
    }

    /// Somebody knows that it was accepted.
    pub fn know_retained(&mut self, number: usize) {
        let lost = self.messages[number].lost;
        if let Some(write) = self.retained_write(number).filter(|_| !lost) {
            write.known = true;
        }
    }

    /// The broker is handed it.
    pub fn handed(&mut self, number: usize, moment: Moment) {
        self.messages[number].lost = false;
        if let Some(write) = self.retained_write(number) {
            write.handed = Some(moment);
            write.kept.push(moment);
        }
    }

    fn retained_write(&mut self, number: usize) -> Option<&mut RetainedWrite> {
        let writes = self.retained.get_mut(&self.messages[number].topic)?;
        writes.iter_mut().find(|write| write.message == number)
    }

    /// By topic: the first retained write that a look at retained messages, begun now, may find. One of QoS 1 that is not acknowledged may be sent
    /// again, and then it is the last one accepted, whatever came after it the first time; so may one be that the broker was handed again later,
    /// even if its publisher gives up before it sends those after it again \[MQTT-4.4.0-1\]. A crash may
    /// have undone the last time that the broker was handed those.
    pub fn retained_floors(&self) -> BTreeMap<String, usize> {
        let floors = self.retained.iter().filter_map(|(topic, writes)| {
            let known = writes.iter().rposition(|write| write.known)?;
            let again = writes[..known].iter().position(|write| {
                let message = &self.messages[write.message];
                let is_to_come = message.acknowledged.is_none() && !message.abandoned;
                let kept = writes[known].kept.last().copied();
                message.qos == 1 && (is_to_come || write.handed > kept)
            });
            Some((topic.clone(), again.unwrap_or(known)))
        });
        floors.collect()
    }

    /// What a client knows of a filter from now on.
    pub fn subscription(&mut self, client: usize, filter: &str, state: Subscribed) {
        let order = self.moment().order;
        let log = &mut self.lives[client].subscriptions;
        log.entry(filter.to_owned())
            .or_default()
            .push((order, state));
    }
}

impl Life {
    /// The session the client believes to have; the last one.
    pub fn session(&self) -> Option<usize> {
        self.sessions.len().checked_sub(1)
    }

    /// What the client knew of a filter at a place in the order.
    pub fn subscribed(&self, filter: &str, order: u64) -> Subscribed {
        let log = self.subscriptions.get(filter);
        let last = log.and_then(|log| log.iter().rev().find(|(since, _)| *since <= order));
        last.map_or(Subscribed::No, |(_, state)| *state)
    }

    /// What the client knows of a filter now.
    pub fn subscribed_now(&self, filter: &str) -> Subscribed {
        self.subscribed(filter, u64::MAX)
    }
}

/// The number in a payload, if it is one of ours.
pub fn number_of(payload: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(payload).ok()?;
    text.strip_prefix('m')?.split(':').next()?.parse().ok()
}
