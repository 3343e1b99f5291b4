//! One connection of a bridge: packets of the broker handed to the upstream, and packets of the upstream handed to the broker.

mod backlog;
mod behind;
mod send;
mod trial;
mod trial_state;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::bridge::relay::behind::Behind;
use crate::broker::bridge::relay::trial_state::Trial;
use crate::broker::bridge::rules::local_topic;
use crate::broker::bridge::settings::Bridge;
use crate::broker::bridge::upstream::{Upstream, told};
use crate::broker::model::ack::ack;
use crate::broker::model::ids::ConnectionId;
use crate::broker::model::leave::Leave;
use crate::broker::model::local::{LocalPackets, Step};
use crate::broker::model::marks::digest;
use crate::broker::state::aliases::OutboundAliases;
use crate::clock::Now;
use crate::wire::codec::PublishHeader;
use crate::wire::packet::{Ack, Publish, SubAck};
use crate::wire::{
    Fault, Packet, PacketId, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, codec,
};

/// What was sent last to an upstream that speaks MQTT 3.1.1, by rules whose topics come in as well.
#[derive(Debug, Default)]
struct Echo {
    sent: VecDeque<u64>,
    told: bool,
}

/// Messages remembered to find out whether the upstream returns them.
const ECHOES: usize = 64;

