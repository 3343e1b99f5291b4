//! What a reference client makes of the packets it gets, and what it will not accept.

use super::client::{Client, Kind, ack, payload};
use super::history::{Delivery, History, Message, SHARED, Subscribed, Violation, number_of};
use super::plan::Role;
use crate::broker::NOTHING_TAKEN;
use crate::wire::packet::{Ack, ConnAck, Publish, SubAck};
use crate::wire::{Packet, ProtocolVersion, ReasonCode};

const WINDOWS: &str = "windows and limits are respected";
const GROUP: &str = "a shared group delivers as published and granted";
const EXCHANGE: &str = "exchanges follow the standard";

impl Client {
    /// Takes a packet of `len` bytes. What it answers at once is appended to `out`.
    pub fn receive(
        &mut self,
        packet: &Packet<'_>,
        len: usize,
        history: &mut History,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        if self
            .plan
            .maximum_packet_size
            .is_some_and(|most| len > most as usize)
        {
            return Err(self.wrong(WINDOWS, format!("was sent {len} bytes")));
        }
        match packet {
            Packet::ConnAck(connack) => self.receive_connack(connack, history, out),
            _ if !self.up => Err(self.wrong(EXCHANGE, format!("{packet:?} came before CONNACK"))),
            Packet::Publish(publish) => self.receive_publish(publish, history),
            Packet::PubAck(ack) => self.receive_ack(ack, 1, history, out),
            Packet::PubRec(ack) => self.receive_ack(ack, 2, history, out),
            Packet::PubComp(ack) => self.receive_pubcomp(ack),
            Packet::PubRel(ack) => {
                self.incoming.remove(&ack.packet_id.get());
                self.acks.push_back((Kind::Comp, ack.packet_id.get()));
                Ok(())
            }
            Packet::SubAck(suback) => self.receive_suback(suback, true, history),
            Packet::UnsubAck(unsuback) => self.receive_suback(unsuback, false, history),
            Packet::PingResp => Ok(()),
            Packet::Disconnect(disconnect) => match disconnect.reason {
                ReasonCode::SessionTakenOver
                | ReasonCode::ServerShuttingDown
                | ReasonCode::KeepAliveTimeout => Ok(()),
                // Whether it was, is judged where the broker has closed the connection.
                _ if disconnect.properties.reason_string() == Some(NOTHING_TAKEN) => Ok(()),
                reason => Err(self.wrong(
                    "a client that keeps the rules is not disconnected",
                    format!("{reason} {:?}", disconnect.properties.reason_string()),
                )),
            },
            _ => Err(self.wrong(EXCHANGE, format!("{packet:?} is not for clients"))),
        }
    }

    fn receive_connack(
        &mut self,
        connack: &ConnAck<'_>,
        history: &mut History,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        if self.up || connack.reason != ReasonCode::Success {
            return Err(self.wrong(EXCHANGE, format!("{connack:?}")));
        }
        self.up = true;
        self.must_clean = false;
        self.server_aliases = connack.properties.topic_alias_maximum().unwrap_or(0);
        if !connack.session_present || history.lives[self.number].session().is_none() {
            self.begin_session(history);
        }
        self.resend(history, out);
        Ok(())
    }

    fn receive_publish(
        &mut self,
        publish: &Publish<'_>,
        history: &mut History,
    ) -> Result<(), Violation> {
        let topic = self.topic_of(publish)?;
        let number = number_of(publish.payload);
        let qos = publish.qos as u8;
        if let Some(id) = publish.packet_id.map(|id| id.get()) {
            let again = self.unacknowledged.insert(id, qos).is_some();
            if again || self.unacknowledged.len() > usize::from(self.plan.receive_maximum) {
                let what = format!(
                    "{} under way, {id} twice: {again}",
                    self.unacknowledged.len()
                );
                return Err(self.wrong(WINDOWS, what));
            }
            if qos == 1 {
                self.acks.push_back((Kind::Ack, id));
            } else {
                self.acks.push_back((Kind::Rec, id));
                if let Some(before) = self.incoming.insert(id, number) {
                    if before == number && publish.dup {
                        return Ok(());
                    }
                    let what = format!("packet identifier {id} was {before:?}, now {number:?}");
                    return Err(self.wrong("QoS 2: exactly once", what));
                }
            }
        }
        let Some(number) = number else {
            return match publish.payload.is_empty() {
                true => Ok(()),
                false => Err(self.wrong(EXCHANGE, format!("unknown message {publish:?}"))),
            };
        };
        self.check_message(publish, &topic, number, history)?;
        let session = history.lives[self.number].session().unwrap_or(0);
        let delivery = Delivery {
            message: number,
            session,
            qos,
            retain: publish.retain && !topic.starts_with(SHARED),
            ids: publish.properties.subscription_identifiers().collect(),
        };
        history.lives[self.number].deliveries.push(delivery);
        history.know_retained(number);
        Ok(())
    }

    /// Checks what one delivery alone can be judged by.
    fn check_message(
        &mut self,
        publish: &Publish<'_>,
        topic: &str,
        number: usize,
        history: &History,
    ) -> Result<(), Violation> {
        let Some(message) = history.messages.get(number) else {
            return Err(self.wrong(EXCHANGE, format!("message {number} was never published")));
        };
        if message.topic != topic || message.qos < publish.qos as u8 {
            let what = format!("message {number} came to {topic} as {publish:?}");
            return Err(self.wrong(EXCHANGE, what));
        }
        if publish.payload != payload(number, message.size) {
            let what = format!("message {number} came with {} bytes", publish.payload.len());
            return Err(self.wrong("payloads come as published", what));
        }
        if topic.starts_with(SHARED) {
            return self.check_shared(publish, number, message);
        }
        if publish.retain {
            let writes = history.retained.get(topic);
            let at = writes.and_then(|all| all.iter().position(|write| write.message == number));
            let Some(at) = at else {
                return Err(self.wrong("retained equals last", format!("{number} is not")));
            };
            let floor = self.floors.as_ref().and_then(|floors| floors.get(topic));
            if floor.is_some_and(|floor| at < *floor) {
                let what = format!("{topic}: write {at} is shown, {floor:?} was known before");
                return Err(self.wrong("retained equals last", what));
            }
            self.shown.insert(topic.to_owned(), at);
        }
        Ok(())
    }

