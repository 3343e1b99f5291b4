//! Bridges: tasks that dial out, each for ever, and move bytes between an upstream and the [`Relay`] that knows what they mean.

mod backoff;
mod dial;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::connection::Stream;
use super::core::{Core, Until};
use crate::broker::bridge::{Bridge, Leave, Login, Relay, Speech, Upstream};
use crate::clock::{self, Stopwatch};
use crate::wire::packet::Disconnect;
use crate::wire::{Packet, Properties, ProtocolVersion, ReasonCode, codec};

pub use dial::{Address, Transport};

use backoff::Backoff;

/// Room for bytes of the upstream, at each read.
const READ_BYTES: usize = 64 * 1024;
/// How long the upstream has to take a DISCONNECT.
const FAREWELL: Duration = Duration::from_secs(1);

/// A bridge as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct BridgeSettings {
    /// What it does once it is connected.
    pub bridge: Arc<Bridge>,
    /// Where the upstream is; never empty. They are tried in order, each time.
    pub addresses: Vec<Address>,
    /// What lies under MQTT.
    pub transport: Transport,
    /// The protocol version; `None` for MQTT 5, and MQTT 3.1.1 if the upstream does not speak it.
    pub version: Option<ProtocolVersion>,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Password>,
    /// For connecting, TLS, WebSocket and CONNACK, each.
    pub connect_timeout: Duration,
    /// The shortest wait between attempts.
    pub restart_timeout_base: Duration,
    /// The longest.
    pub restart_timeout_cap: Duration,
    /// The largest packet that is taken from the upstream, in bytes.
    pub max_packet_size: u32,
}

/// A password, which is not shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// This one.
    Is(String),
    /// The first line of this file, which is read at each attempt.
    In(PathBuf),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Password::Is(_) => f.write_str("Is(..)"),
            Password::In(path) => write!(f, "In({path:?})"),
        }
    }
}

impl Password {
    /// The password.
    ///
    /// # Errors
    /// Its file cannot be read; it is named.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Password::Is(password) => Ok(password.clone().into_bytes()),
            Password::In(path) => {
                let named =
                    |error: io::Error| io::Error::new(error.kind(), format!("{path:?}: {error}"));
                let bytes = std::fs::read(path).map_err(named)?;
                let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                Ok(bytes[..end.unwrap_or(bytes.len())].to_vec())
            }
        }
    }
}

/// A bridge's task.
#[derive(Debug)]
pub struct Running {
    settings: BridgeSettings,
    stop: Arc<Notify>,
    task: JoinHandle<Memory>,
}

/// What a bridge has found out, and what holds for its next task as well.
#[derive(Debug, Default)]
pub struct Memory {
    /// The session is new, and the upstream's must be, too.
    pub new: bool,
    /// The address that accepted last.
    home: Option<Address>,
    /// The addresses were found not to share the session: what one of them remembers means nothing once another has been connected to.
    apart: bool,
}

impl Running {
    /// Keeps a bridge connected, in a task of its own, until it is stopped or the broker shuts down. [`crate::broker::Broker::open_bridge`] comes before.
    pub fn start(core: Arc<Core>, settings: BridgeSettings, memory: Memory) -> Running {
        let stop = Arc::new(Notify::new());
        let mut caller = Caller {
            speech: first_speech(&settings),
            closed: 0,
            subscribed: false,
            memory,
            core,
            settings: settings.clone(),
        };
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            tokio::select! {
                () = caller.stay_connected() => {}
                () = stopped.notified() => {}
            }
            caller.memory
        });
        Running {
            settings,
            stop,
            task,
        }
    }

    /// What it was started with.
    pub fn settings(&self) -> &BridgeSettings {
        &self.settings
    }

    /// Cuts its connection and waits until it is gone at this broker, too.
    pub async fn stop(self) -> Memory {
        self.stop.notify_one();
        // A task that has panicked knows nothing more.
        self.task.await.unwrap_or_default()
    }
}

fn first_speech(settings: &BridgeSettings) -> Speech {
    match settings.version {
        Some(ProtocolVersion::V311 | ProtocolVersion::V31) => Speech::V311Bridge,
        Some(ProtocolVersion::V5) | None => Speech::V5,
    }
}

