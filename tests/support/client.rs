//! A blocking MQTT client for tests. It sends only what the test says. `publish` and `subscribe`
//! wait for their answers and keep messages that arrive meanwhile for later.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::packet::{self, Ack, Codes, ConnAck, Packet, Properties, Publish, Version, property};
use crate::request::{Message, Subscription, Will};
use crate::{TIMEOUT, agree, encode, raw};

/// A CONNECT to send.
#[derive(Clone, Debug)]
pub struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<Will>,
    pub(crate) login: Option<(String, Option<Vec<u8>>)>,
    pub(crate) properties: Properties,
}

impl Connect {
    /// Creates a CONNECT with a clean start and without keep alive.
    pub fn new(version: Version, client_id: &str) -> Connect {
        Connect {
            version,
            client_id: client_id.to_owned(),
            clean: true,
            keep_alive: 0,
            will: None,
            login: None,
            properties: Properties::new(),
        }
    }

    /// Creates a CONNECT whose session outlives the connection: clean session 0, and in MQTT 5 a
    /// session expiry interval of one hour.
    pub fn durable(version: Version, client_id: &str) -> Connect {
        let connect = Connect::new(version, client_id).clean(false);
        match version {
            Version::V5 => connect.expiry(3600),
            _ => connect,
        }
    }

    /// Sets clean start or clean session.
    pub fn clean(mut self, clean: bool) -> Connect {
        self.clean = clean;
        self
    }

    /// Sets the keep alive in seconds.
    pub fn keep_alive(mut self, seconds: u16) -> Connect {
        self.keep_alive = seconds;
        self
    }

    /// Sets the session expiry interval in seconds.
    pub fn expiry(self, seconds: u32) -> Connect {
        self.with(|p| p.four(property::SESSION_EXPIRY, seconds))
    }

    /// Sets the receive maximum.
    pub fn receive_maximum(self, count: u16) -> Connect {
        self.with(|p| p.two(property::RECEIVE_MAXIMUM, count))
    }

    /// Changes the properties.
    pub fn with(mut self, change: impl FnOnce(Properties) -> Properties) -> Connect {
        self.properties = change(self.properties);
        self
    }

    /// Sets the will.
    pub fn will(mut self, will: Will) -> Connect {
        self.will = Some(will);
        self
    }

    /// Sets the user name, and the password if any.
    pub fn login(mut self, user: &str, password: Option<&[u8]>) -> Connect {
        self.login = Some((user.to_owned(), password.map(<[u8]>::to_vec)));
        self
    }

    /// Connects. The server must accept.
    pub fn open(&self, addr: SocketAddr) -> Client {
        self.open_with_answer(addr).0
    }

    /// Connects. The server must accept. Also returns its CONNACK.
    pub fn open_with_answer(&self, addr: SocketAddr) -> (Client, ConnAck) {
        let (client, connack) = self.try_open(addr);
        assert_eq!(connack.code, 0, "refused: {connack:?}");
        (client, connack)
    }

    /// Connects and returns the CONNACK, whatever it says.
    pub fn try_open(&self, addr: SocketAddr) -> (Client, ConnAck) {
        let mut client = Client::dial(addr, self.version);
        client.alias_maximum = self
            .properties
            .number(property::TOPIC_ALIAS_MAXIMUM)
            .unwrap_or(0);
        client.largest = self.properties.number(property::MAXIMUM_PACKET_SIZE);
        client.send(&encode::connect(self));
        match client.receive() {
            Packet::ConnAck(connack) => (client, connack),
            other => panic!("{other:?} before a CONNACK [MQTT-3.2.0-1]"),
        }
    }

    /// Returns the protocol version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Encodes the packet.
    pub fn bytes(&self) -> Vec<u8> {
        encode::connect(self)
    }
}

/// A connection.
pub struct Client {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
    waiting: VecDeque<Packet>,
    aliases: HashMap<u32, String>,
    alias_maximum: u32,
    largest: Option<u32>,
    next_id: u16,
}

