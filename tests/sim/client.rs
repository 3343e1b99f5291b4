//! A reference client, written from the standard and not from the broker: it publishes, subscribes, acknowledges in order, keeps its own state
//! through reconnections and sends again what was not acknowledged. What it does next is left to chance; what it gets is in `receive.rs`.

use std::collections::{BTreeMap, VecDeque};

use super::expected::{Asked, in_ms};
use super::history::{History, Message, SHARED, SessionLife, Subscribed, Violation};
use super::plan::{ClientPlan, Role};
use super::replay::lower;
use super::rng::Rng;
use crate::wire::packet::{
    Ack, Connect, Disconnect, Publish, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe,
    Will,
};
use crate::wire::{
    Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, codec,
};

/// Packet identifiers of SUBSCRIBE and UNSUBSCRIBE begin here.
const REQUEST_IDS: u16 = 1000;
/// How long a probe waits for more retained messages, in milliseconds.
const LOOK_MS: u64 = 15_000;
/// How long a client waits for CONNACK, in milliseconds.
const CONNACK_TIMEOUT_MS: u64 = 8_000;

#[derive(Debug)]
pub struct Client {
    pub number: usize,
    pub plan: ClientPlan,
    /// The link it believes to have.
    pub link: Option<usize>,
    /// It has had CONNACK.
    pub up: bool,
    /// When it opened the link, or lost the last one, in milliseconds. For a probe also when it was
    /// last sent a message.
    pub since: u64,
    /// Asks for a clean start until a CONNACK comes: it cannot tell any more which session a CONNACK would be about.
    pub must_clean: bool,
    /// Publishes nothing new, comes back at once and stays.
    pub healing: bool,
    pub(super) outgoing: VecDeque<Outgoing>,
    /// QoS 2 messages received and not released, by packet identifier.
    pub(super) incoming: BTreeMap<u16, Option<usize>>,
    /// What has come on this connection and is not acknowledged for good.
    pub(super) unacknowledged: BTreeMap<u16, u8>,
    pub(super) acks: VecDeque<(Kind, u16)>,
    pub(super) request: Option<Request>,
    pub(super) aliases: BTreeMap<u16, String>,
    pub(super) server_aliases: u16,
    pub(super) last_sent: u64,
    /// By topic, the oldest retained write that may still be shown to this session.
    pub(super) floors: Option<BTreeMap<String, usize>>,
    /// By topic, the retained write a probe was shown.
    pub shown: BTreeMap<String, usize>,
    /// How many messages a probe had got at its last step.
    seen: usize,
    /// What it found wrong while it did something.
    pub fault: Option<Violation>,
    wanted: Vec<bool>,
    published: usize,
    next_request: u16,
    set_aliases: Vec<String>,
}

/// A message being published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing {
    pub id: u16,
    pub message: usize,
    pub released: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ack,
    Rec,
    Comp,
}

/// A SUBSCRIBE or UNSUBSCRIBE under way.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub id: u16,
    pub subscription: usize,
    pub subscribe: bool,
}

/// What a client does with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    Stay,
    Open,
    /// Sends what it has, then closes.
    Close,
    /// Closes; part of what it sent is lost.
    Reset,
    /// Is gone without a trace; the broker is not told.
    Vanish,
}

impl Client {
    pub fn new(number: usize, plan: ClientPlan) -> Client {
        Client {
            number,
            link: None,
            up: false,
            since: 0,
            must_clean: false,
            healing: false,
            outgoing: VecDeque::new(),
            incoming: BTreeMap::new(),
            unacknowledged: BTreeMap::new(),
            acks: VecDeque::new(),
            request: None,
            aliases: BTreeMap::new(),
            server_aliases: 0,
            last_sent: 0,
            floors: None,
            shown: BTreeMap::new(),
            seen: 0,
            fault: None,
            wanted: plan
                .subscriptions
                .iter()
                .map(|plan| plan.since_ms == 0)
                .collect(),
            published: 0,
            next_request: REQUEST_IDS,
            set_aliases: Vec::new(),
            plan,
        }
    }

