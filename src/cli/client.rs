//! A small MQTT client for the command line: one connection, one thread that reads it, and one
//! queue of events for the command.
//!
//! The thread of the command does the rest, so no state is shared. Packets are written when the
//! command waits for the next event, or when there are enough of them.

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::process;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::exit::{self, Failure};
use super::options::Settings;
use super::print;
use super::stream::Stream;
use crate::clock::Clock;
use crate::wire::packet::{Connect, Disconnect, Will};
use crate::wire::{Fault, Packet, Property, ProtocolVersion, ReasonCode, codec};

/// The length of the largest MQTT packet in bytes.
pub const LARGEST_PACKET: u32 = 268_435_460;

/// The most events in the queue. When it is full, nothing more is read from the server.
const MAX_EVENTS: usize = 256;
/// Size of one read in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Queued bytes from which on they are written without waiting for the next event.
const FLUSH_BYTES: usize = 64 * 1024;
/// Time limit for the last bytes of a connection.
const CLOSE_TIMEOUT_MS: u64 = 2_000;

/// What a command receives.
#[derive(Debug)]
pub enum Event {
    /// Complete packets from the server.
    Frames(Vec<u8>),
    /// A line of standard input without its line end; `None` at the end of the input.
    Line(io::Result<Option<Vec<u8>>>),
    /// The user asked the command to end.
    Interrupted,
    /// The connection is closed. The text says why.
    Closed(String),
}

/// What the server supports, as told in its CONNACK. Defaults are those of the standard.
#[derive(Clone, Copy, Debug)]
pub struct ServerCapabilities {
    /// Whether the server had a session of this client.
    pub session_present: bool,
    /// How many QoS 1 and 2 messages may wait for acknowledgements.
    pub receive_maximum: u16,
    /// Maximum length of a packet in bytes.
    pub maximum_packet_size: u32,
    /// Highest QoS.
    pub maximum_qos: u8,
    /// Whether messages may be retained.
    pub retain_available: bool,
    /// Highest topic alias.
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
    /// The progress of the connection at the last check, see [`Stream::progress`].
    progress: Option<u64>,
    capabilities: ServerCapabilities,
    /// Whether a DISCONNECT was sent or received.
    ended: bool,
}

