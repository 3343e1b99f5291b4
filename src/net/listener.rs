//! Takes connections in: who may come, how many, how fast; and what has to happen before MQTT begins: PROXY header, TLS, WebSocket.

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
use super::connection::{Door, serve};
use super::lock_stats::Purpose;
use super::proxy;
use super::seldom::Seldom;
use super::shared_broker::SharedBroker;
use super::socket::{ListeningSocket, Socket, Stream};
use super::spoken::Spoken;
use super::tls::certificate::Certificate;
use super::tls::{ALERT_VERSION, Offered, Tls, TlsSettings, explained, too_old};
use super::websocket::{self, WebSocketSettings};
use crate::broker::{Access, Admission, Arrival, Broker, Peer};
use crate::clock::{self, Now};

/// Lines a minute for connections of a listener that are refused.
const REFUSALS: u64 = 60;

/// How a listener takes connections in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// What the broker allows those who come this way.
    pub access: Access,
    /// How clients prove who they are, in the order of asking; empty if nobody can.
    pub authentication: Vec<Method>,
    /// TLS, if there is any.
    pub tls: Option<TlsSettings>,
    /// WebSocket, if it is that.
    pub websocket: Option<WebSocketSettings>,
    /// Every connection begins with a header of the PROXY protocol and comes from one of these addresses, or through a Unix socket; others are closed.
    /// `None` if no connection has a header.
    pub proxy_protocol_from: Option<Vec<AddressRange>>,
    /// What these headers must say of how a client has come; others are closed.
    pub proxy_protocol_require: proxy::Required,
    /// Addresses that may connect; empty for all.
    pub allow: Vec<AddressRange>,
    /// Addresses that may not, even if `allow` has them.
    pub deny: Vec<AddressRange>,
    /// Connections at once, those in their handshake included. Reached: a new one is closed at once.
    pub max_connections: usize,
    /// Connections accepted in a second, and at once after a pause. Reached: the others wait in the backlog.
    pub max_connection_rate: Option<u32>,
    /// Connections the operating system holds until they are accepted.
    pub backlog: i32,
    /// How long a connection has for what comes before MQTT. Exceeded: it is closed.
    pub handshake_timeout: Duration,
}

/// What a listener speaks.
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

/// Addresses that begin alike: `192.0.2.0/24`, `2001:db8::/32`, or one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    bits: u8,
}

/// Addresses that may connect, and those that may not.
#[derive(Clone, Debug)]
struct Addresses {
    allow: Vec<AddressRange>,
    deny: Vec<AddressRange>,
}

/// Connections there may be, and are, through all listeners: those in their handshake included.
#[derive(Debug)]
pub struct Census {
    open: AtomicUsize,
    max: AtomicUsize,
}

/// A listener, shared by all its sockets and connections.
#[derive(Debug)]
pub struct Entrance {
    door: Arc<Door>,
    settings: ListenerSettings,
    access: Arc<Access>,
    tls: Option<Arc<Tls>>,
    all: Arc<Census>,
    here: Arc<Census>,
    /// What is logged of connections that are refused, and of those that cannot be accepted.
    refusals: Arc<Seldom>,
    failures: Arc<Seldom>,
    /// Who may come this way, or by one that has followed: a handshake that is under way ends by what is in force then.
    addresses: Arc<RwLock<Addresses>>,
    /// It is not the way in any more: a handshake that is under way leads nowhere.
    closed: AtomicBool,
}

/// One of the connections counted; given back when it is dropped.
#[derive(Debug)]
struct Place {
    _counted: [Counted; 2],
}

#[derive(Debug)]
struct Counted(Arc<Census>);

