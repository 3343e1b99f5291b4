//! The listeners of a configuration: opens them, replaces them at a reload, and keeps their
//! certificates fresh.

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
use crate::config::{self, Bind, Config};
use crate::limits::Limits;
use crate::net::auth::{Authentication, Authenticator, Problem};
use crate::net::connection::ConnectionContext;
use crate::net::listener::{ConnectionLimit, Listener, ListenerSettings, Protocol};
use crate::net::lock_stats::Purpose;
use crate::net::shared_broker::SharedBroker;
use crate::net::socket::{
    ListenAddress, ListeningSocket, SocketFile, bind_tcp, bind_tcp_sharing_port,
};
use crate::net::tls::{CrlExpired, Tls, TlsError, TlsListeners};

/// Connections to a metrics address that wait until they are accepted.
const BACKLOG: i32 = 128;
/// How often certificate, key, authority and revocation list files are checked. A changed file is
/// read when it has not changed for this long.
const FILE_INTERVAL: Duration = Duration::from_secs(2);
/// How often the log warns of certificates that expire soon.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(86_400);

/// An address where clients can connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The protocol.
    pub protocol: Protocol,
    /// The address, with the port that was really bound.
    pub address: ListenAddress,
    /// The path of the URL. Empty except for WebSocket.
    pub path: String,
}

impl fmt::Display for Endpoint {
    /// Writes a URL. A Unix socket has none: it is written as `unix:` and its path.
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

/// Reads the TLS files of all listeners, and checks those of all bridges. A listener without TLS
/// has `None`.
///
/// # Errors
/// The first problem of each listener and bridge.
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
    // A bridge reads its files for each connection. Here they are only checked.
    let bridges = config.bridges.iter();
    let secured = bridges.filter_map(|bridge| bridge.transport.tls.as_ref());
    problems.extend(secured.filter_map(|(tls, _)| tls.config().err()));
    if problems.is_empty() {
        Ok(loaded)
    } else {
        Err(problems)
    }
}

/// Reads the files that the authentication of all listeners needs.
///
/// # Errors
/// All problems of these files.
pub fn load_authenticator(config: &Config) -> Result<Authenticator, Vec<Problem>> {
    let listeners = config.listeners.iter();
    Authenticator::load(listeners.flat_map(|listener| &listener.settings.authentication))
}

/// All open listeners.
#[derive(Debug)]
pub(super) struct Listeners {
    broker: Arc<SharedBroker>,
    authentication: Arc<Authentication>,
    process_limit: Arc<ConnectionLimit>,
    max_packet_size: u32,
    open: Vec<OpenListener>,
    /// Their TLS, for the metrics and [`watch_files`].
    pub tls: Arc<TlsListeners>,
    accepting: JoinSet<()>,
}

#[derive(Debug)]
struct OpenListener {
    listener: Arc<Listener>,
    sockets: Vec<(SocketSpec, AcceptTask)>,
}

/// A socket, and the task that accepts from it.
#[derive(Debug)]
struct AcceptTask {
    socket: Arc<ListeningSocket>,
    task: AbortHandle,
}

/// The settings of a listening socket. Two listeners with equal settings use the same socket.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SocketSpec {
    Tcp(SocketAddr, Option<String>),
    Unix(SocketFile),
}

/// Listeners that are ready to be applied: everything they need is read and open.
pub(super) struct Prepared(Vec<PreparedListener>);

struct PreparedListener {
    settings: ListenerSettings,
    tls: Option<Tls>,
    sockets: Vec<(SocketSpec, Arc<ListeningSocket>)>,
}

/// A listener to be applied, and the open listener whose sockets it keeps.
struct Replacement {
    listener: Arc<Listener>,
    sockets: Vec<(SocketSpec, Arc<ListeningSocket>)>,
    before: Option<OpenListener>,
}

impl Listeners {
    /// Creates an empty set.
    pub fn new(
        broker: Arc<SharedBroker>,
        authentication: Arc<Authentication>,
        limits: &Limits,
    ) -> Listeners {
        Listeners {
            broker,
            authentication,
            process_limit: ConnectionLimit::new(limits.max_connections),
            max_packet_size: limits.max_packet_size,
            open: Vec::new(),
            tls: Arc::default(),
            accepting: JoinSet::new(),
        }
    }

