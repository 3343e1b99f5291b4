//! One connection of a bridge: packets of the broker handed to the upstream, and packets of the upstream handed to the broker.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::rules::{local_topic, remote_topic};
use super::{Bridge, Upstream};
use crate::broker::route::lower;
use crate::broker::{Broker, ConnectionId, ack, marks};
use crate::clock::Now;
use crate::wire::packet::{
    Ack, ConnAck, Publish, RetainHandling, SubAck, Subscribe, SubscribeOptions,
};
use crate::wire::{
    Fault, Packet, PacketId, Properties, PropertiesBuf, ProtocolVersion, QoS, ReasonCode, codec,
};

/// Nothing more is taken from the broker while this much waits for the upstream, in bytes.
const FILL_BYTES: usize = 256 * 1024;
/// Filters in one SUBSCRIBE: AWS IoT Core takes eight.
const SUBSCRIBE_FILTERS: usize = 8;

/// Why a connection of a bridge ends, unless it is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// This broker shuts down.
    ShuttingDown,
    /// What was under way is finished, as [`Relay::finish`] has asked.
    Finished,
    /// This broker has ended it.
    Ended(ReasonCode),
    /// The upstream has taken its leave.
    Disconnected(ReasonCode),
    /// The upstream broke the protocol.
    Fault(Fault),
    /// The upstream does not take messages for now.
    Refused(ReasonCode),
    /// The upstream did not answer in time.
    Silent(&'static str),
    /// A message could not be set aside, because the store has no room.
    NoRoom,
}

impl std::fmt::Display for Leave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Leave::ShuttingDown => f.write_str("this broker shuts down"),
            Leave::Finished => f.write_str("what was under way is finished"),
            Leave::Ended(reason) => write!(f, "this broker has ended the connection: {reason}"),
            Leave::Disconnected(reason) => write!(f, "the upstream has disconnected: {reason}"),
            Leave::Fault(fault) => write!(f, "the upstream broke the protocol: {fault}"),
            Leave::Refused(reason) => {
                write!(f, "the upstream takes no messages for now: {reason}")
            }
            Leave::Silent(what) => write!(f, "the upstream has not answered in time: {what}"),
            Leave::NoRoom => f.write_str("the store has no room for a message to be set aside"),
        }
    }
}

impl From<Fault> for Leave {
    fn from(fault: Fault) -> Leave {
        Leave::Fault(fault)
    }
}

/// A bridge while it is connected. The driver hands it every packet of the upstream ([`Relay::receive`]), writes what [`Relay::take_output`] gives, calls
/// [`Relay::tick`] in time, and at the end [`Relay::close`].
#[derive(Debug)]
pub struct Relay {
    bridge: Arc<Bridge>,
    upstream: Upstream,
    id: ConnectionId,
    /// Packets of the broker that have not been handed on.
    inbox: Vec<u8>,
    /// The broker has said its last.
    closing: bool,
    /// The SUBSCRIBEs the upstream has not answered, with their filters. Until it has, nothing of the broker is handed on: only then can no
    /// packet identifier be used for two things.
    subscribes: HashMap<PacketId, Vec<String>>,
    /// The subscriptions the upstream has refused, each with its filter and the reason.
    refused: Vec<String>,
    /// The upstream need not be subscribed to: it has been, by this process and for the session it still has.
    subscribed: bool,
    /// QoS 1 and 2 messages sent to the upstream that it has not acknowledged completely.
    awaiting: HashSet<PacketId>,
    /// QoS 2 messages the upstream has received on this connection, and not completed.
    received: HashSet<PacketId>,
    /// Identifiers the upstream holds since an earlier stay of the bridge, and has not released.
    releasing: HashSet<PacketId>,
    /// Messages sent with a lower QoS than the broker's delivery has.
    lowered: HashSet<PacketId>,
    /// When the upstream last did what it was waited for, or when that began.
    progress: u64,
    last_sent: u64,
    last_received: u64,
    ping_sent: Option<u64>,
    /// PINGREQs the upstream has not answered.
    pings: u32,
    /// What is under way is finished, and nothing more begun.
    finishing: bool,
    name: String,
}

