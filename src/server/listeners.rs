//! Opening the listeners of a configuration, and keeping their certificates fresh.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use super::Error;
use crate::clock;
use crate::config::{Bind, Config, Listener};
use crate::net::core::Core;
use crate::net::listener::{Census, Entrance, Protocol};
use crate::net::socket::{ListenAddress, ListeningSocket, bind_tcp};
use crate::net::tls::{Tls, TlsError};

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
pub fn load_tls(config: &Config) -> Result<Vec<Option<Arc<Tls>>>, Vec<TlsError>> {
    let (mut loaded, mut problems) = (Vec::new(), Vec::new());
    for listener in &config.listeners {
        let tls = listener.settings.tls.clone();
        match tls.map(|settings| Tls::load(settings, clock::wall_seconds())) {
            None => loaded.push(None),
            Some(Ok(tls)) => loaded.push(Some(Arc::new(tls))),
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

/// Opens all listeners, then accepts connections, as tasks of the set: nobody is let in if one of the listeners cannot be opened.
///
/// # Errors
/// A listener cannot be opened that is not optional.
pub(super) fn open(
    config: &Config,
    core: &Arc<Core>,
    tls: &[Option<Arc<Tls>>],
    accepting: &mut JoinSet<()>,
) -> Result<Vec<Listening>, Error> {
    let all = Census::new(config.limits.max_connections);
    let (mut sockets, mut told) = (Vec::new(), Vec::new());
    for (listener, tls) in config.listeners.iter().zip(tls) {
        let settings = listener.settings.clone();
        let websocket = settings.websocket.as_ref();
        let path = websocket.map_or(String::new(), |it| it.path.clone());
        let protocol = settings.protocol();
        let entrance = Entrance::new(
            Arc::clone(core),
            settings,
            tls.clone(),
            config.limits.max_packet_size,
            Arc::clone(&all),
        );
        for socket in bind(listener)? {
            told.push(Listening {
                protocol,
                address: socket.address().map_err(Error::Start)?,
                path: path.clone(),
            });
            sockets.push((Arc::clone(&entrance), socket));
        }
    }
    for (entrance, socket) in sockets {
        accepting.spawn(entrance.accept(socket));
    }
    Ok(told)
}

fn bind(listener: &Listener) -> Result<Vec<ListeningSocket>, Error> {
    let backlog = listener.settings.backlog;
    let mut open = Vec::new();
    for bind in &listener.bind {
        match bind_tcp_all(bind, backlog) {
            Ok(sockets) => open.extend(sockets.into_iter().map(ListeningSocket::Tcp)),
            Err(error) if listener.optional => {
                tracing::info!(%error, "not listening there");
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(file) = &listener.socket {
        let socket = ListeningSocket::bind_unix(file, backlog);
        open.push(socket.map_err(|source| Error::Listen {
            bind: file.path.display().to_string(),
            source,
        })?);
    }
    Ok(open)
}

/// Opens the sockets of what is no listener for MQTT.
///
/// # Errors
/// An address cannot be used.
pub(super) fn bind_plain(binds: &[Bind]) -> Result<Vec<TcpListener>, Error> {
    let mut open = Vec::new();
    for bind in binds {
        open.extend(bind_tcp_all(bind, BACKLOG)?);
    }
    Ok(open)
}

fn bind_tcp_all(bind: &Bind, backlog: i32) -> Result<Vec<TcpListener>, Error> {
    let sockets = bind.resolve().and_then(|addresses| {
        let sockets = addresses
            .into_iter()
            .map(|address| bind_tcp(address, backlog));
        sockets.collect()
    });
    sockets.map_err(|source| Error::Listen {
        bind: bind.to_string(),
        source,
    })
}

/// Reads files again when they have changed, and warns of certificates that expire soon, for ever.
pub(super) async fn watch(all: Vec<Arc<Tls>>) {
    let mut since_warned = EXPIRY_INTERVAL;
    loop {
        if since_warned >= EXPIRY_INTERVAL {
            since_warned = Duration::ZERO;
            all.iter().for_each(|tls| warn_of_expiry(tls));
        }
        sleep(FILE_INTERVAL).await;
        since_warned += FILE_INTERVAL;
        for tls in &all {
            let tls = Arc::clone(tls);
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

/// Reads all files again, whether they have changed or not.
pub(super) async fn reload_all(all: &[Arc<Tls>]) {
    for tls in all {
        let tls = Arc::clone(tls);
        let _ = spawn_blocking(move || reload(&tls)).await;
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
            tracing::error!(file = %file.display(), "the certificate has expired");
        } else {
            tracing::warn!(file = %file.display(), days, "the certificate expires soon");
        }
    }
}
