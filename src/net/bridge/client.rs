//! Keeps a bridge connected: tries its addresses in order, and fails back to a preferred address.
//!
//! The old connection ends only after the preferred address has accepted.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::addresses::Addresses;
use super::backoff::Backoff;
use super::exchange::{is_closed, send_and_wait};
use super::link::{Link, put_disconnect};
use super::password::Password;
use super::settings::{BridgeSettings, StartType};
use crate::broker::bridge::{
    AddressState, Leave, Login, Relay, Upstream, UpstreamProtocol, hint, told,
};
use crate::clock::{self, Stopwatch};
use crate::net::lock_stats::Purpose;
use crate::net::shared_broker::SharedBroker;
use crate::net::socket::Stream;
use crate::wire::{Packet, ProtocolVersion, ReasonCode, codec};

/// How often a bridge with `start_type = "lazy"` checks for messages.
const LAZY_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Connects a bridge to its upstream, again and again.
pub(super) struct BridgeClient {
    broker: Arc<SharedBroker>,
    settings: BridgeSettings,
    /// What the upstream is known to understand.
    protocol: UpstreamProtocol,
    /// How often, in this attempt, the upstream closed the connection instead of answering CONNECT.
    closed_count: u32,
    /// The last connection was useful, and no other client has taken over its session.
    has_worked: bool,
    /// The addresses that have accepted all subscriptions.
    subscribed: Vec<bool>,
}

/// An upstream that has accepted the CONNECT.
struct AcceptedUpstream {
    stream: Box<dyn Stream>,
    upstream: Upstream,
    /// Bytes behind the CONNACK.
    input: Vec<u8>,
}

/// The result of a CONNECT.
enum ConnectResult {
    Accepted(AcceptedUpstream),
    /// The CONNECT must be sent in another form.
    Retry,
    /// MQTT 3.1.1: the old session is removed by a clean session, which has ended. The next CONNECT
    /// starts a session that is kept.
    CleanStarted,
}

/// Why there is no connection any more.
enum ConnectionEnd {
    /// This broker shuts down.
    ShuttingDown,
    /// No connection, with the reason.
    NotConnected(String),
    /// The connection has ended, with the reason.
    Disconnected(String),
    /// There was nothing to do.
    Idle,
}

/// The result of serving a connection.
enum ServeResult {
    Ended(ConnectionEnd),
    /// A preferred address has accepted. Holds its index.
    Failback(usize, AcceptedUpstream),
}

/// What failback and the connection tell each other.
#[derive(Default)]
struct FailbackState {
    /// A preferred address is being connected.
    is_connecting: AtomicBool,
    /// The connection is lost.
    is_lost: AtomicBool,
}

impl AcceptedUpstream {
    /// Sends PINGREQ while the connection is not served yet. Returns only if it is lost.
    async fn keep_alive(&mut self) {
        // Half the keep alive, so that the first packet after this is not late either.
        let interval = match self.upstream.keep_alive {
            0 => return pending().await,
            seconds => Duration::from_millis(u64::from(seconds) * 500),
        };
        let mut ping = Vec::new();
        codec::encode(&Packet::PingReq, self.upstream.version, &mut ping);
        loop {
            sleep(interval).await;
            // The PINGRESP is read when the connection is served.
            if self.stream.write_all(&ping).await.is_err() || self.stream.flush().await.is_err() {
                return;
            }
        }
    }
}

impl BridgeClient {
    pub fn new(broker: Arc<SharedBroker>, settings: BridgeSettings) -> BridgeClient {
        let names: Vec<String> = settings.addresses.iter().map(ToString::to_string).collect();
        broker
            .lock(Purpose::Other, None)
            .broker()
            .keep_bridge_addresses(&settings.bridge, &names);
        BridgeClient {
            protocol: match settings.version {
                Some(ProtocolVersion::V311 | ProtocolVersion::V31) => UpstreamProtocol::V311Bridge,
                Some(ProtocolVersion::V5) | None => UpstreamProtocol::V5,
            },
            closed_count: 0,
            has_worked: false,
            subscribed: vec![false; names.len()],
            broker,
            settings,
        }
    }