/// What a bridge knows between two connections.
struct Caller {
    core: Arc<Core>,
    settings: BridgeSettings,
    /// What the upstream was found to speak.
    speech: Speech,
    /// How often the upstream closed the connection during this call instead of answering CONNECT.
    closed: u32,
    /// The upstream has been subscribed to.
    subscribed: bool,
    memory: Memory,
}

/// An upstream that has accepted.
struct Accepted {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    upstream: Upstream,
    /// What came behind its CONNACK.
    input: Vec<u8>,
}

/// How a call has ended.
enum Ended {
    /// This broker shuts down.
    ShuttingDown,
    /// There was no connection, and why not.
    NotConnected(String),
    /// The connection has ended, and why.
    Disconnected(String),
}

impl Caller {
    /// Connects again and again, until the broker shuts down.
    async fn stay_connected(&mut self) {
        let settings = &self.settings;
        let mut backoff = Backoff::new(settings.restart_timeout_base, settings.restart_timeout_cap);
        loop {
            for address in self.settings.addresses.clone() {
                let called = Stopwatch::start();
                let ended = self.call(&address).await;
                let name = &self.settings.bridge.name;
                match ended {
                    Ended::ShuttingDown => return,
                    Ended::Disconnected(why) => {
                        tracing::warn!(bridge = &**name, why, "bridge disconnected");
                        self.tell(&why);
                        backoff.connected_for(called.elapsed());
                        break;
                    }
                    Ended::NotConnected(why) => {
                        tracing::warn!(bridge = &**name, why, "bridge not connected");
                        self.tell(&why);
                    }
                }
            }
            sleep(backoff.next(clock::seed())).await;
        }
    }

    /// Connects to an address and serves the connection until it ends.
    async fn call(&mut self, address: &Address) -> Ended {
        let known = self.speech;
        self.closed = 0;
        let accepted = loop {
            match self.connect(address).await {
                Ok(Some(accepted)) => break Ok(accepted),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
        };
        if self.closed > 0 {
            // What was tried because of it was a guess, which the next call does not begin with.
            self.speech = known;
        }
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return Ended::NotConnected(format!("{address}: {error}")),
        };
        let upstream = accepted.upstream;
        tracing::info!(bridge = &*self.settings.bridge.name, %address, version = ?upstream.version, present = upstream.session_present, "bridge connected");
        let relay = {
            let mut entered = self.core.enter(None);
            let now = entered.now();
            let bridge = Arc::clone(&self.settings.bridge);
            Relay::open(bridge, upstream, self.subscribed, entered.broker(), now)
        };
        let Some(relay) = relay else {
            return Ended::ShuttingDown;
        };
        let mut link = Link {
            core: Arc::clone(&self.core),
            bridge: Arc::clone(&self.settings.bridge),
            told: false,
            max_packet_size: self.settings.max_packet_size,
            wakeup: Arc::default(),
            input: accepted.input,
            out: Vec::new(),
            written: 0,
            unflushed: false,
            relay,
        };
        let (mut reader, mut writer) = (accepted.reader, accepted.writer);
        let ended = link.serve(&mut reader, &mut writer).await;
        self.subscribed = link.relay.has_all_subscriptions();
        if ended.is_ok() {
            let _ = timeout(FAREWELL, link.take_leave(&mut writer)).await;
        }
        drop(link);
        match ended {
            Ok(Leave::ShuttingDown) => Ended::ShuttingDown,
            Ok(leave) => Ended::Disconnected(format!("{address}: {leave}")),
            Err(error) => Ended::Disconnected(format!("{address}: {error}")),
        }
    }

    /// Publishes why the bridge is not connected.
    fn tell(&self, error: &str) {
        let mut entered = self.core.enter(None);
        let now = entered.now();
        let bridge = &self.settings.bridge;
        entered.broker().set_bridge_state(bridge, Some(error), now);
    }

