//! A message on its way into queues, and its receivers.

use crate::broker::model::ids::{GroupIndex, SessionIndex};
use crate::broker::model::message::{Message, Parts};
use crate::broker::model::record::{Durability, Seq, SubscriptionIds};
use crate::broker::model::segments::SHARED_FROM;
use crate::broker::state::gate::Stamp;
use crate::broker::state::queued::Queued;
use crate::broker::state::tree::Subscriber;
use crate::wire::{PropertiesBuf, QoS, ReasonCode};

/// How many messages at the front of a connected client's queue keep their bodies in memory.
pub const HOT_MESSAGES: usize = 512;

/// Receivers of the message being published; kept for their allocations.
#[derive(Debug, Default)]
pub struct Routes {
    pub subscribers: Vec<Subscriber>,
    pub receivers: Vec<Receiver>,
    pub groups: Vec<GroupIndex>,
    /// Encoded QoS 0 deliveries that several receivers share.
    pub frames: Frames,
}

/// A session that gets the message, once.
#[derive(Debug)]
pub struct Receiver {
    pub subscriber: Subscriber,
    pub ids: SubscriptionIds,
}

/// QoS 0 PUBLISH packets encoded once for all receivers of a kind: by version, and by retain flag.
#[derive(Debug, Default)]
pub struct Frames([Vec<u8>; 4]);

impl Frames {
    /// The frame for receivers of a kind; empty if it has not been made yet.
    pub fn of(&mut self, v5: bool, retain: bool) -> &mut Vec<u8> {
        &mut self.0[usize::from(v5) * 2 + usize::from(retain)]
    }

    pub fn clear(&mut self) {
        self.0.iter_mut().for_each(Vec::clear);
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// What its acknowledgement waits for.
    pub stamp: Stamp,
    /// Success; 0x10 if nobody subscribes; 0x97 if it was refused, or if nothing took it: queues
    /// are full, or nobody subscribes and it was not retained.
    pub reason: ReasonCode,
    /// What else there is to say.
    pub why: Option<&'static str>,
    /// Nobody was given it, and whoever publishes it is to come again.
    pub refused: bool,
    /// Its place in the order, if anything of it is stored.
    pub seq: Option<Seq>,
}

impl Published {
    pub const REFUSED: Published = Published {
        stamp: Stamp::NONE,
        reason: ReasonCode::QuotaExceeded,
        why: None,
        refused: true,
        seq: None,
    };

    /// Nothing became of it.
    pub fn nothing(reason: ReasonCode) -> Published {
        Published {
            stamp: Stamp::NONE,
            reason,
            why: None,
            refused: false,
            seq: None,
        }
    }
}

/// A message on its way into queues.
pub struct Offer<'a> {
    pub parts: &'a Parts<'a>,
    /// Made when the first queue needs it.
    pub body: Option<Message>,
    pub seq: Seq,
    /// How far acknowledgements wait for messages of this topic.
    pub level: Durability,
    /// What deliveries wait for that reveal it: it is being written, for whomever.
    pub stamp: Stamp,
    /// Queues that have stored it.
    pub stored: u32,
    /// No bridge whose queue is full has refused it.
    pub admitted: bool,
    /// A client has been sent it, or a queue has it.
    pub taken: bool,
    /// A queue that is full has not taken it.
    pub dropped: bool,
    /// The session of its publisher.
    pub from: Option<SessionIndex>,
    /// There is more than one receiver.
    pub is_for_many: bool,
}

impl Offer<'_> {
    pub fn body(&mut self) -> Message {
        self.body
            .get_or_insert_with(|| Message::new(self.parts))
            .clone()
    }

    /// The message, if deliveries at QoS 0 share its payload: it is large, and is shared already or
    /// will be.
    pub fn shared(&mut self) -> Option<Message> {
        let is_large = self.parts.payload.len() >= SHARED_FROM;
        let is_shared = is_large && (self.is_for_many || self.body.is_some());
        is_shared.then(|| self.body())
    }

    /// The message as it stands in a queue.
    pub fn queued(
        &mut self,
        qos: QoS,
        retain: bool,
        ids: SubscriptionIds,
        durable: bool,
    ) -> Queued {
        let body = self.body();
        Queued {
            seq: self.seq,
            size: body.size(),
            body: Some(body),
            ids,
            expires: self.parts.expires.unwrap_or(0),
            qos,
            retain,
            level: if durable {
                self.level
            } else {
                Durability::Memory
            },
            reveals: self.stamp,
            dup: false,
        }
    }
}

/// What is kept for its allocations.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Receivers of the message being published; taken out meanwhile.
    pub routes: Option<Box<Routes>>,
    /// Properties of a packet being encoded.
    pub properties: PropertiesBuf,
}
