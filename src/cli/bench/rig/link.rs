//! One connection: a channel that never blocks, what is to be written, and the beginning of a packet whose rest has not come.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::channel::Channel;
use crate::cli::transport::Layers;

/// Bytes read at once.
const READ_BYTES: usize = 128 * 1024;

/// A connection.
#[derive(Debug)]
pub struct Link {
    channel: Channel,
    out: Vec<u8>,
    written: usize,
    partial: Vec<u8>,
    can_write: bool,
    /// Layers hold bytes that the socket has not taken.
    held: bool,
}

impl Link {
    /// Begins to connect. It can be written to once it was told so with [`Link::writable`].
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn open(
        addr: SocketAddr,
        layers: Option<&Layers>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Link> {
        let mut stream = TcpStream::connect(addr)?;
        // Small packets leave at once; batches are made here. Without it they only take longer.
        let _ = stream.set_nodelay(true);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Link {
            channel: Channel::new(stream, layers),
            out: Vec::new(),
            written: 0,
            partial: Vec::new(),
            can_write: false,
            held: false,
        })
    }

    /// Where packets are appended that are to be sent with the next [`Link::flush`].
    #[inline]
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Bytes that wait to be written.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.out.len() - self.written
    }

    /// The operating system takes bytes, for the first time or again.
    ///
    /// # Errors
    /// It was not possible to connect.
    pub fn writable(&mut self) -> io::Result<()> {
        // Told with every packet that comes, too: then there is nothing to ask.
        if !self.can_write {
            if let Some(error) = self.channel.take_error()? {
                return Err(error);
            }
            self.can_write = true;
        }
        Ok(())
    }

    /// Lets the next [`Link::flush`] try, though nothing was told of the socket: a layer may take bytes now.
    pub fn try_again(&mut self) {
        self.can_write = true;
    }

    /// Whether there is TLS or WebSocket.
    #[inline]
    pub fn has_layers(&self) -> bool {
        self.channel.has_layers()
    }

    /// Whether [`Link::flush`] has something to do.
    #[inline]
    pub fn wants_flush(&self) -> bool {
        self.waiting() > 0 || self.held
    }

    /// Writes as much as the operating system takes.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.can_write && (self.written < self.out.len() || self.held) {
            let done = match &self.out[self.written..] {
                [] => self.channel.flush().map(|()| self.held = false),
                rest => match self.channel.write(rest) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        self.written += count;
                        self.held = self.channel.has_layers();
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            match done {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.can_write = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Reads once, to behind what was kept: `into` then begins with whole packets. Returns how much of it is filled, and whether there may be
    /// more to read.
    ///
    /// # Errors
    /// The connection is lost, or the peer has closed it.
    pub fn read(&mut self, into: &mut Vec<u8>) -> io::Result<(usize, bool)> {
        let kept = self.partial.len();
        if into.len() < kept + READ_BYTES {
            into.resize(kept + READ_BYTES, 0);
        }
        into[..kept].copy_from_slice(&self.partial);
        loop {
            match self.channel.read(&mut into[kept..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.partial.clear();
                    // With edge triggering a short read says that the socket is empty: what comes later is told anew. A layer may hold more.
                    let more = kept + count == into.len() || self.channel.has_layers();
                    return Ok((kept + count, more));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((0, false)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the beginning of a packet until the rest comes.
    pub fn keep(&mut self, rest: &[u8]) {
        self.partial.extend_from_slice(rest);
    }

    /// Closes it.
    pub fn close(&mut self) {
        self.channel.close();
    }
}