    /// Does the next thing. What it sends is appended to `out`.
    pub fn step(
        &mut self,
        rng: &mut Rng,
        history: &mut History,
        ms: u64,
        out: &mut Vec<u8>,
    ) -> Move {
        if self.link.is_none() {
            let away = if self.healing {
                0
            } else {
                rng.between(0, self.plan.away_ms)
            };
            return if ms >= self.since + away {
                Move::Open
            } else {
                Move::Stay
            };
        }
        if !self.up {
            let impatient = ms > self.since + CONNACK_TIMEOUT_MS;
            return if impatient { Move::Vanish } else { Move::Stay };
        }
        if self.healing || rng.chance(self.plan.eager) {
            self.send_acks(usize::MAX, out);
        } else {
            let some = rng.below(self.acks.len() as u64 + 1) as usize;
            self.send_acks(some, out);
        }
        if let Some(step) = self.leave(rng, history, ms, out) {
            return step;
        }
        self.subscribe(rng, history, ms, out);
        for _ in 0..rng.below(3) {
            self.publish(rng, history, ms, out);
        }
        let idle = ms - self.last_sent;
        let keep_alive = u64::from(self.plan.keep_alive);
        if out.is_empty() && keep_alive > 0 && idle > keep_alive * 400 {
            self.encode(&Packet::PingReq, out);
        }
        if !out.is_empty() {
            self.last_sent = ms;
        }
        Move::Stay
    }

    /// Opens a connection: appends CONNECT to `out`, and says what that asks for.
    pub fn connect(
        &mut self,
        rng: &mut Rng,
        history: &mut History,
        link: usize,
        ms: u64,
        out: &mut Vec<u8>,
    ) -> Asked {
        self.link = Some(link);
        (self.since, self.last_sent) = (ms, ms);
        let plan = self.plan.clone();
        let v5 = plan.version == ProtocolVersion::V5;
        let restarts =
            plan.role == Role::Device && !self.has_shares() && !self.healing && rng.chance(4);
        self.must_clean |= restarts && self.outgoing.is_empty();
        // A MQTT 5 session that ends with its connection needs no clean start.
        let clean_start =
            self.must_clean || (plan.clean && (!v5 || plan.name.len().is_multiple_of(2)));
        let mut properties = PropertiesBuf::new();
        if v5 {
            if plan.expiry > 0 {
                properties.push(Property::SessionExpiryInterval(plan.expiry));
            }
            if plan.receive_maximum != u16::MAX {
                properties.push(Property::ReceiveMaximum(plan.receive_maximum));
            }
            if let Some(size) = plan.maximum_packet_size {
                properties.push(Property::MaximumPacketSize(size));
            }
            if plan.aliases > 0 {
                properties.push(Property::TopicAliasMaximum(plan.aliases));
            }
        }
        let will = (!self.healing && rng.chance(plan.wills)).then(|| self.will(rng, history, v5));
        let mut will_properties = PropertiesBuf::new();
        if let Some((_, delay)) = will.filter(|(_, delay)| *delay > 0) {
            will_properties.push(Property::WillDelayInterval((delay / 1000) as u32));
        }
        let payload = will.map(|(number, _)| payload(number, 12));
        let topic = format!("w/{}", plan.name);
        let connect = Connect {
            version: plan.version,
            bridge: false,
            clean_start,
            keep_alive: plan.keep_alive,
            client_id: &plan.name,
            will: will
                .zip(payload.as_deref())
                .map(|((number, _), payload)| Will {
                    topic: &topic,
                    payload,
                    qos: qos_of(history.messages[number].qos),
                    retain: false,
                    properties: will_properties.as_properties(),
                }),
            username: None,
            password: None,
            properties: properties.as_properties(),
        };
        self.encode(&Packet::Connect(Box::new(connect)), out);
        Asked {
            clean_start,
            expiry: match plan.expiry {
                // In MQTT 3 a session that begins clean ends with its connection [MQTT-3.1.2-6].
                _ if !v5 && clean_start => 0,
                expiry => in_ms(expiry),
            },
            will,
        }
    }

    fn will(&self, rng: &mut Rng, history: &mut History, v5: bool) -> (usize, u64) {
        let delay = if v5 {
            *rng.pick(&[0, 0, 1_000, 5_000])
        } else {
            0
        };
        let number = history.add(Message {
            publisher: self.number,
            topic: format!("w/{}", self.plan.name),
            qos: *rng.pick(&[1, 2, 2, 2]),
            retain: false,
            empty: false,
            expiry: None,
            size: 12,
            will: true,
            handled: Vec::new(),
            acknowledged: None,
            abandoned: false,
            lost: false,
            lost_at: 0,
            kept: false,
            unfinished: false,
        });
        (number, delay)
    }

