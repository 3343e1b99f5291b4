//! A small MQTT client for the command line: one connection, one thread that reads it, and one queue of events for the command.
//!
//! The command's own thread does all the rest, so nothing is shared. Packets are written when the command waits for the next event, or
//! when enough of them have gathered.

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::process;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::exit::{self, Failure};
use super::options::Settings;
use super::stream::Stream;
use super::tell;
use crate::clock::Clock;
use crate::wire::packet::{Connect, Disconnect, Will};
use crate::wire::{Fault, Packet, Property, ProtocolVersion, ReasonCode, codec};

/// The largest MQTT packet there can be.
pub const LARGEST_PACKET: u32 = 268_435_460;

/// Events that wait for the command at most; then nothing more is read from the server.
const MAX_EVENTS: usize = 256;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes to be written that are written before the command waits.
const FLUSH_BYTES: usize = 64 * 1024;
/// How long the last bytes of a connection may take.
const CLOSE_TIMEOUT_MS: u64 = 2_000;

/// What the command has to do with.
#[derive(Debug)]
pub enum Event {
    /// Whole packets from the server.
    Frames(Vec<u8>),
    /// A line of standard input, without its end; `None` at the end of the input.
    Line(io::Result<Option<Vec<u8>>>),
    /// The person wants it to end.
    Interrupted,
    /// The connection is closed, and why.
    Closed(String),
}

/// What the server has told it can do; the standard's defaults where it has told nothing.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    /// The server had a session of this client.
    pub session_present: bool,
    /// QoS 1 and 2 messages that may wait for their acknowledgements.
    pub receive_maximum: u16,
    /// Bytes of one packet.
    pub maximum_packet_size: u32,
    /// Highest QoS it accepts.
    pub maximum_qos: u8,
    /// Whether messages may be retained.
    pub retain_available: bool,
    /// Highest topic alias it accepts.
    pub topic_alias_maximum: u16,
}

/// An MQTT connection.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    version: ProtocolVersion,
    debug: bool,
    out: Vec<u8>,
    events: Receiver<Event>,
    sender: SyncSender<Event>,
    unread: VecDeque<Event>,
    clock: Clock,
    keep_alive_ms: u64,
    last_sent: u64,
    ping_sent: Option<u64>,
    /// How far the connection was when that was looked at last.
    progress: Option<u64>,
    granted: Granted,
    /// A DISCONNECT has gone one way or the other.
    ended: bool,
}

impl Client {
    /// Connects, and waits for the server's CONNACK.
    ///
    /// # Errors
    /// The host is not known, does not answer, or refuses.
    pub fn connect(settings: &Settings) -> Result<Client, Failure> {
        let clock = Clock::start();
        let stream = Stream::open(settings)?;
        let system = |error: io::Error| Failure::new(exit::FAILED, error.to_string());
        let patience = Duration::from_secs(u64::from(settings.keep_alive).max(30));
        stream.set_write_timeout(patience).map_err(system)?;
        let (sender, events) = sync_channel(MAX_EVENTS);
        let reading = stream.try_clone().map_err(system)?;
        let to_command = sender.clone();
        let largest = largest_packet(settings);
        thread::spawn(move || read_packets(reading, largest, &to_command));
        watch_signals(sender.clone());
        let mut client = Client {
            stream,
            version: settings.version,
            debug: settings.debug,
            out: Vec::new(),
            events,
            sender,
            unread: VecDeque::new(),
            clock,
            keep_alive_ms: u64::from(settings.keep_alive) * 1000,
            last_sent: 0,
            ping_sent: None,
            progress: None,
            granted: Granted::default(),
            ended: false,
        };
        client.send(&Packet::Connect(Box::new(connect_packet(settings))));
        client.receive_connack(settings)?;
        Ok(client)
    }

    /// What the server can do.
    pub fn granted(&self) -> Granted {
        self.granted
    }

    /// Milliseconds since the client was made.
    pub fn uptime(&self) -> u64 {
        self.clock.now().uptime
    }

