//! `tidegate sub`: subscribes, prints what arrives, and acknowledges a message when it has been printed.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use clap::Args;

use super::client::{Client, Event, reason_string};
use super::exit::{self, Failure};
use super::format::Format;
use super::options::{ConnectionFlags, Settings, qos, topic_filter};
use super::tell;
use crate::clock::Clock;
use crate::wire::packet::{
    Ack, Publish, RetainHandling, SubAck, Subscribe, SubscribeOptions, Unsubscribe,
};
use crate::wire::{Fault, Packet, PacketId, Property, QoS, ReasonCode, topic};

/// How long the end of the last QoS 2 exchanges is waited for.
const COMPLETION_MS: u64 = 5_000;

/// The flags of `tidegate sub`.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub struct SubscribeFlags {
    /// Topic filter to subscribe to; may be repeated
    #[arg(short, long, required_unless_present = "unsubscribe", value_parser = topic_filter, allow_hyphen_values = true)]
    pub topic: Vec<String>,
    /// Topic filter to unsubscribe from; may be repeated
    #[arg(short = 'U', long, value_name = "TOPIC", value_parser = topic_filter, allow_hyphen_values = true)]
    pub unsubscribe: Vec<String>,
    /// Do not print messages whose topic matches this filter; may be repeated
    #[arg(short = 'T', long, value_name = "TOPIC", value_parser = topic_filter, allow_hyphen_values = true)]
    pub filter_out: Vec<String>,
    /// QoS of the subscriptions: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    pub qos: QoS,
    /// Exit after this many messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Exit after this many seconds, with code 27
    #[arg(short = 'W', value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..1_000_000_000))]
    pub timeout: Option<u64>,
    /// Exit when all subscriptions have been acknowledged
    #[arg(short = 'E')]
    pub exit_when_subscribed: bool,
    /// Print the topic before the payload
    #[arg(short, long)]
    pub verbose: bool,
    /// Print each message in this format: %t topic, %p payload, %x payload in hex, %l its length, %q QoS, %r retained, %m packet identifier,
    /// %j all as JSON, %J the same with a JSON payload, %I and %U time, %A %C %D %E %F %P %R %S properties; %5l sets a width; @Y @m @d @H @M @S
    /// and so on parts of the time, in UTC; \n \t \0 \e and so on
    #[arg(short = 'F', value_name = "FORMAT", value_parser = Format::parse, allow_hyphen_values = true)]
    pub format: Option<Format>,
    /// No line end after a message
    #[arg(short = 'N')]
    pub no_newline: bool,
    /// Do not print messages that were retained
    #[arg(short = 'R')]
    pub no_retained: bool,
    /// Print retained messages only, and exit with the first one that is not
    #[arg(long, conflicts_with = "no_retained")]
    pub retained_only: bool,
    /// Keep the retain flag as published (MQTT 5)
    #[arg(long)]
    pub retain_as_published: bool,
    /// Do not receive what the same client identifier publishes (MQTT 5)
    #[arg(long)]
    pub no_local: bool,
    #[command(flatten)]
    connection: ConnectionFlags,
}

impl SubscribeFlags {
    /// Whether errors are not to be told.
    pub fn is_quiet(&self) -> bool {
        self.connection.quiet
    }
}

/// Subscribes as the flags say, until it is interrupted or has what it came for.
///
/// # Errors
/// No connection, no subscription, a connection that is lost, or a time-out.
pub fn run(flags: SubscribeFlags) -> Result<(), Failure> {
    run_to(flags, io::stdout())
}

fn run_to(flags: SubscribeFlags, stdout: impl Write) -> Result<(), Failure> {
    let mut settings = flags.connection.clone().settings()?;
    let needs_v5 = flags.retain_as_published || flags.no_local;
    if needs_v5 && settings.version != crate::wire::ProtocolVersion::V5 {
        let what = "--retain-as-published and --no-local are for MQTT 5: say -V 5";
        return Err(Failure::usage(what));
    }
    if let Some(seconds) = flags.timeout {
        let timeout = std::time::Duration::from_secs(seconds);
        settings.connect_timeout = settings.connect_timeout.min(timeout);
    }
    let client = Client::connect(&settings)?;
    let mut subscriber = Subscriber::new(client, &flags, &settings, stdout);
    subscriber.request(&settings);
    let result = subscriber.receive_all();
    if !matches!(&result, Err(failure) if failure.code == exit::LOST) {
        subscriber.client.disconnect(&settings);
    }
    result
}