    /// Ends the connection, if chance or the end of a look says so.
    fn leave(
        &mut self,
        rng: &mut Rng,
        history: &History,
        ms: u64,
        out: &mut Vec<u8>,
    ) -> Option<Move> {
        if self.healing {
            return None;
        }
        if self.plan.role == Role::Probe {
            let asked = self.floors.is_some() && self.request.is_none();
            // There may be more to come, behind what is published meanwhile as well.
            let seen = history.lives[self.number].deliveries.len();
            if seen != self.seen {
                (self.seen, self.since) = (seen, ms);
            }
            if !asked || ms < self.since + LOOK_MS {
                return None;
            }
            self.fault = self.missing_retained(history);
            self.disconnect(ReasonCode::Success, None, out);
            return Some(Move::Close);
        }
        if !rng.once_in(self.plan.leaves_once_in) {
            return None;
        }
        let v5 = self.plan.version == ProtocolVersion::V5;
        Some(match rng.below(5) {
            0 => {
                let with_will = v5 && rng.chance(25);
                let reason = match with_will {
                    true => ReasonCode::DisconnectWithWill,
                    false => ReasonCode::Success,
                };
                let expiry = self.leave_expiry(rng);
                self.disconnect(reason, expiry, out);
                Move::Close
            }
            1 => Move::Close,
            2 | 3 => Move::Reset,
            _ => Move::Vanish,
        })
    }

    fn disconnect(&mut self, reason: ReasonCode, expiry: Option<u32>, out: &mut Vec<u8>) {
        let mut properties = PropertiesBuf::new();
        if let Some(expiry) = expiry {
            properties.push(Property::SessionExpiryInterval(expiry));
        }
        let properties = properties.as_properties();
        self.encode(&Packet::Disconnect(Disconnect { reason, properties }), out);
    }

    /// The session expiry interval that it leaves with, if that is not the one it came with. Where
    /// that was 0 it must stay 0 [MQTT-3.14.2-2]. Sessions that others are judged by do not end.
    fn leave_expiry(&self, rng: &mut Rng) -> Option<u32> {
        if self.plan.version != ProtocolVersion::V5 || !rng.chance(50) {
            return None;
        }
        let stays = self.plan.role == Role::Witness || self.has_shares();
        Some(match self.plan.expiry {
            0 => 0,
            _ if stays => *rng.pick(&[100_000, u32::MAX]),
            _ => *rng.pick(&[0, 0, 1, 3, 10, 100_000, u32::MAX]),
        })
    }

    /// Whether it is a member of a shared group.
    fn has_shares(&self) -> bool {
        let mut plans = self.plan.subscriptions.iter();
        plans.any(|plan| plan.filter.starts_with('$'))
    }

    /// Whatever ended it, the connection is gone.
    pub fn lost(&mut self, ms: u64) {
        (self.link, self.up, self.since) = (None, false, ms);
        self.request = None;
        self.acks.clear();
        self.unacknowledged.clear();
        self.aliases.clear();
        self.set_aliases.clear();
    }

    /// The session it had is gone: it begins anew. What it published and does not know of stays undecided.
    pub(super) fn begin_session(&mut self, history: &mut History) {
        for item in self.outgoing.drain(..) {
            history.messages[item.message].abandoned = true;
        }
        self.incoming.clear();
        self.floors = None;
        self.shown.clear();
        let order = history.moment().order;
        let life = &mut history.lives[self.number];
        if let Some(last) = life.sessions.last_mut() {
            last.ended.get_or_insert(order);
        }
        life.sessions.push(SessionLife {
            began: order,
            ended: None,
        });
        let filters: Vec<String> = life.subscriptions.keys().cloned().collect();
        for filter in filters {
            history.subscription(self.number, &filter, Subscribed::No);
        }
    }

    /// A crash has made older retained messages the last ones again.
    pub(super) fn lower_floors(&mut self, now: &BTreeMap<String, usize>) {
        if let Some(floors) = &mut self.floors {
            lower(floors, now);
        }
    }

    /// Whether it waits for the rest of a message it has received. What its broker has lost is never released.
    fn is_receiving(&self, history: &History) -> bool {
        let mut numbers = self.incoming.values();
        numbers.any(|number| number.is_none_or(|number| !history.messages[number].unfinished))
    }

    /// The message it is sending under this packet identifier.
    pub(super) fn sent_as(&self, packet_id: Option<PacketId>) -> Option<usize> {
        let id = packet_id?.get();
        let item = self.outgoing.iter().find(|item| item.id == id)?;
        Some(item.message)
    }