    /// Where other threads put their events.
    pub fn sender(&self) -> SyncSender<Event> {
        self.sender.clone()
    }

    /// Queues a packet for the server.
    pub fn send(&mut self, packet: &Packet<'_>) {
        self.tell(|| format!("sending {}", describe(packet)));
        codec::encode(packet, self.version, &mut self.out);
    }

    /// Writes what is queued.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn flush(&mut self) -> Result<(), Failure> {
        if !self.out.is_empty() {
            self.last_sent = self.uptime();
            self.stream
                .write_all(&self.out)
                .map_err(|error| Failure::new(exit::LOST, format!("connection lost: {error}")))?;
            self.out.clear();
        }
        Ok(())
    }

    /// An event that has come already.
    pub fn poll(&mut self) -> Option<Event> {
        self.unread
            .pop_front()
            .or_else(|| self.events.try_recv().ok())
    }

    /// Writes what is queued if much is.
    ///
    /// # Errors
    /// As [`Client::flush`].
    pub fn flush_if_large(&mut self) -> Result<(), Failure> {
        if self.out.len() >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// The next event; `None` when `deadline` (milliseconds of [`Client::uptime`]) has come. Keeps the connection alive meanwhile.
    ///
    /// # Errors
    /// The connection is lost, or the server no longer answers.
    pub fn next(&mut self, deadline: Option<u64>) -> Result<Option<Event>, Failure> {
        if let Some(event) = self.unread.pop_front() {
            return Ok(Some(event));
        }
        let mut event = None;
        while event.is_none() {
            // Also when there is always something to receive: what is received does not keep a connection alive, what is sent does.
            let wake = self.keep_alive()?.min(deadline.unwrap_or(u64::MAX));
            let now = self.uptime();
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.flush()?;
                return Ok(None);
            }
            if self.out.len() < FLUSH_BYTES {
                event = self.events.try_recv().ok();
            }
            if event.is_none() {
                self.flush()?;
                // An hour stands for no end: the loop comes round again.
                let wait = wake.saturating_sub(now).min(3_600_000);
                event = match self.events.recv_timeout(Duration::from_millis(wait)) {
                    Ok(event) => Some(event),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => Some(Event::Closed("closed".to_owned())),
                };
            }
        }
        if matches!(event, Some(Event::Frames(_))) {
            self.ping_sent = None;
        }
        Ok(event)
    }

    /// The packets of an [`Event::Frames`].
    pub fn packets<'c>(&self, frames: &'c [u8]) -> Packets<'c> {
        Packets {
            rest: frames,
            version: self.version,
            debug: self.debug,
        }
    }

    /// Ends the connection with a DISCONNECT, unless that has happened, and waits a moment until the server has taken everything.
    pub fn disconnect(mut self, settings: &Settings) {
        if self.ended {
            return;
        }
        self.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: settings.properties.disconnect.as_properties(),
        }));
        let deadline = self.uptime() + CLOSE_TIMEOUT_MS;
        if self.flush().is_err() || self.stream.close_sending().is_err() {
            return;
        }
        // Closing a socket with unread bytes in it resets the connection, and the server may then lose what was written last.
        while let Ok(Some(event)) = self.next_raw(deadline) {
            if matches!(event, Event::Closed(_)) {
                return;
            }
        }
    }

    /// The failure that a packet means which does not belong here: a DISCONNECT, or one the server should not have sent. An MQTT 5
    /// server is told.
    pub fn unexpected(&mut self, packet: &Packet<'_>) -> Failure {
        if let Packet::Disconnect(disconnect) = packet {
            self.ended = true;
            let explained = reason_string(disconnect.properties.iter());
            return Failure::refused("the server disconnected", disconnect.reason, explained);
        }
        self.blame(Fault::protocol("a packet that does not belong here"))
            .with(&describe(packet))
    }

    /// The failure that a fault of the server means; an MQTT 5 server is told.
    pub fn blame(&mut self, fault: Fault) -> Failure {
        if self.version == ProtocolVersion::V5 {
            self.send(&Packet::Disconnect(Disconnect {
                reason: fault.reason,
                properties: Default::default(),
            }));
            // The connection ends here in any case: what matters is the fault.
            let _ = self.flush();
            self.ended = true;
        }
        Failure::new(
            exit::WRONG,
            format!("the server broke the protocol: {fault}"),
        )
    }

    /// Says something on stderr, if `-d` was given.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.debug {
            tell::err(what());
        }
    }

    fn next_raw(&mut self, deadline: u64) -> Result<Option<Event>, RecvTimeoutError> {
        let wait = deadline.saturating_sub(self.uptime());
        self.events
            .recv_timeout(Duration::from_millis(wait))
            .map(Some)
    }

    /// Sends a PINGREQ when it is time, and returns when to look again.
    fn keep_alive(&mut self) -> Result<u64, Failure> {
        if self.keep_alive_ms == 0 {
            return Ok(u64::MAX);
        }
        let now = self.uptime();
        if let Some(sent) = self.ping_sent {
            let last_moment = sent + self.keep_alive_ms;
            let progress = self.stream.progress();
            if std::mem::replace(&mut self.progress, progress) != progress {
                // Something large is on its way, in one direction or the other, and the answer behind it.
                self.ping_sent = Some(now);
                return Ok(now + self.keep_alive_ms);
            }
            if now >= last_moment {
                let what = "connection lost: the server does not answer";
                return Err(Failure::new(exit::LOST, what));
            }
            return Ok(last_moment);
        }
        if now >= self.last_sent + self.keep_alive_ms {
            self.send(&Packet::PingReq);
            self.flush()?;
            self.ping_sent = Some(now);
            self.progress = self.stream.progress();
        }
        Ok(self.last_sent + self.keep_alive_ms)
    }

    fn receive_connack(&mut self, settings: &Settings) -> Result<(), Failure> {
        let timeout = settings.connect_timeout.as_millis() as u64;
        let frames = match self.next(Some(timeout))? {
            Some(Event::Frames(frames)) => frames,
            Some(Event::Interrupted) => return Err(Failure::new(exit::FAILED, "interrupted")),
            Some(Event::Closed(why)) => {
                let what = format!("the server closed the connection without an answer: {why}");
                return Err(Failure::new(exit::LOST, what));
            }
            Some(Event::Line(_)) | None => {
                let what = "timed out: the server does not answer";
                return Err(Failure::new(exit::TIMEOUT, what));
            }
        };
        let mut packets = self.packets(&frames);
        match packets.next() {
            Some(Ok(Packet::ConnAck(connack))) => {
                if connack.reason != ReasonCode::Success {
                    let explained = reason_string(connack.properties.iter());
                    return Err(Failure::not_connected(
                        self.version,
                        connack.reason,
                        explained,
                    ));
                }
                self.granted.session_present = connack.session_present;
                for property in connack.properties.iter() {
                    self.grant(&property);
                }
            }
            Some(Ok(other)) => return Err(self.unexpected(&other)),
            Some(Err(fault)) => return Err(self.blame(fault)),
            None => return Err(self.blame(Fault::malformed("no CONNACK"))),
        }
        if !packets.rest.is_empty() {
            self.unread.push_back(Event::Frames(packets.rest.to_vec()));
        }
        Ok(())
    }

    fn grant(&mut self, property: &Property<'_>) {
        match property {
            Property::ReceiveMaximum(maximum) => self.granted.receive_maximum = *maximum,
            Property::MaximumPacketSize(maximum) => self.granted.maximum_packet_size = *maximum,
            Property::MaximumQos(maximum) => self.granted.maximum_qos = *maximum,
            Property::RetainAvailable(available) => {
                self.granted.retain_available = *available == 1;
            }
            Property::TopicAliasMaximum(maximum) => self.granted.topic_alias_maximum = *maximum,
            // [MQTT-3.1.2-21] The server's keep alive counts.
            Property::ServerKeepAlive(seconds) => self.keep_alive_ms = u64::from(*seconds) * 1000,
            Property::AssignedClientIdentifier(id) => {
                self.tell(|| format!("assigned client identifier {id}"));
            }
            _ => {}
        }
    }
}