impl Default for ListenerSettings {
    fn default() -> ListenerSettings {
        ListenerSettings {
            access: Access::default(),
            authentication: Vec::new(),
            tls: None,
            websocket: None,
            proxy_protocol_from: None,
            proxy_protocol_require: proxy::Required::default(),
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
    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        match (&self.websocket, &self.tls) {
            (None, None) => Protocol::Mqtt,
            (None, Some(_)) => Protocol::Mqtts,
            (Some(_), None) => Protocol::Ws,
            (Some(_), Some(_)) => Protocol::Wss,
        }
    }

    /// Whether other settings differ from these only in how many come in, how fast, from where, and how they prove who they are.
    pub fn differs_in_admission(&self, other: &ListenerSettings) -> bool {
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

    /// Whether others let in the same addresses.
    pub fn lets_in_as(&self, other: &ListenerSettings) -> bool {
        self.allow == other.allow && self.deny == other.deny
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
        }
    }
}

impl Addresses {
    /// Whether an address may connect.
    fn lets_in(&self, address: Option<SocketAddr>) -> bool {
        let Some(ip) = address.map(|address| address.ip()) else {
            return true;
        };
        let is_in = |ranges: &[AddressRange]| ranges.iter().any(|range| range.contains(ip));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

impl Protocol {
    /// The port it has by default.
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
    /// As in a URL.
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
    /// Whether an address is one of these.
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

impl Census {
    /// Nobody yet, and at most `max`.
    pub fn new(max: usize) -> Arc<Census> {
        let (open, max) = (AtomicUsize::new(0), AtomicUsize::new(max));
        Arc::new(Census { open, max })
    }

    /// Sets how many there may be; those beyond it stay.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    fn count(self: &Arc<Census>) -> Option<Counted> {
        let counted = Counted(Arc::clone(self));
        let max = self.max.load(Ordering::Relaxed);
        (self.open.fetch_add(1, Ordering::Relaxed) < max).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Entrance {
    /// A listener's way into the broker. `tls` is there if the settings have TLS.
    pub fn new(
        door: Door,
        settings: ListenerSettings,
        tls: Option<Arc<Tls>>,
        all: Arc<Census>,
    ) -> Arc<Entrance> {
        Arc::new(Entrance {
            door: Arc::new(door),
            access: Arc::new(settings.access.clone()),
            here: Census::new(settings.max_connections),
            addresses: Arc::new(RwLock::new(settings.addresses())),
            settings,
            tls,
            all,
            refusals: Arc::new(Seldom::new(REFUSALS)),
            failures: Arc::new(Seldom::new(1)),
            closed: AtomicBool::new(false),
        })
    }

    /// The way in that follows this one: those who have come this way stay, and are counted with those who will.
    pub fn successor(&self, settings: ListenerSettings, tls: Option<Arc<Tls>>) -> Arc<Entrance> {
        self.here.set_max(settings.max_connections);
        let mut addresses = self
            .addresses
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *addresses = settings.addresses();
        drop(addresses);
        Arc::new(Entrance {
            door: Arc::new(Door {
                methods: settings.authentication.clone(),
                ..Door::clone(&self.door)
            }),
            access: Arc::clone(&self.access),
            here: Arc::clone(&self.here),
            addresses: Arc::clone(&self.addresses),
            settings,
            tls,
            all: Arc::clone(&self.all),
            refusals: Arc::clone(&self.refusals),
            failures: Arc::clone(&self.failures),
            closed: AtomicBool::new(false),
        })
    }

    /// Whether who has come this way has come that way as well.
    pub fn is_followed_by(&self, other: &Entrance) -> bool {
        Arc::ptr_eq(&self.access, &other.access)
    }

    /// How it takes connections in.
    pub fn settings(&self) -> &ListenerSettings {
        &self.settings
    }

    /// Its TLS, if it has any.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Closes it, and sends away who has come this way: its settings are not in force any more.
    pub fn close(&self, broker: &mut Broker, now: Now) {
        self.closed.store(true, Ordering::Relaxed);
        broker.send_away(&self.access, now);
    }

    /// Sends away who has come this way from an address that one that follows it does not let in.
    pub fn hand_over(&self, next: &Entrance, broker: &mut Broker, now: Now) {
        if !self.settings.lets_in_as(&next.settings) {
            let addresses = next.settings.addresses();
            let admission = Admission::new(move |address| addresses.lets_in(address));
            broker.send_away_unless(&self.access, admission, now);
        }
    }

    fn lets_in(&self, address: Option<SocketAddr>) -> bool {
        let addresses = self.addresses.read();
        let addresses = addresses.unwrap_or_else(PoisonError::into_inner);
        addresses.lets_in(address)
    }

    /// Accepts connections for ever.
    pub async fn accept(self: Arc<Entrance>, listening: Arc<ListeningSocket>) {
        let mut rate = self.settings.max_connection_rate.map(Rate::new);
        loop {
            if let Some(rate) = &mut rate {
                rate.wait(&self.door.broker).await;
            }
            match listening.accept().await {
                Ok((socket, peer)) => self.take_in(socket, peer),
                Err(error) => {
                    // Out of file descriptors, most likely: those that are waiting may find room a moment later.
                    if let Some(unlogged) = self.failures.admit(self.door.broker.now().uptime) {
                        tracing::warn!(%error, unlogged, "cannot accept a connection: it waits");
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn take_in(self: &Arc<Entrance>, socket: Socket, address: Option<SocketAddr>) {
        let peer = Peer {
            address,
            certificate: None,
        };
        let settings = &self.settings;
        let trusted = match (&settings.proxy_protocol_from, address) {
            (None, _) => self.lets_in(address),
            (Some(trusted), Some(address)) => {
                trusted.iter().any(|range| range.contains(address.ip()))
            }
            (Some(_), None) => true,
        };
        if !trusted {
            return self.refuse(&peer, "its address is not allowed here");
        }
        let (Some(all), Some(here)) = (self.all.count(), self.here.count()) else {
            return self.refuse(&peer, "max_connections is reached");
        };
        let place = Place {
            _counted: [all, here],
        };
        let is_plain = settings.tls.is_none()
            && settings.websocket.is_none()
            && settings.proxy_protocol_from.is_none();
        if is_plain {
            return self.begin(socket, peer, place);
        }
        let entrance = Arc::clone(self);
        // What is done before MQTT begins is a task of its own, which is gone, with all it holds, when the connection's own begins.
        tokio::spawn(async move {
            let patience = entrance.settings.handshake_timeout;
            let mut peer = peer;
            match timeout(patience, entrance.shake_hands(socket, &mut peer)).await {
                Ok(Ok(stream)) => entrance.begin(stream, peer, place),
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    tracing::debug!(%peer, "connection closed in its handshake");
                }
                Ok(Err(error)) => entrance.refuse(&peer, &error.to_string()),
                Err(_) => entrance.refuse(&peer, "its handshake takes too long"),
            }
        });
    }

    fn begin(&self, stream: impl Stream + 'static, peer: Peer, place: Place) {
        tracing::debug!(%peer, "connection accepted");
        let access = Arc::clone(&self.access);
        let mut guard = self.door.broker.lock(Purpose::Connect, None);
        let now = guard.now();
        // Both may have changed since it was accepted.
        if self.closed.load(Ordering::Relaxed) || !self.lets_in(peer.address) {
            return;
        }
        let arrival = Arrival {
            access,
            peer,
            bridge: false,
        };
        let Some(id) = guard.broker().accept(arrival, now) else {
            if let Some(unlogged) = self.refusals.admit(now.uptime) {
                tracing::warn!(
                    unlogged,
                    "connection refused: max_connections is reached, or the broker is stopping"
                );
            }
            return;
        };
        drop(guard);
        let door = Arc::clone(&self.door);
        tokio::spawn(async move {
            serve(door, stream, id).await;
            drop(place);
        });
    }

    fn refuse(&self, peer: &Peer, why: &str) {
        if let Some(unlogged) = self.refusals.admit(self.door.broker.now().uptime) {
            tracing::info!(%peer, why, unlogged, "connection refused");
        }
        self.door
            .broker
            .lock(Purpose::Other, None)
            .broker()
            .refused();
    }

    /// Does what comes before MQTT.
    async fn shake_hands(
        &self,
        mut socket: Socket,
        peer: &mut Peer,
    ) -> io::Result<Box<dyn Stream>> {
        let settings = &self.settings;
        if settings.proxy_protocol_from.is_some() {
            // What the balancer does not tell stays its own.
            let told = proxy::read_header(&mut socket).await?;
            settings.proxy_protocol_require.check(told.as_ref())?;
            if let Some(told) = told {
                peer.address = told.peer.address.or(peer.address);
                peer.certificate = told.peer.certificate;
            }
            if !self.lets_in(peer.address) {
                return Err(io::Error::other("its address is not allowed here"));
            }
        }
        let Some(tls) = &self.tls else {
            return self.open(socket).await;
        };
        let mut first = [0; 11];
        let seen = socket.peek(&mut first).await?;
        if let Some(wrong) = Spoken::of(&first[..seen]).and_then(Spoken::on_tls) {
            return Err(io::Error::other(wrong));
        }
        if let Some(wrong) = too_old(&first[..seen]) {
            // Unread bytes would make the operating system reset the connection, and the alert be lost on its way.
            let mut hello = [0; 4096];
            let _ = socket.read(&mut hello).await?;
            socket.write_all(&ALERT_VERSION).await?;
            return Err(io::Error::other(wrong));
        }
        let greeting = LazyConfigAcceptor::new(Acceptor::default(), socket).await;
        let greeting = greeting.map_err(explained)?;
        let offered = Offered::by(&greeting.client_hello());
        let accepting = greeting.into_stream(tls.config()).await;
        let stream = accepting.map_err(|error| offered.explain(error))?;
        if let Some(shown) = stream.get_ref().1.peer_certificates() {
            if tls.refuses_certificates(clock::wall_seconds()) {
                return Err(io::Error::other(
                    "the revocation list has expired, and crl_expired = \"refuse\"",
                ));
            }
            peer.certificate = Some(Box::new(names_of(&shown[0])?));
        }
        self.open::<Box<TlsStream<Socket>>>(Box::new(stream)).await
    }

    async fn open<S: Stream + 'static>(&self, stream: S) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.settings.websocket {
            None => Box::new(stream),
            Some(settings) => Box::new(websocket::accept(stream, settings).await?),
        })
    }
}

/// Whom a client's verified certificate names. A session that is resumed is not verified again, so whether it has expired is.
fn names_of(der: &[u8]) -> io::Result<crate::broker::CertificateNames> {
    let certificate = Certificate::parse(der)
        .ok_or_else(|| io::Error::other("its certificate cannot be read"))?;
    if certificate.not_after < clock::wall_seconds() {
        return Err(io::Error::other("its certificate has expired"));
    }
    Ok(certificate.names)
}

/// A bucket of connections, refilled evenly; it holds a second's worth.
struct Rate {
    per_second: u64,
    /// Thousandths of connections.
    level: u64,
    filled: u64,
}

impl Rate {
    fn new(per_second: u32) -> Rate {
        let per_second = u64::from(per_second);
        Rate {
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

    /// Takes a connection out, or tells how many milliseconds it takes until there is one.
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
    fn a_range_holds_the_addresses_that_begin_alike() {
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
    fn deny_wins_over_allow_and_an_empty_allow_is_everybody() {
        let lets_in = |allow: &[&str], deny: &[&str], address: &str| {
            let settings = ListenerSettings {
                allow: allow.iter().map(|text| range(text)).collect(),
                deny: deny.iter().map(|text| range(text)).collect(),
                ..ListenerSettings::default()
            };
            let addresses = settings.addresses();
            addresses.lets_in(Some(SocketAddr::new(address.parse().expect("good"), 1)))
        };
        assert!(lets_in(&[], &[], "192.0.2.1"));
        assert!(lets_in(&["192.0.2.0/24"], &[], "192.0.2.1"));
        assert!(!lets_in(&["192.0.2.0/24"], &[], "192.0.3.1"));
        assert!(!lets_in(&["192.0.2.0/24"], &["192.0.2.1"], "192.0.2.1"));
        assert!(!lets_in(&[], &["::/0"], "::1"));
    }

    #[test]
    fn connections_beyond_the_rate_wait() {
        let mut rate = Rate::new(4);
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
    fn a_place_is_given_back() {
        let census = Census::new(2);
        let first = census.count().expect("room");
        let second = census.count().expect("room");
        assert!(census.count().is_none());
        drop(first);
        let third = census.count().expect("room again");
        assert!(census.count().is_none());
        drop((second, third));
        assert_eq!(census.open.load(Ordering::Relaxed), 0);
    }
}
