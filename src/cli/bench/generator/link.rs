//! One connection: a non-blocking channel, the bytes to be written, and an incomplete packet at the
//! end of what was read.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::channel::Channel;
use crate::cli::transport::Layers;

/// Size of one read in bytes.
const READ_BYTES: usize = 128 * 1024;

/// A connection.
#[derive(Debug)]
pub struct Link {
    channel: Channel,
    out: Vec<u8>,
    written: usize,
    partial: Vec<u8>,
    can_write: bool,
    /// Whether layers hold bytes that the socket has not taken.
    layers_hold: bool,
}

impl Link {
    /// Begins to connect. The link is ready for writing after [`Link::writable`].
    ///
    /// # Errors
    /// Fails if the operating system refuses.
    pub fn open(
        addr: SocketAddr,
        layers: Option<&Layers>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Link> {
        let mut stream = TcpStream::connect(addr)?;
        // Small packets are sent at once, because batches are made here. Without it they are only
        // delayed.
        let _ = stream.set_nodelay(true);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Link {
            channel: Channel::new(stream, layers),
            out: Vec::new(),
            written: 0,
            partial: Vec::new(),
            can_write: false,
            layers_hold: false,
        })
    }

    /// Returns the buffer for packets, which the next [`Link::flush`] writes.
    #[inline]
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Returns the number of bytes to be written.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.out.len() - self.written
    }

    /// Handles that the socket is ready for writing.
    ///
    /// # Errors
    /// Fails if connecting has failed.
    pub fn writable(&mut self) -> io::Result<()> {
        // Also reported with every packet that arrives, when there is nothing to check.
        if !self.can_write {
            if let Some(error) = self.channel.take_error()? {
                return Err(error);
            }
            self.can_write = true;
        }
        Ok(())
    }

    /// Makes the next [`Link::flush`] try to write even if the socket was not reported ready: a
    /// layer may take bytes now.
    pub fn try_again(&mut self) {
        self.can_write = true;
    }

    /// Returns whether there is TLS or WebSocket.
    #[inline]
    pub fn has_layers(&self) -> bool {
        self.channel.has_layers()
    }

    /// Returns whether [`Link::flush`] has something to do.
    #[inline]
    pub fn wants_flush(&self) -> bool {
        self.waiting() > 0 || self.layers_hold
    }

    /// Writes as much as the operating system takes.
    ///
    /// # Errors
    /// Fails if the connection is lost.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.can_write && (self.written < self.out.len() || self.layers_hold) {
            let done = match &self.out[self.written..] {
                [] => self.channel.flush().map(|()| self.layers_hold = false),
                rest => match self.channel.write(rest) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        self.written += count;
                        self.layers_hold = self.channel.has_layers();
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

    /// Reads once, after the incomplete packet of the previous read, so that `into` begins with
    /// complete packets. Returns the length filled, and whether there may be more to read.
    ///
    /// # Errors
    /// Fails if the connection is lost, or the peer has closed it.
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
                    // With edge triggering a short read means that the socket is empty, and later
                    // bytes are reported again. A layer may hold more.
                    let more = kept + count == into.len() || self.channel.has_layers();
                    return Ok((kept + count, more));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((0, false)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps an incomplete packet until the rest arrives.
    pub fn keep(&mut self, rest: &[u8]) {
        self.partial.extend_from_slice(rest);
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.channel.close();
    }
}