    /// Dials, and says CONNECT. `None` if that has to be done again, in another way.
    async fn connect(&mut self, address: &Address) -> io::Result<Option<Accepted>> {
        let settings = &self.settings;
        let version = self.speech.version();
        let elsewhere = self
            .memory
            .home
            .as_ref()
            .is_some_and(|home| home != address);
        let clean = self.memory.new || (elsewhere && self.memory.apart);
        let password = settings.password.as_ref().map(Password::read).transpose()?;
        let stream = settings
            .transport
            .dial(address, version, settings.connect_timeout)
            .await?;
        let (mut reader, mut writer) = split(stream);
        let mut out = Vec::new();
        let login = Login {
            username: settings.username.as_deref(),
            password: password.as_deref(),
        };
        let largest = settings.max_packet_size;
        settings
            .bridge
            .encode_connect(self.speech, login, clean, largest, &mut out);
        let mut input = Vec::new();
        let handshake = async {
            writer.write_all(&out).await?;
            writer.flush().await?;
            read_frame(&mut reader, &mut input, largest).await
        };
        let length = match timeout(settings.connect_timeout, handshake).await {
            Ok(Ok(length)) => length,
            Ok(Err(error)) if is_closed(&error) && self.try_other_speech() => return Ok(None),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::Error::other("no CONNACK in time")),
        };
        // A broker that knows MQTT 3 only answers a CONNECT of MQTT 5 in its own words.
        let refused_version = matches!(input[..length], [0x20, 2, _, 1]);
        let connack = match codec::decode(&input[..length], version) {
            _ if refused_version => Err(ReasonCode::UnsupportedProtocolVersion),
            Ok(Packet::ConnAck(connack)) if connack.reason.is_error() => Err(connack.reason),
            Ok(Packet::ConnAck(connack)) => Ok(Upstream::new(&connack, version, &settings.bridge)),
            Ok(_) => return Err(io::Error::other("the first packet is not CONNACK")),
            Err(fault) => return Err(io::Error::other(fault.to_string())),
        };
        let upstream = match connack {
            Ok(upstream) => upstream,
            Err(ReasonCode::UnsupportedProtocolVersion) if self.lower_speech() => return Ok(None),
            Err(reason) => return Err(io::Error::other(format!("refused: {reason}"))),
        };
        self.memory.new = false;
        self.memory.apart |= elsewhere && !upstream.session_present;
        self.memory.home = Some(address.clone());
        if clean && version != ProtocolVersion::V5 {
            // A clean session of MQTT 3 ends with its connection: the one that is kept is begun by the next.
            let mut out = Vec::new();
            put_disconnect(version, &mut out);
            writer.write_all(&out).await?;
            writer.flush().await?;
            return Ok(None);
        }
        input.drain(..length);
        Ok(Some(Accepted {
            reader,
            writer,
            upstream,
            input,
        }))
    }

    /// Whether to connect once more after the upstream closed the connection instead of answering. A broker that does not know MQTT 5 (RabbitMQ before
    /// 3.13) or the bridge's bit may do that; but a link that is cut looks the same, so MQTT 5 is tried twice.
    fn try_other_speech(&mut self) -> bool {
        self.closed += 1;
        match self.speech {
            Speech::V5 if self.closed == 1 => self.settings.version.is_none(),
            _ => self.lower_speech(),
        }
    }

    /// The next thing to speak, if there is any.
    fn lower_speech(&mut self) -> bool {
        self.speech = match self.speech {
            Speech::V5 if self.settings.version.is_none() => Speech::V311Bridge,
            Speech::V311Bridge => Speech::V311,
            Speech::V5 | Speech::V311 => return false,
        };
        true
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn put_disconnect(version: ProtocolVersion, out: &mut Vec<u8>) {
    let packet = Packet::Disconnect(Disconnect {
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    });
    codec::encode(&packet, version, out);
}

/// Reads until `input` begins with a whole frame; its length.
async fn read_frame(
    reader: &mut ReadHalf<Box<dyn Stream>>,
    input: &mut Vec<u8>,
    largest: u32,
) -> io::Result<usize> {
    loop {
        let length = codec::frame_len(input, largest)
            .map_err(|fault| io::Error::other(fault.to_string()))?;
        if let Some(length) = length {
            return Ok(length);
        }
        if reader.read_buf(input).await? == 0 {
            let what = "the upstream closed the connection before CONNACK";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
    }
}

/// Notes that the broker has something for the bridge.
#[derive(Default)]
struct Wakeup(Notify);

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// A connection to an upstream that has accepted.
struct Link {
    core: Arc<Core>,
    bridge: Arc<Bridge>,
    /// It has been published that the bridge is connected.
    told: bool,
    relay: Relay,
    max_packet_size: u32,
    wakeup: Arc<Wakeup>,
    input: Vec<u8>,
    /// What is being written, and how far that is.
    out: Vec<u8>,
    written: usize,
    /// The stream may still hold what was written to it.
    unflushed: bool,
}

impl Link {
    /// Moves bytes until the relay wants to leave (`Ok`), or the connection is lost.
    async fn serve(
        &mut self,
        reader: &mut ReadHalf<Box<dyn Stream>>,
        writer: &mut WriteHalf<Box<dyn Stream>>,
    ) -> io::Result<Leave> {
        loop {
            let (pause, wait) = match self.visit() {
                Ok(visited) => visited,
                Err(leave) => return Ok(leave),
            };
            self.input.reserve(READ_BYTES);
            tokio::select! {
                read = reader.read_buf(&mut self.input), if !pause => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                put = put(writer, &self.out[self.written..]), if !self.out.is_empty() || self.unflushed => {
                    self.wrote(put?);
                }
                () = self.wakeup.0.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// One visit to the broker: hands over all whole packets that have come, and takes what there is. Whether to pause reading, and how long until
    /// something is due.
    fn visit(&mut self) -> Result<(bool, Duration), Leave> {
        let Link { relay, out, .. } = self;
        let mut entered = self.core.enter(Some(relay.connection()));
        let now = entered.now();
        let version = relay.version();
        let mut used = 0;
        while let Some(length) = codec::frame_len(&self.input[used..], self.max_packet_size)? {
            let packet = codec::decode(&self.input[used..used + length], version)?;
            relay.receive(packet, entered.broker(), out, now)?;
            used += length;
        }
        self.input.drain(..used);
        relay.tick(out, now)?;
        let pause = if out.is_empty() {
            relay.take_output(entered.broker(), out, now)?
        } else {
            entered.broker().should_pause(relay.connection())
        };
        if relay.is_subscribed() && !std::mem::replace(&mut self.told, true) {
            let bridge = &self.bridge;
            entered.broker().set_bridge_state(bridge, None, now);
        }
        let waker = Waker::from(Arc::clone(&self.wakeup));
        entered.set_waker(relay.connection(), &waker, Until::Touched);
        let wait = relay.next_timeout().saturating_sub(now.uptime);
        Ok((pause, Duration::from_millis(wait.min(3_600_000))))
    }

    fn wrote(&mut self, count: usize) {
        if count == 0 {
            self.unflushed = false;
            return;
        }
        self.written += count;
        if self.written == self.out.len() {
            self.out = Vec::new();
            self.written = 0;
            self.unflushed = true;
        }
        self.relay.wrote(self.core.now());
    }

    /// Writes what was begun, and DISCONNECT.
    async fn take_leave(&mut self, writer: &mut WriteHalf<Box<dyn Stream>>) -> io::Result<()> {
        put_disconnect(self.relay.version(), &mut self.out);
        writer.write_all(&self.out[self.written..]).await?;
        writer.flush().await?;
        writer.shutdown().await
    }
}

impl Drop for Link {
    /// However the connection ends, also when the bridge is stopped in the middle of it, it ends at this broker.
    fn drop(&mut self) {
        let mut entered = self.core.enter(Some(self.relay.connection()));
        let now = entered.now();
        self.relay.close(entered.broker(), now);
    }
}

/// Writes some of these bytes; if there are none, makes sure that the stream holds none back. How many were written.
async fn put(writer: &mut WriteHalf<Box<dyn Stream>>, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        writer.flush().await?;
        return Ok(0);
    }
    match writer.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}