impl Default for Granted {
    fn default() -> Granted {
        Granted {
            session_present: false,
            receive_maximum: u16::MAX,
            maximum_packet_size: LARGEST_PACKET,
            maximum_qos: 2,
            retain_available: true,
            topic_alias_maximum: 0,
        }
    }
}

/// Decodes whole packets one after the other.
#[derive(Debug)]
pub struct Packets<'c> {
    rest: &'c [u8],
    version: ProtocolVersion,
    debug: bool,
}

impl<'c> Iterator for Packets<'c> {
    type Item = Result<Packet<'c>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let len = match codec::frame_len(self.rest, u32::MAX) {
            Ok(len) => len.filter(|len| *len > 0)?,
            Err(fault) => return Some(Err(fault)),
        };
        let (frame, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        let packet = codec::decode(frame, self.version);
        if self.debug {
            match &packet {
                Ok(packet) => tell::err(format_args!("received {}", describe(packet))),
                Err(fault) => tell::err(format_args!("received what is no packet: {fault}")),
            }
        }
        Some(packet)
    }
}

/// Feeds the lines of `input` to the command, each when the command has asked for one more through `wanted`.
pub fn read_lines(mut input: impl BufRead, wanted: &Receiver<()>, sender: &SyncSender<Event>) {
    while wanted.recv().is_ok() {
        let line = next_line(&mut input);
        let is_last = !matches!(line, Ok(Some(_)));
        if sender.send(Event::Line(line)).is_err() || is_last {
            return;
        }
    }
}

