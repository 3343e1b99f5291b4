//! Accepts connections, and does what comes before MQTT: PROXY protocol header, TLS, WebSocket.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::auth::Method;
use super::connection::{ConnectionContext, serve};
use super::lock_stats::Purpose;
use super::log_limit::LogLimit;
use super::proxy_protocol;
use super::shared_broker::SharedBroker;
use super::sniff::SniffedProtocol;
use super::socket::{ListeningSocket, Socket, Stream};
use super::tls::certificate::Certificate;
use super::tls::{ALERT_VERSION, Offered, Tls, TlsSettings, old_version_error, with_hint};
use super::websocket::{self, WebSocketSettings};
use crate::broker::{Access, Admission, Arrival, Broker, Peer};
use crate::clock::{self, Now};

/// Log lines per minute and listener for refused connections.
const REFUSAL_LINES_PER_MINUTE: u64 = 60;

/// The settings of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// What the broker allows the clients of this listener.
    pub access: Access,
    /// The methods of authentication, in order. If it is empty, no client can authenticate.
    pub authentication: Vec<Method>,
    /// TLS, if the listener has it.
    pub tls: Option<TlsSettings>,
    /// WebSocket, if the listener has it.
    pub websocket: Option<WebSocketSettings>,
    /// Addresses of load balancers. Each connection must come from one of them, or through a Unix
    /// socket, and must begin with a PROXY protocol header. Others are closed. `None` if
    /// connections have no such header.
    pub proxy_protocol_from: Option<Vec<AddressRange>>,
    /// What the header must say about the client's connection to the balancer. If it does not, the
    /// connection is closed.
    pub proxy_protocol_require: proxy_protocol::Required,
    /// Addresses that may connect. If it is empty, all may.
    pub allow: Vec<AddressRange>,
    /// Addresses that may not connect, even if `allow` contains them.
    pub deny: Vec<AddressRange>,
    /// Connections at once, with those in their handshake. Reached: a new one is closed at once.
    pub max_connections: usize,
    /// Connections accepted per second. After a pause, that many are accepted at once. Reached:
    /// further connections wait in the backlog.
    pub max_connection_rate: Option<u32>,
    /// Connections that the operating system holds until they are accepted.
    pub backlog: i32,
    /// How long a connection has until MQTT begins. Exceeded: it is closed.
    pub handshake_timeout: Duration,
}

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT, port 1883.
    Mqtt,
    /// MQTT over TLS, port 8883.
    Mqtts,
    /// MQTT over WebSocket, port 8083.
    Ws,
    /// MQTT over WebSocket over TLS, port 8084.
    Wss,
}

/// Addresses with a common prefix (`192.0.2.0/24`, `2001:db8::/32`), or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    bits: u8,
}

/// Addresses that may connect, and those that may not.
#[derive(Clone, Debug)]
struct AddressFilter {
    allow: Vec<AddressRange>,
    deny: Vec<AddressRange>,
}

/// A limit for open connections, with those in their handshake, and how many there are.
#[derive(Debug)]
pub struct ConnectionLimit {
    open: AtomicUsize,
    max: AtomicUsize,
}

/// A listener, shared by all its sockets and connections.
#[derive(Debug)]
pub struct Listener {
    context: Arc<ConnectionContext>,
    settings: ListenerSettings,
    access: Arc<Access>,
    tls: Option<Arc<Tls>>,
    process_limit: Arc<ConnectionLimit>,
    listener_limit: Arc<ConnectionLimit>,
    /// Limits the log lines for refused connections, and for errors of accept.
    refusal_log: Arc<LogLimit>,
    failure_log: Arc<LogLimit>,
    /// Shared with the listeners that this one replaces: a handshake that is under way uses the
    /// newest filter.
    address_filter: Arc<RwLock<AddressFilter>>,
    /// It is closed or replaced. Handshakes that are under way end without a connection.
    closed: AtomicBool,
}

/// Counts one connection until it is dropped.
#[derive(Debug)]
struct ConnectionPermits {
    _permits: [ConnectionPermit; 2],
}

#[derive(Debug)]
struct ConnectionPermit(Arc<ConnectionLimit>);

