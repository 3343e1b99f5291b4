//! The listeners of a configuration: opened, replaced by those of another one, and kept fresh in their certificates.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::sleep;

use super::error::Error;
use crate::broker::Broker;
use crate::clock::{self, Now};
use crate::config::{Bind, Config, Listener};
use crate::limits::Limits;
use crate::net::auth::{Authentication, Authenticator, Problem};
use crate::net::connection::Door;
use crate::net::listener::{Census, Entrance, ListenerSettings, Protocol};
use crate::net::lock_stats::Purpose;
use crate::net::shared_broker::SharedBroker;
use crate::net::socket::{ListenAddress, ListeningSocket, SocketFile, bind_tcp, bind_tcp_beside};
use crate::net::tls::{CrlExpired, Tls, TlsError, TlsListeners};

/// Connections that wait for what is no listener for MQTT.
const BACKLOG: i32 = 128;
/// How often the files of certificates, keys, authorities and revocation lists are looked at. They are read when they have been left alone for as long.
const FILE_INTERVAL: Duration = Duration::from_secs(2);
/// How often certificates are warned about that expire soon.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(86_400);

/// A place where clients can connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where it is, with the port really bound.
    pub address: ListenAddress,
    /// The path of the URL, for WebSocket; otherwise empty.
    pub path: String,
}

impl fmt::Display for Listening {
    /// As a URL; a Unix socket, which has none, as `unix:` and its path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            ListenAddress::Tcp(address) => write!(f, "{}://{address}{}", self.protocol, self.path),
            ListenAddress::Unix(path) if self.protocol == Protocol::Mqtt => {
                write!(f, "unix:{}", path.display())
            }
            ListenAddress::Unix(path) => write!(f, "{}+unix:{}", self.protocol, path.display()),
        }
    }
}

/// Reads the files of all listeners; a listener without TLS has `None`. Those of bridges are tried.
///
/// # Errors
/// The first problem of each listener and bridge that has one.
pub fn load_tls(config: &Config) -> Result<Vec<Option<Tls>>, Vec<TlsError>> {
    let (mut loaded, mut problems) = (Vec::new(), Vec::new());
    for listener in &config.listeners {
        let tls = listener.settings.tls.clone();
        match tls.map(|settings| Tls::load(settings, clock::wall_seconds())) {
            None => loaded.push(None),
            Some(Ok(tls)) => loaded.push(Some(tls)),
            Some(Err(problem)) => problems.push(problem),
        }
    }
    // A bridge reads its files for each connection; here only whether they can be used.
    let bridges = config.bridges.iter();
    let secured = bridges.filter_map(|bridge| bridge.transport.tls.as_ref());
    problems.extend(secured.filter_map(|(tls, _)| tls.config().err()));
    if problems.is_empty() {
        Ok(loaded)
    } else {
        Err(problems)
    }
}

/// Reads the files that authentication needs, those of all listeners.
///
/// # Errors
/// All that is wrong with them.
pub fn load_authenticator(config: &Config) -> Result<Authenticator, Vec<Problem>> {
    let listeners = config.listeners.iter();
    Authenticator::load(listeners.flat_map(|listener| &listener.settings.authentication))
}

/// All listeners that are open.
#[derive(Debug)]
pub(super) struct Listeners {
    broker: Arc<SharedBroker>,
    authentication: Arc<Authentication>,
    all: Arc<Census>,
    max_packet_size: u32,
    open: Vec<Open>,
    /// Their TLS, for those who watch it.
    pub tls: Arc<TlsListeners>,
    accepting: JoinSet<()>,
}

#[derive(Debug)]
struct Open {
    entrance: Arc<Entrance>,
    sockets: Vec<(Place, Accepting)>,
}

/// A socket, and the task that accepts from it.
#[derive(Debug)]
struct Accepting {
    socket: Arc<ListeningSocket>,
    task: AbortHandle,
}

/// What was asked for when a socket was opened: who asks for the same gets the same socket.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp(SocketAddr, Option<String>),
    Unix(SocketFile),
}

/// Listeners that could be put in force: all they need has been read and opened.
pub(super) struct Prepared(Vec<Candidate>);

struct Candidate {
    settings: ListenerSettings,
    tls: Option<Tls>,
    sockets: Vec<(Place, Arc<ListeningSocket>)>,
}

/// A listener about to be in force, and the one whose sockets it takes over.
struct Next {
    entrance: Arc<Entrance>,
    sockets: Vec<(Place, Arc<ListeningSocket>)>,
    before: Option<Open>,
}

impl Listeners {
    /// None yet.
    pub fn new(
        broker: Arc<SharedBroker>,
        authentication: Arc<Authentication>,
        limits: &Limits,
    ) -> Listeners {
        Listeners {
            broker,
            authentication,
            all: Census::new(limits.max_connections),
            max_packet_size: limits.max_packet_size,
            open: Vec::new(),
            tls: Arc::default(),
            accepting: JoinSet::new(),
        }
    }