    /// Opens the sockets that are not open yet. Nothing else changes, and nothing is accepted.
    /// `tls` has an entry for each listener of the configuration.
    ///
    /// # Errors
    /// A listener that is not optional cannot be opened.
    pub fn prepare(&self, config: &Config, tls: Vec<Option<Tls>>) -> Result<Prepared, Error> {
        let open = self.open.iter().flat_map(|open| &open.sockets);
        let mut free: Vec<(&SocketSpec, &Arc<ListeningSocket>)> = open
            .map(|(spec, accepting)| (spec, &accepting.socket))
            .collect();
        let all = free.clone();
        let mut listeners = Vec::new();
        for (listener, tls) in config.listeners.iter().zip(tls) {
            let mut sockets = Vec::new();
            for spec in socket_specs(listener)? {
                if let Some(at) = free.iter().position(|(open, _)| **open == spec) {
                    sockets.push((spec, Arc::clone(free.remove(at).1)));
                    continue;
                }
                let overlapping: Vec<&ListeningSocket> = all
                    .iter()
                    .filter(|(open, _)| open.overlaps(&spec))
                    .map(|(_, socket)| &***socket)
                    .collect();
                match spec.open(&overlapping, listener.settings.backlog) {
                    Ok(socket) => sockets.push((spec, Arc::new(socket))),
                    Err(error) if listener.optional => {
                        tracing::info!(%error, "not listening there");
                    }
                    Err(error) => return Err(error),
                }
            }
            listeners.push(PreparedListener {
                settings: listener.settings.clone(),
                tls,
                sockets,
            });
        }
        Ok(Prepared(listeners))
    }

    /// Replaces the open listeners. `apply_rest` is called under the same lock of the broker. A
    /// listener that keeps a socket and its settings keeps its connections. Returns a line for each
    /// changed listener.
    pub fn apply(
        &mut self,
        prepared: Prepared,
        apply_rest: impl FnOnce(&mut Broker, Now),
    ) -> Vec<String> {
        let mut old: Vec<Option<OpenListener>> = self.open.drain(..).map(Some).collect();
        let mut changes = Vec::new();
        let mut next = Vec::new();
        for PreparedListener {
            settings,
            tls,
            sockets,
        } in prepared.0
        {
            let name = name_of(&settings, &sockets);
            let keeps = |open: &OpenListener| {
                let mut kept = open.sockets.iter().map(|(_, it)| &it.socket);
                kept.any(|kept| sockets.iter().any(|(_, socket)| Arc::ptr_eq(socket, kept)))
            };
            let before = old.iter_mut().find(|open| open.as_ref().is_some_and(keeps));
            let before = before.and_then(Option::take);
            let current = before.as_ref().map(|open| &open.listener);
            let (listener, what) = self.listener(current, settings, tls);
            changes.extend(what.map(|what| format!("{name}: {what}")));
            for (_, socket) in &sockets {
                if let Err(error) = socket.rename_into_place() {
                    tracing::error!(%error, listener = name, "the Unix socket has no name: nobody can connect to it");
                }
                if let Err(error) = socket.set_backlog(listener.settings().backlog) {
                    tracing::warn!(%error, listener = name, "the backlog stays as it was");
                }
            }
            next.push(Replacement {
                listener,
                sockets,
                before,
            });
        }
        self.close_removed(&old, &next, apply_rest, &mut changes);
        for next in next {
            self.accept(next);
        }
        // The rest of the old listeners is closed by now. Their sockets are dropped with their
        // tasks.
        for open in old.into_iter().flatten() {
            open.sockets.iter().for_each(|(_, it)| it.task.abort());
        }
        while self.accepting.try_join_next().is_some() {}
        self.tls.set(
            self.open
                .iter()
                .filter_map(|open| Some((open.name(), Arc::clone(open.listener.tls()?))))
                .collect(),
        );
        changes
    }