struct Subscriber<'f, W> {
    client: Client,
    stdout: W,
    clock: Clock,
    flags: &'f SubscribeFlags,
    /// Answers still to come: SUBACK and UNSUBACK.
    requests: Vec<PacketId>,
    /// QoS 2 messages that were printed and not released yet.
    received: HashSet<PacketId>,
    aliases: HashMap<u16, String>,
    alias_maximum: u16,
    left: Option<u64>,
    /// What it came for is there; what else arrives stays with the server.
    done: bool,
    /// What one read has brought, to be printed and then acknowledged.
    output: Vec<u8>,
    acks: Vec<(PacketId, QoS)>,
}

const SUBSCRIBE_ID: PacketId = PacketId::FIRST;
const UNSUBSCRIBE_ID: PacketId = PacketId::FIRST.next();

impl<'f, W: Write> Subscriber<'f, W> {
    fn new(
        client: Client,
        flags: &'f SubscribeFlags,
        settings: &Settings,
        stdout: W,
    ) -> Subscriber<'f, W> {
        let connect = settings.properties.connect.as_properties();
        let alias_maximum = connect.iter().find_map(|property| match property {
            Property::TopicAliasMaximum(maximum) => Some(maximum),
            _ => None,
        });
        Subscriber {
            client,
            stdout,
            clock: Clock::start(),
            flags,
            requests: Vec::new(),
            received: HashSet::new(),
            aliases: HashMap::new(),
            alias_maximum: alias_maximum.unwrap_or(0),
            left: flags.count,
            done: false,
            output: Vec::new(),
            acks: Vec::new(),
        }
    }

    fn request(&mut self, settings: &Settings) {
        let flags = self.flags;
        if !flags.unsubscribe.is_empty() {
            self.client.send(&Packet::Unsubscribe(Unsubscribe {
                packet_id: UNSUBSCRIBE_ID,
                properties: settings.properties.unsubscribe.as_properties(),
                filters: flags.unsubscribe.iter().map(String::as_str).collect(),
            }));
            self.requests.push(UNSUBSCRIBE_ID);
        }
        if !flags.topic.is_empty() {
            let options = |filter: &str| SubscribeOptions {
                qos: flags.qos,
                // [MQTT-3.8.3-4] Not on a shared subscription.
                no_local: flags.no_local && !filter.starts_with("$share/"),
                retain_as_published: flags.retain_as_published,
                retain_handling: RetainHandling::OnSubscribe,
            };
            let filters = flags.topic.iter();
            self.client.send(&Packet::Subscribe(Subscribe {
                packet_id: SUBSCRIBE_ID,
                properties: settings.properties.subscribe.as_properties(),
                filters: filters
                    .map(|filter| (filter.as_str(), options(filter)))
                    .collect(),
            }));
            self.requests.push(SUBSCRIBE_ID);
        }
    }

    /// Receives until the end, which is well unless it fails.
    fn receive_all(&mut self) -> Result<(), Failure> {
        let timeout = self.flags.timeout.map(|seconds| seconds * 1000);
        let mut completion = None;
        loop {
            if self.done {
                if self.received.is_empty() {
                    return Ok(());
                }
                // The last messages were printed and PUBREC sent; a session that stays should not have to repeat PUBREL.
                completion.get_or_insert(self.client.uptime() + COMPLETION_MS);
            }
            match self.client.next(completion.or(timeout))? {
                Some(Event::Frames(frames)) => {
                    for packet in self.client.packets(&frames) {
                        match packet {
                            Ok(packet) => self.receive(&packet)?,
                            Err(fault) => return Err(self.client.blame(fault)),
                        }
                    }
                    self.print_and_acknowledge()?;
                }
                Some(Event::Interrupted) => return Ok(()),
                Some(Event::Closed(why)) => {
                    return Err(Failure::new(exit::LOST, format!("connection lost: {why}")));
                }
                Some(Event::Line(_)) => {}
                None if completion.is_some() => return Ok(()),
                None => return Err(Failure::new(exit::TIMEOUT, "timed out")),
            }
        }
    }

    fn receive(&mut self, packet: &Packet<'_>) -> Result<(), Failure> {
        match packet {
            Packet::Publish(publish) => self.receive_publish(publish),
            Packet::PubRel(pubrel) => {
                self.received.remove(&pubrel.packet_id);
                self.client.send(&Packet::PubComp(Ack {
                    packet_id: pubrel.packet_id,
                    reason: ReasonCode::Success,
                    properties: Default::default(),
                }));
                Ok(())
            }
            Packet::SubAck(suback) if suback.packet_id == SUBSCRIBE_ID => {
                self.receive_suback(suback)
            }
            Packet::UnsubAck(unsuback) if unsuback.packet_id == UNSUBSCRIBE_ID => {
                self.answered(UNSUBSCRIBE_ID);
                Ok(())
            }
            Packet::PingResp => Ok(()),
            other => {
                // What came before it has been printed; it should be acknowledged, too.
                self.print_and_acknowledge()?;
                Err(self.client.unexpected(other))
            }
        }
    }

    fn receive_suback(&mut self, suback: &SubAck<'_>) -> Result<(), Failure> {
        let explained = reason_string(suback.properties.iter());
        let mut refused = Vec::new();
        for (filter, code) in self.flags.topic.iter().zip(&suback.codes) {
            if code.is_error() {
                let what = format!("the subscription to {filter} was refused");
                refused.push(Failure::refused(&what, *code, explained));
            }
        }
        if refused.len() == self.flags.topic.len()
            && let Some(failure) = refused.pop()
        {
            return Err(failure);
        }
        if !self.flags.connection.quiet {
            refused
                .iter()
                .for_each(|failure| tell::err(format_args!("tidegate sub: {failure}")));
        }
        self.answered(SUBSCRIBE_ID);
        Ok(())
    }

    fn answered(&mut self, request: PacketId) {
        self.requests.retain(|id| *id != request);
        self.done |= self.flags.exit_when_subscribed && self.requests.is_empty();
    }

    fn receive_publish(&mut self, publish: &Publish<'_>) -> Result<(), Failure> {
        let topic = self.topic_of(publish)?;
        let publish = Publish {
            topic: &topic,
            ..*publish
        };
        if self.done {
            return Ok(());
        }
        let is_repeated = match (publish.packet_id, publish.qos) {
            (Some(id), QoS::ExactlyOnce) => !self.received.insert(id),
            _ => false,
        };
        if !is_repeated && self.wants(&publish) {
            self.print(&publish);
        }
        if let Some(id) = publish.packet_id {
            self.acks.push((id, publish.qos));
        }
        Ok(())
    }

    /// The topic name, by its alias if need be.
    fn topic_of(&mut self, publish: &Publish<'_>) -> Result<String, Failure> {
        let alias = publish
            .properties
            .iter()
            .find_map(|property| match property {
                Property::TopicAlias(alias) => Some(alias),
                _ => None,
            });
        let Some(alias) = alias else {
            return Ok(publish.topic.to_owned());
        };
        let invalid = Fault {
            reason: ReasonCode::TopicAliasInvalid,
            what: "a topic alias that was not allowed or not set",
        };
        if alias > self.alias_maximum {
            return Err(self.client.blame(invalid));
        }
        if !publish.topic.is_empty() {
            self.aliases.insert(alias, publish.topic.to_owned());
            return Ok(publish.topic.to_owned());
        }
        match self.aliases.get(&alias) {
            Some(topic) => Ok(topic.clone()),
            None => Err(self.client.blame(invalid)),
        }
    }

    fn wants(&mut self, publish: &Publish<'_>) -> bool {
        if self.flags.retained_only && !publish.retain {
            self.done = true;
            return false;
        }
        let filtered = |filter: &String| topic::matches(filter, publish.topic);
        !(self.flags.no_retained && publish.retain || self.flags.filter_out.iter().any(filtered))
    }

    fn print(&mut self, publish: &Publish<'_>) {
        if let Some(format) = &self.flags.format {
            let now = self.clock.now().unix;
            if let Err(failure) = format.write(publish, now, &mut self.output) {
                if !self.flags.connection.quiet {
                    tell::err(format_args!("tidegate sub: {failure}"));
                }
                return;
            }
        } else {
            if self.flags.verbose {
                self.output.extend_from_slice(publish.topic.as_bytes());
                self.output.push(b' ');
            }
            if self.flags.verbose && publish.payload.is_empty() {
                self.output.extend_from_slice(b"(null)");
            }
            self.output.extend_from_slice(publish.payload);
        }
        if !self.flags.no_newline {
            self.output.push(b'\n');
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
            self.done |= *left == 0;
        }
    }

    /// A message is acknowledged when it has left: whoever reads the output has it, or the session still does.
    fn print_and_acknowledge(&mut self) -> Result<(), Failure> {
        self.stdout
            .write_all(&self.output)
            .and_then(|()| self.stdout.flush())
            .map_err(|error| {
                Failure::new(
                    exit::FAILED,
                    format!("cannot write to standard output: {error}"),
                )
            })?;
        self.output.clear();
        for (packet_id, qos) in self.acks.drain(..) {
            let ack = Ack {
                packet_id,
                reason: ReasonCode::Success,
                properties: Default::default(),
            };
            self.client.send(&match qos {
                QoS::ExactlyOnce => Packet::PubRec(ack),
                _ => Packet::PubAck(ack),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::scripted::{Peer, ack, serve};
    use clap::Parser;
    use std::sync::mpsc::{Sender, channel};

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Only {
        #[command(flatten)]
        flags: SubscribeFlags,
    }

    /// A stdout that tells on which flush what has left.
    struct Stdout(Vec<u8>, Sender<String>);

    impl Write for Stdout {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            let text = String::from_utf8_lossy(&self.0).into_owned();
            self.0.clear();
            self.1.send(text).map_err(io::Error::other)
        }
    }

    fn subscribe(port: &str, line: &str, stdout: impl Write) -> Result<(), Failure> {
        let words = ["x", "-h", "127.0.0.1", "-V", "5", "-p", port];
        let words = words.into_iter().chain(line.split_whitespace());
        run_to(Only::try_parse_from(words).expect(line).flags, stdout)
    }

    fn publish(id: u16, qos: QoS, payload: &'static str) -> Packet<'static> {
        Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic: "a",
            packet_id: PacketId::new(id),
            properties: Default::default(),
            payload: payload.as_bytes(),
        })
    }

    fn grant(peer: &mut Peer, codes: &[ReasonCode]) {
        peer.accept(&[]);
        peer.receive(|packet| assert!(matches!(packet, Packet::Subscribe(_)), "{packet:?}"));
        peer.send(&Packet::SubAck(SubAck {
            packet_id: SUBSCRIBE_ID,
            properties: Default::default(),
            codes: codes.to_vec(),
        }));
    }

    fn expect(peer: &mut Peer, expected: &Packet<'_>) {
        peer.receive(|packet| assert_eq!(packet, expected));
    }

    fn disconnected(peer: &mut Peer) {
        peer.receive(|packet| assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}"));
    }

    #[test]
    fn a_message_is_acknowledged_after_it_has_been_printed() {
        let (printed, seen) = channel::<String>();
        let (port, server) = serve(move |peer| {
            grant(peer, &[ReasonCode::GrantedQos1]);
            peer.send(&publish(7, QoS::AtLeastOnce, "hello"));
            expect(peer, &Packet::PubAck(ack(7)));
            let left: String = seen.try_iter().collect();
            assert_eq!(left, "hello\n", "what had left stdout when PUBACK came");
            disconnected(peer);
        });
        let stdout = Stdout(Vec::new(), printed);
        assert_eq!(subscribe(&port, "-t a -q 1 -C 1", stdout), Ok(()));
        server.join().expect("as scripted");
    }

    #[test]
    fn a_message_that_cannot_be_printed_is_not_acknowledged() {
        let (port, server) = serve(|peer| {
            grant(peer, &[ReasonCode::GrantedQos1]);
            peer.send(&publish(7, QoS::AtLeastOnce, "hello"));
            disconnected(peer);
        });
        let full: &mut [u8] = &mut [0; 3];
        let failure = subscribe(&port, "-t a -q 1", full).expect_err("no room");
        assert!(
            failure.message.contains("cannot write to standard output"),
            "{failure}"
        );
        server.join().expect("as scripted");
    }

    #[test]
    fn a_repeated_qos_2_message_is_printed_once_and_a_reused_identifier_again() {
        let (port, server) = serve(|peer| {
            grant(peer, &[ReasonCode::GrantedQos2]);
            for _ in 0..2 {
                peer.send(&publish(7, QoS::ExactlyOnce, "one"));
                expect(peer, &Packet::PubRec(ack(7)));
            }
            peer.send(&Packet::PubRel(ack(7)));
            expect(peer, &Packet::PubComp(ack(7)));
            peer.send(&publish(7, QoS::ExactlyOnce, "two"));
            expect(peer, &Packet::PubRec(ack(7)));
            assert!(peer.is_quiet(), "it ends before the exchange is complete");
            peer.send(&Packet::PubRel(ack(7)));
            expect(peer, &Packet::PubComp(ack(7)));
            disconnected(peer);
        });
        let mut out = Vec::new();
        assert_eq!(subscribe(&port, "-t a -q 2 -C 2 -v", &mut out), Ok(()));
        assert_eq!(String::from_utf8_lossy(&out), "a one\na two\n");
        server.join().expect("as scripted");
    }

    #[test]
    fn what_comes_after_the_last_wanted_message_stays_with_the_server() {
        let (port, server) = serve(|peer| {
            grant(peer, &[ReasonCode::GrantedQos1]);
            for (id, payload) in [(1, "one"), (2, "two"), (3, "three")] {
                peer.send(&publish(id, QoS::AtLeastOnce, payload));
            }
            expect(peer, &Packet::PubAck(ack(1)));
            expect(peer, &Packet::PubAck(ack(2)));
            disconnected(peer);
        });
        let mut out = Vec::new();
        assert_eq!(subscribe(&port, "-t a -q 1 -C 2", &mut out), Ok(()));
        assert_eq!(String::from_utf8_lossy(&out), "one\ntwo\n");
        server.join().expect("as scripted");
    }

    #[test]
    fn without_any_subscription_it_fails_and_with_one_it_goes_on() {
        let denied = ReasonCode::NotAuthorized;
        let (port, server) = serve(move |peer| {
            grant(peer, &[denied]);
            disconnected(peer);
        });
        let failure = subscribe(&port, "-t a", io::sink()).expect_err("refused");
        assert_eq!(failure.code, 0x87);
        assert_eq!(
            failure.message,
            "the subscription to a was refused: not authorized (0x87)"
        );
        server.join().expect("as scripted");

        let (port, server) = serve(move |peer| {
            grant(peer, &[denied, ReasonCode::Success]);
            peer.send(&publish(0, QoS::AtMostOnce, "x"));
            disconnected(peer);
        });
        assert_eq!(
            subscribe(&port, "-t b -t a -C 1 --quiet", io::sink()),
            Ok(())
        );
        server.join().expect("as scripted");
    }

    #[test]
    fn filters_and_flags_choose_what_is_printed_but_all_is_acknowledged() {
        let (port, server) = serve(|peer| {
            grant(peer, &[ReasonCode::GrantedQos1]);
            peer.send(&publish(1, QoS::AtLeastOnce, "filtered"));
            expect(peer, &Packet::PubAck(ack(1)));
        });
        let mut out = Vec::new();
        let failure = subscribe(&port, "-t # -T a -q 1", &mut out).expect_err("closed");
        assert_eq!(failure.code, exit::LOST);
        assert!(out.is_empty());
        server.join().expect("as scripted");
    }

    #[test]
    fn a_server_that_breaks_the_protocol_is_told_so() {
        let (port, server) = serve(|peer| {
            grant(peer, &[ReasonCode::Success]);
            peer.send(&Packet::PubAck(ack(1)));
            peer.receive(|packet| match packet {
                Packet::Disconnect(p) => assert_eq!(p.reason, ReasonCode::ProtocolError),
                other => panic!("{other:?}"),
            });
        });
        let failure = subscribe(&port, "-t a", io::sink()).expect_err("a protocol error");
        assert_eq!(failure.code, exit::WRONG);
        server.join().expect("as scripted");
    }

    #[test]
    fn a_server_that_says_goodbye_is_quoted() {
        let (port, server) = serve(|peer| {
            grant(peer, &[ReasonCode::Success]);
            peer.send(&Packet::Disconnect(crate::wire::packet::Disconnect {
                reason: ReasonCode::ServerShuttingDown,
                properties: Default::default(),
            }));
        });
        let failure = subscribe(&port, "-t a", io::sink()).expect_err("disconnected");
        assert_eq!(failure.code, 0x8b);
        assert_eq!(
            failure.message,
            "the server disconnected: server shutting down (0x8B)"
        );
        server.join().expect("as scripted");
    }

    #[test]
    fn an_alias_stands_for_a_topic_only_if_it_was_allowed_and_set() {
        for (allowed, aliases, good) in [
            ("2", [("t", 2), ("", 2)], true),
            ("2", [("t", 2), ("", 1)], false),
            ("1", [("t", 2), ("", 2)], false),
        ] {
            let (port, server) = serve(move |peer| {
                grant(peer, &[ReasonCode::Success]);
                for (topic, alias) in aliases {
                    let mut properties = crate::wire::PropertiesBuf::new();
                    properties.push(Property::TopicAlias(alias));
                    peer.send(&Packet::Publish(Publish {
                        dup: false,
                        qos: QoS::AtMostOnce,
                        retain: false,
                        topic,
                        packet_id: None,
                        properties: properties.as_properties(),
                        payload: b"x",
                    }));
                }
                peer.receive(|packet| match packet {
                    Packet::Disconnect(p) => assert_eq!(p.reason == ReasonCode::Success, good),
                    other => panic!("{other:?}"),
                });
            });
            let line = format!("-t # -v -C 2 -D connect topic-alias-maximum {allowed}");
            let mut out = Vec::new();
            assert_eq!(subscribe(&port, &line, &mut out).is_ok(), good, "{line}");
            if good {
                assert_eq!(String::from_utf8_lossy(&out), "t x\nt x\n");
            }
            server.join().expect("as scripted");
        }
    }
}