    /// Sends again what is not acknowledged, in the original order.
    pub(super) fn resend(&mut self, history: &History, out: &mut Vec<u8>) {
        for item in self.outgoing.clone() {
            if item.released {
                self.encode(&Packet::PubRel(ack(item.id)), out);
            } else {
                self.encode_publish(history, item.message, Some(item.id), true, out);
            }
        }
    }

    fn subscribe(&mut self, rng: &mut Rng, history: &mut History, ms: u64, out: &mut Vec<u8>) {
        if self.request.is_some() || self.plan.subscriptions.is_empty() {
            return;
        }
        let at = rng.below(self.plan.subscriptions.len() as u64) as usize;
        let at = if self.healing {
            let first = |at: &usize| self.is_wrong(history, *at);
            (0..self.plan.subscriptions.len()).find(first).unwrap_or(at)
        } else {
            at
        };
        let since = &mut self.plan.subscriptions[at].since_ms;
        if *since > 0 && (ms >= *since || self.healing) {
            *since = 0;
            self.wanted[at] = true;
        }
        let toggles = self.plan.subscriptions[at].toggles && !self.healing;
        let again = toggles && rng.chance(5);
        if !again && toggles && rng.chance(5) {
            self.wanted[at] = !self.wanted[at];
        }
        if !again && !self.is_wrong(history, at) {
            return;
        }
        let plan = self.plan.subscriptions[at].clone();
        let known = history.lives[self.number].subscribed_now(&plan.filter);
        let id = self.next_request;
        self.next_request = (id + 1).max(REQUEST_IDS);
        let subscribe = self.wanted[at];
        self.request = Some(Request {
            id,
            subscription: at,
            subscribe,
        });
        if !(subscribe && known == Subscribed::Yes) {
            history.subscription(self.number, &plan.filter, Subscribed::Unknown);
        }
        if subscribe {
            if plan.filter.starts_with("r/") {
                self.floors.get_or_insert_with(|| history.retained_floors());
                history.asks_for_retained(self.number, &plan.filter, plan.qos);
            }
            self.encode_subscribe(id, at, out);
        } else {
            history.drops_retained(self.number, &plan.filter);
            let packet_id = packet_id(id);
            let filters = vec![plan.filter.as_str()];
            self.encode(
                &Packet::Unsubscribe(Unsubscribe {
                    packet_id,
                    properties: Properties::EMPTY,
                    filters,
                }),
                out,
            );
        }
    }

    /// Whether a subscription is not as it is wanted.
    fn is_wrong(&self, history: &History, at: usize) -> bool {
        let known = history.lives[self.number].subscribed_now(&self.plan.subscriptions[at].filter);
        known
            != if self.wanted[at] {
                Subscribed::Yes
            } else {
                Subscribed::No
            }
    }

    fn encode_subscribe(&self, id: u16, at: usize, out: &mut Vec<u8>) {
        let plan = &self.plan.subscriptions[at];
        let v5 = self.plan.version == ProtocolVersion::V5;
        let mut properties = PropertiesBuf::new();
        if let Some(id) = plan.id {
            properties.push(Property::SubscriptionIdentifier(id));
        }
        let options = SubscribeOptions {
            qos: qos_of(plan.qos),
            no_local: v5 && self.plan.no_local && !plan.filter.starts_with('$'),
            retain_as_published: plan.as_published,
            retain_handling: RetainHandling::OnSubscribe,
        };
        let subscribe = Subscribe {
            packet_id: packet_id(id),
            properties: properties.as_properties(),
            filters: vec![(plan.filter.as_str(), options)],
        };
        self.encode(&Packet::Subscribe(subscribe), out);
    }

    fn publish(&mut self, rng: &mut Rng, history: &mut History, ms: u64, out: &mut Vec<u8>) {
        let plan = &self.plan;
        if self.healing || self.published >= plan.messages || self.outgoing.len() >= plan.window {
            return;
        }
        let retained =
            !plan.retained_topics.is_empty() && (plan.topics.is_empty() || rng.chance(25));
        let topics = if retained {
            &plan.retained_topics
        } else {
            &plan.topics
        };
        let topic = rng.pick(topics).clone();
        let is_shared = topic.starts_with(SHARED) && rng.chance(30);
        // A retained topic has one QoS: mixed, a repetition of an older message of QoS 1 would be the last one accepted for good.
        let qos = match topic.bytes().last() {
            Some(b'0'..=b'2') if retained => topic.as_bytes()[topic.len() - 1] - b'0',
            _ => *rng.pick(&plan.qos),
        };
        let size = plan.size(rng);
        let message = Message {
            publisher: self.number,
            topic,
            qos,
            retain: retained || is_shared,
            empty: retained && rng.chance(plan.clears),
            expiry: (!retained && rng.chance(plan.expiring)).then(|| rng.between(1, 20) as u32),
            size,
            will: false,
            handled: Vec::new(),
            acknowledged: None,
            abandoned: false,
            lost: false,
            lost_at: 0,
            kept: false,
            unfinished: false,
        };
        let number = history.add(message);
        self.published += 1;
        let id = (qos > 0).then(|| self.free_id());
        if let Some(id) = id {
            self.outgoing.push_back(Outgoing {
                id,
                message: number,
                released: false,
            });
        }
        self.last_sent = ms;
        self.encode_publish(history, number, id, false, out);
    }