impl Client {
    /// Connects and waits for the CONNACK.
    ///
    /// # Errors
    /// Fails if the host is not known, does not answer or refuses.
    pub fn connect(settings: &Settings) -> Result<Client, Failure> {
        let clock = Clock::start();
        let stream = Stream::open(settings)?;
        let system = |error: io::Error| Failure::new(exit::FAILED, error.to_string());
        let timeout = Duration::from_secs(u64::from(settings.keep_alive).max(30));
        stream.set_write_timeout(timeout).map_err(system)?;
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
            capabilities: ServerCapabilities::default(),
            ended: false,
        };
        client.send(&Packet::Connect(Box::new(connect_packet(settings))));
        client.receive_connack(settings)?;
        Ok(client)
    }

    /// Returns what the server supports.
    pub fn capabilities(&self) -> ServerCapabilities {
        self.capabilities
    }

    /// Milliseconds since the client was made.
    pub fn uptime(&self) -> u64 {
        self.clock.now().uptime
    }

    /// Returns the sending end of the event queue, for other threads.
    pub fn sender(&self) -> SyncSender<Event> {
        self.sender.clone()
    }

    /// Queues a packet for the server.
    pub fn send(&mut self, packet: &Packet<'_>) {
        self.debug(|| format!("sending {}", describe(packet)));
        codec::encode(packet, self.version, &mut self.out);
    }

    /// Writes the queued packets.
    ///
    /// # Errors
    /// Fails if the connection is lost.
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

    /// Returns an event if one is in the queue.
    pub fn poll(&mut self) -> Option<Event> {
        self.unread
            .pop_front()
            .or_else(|| self.events.try_recv().ok())
    }

    /// Writes the queued packets if they are large.
    ///
    /// # Errors
    /// As [`Client::flush`].
    pub fn flush_if_large(&mut self) -> Result<(), Failure> {
        if self.out.len() >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Waits for the next event. Returns `None` at `deadline`, in milliseconds of
    /// [`Client::uptime`]. Keeps the connection alive while waiting.
    ///
    /// # Errors
    /// Fails if the connection is lost or the server does not answer any more.
    pub fn next(&mut self, deadline: Option<u64>) -> Result<Option<Event>, Failure> {
        if let Some(event) = self.unread.pop_front() {
            return Ok(Some(event));
        }
        let mut event = None;
        while event.is_none() {
            // Needed even if there is always something to receive: only sent packets keep a
            // connection alive.
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
                // Without a deadline the loop wakes once an hour.
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

    /// Decodes the packets of an [`Event::Frames`].
    pub fn packets<'c>(&self, frames: &'c [u8]) -> Packets<'c> {
        Packets {
            rest: frames,
            version: self.version,
            debug: self.debug,
        }
    }

    /// Sends a DISCONNECT, unless one was sent or received, and waits a short time until the server
    /// has read everything.
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
        // Closing a socket with unread bytes resets the connection. The server may then lose what
        // was written last.
        while let Ok(Some(event)) = self.next_raw(deadline) {
            if matches!(event, Event::Closed(_)) {
                return;
            }
        }
    }

    /// Returns the failure for a packet that is not expected here: a DISCONNECT, or one that the
    /// server must not send. Tells an MQTT 5 server.
    pub fn unexpected(&mut self, packet: &Packet<'_>) -> Failure {
        if let Packet::Disconnect(disconnect) = packet {
            self.ended = true;
            let explained = reason_string(disconnect.properties.iter());
            return Failure::refused("the server disconnected", disconnect.reason, explained);
        }
        self.report_fault(Fault::protocol("a packet that does not belong here"))
            .with(&describe(packet))
    }

    /// Returns the failure for an error of the server. Tells an MQTT 5 server.
    pub fn report_fault(&mut self, fault: Fault) -> Failure {
        if self.version == ProtocolVersion::V5 {
            self.send(&Packet::Disconnect(Disconnect {
                reason: fault.reason,
                properties: Default::default(),
            }));
            // The connection ends here in any case. The command fails with `fault`.
            let _ = self.flush();
            self.ended = true;
        }
        Failure::new(
            exit::WRONG,
            format!("the server broke the protocol: {fault}"),
        )
    }

    /// Writes a line to stderr if `-d` was given.
    pub fn debug(&self, what: impl FnOnce() -> String) {
        if self.debug {
            print::err(what());
        }
    }

    fn next_raw(&mut self, deadline: u64) -> Result<Option<Event>, RecvTimeoutError> {
        let wait = deadline.saturating_sub(self.uptime());
        self.events
            .recv_timeout(Duration::from_millis(wait))
            .map(Some)
    }

    /// Sends a PINGREQ when it is time. Returns the time of the next check.
    fn keep_alive(&mut self) -> Result<u64, Failure> {
        if self.keep_alive_ms == 0 {
            return Ok(u64::MAX);
        }
        let now = self.uptime();
        if let Some(sent) = self.ping_sent {
            let last_moment = sent + self.keep_alive_ms;
            let progress = self.stream.progress();
            if std::mem::replace(&mut self.progress, progress) != progress {
                // Something large is in transfer, in one direction or the other, and the answer is
                // behind it.
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
                self.capabilities.session_present = connack.session_present;
                for property in connack.properties.iter() {
                    self.read_property(&property);
                }
            }
            Some(Ok(other)) => return Err(self.unexpected(&other)),
            Some(Err(fault)) => return Err(self.report_fault(fault)),
            None => return Err(self.report_fault(Fault::malformed("no CONNACK"))),
        }
        if !packets.rest.is_empty() {
            self.unread.push_back(Event::Frames(packets.rest.to_vec()));
        }
        Ok(())
    }

    fn read_property(&mut self, property: &Property<'_>) {
        match property {
            Property::ReceiveMaximum(maximum) => self.capabilities.receive_maximum = *maximum,
            Property::MaximumPacketSize(maximum) => {
                self.capabilities.maximum_packet_size = *maximum
            }
            Property::MaximumQos(maximum) => self.capabilities.maximum_qos = *maximum,
            Property::RetainAvailable(available) => {
                self.capabilities.retain_available = *available == 1;
            }
            Property::TopicAliasMaximum(maximum) => {
                self.capabilities.topic_alias_maximum = *maximum
            }
            // [MQTT-3.1.2-21]: the keep alive of the server replaces that of the client.
            Property::ServerKeepAlive(seconds) => self.keep_alive_ms = u64::from(*seconds) * 1000,
            Property::AssignedClientIdentifier(id) => {
                self.debug(|| format!("assigned client identifier {id}"));
            }
            _ => {}
        }
    }
}

impl Default for ServerCapabilities {
    fn default() -> ServerCapabilities {
        ServerCapabilities {
            session_present: false,
            receive_maximum: u16::MAX,
            maximum_packet_size: LARGEST_PACKET,
            maximum_qos: 2,
            retain_available: true,
            topic_alias_maximum: 0,
        }
    }
}

/// Decodes complete packets one after the other.
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
                Ok(packet) => print::err(format_args!("received {}", describe(packet))),
                Err(fault) => print::err(format_args!("received what is no packet: {fault}")),
            }
        }
        Some(packet)
    }
}

/// Sends the lines of `input` as events, one line for each request in `wanted`.
pub fn read_lines(mut input: impl BufRead, wanted: &Receiver<()>, sender: &SyncSender<Event>) {
    while wanted.recv().is_ok() {
        let line = next_line(&mut input);
        let is_last = !matches!(line, Ok(Some(_)));
        if sender.send(Event::Line(line)).is_err() || is_last {
            return;
        }
    }
}

/// Returns the reason string among properties.
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
    // Fails only if the receiver is gone, and then nobody needs it.
    let _ = sender.send(Event::Closed(why));
}

/// Returns the length of the complete packets at the beginning.
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

/// Turns Ctrl-C and SIGTERM into an event, so that the command ends in order. A second signal ends
/// the process at once, and so does one while the command is blocked because nobody reads its
/// output.
fn watch_signals(sender: SyncSender<Event>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let Ok(runtime) = runtime else {
        // Without the thread a signal ends the process at once, which is the default.
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