impl Relay {
    /// Connects the bridge's session to the upstream at this address, which has accepted. `subscribed` says that this process has subscribed at the
    /// upstream before. `None` if the broker shuts down.
    pub fn open(
        bridge: Arc<Bridge>,
        upstream: Upstream,
        address: &str,
        subscribed: bool,
        broker: &mut Broker,
        now: Now,
    ) -> Option<Relay> {
        // The CONNACK of this broker waits for what this writes, and all that is said to the upstream for the CONNACK: if its session is new, it has nothing
        // to send before that. Only a crash just now, after the upstream has made its new session, could leave an identifier behind.
        let releasing = broker.arrive(&bridge, address, upstream.session_present);
        let window = upstream
            .receive_maximum
            .min(bridge.window(upstream.version));
        let id = broker.connect_bridge(&bridge, window, upstream.version, now)?;
        Some(Relay {
            subscribed: subscribed && upstream.session_present,
            bridge,
            upstream,
            id,
            inbox: Vec::new(),
            closing: false,
            subscribes: HashMap::new(),
            refused: Vec::new(),
            awaiting: HashSet::new(),
            received: HashSet::new(),
            releasing: releasing.into_iter().collect(),
            lowered: HashSet::new(),
            progress: now.uptime,
            last_sent: now.uptime,
            last_received: now.uptime,
            ping_sent: None,
            pings: 0,
            finishing: false,
            name: String::new(),
        })
    }

    /// The connection that stands for the bridge at the broker.
    pub fn connection(&self) -> ConnectionId {
        self.id
    }

    /// What the upstream speaks.
    pub fn version(&self) -> ProtocolVersion {
        self.upstream.version
    }

    /// Whether the upstream has answered all SUBSCRIBEs, or none was needed.
    pub fn is_subscribed(&self) -> bool {
        self.subscribed && self.subscribes.is_empty()
    }

    /// Whether the upstream has taken all subscriptions, so that they need not be asked for again while it keeps the session.
    pub fn has_all_subscriptions(&self) -> bool {
        self.is_subscribed() && self.refused.is_empty()
    }

    /// Handles a packet of the upstream. What must be answered without the broker is appended to `out`.
    ///
    /// # Errors
    /// The connection should be left.
    pub fn receive(
        &mut self,
        packet: Packet<'_>,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<(), Leave> {
        self.last_received = now.uptime;
        self.ping_sent = None;
        match packet {
            Packet::Publish(publish) => {
                self.receive_publish(&publish, broker, out, now);
            }
            Packet::PubRel(_) => broker.receive(self.id, packet, now),
            Packet::PubAck(ack) => self.receive_puback(&ack, broker, now)?,
            Packet::PubRec(ack) => self.receive_pubrec(&ack, broker, now)?,
            Packet::PubComp(answer) => {
                if self.releasing.remove(&answer.packet_id) {
                    if self.releasing.is_empty() {
                        broker.released(&self.bridge);
                    }
                    return Ok(());
                }
                self.awaiting.remove(&answer.packet_id);
                self.received.remove(&answer.packet_id);
                self.progress = now.uptime;
                broker.receive(self.id, packet, now);
            }
            Packet::SubAck(suback) => self.receive_suback(&suback, broker, now)?,
            Packet::PingResp => self.pings = self.pings.saturating_sub(1),
            Packet::Disconnect(end) => return Err(Leave::Disconnected(end.reason)),
            _ => return Err(Fault::protocol("a packet that a server does not send").into()),
        }
        Ok(())
    }