impl Client {
    /// Opens a connection. Sends nothing.
    pub fn dial(addr: SocketAddr, version: Version) -> Client {
        Client::try_dial(addr, version).expect("the broker listens")
    }

    /// Opens a connection. Sends nothing. Returns `None` if nobody listens.
    pub fn try_dial(addr: SocketAddr, version: Version) -> Option<Client> {
        let stream = TcpStream::connect(addr).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Client {
            stream,
            version,
            input: Vec::new(),
            waiting: VecDeque::new(),
            aliases: HashMap::new(),
            alias_maximum: 0,
            largest: None,
            next_id: 0,
        })
    }

    /// Returns its protocol version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sends bytes. An error is ignored, because the server may close the connection meanwhile: the
    /// next read shows that.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends bytes. Returns `false` if the connection is closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sets how long sending may block. After that `try_send` returns `false`.
    pub fn set_send_timeout(&mut self, timeout: Duration) {
        let set = self.stream.set_write_timeout(Some(timeout));
        set.expect("a socket option");
    }

    /// Returns the next packet, or `Ok(None)` if the server has closed the connection.
    ///
    /// # Errors
    /// Fails if nothing arrives within `timeout`.
    pub fn try_receive(&mut self, timeout: Duration) -> Result<Option<Packet>, String> {
        if let Some(packet) = self.waiting.pop_front() {
            return Ok(Some(packet));
        }
        self.read_packet(timeout)
    }

    /// Returns the next packet. Fails the test if the server closes the connection, sends nothing
    /// for a long time, or violates the standard.
    pub fn receive(&mut self) -> Packet {
        match self.try_receive(TIMEOUT) {
            Ok(Some(packet)) => packet,
            Ok(None) => panic!("the server closed the connection"),
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns all bytes until the server closes the connection, without decoding them.
    pub fn receive_bytes_until_closed(&mut self) -> Vec<u8> {
        let set = self.stream.set_read_timeout(Some(TIMEOUT));
        set.expect("a socket option");
        let mut bytes = std::mem::take(&mut self.input);
        match self.stream.read_to_end(&mut bytes) {
            Err(error) if is_timeout(error.kind()) => panic!("not closed; came: {bytes:02x?}"),
            _ => bytes,
        }
    }

    /// Expects that the server closes the connection without sending anything more. Messages that
    /// it had sent before are ignored.
    pub fn expect_closed(&mut self) {
        match self.next_that_is_no_message() {
            None => {}
            Some(packet) => panic!("{packet:?} instead of a closed connection"),
        }
    }

    /// Expects that the server closes the connection, in MQTT 5 after a DISCONNECT with one of
    /// these reasons.
    pub fn expect_disconnect(&mut self, reasons: &[u8]) {
        if !self.version.is5() {
            return self.expect_closed();
        }
        match self.next_that_is_no_message() {
            Some(Packet::Disconnect(said)) => {
                let expected = reasons.iter().map(|reason| format!("{reason:#04x}"));
                assert!(
                    reasons.contains(&said.reason),
                    "DISCONNECT {:#04x} instead of {}: {said:?}",
                    said.reason,
                    expected.collect::<Vec<_>>().join(" or "),
                );
            }
            Some(other) => panic!("{other:?} instead of DISCONNECT"),
            None => panic!("closed without DISCONNECT"),
        }
        self.expect_closed();
    }

    /// Skips messages and acknowledgements: a server may have sent them before it detected the
    /// error.
    fn next_that_is_no_message(&mut self) -> Option<Packet> {
        loop {
            match self.try_receive(TIMEOUT) {
                Ok(Some(
                    Packet::Publish(_)
                    | Packet::PubAck(_)
                    | Packet::PubRec(_)
                    | Packet::PubComp(_)
                    | Packet::PubRel(_),
                )) => {}
                Ok(packet) => return packet,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn read_packet(&mut self, timeout: Duration) -> Result<Option<Packet>, String> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(frame) = self.whole_frame()? {
                return self.understand(&frame).map(Some);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("the server sent nothing".into());
            }
            self.stream
                .set_read_timeout(Some(left))
                .expect("a socket option");
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if is_timeout(error.kind()) => {}
                Err(_) => return Ok(None),
            }
        }
    }

    fn whole_frame(&mut self) -> Result<Option<Vec<u8>>, String> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let Some((len, used)) = packet::var_int(&self.input[1..])? else {
            return Ok(None);
        };
        let total = 1 + used + len as usize;
        if self.input.len() < total {
            return Ok(None);
        }
        let rest = self.input.split_off(total);
        Ok(Some(std::mem::replace(&mut self.input, rest)))
    }

    fn understand(&mut self, frame: &[u8]) -> Result<Packet, String> {
        if self.largest.is_some_and(|max| frame.len() > max as usize) {
            return Err(format!(
                "{} bytes are too many for us [MQTT-3.1.2-24]",
                frame.len()
            ));
        }
        let mut packet = packet::parse(self.version, frame)
            .map_err(|error| format!("the server broke a rule: {error}; in {frame:02x?}"))?;
        agree::agree(self.version, frame, &packet)?;
        if let Packet::Publish(publish) = &mut packet {
            self.resolve(publish)?;
        }
        Ok(packet)
    }

    /// Replaces a topic alias by its topic name [MQTT-3.3.2-10].
    fn resolve(&mut self, publish: &mut Publish) -> Result<(), String> {
        let Some(alias) = publish.properties.number(property::TOPIC_ALIAS) else {
            return Ok(());
        };
        if alias > self.alias_maximum {
            return Err(format!(
                "topic alias {alias} is more than we allow [MQTT-3.1.2-26]"
            ));
        }
        if publish.named {
            self.aliases.insert(alias, publish.topic.clone());
            return Ok(());
        }
        let topic = self.aliases.get(&alias);
        publish.topic = topic
            .ok_or_else(|| format!("topic alias {alias} stands for nothing"))?
            .clone();
        Ok(())
    }

    /// Returns a packet identifier that this client has not used recently.
    pub fn fresh_id(&mut self) -> u16 {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id
    }

    /// Publishes and waits for the end of the flow. At QoS 0 a PINGREQ makes sure that the server
    /// has received it. Returns the reason code of PUBACK or PUBREC (0 in MQTT 3).
    pub fn publish(&mut self, message: &Message) -> u8 {
        let id = self.send_publish(message);
        match message.qos {
            0 => {
                self.ping();
                0
            }
            1 => self.puback_for(id).reason,
            _ => {
                let pubrec = self.pubrec_for(id);
                if pubrec.reason < 0x80 {
                    self.release(id);
                }
                pubrec.reason
            }
        }
    }

    /// Sends a PUBLISH with a new packet identifier, which it returns.
    pub fn send_publish(&mut self, message: &Message) -> u16 {
        let id = if message.qos > 0 { self.fresh_id() } else { 0 };
        self.send_publish_as(message, id, false);
        id
    }

    /// Sends a PUBLISH with this packet identifier and DUP flag.
    pub fn send_publish_as(&mut self, message: &Message, id: u16, dup: bool) {
        let bytes = encode::publish(self.version, message, id, dup);
        self.send(&bytes);
    }

    /// Sends PUBREL and waits for PUBCOMP. Returns its reason code.
    pub fn release(&mut self, id: u16) -> u8 {
        self.send_ack(0x62, id);
        let pubcomp = self.wait_for("PUBCOMP", |packet| match packet {
            Packet::PubComp(ack) if ack.id == id => Some(ack.clone()),
            _ => None,
        });
        pubcomp.reason
    }

    /// Waits for the PUBACK of a message.
    pub fn puback_for(&mut self, id: u16) -> Ack {
        self.wait_for("PUBACK", |packet| match packet {
            Packet::PubAck(ack) if ack.id == id => Some(ack.clone()),
            _ => None,
        })
    }

    /// Waits for the PUBREC of a message.
    pub fn pubrec_for(&mut self, id: u16) -> Ack {
        self.wait_for("PUBREC", |packet| match packet {
            Packet::PubRec(ack) if ack.id == id => Some(ack.clone()),
            _ => None,
        })
    }

    /// Sends PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70).
    pub fn send_ack(&mut self, first: u8, id: u16) {
        self.send(&encode::ack(first, id));
    }

    /// Sends an acknowledgement with a reason code (MQTT 5).
    pub fn send_ack_with(&mut self, first: u8, id: u16, reason: u8) {
        let id = id.to_be_bytes();
        self.send(&raw::frame(first, &[id[0], id[1], reason]));
    }

    /// Subscribes to one filter. It must be granted with the requested QoS.
    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        let codes = self.subscribe_to(&[Subscription::new(filter, qos)], &Properties::new());
        assert_eq!(codes, [qos], "the SUBACK for {filter}");
    }

    /// Subscribes to one filter with options. It must be granted with the requested QoS.
    pub fn subscribe_with(&mut self, subscription: &Subscription) {
        let codes = self.subscribe_to(std::slice::from_ref(subscription), &Properties::new());
        assert_eq!(codes, [subscription.qos], "the SUBACK for {subscription:?}");
    }

    /// Subscribes and returns the codes of the SUBACK.
    pub fn subscribe_to(&mut self, filters: &[Subscription], properties: &Properties) -> Vec<u8> {
        let id = self.fresh_id();
        self.send(&encode::subscribe(self.version, id, filters, properties));
        let suback = self.wait_for("SUBACK", |packet| match packet {
            Packet::SubAck(codes) => Some(codes.clone()),
            _ => None,
        });
        assert_eq!(suback.id, id, "the SUBACK's identifier [MQTT-3.8.4-2]");
        assert_eq!(suback.codes.len(), filters.len(), "[MQTT-3.8.4-6]");
        suback.codes
    }

    /// Subscribes on a connection that may end at any time. Keeps messages that arrive before the
    /// SUBACK. Returns whether the SUBACK has arrived.
    pub fn try_subscribe(&mut self, filters: &[Subscription], properties: &Properties) -> bool {
        let id = self.fresh_id();
        self.send(&encode::subscribe(self.version, id, filters, properties));
        loop {
            match self.read_packet(TIMEOUT) {
                Ok(Some(Packet::SubAck(codes))) => {
                    return codes.id == id && codes.codes.iter().all(|code| *code < 0x80);
                }
                Ok(Some(packet)) => self.waiting.push_back(packet),
                Ok(None) => return false,
                Err(error) => panic!("{error} instead of a SUBACK"),
            }
        }
    }

    /// Unsubscribes and returns the codes of the UNSUBACK. MQTT 3 has none.
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.fresh_id();
        self.send(&encode::unsubscribe(self.version, id, filters));
        let unsuback: Codes = self.wait_for("UNSUBACK", |packet| match packet {
            Packet::UnsubAck(codes) => Some(codes.clone()),
            _ => None,
        });
        assert_eq!(unsuback.id, id, "the UNSUBACK's identifier [MQTT-3.10.4-4]");
        unsuback.codes
    }

    /// Returns the next packet, which must be a PUBLISH. Does not acknowledge it.
    pub fn receive_publish(&mut self) -> Publish {
        match self.receive() {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} instead of a PUBLISH"),
        }
    }

    /// Returns the next message after acknowledging it to the end of its flow.
    pub fn take(&mut self) -> Publish {
        let publish = self.receive_publish();
        self.acknowledge(&publish);
        publish
    }

    /// Acknowledges a message to the end of its flow.
    pub fn acknowledge(&mut self, publish: &Publish) {
        self.answer(publish);
        if publish.qos == 2 {
            self.pubrel_for(publish.id);
            self.send_ack(0x70, publish.id);
        }
    }

    /// Sends the first answer to a message: PUBACK, PUBREC or nothing.
    pub fn answer(&mut self, publish: &Publish) {
        match publish.qos {
            0 => {}
            1 => self.send_ack(0x40, publish.id),
            _ => self.send_ack(0x50, publish.id),
        }
    }

    /// Waits for the PUBREL of a message.
    pub fn pubrel_for(&mut self, id: u16) -> Ack {
        self.wait_for("PUBREL", |packet| match packet {
            Packet::PubRel(ack) if ack.id == id => Some(ack.clone()),
            _ => None,
        })
    }

    /// Expects this message at this QoS as the next packet, and acknowledges it.
    pub fn expect(&mut self, topic: &str, payload: impl AsRef<[u8]>, qos: u8) -> Publish {
        let publish = self.take();
        let expected = String::from_utf8_lossy(payload.as_ref()).into_owned();
        let payload = String::from_utf8_lossy(&publish.payload).into_owned();
        assert_eq!(
            (publish.topic.as_str(), payload, publish.qos),
            (topic, expected, qos),
        );
        publish
    }

    /// Expects that nothing has arrived and nothing is in flight: the next packet is the answer to
    /// a PINGREQ.
    pub fn expect_nothing(&mut self) {
        if let Some(packet) = self.waiting.front() {
            panic!("{packet:?} instead of nothing");
        }
        self.send(&[0xc0, 0]);
        match self.receive() {
            Packet::PingResp => {}
            other => panic!("{other:?} instead of nothing"),
        }
    }

    /// Expects nothing but PUBRELs of completed flows: after a crash a server may have lost the
    /// last step of a flow and repeats it.
    pub fn expect_nothing_but_pubrel(&mut self) {
        self.send(&[0xc0, 0]);
        loop {
            match self.receive() {
                Packet::PubRel(ack) => self.send_ack(0x70, ack.id),
                Packet::PingResp => return,
                other => panic!("{other:?} instead of nothing"),
            }
        }
    }

    /// Sends PINGREQ and waits for PINGRESP, so that the server has handled everything sent before.
    /// Keeps messages that arrive meanwhile.
    pub fn ping(&mut self) {
        self.send(&[0xc0, 0]);
        self.wait_for("PINGRESP", |packet| {
            matches!(packet, Packet::PingResp).then_some(())
        });
    }

    /// Waits for one packet. Keeps all others for later, in order.
    pub fn wait_for<T>(&mut self, what: &str, pick: impl Fn(&Packet) -> Option<T>) -> T {
        let found = self
            .waiting
            .iter()
            .enumerate()
            .find_map(|(i, packet)| pick(packet).map(|picked| (i, picked)));
        if let Some((i, picked)) = found {
            self.waiting.remove(i);
            return picked;
        }
        loop {
            match self.read_packet(TIMEOUT) {
                Ok(Some(packet)) => match pick(&packet) {
                    Some(picked) => return picked,
                    None => self.waiting.push_back(packet),
                },
                Ok(None) => panic!("closed while waiting for {what}; seen: {:?}", self.waiting),
                Err(error) => panic!("{error} while waiting for {what}; seen: {:?}", self.waiting),
            }
        }
    }

    /// Sends a normal DISCONNECT. Returns when the server has closed the connection.
    pub fn disconnect(mut self) {
        self.send(&[0xe0, 0]);
        self.drain();
    }

    /// Sends a DISCONNECT with a reason and properties (MQTT 5). Returns when the server has closed
    /// the connection.
    pub fn disconnect_with(mut self, reason: u8, properties: &Properties) {
        let body = raw::concat(&[&[reason], &raw::properties(properties)]);
        self.send(&raw::frame(0xe0, &body));
        self.drain();
    }

    /// Closes the connection without DISCONNECT.
    pub fn drop_connection(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Reads until the server has closed the connection.
    fn drain(&mut self) {
        loop {
            match self.try_receive(TIMEOUT) {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => panic!("{error}, not even an end"),
            }
        }
    }
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