/// The reason string among properties.
pub fn reason_string<'a>(properties: impl Iterator<Item = Property<'a>>) -> Option<&'a str> {
    properties
        .filter_map(|property| match property {
            Property::ReasonString(text) => Some(text),
            _ => None,
        })
        .last()
}

impl Failure {
    fn with(mut self, what: &str) -> Failure {
        self.message = format!("{} ({what})", self.message);
        self
    }
}

fn next_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = u64::from(LARGEST_PACKET);
    if input.take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == limit {
        return Err(io::Error::other(
            "a line is longer than an MQTT packet can be",
        ));
    }
    Ok(Some(line))
}

fn connect_packet(settings: &Settings) -> Connect<'_> {
    Connect {
        version: settings.version,
        bridge: false,
        clean_start: settings.clean_start,
        keep_alive: settings.keep_alive,
        client_id: &settings.client_id,
        will: settings.will.as_ref().map(|will| Will {
            topic: &will.topic,
            payload: will.payload.as_bytes(),
            qos: will.qos,
            retain: will.retain,
            properties: settings.properties.will.as_properties(),
        }),
        username: settings.username.as_deref(),
        password: settings.password.as_deref().map(str::as_bytes),
        properties: settings.properties.connect.as_properties(),
    }
}

fn largest_packet(settings: &Settings) -> u32 {
    let connect = settings.properties.connect.as_properties();
    let told = connect.iter().find_map(|property| match property {
        Property::MaximumPacketSize(maximum) => Some(maximum),
        _ => None,
    });
    told.unwrap_or(LARGEST_PACKET)
}