    /// A message of the upstream: published here under this broker's name for its topic. One that no rule lets in, left over from a rule of before, is
    /// taken and dropped.
    fn receive_publish(
        &mut self,
        publish: &Publish<'_>,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) {
        if local_topic(&self.bridge.rules, publish.topic, &mut self.name).is_some() {
            let publish = Publish {
                topic: &self.name,
                ..*publish
            };
            return broker.receive(self.id, Packet::Publish(publish), now);
        }
        broker.counters.bridge_messages_refused += 1;
        let Some(packet_id) = publish.packet_id else {
            return;
        };
        let answer = match publish.qos {
            QoS::ExactlyOnce => Packet::PubRec(ack(packet_id, ReasonCode::Success)),
            _ => Packet::PubAck(ack(packet_id, ReasonCode::Success)),
        };
        codec::encode(&answer, self.upstream.version, out);
    }

    fn receive_puback(
        &mut self,
        puback: &Ack<'_>,
        broker: &mut Broker,
        now: Now,
    ) -> Result<(), Leave> {
        let packet_id = puback.packet_id;
        self.progress = now.uptime;
        if puback.reason.is_error() {
            self.receive_refusal(puback, broker, now)?;
        } else if self.lowered.contains(&packet_id) {
            // To the broker it is a QoS 2 message: its PUBREL is answered in place of the upstream.
            broker.receive(
                self.id,
                Packet::PubRec(ack(packet_id, ReasonCode::Success)),
                now,
            );
        } else {
            broker.receive(
                self.id,
                Packet::PubAck(ack(packet_id, ReasonCode::Success)),
                now,
            );
        }
        self.awaiting.remove(&packet_id);
        Ok(())
    }

    fn receive_pubrec(
        &mut self,
        pubrec: &Ack<'_>,
        broker: &mut Broker,
        now: Now,
    ) -> Result<(), Leave> {
        let packet_id = pubrec.packet_id;
        self.progress = now.uptime;
        if pubrec.reason.is_error() {
            self.receive_refusal(pubrec, broker, now)?;
            self.awaiting.remove(&packet_id);
        } else {
            self.received.insert(packet_id);
            broker.receive(
                self.id,
                Packet::PubRec(ack(packet_id, ReasonCode::Success)),
                now,
            );
        }
        Ok(())
    }

    /// PUBACK or PUBREC with an error. An upstream that is full may be less so later; then the message goes again, under the same identifier. Any
    /// other error is for good.
    fn receive_refusal(
        &mut self,
        answer: &Ack<'_>,
        broker: &mut Broker,
        now: Now,
    ) -> Result<(), Leave> {
        if answer.reason == ReasonCode::QuotaExceeded {
            return Err(Leave::Refused(answer.reason));
        }
        let why = match answer.properties.reason_string() {
            Some(text) => format!("{}: {text}", answer.reason),
            None => answer.reason.to_string(),
        };
        self.set_aside(answer.packet_id, &why, broker, now)
    }

    fn set_aside(
        &mut self,
        packet_id: PacketId,
        why: &str,
        broker: &mut Broker,
        now: Now,
    ) -> Result<(), Leave> {
        let done = broker.set_aside(self.id, packet_id, &self.bridge, why, now);
        done.then_some(()).ok_or(Leave::NoRoom)
    }

    /// A subscription that is refused does not end the connection: the others go on. What is missing is told, and asked for again at the next connection.
    fn receive_suback(
        &mut self,
        suback: &SubAck<'_>,
        broker: &mut Broker,
        now: Now,
    ) -> Result<(), Leave> {
        let asked = self.subscribes.remove(&suback.packet_id);
        let asked = asked.filter(|asked| asked.len() == suback.codes.len());
        let asked = asked.ok_or(Fault::protocol("SUBACK that fits no SUBSCRIBE"))?;
        self.progress = now.uptime;
        let before = self.refused.len();
        for (filter, reason) in asked.iter().zip(suback.codes.iter()) {
            if reason.is_error() {
                let bridge = &*self.bridge.name;
                tracing::error!(bridge, filter, %reason, "the upstream refuses a subscription");
                self.refused.push(format!("{filter:?} ({reason})"));
            }
        }
        if self.refused.len() > before {
            let error = format!(
                "the upstream refuses to subscribe {}",
                self.refused.join(", ")
            );
            broker.set_bridge_error(&self.bridge.name, &error);
        }
        Ok(())
    }