    /// Closes the listeners that are replaced or removed, and calls `apply_rest`, under one lock of
    /// the broker.
    fn close_removed(
        &self,
        old: &[Option<OpenListener>],
        next: &[Replacement],
        apply_rest: impl FnOnce(&mut Broker, Now),
        changes: &mut Vec<String>,
    ) {
        let mut guard = self.broker.lock(Purpose::Other, None);
        let now = guard.now();
        for open in old.iter().flatten() {
            changes.push(format!("{}: closed", open.name()));
            open.listener.close(guard.broker(), now);
        }
        for next in next {
            let before = next.before.as_ref().map(|open| &open.listener);
            match before {
                Some(before) if before.shares_connections_with(&next.listener) => {
                    before.disconnect_disallowed(&next.listener, guard.broker(), now);
                }
                Some(before) => before.close(guard.broker(), now),
                None => {}
            }
        }
        apply_rest(guard.broker(), now);
    }

    /// Returns the listener for these settings, and how it changed.
    ///
    /// It is the one from before if at most its certificates changed, a replacement if the
    /// connections can stay, or else a new one.
    fn listener(
        &self,
        before: Option<&Arc<Listener>>,
        settings: ListenerSettings,
        tls: Option<Tls>,
    ) -> (Arc<Listener>, Option<&'static str>) {
        if let Some(current) = before.filter(|current| *current.settings() == settings) {
            let read = replace_certificates(current, tls);
            return (
                Arc::clone(current),
                read.then_some("certificates were read again"),
            );
        }
        if let Some(current) =
            before.filter(|current| current.settings().differs_only_in_admission(&settings))
        {
            replace_certificates(current, tls);
            let next = current.replacement(settings, current.tls().cloned());
            let what = match next.settings().has_same_address_filter(current.settings()) {
                true => "changed; its connections stay",
                false => "changed; its connections stay, but for addresses it does not let in",
            };
            return (next, Some(what));
        }
        let what = match before {
            Some(_) => "changed; its clients have to connect again",
            None => "opened",
        };
        let context = ConnectionContext {
            broker: Arc::clone(&self.broker),
            max_packet_size: settings.access.max_packet_size.min(self.max_packet_size),
            authentication: Arc::clone(&self.authentication),
            methods: settings.authentication.clone(),
        };
        let listener = Listener::new(
            context,
            settings,
            tls.map(Arc::new),
            Arc::clone(&self.process_limit),
        );
        (listener, Some(what))
    }

    /// Accepts from these sockets. Tasks of `before` that accept already for the same listener go
    /// on.
    fn accept(&mut self, next: Replacement) {
        let Replacement {
            listener,
            sockets,
            before,
        } = next;
        let (mut running, same) = match before {
            Some(open) => (open.sockets, Arc::ptr_eq(&open.listener, &listener)),
            None => (Vec::new(), false),
        };
        let mut all = Vec::new();
        for (spec, socket) in sockets {
            let is_running = |(_, it): &(SocketSpec, AcceptTask)| Arc::ptr_eq(&it.socket, &socket);
            let at = running.iter().position(is_running).filter(|_| same);
            let accepting = match at {
                Some(at) => running.swap_remove(at).1,
                None => AcceptTask {
                    task: self
                        .accepting
                        .spawn(Arc::clone(&listener).accept(Arc::clone(&socket))),
                    socket,
                },
            };
            all.push((spec, accepting));
        }
        running.iter().for_each(|(_, it)| it.task.abort());
        self.open.push(OpenListener {
            listener,
            sockets: all,
        });
    }

    /// Sets how many connections all listeners together may have.
    pub fn set_max_connections(&self, max: usize) {
        self.process_limit.set_max(max);
    }

    /// Returns all endpoints.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        let mut all = Vec::new();
        for open in &self.open {
            for (_, accepting) in &open.sockets {
                all.push(endpoint(open.listener.settings(), &accepting.socket)?);
            }
        }
        Ok(all)
    }

    /// Stops accepting and closes all listeners.
    pub async fn shut_down(&mut self) {
        self.accepting.shutdown().await;
        self.open.clear();
    }
}

/// Replaces the certificates of a listener. Returns whether it has any.
fn replace_certificates(listener: &Listener, fresh: Option<Tls>) -> bool {
    let both = listener.tls().zip(fresh);
    both.map(|(tls, fresh)| tls.replace(fresh)).is_some()
}