    /// Opens what these listeners need and is not open; nothing is changed, and nobody is let in yet. `tls` is what was read for each of them.
    ///
    /// # Errors
    /// A listener cannot be opened that is not optional.
    pub fn prepare(&self, config: &Config, tls: Vec<Option<Tls>>) -> Result<Prepared, Error> {
        let open = self.open.iter().flat_map(|open| &open.sockets);
        let mut free: Vec<(&Place, &Arc<ListeningSocket>)> = open
            .map(|(place, accepting)| (place, &accepting.socket))
            .collect();
        let all = free.clone();
        let mut candidates = Vec::new();
        for (listener, tls) in config.listeners.iter().zip(tls) {
            let mut sockets = Vec::new();
            for place in places(listener)? {
                if let Some(at) = free.iter().position(|(open, _)| **open == place) {
                    sockets.push((place, Arc::clone(free.remove(at).1)));
                    continue;
                }
                let in_the_way: Vec<&ListeningSocket> = all
                    .iter()
                    .filter(|(open, _)| open.overlaps(&place))
                    .map(|(_, socket)| &***socket)
                    .collect();
                match place.open(&in_the_way, listener.settings.backlog) {
                    Ok(socket) => sockets.push((place, Arc::new(socket))),
                    Err(error) if listener.optional => {
                        tracing::info!(%error, "not listening there");
                    }
                    Err(error) => return Err(error),
                }
            }
            candidates.push(Candidate {
                settings: listener.settings.clone(),
                tls,
                sockets,
            });
        }
        Ok(Prepared(candidates))
    }

    /// Puts listeners in force instead of those there are; `also` is done in the same moment, as the broker sees it. A listener that keeps a socket
    /// and its settings keeps its connections. Tells what has changed, a line for each listener that has.
    pub fn put_in_force(
        &mut self,
        prepared: Prepared,
        also: impl FnOnce(&mut Broker, Now),
    ) -> Vec<String> {
        let mut old: Vec<Option<Open>> = self.open.drain(..).map(Some).collect();
        let mut told = Vec::new();
        let mut next = Vec::new();
        for Candidate {
            settings,
            tls,
            sockets,
        } in prepared.0
        {
            let name = name_of(&settings, &sockets);
            let keeps = |open: &Open| {
                let mut kept = open.sockets.iter().map(|(_, it)| &it.socket);
                kept.any(|kept| sockets.iter().any(|(_, socket)| Arc::ptr_eq(socket, kept)))
            };
            let before = old.iter_mut().find(|open| open.as_ref().is_some_and(keeps));
            let before = before.and_then(Option::take);
            let way = before.as_ref().map(|open| &open.entrance);
            let (entrance, what) = self.entrance(way, settings, tls);
            told.extend(what.map(|what| format!("{name}: {what}")));
            for (_, socket) in &sockets {
                if let Err(error) = socket.take_name() {
                    tracing::error!(%error, listener = name, "the Unix socket has no name: nobody can connect to it");
                }
                if let Err(error) = socket.set_backlog(entrance.settings().backlog) {
                    tracing::warn!(%error, listener = name, "the backlog stays as it was");
                }
            }
            next.push(Next {
                entrance,
                sockets,
                before,
            });
        }
        self.close_what_is_gone(&old, &next, also, &mut told);
        for next in next {
            self.accept(next);
        }
        // What is left of the old ones is closed by now; their sockets go with their tasks.
        for open in old.into_iter().flatten() {
            open.sockets.iter().for_each(|(_, it)| it.task.abort());
        }
        while self.accepting.try_join_next().is_some() {}
        self.tls.set(
            self.open
                .iter()
                .filter_map(|open| Some((open.name(), Arc::clone(open.entrance.tls()?))))
                .collect(),
        );
        told
    }

    /// In one visit to the broker: entrances are closed that are not in force any more, and `also` is done.
    fn close_what_is_gone(
        &self,
        old: &[Option<Open>],
        next: &[Next],
        also: impl FnOnce(&mut Broker, Now),
        told: &mut Vec<String>,
    ) {
        let mut guard = self.broker.lock(Purpose::Other, None);
        let now = guard.now();
        for open in old.iter().flatten() {
            told.push(format!("{}: closed", open.name()));
            open.entrance.close(guard.broker(), now);
        }
        for next in next {
            let before = next.before.as_ref().map(|open| &open.entrance);
            match before {
                Some(before) if before.is_followed_by(&next.entrance) => {
                    before.hand_over(&next.entrance, guard.broker(), now);
                }
                Some(before) => before.close(guard.broker(), now),
                None => {}
            }
        }
        also(guard.broker(), now);
    }