fn read_packets(mut stream: Stream, largest: u32, sender: &SyncSender<Event>) {
    let mut bytes = Vec::new();
    let mut scratch = vec![0; READ_BYTES];
    let why = loop {
        match stream.read(&mut scratch) {
            Ok(0) => break "the server closed it".to_owned(),
            Ok(count) => bytes.extend_from_slice(&scratch[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => break error.to_string(),
        }
        match whole_frames(&bytes, largest) {
            Ok(0) => {}
            Ok(end) => {
                let rest = bytes.split_off(end);
                let frames = std::mem::replace(&mut bytes, rest);
                if sender.send(Event::Frames(frames)).is_err() {
                    return;
                }
            }
            Err(fault) => break format!("the server broke the protocol: {fault}"),
        }
    };
    // Nobody listens any more if this fails, which is all right.
    let _ = sender.send(Event::Closed(why));
}

/// How many of the bytes are whole packets.
fn whole_frames(bytes: &[u8], largest: u32) -> Result<usize, Fault> {
    let mut end = 0;
    while let Some(len) = codec::frame_len(&bytes[end..], largest)? {
        if len == 0 || len > bytes.len() - end {
            break;
        }
        end += len;
    }
    Ok(end)
}

/// Ctrl-C and SIGTERM end the command in good order. A second one, or one while the command is stuck (somebody does not read its output), ends it at once.
fn watch_signals(sender: SyncSender<Event>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let Ok(runtime) = runtime else {
        // Without it a signal ends the process at once, as it does by default.
        return;
    };
    thread::spawn(move || {
        runtime.block_on(async {
            let mut signals = Signals::new();
            let mut asked = false;
            while let Some(signals) = &mut signals
                && signals.next().await
            {
                let busy = matches!(
                    sender.try_send(Event::Interrupted),
                    Err(TrySendError::Full(_))
                );
                if asked || busy {
                    process::exit(130);
                }
                asked = true;
            }
        });
    });
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Option<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Some(Signals {
            interrupt: signal(SignalKind::interrupt()).ok()?,
            terminate: signal(SignalKind::terminate()).ok()?,
        })
    }

    async fn next(&mut self) -> bool {
        tokio::select! {
            interrupt = self.interrupt.recv() => interrupt.is_some(),
            terminate = self.terminate.recv() => terminate.is_some(),
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Option<Signals> {
        Some(Signals)
    }

    async fn next(&mut self) -> bool {
        tokio::signal::ctrl_c().await.is_ok()
    }
}

fn describe(packet: &Packet<'_>) -> String {
    let id = |id: Option<crate::wire::PacketId>| id.map_or(0, crate::wire::PacketId::get);
    match packet {
        Packet::Connect(p) => format!("CONNECT ({:?}, client {:?})", p.version, p.client_id),
        Packet::ConnAck(p) => format!(
            "CONNACK ({}, session present: {})",
            exit::words(p.reason),
            p.session_present
        ),
        Packet::Publish(p) => format!(
            "PUBLISH (d{} q{} r{} m{} {:?}, {} bytes)",
            u8::from(p.dup),
            p.qos as u8,
            u8::from(p.retain),
            id(p.packet_id),
            p.topic,
            p.payload.len()
        ),
        Packet::PubAck(p) => format!("PUBACK (m{}, {})", p.packet_id, exit::words(p.reason)),
        Packet::PubRec(p) => format!("PUBREC (m{}, {})", p.packet_id, exit::words(p.reason)),
        Packet::PubRel(p) => format!("PUBREL (m{}, {})", p.packet_id, exit::words(p.reason)),
        Packet::PubComp(p) => format!("PUBCOMP (m{}, {})", p.packet_id, exit::words(p.reason)),
        Packet::Subscribe(p) => {
            let filters: Vec<String> = p
                .filters
                .iter()
                .map(|(filter, options)| format!("{filter:?} q{}", options.qos as u8))
                .collect();
            format!("SUBSCRIBE (m{}, {})", p.packet_id, filters.join(", "))
        }
        Packet::SubAck(p) => format!("SUBACK (m{}, {:?})", p.packet_id, p.codes),
        Packet::Unsubscribe(p) => format!("UNSUBSCRIBE (m{}, {:?})", p.packet_id, p.filters),
        Packet::UnsubAck(p) => format!("UNSUBACK (m{}, {:?})", p.packet_id, p.codes),
        Packet::PingReq => "PINGREQ".to_owned(),
        Packet::PingResp => "PINGRESP".to_owned(),
        Packet::Disconnect(p) => format!("DISCONNECT ({})", exit::words(p.reason)),
        Packet::Auth(p) => format!("AUTH ({})", exit::words(p.reason)),
    }
}