impl Default for ListenerSettings {
    fn default() -> ListenerSettings {
        ListenerSettings {
            access: Access::default(),
            authentication: Vec::new(),
            tls: None,
            websocket: None,
            proxy_protocol_from: None,
            proxy_protocol_require: proxy_protocol::Required::default(),
            allow: Vec::new(),
            deny: Vec::new(),
            max_connections: usize::MAX,
            max_connection_rate: None,
            backlog: 1024,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl ListenerSettings {
    /// Returns the protocol.
    pub fn protocol(&self) -> Protocol {
        match (&self.websocket, &self.tls) {
            (None, None) => Protocol::Mqtt,
            (None, Some(_)) => Protocol::Mqtts,
            (Some(_), None) => Protocol::Ws,
            (Some(_), Some(_)) => Protocol::Wss,
        }
    }

    /// Returns whether `other` differs only in how many clients may connect, how fast, from where,
    /// and how they authenticate.
    pub fn differs_only_in_admission(&self, other: &ListenerSettings) -> bool {
        let ListenerSettings {
            max_connections,
            max_connection_rate,
            handshake_timeout,
            backlog,
            ..
        } = *other;
        let alike = ListenerSettings {
            authentication: other.authentication.clone(),
            allow: other.allow.clone(),
            deny: other.deny.clone(),
            max_connections,
            max_connection_rate,
            handshake_timeout,
            backlog,
            ..self.clone()
        };
        alike == *other
    }

    /// Returns whether `other` allows the same addresses.
    pub fn has_same_address_filter(&self, other: &ListenerSettings) -> bool {
        self.allow == other.allow && self.deny == other.deny
    }

    fn address_filter(&self) -> AddressFilter {
        AddressFilter {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
        }
    }
}

impl AddressFilter {
    fn allows(&self, address: Option<SocketAddr>) -> bool {
        let Some(ip) = address.map(|address| address.ip()) else {
            return true;
        };
        let is_in = |ranges: &[AddressRange]| ranges.iter().any(|range| range.contains(ip));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

impl Protocol {
    /// Returns the default port.
    pub fn default_port(self) -> u16 {
        match self {
            Protocol::Mqtt => 1883,
            Protocol::Mqtts => 8883,
            Protocol::Ws => 8083,
            Protocol::Wss => 8084,
        }
    }
}

impl fmt::Display for Protocol {
    /// Writes the scheme of a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Mqtt => "mqtt",
            Protocol::Mqtts => "mqtts",
            Protocol::Ws => "ws",
            Protocol::Wss => "wss",
        })
    }
}

impl AddressRange {
    /// Returns whether an address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for AddressRange {
    type Err = ();

    fn from_str(text: &str) -> Result<AddressRange, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| ())?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| ()))?;
        if bits > most {
            return Err(());
        }
        Ok(AddressRange { first, bits })
    }
}

impl ConnectionLimit {
    /// Creates a limit of `max` connections.
    pub fn new(max: usize) -> Arc<ConnectionLimit> {
        let (open, max) = (AtomicUsize::new(0), AtomicUsize::new(max));
        Arc::new(ConnectionLimit { open, max })
    }

