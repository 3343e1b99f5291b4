//! The byte stream of a link: a socket, or TLS and WebSocket on a socket, driven by readiness of
//! the socket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use mio::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::cli::transport::{Layered, Layers};

type Handshake = Pin<Box<dyn Future<Output = io::Result<Box<dyn Layered>>> + Send>>;

/// A byte stream. After `WouldBlock` the caller waits until the socket is ready.
pub enum Channel {
    /// A socket.
    Plain(TcpStream),
    /// The handshakes of the layers.
    Opening(Handshake),
    /// A socket with layers.
    Layered(Box<dyn Layered>),
    /// Closed.
    Closed,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Channel::Plain(_) => "Plain",
            Channel::Opening(_) => "Opening",
            Channel::Layered(_) => "Layered",
            Channel::Closed => "Closed",
        })
    }
}

impl Channel {
    /// Creates a channel from a socket that is connected or connecting. The layers are opened on
    /// it.
    pub fn new(stream: TcpStream, layers: Option<&Layers>) -> Channel {
        match layers {
            None => Channel::Plain(stream),
            Some(layers) => Channel::Opening(Box::pin(layers.clone().open(Socket(stream)))),
        }
    }

    /// Returns whether bytes pass a layer, which may hold more than the socket.
    pub fn has_layers(&self) -> bool {
        !matches!(self, Channel::Plain(_))
    }

    /// Returns why connecting failed, if it did. Layers report that themselves.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Channel::Plain(stream) => stream.take_error(),
            _ => Ok(None),
        }
    }

    /// Continues the handshakes. Returns the stream with layers when they are done.
    fn layered(&mut self) -> io::Result<&mut Box<dyn Layered>> {
        if let Channel::Opening(handshake) = self {
            match handshake.as_mut().poll(&mut context()) {
                Poll::Ready(opened) => *self = Channel::Layered(opened?),
                Poll::Pending => return Err(ErrorKind::WouldBlock.into()),
            }
        }
        match self {
            Channel::Layered(stream) => Ok(stream),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Closes the socket.
    pub fn close(&mut self) {
        // Errors do not matter: the peer sees the end of the connection in any case.
        match self {
            Channel::Plain(stream) => _ = stream.shutdown(Shutdown::Both),
            Channel::Layered(stream) => {
                let _ = Pin::new(stream).poll_shutdown(&mut context());
            }
            Channel::Opening(_) | Channel::Closed => {}
        }
        *self = Channel::Closed;
    }
}

impl Read for Channel {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Channel::Plain(stream) = self {
            return stream.read(into);
        }
        let mut buffer = ReadBuf::new(into);
        let polled = Pin::new(self.layered()?).poll_read(&mut context(), &mut buffer);
        ready(polled)?;
        Ok(buffer.filled().len())
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Channel::Plain(stream) = self {
            return stream.write(bytes);
        }
        ready(Pin::new(self.layered()?).poll_write(&mut context(), bytes))
    }

    /// Writes everything that the layers hold to the socket.
    fn flush(&mut self) -> io::Result<()> {
        if let Channel::Plain(_) = self {
            return Ok(());
        }
        ready(Pin::new(self.layered()?).poll_flush(&mut context()))
    }
}

/// Returns a context that wakes nobody. The caller polls when the socket is ready.
fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn ready<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

fn poll<T>(done: io::Result<T>) -> Poll<io::Result<T>> {
    match done {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        // Not connected yet.
        Err(error) if error.kind() == ErrorKind::NotConnected => Poll::Pending,
        done => Poll::Ready(done),
    }
}

/// The socket as the layers use it.
struct Socket(TcpStream);

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        poll(
            self.0
                .read(buf.initialize_unfilled())
                .map(|count| buf.advance(count)),
        )
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        poll(self.0.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(Shutdown::Both))
    }
}