    /// The way in for a listener: the one there was, if nothing has changed but what its certificates are; one that follows it, if its connections
    /// can stay; or another one. And what people are told of that.
    fn entrance(
        &self,
        before: Option<&Arc<Entrance>>,
        settings: ListenerSettings,
        tls: Option<Tls>,
    ) -> (Arc<Entrance>, Option<&'static str>) {
        if let Some(way) = before.filter(|way| *way.settings() == settings) {
            let read = take_over(way, tls);
            return (
                Arc::clone(way),
                read.then_some("certificates were read again"),
            );
        }
        if let Some(way) = before.filter(|way| way.settings().differs_in_admission(&settings)) {
            take_over(way, tls);
            let next = way.successor(settings, way.tls().cloned());
            let what = match next.settings().lets_in_as(way.settings()) {
                true => "changed; its connections stay",
                false => "changed; its connections stay, but for addresses it does not let in",
            };
            return (next, Some(what));
        }
        let what = match before {
            Some(_) => "changed; its clients have to connect again",
            None => "opened",
        };
        let door = Door {
            broker: Arc::clone(&self.broker),
            max_packet_size: settings.access.max_packet_size.min(self.max_packet_size),
            authentication: Arc::clone(&self.authentication),
            methods: settings.authentication.clone(),
        };
        let entrance = Entrance::new(door, settings, tls.map(Arc::new), Arc::clone(&self.all));
        (entrance, Some(what))
    }

    /// Accepts from these sockets; those that `before` accepts from already, by the same way, are left alone.
    fn accept(&mut self, next: Next) {
        let Next {
            entrance,
            sockets,
            before,
        } = next;
        let (mut running, same) = match before {
            Some(open) => (open.sockets, Arc::ptr_eq(&open.entrance, &entrance)),
            None => (Vec::new(), false),
        };
        let mut all = Vec::new();
        for (place, socket) in sockets {
            let is_running = |(_, it): &(Place, Accepting)| Arc::ptr_eq(&it.socket, &socket);
            let at = running.iter().position(is_running).filter(|_| same);
            let accepting = match at {
                Some(at) => running.swap_remove(at).1,
                None => Accepting {
                    task: self
                        .accepting
                        .spawn(Arc::clone(&entrance).accept(Arc::clone(&socket))),
                    socket,
                },
            };
            all.push((place, accepting));
        }
        running.iter().for_each(|(_, it)| it.task.abort());
        self.open.push(Open {
            entrance,
            sockets: all,
        });
    }

    /// Sets how many connections there may be through all of them.
    pub fn set_max_connections(&self, max: usize) {
        self.all.set_max(max);
    }

    /// Where they listen.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn listening(&self) -> Result<Vec<Listening>, Error> {
        let mut all = Vec::new();
        for open in &self.open {
            for (_, accepting) in &open.sockets {
                all.push(listening(open.entrance.settings(), &accepting.socket)?);
            }
        }
        Ok(all)
    }

    /// Accepts no more.
    pub async fn shut_down(&mut self) {
        self.accepting.shutdown().await;
        self.open.clear();
    }
}

/// Hands an entrance what was just read of its certificates; whether it has any.
fn take_over(entrance: &Entrance, fresh: Option<Tls>) -> bool {
    let both = entrance.tls().zip(fresh);
    both.map(|(tls, fresh)| tls.take_over(fresh)).is_some()
}

impl Open {
    /// What people know it by: where it listens.
    fn name(&self) -> String {
        let sockets = self.sockets.iter().map(|(_, it)| &it.socket);
        names(self.entrance.settings(), sockets)
    }
}

fn name_of(settings: &ListenerSettings, sockets: &[(Place, Arc<ListeningSocket>)]) -> String {
    names(settings, sockets.iter().map(|(_, socket)| socket))
}

fn names<'a>(
    settings: &ListenerSettings,
    sockets: impl Iterator<Item = &'a Arc<ListeningSocket>>,
) -> String {
    let names = sockets.filter_map(|socket| listening(settings, socket).ok());
    let names: Vec<String> = names.map(|it| it.to_string()).collect();
    names.join(", ")
}

fn listening(settings: &ListenerSettings, socket: &ListeningSocket) -> Result<Listening, Error> {
    let websocket = settings.websocket.as_ref();
    Ok(Listening {
        protocol: settings.protocol(),
        address: socket.address().map_err(Error::Start)?,
        path: websocket.map_or(String::new(), |it| it.paths.first().to_owned()),
    })
}

fn places(listener: &Listener) -> Result<Vec<Place>, Error> {
    let mut places = Vec::new();
    for bind in &listener.bind {
        match bind.resolve() {
            Ok(addresses) => places.extend(
                addresses
                    .into_iter()
                    .map(|address| Place::Tcp(address, listener.interface.clone())),
            ),
            Err(source) => {
                return Err(Error::Listen {
                    bind: bind.to_string(),
                    source,
                });
            }
        }
    }
    places.extend(listener.socket.clone().map(Place::Unix));
    Ok(places)
}

