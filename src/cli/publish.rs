//! `tidegate pub`: publishes and exits after the last acknowledgement.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Args;

use super::client::{Client, Event, LARGEST_PACKET, read_lines, reason_string};
use super::exit::{self, Failure};
use super::options::{ConnectionFlags, NO_TOPIC, Settings, qos, seconds, topic_name};
use super::print;
use crate::clock;
use crate::wire::packet::{Ack, Publish};
use crate::wire::{
    Packet, PacketId, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, codec,
};

/// The most messages in flight to an MQTT 5 server, unless `-M` or the server sets a lower limit.
const DEFAULT_WINDOW: u16 = 100;
/// The same for MQTT 3, whose servers cannot tell their limit. Mosquitto 2.0 loses QoS 2 messages
/// beyond 20.
const DEFAULT_WINDOW_MQTT_3: u16 = 20;

/// The flags of `tidegate pub`.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true, args_override_self = true)]
pub struct PublishFlags {
    /// Topic to publish to; replaces that of -L
    #[arg(short, long, required_unless_present = "url", value_parser = topic_name, allow_hyphen_values = true)]
    pub topic: Option<String>,
    #[command(flatten)]
    payload: PayloadFlags,
    /// QoS of the messages: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    pub qos: QoS,
    /// Publish retained
    #[arg(short, long)]
    pub retain: bool,
    /// QoS 1 and 2 messages on their way at once [default: 20 in MQTT 3, 100 in MQTT 5; never more
    /// than the server allows]
    #[arg(short = 'M', long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub max_inflight: Option<u16>,
    /// Publish the message this many times (not with -l)
    #[arg(long, value_name = "COUNT", default_value_t = 1, conflicts_with = "stdin_line", value_parser = clap::value_parser!(u64).range(1..))]
    pub repeat: u64,
    /// Seconds between repetitions, as in 0.5
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub repeat_delay: Duration,
    #[command(flatten)]
    connection: ConnectionFlags,
}

#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
struct PayloadFlags {
    /// Payload to publish
    #[arg(short, long, allow_hyphen_values = true)]
    message: Option<String>,
    /// Publish what is in this file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Publish each line of standard input as a message
    #[arg(short = 'l', long)]
    stdin_line: bool,
    /// Publish all of standard input as one message
    #[arg(short = 's', long)]
    stdin_file: bool,
    /// Publish an empty message
    #[arg(short, long)]
    null_message: bool,
}

impl PublishFlags {
    /// Whether to suppress error messages.
    pub fn is_quiet(&self) -> bool {
        self.connection.quiet
    }
}

/// Publishes as the flags say.
///
/// # Errors
/// Fails without a connection. If a message was refused, the exit code is the reason code of the
/// server.
pub fn run(flags: PublishFlags) -> Result<(), Failure> {
    let settings = flags.connection.clone().settings()?;
    let topic = match &flags.topic {
        Some(topic) => Some(topic.clone()),
        None => settings.topic_of_url(topic_name)?,
    };
    let topic = topic.ok_or_else(|| Failure::usage(NO_TOPIC))?;
    let payload = flags.payload.read()?;
    let client = Client::connect(&settings)?;
    let mut publisher = Publisher::new(client, topic, &flags, &settings)?;
    let outcome = match payload {
        Some(payload) => publisher.publish_repeatedly(&payload, flags.repeat, flags.repeat_delay),
        None => publisher.publish_lines(),
    };
    match outcome {
        Ok(()) => publisher.client.disconnect(&settings),
        Err(End::Interrupted) => {
            let waiting = publisher.in_flight.len();
            publisher.client.disconnect(&settings);
            if waiting > 0 {
                let what = format!("interrupted: {waiting} messages are not acknowledged");
                return Err(Failure::new(exit::FAILED, what));
            }
        }
        Err(End::Failed(failure)) => return Err(failure),
    }
    publisher.refused.map_or(Ok(()), Err)
}

impl PayloadFlags {
    /// Reads the payload. Returns `None` if lines are to be published.
    fn read(&self) -> Result<Option<Vec<u8>>, Failure> {
        let system = |what: String, error: io::Error| {
            Failure::new(exit::FAILED, format!("cannot read {what}: {error}"))
        };
        if let Some(message) = &self.message {
            return Ok(Some(message.clone().into_bytes()));
        }
        if let Some(path) = &self.file {
            let read = File::open(path).and_then(read_whole);
            return read
                .map(Some)
                .map_err(|error| system(path.display().to_string(), error));
        }
        if self.stdin_file {
            return read_whole(io::stdin().lock())
                .map(Some)
                .map_err(|error| system("standard input".to_owned(), error));
        }
        Ok((!self.stdin_line).then(Vec::new))
    }
}