    /// Connects again and again. Returns when the broker shuts down.
    pub async fn stay_connected(&mut self, addresses: &Addresses) {
        let settings = &self.settings;
        let mut backoff = Backoff::new(settings.restart_timeout_base, settings.restart_timeout_cap);
        loop {
            self.wait_for_work().await;
            let mut is_idle = false;
            for at in addresses.order() {
                let started = Stopwatch::start();
                let ended = self.connect_and_serve(at, addresses).await;
                let name = &self.settings.bridge.name;
                match ended {
                    ConnectionEnd::ShuttingDown => return,
                    ConnectionEnd::Disconnected(why) => {
                        tracing::warn!(bridge = &**name, why, "bridge disconnected");
                        self.publish_error(&why);
                        backoff
                            .connected_for(started.elapsed(), std::mem::take(&mut self.has_worked));
                        break;
                    }
                    ConnectionEnd::NotConnected(why) => {
                        tracing::warn!(bridge = &**name, why, "bridge not connected");
                        self.publish_error(&why);
                    }
                    ConnectionEnd::Idle => {
                        tracing::info!(
                            bridge = &**name,
                            "bridge disconnected: there is nothing to do"
                        );
                        backoff.connected_for(started.elapsed(), true);
                        is_idle = true;
                        break;
                    }
                }
            }
            if self.settings.start == StartType::Once {
                let bridge = &*self.settings.bridge.name;
                tracing::warn!(
                    bridge,
                    "the bridge is not connected again, as start_type = \"once\" says; a reload that changes it, or a new start, does so"
                );
                return pending().await;
            }
            if is_idle {
                continue;
            }
            sleep(backoff.next(clock::seed())).await;
        }
    }

    /// With `start_type = "lazy"`, waits until there are enough messages for the upstream.
    async fn wait_for_work(&self) {
        let StartType::Lazy { threshold, .. } = self.settings.start else {
            return;
        };
        let name = &self.settings.bridge.name;
        loop {
            let queued = self
                .broker
                .lock(Purpose::Other, None)
                .broker()
                .bridge_queued(name);
            if queued >= threshold {
                return;
            }
            sleep(LAZY_POLL_INTERVAL).await;
        }
    }

    /// Connects to an address and serves the connection. After a failback, serves the new one.
    async fn connect_and_serve(&mut self, mut at: usize, addresses: &Addresses) -> ConnectionEnd {
        let mut accepted = match self.connect(at).await {
            Ok(accepted) => accepted,
            Err(error) => {
                let why = format!("{}: {error}", self.settings.addresses[at]);
                addresses.set_state(at, AddressState::Unreachable(error.to_string()));
                return ConnectionEnd::NotConnected(why);
            }
        };
        loop {
            match self.serve(at, accepted, addresses).await {
                ServeResult::Ended(ended) => return ended,
                ServeResult::Failback(preferred, next) => (at, accepted) = (preferred, next),
            }
        }
    }