/// A bridge while it is connected. The driver hands it every packet of the upstream ([`Relay::receive`]), writes what [`Relay::take_output`] gives, calls
/// [`Relay::tick`] in time, and at the end [`Relay::close`].
#[derive(Debug)]
pub struct Relay {
    bridge: Arc<Bridge>,
    upstream: Upstream,
    id: ConnectionId,
    /// Packets of the broker that have not been handed on.
    inbox: LocalPackets,
    /// The broker has said its last.
    closing: bool,
    /// The SUBSCRIBEs the upstream has not answered, with their filters. Until it has, nothing of the broker is handed on: only then can no
    /// packet identifier be used for two things.
    subscribes: HashMap<PacketId, Vec<String>>,
    /// The subscriptions the upstream has refused, each with its filter and the reason.
    refused: Vec<(String, String)>,
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
    /// Since when the upstream owes a sign of life for a PINGREQ.
    ping_sent: Option<u64>,
    /// When the last PINGREQ was sent.
    pinged: u64,
    /// Something is to be written that the stream does not take yet.
    writing: bool,
    /// PINGREQs the upstream has not answered.
    pings: u32,
    /// What is under way is finished, and nothing more begun.
    finishing: bool,
    /// Messages that may be under way at once.
    window: u16,
    trial: Trial,
    behind: Behind,
    /// The upstream has acknowledged, sent or answered something.
    worked: bool,
    /// When a message, or an acknowledgement of one, last came or went, in milliseconds of uptime.
    busy: u64,
    echo: Echo,
    /// How topics may be named to the upstream, on this connection.
    aliases: OutboundAliases,
    /// What is added to the properties of each message; empty below MQTT 5.
    stamp: PropertiesBuf,
    name: String,
    /// The properties of a message as the broker delivers it.
    delivered: PropertiesBuf,
    /// Its properties as the upstream is sent them.
    scratch: PropertiesBuf,
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
        if bridge.clean_session {
            broker.make_bridge_session(&bridge, now);
        }
        // The CONNACK of this broker waits for what this writes, and all that is said to the upstream for the CONNACK: if its session is new, it has nothing
        // to send before that. Only a crash just now, after the upstream has made its new session, could leave an identifier behind.
        let releasing = broker.arrive(&bridge, address, upstream.session_present);
        let window = upstream
            .receive_maximum
            .min(bridge.window(upstream.version));
        let id = broker.connect_bridge(&bridge, window, upstream.version, now)?;
        let (mut most, mut stamp) = (0, PropertiesBuf::new());
        if upstream.version == ProtocolVersion::V5 {
            most = upstream.topic_alias_maximum.min(bridge.max_topic_alias_out);
            for (name, value) in &bridge.user_properties {
                stamp.push(Property::UserProperty(name, value));
            }
        } else if !bridge.user_properties.is_empty() {
            tracing::warn!(
                bridge = &*bridge.name,
                "user_properties are not sent: the upstream does not speak MQTT 5"
            );
        }
        let mut relay = Relay {
            subscribed: subscribed && upstream.session_present,
            bridge,
            upstream,
            id,
            inbox: LocalPackets::default(),
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
            pinged: 0,
            writing: false,
            pings: 0,
            finishing: false,
            window,
            trial: Trial::default(),
            behind: Behind::default(),
            worked: false,
            busy: now.uptime,
            echo: Echo::default(),
            aliases: OutboundAliases::new(most, broker.connections.seed),
            stamp,
            name: String::new(),
            delivered: PropertiesBuf::new(),
            scratch: PropertiesBuf::new(),
        };
        relay.begin_trials(broker);
        Some(relay)
    }

    /// The connection that stands for the bridge at the broker.
    pub fn connection(&self) -> ConnectionId {
        self.id
    }

    pub(in crate::broker) fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// What the upstream speaks.
    pub fn version(&self) -> ProtocolVersion {
        self.upstream.version
    }

    /// Whether the upstream has answered all SUBSCRIBEs, or none was needed.
    pub fn is_subscribed(&self) -> bool {
        self.subscribed && self.subscribes.is_empty() && !self.is_trying_filters()
    }

    /// Whether the upstream has taken all subscriptions, so that they need not be asked for again while it keeps the session.
    pub fn has_all_subscriptions(&self) -> bool {
        self.is_subscribed() && self.refused.is_empty() && self.has_followed_backlog()
    }

    /// Whether the connection was good for something: the upstream has sent a message, or acknowledged one, or answered a PINGREQ.
    pub fn has_worked(&self) -> bool {
        self.worked
    }

    /// Warns of an upstream that takes the bridge's bit of MQTT 3.1.1 and returns messages all the same.
    fn look_for_echo(&mut self, publish: &Publish<'_>) {
        if !self.echo.sent.is_empty() && !self.echo.told {
            let digest = digest(0, &[publish.topic.as_bytes(), publish.payload]);
            if self.echo.sent.contains(&digest) {
                self.echo.told = true;
                tracing::warn!(
                    bridge = &*self.bridge.name,
                    topic = publish.topic,
                    "the upstream returns what it gets from this bridge: it does not know bridges in MQTT 3.1.1, and by rules for both directions messages \
                     arrive twice here; use protocol_version \"5\", or different topics for \"out\" and \"in\""
                );
            }
        }
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
        self.worked |= matches!(
            packet,
            Packet::Publish(_)
                | Packet::PubAck(_)
                | Packet::PubRec(_)
                | Packet::PubComp(_)
                | Packet::PingResp
        );
        if !matches!(packet, Packet::PingResp) {
            self.busy = now.uptime;
        }
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
                broker.acknowledge(self.id, answer.packet_id, Step::Completed, now);
            }
            Packet::SubAck(suback) => self.receive_suback(&suback, broker, now)?,
            Packet::PingResp => self.pings = self.pings.saturating_sub(1),
            Packet::Disconnect(end) => {
                let why = told(end.reason, &end.properties);
                return Err(Leave::Disconnected(end.reason, why));
            }
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
        let bridge = Arc::clone(&self.bridge);
        self.look_for_echo(publish);
        let rule = local_topic(&bridge.rules, publish.topic, &mut self.name);
        if let Some(rule) = rule {
            if publish.retain && self.is_overtaken(rule, broker) {
                tracing::debug!(
                    bridge = &*bridge.name,
                    topic = &*self.name,
                    "a retained message of the upstream is not taken: a newer one waits to go there"
                );
                self.answer(publish.qos, publish.packet_id, ReasonCode::Success, out);
                return;
            }
            let publish = Publish {
                topic: &self.name,
                retain: publish.retain && rule.keeps_retain(),
                ..*publish
            };
            return broker.receive(self.id, Packet::Publish(publish), now);
        }
        broker.counters.bridge_messages_refused += 1;
        self.answer(publish.qos, publish.packet_id, ReasonCode::Success, out);
    }

    /// Answers a message of the upstream without the broker. If MQTT 5 tells it of an error, or the message has QoS 1, the exchange is over; otherwise
    /// there will be a PUBREL, which the broker answers whatever it knows.
    fn answer(&self, qos: QoS, packet_id: Option<PacketId>, reason: ReasonCode, out: &mut Vec<u8>) {
        let Some(packet_id) = packet_id else {
            return;
        };
        let answer = match qos {
            QoS::ExactlyOnce => Packet::PubRec(ack(packet_id, reason)),
            _ => Packet::PubAck(ack(packet_id, reason)),
        };
        codec::encode(&answer, self.upstream.version, out);
    }

    /// A message of the upstream that is larger than this broker takes, and is read past: it is answered and told of. Left alone it would come again
    /// with every connection.
    pub fn refuse_too_large(
        &mut self,
        publish: &PublishHeader<'_>,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) {
        self.heard(now);
        broker.counters.bridge_messages_refused += 1;
        let (bridge, topic, size) = (&*self.bridge.name, publish.topic, publish.length);
        tracing::warn!(
            bridge,
            topic,
            size,
            "a message of the upstream is larger than max_packet_size: it is refused"
        );
        let error = format!(
            "a message of the upstream to {topic:?} is larger than max_packet_size: {size} bytes"
        );
        broker.set_bridge_error(bridge, &error);
        let reason = ReasonCode::ImplementationSpecificError;
        self.answer(publish.qos, publish.packet_id, reason, out);
    }

    /// Whether the upstream has sent more than the rates of the bridge allow, so that no more of its packets should be handled for now.
    pub fn is_ahead(&self, broker: &Broker, now: Now) -> bool {
        broker.connections[self.id].has_sent_too_much(now.uptime)
    }

    /// Notes that the upstream is there although no packet of it was handled: bytes of a long one have come, or it is not being listened to.
    pub fn heard(&mut self, now: Now) {
        self.last_received = now.uptime;
        self.excuse(now);
    }

    fn receive_puback(
        &mut self,
        puback: &Ack<'_>,
        broker: &mut Broker,
        now: Now,
    ) -> Result<(), Leave> {
        let packet_id = puback.packet_id;
        self.progress = now.uptime;
        self.answered(packet_id, broker);
        if puback.reason.is_error() {
            self.receive_refusal(puback, broker, now)?;
        } else if self.lowered.contains(&packet_id) {
            // To the broker it is a QoS 2 message: its PUBREL is answered in place of the upstream.
            broker.acknowledge(self.id, packet_id, Step::Received, now);
        } else {
            broker.acknowledge(self.id, packet_id, Step::Acknowledged, now);
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
        self.answered(packet_id, broker);
        if pubrec.reason.is_error() {
            self.receive_refusal(pubrec, broker, now)?;
            self.awaiting.remove(&packet_id);
        } else {
            self.received.insert(packet_id);
            broker.acknowledge(self.id, packet_id, Step::Received, now);
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
            return Err(Leave::Refused(told(answer.reason, &answer.properties)));
        }
        let why = told(answer.reason, &answer.properties);
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
        for (filter, reason) in asked.iter().zip(suback.codes.iter()) {
            self.answered_filter(filter, broker);
            self.refused.retain(|(refused, _)| refused != filter);
            if reason.is_error() {
                self.miss(filter, &told(*reason, &suback.properties));
            }
        }
        self.tell_what_is_missed(broker);
        Ok(())
    }

    fn miss(&mut self, filter: &str, why: &str) {
        let bridge = &*self.bridge.name;
        tracing::error!(bridge, filter, why, "the upstream refuses a subscription");
        self.refused.push((filter.to_owned(), why.to_owned()));
    }

    /// Publishes which subscriptions the upstream has refused, if any.
    pub fn tell_what_is_missed(&self, broker: &mut Broker) {
        if !self.refused.is_empty() {
            let all = self.refused.iter();
            let all: Vec<String> = all
                .map(|(filter, why)| format!("{filter:?} ({why})"))
                .collect();
            let error = format!("the upstream refuses to subscribe {}", all.join(", "));
            broker.set_bridge_error(&self.bridge.name, &error);
        }
    }

    /// Finishes what is under way and begins nothing more; when that is done, and the upstream has answered a PINGREQ that is appended to `out`,
    /// [`Relay::take_output`] ends with [`Leave::Finished`].
    pub fn finish(&mut self, broker: &mut Broker, out: &mut Vec<u8>, now: Now) {
        self.finishing = true;
        broker.set_finishing(self.id, true);
        self.ping(out, now);
    }

    /// Since when there has been nothing to do, in milliseconds of uptime; `None` while there is something.
    pub fn idle_since(&self, broker: &Broker) -> Option<u64> {
        let is_done = self.is_subscribed() && !self.is_owed() && self.inbox.is_empty();
        let is_idle = is_done && broker.bridge_queued(&self.bridge.name) == 0;
        is_idle.then_some(self.busy)
    }

    /// Whether nothing more need be read from the upstream: what it sends now it will send again when the bridge comes back.
    pub fn has_heard_all(&self, broker: &Broker) -> bool {
        self.finishing && self.pings == 0 && !self.is_owed() && broker.has_finished(self.id)
    }

    fn ping(&mut self, out: &mut Vec<u8>, now: Now) {
        codec::encode(&Packet::PingReq, self.upstream.version, out);
        self.pings += 1;
        self.ping_sent.get_or_insert(now.uptime);
        self.pinged = now.uptime;
        self.last_sent = now.uptime;
    }

    /// Notes that bytes were handed to the stream.
    pub fn wrote(&mut self, now: Now) {
        self.last_sent = now.uptime;
    }

    /// Notes that bytes have got further on their way to the upstream: a slow link that goes on is not a silent one.
    pub fn moved(&mut self, now: Now) {
        self.last_sent = now.uptime;
        self.excuse(now);
    }

    /// Notes whether something is to be written that the stream does not take yet.
    pub fn set_writing(&mut self, writing: bool, now: Now) {
        if writing && !self.writing && !self.is_owed() {
            self.progress = now.uptime;
        }
        self.writing = writing;
    }

    /// Gives the upstream all its time anew: it was not to blame.
    pub fn excuse(&mut self, now: Now) {
        self.progress = now.uptime;
        if self.ping_sent.is_some() {
            self.ping_sent = Some(now.uptime);
        }
    }

    /// How long the upstream may leave this side waiting, in milliseconds.
    pub fn response_timeout(&self) -> u64 {
        self.bridge.response_timeout_ms
    }

    /// When [`Relay::tick`] should be called next, in milliseconds of uptime.
    pub fn next_timeout(&self) -> u64 {
        let timeout = self.bridge.response_timeout_ms;
        let mut next = self.ping_due();
        if self.is_owed() || self.writing {
            next = next.min(self.progress + timeout);
        }
        if let Some(sent) = self.ping_sent {
            next = next.min(sent + timeout);
        }
        next.min(self.next_trial())
    }

    /// Does what is due: appends a PINGREQ to `out`.
    ///
    /// # Errors
    /// The upstream has not answered in time.
    pub fn tick(&mut self, out: &mut Vec<u8>, now: Now) -> Result<(), Leave> {
        let timeout = self.bridge.response_timeout_ms;
        if now.uptime >= self.progress + timeout {
            if self.is_owed() {
                return Err(Leave::Silent("no acknowledgement"));
            }
            if self.writing {
                return Err(Leave::Silent("nothing that is sent to it is taken"));
            }
        }
        if self
            .ping_sent
            .is_some_and(|sent| now.uptime >= sent + timeout)
        {
            return Err(Leave::Silent("no PINGRESP"));
        }
        if now.uptime >= self.ping_due() {
            self.ping(out, now);
        }
        Ok(())
    }

    /// When the next PINGREQ is due: the upstream must hear something in time whatever it owes \[MQTT-3.1.2-20\]. Asking for a sign of life when nothing comes
    /// in, too, finds a connection that only takes; once is enough for that.
    fn ping_due(&self) -> u64 {
        let quiet_since = match self.ping_sent {
            None => self.last_sent.min(self.last_received),
            Some(_) => self.last_sent,
        };
        match u64::from(self.upstream.keep_alive) * 1000 {
            0 => u64::MAX,
            keep_alive => quiet_since.max(self.pinged) + keep_alive,
        }
    }

    /// Whether the upstream is to do something: to answer, or to take what it is sent.
    pub fn is_waiting(&self) -> bool {
        self.is_owed() || self.writing || self.ping_sent.is_some()
    }

    /// Whether the upstream owes an acknowledgement.
    fn is_owed(&self) -> bool {
        !self.awaiting.is_empty() || !self.subscribes.is_empty()
    }

    /// Ends the bridge's connection at the broker; its session waits for the next one, or ends as well.
    pub fn close(&self, broker: &mut Broker, now: Now) {
        broker.end_replays_to_bridge(self.id, &self.bridge);
        broker.lost(self.id, now);
        if self.bridge.clean_session {
            broker.end_bridge_session(&self.bridge, now);
        }
    }
}