fn read_whole(input: impl Read) -> io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    let limit = u64::from(LARGEST_PACKET);
    if input.take(limit).read_to_end(&mut payload)? as u64 == limit {
        return Err(io::Error::other("it is longer than an MQTT packet can be"));
    }
    Ok(payload)
}

/// The packet that a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Ack,
    Rec,
    Comp,
}

/// Why publishing ends early.
enum End {
    Interrupted,
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failed(failure)
    }
}

struct Publisher {
    client: Client,
    version: ProtocolVersion,
    topic: String,
    qos: QoS,
    retain: bool,
    properties: PropertiesBuf,
    /// Whether the server knows the topic by its alias.
    aliased: bool,
    has_alias: bool,
    window: usize,
    next_id: PacketId,
    in_flight: BTreeMap<PacketId, Awaits>,
    /// The first refusal.
    refused: Option<Failure>,
    quiet: bool,
}

impl Publisher {
    fn new(
        client: Client,
        topic: String,
        flags: &PublishFlags,
        settings: &Settings,
    ) -> Result<Publisher, Failure> {
        let capabilities = client.capabilities();
        let refuse = |what: &str, reason| Err(Failure::refused(what, reason, None));
        if flags.qos as u8 > capabilities.maximum_qos {
            let what = format!("the server takes QoS {} at most", capabilities.maximum_qos);
            return refuse(&what, ReasonCode::QosNotSupported);
        }
        if flags.retain && !capabilities.retain_available {
            return refuse("the server retains nothing", ReasonCode::RetainNotSupported);
        }
        let properties = settings.properties.publish.clone();
        let alias = properties.as_properties().iter().find_map(|p| match p {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        });
        if alias.is_some_and(|alias| alias > capabilities.topic_alias_maximum) {
            let what = format!(
                "the server takes topic aliases up to {}",
                capabilities.topic_alias_maximum
            );
            return refuse(&what, ReasonCode::TopicAliasInvalid);
        }
        let default_window = match settings.version {
            ProtocolVersion::V5 => DEFAULT_WINDOW,
            _ => DEFAULT_WINDOW_MQTT_3,
        };
        let window = flags
            .max_inflight
            .unwrap_or(default_window)
            .min(capabilities.receive_maximum);
        // In a resumed session the server may remember identifiers of messages that it received and
        // never saw released. It would take a new QoS 2 message with such an identifier as a
        // repetition. Identifiers therefore begin at a random value.
        let start = clock::seed() as u16;
        Ok(Publisher {
            version: settings.version,
            topic,
            qos: flags.qos,
            retain: flags.retain,
            properties,
            aliased: false,
            has_alias: alias.is_some(),
            window: usize::from(window.max(1)),
            next_id: PacketId::new(start).unwrap_or(PacketId::FIRST),
            in_flight: BTreeMap::new(),
            refused: None,
            quiet: flags.connection.quiet,
            client,
        })
    }

    fn publish_repeatedly(
        &mut self,
        payload: &[u8],
        times: u64,
        delay: Duration,
    ) -> Result<(), End> {
        let delay = delay.as_millis() as u64;
        let mut left = times;
        let mut next_at = 0;
        while left > 0 || !self.in_flight.is_empty() {
            let may_send = left > 0 && self.in_flight.len() < self.window;
            if may_send && self.client.uptime() >= next_at {
                self.publish(payload)?;
                left -= 1;
                next_at = self.client.uptime() + delay;
                // Many messages may follow without a wait.
                self.client.flush_if_large()?;
                while let Some(event) = self.client.poll() {
                    self.handle(event)?;
                }
                continue;
            }
            if let Some(event) = self.client.next(may_send.then_some(next_at))? {
                self.handle(event)?;
            }
        }
        self.client.flush()?;
        Ok(())
    }

    fn publish_lines(&mut self) -> Result<(), End> {
        let (want, wanted) = sync_channel(self.window);
        let sender = self.client.sender();
        thread::spawn(move || read_lines(io::stdin().lock(), &wanted, &sender));
        for _ in 0..self.window {
            ask(&want);
        }
        let mut ended = false;
        while !ended || !self.in_flight.is_empty() {
            let Some(event) = self.client.next(None)? else {
                continue;
            };
            let before = self.in_flight.len();
            match event {
                Event::Line(Ok(Some(line))) => {
                    self.publish(&line)?;
                    if self.qos == QoS::AtMostOnce {
                        ask(&want);
                    }
                }
                Event::Line(Ok(None)) => ended = true,
                Event::Line(Err(error)) => {
                    let what = format!("cannot read standard input: {error}");
                    return Err(Failure::new(exit::FAILED, what).into());
                }
                other => self.handle(other)?,
            }
            // Asks for one line for each free slot: messages in flight and requested lines together
            // never exceed the window.
            for _ in self.in_flight.len()..before {
                ask(&want);
            }
        }
        self.client.flush()?;
        Ok(())
    }