    /// Serves a connection until it ends, or until a preferred address has accepted.
    async fn serve(
        &mut self,
        at: usize,
        accepted: AcceptedUpstream,
        addresses: &Addresses,
    ) -> ServeResult {
        let address = self.settings.addresses[at].clone();
        let upstream = accepted.upstream;
        if upstream.keep_alive == 0
            && let Some(socket) = accepted.stream.socket()
        {
            socket.enable_keepalive();
        }
        tracing::info!(bridge = &*self.settings.bridge.name, %address, version = ?upstream.version, present = upstream.session_present, "bridge connected");
        let relay = {
            let mut guard = self.broker.lock(Purpose::Other, None);
            let now = guard.now();
            let bridge = Arc::clone(&self.settings.bridge);
            let (address, subscribed) = (address.to_string(), self.subscribed[at]);
            Relay::open(bridge, upstream, &address, subscribed, guard.broker(), now)
        };
        let Some(relay) = relay else {
            return ServeResult::Ended(ConnectionEnd::ShuttingDown);
        };
        addresses.set_state(at, AddressState::Connected);
        let bridge = Arc::clone(&self.settings.bridge);
        let largest = self.settings.max_packet_size;
        let broker = Arc::clone(&self.broker);
        let idle = match self.settings.start {
            StartType::Lazy { idle_timeout, .. } => Some(idle_timeout),
            StartType::Automatic | StartType::Once => None,
        };
        let mut link = Link::new(broker, bridge, relay, largest, idle, accepted.input);
        let mut stream = accepted.stream;
        let (ended, preferred) = self
            .serve_until_failback(at, addresses, &mut link, &mut stream)
            .await;
        if let (Some(ended), None) = (&ended, &preferred) {
            link.record_end(ended);
        }
        let taken_over = matches!(
            ended,
            Some(Ok(Leave::Disconnected(ReasonCode::SessionTakenOver, _)))
        );
        self.has_worked = link.relay.has_worked() && !taken_over;
        self.subscribed[at] = link.relay.has_all_subscriptions();
        if ended.as_ref().is_none_or(Result::is_ok) {
            link.disconnect(&mut stream).await;
        }
        drop(link);
        match preferred {
            Some((preferred, accepted)) if !matches!(ended, Some(Ok(Leave::ShuttingDown))) => {
                addresses.set_state(at, AddressState::Reachable);
                self.fail_back(preferred, accepted, &ended).await
            }
            _ => {
                let why = match ended {
                    Some(Ok(Leave::ShuttingDown)) => {
                        return ServeResult::Ended(ConnectionEnd::ShuttingDown);
                    }
                    Some(Ok(Leave::Idle)) => {
                        addresses.set_state(at, AddressState::Reachable);
                        let mut guard = self.broker.lock(Purpose::Other, None);
                        let now = guard.now();
                        guard.broker().set_bridge_idle(&self.settings.bridge, now);
                        return ServeResult::Ended(ConnectionEnd::Idle);
                    }
                    Some(Ok(leave)) => leave.to_string(),
                    Some(Err(error)) => error.to_string(),
                    None => "left".to_owned(),
                };
                addresses.set_state(at, AddressState::Unreachable(why.clone()));
                ServeResult::Ended(ConnectionEnd::Disconnected(format!("{address}: {why}")))
            }
        }
    }

    /// Serves a connection until it ends, or until a preferred address has accepted. In that case
    /// finishes what is in flight on this one. Returns how it ended (`None` if it has not) and the
    /// preferred connection.
    async fn serve_until_failback(
        &mut self,
        at: usize,
        addresses: &Addresses,
        link: &mut Link,
        stream: &mut Box<dyn Stream>,
    ) -> (Option<io::Result<Leave>>, Option<(usize, AcceptedUpstream)>) {
        let state = FailbackState::default();
        let (mut ended, mut preferred) = {
            let preferred = self.connect_to_preferred(at, addresses, &state);
            tokio::pin!(preferred);
            tokio::select! {
                ended = link.serve(stream) => {
                    state.is_lost.store(true, Ordering::Relaxed);
                    // If the addresses share sessions, the new connection has ended this one.
                    let wait = state.is_connecting.load(Ordering::Relaxed) && !matches!(ended, Ok(Leave::ShuttingDown));
                    let preferred = if wait { preferred.await } else { None };
                    (Some(ended), preferred)
                }
                preferred = &mut preferred => (None, preferred),
            }
        };
        if let (Some((_, next)), None) = (&mut preferred, &ended) {
            link.finish();
            // Ends by itself if nothing advances for `response_timeout`.
            tokio::select! {
                finished = link.serve(stream) => ended = Some(finished),
                () = next.keep_alive() => {}
            }
        }
        (ended, preferred)
    }

