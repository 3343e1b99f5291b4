//! A connection to the server as `pub` and `sub` use it: blocking. TLS and WebSocket run on a
//! thread of their own.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::copy_bidirectional;

use super::exit::{self, Failure};
use super::options::Settings;
use super::transport::Layers;
use crate::net::socket::tcp_progress;

/// A connection to the server that carries plain MQTT for its user.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// A socket pair to the thread that runs TLS and WebSocket, the error that happened there, and
    /// the TCP connection.
    Tunnel(UnixStream, Arc<Mutex<Option<String>>>, Arc<TcpStream>),
}

impl Stream {
    /// Connects as the settings say.
    ///
    /// # Errors
    /// Fails if the host is not known, does not answer, or has the wrong certificate.
    pub fn open(settings: &Settings) -> Result<Stream, Failure> {
        let transport = &settings.transport;
        if let Some(path) = &transport.unix {
            let failed = |error| {
                let what = format!("no connection to {}: {error}", path.display());
                Failure::new(exit::FAILED, what)
            };
            let stream = UnixStream::connect(path).map_err(failed)?;
            return Ok(Stream::Unix(stream));
        }
        let system = |error: io::Error| Failure::new(exit::FAILED, error.to_string());
        let layers = transport.layers(&settings.host, settings.port, settings.version)?;
        let stream = connect(settings)?;
        stream.set_nodelay(true).map_err(system)?;
        let Some(layers) = layers else {
            return Ok(Stream::Tcp(stream));
        };
        let (here, there) = UnixStream::pair().map_err(system)?;
        let trouble = Arc::default();
        let below = Arc::new(stream.try_clone().map_err(system)?);
        let (opened, told) = sync_channel(1);
        let tunnel = Tunnel {
            stream,
            there,
            layers,
            timeout: settings.connect_timeout,
        };
        let noted = Arc::clone(&trouble);
        thread::spawn(move || tunnel.run(&opened, &noted));
        match told.recv() {
            Ok(Ok(())) => Ok(Stream::Tunnel(here, trouble, below)),
            Ok(Err(why)) => Err(Failure::new(exit::FAILED, why)),
            Err(_) => Err(Failure::new(exit::FAILED, "no connection")),
        }
    }

    /// Returns another handle of the same connection.
    ///
    /// # Errors
    /// Fails if the operating system has no more descriptors.
    pub fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
            Stream::Tunnel(stream, trouble, below) => {
                Stream::Tunnel(stream.try_clone()?, Arc::clone(trouble), Arc::clone(below))
            }
        })
    }

    /// Returns a count of the bytes sent and received. A slow connection is not a dead one as long
    /// as the count grows. `None` if it is not known.
    pub fn progress(&self) -> Option<u64> {
        match self {
            Stream::Tcp(stream) => tcp_progress(stream),
            Stream::Unix(_) => None,
            Stream::Tunnel(_, _, below) => tcp_progress(&**below),
        }
    }

    /// Sets the time limit of a write.
    ///
    /// # Errors
    /// Fails if the operating system refuses.
    pub fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
            Stream::Unix(stream) | Stream::Tunnel(stream, ..) => {
                stream.set_write_timeout(Some(timeout))
            }
        }
    }

    /// Closes the sending direction.
    ///
    /// # Errors
    /// Fails if the connection is lost.
    pub fn close_sending(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) | Stream::Tunnel(stream, ..) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(into),
            Stream::Unix(stream) => stream.read(into),
            Stream::Tunnel(stream, trouble, _) => match stream.read(into)? {
                0 => {
                    let mut trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
                    trouble
                        .take()
                        .map_or(Ok(0), |why| Err(io::Error::other(why)))
                }
                count => Ok(count),
            },
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) | Stream::Tunnel(stream, ..) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Translates between TLS and WebSocket on one side and plain MQTT on the other.
struct Tunnel {
    stream: TcpStream,
    there: UnixStream,
    layers: Layers,
    timeout: Duration,
}

impl Tunnel {
    fn run(self, opened: &SyncSender<Result<(), String>>, trouble: &Mutex<Option<String>>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let ended = match runtime {
            Ok(runtime) => runtime.block_on(self.carry(opened)),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            let why = error.to_string();
            *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
            // There is no receiver any more if the connection had been opened.
            let _ = opened.try_send(Err(why));
        }
    }

    /// Copies bytes until one side ends. The plain side is closed after this returns, when the
    /// reason is known.
    async fn carry(self, opened: &SyncSender<Result<(), String>>) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        self.there.set_nonblocking(true)?;
        let mut plain = tokio::net::UnixStream::from_std(self.there)?;
        let stream = tokio::net::TcpStream::from_std(self.stream)?;
        let mut far = tokio::time::timeout(self.timeout, self.layers.open(stream))
            .await
            .map_err(|_| io::Error::other("timed out in the handshake"))??;
        let _ = opened.send(Ok(()));
        copy_bidirectional(&mut plain, &mut far).await?;
        Ok(())
    }
}

fn connect(settings: &Settings) -> Result<TcpStream, Failure> {
    let (host, port) = match &settings.transport.proxy {
        Some(proxy) => (proxy.address.host.as_str(), proxy.address.port),
        None => (settings.host.as_str(), settings.port),
    };
    let resolved = (host, port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = resolved
        .map_err(|error| Failure::new(exit::FAILED, format!("{host}: {error}")))?
        .collect();
    let mut failure = Failure::new(exit::FAILED, format!("{host} has no address"));
    for address in addresses {
        match connect_to(address, settings.bind_address, settings.connect_timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                failure =
                    Failure::new(exit::FAILED, format!("no connection to {address}: {error}"));
            }
        }
    }
    Err(failure)
}

fn connect_to(to: SocketAddr, from: Option<IpAddr>, timeout: Duration) -> io::Result<TcpStream> {
    let Some(from) = from else {
        return TcpStream::connect_timeout(&to, timeout);
    };
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), timeout)?;
    Ok(socket.into())
}