    fn publish(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let packet_id = (self.qos != QoS::AtMostOnce).then(|| self.free_id());
        let publish = Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: if self.aliased { "" } else { &self.topic },
            packet_id,
            properties: self.properties.as_properties(),
            payload,
        };
        let len = codec::publish_len(&publish, self.version);
        let maximum = self.client.capabilities().maximum_packet_size as usize;
        if len > maximum {
            let what = format!("the message makes {len} bytes, the server takes {maximum}");
            return Err(Failure::refused(&what, ReasonCode::PacketTooLarge, None));
        }
        self.client.send(&Packet::Publish(publish));
        self.aliased = self.has_alias;
        if let Some(id) = packet_id {
            let awaited = match self.qos {
                QoS::ExactlyOnce => Awaits::Rec,
                _ => Awaits::Ack,
            };
            self.in_flight.insert(id, awaited);
        }
        Ok(())
    }

    /// Returns a free identifier. There is one, because the window is smaller than the number of
    /// identifiers.
    fn free_id(&mut self) -> PacketId {
        while self.in_flight.contains_key(&self.next_id) {
            self.next_id = self.next_id.next();
        }
        let id = self.next_id;
        self.next_id = id.next();
        id
    }

    fn handle(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Frames(frames) => {
                for packet in self.client.packets(&frames) {
                    match packet {
                        Ok(packet) => self.receive(&packet)?,
                        Err(fault) => return Err(self.client.report_fault(fault).into()),
                    }
                }
                Ok(())
            }
            Event::Line(_) => Ok(()),
            Event::Interrupted => Err(End::Interrupted),
            Event::Closed(why) => {
                let waiting = self.in_flight.len();
                let what =
                    format!("connection lost, {waiting} messages are not acknowledged: {why}");
                Err(Failure::new(exit::LOST, what).into())
            }
        }
    }

    fn receive(&mut self, packet: &Packet<'_>) -> Result<(), Failure> {
        match packet {
            Packet::PubAck(ack) => self.receive_ack(ack, Awaits::Ack),
            Packet::PubRec(ack) => self.receive_ack(ack, Awaits::Rec),
            Packet::PubComp(ack) => self.receive_ack(ack, Awaits::Comp),
            Packet::PingResp => {}
            // A resumed session may have subscriptions. Messages that arrive are not acknowledged
            // and stay for the client that subscribed.
            Packet::Publish(_) | Packet::PubRel(_) => {}
            other => return Err(self.client.unexpected(other)),
        }
        Ok(())
    }

    fn receive_ack(&mut self, ack: &Ack<'_>, awaited: Awaits) {
        if self.in_flight.get(&ack.packet_id) != Some(&awaited) {
            return;
        }
        let refused = ack.reason.is_error();
        if refused {
            let explained = reason_string(ack.properties.iter());
            let failure = Failure::refused("the message was refused", ack.reason, explained);
            if !self.quiet && self.refused.is_some() {
                print::err(format_args!("tidegate pub: {failure}"));
            }
            self.refused.get_or_insert(failure);
        }
        if awaited == Awaits::Rec && !refused {
            self.in_flight.insert(ack.packet_id, Awaits::Comp);
            self.client.send(&Packet::PubRel(Ack {
                packet_id: ack.packet_id,
                reason: ReasonCode::Success,
                properties: Default::default(),
            }));
        } else {
            self.in_flight.remove(&ack.packet_id);
        }
    }
}