    /// Whichever member of a group was offered a message before, this one gets it with the QoS and
    /// the retain flag it was published with, as far as it was granted.
    fn check_shared(
        &self,
        publish: &Publish<'_>,
        number: usize,
        message: &Message,
    ) -> Result<(), Violation> {
        let mut plans = self.plan.subscriptions.iter();
        let Some(plan) = plans.find(|plan| plan.filter.starts_with('$')) else {
            return Ok(()); // Who gets what it has not asked for is judged at the end.
        };
        let qos = plan.qos.min(message.qos);
        let retain = plan.as_published && message.retain;
        if (publish.qos as u8, publish.retain) != (qos, retain) {
            let what = format!(
                "message {number} came with QoS {} and retain {}, not {qos} and {retain}",
                publish.qos as u8, publish.retain
            );
            return Err(self.wrong(GROUP, what));
        }
        Ok(())
    }

    fn topic_of(&mut self, publish: &Publish<'_>) -> Result<String, Violation> {
        let Some(alias) = publish.properties.topic_alias() else {
            return Ok(publish.topic.to_owned());
        };
        if alias > self.plan.aliases {
            return Err(self.wrong(WINDOWS, format!("topic alias {alias}")));
        }
        if !publish.topic.is_empty() {
            self.aliases.insert(alias, publish.topic.to_owned());
        }
        let topic = self.aliases.get(&alias).cloned();
        topic.ok_or_else(|| self.wrong(WINDOWS, format!("topic alias {alias} was never set")))
    }

    /// PUBACK or PUBREC.
    fn receive_ack(
        &mut self,
        answer: &Ack<'_>,
        qos: u8,
        history: &mut History,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let id = answer.packet_id.get();
        let at = self.outgoing.iter().position(|item| item.id == id);
        let known = at.filter(|at| {
            let item = &self.outgoing[*at];
            history.messages[item.message].qos == qos && !item.released
        });
        let Some(at) = known else {
            return Err(self.wrong(EXCHANGE, format!("unexpected acknowledgement {answer:?}")));
        };
        let message = self.outgoing[at].message;
        if answer.reason.is_error() {
            self.outgoing.remove(at);
            return match answer.reason {
                ReasonCode::QuotaExceeded => Ok(()),
                reason => Err(self.wrong(EXCHANGE, format!("message {message}: {reason}"))),
            };
        }
        history.acknowledged(message);
        if qos == 1 {
            self.outgoing.remove(at);
        } else {
            self.outgoing[at].released = true;
            self.encode(&Packet::PubRel(ack(id)), out);
        }
        Ok(())
    }

    fn receive_pubcomp(&mut self, answer: &Ack<'_>) -> Result<(), Violation> {
        let id = answer.packet_id.get();
        let is_it = |item: &super::client::Outgoing| item.id == id && item.released;
        let Some(at) = self.outgoing.iter().position(is_it) else {
            return Err(self.wrong(EXCHANGE, format!("unexpected {answer:?}")));
        };
        self.outgoing.remove(at);
        Ok(())
    }

    fn receive_suback(
        &mut self,
        suback: &SubAck<'_>,
        subscribe: bool,
        history: &mut History,
    ) -> Result<(), Violation> {
        let request = self.request.take();
        let fits = |request: &super::client::Request| {
            request.id == suback.packet_id.get() && request.subscribe == subscribe
        };
        let Some(request) = request.filter(fits) else {
            return Err(self.wrong(EXCHANGE, format!("unexpected {suback:?}")));
        };
        let plan = &self.plan.subscriptions[request.subscription];
        let right = match suback.codes.as_slice() {
            [code] if subscribe => code.as_u8() == plan.qos,
            [code] => matches!(
                code,
                ReasonCode::Success | ReasonCode::NoSubscriptionExisted
            ),
            [] => !subscribe && self.plan.version != ProtocolVersion::V5,
            _ => false,
        };
        if !right {
            return Err(self.wrong(EXCHANGE, format!("wrong codes {suback:?}")));
        }
        let state = if subscribe {
            history.subscribed_to_retained(self.number, &plan.filter);
            Subscribed::Yes
        } else {
            Subscribed::No
        };
        history.subscription(self.number, &plan.filter, state);
        Ok(())
    }

    /// A probe has looked long enough: what it was not shown must be allowed not to be there.
    pub fn missing_retained(&self, history: &History) -> Option<Violation> {
        let floors = self
            .floors
            .as_ref()
            .filter(|_| self.plan.role == Role::Probe)?;
        for (topic, floor) in floors {
            let writes = &history.retained[topic];
            let cleared = writes[*floor..]
                .iter()
                .any(|write| history.messages[write.message].empty);
            if !cleared && !self.shown.contains_key(topic) {
                let what = format!("{topic}: nothing is shown, write {floor} was known before");
                return Some(self.wrong("retained equals last", what));
            }
        }
        None
    }

    pub(super) fn wrong(&self, promise: &'static str, what: impl Into<String>) -> Violation {
        Violation::new(promise, format!("{}: {}", self.plan.name, what.into()))
    }
}
