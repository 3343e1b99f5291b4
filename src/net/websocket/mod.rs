//! MQTT over WebSocket (MQTT 5 section 6) as a stream of bytes.
//!
//! MQTT packets may be split over frames and joined in them \[MQTT-6.0.0-2\]. No frame is ever
//! kept: its payload is passed on as it comes, so a frame may have any length.

pub mod frame;
mod frame_writer;
mod handshake;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(in crate::net) use handshake::{MAX_HEADERS, read_head};
pub use handshake::{Origins, Paths, WebSocketSettings, accept, connect};

use super::socket::{Socket, Stream};
use crate::clock;
use frame::{Decoder, End, Role};
use frame_writer::FrameWriter;

/// Bytes of the largest frame that a client sends. Masking copies them.
const CLIENT_FRAME: usize = 16 * 1024;

/// An open WebSocket connection.
#[derive(Debug)]
pub struct WebSocket<S> {
    inner: S,
    role: Role,
    decoder: Decoder,
    /// Bytes that came behind the handshake.
    early: Vec<u8>,
    /// Writes a server's data frames.
    writer: FrameWriter,
    /// Whole frames to be written between data frames. Also a client's data frames.
    pending: Vec<u8>,
    pending_at: usize,
    close_sent: bool,
}

impl<S: Stream> Stream for WebSocket<S> {
    fn socket(&self) -> Option<&Socket> {
        self.inner.socket()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// `by_packet`: a server sends one frame per packet.
    fn new(inner: S, role: Role, early: Vec<u8>, by_packet: bool) -> WebSocket<S> {
        WebSocket {
            inner,
            role,
            decoder: Decoder::new(role),
            early,
            writer: FrameWriter::new(by_packet),
            pending: Vec::new(),
            pending_at: 0,
            close_sent: false,
        }
    }

    fn mask(&self) -> Option<[u8; 4]> {
        (self.role == Role::Client).then(|| (clock::seed() as u32).to_be_bytes())
    }

    /// Queues the answers to the peer's control frames.
    fn answer(&mut self) {
        // A peer that sends Pings and does not read gets one Pong.
        if self.pending.is_empty()
            && !self.close_sent
            && let Some(payload) = self.decoder.take_pong()
        {
            frame::encode_pong(&payload, self.mask(), &mut self.pending);
        }
        match self.decoder.end() {
            Some(End::Closed) => self.close(1000),
            Some(End::Fault(status, _)) => self.close(status),
            None => {}
        }
    }

    fn close(&mut self, status: u16) {
        if !self.close_sent {
            self.close_sent = true;
            frame::encode_close(status, self.mask(), &mut self.pending);
        }
    }

    /// Writes the queued frames, unless a data frame is not whole.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pending.is_empty() || self.writer.is_inside_frame() {
            return Poll::Ready(Ok(()));
        }
        while self.pending_at < self.pending.len() {
            let rest = &self.pending[self.pending_at..];
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.pending_at += count,
            }
        }
        self.pending = Vec::new();
        self.pending_at = 0;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_write_masked(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        let count = bytes.len().min(CLIENT_FRAME);
        frame::encode_binary(&bytes[..count], self.mask(), &mut self.pending);
        // What cannot be written now is written with the next write or flush.
        if let Poll::Ready(Err(error)) = self.poll_pending(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(count))
    }

    /// Reads bytes as the peer sent them.
    fn poll_raw(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.early.is_empty() {
            let mut raw = ReadBuf::new(into);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut raw))?;
            return Poll::Ready(Ok(raw.filled().len()));
        }
        let count = self.early.len().min(into.len());
        into[..count].copy_from_slice(&self.early[..count]);
        self.early = self.early.split_off(count);
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            // A failed write is an error for reading, too. A full socket does not prevent reading.
            if let Poll::Ready(Err(error)) = this.poll_pending(cx) {
                return Poll::Ready(Err(error));
            }
            match this.decoder.end() {
                Some(End::Closed) => return Poll::Ready(Ok(())),
                Some(End::Fault(_, what)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
                }
                None => {}
            }
            let space = buf.initialize_unfilled();
            if space.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let count = ready!(this.poll_raw(cx, space))?;
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            let payload = this.decoder.decode(&mut space[..count]);
            this.answer();
            if payload > 0 {
                buf.advance(payload);
                let _ = this.poll_pending(cx)?;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.close_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.role == Role::Client {
            return this.poll_write_masked(cx, bytes);
        }
        if !this.writer.is_inside_frame() {
            ready!(this.poll_pending(cx))?;
        }
        this.writer.poll_write(&mut this.inner, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_pending(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    /// Sends a Close frame, then closes the sending side.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.close(1000);
        ready!(this.poll_pending(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    async fn pair(
        buffer: usize,
    ) -> (
        WebSocket<tokio::io::DuplexStream>,
        WebSocket<tokio::io::DuplexStream>,
    ) {
        let (a, b) = duplex(buffer);
        let settings = WebSocketSettings {
            paths: Paths::default(),
            origins: Origins::All,
            frame_per_packet: true,
        };
        let (server, client) = tokio::join!(accept(a, &settings), connect(b, "h", "/mqtt", "mqtt"));
        (server.expect("accepted"), client.expect("connected"))
    }

    #[test]
    fn bytes_go_both_ways_through_a_pipe_of_any_width() {
        for width in [1, 2, 3, 7, 64, 100_000] {
            block_on(async {
                let (mut server, mut client) = pair(width).await;
                let sent: Vec<u8> = (0..30_000u32).map(|n| (n * 7) as u8).collect();
                let sent = &sent;
                let there = async {
                    client.write_all(sent).await.expect("written");
                    client.flush().await.expect("flushed");
                    let mut back = vec![0; sent.len()];
                    client.read_exact(&mut back).await.expect("read");
                    assert_eq!(&back, sent);
                    client.shutdown().await.expect("shut down");
                    assert_eq!(client.read(&mut back).await.expect("an end"), 0);
                };
                let here = async move {
                    let mut got = vec![0; sent.len()];
                    server.read_exact(&mut got).await.expect("read");
                    assert_eq!(&got, sent);
                    server.write_all(&got).await.expect("written");
                    server.flush().await.expect("flushed");
                    assert_eq!(server.read(&mut got).await.expect("an end"), 0);
                };
                tokio::join!(there, here);
            });
        }
    }

    #[test]
    fn a_ping_is_answered_and_an_idle_connection_holds_nothing() {
        block_on(async {
            let (mut server, client) = pair(1000).await;
            let mut raw = client.inner;
            raw.write_all(&[
                0x89, 0x82, 0, 0, 0, 0, b'h', b'i', 0x82, 0x81, 0, 0, 0, 0, 7,
            ])
            .await
            .expect("written");
            let mut got = [0; 8];
            assert_eq!(server.read(&mut got).await.expect("payload"), 1);
            assert_eq!(got[0], 7);
            let mut pong = [0; 4];
            raw.read_exact(&mut pong).await.expect("a Pong");
            assert_eq!(pong, [0x8A, 2, b'h', b'i']);
            assert_eq!(server.pending.capacity() + server.early.capacity(), 0);
            assert!(std::mem::size_of_val(&server.decoder) <= 128);
        });
    }

    #[test]
    fn a_text_frame_is_answered_with_close_1003() {
        block_on(async {
            let (mut server, client) = pair(1000).await;
            let mut raw = client.inner;
            raw.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'x'])
                .await
                .expect("written");
            let error = server.read(&mut [0; 8]).await.expect_err("an error");
            assert_eq!(error.to_string(), "a text frame");
            let mut close = [0; 4];
            raw.read_exact(&mut close).await.expect("a Close");
            assert_eq!(close, [0x88, 2, 0x03, 0xEB]);
        });
    }
}