    fn free_id(&self) -> u16 {
        let used = |id: &u16| self.outgoing.iter().any(|item| item.id == *id);
        (1..=self.plan.packet_ids)
            .find(|id| !used(id))
            .unwrap_or(self.plan.packet_ids)
    }

    fn encode_publish(
        &mut self,
        history: &History,
        number: usize,
        id: Option<u16>,
        dup: bool,
        out: &mut Vec<u8>,
    ) {
        let message = &history.messages[number];
        let mut properties = PropertiesBuf::new();
        let mut topic = message.topic.as_str();
        if self.plan.version == ProtocolVersion::V5 {
            if let Some(expiry) = message.expiry {
                properties.push(Property::MessageExpiryInterval(expiry));
            }
            let known = self.set_aliases.iter().position(|known| known == topic);
            let room = self.set_aliases.len() < usize::from(self.server_aliases.min(2));
            if let Some(at) = known {
                properties.push(Property::TopicAlias(at as u16 + 1));
                topic = "";
            } else if room {
                self.set_aliases.push(topic.to_owned());
                properties.push(Property::TopicAlias(self.set_aliases.len() as u16));
            }
        }
        let payload = match message.empty {
            true => Vec::new(),
            false => payload(number, message.size),
        };
        let publish = Publish {
            dup,
            qos: qos_of(message.qos),
            retain: message.retain,
            topic,
            packet_id: id.map(packet_id),
            properties: properties.as_properties(),
            payload: &payload,
        };
        self.encode(&Packet::Publish(publish), out);
    }

    /// Sends the first of what it owes, in the order in which the messages came [MQTT-4.6.0-2].
    pub fn send_acks(&mut self, most: usize, out: &mut Vec<u8>) {
        for _ in 0..most.min(self.acks.len()) {
            let Some((kind, id)) = self.acks.pop_front() else {
                return;
            };
            if kind != Kind::Rec {
                self.unacknowledged.remove(&id);
            }
            let packet = match kind {
                Kind::Ack => Packet::PubAck(ack(id)),
                Kind::Rec => Packet::PubRec(ack(id)),
                Kind::Comp => Packet::PubComp(ack(id)),
            };
            self.encode(&packet, out);
        }
    }

    /// Whether it has nothing more to do or to wait for.
    pub fn is_done(&self, history: &History) -> bool {
        let subscriptions = 0..self.plan.subscriptions.len();
        self.up
            && self.outgoing.is_empty()
            && !self.is_receiving(history)
            && self.acks.is_empty()
            && self.request.is_none()
            && !subscriptions
                .into_iter()
                .any(|at| self.is_wrong(history, at))
    }

    /// What keeps it from being done.
    pub fn waits_for(&self) -> String {
        format!(
            "{}: up {}, publishing {:?}, receiving {:?}, owing {:?}, {:?}",
            self.plan.name, self.up, self.outgoing, self.incoming, self.acks, self.request
        )
    }

    pub(super) fn encode(&self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        codec::encode(packet, self.plan.version, out);
    }
}

pub(super) fn ack(id: u16) -> Ack<'static> {
    Ack {
        packet_id: packet_id(id),
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    }
}

pub(super) fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("identifiers begin with 1")
}

pub(super) fn qos_of(qos: u8) -> QoS {
    QoS::new(qos).expect("0, 1 or 2")
}

/// A payload that names its message, in which no part is like that of another message.
pub(super) fn payload(number: usize, size: usize) -> Vec<u8> {
    let mut payload = format!("m{number}:").into_bytes();
    let letters = (number..).map(|at| b'a' + (at % 26) as u8);
    let missing = size.saturating_sub(payload.len());
    payload.extend(letters.take(missing));
    payload
}