impl Place {
    /// Whether both cannot be open at once without care: the same port, or the same file.
    fn overlaps(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Tcp(one, _), Place::Tcp(other, _)) => {
                one.port() == other.port() && one.port() != 0 && one.is_ipv4() == other.is_ipv4()
            }
            (Place::Unix(one), Place::Unix(other)) => one.path == other.path,
            _ => false,
        }
    }

    /// Opens it; `in_the_way` are sockets of this process that will be closed or have the port at
    /// another address.
    fn open(
        &self,
        in_the_way: &[&ListeningSocket],
        backlog: i32,
    ) -> Result<ListeningSocket, Error> {
        let opened = match self {
            Place::Tcp(address, interface) => {
                let interface = interface.as_deref();
                let bound = match in_the_way {
                    [] => bind_tcp(*address, interface, backlog),
                    open => bind_tcp_beside(open, *address, interface, backlog),
                };
                bound.map(ListeningSocket::Tcp)
            }
            Place::Unix(file) if !in_the_way.is_empty() => {
                ListeningSocket::bind_unix_unnamed(file, backlog)
            }
            Place::Unix(file) => ListeningSocket::bind_unix(file, backlog),
        };
        opened.map_err(|source| Error::Listen {
            bind: self.to_string(),
            source,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address, None) => address.fmt(f),
            Place::Tcp(address, Some(interface)) => write!(f, "{address} at {interface}"),
            Place::Unix(file) => file.path.display().fmt(f),
        }
    }
}

/// Opens the sockets of what is no listener for MQTT.
///
/// # Errors
/// An address cannot be used.
pub(super) fn bind_plain(binds: &[Bind]) -> Result<Vec<TcpListener>, Error> {
    let mut open = Vec::new();
    for bind in binds {
        let sockets = bind.resolve().and_then(|addresses| {
            let sockets = addresses.into_iter();
            let sockets = sockets.map(|address| bind_tcp(address, None, BACKLOG));
            sockets.collect::<io::Result<Vec<_>>>()
        });
        open.extend(sockets.map_err(|source| Error::Listen {
            bind: bind.to_string(),
            source,
        })?);
    }
    Ok(open)
}

/// Reads files again when they have changed, and warns of certificates that expire soon, for ever.
pub(super) async fn watch(listeners: Arc<TlsListeners>) {
    let mut since_warned = EXPIRY_INTERVAL;
    let mut known = HashSet::new();
    loop {
        let (all, now) = (listeners.all(), clock::wall_seconds());
        let expired = |tls: &Arc<Tls>| tls.expired(now);
        let is_due = since_warned >= EXPIRY_INTERVAL;
        for (_, tls) in &all {
            // What has just expired is said at once.
            if is_due || expired(tls).iter().any(|file| !known.contains(file)) {
                warn_of_expiry(tls);
            }
        }
        if is_due {
            since_warned = Duration::ZERO;
        }
        known = all.iter().flat_map(|(_, tls)| expired(tls)).collect();
        sleep(FILE_INTERVAL).await;
        since_warned += FILE_INTERVAL;
        for (_, tls) in listeners.all() {
            // Files are read where waiting for a disk holds up no connection.
            let _ = spawn_blocking(move || {
                if tls.has_changed() {
                    reload(&tls);
                }
            })
            .await;
        }
    }
}

fn reload(tls: &Tls) {
    match tls.reload(clock::wall_seconds()) {
        Ok(()) => {
            tracing::info!(certificate = %tls.name(), "certificates read again");
            warn_of_expiry(tls);
        }
        Err(error) => {
            tracing::error!(%error, "certificates not read again: what was read before stays in force");
        }
    }
}

fn warn_of_expiry(tls: &Tls) {
    for (file, days) in tls.expiring(clock::wall_seconds()) {
        if days < 0 {
            tracing::error!(file = %file.display(), days = -days, "the certificate has expired: it is served all the same, and clients that check it do not connect");
        } else {
            tracing::warn!(file = %file.display(), days, "the certificate expires soon");
        }
    }
    let now = clock::wall_seconds();
    let past = tls.next_update().filter(|(_, next)| *next < now);
    if let Some((file, next)) = past {
        let (file, days) = (file.display(), (now - next) / 86_400);
        match tls.settings().crl_expired {
            CrlExpired::Refuse => {
                tracing::error!(%file, days, "the revocation list has expired: clients that show a certificate are refused (crl_expired)");
            }
            CrlExpired::Accept => {
                tracing::warn!(%file, days, "the revocation list has expired: what has been revoked since is not known (crl_expired)");
            }
        }
    }
}