    /// Sets the limit. Connections beyond it stay open.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    fn acquire(self: &Arc<ConnectionLimit>) -> Option<ConnectionPermit> {
        let permit = ConnectionPermit(Arc::clone(self));
        let max = self.max.load(Ordering::Relaxed);
        (self.open.fetch_add(1, Ordering::Relaxed) < max).then_some(permit)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Listener {
    /// Creates a listener. `tls` is there if the settings have TLS.
    pub fn new(
        context: ConnectionContext,
        settings: ListenerSettings,
        tls: Option<Arc<Tls>>,
        process_limit: Arc<ConnectionLimit>,
    ) -> Arc<Listener> {
        Arc::new(Listener {
            context: Arc::new(context),
            access: Arc::new(settings.access.clone()),
            listener_limit: ConnectionLimit::new(settings.max_connections),
            address_filter: Arc::new(RwLock::new(settings.address_filter())),
            settings,
            tls,
            process_limit,
            refusal_log: Arc::new(LogLimit::new(REFUSAL_LINES_PER_MINUTE)),
            failure_log: Arc::new(LogLimit::new(1)),
            closed: AtomicBool::new(false),
        })
    }

    /// Creates the listener that replaces this one. The connections of this one stay, and count for
    /// both.
    pub fn replacement(&self, settings: ListenerSettings, tls: Option<Arc<Tls>>) -> Arc<Listener> {
        self.listener_limit.set_max(settings.max_connections);
        let mut address_filter = self
            .address_filter
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *address_filter = settings.address_filter();
        drop(address_filter);
        Arc::new(Listener {
            context: Arc::new(ConnectionContext {
                methods: settings.authentication.clone(),
                ..ConnectionContext::clone(&self.context)
            }),
            access: Arc::clone(&self.access),
            listener_limit: Arc::clone(&self.listener_limit),
            address_filter: Arc::clone(&self.address_filter),
            settings,
            tls,
            process_limit: Arc::clone(&self.process_limit),
            refusal_log: Arc::clone(&self.refusal_log),
            failure_log: Arc::clone(&self.failure_log),
            closed: AtomicBool::new(false),
        })
    }

    /// Returns whether connections of `other` are also connections of this listener.
    pub fn shares_connections_with(&self, other: &Listener) -> bool {
        Arc::ptr_eq(&self.access, &other.access)
    }

    /// Returns the settings.
    pub fn settings(&self) -> &ListenerSettings {
        &self.settings
    }

    /// Returns the TLS, if the listener has it.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Closes the listener and disconnects its clients.
    pub fn close(&self, broker: &mut Broker, now: Now) {
        self.closed.store(true, Ordering::Relaxed);
        broker.send_away(&self.access, now);
    }

    /// Disconnects the clients whose addresses `next` does not allow.
    pub fn disconnect_disallowed(&self, next: &Listener, broker: &mut Broker, now: Now) {
        if !self.settings.has_same_address_filter(&next.settings) {
            let address_filter = next.settings.address_filter();
            let admission = Admission::new(move |address| address_filter.allows(address));
            broker.send_away_unless(&self.access, admission, now);
        }
    }

    fn allows(&self, address: Option<SocketAddr>) -> bool {
        let address_filter = self.address_filter.read();
        let address_filter = address_filter.unwrap_or_else(PoisonError::into_inner);
        address_filter.allows(address)
    }

    /// Accepts connections. Never returns.
    pub async fn accept(self: Arc<Listener>, listening: Arc<ListeningSocket>) {
        let mut rate = self.settings.max_connection_rate.map(TokenBucket::new);
        loop {
            if let Some(rate) = &mut rate {
                rate.wait(&self.context.broker).await;
            }
            match listening.accept().await {
                Ok((socket, peer)) => self.accept_socket(socket, peer),
                Err(error) => {
                    // Most likely no file descriptor is free. Connections in the backlog may get
                    // one later.
                    if let Some(unlogged) = self.failure_log.admit(self.context.broker.now().uptime)
                    {
                        tracing::warn!(%error, unlogged, "cannot accept a connection: it waits");
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn accept_socket(self: &Arc<Listener>, socket: Socket, address: Option<SocketAddr>) {
        let peer = Peer {
            address,
            certificate: None,
        };
        let settings = &self.settings;
        let trusted = match (&settings.proxy_protocol_from, address) {
            (None, _) => self.allows(address),
            (Some(trusted), Some(address)) => {
                trusted.iter().any(|range| range.contains(address.ip()))
            }
            (Some(_), None) => true,
        };
        if !trusted {
            return self.refuse(&peer, "its address is not allowed here");
        }
        let (Some(all), Some(here)) = (self.process_limit.acquire(), self.listener_limit.acquire())
        else {
            return self.refuse(&peer, "max_connections is reached");
        };
        let permits = ConnectionPermits {
            _permits: [all, here],
        };
        let is_plain = settings.tls.is_none()
            && settings.websocket.is_none()
            && settings.proxy_protocol_from.is_none();
        if is_plain {
            return self.start_connection(socket, peer, permits);
        }
        let listener = Arc::clone(self);
        // The handshake has a task of its own. Its memory is free when the connection's task
        // starts.
        tokio::spawn(async move {
            let limit = listener.settings.handshake_timeout;
            let mut peer = peer;
            match timeout(limit, listener.handshake(socket, &mut peer)).await {
                Ok(Ok(stream)) => listener.start_connection(stream, peer, permits),
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    tracing::debug!(%peer, "connection closed in its handshake");
                }
                Ok(Err(error)) => listener.refuse(&peer, &error.to_string()),
                Err(_) => listener.refuse(&peer, "its handshake takes too long"),
            }
        });
    }

    fn start_connection(
        &self,
        stream: impl Stream + 'static,
        peer: Peer,
        permits: ConnectionPermits,
    ) {
        tracing::debug!(%peer, "connection accepted");
        let access = Arc::clone(&self.access);
        let mut guard = self.context.broker.lock(Purpose::Connect, None);
        let now = guard.now();
        // Both may have changed since the connection was accepted.
        if self.closed.load(Ordering::Relaxed) || !self.allows(peer.address) {
            return;
        }
        let arrival = Arrival {
            access,
            peer,
            bridge: false,
        };
        let Some(id) = guard.broker().accept(arrival, now) else {
            if let Some(unlogged) = self.refusal_log.admit(now.uptime) {
                tracing::warn!(
                    unlogged,
                    "connection refused: max_connections is reached, or the broker is stopping"
                );
            }
            return;
        };
        drop(guard);
        let context = Arc::clone(&self.context);
        tokio::spawn(async move {
            serve(context, stream, id).await;
            drop(permits);
        });
    }

    fn refuse(&self, peer: &Peer, why: &str) {
        if let Some(unlogged) = self.refusal_log.admit(self.context.broker.now().uptime) {
            tracing::info!(%peer, why, unlogged, "connection refused");
        }
        self.context
            .broker
            .lock(Purpose::Other, None)
            .broker()
            .refused();
    }

    async fn handshake(&self, mut socket: Socket, peer: &mut Peer) -> io::Result<Box<dyn Stream>> {
        let settings = &self.settings;
        if settings.proxy_protocol_from.is_some() {
            // What the header does not say is taken from the balancer's connection.
            let header = proxy_protocol::read_header(&mut socket).await?;
            settings.proxy_protocol_require.check(header.as_ref())?;
            if let Some(header) = header {
                peer.address = header.peer.address.or(peer.address);
                peer.certificate = header.peer.certificate;
            }
            if !self.allows(peer.address) {
                return Err(io::Error::other("its address is not allowed here"));
            }
        }
        let Some(tls) = &self.tls else {
            return self.upgrade(socket).await;
        };
        let mut first = [0; 11];
        let seen = socket.peek(&mut first).await?;
        if let Some(wrong) =
            SniffedProtocol::detect(&first[..seen]).and_then(SniffedProtocol::mismatch_on_tls)
        {
            return Err(io::Error::other(wrong));
        }
        if let Some(wrong) = old_version_error(&first[..seen]) {
            // With unread bytes, the operating system would reset the connection and the alert
            // would be lost.
            let mut hello = [0; 4096];
            let _ = socket.read(&mut hello).await?;
            socket.write_all(&ALERT_VERSION).await?;
            return Err(io::Error::other(wrong));
        }
        let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await;
        let hello = hello.map_err(with_hint)?;
        let offered = Offered::from_hello(&hello.client_hello());
        let accepting = hello.into_stream(tls.config()).await;
        let stream = accepting.map_err(|error| offered.explain(error))?;
        if let Some(shown) = stream.get_ref().1.peer_certificates() {
            if tls.refuses_certificates(clock::wall_seconds()) {
                return Err(io::Error::other(
                    "the revocation list has expired, and crl_expired = \"refuse\"",
                ));
            }
            peer.certificate = Some(Box::new(verified_names(&shown[0])?));
        }
        self.upgrade::<Box<TlsStream<Socket>>>(Box::new(stream))
            .await
    }

    async fn upgrade<S: Stream + 'static>(&self, stream: S) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.settings.websocket {
            None => Box::new(stream),
            Some(settings) => Box::new(websocket::accept(stream, settings).await?),
        })
    }
}

/// Returns the names in a client's verified certificate. A resumed TLS session is not verified
/// again, so its certificate may have expired.
fn verified_names(der: &[u8]) -> io::Result<crate::broker::CertificateNames> {
    let certificate = Certificate::parse(der)
        .ok_or_else(|| io::Error::other("its certificate cannot be read"))?;
    if certificate.not_after < clock::wall_seconds() {
        return Err(io::Error::other("its certificate has expired"));
    }
    Ok(certificate.names)
}

/// A token bucket for connections. It holds the tokens of one second.
struct TokenBucket {
    per_second: u64,
    /// Thousandths of tokens.
    level: u64,
    filled: u64,
}

impl TokenBucket {
    fn new(per_second: u32) -> TokenBucket {
        let per_second = u64::from(per_second);
        TokenBucket {
            per_second,
            level: per_second * 1000,
            filled: 0,
        }
    }

    /// Waits until the next connection may be accepted.
    async fn wait(&mut self, broker: &SharedBroker) {
        while let Some(millis) = self.take(broker.now().uptime) {
            sleep(Duration::from_millis(millis)).await;
        }
    }

    /// Takes a token. If there is none, returns how many milliseconds it takes until there is one.
    fn take(&mut self, uptime: u64) -> Option<u64> {
        let passed = uptime.saturating_sub(self.filled).min(1000);
        self.filled = uptime;
        self.level = (self.level + passed * self.per_second).min(self.per_second * 1000);
        if self.level >= 1000 {
            self.level -= 1000;
            return None;
        }
        Some((1000 - self.level).div_ceil(self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().expect(text)
    }

    #[test]
    fn a_range_contains_addresses_with_its_prefix() {
        let holds =
            |text: &str, address: &str| range(text).contains(address.parse().expect("an address"));
        assert!(holds("192.0.2.0/24", "192.0.2.255"));
        assert!(!holds("192.0.2.0/24", "192.0.3.0"));
        assert!(holds("192.0.2.7", "192.0.2.7"));
        assert!(!holds("192.0.2.7", "192.0.2.6"));
        assert!(holds("0.0.0.0/0", "255.1.2.3"));
        assert!(!holds("0.0.0.0/0", "::1"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "::1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        for bad in [
            "",
            "192.0.2.0/33",
            "::/129",
            "192.0.2.0/",
            "a/8",
            "1.2.3.4/8/8",
        ] {
            assert_eq!(bad.parse::<AddressRange>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn deny_overrides_allow_and_an_empty_allow_allows_all() {
        let allows = |allow: &[&str], deny: &[&str], address: &str| {
            let settings = ListenerSettings {
                allow: allow.iter().map(|text| range(text)).collect(),
                deny: deny.iter().map(|text| range(text)).collect(),
                ..ListenerSettings::default()
            };
            let address_filter = settings.address_filter();
            address_filter.allows(Some(SocketAddr::new(address.parse().expect("good"), 1)))
        };
        assert!(allows(&[], &[], "192.0.2.1"));
        assert!(allows(&["192.0.2.0/24"], &[], "192.0.2.1"));
        assert!(!allows(&["192.0.2.0/24"], &[], "192.0.3.1"));
        assert!(!allows(&["192.0.2.0/24"], &["192.0.2.1"], "192.0.2.1"));
        assert!(!allows(&[], &["::/0"], "::1"));
    }

    #[test]
    fn connections_beyond_the_rate_wait() {
        let mut rate = TokenBucket::new(4);
        for _ in 0..4 {
            assert_eq!(rate.take(10_000), None);
        }
        assert_eq!(rate.take(10_000), Some(250));
        assert_eq!(rate.take(10_250), None);
        assert_eq!(rate.take(10_251), Some(249));
        for _ in 0..4 {
            assert_eq!(rate.take(99_999), None);
        }
        assert_eq!(rate.take(99_999), Some(250));
    }

    #[test]
    fn a_permit_is_returned_when_it_is_dropped() {
        let limit = ConnectionLimit::new(2);
        let first = limit.acquire().expect("room");
        let second = limit.acquire().expect("room");
        assert!(limit.acquire().is_none());
        drop(first);
        let third = limit.acquire().expect("room again");
        assert!(limit.acquire().is_none());
        drop((second, third));
        assert_eq!(limit.open.load(Ordering::Relaxed), 0);
    }
}