    /// Leaves the old connection for a preferred address that has accepted. How the old one ended
    /// shows whether the two addresses share the session.
    async fn fail_back(
        &mut self,
        at: usize,
        accepted: AcceptedUpstream,
        ended: &Option<io::Result<Leave>>,
    ) -> ServeResult {
        let is_separate = match ended {
            Some(Ok(Leave::Disconnected(ReasonCode::SessionTakenOver, _))) => Some(false),
            // It has answered although the other connection had been accepted.
            Some(Ok(Leave::Finished)) => Some(true),
            Some(Ok(Leave::Silent(_))) | None => {
                let bridge = &*self.settings.bridge.name;
                tracing::warn!(
                    bridge,
                    "not all that was under way could be finished in time: it goes to the better address as well"
                );
                None
            }
            Some(_) => None,
        };
        let (bridge, address) = (&self.settings.bridge, &self.settings.addresses[at]);
        let begins_anew = {
            let mut guard = self.broker.lock(Purpose::Other, None);
            if let Some(is_separate) = is_separate {
                guard.broker().set_separate_sessions(bridge, is_separate);
            }
            guard.broker().begins_anew(bridge, &address.to_string())
        };
        if !begins_anew || !accepted.upstream.session_present {
            return ServeResult::Failback(at, accepted);
        }
        // Its session is not known here.
        drop(accepted);
        match self.connect(at).await {
            Ok(accepted) => ServeResult::Failback(at, accepted),
            Err(error) => {
                let why = format!("{}: {error}", self.settings.addresses[at]);
                ServeResult::Ended(ConnectionEnd::Disconnected(why))
            }
        }
    }

    /// Connects to each preferred address that has answered for `hold_down`, until one accepts.
    /// Returns `None` if the old connection was lost and the attempt failed.
    async fn connect_to_preferred(
        &mut self,
        at: usize,
        addresses: &Addresses,
        state: &FailbackState,
    ) -> Option<(usize, AcceptedUpstream)> {
        loop {
            let preferred = addresses.wait_for_preferred(at).await;
            state.is_connecting.store(true, Ordering::Relaxed);
            match self.connect(preferred).await {
                Ok(accepted) => return Some((preferred, accepted)),
                Err(error) => {
                    let (bridge, address) = (
                        &*self.settings.bridge.name,
                        &self.settings.addresses[preferred],
                    );
                    tracing::warn!(bridge, %address, %error, "the better address does not accept");
                    addresses.set_state(preferred, AddressState::Unreachable(error.to_string()));
                }
            }
            state.is_connecting.store(false, Ordering::Relaxed);
            if state.is_lost.load(Ordering::Relaxed) {
                return None;
            }
        }
    }

    /// Publishes why the bridge is not connected.
    fn publish_error(&self, error: &str) {
        let mut guard = self.broker.lock(Purpose::Other, None);
        let now = guard.now();
        let bridge = &self.settings.bridge;
        guard.broker().set_bridge_state(bridge, Some(error), now);
    }

    /// Connects to an address and sends CONNECT, in a form that the upstream understands.
    async fn connect(&mut self, at: usize) -> io::Result<AcceptedUpstream> {
        let mut clean = {
            let address = self.settings.addresses[at].to_string();
            let mut guard = self.broker.lock(Purpose::Other, None);
            guard.broker().begins_anew(&self.settings.bridge, &address)
        };
        let known = self.protocol;
        self.closed_count = 0;
        let accepted = loop {
            match self.try_to_connect(at, clean).await {
                Ok(ConnectResult::Accepted(accepted)) => break Ok(accepted),
                Ok(ConnectResult::Retry) => {}
                Ok(ConnectResult::CleanStarted) => clean = false,
                Err(error) => break Err(error),
            }
        };
        if self.closed_count > 0 {
            // The other form was a guess. The next attempt does not start with it.
            self.protocol = known;
        }
        accepted
    }