impl OpenListener {
    /// The name in logs: the endpoints.
    fn name(&self) -> String {
        let sockets = self.sockets.iter().map(|(_, it)| &it.socket);
        names(self.listener.settings(), sockets)
    }
}

fn name_of(settings: &ListenerSettings, sockets: &[(SocketSpec, Arc<ListeningSocket>)]) -> String {
    names(settings, sockets.iter().map(|(_, socket)| socket))
}

fn names<'a>(
    settings: &ListenerSettings,
    sockets: impl Iterator<Item = &'a Arc<ListeningSocket>>,
) -> String {
    let names = sockets.filter_map(|socket| endpoint(settings, socket).ok());
    let names: Vec<String> = names.map(|it| it.to_string()).collect();
    names.join(", ")
}

fn endpoint(settings: &ListenerSettings, socket: &ListeningSocket) -> Result<Endpoint, Error> {
    let websocket = settings.websocket.as_ref();
    Ok(Endpoint {
        protocol: settings.protocol(),
        address: socket.address().map_err(Error::Start)?,
        path: websocket.map_or(String::new(), |it| it.paths.first().to_owned()),
    })
}

fn socket_specs(listener: &config::Listener) -> Result<Vec<SocketSpec>, Error> {
    let mut specs = Vec::new();
    for bind in &listener.bind {
        match bind.resolve() {
            Ok(addresses) => specs.extend(
                addresses
                    .into_iter()
                    .map(|address| SocketSpec::Tcp(address, listener.interface.clone())),
            ),
            Err(source) => {
                return Err(Error::Listen {
                    bind: bind.to_string(),
                    source,
                });
            }
        }
    }
    specs.extend(listener.socket.clone().map(SocketSpec::Unix));
    Ok(specs)
}

impl SocketSpec {
    /// Whether the sockets share a port or a file, so that opening both needs care.
    fn overlaps(&self, other: &SocketSpec) -> bool {
        match (self, other) {
            (SocketSpec::Tcp(one, _), SocketSpec::Tcp(other, _)) => {
                one.port() == other.port() && one.port() != 0 && one.is_ipv4() == other.is_ipv4()
            }
            (SocketSpec::Unix(one), SocketSpec::Unix(other)) => one.path == other.path,
            _ => false,
        }
    }

    /// Opens the socket. `overlapping` are sockets of this process that will be closed, or that
    /// have the port at another address.
    fn open(
        &self,
        overlapping: &[&ListeningSocket],
        backlog: i32,
    ) -> Result<ListeningSocket, Error> {
        let opened = match self {
            SocketSpec::Tcp(address, interface) => {
                let interface = interface.as_deref();
                let bound = match overlapping {
                    [] => bind_tcp(*address, interface, backlog),
                    open => bind_tcp_sharing_port(open, *address, interface, backlog),
                };
                bound.map(ListeningSocket::Tcp)
            }
            SocketSpec::Unix(file) if !overlapping.is_empty() => {
                ListeningSocket::bind_unix_temporary(file, backlog)
            }
            SocketSpec::Unix(file) => ListeningSocket::bind_unix(file, backlog),
        };
        opened.map_err(|source| Error::Listen {
            bind: self.to_string(),
            source,
        })
    }
}

impl fmt::Display for SocketSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketSpec::Tcp(address, None) => address.fmt(f),
            SocketSpec::Tcp(address, Some(interface)) => write!(f, "{address} at {interface}"),
            SocketSpec::Unix(file) => file.path.display().fmt(f),
        }
    }
}

/// Opens the sockets for metrics.
///
/// # Errors
/// An address cannot be used.
pub(super) fn bind_metrics(binds: &[Bind]) -> Result<Vec<TcpListener>, Error> {
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

/// Reads files again when they have changed, and warns of certificates that expire soon. Never
/// returns.
pub(super) async fn watch_files(listeners: Arc<TlsListeners>) {
    let mut since_warned = EXPIRY_INTERVAL;
    let mut known = HashSet::new();
    loop {
        let (all, now) = (listeners.all(), clock::wall_seconds());
        let expired = |tls: &Arc<Tls>| tls.expired(now);
        let is_due = since_warned >= EXPIRY_INTERVAL;
        for (_, tls) in &all {
            // A certificate that has just expired is logged at once.
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
            // Reading a file may wait for a disk.
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
