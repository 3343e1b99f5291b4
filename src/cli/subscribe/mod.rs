//! `tidegate sub`: subscribes, prints messages, and acknowledges each after it was printed.

mod flags;
mod remove_retained;
mod watch;

use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal, Write};

use super::client::{Client, Event, reason_string};
use super::exit::{self, Failure};
use super::options::{NO_TOPIC, Settings, topic_filter};
use super::print;
use crate::clock::{self, Clock};
use crate::wire::packet::{
    Ack, Publish, RetainHandling, SubAck, Subscribe, SubscribeOptions, Unsubscribe,
};
use crate::wire::{Fault, Packet, PacketId, Property, ProtocolVersion, QoS, ReasonCode, topic};

pub use flags::SubscribeFlags;

use remove_retained::RetainedRemoval;
use watch::Watch;

/// Time limit for the end of the last QoS 2 exchanges.
const COMPLETION_MS: u64 = 5_000;

/// Subscribes as the flags say, until it is interrupted or has received what was asked for.
///
/// # Errors
/// Fails without a connection or subscription, if the connection is lost, and on a time-out.
pub fn run(flags: SubscribeFlags) -> Result<(), Failure> {
    if flags.watch && !io::stdout().is_terminal() {
        return Err(Failure::usage("--watch needs a terminal to write to"));
    }
    run_to(flags, io::stdout())
}

fn run_to(mut flags: SubscribeFlags, stdout: impl Write) -> Result<(), Failure> {
    let mut settings = flags.connection.clone().settings()?;
    let needs_v5 = flags.retain_as_published || flags.no_local || flags.retain_handling.is_some();
    if needs_v5 && settings.version != ProtocolVersion::V5 {
        let what =
            "--retain-as-published, --retain-handling and --no-local are for MQTT 5: say -V 5";
        return Err(Failure::usage(what));
    }
    flags.topic.extend(settings.topic_of_url(topic_filter)?);
    if flags.topic.is_empty() && flags.unsubscribe.is_empty() {
        return Err(Failure::usage(NO_TOPIC));
    }
    if let Some(timeout) = flags.timeout {
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
    /// SUBSCRIBE and UNSUBSCRIBE packets that wait for their answers.
    requests: Vec<PacketId>,
    /// QoS 2 messages that were printed and not yet released.
    received: HashSet<PacketId>,
    aliases: HashMap<u16, String>,
    alias_maximum: u16,
    left: Option<u64>,
    /// Retained messages that are being removed from the server.
    removal: RetainedRemoval,
    watch: Option<Watch>,
    /// Whether everything asked for was received. Later messages stay with the server.
    done: bool,
    /// The output of one read, to be printed and then acknowledged.
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
            removal: RetainedRemoval::default(),
            watch: flags.watch.then(Watch::of_terminal),
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
                // [MQTT-3.8.3-4]: not on a shared subscription.
                no_local: flags.no_local && !filter.starts_with("$share/"),
                retain_as_published: flags.retain_as_published,
                retain_handling: flags
                    .retain_handling
                    .map_or(RetainHandling::OnSubscribe, RetainHandling::from),
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

    /// Receives until the end. Returns an error only if something failed.
    fn receive_all(&mut self) -> Result<(), Failure> {
        let timeout = self.flags.timeout.map(|timeout| timeout.as_millis() as u64);
        let mut completion = None;
        loop {
            self.removal.send(&mut self.client);
            if self.done {
                if self.received.is_empty() && self.removal.is_done() {
                    return self.removal.outcome();
                }
                // The last messages were printed and PUBREC was sent. Waiting saves a persistent
                // session the repetition of PUBREL.
                completion.get_or_insert(self.client.uptime() + COMPLETION_MS);
            }
            match self.client.next(completion.or(timeout))? {
                Some(Event::Frames(frames)) => {
                    for packet in self.client.packets(&frames) {
                        match packet {
                            Ok(packet) => self.receive(&packet)?,
                            Err(fault) => return Err(self.client.report_fault(fault)),
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
            Packet::PubAck(ack) if self.removal.acknowledge(ack) => Ok(()),
            Packet::PingResp => Ok(()),
            other => {
                // Earlier messages of the same read are printed and acknowledged, too.
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
                .for_each(|failure| print::err(format_args!("tidegate sub: {failure}")));
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

    /// Returns the topic name, by its alias if it is empty.
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
            return Err(self.client.report_fault(invalid));
        }
        if !publish.topic.is_empty() {
            self.aliases.insert(alias, publish.topic.to_owned());
            return Ok(publish.topic.to_owned());
        }
        match self.aliases.get(&alias) {
            Some(topic) => Ok(topic.clone()),
            None => Err(self.client.report_fault(invalid)),
        }
    }

    fn wants(&mut self, publish: &Publish<'_>) -> bool {
        if self.flags.retained_only && !publish.retain {
            self.done = true;
            return false;
        }
        let filtered = |filter: &String| topic::matches(filter, publish.topic);
        let is_out =
            self.flags.no_retained && publish.retain || self.flags.filter_out.iter().any(filtered);
        let is_chosen = || match self.flags.random_filter {
            None => true,
            Some(percent) => (clock::seed() as f64) < percent / 100.0 * u64::MAX as f64,
        };
        !is_out && is_chosen()
    }

    fn print(&mut self, publish: &Publish<'_>) {
        if let Err(failure) = self.append(publish)
            && !self.flags.connection.quiet
        {
            print::err(format_args!("tidegate sub: {failure}"));
        }
        if self.flags.remove_retained && publish.retain {
            self.removal.add(publish.topic);
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
            self.done |= *left == 0;
        }
    }

    /// Formats a message and appends it to the output.
    ///
    /// # Errors
    /// Fails if the message does not fit the format. Appends nothing then.
    fn append(&mut self, publish: &Publish<'_>) -> Result<(), Failure> {
        let start = self.output.len();
        if let Some(format) = &self.flags.format {
            let (now, pretty) = (self.clock.now().unix, self.flags.pretty);
            format.write(publish, now, pretty, &mut self.output)?;
        } else {
            let verbose = self.flags.verbose || self.flags.watch;
            if verbose {
                self.output.extend_from_slice(publish.topic.as_bytes());
                self.output.push(b' ');
            }
            if verbose && publish.payload.is_empty() {
                self.output.extend_from_slice(b"(null)");
            }
            self.output.extend_from_slice(publish.payload);
        }
        if let Some(watch) = &mut self.watch {
            let text = self.output.split_off(start);
            watch.show(publish.topic, &text, &mut self.output);
        } else if !self.flags.no_newline {
            self.output.push(b'\n');
        }
        Ok(())
    }

    /// Prints the output and then acknowledges its messages. A message that was not printed stays
    /// in the session.
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
mod tests;