    async fn try_to_connect(&mut self, at: usize, clean: bool) -> io::Result<ConnectResult> {
        let settings = &self.settings;
        let address = &settings.addresses[at];
        let version = self.protocol.version();
        let password = settings.password.as_ref().map(Password::read).transpose()?;
        let mut stream = settings
            .transport
            .dial(address, version, settings.connect_timeout)
            .await?;
        let mut out = Vec::new();
        let login = Login {
            username: settings.username.as_deref(),
            password: password.as_deref(),
        };
        let largest = settings.max_packet_size;
        let origin = self.broker.lock(Purpose::Other, None).broker().origin();
        let bridge = &settings.bridge;
        bridge.encode_connect(origin, self.protocol, login, clean, largest, &mut out);
        let mut input = Vec::new();
        let frame = |input: &[u8]| {
            let length = codec::frame_len(input, largest);
            length.map_err(|fault| io::Error::other(fault.to_string()))
        };
        let limit = settings.connect_timeout;
        let length = match send_and_wait(&mut stream, &out, &mut input, limit, frame).await {
            Ok(Some(length)) => length,
            Err(error) if is_closed(&error) && self.try_other_protocol() => {
                return Ok(ConnectResult::Retry);
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let what = "the upstream closed the connection before CONNACK";
                return Err(io::Error::new(error.kind(), what));
            }
            Err(error) => return Err(error),
            Ok(None) => return Err(io::Error::other("no CONNACK in time")),
        };
        // A broker that knows only MQTT 3 answers a CONNECT of MQTT 5 with a CONNACK of MQTT 3.
        let refused_version = matches!(input[..length], [0x20, 2, _, 1]);
        let connack = match codec::decode(&input[..length], version) {
            _ if refused_version => {
                let reason = ReasonCode::UnsupportedProtocolVersion;
                Err((reason, reason.to_string()))
            }
            Ok(Packet::ConnAck(connack)) if connack.reason.is_error() => {
                Err((connack.reason, told(connack.reason, &connack.properties)))
            }
            Ok(Packet::ConnAck(connack)) => Ok(Upstream::new(&connack, version, &settings.bridge)),
            Ok(_) => return Err(io::Error::other("the first packet is not CONNACK")),
            Err(fault) => return Err(io::Error::other(fault.to_string())),
        };
        let upstream = match connack {
            Ok(upstream) => upstream,
            Err((ReasonCode::UnsupportedProtocolVersion, _)) if self.downgrade_protocol() => {
                return Ok(ConnectResult::Retry);
            }
            Err((reason, why)) => {
                let hint = hint(reason);
                return Err(io::Error::other(format!("refused: {why}{hint}")));
            }
        };
        if clean && version != ProtocolVersion::V5 && !settings.bridge.clean_session {
            let mut out = Vec::new();
            put_disconnect(version, &mut out);
            stream.write_all(&out).await?;
            stream.flush().await?;
            return Ok(ConnectResult::CleanStarted);
        }
        input.drain(..length);
        Ok(ConnectResult::Accepted(AcceptedUpstream {
            stream,
            upstream,
            input,
        }))
    }

    /// Returns whether to connect again after the upstream closed the connection instead of
    /// answering. A broker that does not know MQTT 5 (RabbitMQ before 3.13) or the bridge bit may
    /// do that. A cut connection looks the same, so MQTT 5 is tried twice.
    fn try_other_protocol(&mut self) -> bool {
        self.closed_count += 1;
        match self.protocol {
            UpstreamProtocol::V5 if self.closed_count == 1 => self.settings.version.is_none(),
            _ => self.downgrade_protocol(),
        }
    }

    /// Changes to the next older protocol. Returns false if there is none.
    fn downgrade_protocol(&mut self) -> bool {
        self.protocol = match self.protocol {
            UpstreamProtocol::V5 if self.settings.version.is_none() => UpstreamProtocol::V311Bridge,
            UpstreamProtocol::V311Bridge => UpstreamProtocol::V311,
            UpstreamProtocol::V5 | UpstreamProtocol::V311 => return false,
        };
        true
    }
}