/// Requests one more line. After the last line there is no receiver.
fn ask(want: &SyncSender<()>) {
    let _ = want.try_send(());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test_server::{TestServer, ack, serve};
    use clap::Parser;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Only {
        #[command(flatten)]
        flags: PublishFlags,
    }

    fn publish(port: &str, line: &str) -> Result<(), Failure> {
        let words = ["x", "-h", "127.0.0.1", "-V", "5", "-p", port];
        let words = words.into_iter().chain(line.split_whitespace());
        run(Only::try_parse_from(words).expect(line).flags)
    }

    fn publish_id(peer: &mut TestServer) -> u16 {
        peer.receive(|packet| match packet {
            Packet::Publish(publish) => publish.packet_id.map_or(0, PacketId::get),
            other => panic!("{other:?}"),
        })
    }

    fn disconnected(peer: &mut TestServer) {
        peer.receive(|packet| assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}"));
    }

    #[test]
    fn no_more_messages_are_on_their_way_than_the_server_allows() {
        let (port, server) = serve(|peer| {
            peer.accept(&[Property::ReceiveMaximum(2)]);
            let first = publish_id(peer);
            let second = publish_id(peer);
            assert!(peer.is_quiet(), "a third message before an acknowledgement");
            peer.send(&Packet::PubAck(ack(first)));
            let third = publish_id(peer);
            assert!(peer.is_quiet(), "a fourth message");
            peer.send(&Packet::PubAck(ack(second)));
            peer.send(&Packet::PubAck(ack(third)));
            disconnected(peer);
        });
        assert_eq!(publish(&port, "-t a -m x -q 1 --repeat 3"), Ok(()));
        server.join().expect("as scripted");
    }

    #[test]
    fn a_qos_2_message_is_done_when_pubcomp_has_come() {
        let (port, server) = serve(|peer| {
            peer.accept(&[]);
            let id = publish_id(peer);
            peer.send(&Packet::PubRec(ack(id)));
            peer.receive(|packet| assert_eq!(packet, &Packet::PubRel(ack(id))));
            assert!(peer.is_quiet(), "it ends before PUBCOMP");
            peer.send(&Packet::PubComp(ack(id)));
            disconnected(peer);
        });
        assert_eq!(publish(&port, "-t a -m x -q 2"), Ok(()));
        server.join().expect("as scripted");
    }

    #[test]
    fn a_refused_message_is_the_exit_code() {
        for qos in ["1", "2"] {
            let (port, server) = serve(move |peer| {
                peer.accept(&[]);
                let refusal = Ack {
                    reason: ReasonCode::QuotaExceeded,
                    ..ack(publish_id(peer))
                };
                peer.send(&match qos {
                    "1" => Packet::PubAck(refusal),
                    _ => Packet::PubRec(refusal),
                });
                disconnected(peer);
            });
            let failure = publish(&port, &format!("-t a -m x -q {qos}")).expect_err("refused");
            assert_eq!(failure.code, 0x97);
            assert_eq!(
                failure.message,
                "the message was refused: quota exceeded (0x97)"
            );
            server.join().expect("as scripted");
        }
    }

    #[test]
    fn nobody_listening_is_not_a_failure() {
        let (port, server) = serve(|peer| {
            peer.accept(&[]);
            let id = publish_id(peer);
            peer.send(&Packet::PubAck(Ack {
                reason: ReasonCode::NoMatchingSubscribers,
                ..ack(id)
            }));
            disconnected(peer);
        });
        assert_eq!(publish(&port, "-t a -m x -q 1"), Ok(()));
        server.join().expect("as scripted");
    }

    #[test]
    fn a_connection_lost_before_the_acknowledgement_is_a_failure() {
        let (port, server) = serve(|peer| {
            peer.accept(&[]);
            publish_id(peer);
        });
        let failure = publish(&port, "-t a -m x -q 1").expect_err("lost");
        assert_eq!(failure.code, exit::LOST);
        assert!(
            failure.message.contains("1 messages are not acknowledged"),
            "{failure}"
        );
        server.join().expect("as scripted");
    }

    #[test]
    fn what_the_server_cannot_take_is_not_sent() {
        for (capabilities, line, code) in [
            (Property::MaximumQos(1), "-t a -m x -q 2", 0x9b),
            (Property::RetainAvailable(0), "-t a -m x -r", 0x9a),
            (Property::MaximumPacketSize(10), "-t a -m 0123456789", 0x95),
            (
                Property::TopicAliasMaximum(1),
                "-t a -m x -D publish topic-alias 2",
                0x94,
            ),
        ] {
            let (port, server) = serve(move |peer| peer.accept(&[capabilities]));
            assert_eq!(publish(&port, line).expect_err(line).code, code);
            server.join().expect("as scripted");
        }
    }

    #[test]
    fn a_topic_with_an_alias_is_sent_once() {
        let (port, server) = serve(|peer| {
            peer.accept(&[Property::TopicAliasMaximum(5)]);
            for expected in ["a/b", ""] {
                peer.receive(|packet| match packet {
                    Packet::Publish(publish) => assert_eq!(publish.topic, expected),
                    other => panic!("{other:?}"),
                });
            }
            disconnected(peer);
        });
        let line = "-t a/b -m x --repeat 2 -D publish topic-alias 5";
        assert_eq!(publish(&port, line), Ok(()));
        server.join().expect("as scripted");
    }
}