    /// Appends what the broker has for the upstream to `out`; whether nothing more should be read from the upstream for now. Call it when the
    /// connection was touched and all of `out` has been written, until it adds nothing.
    ///
    /// # Errors
    /// The connection should be left.
    pub fn take_output(
        &mut self,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<bool, Leave> {
        loop {
            if self.inbox.is_empty() {
                let output = broker.take_output(self.id, &mut self.inbox, now);
                self.closing = output.close;
                if self.inbox.is_empty() {
                    return if output.close {
                        Err(Leave::Ended(ReasonCode::UnspecifiedError))
                    } else if out.is_empty()
                        && self.has_heard_all(broker)
                        && broker.is_taken(self.id)
                    {
                        Err(Leave::Finished)
                    } else {
                        Ok(output.pause)
                    };
                }
            }
            if self.is_held_back() || out.len() >= FILL_BYTES {
                return Ok(broker.should_pause(self.id));
            }
            let inbox = std::mem::take(&mut self.inbox);
            let used = self.hand_on(&inbox, broker, out, now)?;
            self.inbox = inbox;
            self.inbox.drain(..used);
        }
    }

    /// Whether what the broker has must wait for the upstream to answer SUBSCRIBEs.
    fn is_held_back(&self) -> bool {
        !self.subscribes.is_empty() && !self.closing
    }

    /// Hands packets of the broker on, which are always whole; how many bytes they were.
    fn hand_on(
        &mut self,
        bytes: &[u8],
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<usize, Leave> {
        let mut used = 0;
        while let Some(length) = codec::frame_len(&bytes[used..], codec::MAX_PACKET_SIZE)? {
            let packet = codec::decode(&bytes[used..used + length], ProtocolVersion::V5)?;
            self.send(packet, broker, out, now)?;
            used += length;
            if self.is_held_back() {
                break;
            }
        }
        Ok(used)
    }

    /// Hands one packet of the broker on.
    fn send(
        &mut self,
        packet: Packet<'_>,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<(), Leave> {
        match packet {
            Packet::Publish(publish) => self.send_publish(&publish, broker, out, now)?,
            Packet::PubRel(pubrel) => self.send_pubrel(&pubrel, broker, out, now),
            Packet::ConnAck(connack) => self.connected(&connack, broker, out, now)?,
            Packet::Disconnect(end) if end.reason == ReasonCode::ServerShuttingDown => {
                return Err(Leave::ShuttingDown);
            }
            Packet::Disconnect(end) => return Err(Leave::Ended(end.reason)),
            answer => codec::encode(&answer, self.upstream.version, out),
        }
        Ok(())
    }

    fn send_publish(
        &mut self,
        publish: &Publish<'_>,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<(), Leave> {
        let Upstream {
            version,
            session_present,
            retain_available,
            maximum_qos,
            maximum_packet_size,
            ..
        } = self.upstream;
        let rule = remote_topic(&self.bridge.rules, publish.topic, &mut self.name);
        let qos = rule.map_or(publish.qos, |rule| lower(publish.qos, rule.qos()));
        let qos = lower(qos, maximum_qos);
        let mut sent = Publish {
            // To a session that is new the message is, too.
            dup: publish.dup && session_present,
            qos,
            retain: publish.retain && retain_available,
            topic: &self.name,
            packet_id: publish.packet_id.filter(|_| qos != QoS::AtMostOnce),
            ..*publish
        };
        let is_too_large =
            |sent: &Publish<'_>| codec::publish_len(sent, version) > maximum_packet_size as usize;
        let mut bare = PropertiesBuf::new();
        if is_too_large(&sent) {
            sent.properties = marks::without(publish.properties, &mut bare);
        }
        let refusal = if rule.is_none() {
            Some("no rule of the bridge fits it any more, or its name would be too long")
        } else if is_too_large(&sent) {
            Some("it is larger than the upstream takes")
        } else {
            None
        };
        if refusal.is_none() {
            codec::encode_publish(&sent, version, out);
        }
        let Some(packet_id) = publish.packet_id else {
            broker.counters.bridge_messages_set_aside += u64::from(refusal.is_some());
            return Ok(());
        };
        if let Some(why) = refusal {
            return self.set_aside(packet_id, why, broker, now);
        }
        if qos != publish.qos {
            self.lowered.insert(packet_id);
        }
        if qos != QoS::AtMostOnce {
            self.await_answer(packet_id, now);
        } else if publish.qos == QoS::AtLeastOnce {
            self.lowered.remove(&packet_id);
            broker.receive(
                self.id,
                Packet::PubAck(ack(packet_id, ReasonCode::Success)),
                now,
            );
        } else {
            broker.receive(
                self.id,
                Packet::PubRec(ack(packet_id, ReasonCode::Success)),
                now,
            );
        }
        Ok(())
    }

    /// PUBREL for a message the upstream has not received under this identifier, because it went with a lower QoS or to a session that is gone, is
    /// answered in its place.
    fn send_pubrel(&mut self, pubrel: &Ack<'_>, broker: &mut Broker, out: &mut Vec<u8>, now: Now) {
        let packet_id = pubrel.packet_id;
        let gone = !self.upstream.session_present && !self.received.contains(&packet_id);
        let lowered = self.lowered.remove(&packet_id);
        if lowered || gone || self.upstream.maximum_qos != QoS::ExactlyOnce {
            let answer = Packet::PubComp(ack(packet_id, ReasonCode::Success));
            return broker.receive(self.id, answer, now);
        }
        self.await_answer(packet_id, now);
        codec::encode(&Packet::PubRel(*pubrel), self.upstream.version, out);
    }

    fn await_answer(&mut self, packet_id: PacketId, now: Now) {
        if self.awaiting.is_empty() {
            self.progress = now.uptime;
        }
        self.awaiting.insert(packet_id);
    }

    /// The broker has the bridge connected, and what was forgotten for it is off the disk: the upstream may begin to send.
    fn connected(
        &mut self,
        connack: &ConnAck<'_>,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<(), Leave> {
        if connack.reason.is_error() {
            return Err(Leave::Ended(connack.reason));
        }
        self.release(broker, out);
        if std::mem::replace(&mut self.subscribed, true) {
            return Ok(());
        }
        let rules = self.bridge.rules.iter().filter(|rule| rule.goes_in());
        let filters: Vec<(&str, SubscribeOptions)> = rules
            .map(|rule| {
                let options = SubscribeOptions {
                    qos: rule.qos(),
                    no_local: true,
                    retain_as_published: true,
                    retain_handling: RetainHandling::IfNew,
                };
                (rule.remote_filter(), options)
            })
            .collect();
        let mut number = u16::MAX;
        for filters in filters.chunks(SUBSCRIBE_FILTERS) {
            // The broker counts the identifiers of deliveries upwards from 1.
            let free = (1..=number)
                .rev()
                .filter_map(PacketId::new)
                .find(|id| !broker.is_used(self.id, *id));
            let Some(packet_id) = free else { break };
            number = packet_id.get() - 1;
            let subscribe = Subscribe {
                packet_id,
                properties: Properties::EMPTY,
                filters: filters.to_vec(),
            };
            let names = filters.iter().map(|(filter, _)| (*filter).to_owned());
            self.subscribes.insert(packet_id, names.collect());
            codec::encode(&Packet::Subscribe(subscribe), self.upstream.version, out);
        }
        self.progress = now.uptime;
        Ok(())
    }

    /// What the upstream may hold as received since an earlier stay is released: before that, nothing new has these identifiers. Nobody waits for it, so an
    /// upstream that does not answer for an identifier it does not know is no worse for that.
    fn release(&mut self, broker: &mut Broker, out: &mut Vec<u8>) {
        if self.upstream.maximum_qos != QoS::ExactlyOnce && !self.releasing.is_empty() {
            self.releasing.clear();
            broker.released(&self.bridge);
        }
        let mut ids: Vec<PacketId> = self.releasing.iter().copied().collect();
        ids.sort_unstable();
        for packet_id in ids {
            let pubrel = Packet::PubRel(ack(packet_id, ReasonCode::Success));
            codec::encode(&pubrel, self.upstream.version, out);
        }
    }

    /// Finishes what is under way and begins nothing more; when that is done, and the upstream has answered a PINGREQ that is appended to `out`,
    /// [`Relay::take_output`] ends with [`Leave::Finished`].
    pub fn finish(&mut self, broker: &mut Broker, out: &mut Vec<u8>, now: Now) {
        self.finishing = true;
        broker.set_finishing(self.id, true);
        self.ping(out, now);
    }

    /// Whether nothing more need be read from the upstream: what it sends now it will send again when the bridge comes back.
    pub fn has_heard_all(&self, broker: &Broker) -> bool {
        self.finishing && self.pings == 0 && !self.is_waiting() && broker.has_finished(self.id)
    }

    fn ping(&mut self, out: &mut Vec<u8>, now: Now) {
        codec::encode(&Packet::PingReq, self.upstream.version, out);
        self.pings += 1;
        self.ping_sent = Some(now.uptime);
        self.last_sent = now.uptime;
    }

    /// Notes that bytes have been written to the upstream: a slow link that goes on is not a silent one.
    pub fn wrote(&mut self, now: Now) {
        self.last_sent = now.uptime;
        self.progress = now.uptime;
    }

    /// When [`Relay::tick`] should be called next, in milliseconds of uptime.
    pub fn next_timeout(&self) -> u64 {
        let patience = self.bridge.response_timeout_ms;
        let keep_alive = u64::from(self.upstream.keep_alive) * 1000;
        let mut next = u64::MAX;
        if self.is_waiting() {
            next = next.min(self.progress + patience);
        }
        match self.ping_sent {
            Some(sent) => next = next.min(sent + patience),
            None if keep_alive > 0 => next = next.min(self.quiet_since() + keep_alive),
            None => {}
        }
        next
    }

    /// Does what is due: appends a PINGREQ to `out`.
    ///
    /// # Errors
    /// The upstream has not answered in time.
    pub fn tick(&mut self, out: &mut Vec<u8>, now: Now) -> Result<(), Leave> {
        let patience = self.bridge.response_timeout_ms;
        if self.is_waiting() && now.uptime >= self.progress + patience {
            return Err(Leave::Silent("no acknowledgement"));
        }
        if self
            .ping_sent
            .is_some_and(|sent| now.uptime >= sent + patience)
        {
            return Err(Leave::Silent("no PINGRESP"));
        }
        let keep_alive = u64::from(self.upstream.keep_alive) * 1000;
        let due = now.uptime >= self.quiet_since() + keep_alive;
        if keep_alive > 0 && self.ping_sent.is_none() && due {
            self.ping(out, now);
        }
        Ok(())
    }

    /// Since when one direction has been quiet. Asking for a sign of life when nothing comes in, too, finds a connection that only takes.
    fn quiet_since(&self) -> u64 {
        self.last_sent.min(self.last_received)
    }

    fn is_waiting(&self) -> bool {
        !self.awaiting.is_empty() || !self.subscribes.is_empty()
    }

    /// Ends the bridge's connection at the broker; its session waits for the next one.
    pub fn close(&self, broker: &mut Broker, now: Now) {
        broker.lost(self.id, now);
    }
}
